"""ImageNet-EEG: 6 people look at pictures of 40 ImageNet classes for half a second each (Spampinato et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, label_at, some
from vitlens.benchmarks.datasets.packed import LateArray
from vitlens.errors import InputError
from vitlens.modalities.eeg_layouts import LAYOUTS
from vitlens.sources import GIB, check_file, decoding

SIGNALS, PARTS = "eeg_5_95_std.pth", "block_splits_by_image_all.pth"
SIGNALS_ARE = "a dict with dataset (records of eeg [128, n], image, label, subject), labels (synsets) and images (names)"
PARTS_ARE = "a dict with splits: a list of {train, val, test}, each a list of places in the signals' dataset"
SHORTEST, LONGEST = 450, 600
"""Trials of another number of samples are left out, as in all published work on these files."""


@register_dataset
class ImageNetEEG(Dataset):
    """Trials of one file, parted by another; both are read as tensors only, without running code."""

    card: ClassVar[DatasetCard] = dataset_card("imagenet_eeg")

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "imagenet_eeg")

    def check(self, root: Path) -> list[Problem]:
        return absent(root, {SIGNALS: SIGNALS_ARE, PARTS: PARTS_ARE})

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        places, path, names = _part(root / PARTS, self.checked(split)), root / SIGNALS, self.classes(split)
        trials, synsets, pictures = _signals(path)
        items = []
        for place in places:
            if not 0 <= place < len(trials):
                raise InputError(str(root / PARTS), f"the place {place}", f"0 to {len(trials) - 1}: {SIGNALS} has no more trials")
            trial, where = trials[place], f"{path}[{place}]"
            signal = _signal(trial, where)
            if SHORTEST <= signal.shape[1] <= LONGEST:
                name = label_at(trial["label"], names, where)
                _check_synset(synsets, names.index(name), path)
                picture = _picture(pictures, trial["image"], where)
                source = LateArray(str(path), place, partial(_array, signal))
                eeg = {"source": source, "rate": 1000, "channels": LAYOUTS["imagenet-eeg"], "unit": "standardized"}
                items.append(DatasetItem(f"{place:05d}-subject{int(trial['subject'])}-{picture}", {"eeg": eeg}, (name,)))
        return some(items, path, f"trials of {SHORTEST} to {LONGEST} samples in {split}")


def _array(signal: torch.Tensor) -> np.ndarray:
    return signal.numpy()


def _load(path: Path, accepted: str) -> Mapping[str, Any]:
    """A .pth file's dict of tensors, lists and numbers."""
    check_file(path, accepted=accepted, max_bytes=64 * GIB)
    with decoding(path, accepted):
        found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise InputError(str(path), f"a {type(found).__name__}", accepted)
    return found


def _part(path: Path, split: str) -> list[int]:
    splits = _load(path, PARTS_ARE).get("splits")
    if not isinstance(splits, list) or not splits or not isinstance(splits[0], Mapping) or split not in splits[0]:
        raise InputError(str(path), f"no splits[0][{split!r}]", PARTS_ARE)
    with decoding(path, PARTS_ARE):
        return [int(place) for place in splits[0][split]]


def _signals(path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """Trials, synsets by label, and picture names."""
    found = _load(path, SIGNALS_ARE)
    if missing := [key for key in ("dataset", "labels", "images") if not isinstance(found.get(key), list)]:
        raise InputError(str(path), f"no list {', '.join(missing)} (it has {', '.join(map(str, found))})", SIGNALS_ARE)
    return found["dataset"], found["labels"], found["images"]


def _signal(trial: Any, where: str) -> torch.Tensor:
    keys = {"eeg", "image", "label", "subject"}
    if not isinstance(trial, Mapping) or not keys <= set(trial) or not isinstance(trial["eeg"], torch.Tensor):
        raise InputError(where, "no record of a trial", SIGNALS_ARE)
    if trial["eeg"].ndim != 2:
        raise InputError(where, f"eeg of shape {list(trial['eeg'].shape)}", "[128, n]")
    return trial["eeg"]


def _check_synset(synsets: Sequence[Any], label: int, path: Path) -> None:
    """The file's own list of classes must be ours: its order is not alphabetical, and other orders go around."""
    ours = read_lines("labels", "imagenet_eeg_synsets")[label]
    if label >= len(synsets) or synsets[label] != ours:
        found = synsets[label] if label < len(synsets) else "nothing"
        raise InputError(str(path), f"label {label} is {found}", f"{ours}, as in labels/imagenet_eeg_synsets.txt")


def _picture(pictures: Sequence[Any], number: Any, where: str) -> str:
    """The name of the picture that was shown."""
    if not isinstance(number, int) or not 0 <= number < len(pictures):
        raise InputError(where, f"the picture {number!r}", f"0 to {len(pictures) - 1}")
    return str(pictures[number])
