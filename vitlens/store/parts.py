"""The embeddings of one model, modality, preprocessing and precision on disk, as the tower gives them: not normalised.

    <folder>/<key>/about.json              what `key` is the hash of
    <folder>/<key>/<name>.safetensors      a part: digests [k, 16] and vectors [k, E] of some items, and which others are bad

A part is written once, appears whole (written aside, synced, renamed) and is opened as a memory map. Its name follows from its
items, so that two workers with the same items write the same file. Any number of processes may write; a kill leaves whole parts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from vitlens.disk import atomic
from vitlens.errors import InputError
from vitlens.store.digests import DIGEST


@dataclass(frozen=True)
class Part:
    """What became of some items: digests uint8 [k, 16] and vectors float32 [k, E] of those embedded, errors of the others."""

    digests: np.ndarray
    vectors: np.ndarray
    bad: Mapping[bytes, InputError] = field(default_factory=dict)


class Parts:
    """All parts of one key. Opened for what is on disk now; `reload` sees what came later, rows stay what they were."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        text = json.dumps(dict(about), sort_keys=True, default=str)
        self.about = about
        self.dim = int(about["dim"])
        self.path = Path(folder) / hashlib.blake2b(text.encode(), digest_size=DIGEST).hexdigest()
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "about.json").is_file():
            with atomic(self.path / "about.json") as part:
                part.write_text(text + "\n", encoding="utf-8")
        self.bad: dict[bytes, InputError] = {}
        """Digests of items that could not be read, and why."""
        self._opened: list[str] = []
        self._maps: list[np.ndarray] = []
        self._digests: list[np.ndarray] = [np.empty((0, DIGEST), np.uint8)]
        self.reload()

    def reload(self) -> None:
        """Look again at what is on disk; files that cannot be read do not count."""
        for file in sorted(self.path.glob("*.safetensors")):
            if file.name not in self._opened:
                self._open(file)
        self._starts = np.cumsum([0, *map(len, self._maps)])
        self._sorted, self._rows = np.unique(_as_keys(np.concatenate(self._digests)), return_index=True)

    def _open(self, file: Path) -> None:
        try:
            digests, vectors, bad = _read(file)
        except (OSError, ValueError, KeyError, TypeError):
            return
        if digests.shape == (len(vectors), DIGEST) and vectors.shape == (len(vectors), self.dim):
            self._opened.append(file.name)
            self._digests.append(digests)
            self._maps.append(vectors)
            self.bad |= bad

    def __len__(self) -> int:
        return len(self._sorted)

    def rows(self, digests: np.ndarray) -> np.ndarray:
        """Digests uint8 [n, 16] -> rows int64 [n], -1 for what is not there."""
        keys = _as_keys(digests)
        if not len(self._sorted):
            return np.full(len(keys), -1, np.int64)
        place = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._rows[place], -1).astype(np.int64)

    def touch(self, rows: np.ndarray) -> None:
        """Mark the files of rows [n] as used now."""
        for segment in np.unique(self._segments(rows)):
            with suppress(FileNotFoundError):  # it made room meanwhile
                os.utime(self.path / self._opened[segment])

    def _segments(self, rows: np.ndarray) -> np.ndarray:
        """Rows [n] -> which file each is in."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Rows [n] -> embeddings float32 [n, E]."""
        out = np.empty((len(rows), self.dim), np.float32)
        segments = self._segments(rows)
        for segment in np.unique(segments):
            chosen = segments == segment
            out[chosen] = self._maps[segment][rows[chosen] - self._starts[segment]]
        return out

    def add(self, part: Part) -> None:
        """Put a part on disk for good; `reload` makes it visible."""
        bad = {digest.hex(): (error.source, error.found, error.accepted) for digest, error in part.bad.items()}
        name = hashlib.blake2b(part.digests.tobytes() + b"".join(part.bad), digest_size=DIGEST).hexdigest()
        tensors = {"digests": part.digests, "vectors": np.asarray(part.vectors, np.float32)}
        with atomic(self.path / f"{name}.safetensors") as file:
            file.write_bytes(safetensors.numpy.save(tensors, {"bad": json.dumps(bad)}))


def _read(file: Path) -> tuple[np.ndarray, np.ndarray, dict[bytes, InputError]]:
    """A part: its digests, its vectors as a memory map (which the library does not give), and what was bad."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(min(size, file.stat().st_size)))
    bad = {bytes.fromhex(key): InputError(*error) for key, error in json.loads(header["__metadata__"]["bad"]).items()}
    found = []
    for name, kind in (("digests", np.dtype("u1")), ("vectors", np.dtype("<f4"))):
        shape, at = tuple(header[name]["shape"]), 8 + size + header[name]["data_offsets"][0]
        found.append(np.memmap(file, kind, "r", at, shape) if shape[0] else np.empty(shape, kind))
    return np.array(found[0]), found[1], bad


def _as_keys(digests: np.ndarray) -> np.ndarray:
    """Digests uint8 [n, 16] as one sortable value each."""
    return np.ascontiguousarray(digests, np.uint8).reshape(-1, DIGEST).view(f"S{DIGEST}").ravel()
