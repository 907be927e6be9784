"""`<out>.partial/`: what a stopped embedding job leaves, so that the next run can go on with it.

job.json says which job it is; every other file is a shard that appeared whole (written aside, synced, renamed).
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vitlens.disk import atomic, lock_folder
from vitlens.errors import OptionError


@dataclass(frozen=True)
class Shard:
    """Some items of one modality, by position in its list: embeddings [k, E] of `kept`, and what was wrong with `failed`."""

    kept: np.ndarray
    embeddings: np.ndarray
    failed: np.ndarray
    messages: list[str]


class WorkFolder:
    """The folder of one job; one process at a time uses it."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + ".partial")
        self._card = self.path / "job.json"
        self._lock: IO[str] | None = None

    def open(self, identity: dict[str, Any]) -> None:
        """Make the folder, or check that it belongs to this very job.

        Raises:
            OptionError: it belongs to another one, or a running process uses it.
        """
        self._lock = lock_folder(self.path, holder="another process writes the same output now")
        for unfinished in self.path.glob(".*.part"):
            unfinished.unlink()
        if self._card.is_file() and any(self._files()):
            self._check(self.known(), identity)
        else:
            self._write(identity)

    def known(self) -> dict[str, Any]:
        """What job.json says.

        Raises:
            OptionError: it cannot be read.
        """
        try:
            return dict(json.loads(self._card.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise OptionError(f"{self._card} cannot be read ({error}): delete the folder {self.path} to start anew") from error

    def settle(self, identity: dict[str, Any]) -> None:
        """Add what is known once the model is loaded, or check it.

        Raises:
            OptionError: the folder's embeddings come from other weights or another space.
        """
        known = self.known()
        self._check(known, identity)
        self._write({**known, **identity})

    def _check(self, known: dict[str, Any], identity: dict[str, Any]) -> None:
        for key, value in identity.items():
            if key in known and known[key] != value:
                raise OptionError(
                    f"{self.path} holds the beginning of another job ({key}: {_shown(known[key])} then, {_shown(value)} now). "
                    f"Give the same command to go on with it, choose another output, or delete the folder to start anew"
                )

    def _write(self, identity: dict[str, Any]) -> None:
        with atomic(self._card) as part:
            part.write_text(json.dumps(identity, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _files(self, modality: str = "*") -> list[Path]:
        return sorted(self.path.glob(f"{modality}-{'[0-9]' * 12}.npz"))

    def add(self, modality: str, shard: Shard) -> None:
        """Put a shard on disk for good."""
        first = min([*shard.kept[:1].tolist(), *shard.failed[:1].tolist()])
        with atomic(self.path / f"{modality}-{first:012d}.npz") as part, part.open("wb") as stream:
            messages = np.array(shard.messages, np.str_)
            np.savez(stream, kept=shard.kept, embeddings=shard.embeddings, failed=shard.failed, messages=messages)

    def shards(self, modality: str) -> Iterator[Shard]:
        """All shards of a modality in input order; one that cannot be read is thrown away, its items will be done again."""
        for file in self._files(modality):
            try:
                shard = _read(file)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                file.unlink()
            else:
                yield shard

    def todo(self, modality: str, total: int) -> list[int]:
        """Positions of the `total` items of a modality that no shard holds."""
        done = np.zeros(total, bool)
        for shard in self.shards(modality):
            done[shard.kept] = done[shard.failed] = True
        return np.flatnonzero(~done).tolist()

    def close(self, *, remove: bool = False) -> None:
        """Let go of the folder; with `remove`, or when there is nothing in it to keep, delete it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            if remove or not self._files():
                shutil.rmtree(self.path)


def _read(file: Path) -> Shard:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return Shard(archive["kept"], archive["embeddings"], archive["failed"], archive["messages"].tolist())


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else text[:57] + "..."
