"""Clips of YouTube videos, as copies of AudioSet, VGGSound and AudioCaps hold them: named in several ways, and never complete."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vitlens.benchmarks.datasets.dataset import Problem

ENDINGS = (".flac", ".wav", ".mp3", ".ogg", ".opus")


def clips_in(root: Path, folders: Sequence[str]) -> dict[str, Path]:
    """The sound files in the first of `folders` that holds any, by name without ending."""
    for folder in folders:
        place = root / folder
        if place.is_dir():
            with os.scandir(place) as entries:
                found = {os.path.splitext(entry.name)[0]: Path(entry.path) for entry in entries if entry.name.endswith(ENDINGS)}
            if found:
                return found
    return {}


def parts_there(root: Path, folders: Mapping[str, Sequence[str]], default: str) -> list[str]:
    """The splits that have a folder of their own among `folders`, else the default one."""
    return [split for split, own in folders.items() if any((root / folder).is_dir() for folder in own[:-1])] or [default]


def clip_of(clips: Mapping[str, Path], video: str, start: float, end: float | None = None) -> Path | None:
    """The file of a clip under any of the names that download tools give: by the video alone, or with its seconds."""
    names = [f"{video}_{int(start):06d}", f"{video}_{int(start)}", f"{video}_{int(start * 1000)}", video, f"Y{video}"]
    if end is not None:
        names += [f"{video}_{int(start * 1000)}_{int(end * 1000)}", f"{video}_{int(start)}_{int(end)}"]
        names += [f"{video}_{start:.3f}_{end:.3f}", f"Y{video}_{start:.3f}_{end:.3f}"]
    return next((clips[name] for name in names if name in clips), None)


def absent_clips(root: Path, folders: Sequence[str], found: Iterable[Path | None]) -> list[Problem]:
    """A Problem with the number of clips that are missing, if any are."""
    files = list(found)
    missing = files.count(None)
    if not missing:
        return []
    expected = f"{len(files):,} clips: {missing:,} are missing and are left out (videos vanish: say how many were scored)"
    return [Problem(str(root / folders[0]), expected)]
