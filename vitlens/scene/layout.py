"""What a layout of recordings is, and what their readers share: files with numbers in their names, pairs, poses for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitlens.errors import InputError
from vitlens.scene.camera import Intrinsics
from vitlens.scene.recording import PAIRED, Frame, Overrides
from vitlens.scene.trajectories import Trajectory
from vitlens.sources import check_file, decoding


@dataclass(frozen=True)
class Found:
    """What a layout's files say. `colour` is None where depth was registered to the colour picture (the same camera, then)."""

    frames: list[Frame]
    camera: Intrinsics | None
    depth_scale: float
    colour: Intrinsics | None = None
    depth_size: tuple[int, int] | None = None
    """Width and height of depth maps whose files do not say it."""
    convention: str = "opencv"
    direction: str = "camera-to-world"
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """A way to lay out a recording: what must be there in words, whether a folder looks like it, and its reader."""

    name: str
    needs: str
    looks: Callable[[Path], bool]
    read: Callable[[Path, Overrides], Found]


def number_of(path: Path) -> int | None:
    """The last number in a file's name: 12 of frame000012.jpg."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else None


def files_in(folder: Path, types: set[str], starts: str = "") -> list[Path]:
    """Files of these types, by number and then by name."""
    found = [
        p for p in folder.iterdir() if p.suffix.lower() in types and p.name.startswith(starts) and not p.name.startswith(".")
    ]
    return sorted(found, key=lambda path: (number_of(path) or 0, path.name))


def pairs(colour: Sequence[Path], depth: Sequence[Path], where: Path) -> list[tuple[str, Path | None, Path | None]]:
    """(name, colour picture, depth map) by the number in the names; where no numbers agree, in order.

    Raises:
        InputError: no files, two of one number, or neither numbers nor counts that agree.
    """
    if not colour or not depth:
        raise InputError(str(where), f"{len(colour)} colour pictures and {len(depth)} depth maps", PAIRED)
    by_number = [by_numbers(files, where) for files in (colour, depth)]
    if all(by_number) and set(by_number[0]) & set(by_number[1]):
        numbers = sorted({*by_number[0], *by_number[1]})
        both = [(by_number[0].get(n), by_number[1].get(n)) for n in numbers]
        return [((c or d or where).stem, c, d) for c, d in both]
    if len(colour) != len(depth):
        found = f"{len(colour)} colour pictures and {len(depth)} depth maps whose names have no number in common"
        raise InputError(str(where), found, PAIRED)
    return [(c.stem, c, d) for c, d in zip(colour, depth, strict=True)]


def by_numbers(files: Iterable[Path], where: Path) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in files:
        number = number_of(path)
        if number is None:
            return {}
        if number in found:
            raise InputError(str(where), f"two files of number {number}: {found[number].name} and {path.name}", PAIRED)
        found[number] = path
    return found


def with_poses(
    named: Sequence[tuple[str, Path | None, Path | None]], trajectory: Trajectory, source: Path, notes: list[str]
) -> list[Frame]:
    """Frames with their poses: by number where the trajectory's numbers are the files', else in order.

    Raises:
        InputError: numbers that are not the files', and another count.
    """
    if trajectory.times is not None:
        found = f"{source.name} has times, and the pictures have none"
        raise InputError(str(source), found, "a pose for each picture in order, or the TUM layout (rgb.txt, depth.txt)")
    numbers = [number_of(colour or depth or Path(name)) for name, colour, depth in named]
    if trajectory.numbers is not None and len(set(trajectory.numbers)) == len(trajectory.numbers):
        known = dict(zip(trajectory.numbers, trajectory.poses, strict=True))
        if set(known) <= set(numbers):
            return [Frame(name, c, d, known.get(n)) for (name, c, d), n in zip(named, numbers, strict=True)]  # type: ignore[arg-type]
    if len(trajectory.poses) != len(named):
        found = f"{len(trajectory.poses)} poses for {len(named)} frames, and their numbers are not the files'"
        raise InputError(str(source), found, "a pose for every frame, in order or with the numbers of the files")
    if trajectory.numbers is not None:
        notes.append(f"{source.name}: its numbers are not the files'; poses were taken in order")
    return [Frame(name, c, d, pose) for (name, c, d), pose in zip(named, trajectory.poses, strict=True)]


def folder_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these folders that is there."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def file_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that is there."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_json(path: Path, accepted: str) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: it is not.
    """
    check_file(path, accepted=accepted)
    with decoding(path, accepted):
        return json.loads(path.read_text(encoding="utf-8"))
