"""Keeping an index small and quick: fragments are put together, old versions deleted, the search structures and means renewed.

It is done by whoever writes, while it has the right to write; nothing of it changes what is in the index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from vitlens.index.database import Database, quoted
from vitlens.index.query import Cone
from vitlens.index.storage import Storage

FRAGMENTS = 64
"""Fragments, and versions, above which a writer tidies up."""
LEAST_FRAGMENT, LARGEST_SHARE = 4096, 32
"""Fragments are put together until they have so many rows, or a 32nd of all: what is large is not written again and again."""
KEPT_FOR = timedelta(seconds=10)
"""Age up to which old versions stay, for readers that are in one; a reader that is left behind begins again with the newest."""
UNINDEXED, UNINDEXED_SHARE = 20_000, 0.1
"""Rows outside the search structure, searched one by one, before it takes them in."""
SAMPLE, FEW = 4096, 64
"""Rows that tell where modalities crowd, and of how many in it a modality is looked at by itself."""
DRIFT = 0.1
"""Growth after which means are computed anew."""
PARTITION = 125_000
"""Rows of a partition of the search structure."""
OUTGROWN = 2
"""Growth after which the structure is made anew; before, new rows are put beside it."""
LINKS, BREADTH = 16, 64
"""Of the graph: more take twice as long to build and find no more, see docs/search.md."""


@dataclass(frozen=True)
class Tidied:
    """What maintenance did."""

    compacted: bool = False
    indexed: bool = False
    means: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def tidy(database: Database, storage: Storage, exact_below: int, *, anyway: bool = False, structures: bool = True) -> Tidied:
    """Do what is due, or with `anyway` all there is to do; `structures` is whether the search structures may be touched.

    The caller has the right to write.
    """
    items = database.items
    stats = items.stats()
    due = anyway or int(stats["fragment_stats"]["num_fragments"]) > FRAGMENTS or items.version % FRAGMENTS == 0
    if due:
        compact(database)
    indexed = structures and index_rows(database, storage, exact_below, anyway=anyway)
    means = renew_means(database, storage, anyway=anyway)
    return Tidied(due, indexed, means)


def compact(database: Database) -> None:
    """Put small fragments together, drop deleted rows, delete old versions."""
    rows = database.items.count_rows()
    dataset = database.items.to_lance()
    dataset.optimize.compact_files(target_rows_per_fragment=max(LEAST_FRAGMENT, rows // LARGEST_SHARE))
    for name in ("items", "about"):
        database.table(name).to_lance().cleanup_old_versions(KEPT_FOR, delete_unverified=True)
        database.table(name).checkout_latest()


def index_rows(database: Database, storage: Storage, exact_below: int, *, anyway: bool = False) -> bool:
    """Make the search structures, where there are enough rows for them, or give them the rows that came since."""
    from lancedb.index import Bitmap, BTree, HnswFlat, HnswSq

    items = database.items
    rows = items.count_rows()
    there = {config.name: config for config in items.list_indices()}
    name = f"{storage.searched}_idx"
    made = int((database.about("structure") or {}).get("rows", 0))
    if name not in there or rows > OUTGROWN * made:
        if rows < exact_below:
            return False
        parts = max(1, round(rows / PARTITION))
        kind: Any = HnswFlat if storage.coarse else HnswSq
        config = kind(distance_type=storage.metric, num_partitions=parts, m=LINKS, ef_construction=BREADTH)
        items.create_index(storage.searched, config=config)
        for column, scalar in (("key", BTree()), ("file", BTree()), ("modality", Bitmap())):
            items.create_index(column, config=scalar)
        database.write_about("structure", {"rows": rows})
        return True
    waiting = int(there[name].num_unindexed_rows or 0)
    if waiting > max(UNINDEXED, UNINDEXED_SHARE * rows) or (anyway and waiting):
        items.to_lance().optimize.optimize_indices()
        items.checkout_latest()
        return True
    return False


def read_cones(database: Database) -> dict[str, Cone]:
    """Where each modality's embeddings crowd."""
    found = database.about("cones") or {}
    return {name: Cone(int(cone["rows"]), np.array(cone["mean"], np.float32)) for name, cone in found.items()}


def write_cones(database: Database, cones: Mapping[str, Cone]) -> None:
    """Keep it."""
    database.write_about("cones", {name: cone.to_dict() for name, cone in sorted(cones.items())})


def renew_means(database: Database, storage: Storage, *, anyway: bool = False) -> bool:
    """Compute where modalities crowd, when the index has grown or shrunk by a tenth since."""
    items, known = database.items, read_cones(database)
    rows = items.count_rows()
    before = sum(cone.rows for cone in known.values())
    if not anyway and abs(rows - before) <= DRIFT * before:
        return False
    sample: dict[str, list[np.ndarray]] = {}
    if rows:
        places = np.sort(np.random.default_rng(0).choice(rows, min(rows, SAMPLE), replace=False)).tolist()
        table = items.take_offsets(places).select(["modality", storage.scored]).to_arrow()
        for name, vector in zip(table["modality"].to_pylist(), storage.decode(table[storage.scored]), strict=True):
            sample.setdefault(name, []).append(vector)
    cones = {}
    for name in sorted({*sample, *known}):
        only = f"modality IN {quoted([name])}"
        count = items.count_rows(only)
        vectors = np.array(sample.get(name, []))
        if len(vectors) < min(FEW, count):
            found = items.search().where(only).select([storage.scored]).limit(SAMPLE).to_arrow()
            vectors = storage.decode(found[storage.scored])
        if count:
            cones[name] = Cone.of(count, vectors)
    if json.dumps([c.to_dict() for c in cones.values()]) != json.dumps([c.to_dict() for c in known.values()]):
        write_cones(database, cones)
    return True
