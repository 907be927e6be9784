"""Manifests: tables with a row per thing and a column per modality, as .csv, .tsv, .jsonl or .parquet.

Names of files that are no UTF-8 come out as Python has them (surrogateescape): raw bytes in .csv and .tsv, "\\udce9" in .jsonl.
"""

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
        InputError: no such file, another type, broken (with the line), empty, or rows that do not fit the header.
    """
    check_file(path, accepted=MANIFEST, extensions=MANIFEST_TYPES)
    readers = {"csv": _csv_rows, "tsv": _csv_rows, "jsonl": _json_rows, "parquet": _parquet_rows}
    with decoding(path, MANIFEST):
        rows = readers[suffix_of(path)](path)
    if not rows:
        raise InputError(os.fspath(path), "no rows", MANIFEST)
    return rows


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, delimiter="\t" if suffix_of(path) == "tsv" else ",", strict=True)
        rows: list[dict[str, Any]] = []
        header: list[str] | None = None
        try:
            for values in reader:
                if header is None:
                    header = _header(path, values)
                elif len(values) == len(header):
                    rows.append(dict(zip(header, values, strict=True)))
                elif values:
                    found = f"{len(values)} values in line {reader.line_num}, {len(header)} columns in the header"
                    raise InputError(os.fspath(path), found, MANIFEST)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}", f"cannot be decoded ({error})", MANIFEST) from error
        return rows


def _header(path: Path, columns: list[str]) -> list[str]:
    try:
        ", ".join(columns).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}, line 1", "cannot be decoded (it is not UTF-8)", MANIFEST) from error
    if len(set(columns)) != len(columns):
        raise InputError(os.fspath(path), f"a column twice in the header {', '.join(columns)}", MANIFEST)
    return columns


def _json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            name = f"{path}, line {number}"
            with decoding(name, MANIFEST):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                row = json.loads(text) if text.strip() else None
                if "\\ud" in text.lower():  # an escape may stand for a byte of a name, not for half of a character
                    json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape")
            if row is None and not text.strip():
                continue
            if not isinstance(row, dict):
                raise InputError(name, f"a {type(row).__name__}", "one JSON object per line")
            rows.append(row)
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    with path.open("rb") as stream:
        return pyarrow.parquet.read_table(stream).to_pylist()
