"""Things to read that are no files on a local disk: objects of a store, members of a shard, cells of a Parquet table.

Each says what it is called, what changes when it does, and gives its bytes.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, cast

from vitlens.errors import InputError
from vitlens.sources import suffix_of
from vitlens.store.digests import stat_key
from vitlens.store.places import is_uri, located, opened, reaching

_MAGIC = (
    (0, b"\x89PNG", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"GIF8", "gif"),
    (8, b"WEBP", "webp"),
    (8, b"WAVE", "wav"),
    (8, b"AVI ", "avi"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"PK\x03\x04", "npz"),
    (0, b"ply", "ply"),
    (0, b"glTF", "glb"),
    (0, b"\xffBIOSEMI", "bdf"),
    (0, b"0       ", "edf"),
    (4, b"ftyp", "mp4"),
)
"""(position, bytes there, file type)."""


class NamedBytes(io.BytesIO):
    """Bytes with a file name, from which readers take the type."""

    name: str = ""


class Blob(ABC):
    """Bytes somewhere, with a name."""

    @property
    @abstractmethod
    def file_name(self) -> str:
        """What it would be called as a file, with its type as far as that is known."""

    @abstractmethod
    def stat_key(self) -> str:
        """What changes when its content does, without reading it."""

    @abstractmethod
    def content(self) -> bytes:
        """Its bytes.

        Raises:
            InputError: it is not there any more, or empty.
            OSError: the network or the store fails.
        """

    def open(self) -> NamedBytes:
        """Its bytes as a binary file object that knows its name."""
        stream = NamedBytes(self.content())
        stream.name = self.file_name
        return stream


@dataclass(frozen=True, slots=True)
class RemoteFile(Blob):
    """An object of a store; `size` and `version` as it was when it was listed (not known of what a manifest names)."""

    uri: str
    size: int = -1
    version: str = ""

    @property
    def file_name(self) -> str:
        return self.uri.rpartition("/")[2]

    def stat_key(self) -> str:
        return f"{self.uri}\0{self.size}\0{self.version}"

    def content(self) -> bytes:
        system, inside = located(self.uri)
        with reaching(self.uri):
            return cast(bytes, system.cat_file(inside))


def remote_file(uri: str, info: dict[str, Any] | None = None) -> RemoteFile:
    """The object at an address; `info` is what a listing says of it.

    Raises:
        InputError: it is not there.
        OSError: the network or the store fails.
    """
    if info is None:
        system, inside = located(uri)
        with reaching(uri):
            info = system.info(inside)
    version = next((info[key] for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created") if info.get(key)), "")
    return RemoteFile(uri, int(info.get("size") or 0), str(version))


def version_of(path: str | Path) -> str:
    """What changes when a local or remote file does, without reading it.

    Raises:
        InputError: a remote one that is not there.
        OSError: a local one that is not there.
    """
    return remote_file(str(path)).stat_key() if is_uri(path) else stat_key(Path(path))


@dataclass(frozen=True, slots=True)
class Cell(Blob):
    """A value of a Parquet table: bytes, in row `row` of row group `group`."""

    table: str | Path
    version: str
    group: int
    row: int
    column: str
    name: str = ""
    """A file name that the table gives; without one the type is told by the first bytes."""

    @property
    def file_name(self) -> str:
        if suffix_of(self.name):
            return self.name.replace("\\", "/").rpartition("/")[2]
        kind = file_type(self.content())
        return f"{self.column}-{self.group}-{self.row}{'.' if kind else ''}{kind}"

    def stat_key(self) -> str:
        return f"{self.version}\0{self.group}\0{self.row}\0{self.column}"

    def content(self) -> bytes:
        with _READING:
            value = _column(self.table, self.version, self.group, self.column)[self.row].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        if not value:
            raise InputError(f"{self.table}, {self.column}", "an empty cell", "the bytes of a file")
        return bytes(value)


_READING = Lock()


@lru_cache(maxsize=1)
def _column(table: str | Path, version: str, group: int, column: str) -> Any:
    """One column of a row group: the rows of a table come one after the other."""
    import pyarrow.parquet as pq

    with opened(table) as stream:
        return pq.ParquetFile(stream, pre_buffer=False).read_row_group(group, columns=[column], use_threads=False)[column]


def file_type(content: bytes) -> str:
    """The file type that the first bytes tell; "" where they do not."""
    return next((kind for at, magic, kind in _MAGIC if content[at : at + len(magic)] == magic), "")
