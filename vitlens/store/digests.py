"""What things are, whatever they are called: digests of items by content, and of models by their weights."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.errors import InputError
from vitlens.modality import Modality, Sample
from vitlens.sources import is_array, is_path, name_of, to_array

if TYPE_CHECKING:
    from torch import nn

DIGEST = 16
"""Bytes of a digest."""
_BLOCK = 1 << 22
_UNSAVED = 10_000


def model_hash(module: nn.Module) -> str:
    """A hash of names, shapes, types and values of a module's tensors, the same on every device."""
    import torch

    digest = hashlib.blake2b(digest_size=DIGEST)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(value.shape)} {value.dtype};".encode())
        if value.numel():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Contents:
    """Digests of items, kept in `contents.sqlite` by path, size and times of change: an unchanged file is not read twice.

    Without a folder they are forgotten at the end.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        self._path = Path(folder) / "contents.sqlite" if folder is not None else Path(":memory:")
        self._new: dict[bytes, bytes] = {}
        with self._saying_where():
            self._database = sqlite3.connect(self._path, timeout=60)
            with self._database:
                self._database.execute("CREATE TABLE IF NOT EXISTS contents (file BLOB PRIMARY KEY, digest BLOB)")

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        """Save, and let go of the file."""
        self.save()
        self._database.close()

    def save(self) -> None:
        """Put new digests on disk."""
        with self._saying_where(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?)", list(self._new.items()))
        self._new = {}

    @contextmanager
    def _saying_where(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:  # a full disk, a damaged file
            raise OSError(errno.EIO, str(error), os.fspath(self._path)) from error

    def digest(self, value: Any, options: Mapping[str, Any] | None = None, modality: Modality | None = None) -> bytes:
        """The digest of an item: path, text, array, bytes, Sample, or anything with `size`, `stat_key()` and `content()`.

        `modality` says whether a string is a text or a path, and which other files belong to a file.

        Raises:
            InputError: a file that cannot be read, or an object whose content is not known.
        """
        if isinstance(value, str) and modality is not None and modality.tower == "text":
            inner = text_digest(value)
        elif is_path(value) and not hasattr(value, "stat_key"):
            parts = [Path(value), *(modality.companions(Path(value)) if modality is not None else ())]
            inner = self._file(parts[0]) if len(parts) == 1 else _hash(b"files", *map(self._file, parts))
        else:
            inner = self._content(value)
        return _hash(inner, self._json(options)) if options else inner

    def _content(self, value: Any) -> bytes:
        if hasattr(value, "stat_key"):
            return self._remembered(value.stat_key, lambda: _digest_of([value.content()], value.size))
        if is_path(value):
            return self._file(Path(value))
        if isinstance(value, bytes | bytearray):
            return _hash(b"file", _digest_of([bytes(value)], len(value)))
        if is_array(value) and not (array := np.ascontiguousarray(to_array(value))).dtype.hasobject:
            return _hash(b"array", f"{array.shape} {array.dtype.str}".encode(), array.tobytes())
        if isinstance(value, Sample):
            data = value.data
            return _hash(b"sample", self._json(value.info), data.encode() if isinstance(data, str) else self._content(data))
        if hasattr(value, "tobytes") and hasattr(value, "mode"):  # a PIL image
            return _hash(b"picture", f"{value.size} {value.mode}".encode(), value.tobytes())
        if isinstance(value, list | tuple):
            return _hash(b"list", *(self._content(part) for part in value))
        raise InputError(name_of(value), f"a {type(value).__name__}", "a path, array, picture, text or Sample")

    def _file(self, path: Path) -> bytes:
        try:
            return self._remembered(lambda: stat_key(path), lambda: _digest_of(_blocks(path), path.stat().st_size))
        except OSError as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})"
            raise InputError(os.fspath(path), found, "a readable file") from error

    def _remembered(self, stat_key: Callable[[], str], compute: Callable[[], bytes]) -> bytes:
        key = stat_key().encode("utf-8", "surrogateescape")
        if key in self._new:
            return self._new[key]
        row = self._database.execute("SELECT digest FROM contents WHERE file = ?", (key,)).fetchone()
        if row is not None:
            return bytes(row[0])
        found = _hash(b"file", compute())
        if stat_key().encode("utf-8", "surrogateescape") == key:  # not written to while it was read
            self._new[key] = found
            if len(self._new) >= _UNSAVED:
                self.save()
        return found

    def _json(self, options: Mapping[str, Any]) -> bytes:
        """Options as text: the same for the same values, whatever order they were given in."""
        return json.dumps(
            dict(options), sort_keys=True, default=lambda value: self._content(value).hex() if is_array(value) else str(value)
        ).encode()


def stat_key(path: Path) -> str:
    """What changes when a file does, without reading it.

    Raises:
        OSError: it is not there.
    """
    stat = path.stat()
    return f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"


def text_digest(text: str) -> bytes:
    """The digest of a caption."""
    return _hash(b"text", text.encode("utf-8", "surrogatepass"))


def stack_digests(digests: Iterable[bytes]) -> np.ndarray:
    """Digests as uint8 [n, 16]."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST)


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _digest_of(blocks: Iterable[bytes], size: int) -> bytes:
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=DIGEST)
    for block in blocks:
        digest.update(block)
    return digest.digest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
