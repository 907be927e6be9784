"""An index handed on: for FAISS, or as a file of embeddings like those of `vitlens embed`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from vitlens.disk import atomic, output_file
from vitlens.errors import MissingDependencyError, OptionError
from vitlens.index.index import Index
from vitlens.index.rows import FIXED
from vitlens.store.files import FORMATS, Column, Content, write_embeddings

BATCH = 8192
GRAPH_FROM = 50_000
"""Rows from which on the FAISS index is a graph (HNSW) instead of a list (Flat)."""


def export(index: Index, path: Path, *, where: str | None = None, overwrite: bool = False) -> list[Path]:
    """Write an index, or the rows that pass a filter, to a .faiss, .npz, .parquet or .safetensors file; what was written.

    Beside a .faiss file there is <file>.ids.csv: a line for each of its ids with the key, modality, source and further columns.

    Raises:
        OptionError: another type, a file that is there (without `overwrite`), or nothing to write.
        MissingDependencyError: FAISS is not installed.
    """
    output_file("output", path, ("faiss", *FORMATS), overwrite=overwrite)
    count = sum(index.count(name, where) for name in index.cones())
    if not count:
        raise OptionError(f"{index.path}: no rows to write" + (f" pass the filter {where!r}" if where else ""))
    return _faiss(index, path, where, count) if path.suffix.lower() == ".faiss" else [_file(index, path, where)]


def _vectors(index: Index, where: str | None) -> Iterator[np.ndarray]:
    """All scored vectors in the order of the table, in pieces."""
    for batch in index.batches([index.storage.scored], BATCH, where):
        yield index.storage.decode(batch[index.storage.scored])


def _faiss(index: Index, path: Path, where: str | None, count: int) -> list[Path]:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"the export needs faiss ({error}): pip install 'vitlens[index]'") from error
    width = index.storage.scored_width
    made = faiss.IndexFlatIP(width) if count < GRAPH_FROM else faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
    for piece in _vectors(index, where):
        made.add(piece)
    with atomic(path) as part:
        faiss.write_index(made, str(part))
    names = [name for name in index.columns if name not in FIXED or name in ("key", "modality", "source", "file", "licence")]
    ids = path.with_name(path.name + ".ids.csv")
    with atomic(ids) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *names])
        at = 0
        for batch in index.batches(names, BATCH, where):
            for row in batch.select(names).to_pylist():
                writer.writerow([at, *row.values()])
                at += 1
    return [path, ids]


def _file(index: Index, path: Path, where: str | None) -> Path:
    storage = index.storage
    if storage.scored_width != index.space.dim:
        raise OptionError(
            f"{index.path} keeps {storage.width} of {index.space.dim} values: a file of embeddings of {index.space.name} "
            f"needs all; export to .faiss instead"
        )
    columns: dict[str, Column] = {}
    weights: dict[str, str] = {}
    row = 0
    for modality in index.cones():
        only = index.only(modality, where)
        items: list[str] = []
        digests: list[bytes] = []
        for batch in index.batches(["source", "digest", "weights"], BATCH, only):
            items += batch["source"].to_pylist()
            digests += map(bytes.fromhex, batch["digest"].to_pylist())
            for known in filter(None, batch["weights"].to_pylist()):
                weights[modality] = known
        if items:
            rows = list(range(row, row + len(items)))
            columns[modality] = Column(items, rows, partial(_vectors, index, only), digests)
            row += len(items)
    write_embeddings(path, Content(index.space, index.card["model"], columns, weights=weights))
    return path
