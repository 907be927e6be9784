"""What an index is and how it is doing: rows, fragments, versions, disk, and what its approximations cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitlens.index.database import Database, quoted
from vitlens.index.storage import Storage


@dataclass(frozen=True)
class IndexInfo:
    """The facts of an index. `disk` is in bytes, None behind an address."""

    path: str
    space: str
    dim: int
    model: str
    storage: Storage
    rows: Mapping[str, int]
    """By modality."""
    columns: tuple[str, ...]
    fragments: int
    versions: int
    disk: int | None
    structure: str
    """What finds near neighbours: "exact: every row is looked at", or the database's name for it."""
    unindexed: int
    """Rows that the structure does not hold yet; they are looked at one by one."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def look(database: Database, storage: Storage, modalities: list[str], card: Mapping[str, Any]) -> IndexInfo:
    """See how an index is doing."""
    items = database.items
    counts = {name: int(items.count_rows(f"modality IN {quoted([name])}")) for name in modalities}
    structure = next((c for c in items.list_indices() if c.name == f"{storage.searched}_idx"), None)
    kinds = {"IvfHnswSq": "IVF_HNSW_SQ", "IvfHnswFlat": "IVF_HNSW_FLAT"}
    return IndexInfo(
        path=database.path,
        space=str(card["space"]),
        dim=int(card["dim"]),
        model=str(card["model"]),
        storage=storage,
        rows={name: count for name, count in counts.items() if count},
        columns=tuple(database.columns),
        fragments=int(items.stats()["fragment_stats"]["num_fragments"]),
        versions=len(items.list_versions()),
        disk=None if database.remote else folder_size(Path(database.path)),
        structure=kinds.get(structure.index_type, structure.index_type) if structure else "exact: every row is looked at",
        unindexed=int(structure.num_unindexed_rows or 0) if structure else sum(counts.values()),
    )


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; what a writer deletes meanwhile does not count."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total
