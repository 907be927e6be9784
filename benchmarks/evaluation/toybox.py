"""`vitlens eval toybox`: held-out objects of the Toybox, made on this machine, with every sensor; nothing is downloaded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from vitlens import checks
from vitlens.benchmarks.datasets import get_dataset
from vitlens.benchmarks.evaluation.run import Found, Settings, find
from vitlens.benchmarks.toybox.sensors.drawn import LABELS
from vitlens.benchmarks.toybox.sensors.make import SETTINGS, make_toybox
from vitlens.errors import OptionError
from vitlens.processes import barrier, local_world
from vitlens.store.store import default_folder

OBJECTS = {"test": 280, "unseen_pairs": 140, "unseen_shapes": 100}
"""Objects of each split: whole rounds over its shapes."""


def toybox_suite(data_root: Path | None, settings: Settings, *, make: bool = True) -> list[Found]:
    """Every sensor's dataset on every split of the Toybox in `data_root`; where there is none, of one that is made and kept.

    Raises:
        OptionError: a split that the Toybox does not have; a probe (there is no training split).
        InputError: an incomplete Toybox.
    """
    if settings.task != "zero-shot":
        raise OptionError("toybox: zero-shot only; there is no training split")
    splits = [settings.split] if settings.split else list(OBJECTS)
    checks.known("toybox: no split", splits, OBJECTS)
    datasets = [get_dataset(f"toybox-{sensor}") for sensor in LABELS]
    there = [root for root in (data_root, data_root / "toybox") if (root / SETTINGS).is_file()] if data_root else []
    folder = there[0] if there else made_folder(settings)
    if not there and make:
        if local_world()[0] == 0:
            make_toybox(folder, objects=OBJECTS, workers=min(4, os.cpu_count() or 1))
        barrier()
    elif not there and not all((folder / f"{split}.csv").is_file() for split in splits):
        return [Found(dataset, folder, split, [], 0, ["would be made first"]) for dataset in datasets for split in splits]
    return [find(dataset, folder, replace(settings, split=split)) for dataset in datasets for split in splits]


def made_folder(settings: Settings) -> Path:
    """Where a Toybox that is made here is kept: beside the embeddings."""
    return (settings.cache or default_folder()).with_name("toybox")
