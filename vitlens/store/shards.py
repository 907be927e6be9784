"""WebDataset shards as a table with random access: tar files whose members `key.ext` belong together by their key.

Shards are scanned once for where each member begins (headers only), so that any order of items, and going on in the middle of an
epoch, cost nothing. https://github.com/webdataset/webdataset describes the format.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from vitlens.errors import InputError
from vitlens.sources import check_file, decoding
from vitlens.store.blobs import Blob, version_of
from vitlens.store.places import is_uri, located, opened, reaching

SHARDS = "WebDataset shards: .tar files, braces {0000..0099} and * allowed"


@dataclass(frozen=True, slots=True)
class Member(Blob):
    """One file inside a shard."""

    shard: str | Path
    name: str
    offset: int
    size: int
    version: str = ""
    """What changes when the shard does, where it was looked at once for all members."""

    @property
    def file_name(self) -> str:
        return f"{_name(self.shard)}/{self.name}"

    def stat_key(self) -> str:
        return f"{self.version or version_of(self.shard)}\0{self.offset}\0{self.size}"

    def content(self) -> bytes:
        if is_uri(self.shard):
            system, inside = located(str(self.shard))
            with reaching(str(self.shard)):
                return cast(bytes, system.cat_file(inside, start=self.offset, end=self.offset + self.size))
        with opened(self.shard) as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


def _name(shard: str | Path) -> str:
    return shard.name if isinstance(shard, Path) else shard.rpartition("/")[2]


def expand_shards(pattern: str) -> list[str | Path]:
    """The files of a pattern, sorted where it has stars, in counting order where it has braces; addresses stay strings.

    Raises:
        InputError: none, or a local one that is no shard.
    """
    paths = [path for part in _expand_braces(pattern) for path in (_matching(part) if glob.has_magic(part) else [part])]
    if not paths:
        raise InputError(pattern, "no shards there", SHARDS)
    local = {"accepted": SHARDS, "extensions": ("tar",), "max_bytes": 1 << 44}
    return [path if is_uri(path) else check_file(path, **local) for path in paths]  # type: ignore[arg-type]


def _matching(pattern: str) -> list[str]:
    if not is_uri(pattern):
        return sorted(glob.glob(pattern))
    system, inside = located(pattern)
    return sorted(system.unstrip_protocol(path) for path in system.glob(inside))


def shard_samples(shard: str | Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """(key, its members by what follows the key's first dot) of each sample of a local or remote shard, in its order.

    Raises:
        InputError: it cannot be read.
    """
    with reaching(str(shard)), decoding(shard, SHARDS):
        version = version_of(shard)
    for key, entries in itertools.groupby(_members(shard), key=lambda entry: entry[0]):
        yield key, {kind: Member(shard, f"{key}.{kind}", offset, size, version) for _, kind, offset, size in entries}


def _expand_braces(pattern: str) -> Iterator[str]:
    """`a{08..10}b{x,y}` -> a08bx a08by a09bx ..."""
    pieces: list[list[str]] = []
    for text, inside in re.findall(r"([^{]*)(?:\{([^{}]*)\})?", pattern):
        pieces.append([text])
        if inside:
            span = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
            numbers = range(int(span[1]), int(span[2]) + 1) if span else None
            pieces.append([str(n).zfill(len(span[1])) for n in numbers] if span and numbers else inside.split(","))
    return ("".join(parts) for parts in itertools.product(*pieces))


class ShardRows(Sequence[dict[str, Any]]):
    """The samples of some shards as rows: column = what follows the key's first dot, value = Member; .json members are merged."""

    def __init__(self, pattern: str) -> None:
        self.shards = [shard for shard in expand_shards(pattern) if isinstance(shard, Path)]
        if not self.shards:
            raise InputError(pattern, "an address", f"{SHARDS}, on a local disk: their items are taken in any order")
        names: list[str] = []
        extensions: dict[str, int] = {}
        first: list[int] = []
        groups: list[int] = []
        table: list[tuple[int, int, int]] = []
        for number, shard in enumerate(self.shards):
            last = None
            for key, extension, offset, size in _members(shard):
                if key != last:
                    last = key
                    names.append(key)
                    first.append(len(table))
                    groups.append(number)
                table.append((extensions.setdefault(extension, len(extensions)), offset, size))
        if not names:
            raise InputError(pattern, "no members with a name like key.extension", SHARDS)
        self._names = names
        self._extensions = list(extensions)
        self._first = np.array([*first, len(table)], np.int64)
        self._table = np.array(table, np.int64).reshape(-1, 3)
        self.groups = np.array(groups, np.int64)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        shard, key = self.shards[self.groups[index]], self._names[index]
        row: dict[str, Any] = {"__key__": key}
        for extension, offset, size in self._table[self._first[index] : self._first[index + 1]]:
            column = self._extensions[extension]
            row[column] = Member(shard, f"{key}.{column}", int(offset), int(size))
        if "json" in row:
            with decoding(f"{shard.name}/{key}.json", "a JSON object"):
                row = {**dict(json.loads(row.pop("json").content())), **row}
        return row

    def fingerprint(self) -> str:
        """What the shards are: names and sizes."""
        return json.dumps([[shard.name, os.path.getsize(shard)] for shard in self.shards])


def _members(shard: str | Path) -> Iterator[tuple[str, str, int, int]]:
    """(key, extension, offset, size) of every file in a shard."""
    with decoding(shard, SHARDS), opened(shard) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for entry in archive:
            folder, _, file = entry.name.rpartition("/")
            stem, dot, extension = file.partition(".")
            if entry.isfile() and dot and stem:
                yield f"{folder}/{stem}" if folder else stem, extension.lower(), entry.offset_data, entry.size
