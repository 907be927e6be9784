"""The Toybox's generators, trained and measured: the hosts that talk about pictures and the painter that draws them.

    train_generators("runs/toybox", vitlens.load("vitlens-toybox"))

All see pictures only. Then every other sensor's lens is plugged in as it is, and what comes out is judged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.benchmarks.toybox.demo.compose import has_seed
from vitlens.benchmarks.toybox.demo.generated import Generated, measure_generators
from vitlens.benchmarks.toybox.sensors.drawn import draw
from vitlens.benchmarks.toybox.training.card import generators_card
from vitlens.benchmarks.toybox.training.host import HOST_FOLDERS, HostKind
from vitlens.benchmarks.toybox.training.host_networks import save_host
from vitlens.benchmarks.toybox.training.host_task import train_host
from vitlens.benchmarks.toybox.training.painter import save_painter
from vitlens.benchmarks.toybox.training.painter_task import train_painter
from vitlens.benchmarks.toybox.training.recipes import GeneratorsRecipe
from vitlens.benchmarks.toybox.training.seed_language_task import train_seed
from vitlens.benchmarks.toybox.training.seed_networks import save_seed
from vitlens.benchmarks.toybox.training.seed_tasks import EditedWorld
from vitlens.benchmarks.toybox.world.objects import Split, World
from vitlens.disk import atomic
from vitlens.model import ViTLens


def train_generators(
    folder: str | os.PathLike[str],
    model: ViTLens,
    recipe: GeneratorsRecipe | None = None,
    *,
    counts: Mapping[Split, int] | None = None,
    workers: int = 2,
) -> Generated:
    """Train hosts and painter in `folder`, or go on there; leaves `folder`/generators with what was trained and measured.

    Raises:
        OptionError: the folder holds a training with other numbers.
    """
    recipe, home = recipe or GeneratorsRecipe(), Path(folder)
    world, result = World(recipe.seed), home / "generators"
    splits: dict[Split, int] = {"train": recipe.objects, "clip_only": recipe.clip_only}
    things = [thing for split, count in splits.items() for thing in world.objects(split, count)]
    pictures = _pictures(home / "drawn", world, splits, workers)
    hosts: dict[HostKind, Path] = {}
    for host in recipe.hosts:
        hosts[host.kind] = place = result / HOST_FOLDERS[host.kind]
        if not (place / "model.safetensors").is_file():
            save_host(place, *train_host(home / HOST_FOLDERS[host.kind], model, pictures, things, host))
    places: dict[str, Any] = {"hosts": hosts}
    if recipe.composer is not None:
        places["seed"] = result / "seed"
        if not has_seed(places["seed"]):
            edited = _pictures(home / "edited", EditedWorld(recipe.seed), splits, workers)
            save_seed(places["seed"], *train_seed(home / "seed", model, pictures, edited, things, world, recipe.composer))
    if recipe.painter is not None:
        places["painter"] = result / "painter"
        if not (result / "painter" / "config.json").is_file():
            save_painter(result / "painter", train_painter(home / "painter", model, pictures, recipe.painter))
    found = measure_generators(home / "drawn", model, **places, world=world, counts=counts, workers=workers)
    with atomic(result / "generators.json") as part:
        part.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    with atomic(result / "generators.md") as part:
        part.write_text(generators_card(recipe, found), encoding="utf-8")
    return found


def _pictures(folder: Path, world: World, splits: Mapping[Split, int], workers: int) -> np.ndarray:
    drawn = [draw(folder, world, split, count, ["image"], workers=workers) for split, count in splits.items()]
    return np.concatenate([array for part in drawn for array in part.arrays["image"]])
