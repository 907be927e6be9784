"""Make a Toybox on disk: files of every sensor and a manifest for each split, over several processes, resumable at any moment."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitlens import checks
from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS, Detail, checked_sensors, observe
from vitlens.benchmarks.toybox.sensors.workers import each
from vitlens.benchmarks.toybox.world.objects import SPLITS, Split, ToyObject, World
from vitlens.display.progress import ProgressBar
from vitlens.errors import OptionError

SETTINGS = "toybox.json"
CHUNK = 16
"""Objects that a process makes at a time."""


def split_sizes(objects: int | Mapping[str, int], world: World) -> dict[Split, int]:
    """Objects of each split: as given, or for one number that many in "train", as many for each shape in "clip_only", and a
    tenth in each of the others.

    Raises:
        OptionError: an unknown split, or a number below 0.
    """
    if not isinstance(objects, Mapping):
        each = objects / len(world.shapes("train"))
        clip_only = round(each * len(world.shapes("clip_only")))
        objects = {"train": objects, "clip_only": clip_only, **dict.fromkeys(SPLITS[2:], objects // 10)}
    for split, count in objects.items():
        checks.known("toybox: unknown split", [split], SPLITS)
        checks.whole(f"toybox: the number of objects in {split}", count, least=0)
    return {split: objects[split] for split in SPLITS if objects.get(split)}


def make_toybox(
    folder: str | os.PathLike[str],
    *,
    objects: int | Mapping[str, int] = 1000,
    seed: int = 0,
    world: World | None = None,
    sensors: Iterable[str] | None = None,
    detail: Detail | None = None,
    workers: int = 0,
    progress: bool = True,
) -> dict[Split, Path]:
    """Write a Toybox to `folder` and return the manifest of each split, `<split>.csv`.

    Files are `<split>/<modality>/<id><ending>`. Each appears whole or not at all, and what is there is not made again: after an
    interruption the same call goes on; with a larger `objects` or more `sensors` it adds to what there is. `objects` as in
    `split_sizes`. `workers` processes make them (below 2: this one).

    Raises:
        OptionError: `folder` holds a Toybox of another world or detail; an unknown sensor or split.
    """
    world, detail, names = world or World(seed), detail or Detail(), checked_sensors(sensors)
    sizes = split_sizes(objects, world)
    root = Path(folder)
    _claim(root, world, detail)
    for split in sizes:
        for name in names:
            (root / split / name).mkdir(parents=True, exist_ok=True)
    bounds = [(split, first, min(first + CHUNK, count)) for split, count in sizes.items() for first in range(0, count, CHUNK)]
    done, total = 0, sum(sizes.values())
    with ProgressBar(show=progress) as bar:
        for count in each(make_objects, [(root, world, detail, names, *own) for own in bounds], workers):
            done += count
            bar.update("Toybox objects", done, total)
    return {split: _write_manifest(root, world, detail, split, count) for split, count in sizes.items()}


def _claim(root: Path, world: World, detail: Detail) -> None:
    """Note in the folder what it holds, or compare with what is noted there."""
    settings = json.loads(json.dumps({"world": dataclasses.asdict(world), "detail": dataclasses.asdict(detail)}))
    path = root / SETTINGS
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        with _whole(path) as part:
            part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != settings:
        raise OptionError(f"toybox: {root} holds another world or detail ({found}); asked for {settings}: choose another folder")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path beside `path` that becomes it when the block ends well; left over by a kill, the next try overwrites it.

    Unlike `vitlens.disk.atomic` it does not wait for the disk: these are thousands of small files that are quickly made again.
    """
    part = path.with_name(f".part-{path.name}")
    yield part
    os.replace(part, path)


def make_objects(root: Path, world: World, detail: Detail, names: tuple[str, ...], split: Split, first: int, last: int) -> int:
    """Write what is missing of the objects `first` to `last` - 1 of a split; return how many they are."""
    for index in range(first, last):
        thing = world.object(split, index)
        missing = [name for name in names if not (root / _path(thing, name)).exists()]
        for name, array in observe(thing, missing, detail=detail).items():
            with _whole(root / _path(thing, name)) as part:
                SENSORS[name].write(array, part)
    return last - first


def _path(thing: ToyObject, modality: str) -> str:
    """Where an object's file is, seen from the folder."""
    return f"{thing.split}/{modality}/{thing.id}{SENSORS[modality].ending}"


def manifest_row(thing: ToyObject) -> dict[str, Any]:
    """What an object is, and its caption: a row of a manifest before the sensors' columns."""
    return {
        "id": thing.id,
        "split": thing.split,
        "shape": thing.shape,
        "material": thing.material,
        "shape_id": thing.shape_id,
        "material_id": thing.material_id,
        "colour": thing.colour,
        "size": thing.size_word,
        "metres": round(thing.size, 4),
        "caption": thing.caption,
        "text": thing.caption,
    }


def _write_manifest(root: Path, world: World, detail: Detail, split: Split, count: int) -> Path:
    """Rows with the path of each sensor's file (none where it was not asked for) and the read options that go with it."""
    there = {name: set(os.listdir(root / split / name)) for name in SENSORS if (root / split / name).is_dir()}
    rows = []
    for thing in world.objects(split, count):
        row = manifest_row(thing)
        for name, files in there.items():
            place = _path(thing, name)
            row[name] = place if os.path.basename(place) in files else ""
            sensor = SENSORS[name]
            options = {**sensor.options(detail), **(sensor.file_options or {})}
            row |= {f"{name}.{option}": value for option, value in options.items()}
        rows.append(row)
    path = root / f"{split}.csv"
    with _whole(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
