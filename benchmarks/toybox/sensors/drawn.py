"""What a training looks at: the sensors' arrays of a split's first objects, drawn once and kept on disk in parts.

A part appears whole or not at all, so an interrupted drawing goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS, Detail, as_items, checked_sensors, observe
from vitlens.benchmarks.toybox.sensors.workers import each
from vitlens.benchmarks.toybox.world.captions import MATERIAL_PROMPTS, SHAPE_PROMPTS, TEMPLATES, describe
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import Split, ToyObject, World
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.disk import atomic
from vitlens.display.progress import track

PART = 500
"""Objects in a part."""
BOTH = ("image", "thermal", "imu", "pressure")
"""Sensors that tell shape and material."""
LABELS = {name: "material" if name in ("tactile", "audio") else "shape" for name in SENSORS}
"""What each sensor is asked for first: touch and sound tell what a thing is made of, the others which shape it has."""
ASKED = {name: ("shape", "material") if name in BOTH else (label,) for name, label in LABELS.items()}
"""All that each sensor is asked for."""
PROMPTS = {"shape": SHAPE_PROMPTS, "material": MATERIAL_PROMPTS}
MICROVOLTS = 1e6
"""EEG is kept as float16 microvolts: volts would underflow."""


def class_names(sensor: str) -> list[str]:
    """What a sensor may have measured, in words: the names of all shapes, or of all materials."""
    return [material.name for material in MATERIALS.values()] if LABELS.get(sensor) == "material" else list(SHAPES)


class Drawn(Sequence[dict[str, np.ndarray]]):
    """Arrays of objects by number, as `observe` gives them; float32 EEG is in microvolts (see `rows`)."""

    def __init__(self, things: list[ToyObject], arrays: dict[str, list[np.ndarray]]) -> None:
        self.things = things
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.things)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part, place = divmod(index, PART)
        return {name: parts[part][place] for name, parts in self.arrays.items()}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    def items(self, index: int) -> dict[str, dict[str, Any]]:
        """An object's arrays as `Modality.load` takes them."""
        found = as_items(self[index])
        if "eeg" in found:
            found["eeg"] |= {"source": np.asarray(found["eeg"]["source"], np.float32), "unit": "uV"}
        return found

    def column(self, name: str) -> list[dict[str, Any]]:
        """One sensor's items of all objects."""
        only = Drawn(self.things, {name: self.arrays[name]})
        return [only.items(i)[name] for i in range(len(only))]


class Rows(Sequence[Mapping[str, Any]]):
    """The trainer's rows: one sensor, the picture, and captions; `label` is the sensor's class name."""

    def __init__(self, drawn: Drawn, sensor: str) -> None:
        self.drawn = Drawn(drawn.things, {name: drawn.arrays[name] for name in dict.fromkeys((sensor, "image"))})
        self.label = LABELS[sensor]
        self.lines = (*TEMPLATES, *(line for label in ASKED[sensor] for line in PROMPTS[label]))

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: Any) -> Any:
        thing = self.drawn.things[index]
        texts = [describe(thing, line) for line in self.lines]
        return {**self.drawn.items(index), "text": texts, "label": getattr(thing, self.label)}


def draw(
    folder: Path,
    world: World,
    split: Split,
    count: int,
    sensors: Iterable[str],
    *,
    detail: Detail | None = None,
    workers: int = 2,
) -> Drawn:
    """What the sensors measure of the first `count` objects of a split; what `folder` has is read and not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    names, detail = checked_sensors(sensors), detail or Detail()
    bounds = [(start, min(start + PART, count)) for start in range(0, count, PART)]
    jobs = []
    for start, stop in bounds:
        paths = {name: folder / f"{name}-{split}-{world.seed}-{start}-{stop}.npy" for name in names}
        jobs.append((paths, world, split, start, stop, detail))
    missing = [job for job in jobs if not all(path.is_file() for path in job[0].values())]
    if missing:
        for _ in track(each(_draw_part, missing, workers), f"drawing {split}: {', '.join(names)}", len(missing)):
            pass
    arrays = {name: [np.load(job[0][name], mmap_mode="r") for job in jobs] for name in names}
    return Drawn(world.objects(split, count), arrays)


def _draw_part(paths: dict[str, Path], world: World, split: Split, start: int, stop: int, detail: Detail) -> None:
    missing = [name for name, path in paths.items() if not path.is_file()]
    found: dict[str, list[np.ndarray]] = {name: [] for name in missing}
    image = paths.get("image")
    pictures = np.load(image) if image is not None and image.is_file() and detail.picture == 64 else [None] * (stop - start)
    for index, seen in zip(range(start, stop), pictures, strict=True):
        for name, array in observe(world.object(split, index), missing, detail=detail, seen=seen).items():
            found[name].append((array * MICROVOLTS).astype(np.float16) if name == "eeg" else array)
    for name, rows in found.items():
        with atomic(paths[name]) as part, part.open("wb") as stream:
            np.save(stream, np.stack(rows))
