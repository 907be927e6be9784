"""Finding: candidates from the database, one modality after the other, scored here with what the index keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitlens.index.database import Database, both, quoted
from vitlens.index.query import Cones, Hit, Query
from vitlens.index.rows import FIXED
from vitlens.index.storage import Storage
from vitlens.vectors import unit

NPROBES, EF = 20, 100
"""Partitions that are looked into, and how widely in each; `benchmarks/speed/index.py` measures what they give."""
MORE, COARSE_MORE = 2, 20
"""Candidates for each hit that is wanted: their order is made anew here."""


@dataclass(frozen=True)
class Wanted:
    """How many hits, among which rows, and how they are found and scored."""

    k: int
    where: str | None = None
    modalities: Sequence[str] = ()
    """None: all."""
    centre: bool = True
    exact: bool = False
    """Whether every row is looked at."""


def find(database: Database, storage: Storage, cones: Cones, query: Query, wanted: Wanted, own: Sequence[str]) -> list[Hit]:
    """The best `k` hits; `own` are the users' columns.

    With centring each modality is asked for by itself, by the centred query: among rows of one modality that gives the order of
    their centred scores, but for the lengths of what centring leaves of them.
    """
    chosen = [name for name in cones if not wanted.modalities or name in wanted.modalities]
    groups: list[list[str]] = [[name] for name in chosen] if wanted.centre else [chosen]

    def among(names: list[str]) -> list[tuple[float, float, dict[str, Any]]]:
        asked = query.centred if wanted.centre else query.plain
        only = None if len(names) == len(cones) else f"modality IN {quoted(names)}"
        rows = candidates(database, storage, asked, both(only, wanted.where), wanted, own)
        vectors = storage.decode(rows[storage.scored])
        plain = vectors @ query.plain
        scores = unit(vectors - cones[names[0]].mean) @ query.centred if wanted.centre else plain
        best = np.argsort(-scores, kind="stable")[: wanted.k]
        table = rows.select(_columns(own)).take(best).to_pylist()
        return [(float(scores[at]), float(plain[at]), row) for at, row in zip(best, table, strict=True)]

    if not chosen:
        return []
    with ThreadPoolExecutor(len(groups)) as threads:  # the database computes outside Python
        found = [entry for entries in threads.map(among, groups) for entry in entries]
    found.sort(key=lambda entry: -entry[0])
    return [_hit(rank, *entry, own) for rank, entry in enumerate(found[: wanted.k], start=1)]


def candidates(
    database: Database, storage: Storage, query: np.ndarray, where: str | None, wanted: Wanted, own: Sequence[str]
) -> Any:
    """Rows (Arrow) among which the best for a query [w] should be, without the columns nobody needs."""
    count = max(COARSE_MORE * wanted.k, 200) if storage.coarse else max(MORE * wanted.k, wanted.k + 20)

    def ask(items: Any) -> Any:
        asked = items.search(storage.probe(query), vector_column_name=storage.searched, query_type="vector")
        asked = asked.distance_type(storage.metric).limit(count).select([*_columns(own), storage.scored, "_distance"])
        asked = asked.bypass_vector_index() if wanted.exact else asked.nprobes(NPROBES).ef(max(EF, 2 * count))
        return (asked.where(where, prefilter=True) if where else asked).to_arrow()

    return database.reading(ask)


def _columns(own: Sequence[str]) -> list[str]:
    return ["key", *(name for name in FIXED if name in ("modality", "source", "file", "licence", "options")), *own]


def _hit(rank: int, score: float, cosine: float, row: dict[str, Any], own: Sequence[str]) -> Hit:
    fixed = {name: row[name] for name in ("modality", "source", "file", "licence", "key", "options")}
    return Hit(rank, score, cosine, **fixed, columns={name: row[name] for name in own})
