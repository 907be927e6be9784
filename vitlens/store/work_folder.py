"""`<out>.partial/`: the store of a job that is not done yet, and job.json, which says what job that is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from vitlens.disk import atomic, lock_folder
from vitlens.errors import OptionError


class WorkFolder:
    """The folder of one job; one process at a time uses it."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + ".partial")
        self._card = self.path / "job.json"
        self._names = self.path / "items"
        self._lock: IO[str] | None = None

    def open(self, identity: Mapping[str, Any], files: Sequence[str]) -> list[str]:
        """Make the folder, or check that it belongs to this very job; returns those of its files that are gone since it began.

        Raises:
            OptionError: it belongs to another one, or a running process uses it.
        """
        self._lock = lock_folder(self.path, holder="another process writes the same output now")
        for unfinished in self.path.rglob(".*.part"):
            unfinished.unlink()
        before: list[str] = []
        if self._card.is_file() and self._parts():
            self._check(self.known(), identity)
            before = os.fsdecode(self._names.read_bytes()).split("\0") if self._names.is_file() else []
            if before and files and not {*before} & {*files}:
                raise self._of_another(f"its {len(before)} files, {before[0]} the first of them, are none of these {len(files)}")
        else:
            self._write(identity)
        if files:
            with atomic(self._names) as part:
                part.write_bytes(os.fsencode("\0".join(dict.fromkeys([*before, *files]))))
        now = {*files}
        return [name for name in before if name not in now and not os.path.lexists(name)]

    def known(self) -> dict[str, Any]:
        """What job.json says.

        Raises:
            OptionError: it cannot be read.
        """
        try:
            return dict(json.loads(self._card.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise OptionError(f"{self._card} cannot be read ({error}): delete the folder {self.path} to start anew") from error

    def settle(self, embeddings: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what is known once the model is loaded - of each modality, what its embeddings are made by - or check it.

        Raises:
            OptionError: the folder's embeddings come from other weights, another preprocessing or space.
        """
        known = self.known()
        before = known.get("embeddings", {})
        now = json.loads(json.dumps(dict(embeddings), default=str))
        for modality, about in now.items():
            self._check(before.get(modality, {}), about)
        self._write({**known, "embeddings": {**before, **now}})

    def _check(self, known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        if other := difference(known, identity):
            raise self._of_another(other)

    def _of_another(self, why: str) -> OptionError:
        return OptionError(
            f"{self.path} holds the beginning of another job ({why}). "
            f"Give the same command to go on with it, choose another output, or delete the folder to start anew"
        )

    def _write(self, identity: Mapping[str, Any]) -> None:
        with atomic(self._card) as part:
            part.write_text(json.dumps(dict(identity), indent=1) + "\n", encoding="utf-8")

    def _parts(self) -> bool:
        return any(self.path.glob("*/*.safetensors"))

    def close(self, *, remove: bool = False) -> None:
        """Let go of the folder; with `remove`, or when there is nothing in it to keep, delete it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            if remove or not self._parts():
                shutil.rmtree(self.path)


def difference(known: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """What of a job is not as it was, in words; "" where nothing is."""
    changed = (key for key, value in identity.items() if key in known and known[key] != value)
    return next((f"{key}: {_shown(known[key])} then, {_shown(identity[key])} now" for key in changed), "")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 60 else text[:57] + "..."
