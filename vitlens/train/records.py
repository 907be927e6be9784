"""Tables of training items: rows of a manifest, samples of shards, or any Python sequence of mappings; and how they are read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.checks import known
from vitlens.errors import InputError, OptionError
from vitlens.modality import Modality, Sample
from vitlens.read_options import typed_read_option
from vitlens.sources import is_path, name_of, suffix_of
from vitlens.store.manifest import MANIFEST_TYPES, read_manifest
from vitlens.store.shards import SHARDS, Member, ShardRows
from vitlens.zeroshot import fill_templates

DATA = f"a manifest (.{' .'.join(MANIFEST_TYPES)}) or {SHARDS}"


@dataclass(frozen=True)
class Records:
    """Rows by number; `folder` is what their paths are relative to, `groups` the shard of each row."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    folder: Path | None = None
    groups: np.ndarray | None = None
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def first_rows(self, count: int = 32) -> list[Mapping[str, Any]]:
        """The first rows, those that can be read."""
        found = []
        for index in range(min(len(self.rows), count)):
            with suppress(InputError):
                found.append(self.rows[index])
        return found

    @property
    def columns(self) -> list[str]:
        """Column names of the first rows."""
        return list(dict.fromkeys(str(key) for row in self.first_rows() for key in row))


def open_records(data: str | Path | Sequence[Mapping[str, Any]], *, name: str = "data") -> Records:
    """A table from a manifest, shards, or a sequence of mappings (column -> path, array, Sample, text ...).

    Raises:
        InputError: no such file, another type, broken, or empty.
        OptionError: a sequence that is empty or does not hold mappings.
    """
    if not is_path(data):
        rows: Any = data
        if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__") or isinstance(rows, Mapping):
            raise OptionError(f"{name}: a sequence of mappings is needed, found {type(rows).__name__}")
        if not len(rows) or not isinstance(rows[0], Mapping):
            found = "nothing" if not len(rows) else f"a {type(rows[0]).__name__} as its first item"
            raise OptionError(f"{name}: a sequence of mappings such as {{'audio': ..., 'text': ...}} is needed, found {found}")
        return Records(f"<{name}>", rows, fingerprint=f"{len(rows)} rows in memory")
    text = str(data)
    if suffix_of(text) == "tar":
        shards = ShardRows(text)
        return Records(text, shards, groups=shards.groups, fingerprint=_short_hash(shards.fingerprint()))
    if suffix_of(text) not in MANIFEST_TYPES:
        raise InputError(text, f"a file of type {Path(text).suffix or '(none)'}", DATA)
    manifest = read_manifest(Path(text))
    return Records(text, manifest, Path(text).parent, fingerprint=_short_hash(json.dumps(manifest, sort_keys=True, default=str)))


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Reader:
    """One modality of a table: row number -> what `Modality.load` takes.

    The column is the modality's own name unless `column` says otherwise; of shards also the one member with a file type of the
    modality. Columns `modality.option` hold read options of single rows.
    """

    def __init__(
        self, table: Records, modality: Modality, *, column: str | None = None, read_options: Mapping[str, Any] | None = None
    ) -> None:
        self.table = table
        self.modality = modality
        self.column = column or modality.name
        self.fixed = dict(read_options or {})
        known(f"read_options.{modality.name}: unknown", self.fixed, modality.read_options())
        if column is None and self.column not in table.columns:
            self.column = self._by_file_type()
        if self.column not in table.columns:
            raise OptionError(
                f"{table.name}: no column {self.column!r} for {modality.name} (its columns: {', '.join(table.columns)}); "
                f"name it with data.columns.{modality.name}=COLUMN"
            )

    def _by_file_type(self) -> str:
        row = next(iter(self.table.first_rows()), {})
        members = [str(key) for key, value in row.items() if isinstance(value, Member)]
        found = [key for key in members if key.rpartition(".")[2] in self.modality.extensions]
        return found[0] if len(found) == 1 else self.column

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Any:
        """The row as `Modality.load` takes it."""
        value, options = self.source(index)
        if isinstance(value, Sample):
            return value
        return {"source": value.open() if isinstance(value, Member) else value, **options}

    def source(self, index: int) -> tuple[Any, dict[str, Any]]:
        """(path, Member, array, Sample ..., read options) of a row.

        Raises:
            InputError: an empty cell.
        """
        row = self.table.rows[index]
        value = row.get(self.column)
        if _empty(value):
            raise InputError(self.name(index), f"nothing in column {self.column}", self.modality.accepts)
        options = {**self.fixed, **self._own_options(row)}
        if isinstance(value, Mapping):
            options |= {key: v for key, v in value.items() if key != "source"}
            value = value.get("source")
        if isinstance(value, str) and self.modality.tower != "text":
            value = self.table.folder / value if self.table.folder else Path(value)
        return value, options

    def _own_options(self, row: Mapping[str, Any]) -> dict[str, Any]:
        known = self.modality.read_options()
        found = {}
        for key, value in row.items():
            head, dot, option = str(key).partition(".")
            if dot and head == self.modality.name and option in known and not isinstance(value, Member) and not _empty(value):
                found[option] = typed_read_option(head, option, value)
        return found

    def load(self, index: int) -> Sample:
        """Read a row.

        Raises:
            InputError: it cannot be read; the error names the row.
        """
        try:
            return self.modality.load(self[index])
        except InputError as error:
            raise InputError(self.name(index), error.found, error.accepted) from error

    def name(self, index: int) -> str:
        """The row for messages: the path or member, with the row's number."""
        try:
            value = self.table.rows[index].get(self.column)
        except InputError as error:  # a row of a shard whose .json is broken
            return f"{error.source} ({self.table.name}, row {index})"
        value = value.get("source") if isinstance(value, Mapping) else value
        if isinstance(value, Member):
            return f"{value.shard}/{value.name}"
        shown = value.source if isinstance(value, Sample) else "" if value is None else name_of(value)
        return f"{shown} ({self.table.name}, row {index})".strip()


class Captions:
    """The texts of a table's rows: caption columns, and prompt templates filled with the label."""

    def __init__(
        self, table: Records, *, columns: Sequence[str], separator: str | None, label: str, templates: Sequence[str]
    ) -> None:
        self.table = table
        self.separator = separator
        self.label = label if templates else None
        self.templates = list(templates)
        self.columns = [c for c in [*columns, *(["txt"] if table.groups is not None else [])] if c in table.columns]
        if templates and label not in table.columns:
            raise OptionError(
                f"{table.name}: data.templates needs a column {label!r}, there are {', '.join(table.columns)}; "
                "or set data.templates=[]"
            )
        if not self.columns and not templates:
            raise OptionError(
                f"{table.name}: no caption column ({', '.join(columns)}) among {', '.join(table.columns)}; name one with "
                "data.captions=[COLUMN], or make captions of labels with data.templates=['a photo of a {}.']"
            )

    def of(self, index: int) -> list[str]:
        """The row's texts in order, at least one.

        Raises:
            InputError: none.
        """
        row = self.table.rows[index]
        found = [text for column in self.columns for text in texts_of(row.get(column), self.separator)]
        if self.label is not None:
            for label in texts_of(row.get(self.label), None):
                found += fill_templates(label, self.templates)
        if not found:
            where = ", ".join([*self.columns, *([self.label] if self.label else [])])
            raise InputError(
                f"{self.table.name}, row {index}", f"no text in {where}", "a caption, a list of captions, or a label"
            )
        return found


def texts_of(value: Any, separator: str | None) -> list[str]:
    """The non-empty texts in a cell: a text, bytes of a shard's member, or a list."""
    if isinstance(value, Member):
        value = value.content().decode("utf-8", errors="replace")
    if _empty(value):
        return []
    if isinstance(value, list | tuple | np.ndarray):
        return [text for part in value for text in texts_of(part, separator)]
    parts = str(value).split(separator) if separator else [str(value)]
    return [part.strip() for part in parts if part.strip()]


def _empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell) or (isinstance(cell, float) and math.isnan(cell))
