"""Checkpoints of a run: whole or absent, the last few and the best; read back without unpickling anything but tensors."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vitlens.disk import atomic
from vitlens.errors import OptionError

FORMAT = 1


class CheckpointFolder:
    """`<run>/checkpoints`: step-000000120.pt ... and best.pt."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self.keep = keep

    def files(self) -> list[Path]:
        """Checkpoints to resume from, oldest first."""
        return sorted(p for p in self.path.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", p.name))

    def save(self, state: dict[str, Any], step: int, *, best: bool = False) -> None:
        """Put a checkpoint on disk for good; older ones beyond `keep` go once it is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        for unfinished in self.path.glob(".*.part"):
            unfinished.unlink(missing_ok=True)
        if best:
            write_tensors(self.path / "best.pt", state)
        write_tensors(self.path / f"step-{step:09d}.pt", state)
        for old in self.files()[: -self.keep]:
            old.unlink(missing_ok=True)

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read; one that cannot is passed over."""
        for file in reversed(self.files()):
            state = read_tensors(file)
            if state is not None:
                return state
        return None

    def best(self) -> dict[str, Any] | None:
        """The checkpoint of the best evaluation."""
        return read_tensors(self.path / "best.pt")


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values so that `path` appears whole or not at all, and stays after a power cut."""
    with atomic(path) as part:
        torch.save({"format": FORMAT, **state}, part)


def read_tensors(path: Path) -> dict[str, Any] | None:
    """What `write_tensors` wrote; None when it is not there, damaged, or of another format."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None
    return state if isinstance(state, dict) and state.get("format") == FORMAT else None


def check_identity(known: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raise OptionError unless a checkpoint belongs to this very run; the first differences are named."""
    differences = [f"{key}: {then!r} then, {new!r} now" for key, then, new in _differences(known, now)]
    if differences:
        raise OptionError(
            f"{where} holds another run ({'; '.join(differences[:4])}). Give the same recipe to go on with it, another output=, "
            "or delete the folder to start anew"
        )


def _differences(known: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(known, dict) and isinstance(now, dict):
        for key in [*known, *(k for k in now if k not in known)]:
            yield from _differences(known.get(key), now.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif known != now:
        yield prefix, known, now
