"""NYU Depth v2: rooms seen by a Kinect (Silberman et al., ECCV 2012), as they lie inside SUN RGB-D; ten classes.

After ViT-Lens's protocol every fine label gets its own text vector; what is not one of the nine larger classes counts as
"others" once it is ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, checked_label, some, wrong_count
from vitlens.benchmarks.datasets.sun_rgbd import (
    absent_folders,
    depth_of,
    entries_of,
    label_of,
    parts_of,
)

LISTS = {"test": "NYU-Depth-v2_val.json", "train": "NYU-Depth-v2_train.json"}
FOLDER = "kv1/NYUdata/"
OTHERS = "others"


@register_dataset
class NYUv2(Dataset):
    """The part of SUN RGB-D that came from NYU Depth v2."""

    card: ClassVar[DatasetCard] = dataset_card("nyuv2")
    prompt_file: ClassVar[str | None] = "scenes"

    def classes(self, split: str) -> tuple[str, ...]:
        """The fine labels of the split."""
        return read_lines("labels", "nyuv2_train" if split == "train" else "nyuv2")

    def merged(self, split: str) -> Mapping[str, str]:
        kept = read_lines("labels", "nyuv2_merged")
        return {name: OTHERS for name in self.classes(split) if name not in kept}

    def check(self, root: Path) -> list[Problem]:
        if problems := absent(root, parts_of(root, LISTS)):
            return problems
        folders = [folder for _, folder, _ in entries_of(root, "test", LISTS) if folder.startswith(FOLDER)]
        return wrong_count(root, len(folders), self.card.splits["test"], "test images") + absent_folders(root, folders)

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        names, items = self.classes(self.checked(split)), []
        for where, folder, label in entries_of(root, split, LISTS):
            if folder.startswith(FOLDER):
                name = checked_label(label_of(root, folder, label), names, where)
                items.append(DatasetItem(folder, {"depth": depth_of(root, folder)}, (name,)))
        return some(items, root / "SUNRGBD" / FOLDER, f"images of the split {split}")
