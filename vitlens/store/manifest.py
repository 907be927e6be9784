"""Manifests: tables with a row per thing and a column per modality, as .csv, .tsv, .jsonl or .parquet."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from vitlens.errors import InputError
from vitlens.sources import check_file, decoding, suffix_of

MANIFEST = "a manifest: .csv, .tsv, .jsonl or .parquet with a column per modality and paths relative to it"
MANIFEST_TYPES = ("csv", "tsv", "jsonl", "parquet")


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file.

    Raises:
        InputError: no such file, another type, broken, empty, or rows that do not fit the header.
    """
    check_file(path, accepted=MANIFEST, extensions=MANIFEST_TYPES)
    readers = {"csv": _csv_rows, "tsv": _csv_rows, "jsonl": _json_rows, "parquet": _parquet_rows}
    with decoding(path, MANIFEST):
        rows = readers[suffix_of(path)](path)
    if not rows:
        raise InputError(os.fspath(path), "no rows", MANIFEST)
    return rows


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter="\t" if suffix_of(path) == "tsv" else ",", strict=True)
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise InputError(os.fspath(path), f"a column twice in the header {', '.join(header)}", MANIFEST)
        rows = []
        for values in reader:
            if len(values) != len(header) and values:
                found = f"{len(values)} values in line {reader.line_num}, {len(header)} columns in the header"
                raise InputError(os.fspath(path), found, MANIFEST)
            if values:
                rows.append(dict(zip(header, values, strict=True)))
        return rows


def _json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}", f"a {type(row).__name__}", "one JSON object per line")
            rows.append(row)
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()
