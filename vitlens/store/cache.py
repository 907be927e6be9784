"""Anchors are frozen, so each is computed once: embeddings on disk, keyed by the model and what the item holds.

    <folder>/<key>/about.json            the model's hash, modality, preprocessing, precision: what `key` is the hash of
    <folder>/<key>/<id>.vectors.npy      float32 [n, E], opened as a memory map
    <folder>/<key>/<id>.items.npy        uint8 [n, 16], the items' digests; written last: without it the vectors do not count
    <folder>/<key>/<id>.bad.npy          uint8 [n, 16], items that could not be read; they are tried again, but after the others
    <folder>/contents.sqlite             path, size, time of change -> digest, so that unchanged files are not read again

Any number of processes may write at once: each adds files of its own, every file appears whole (written aside, synced, renamed),
and a kill leaves at most files that nobody counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitlens.disk import atomic
from vitlens.errors import InputError
from vitlens.modality import Modality, Sample
from vitlens.sources import is_array, is_path, name_of, to_array

DIGEST = 16
"""Bytes of a digest."""
_BLOCK = 1 << 22


def default_folder() -> Path:
    """VITLENS_CACHE, else `vitlens` in the user's cache folder."""
    if os.environ.get("VITLENS_CACHE"):
        return Path(os.environ["VITLENS_CACHE"]) / "anchors"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitlens" / "anchors"


def model_hash(module: nn.Module) -> str:
    """A hash of names, shapes, types and values of a module's tensors."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(value.shape)} {value.dtype};".encode())
        digest.update(_bytes_of(value.detach().cpu().contiguous()))
    return digest.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


class AnchorCache:
    """The embeddings of one model and modality. Opened for what is on disk now; `reload` sees what came later."""

    def __init__(self, folder: Path, about: Mapping[str, Any], dim: int) -> None:
        text = json.dumps(dict(about), sort_keys=True, default=str)
        self.dim = dim
        self.path = Path(folder) / hashlib.blake2b(text.encode(), digest_size=DIGEST).hexdigest()
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "about.json").is_file():
            with atomic(self.path / "about.json") as part:
                part.write_text(text + "\n", encoding="utf-8")
        self.reload()

    @classmethod
    def open(cls, folder: Path, *, model: str, space: str, dim: int, modality: Modality, precision: str) -> AnchorCache:
        """The cache of the embeddings of `modality`, as it is preprocessed, by the model with hash `model`."""
        about = {
            "model": model,
            "space": space,
            "modality": modality.name,
            "options": modality.options(),
            "steps": modality.steps(),
            "precision": precision,
        }
        return cls(folder, about, dim)

    def reload(self) -> None:
        """Look again at what is on disk; files that cannot be read do not count."""
        self._maps: list[np.ndarray] = []
        keys = [np.empty((0, DIGEST), np.uint8)]
        for items in sorted(self.path.glob("*.items.npy")):
            vectors = items.with_name(items.name.replace(".items.", ".vectors."))
            try:
                digests, mapped = np.load(items, allow_pickle=False), np.load(vectors, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                continue
            if digests.shape != (len(mapped), DIGEST) or mapped.ndim != 2 or mapped.shape[1] != self.dim:
                continue
            keys.append(digests)
            self._maps.append(mapped)
        bad = [_as_keys(np.load(file, allow_pickle=False)) for file in sorted(self.path.glob("*.bad.npy"))]
        self._bad = np.unique(np.concatenate([np.empty(0, f"S{DIGEST}"), *bad]))
        every = _as_keys(np.concatenate(keys))
        self._starts = np.cumsum([0, *(len(m) for m in self._maps)])
        self._sorted, self._rows = np.unique(every, return_index=True)

    def __len__(self) -> int:
        return len(self._sorted)

    def rows(self, digests: np.ndarray) -> np.ndarray:
        """Digests uint8 [n, 16] -> rows int64 [n], -1 for what is not there."""
        keys = _as_keys(digests)
        if not len(self._sorted):
            return np.full(len(keys), -1, np.int64)
        place = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._rows[place], -1).astype(np.int64)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Rows [n] -> embeddings float32 [n, E]."""
        out = np.empty((len(rows), self.dim), np.float32)
        segments = np.searchsorted(self._starts, rows, side="right") - 1
        for segment in np.unique(segments):
            chosen = segments == segment
            out[chosen] = self._maps[segment][rows[chosen] - self._starts[segment]]
        return out

    def add(self, digests: np.ndarray, vectors: np.ndarray) -> None:
        """Put embeddings [n, E] on disk for good; `reload` makes them visible."""
        name = uuid.uuid4().hex
        for kind, array in (("vectors", np.asarray(vectors, np.float32)), ("items", np.asarray(digests, np.uint8))):
            _save_array(self.path / f"{name}.{kind}.npy", array)

    def add_bad(self, digests: np.ndarray) -> None:
        """Remember items that cannot be read."""
        _save_array(self.path / f"{uuid.uuid4().hex}.bad.npy", np.asarray(digests, np.uint8))

    def known_bad(self, digests: np.ndarray) -> np.ndarray:
        """Digests uint8 [n, 16] -> bool [n]."""
        return np.isin(_as_keys(digests), self._bad)


def _save_array(path: Path, array: np.ndarray) -> None:
    with atomic(path) as part, part.open("wb") as stream:
        np.save(stream, array)


def _as_keys(digests: np.ndarray) -> np.ndarray:
    """Digests uint8 [n, 16] as one sortable value each."""
    return np.ascontiguousarray(digests, np.uint8).reshape(-1, DIGEST).view(f"S{DIGEST}").ravel()


class Contents:
    """Digests of what items hold, whatever their name; files that have not changed are not read twice."""

    def __init__(self, folder: Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(Path(folder) / "contents.sqlite", timeout=60)
        self._new: dict[str, bytes] = {}
        with self._database:
            self._database.execute("CREATE TABLE IF NOT EXISTS contents (file TEXT PRIMARY KEY, digest BLOB)")

    def save(self) -> None:
        """Put new digests on disk."""
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?)", list(self._new.items()))
        self._new = {}

    def close(self) -> None:
        """Save, and let go of the file."""
        self.save()
        self._database.close()

    def digest(self, value: Any, options: Mapping[str, Any] | None = None) -> bytes:
        """The digest of an item (path, text, array, bytes, Sample, or anything with `size`, `stat_key()` and `content()`).

        Raises:
            InputError: a file that cannot be read, or an object whose content is not known.
        """
        inner = self._content(value)
        if not options:
            return inner
        return _hash(inner, json.dumps(dict(options), sort_keys=True, default=str).encode())

    def _content(self, value: Any) -> bytes:
        if hasattr(value, "stat_key"):
            return self._cached(value.stat_key(), lambda: _digest_of([value.content()], value.size))
        if is_path(value):
            path = Path(value)
            try:
                stat = path.stat()
                key = f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}"
                return self._cached(key, lambda: _digest_of(_blocks(path), stat.st_size))
            except OSError as error:
                found = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error.strerror})"
                raise InputError(os.fspath(value), found, "a readable file") from error
        if isinstance(value, bytes | bytearray):
            return _hash(b"file", _digest_of([bytes(value)], len(value)))
        if is_array(value):
            array = np.ascontiguousarray(to_array(value))
            return _hash(b"array", f"{array.shape} {array.dtype.str}".encode(), array.tobytes())
        if isinstance(value, Sample):
            info = json.dumps(dict(value.info), sort_keys=True, default=str).encode()
            data = value.data
            return _hash(b"sample", info, data.encode() if isinstance(data, str) else self._content(data))
        if hasattr(value, "tobytes") and hasattr(value, "mode"):  # a PIL image
            return _hash(b"picture", f"{value.size} {value.mode}".encode(), value.tobytes())
        if isinstance(value, list | tuple):
            return _hash(b"list", *(self._content(part) for part in value))
        raise InputError(name_of(value), f"a {type(value).__name__}", "a path, array, picture, text or Sample")

    def _cached(self, key: str, compute: Callable[[], bytes]) -> bytes:
        if key in self._new:
            return self._new[key]
        row = self._database.execute("SELECT digest FROM contents WHERE file = ?", (key,)).fetchone()
        if row is not None:
            return bytes(row[0])
        found = self._new[key] = _hash(b"file", compute())
        return found


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
