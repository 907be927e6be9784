"""Objaverse-LVIS: shapes of Objaverse (Deitke et al., CVPR 2023) with the 1,156 classes of LVIS, in OpenShape's packing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, checked_label, json_records, wrong_count
from vitlens.benchmarks.datasets.modelnet40 import joined
from vitlens.benchmarks.datasets.packed import LateArray
from vitlens.benchmarks.datasets.safe_pickle import load_data
from vitlens.errors import InputError

TABLE, KEYS = "meta_data/split/lvis.json", ("uid", "category", "group")
SHAPE = "a packed shape of OpenShape: a dict with xyz [n, 3] and rgb [n, 3] of 0..1"


@register_dataset
class ObjaverseLVIS(Dataset):
    """A list of shapes, each a file that is opened when it is read."""

    card: ClassVar[DatasetCard] = dataset_card("objaverse_lvis")
    prompt_file: ClassVar[str | None] = "shapes"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "objaverse_lvis")

    def prompt_names(self, split: str) -> Mapping[str, str]:
        """`bow_(weapon)` as "bow (weapon)"."""
        return {name: name.replace("_", " ") for name in self.classes(split) if "_" in name}

    def check(self, root: Path) -> list[Problem]:
        parts = {TABLE: f"46,205 records with {', '.join(KEYS)}", "Objaverse/": "folders 000-000 to 000-159"}
        if problems := absent(root, parts):
            return problems
        files = [_file(root, record) for _, record in json_records(root / TABLE, KEYS)]
        counted = wrong_count(root / TABLE, len(files), self.card.splits["all"], "records")
        return counted + absent_files(files, f"a shape that {TABLE} lists", of=len(files))

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        names, items = frozenset(self.classes(self.checked(split))), []
        for where, record in json_records(root / TABLE, KEYS):
            label = record["category"]
            if label not in names:
                checked_label(label, self.classes(split), where)
            path = _file(root, record)
            source = LateArray(str(path), str(record["uid"]), partial(read_shape, path))
            items.append(DatasetItem(str(record["uid"]), {"point_cloud": {"source": source, "up": "y", "rgb_max": 1}}, (label,)))
        return items


def _file(root: Path, record: Mapping[str, Any]) -> Path:
    """Where a shape is; the path in its record begins with one of its packers' machine."""
    return root / "Objaverse" / str(record["group"]) / f"{record['uid']}.npy"


def read_shape(path: Path) -> np.ndarray:
    """The coloured points of a packed shape, float32 [n, 6].

    Raises:
        InputError: no such file, damaged, or no shape in it.
    """
    record = load_data(path, SHAPE)
    if not isinstance(record, Mapping) or "xyz" not in record:
        found = f"a dict with {', '.join(map(str, record))}" if isinstance(record, Mapping) else f"a {type(record).__name__}"
        raise InputError(str(path), found, SHAPE)
    return joined(record)
