"""THINGS-EEG2: ten people see pictures of things in a rapid stream (Gifford et al., NeuroImage 2022): 200 pictures to tell apart.

An EEG asks, the 200 pictures shown are searched. Read are the files of NICE's preprocessing at 250 Hz (arXiv 2308.13234).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, register_dataset
from vitlens.benchmarks.datasets.listing import absent, wrong_count
from vitlens.benchmarks.datasets.packed import LateArray
from vitlens.benchmarks.datasets.safe_pickle import load_data
from vitlens.errors import InputError

PEOPLE = tuple(f"sub-{number:02d}" for number in range(1, 11))
SIGNALS = "Preprocessed_data_250Hz/{person}/preprocessed_eeg_test.npy"
SIGNALS_ARE = "a dict with preprocessed_eeg_data [200, repetitions, channels, samples], ch_names and times"
PICTURES = "Image_set/test_images"


@register_dataset
class ThingsEEG(Dataset):
    """One person's file, and the folder of test pictures."""

    card: ClassVar[DatasetCard] = dataset_card("things_eeg")

    def check(self, root: Path) -> list[Problem]:
        problems = absent(root, {f"{PICTURES}/": "200 folders with a picture each"})
        if problems:
            return problems
        problems = wrong_count(root / PICTURES, len(_folders(root)), 200, "folders")
        if not any((root / SIGNALS.format(person=person)).is_file() for person in PEOPLE):
            problems += absent(root, {SIGNALS.format(person=PEOPLE[0]): SIGNALS_ARE})
        return problems

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        path = root / SIGNALS.format(person=self.checked(split))
        means, channels, rate = _means(path)
        folders = _folders(root)
        if len(folders) != len(means):
            raise InputError(
                str(root / PICTURES), f"{len(folders)} folders", f"{len(means)}, as many as {path.name} has pictures"
            )
        items = []
        for place, (folder, mean) in enumerate(zip(folders, means, strict=True)):
            source = LateArray(str(path), place, partial(np.asarray, mean))
            eeg = {"source": source, "rate": rate, "channels": channels, "unit": "standardized"}
            items.append(DatasetItem(folder.name, {"eeg": eeg, "image": _picture(folder)}))
        return items


def _folders(root: Path) -> list[Path]:
    place = root / PICTURES
    return sorted(entry for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []


def _picture(folder: Path) -> Path:
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(pictures) != 1:
        raise InputError(str(folder), f"{len(pictures)} pictures", "one jpg")
    return pictures[0]


def _means(path: Path) -> tuple[np.ndarray, list[str], float]:
    """The means over repetitions [pictures, channels, samples], channel names, and samples a second."""
    found = load_data(path, SIGNALS_ARE)
    keys = ("preprocessed_eeg_data", "ch_names", "times")
    if not isinstance(found, Mapping) or any(key not in found for key in keys):
        what = f"a dict with {', '.join(map(str, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise InputError(str(path), what, SIGNALS_ARE)
    data, channels = np.asarray(found["preprocessed_eeg_data"]), [str(name) for name in found["ch_names"]]
    if data.ndim != 4 or data.shape[2] != len(channels) or data.dtype.kind != "f":
        raise InputError(str(path), f"data {data.dtype} {list(data.shape)} and {len(channels)} channel names", SIGNALS_ARE)
    return np.stack([trials.mean(axis=0, dtype=np.float64) for trials in data]).astype(np.float32), channels, _rate(found, path)


def _rate(found: Mapping[str, Any], path: Path) -> float:
    times = np.asarray(found["times"], float).reshape(-1)
    if len(times) < 2 or not times[1] > times[0]:
        raise InputError(str(path), f"{len(times)} times", "times in seconds, rising")
    return float(round(1 / (times[1] - times[0])))
