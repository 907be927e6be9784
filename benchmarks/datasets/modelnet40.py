"""ModelNet40: shapes of household things drawn by hand, 40 classes (Wu et al., CVPR 2015), in the two forms that are in use.

`modelnet40` is the resampled release of the PointNet++ authors (points and normals, y up), as text files or as ULIP's cache of
8,192 points each. `modelnet40-openshape` is OpenShape's pack of 10,000 grey points each. The two hold different points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, checked_label, json_records, text_lines, wrong_count
from vitlens.benchmarks.datasets.packed import LateArray
from vitlens.benchmarks.datasets.safe_pickle import load_data
from vitlens.errors import InputError

CACHE = "modelnet40_{split}_8192pts_fps.dat"
NAMES = "names such as airplane_0627, one a line"
CACHED = "a cache of ULIP's: two lists, of float arrays [8192, 6] and of label numbers"
PACK = "OpenShape's pack: an array of records with xyz [n, 3] and rgb [n, 3]"


class _ModelNet(Dataset):
    """What both forms share: classes and prompts."""

    prompt_file: ClassVar[str | None] = "shapes"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "modelnet40")


@register_dataset
class ModelNet40(_ModelNet):
    """Text files of a list, or the cache made of them."""

    card: ClassVar[DatasetCard] = dataset_card("modelnet40")

    def check(self, root: Path) -> list[Problem]:
        """The test part; the training part as well where the folders of text files, which hold both, are there."""
        if problems := absent(root, {"modelnet40_test.txt": NAMES}):
            return problems
        problems += self._absent(root, "test")
        if (root / "modelnet40_train.txt").is_file() and (root / "airplane").is_dir():
            problems += self._absent(root, "train")
        return problems

    def _absent(self, root: Path, split: str) -> list[Problem]:
        path, cache = root / f"modelnet40_{split}.txt", CACHE.format(split=split)
        names = [name for _, name in text_lines(path, NAMES)]
        counted = wrong_count(path, len(names), self.card.splits[split], "names")
        if (root / cache).is_file():
            return counted
        files = [_text_file(root, name) for name in names]
        return counted + absent_files(files, f"10,000 lines x,y,z,nx,ny,nz (or {cache} beside the lists)", of=len(files))

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        path, names = root / f"modelnet40_{self.checked(split)}.txt", self.classes(split)
        lines = text_lines(path, NAMES)
        labels = [checked_label(name.rpartition("_")[0].replace("_", " "), names, where) for where, name in lines]
        ids = [name for _, name in lines]
        cache = root / CACHE.format(split=split)
        sources = _cached(cache, labels, names) if cache.is_file() else [_text_file(root, name) for name in ids]
        return [
            DatasetItem(name, {"point_cloud": {"source": source, "columns": "xyznormal", "up": "y"}}, (label,))
            for name, source, label in zip(ids, sources, labels, strict=True)
        ]


def _text_file(root: Path, name: str) -> Path:
    return root / name.rpartition("_")[0] / f"{name}.txt"


def _cached(path: Path, labels: Sequence[str], classes: Sequence[str]) -> list[LateArray]:
    """The clouds of a cache, whose own label numbers must say the same as the list."""
    pack = load_data(path, CACHED)
    if not isinstance(pack, list | tuple) or len(pack) != 2 or not all(isinstance(part, list | tuple) for part in pack):
        raise InputError(str(path), f"a {type(pack).__name__}, not two lists", CACHED)
    if not len(pack[0]) == len(pack[1]) == len(labels):
        found = f"{len(pack[0])} clouds and {len(pack[1])} labels"
        raise InputError(str(path), found, f"{len(labels)}, as many as the list beside it has names")
    for place, (number, label) in enumerate(zip(pack[1], labels, strict=True)):
        if np.size(number) != 1 or classes.index(label) != int(np.ravel(number)[0]):
            raise InputError(f"{path}[{place}]", f"the label {number}", f"{classes.index(label)} ({label}), as the list says")
    return [LateArray(str(path), place, partial(np.asarray, cloud)) for place, cloud in enumerate(pack[0])]


@register_dataset
class ModelNet40OpenShape(_ModelNet):
    """Records of one packed array."""

    card: ClassVar[DatasetCard] = dataset_card("modelnet40-openshape")

    def check(self, root: Path) -> list[Problem]:
        folder = "meta_data/modelnet40"
        problems = absent(
            root, {f"{folder}/test_split.json": "2,468 records with name and category", f"{folder}/test_pc.npy": PACK}
        )
        if problems:
            return problems
        path = root / folder / "test_split.json"
        return wrong_count(path, len(json_records(path, ("name", "category"))), self.card.splits["test"], "records")

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        self.checked(split)
        folder, names = root / "meta_data" / "modelnet40", self.classes(split)
        records = json_records(folder / "test_split.json", ("name", "category"))
        labels = [checked_label(str(record["category"]).replace("_", " "), names, where) for where, record in records]
        path = folder / "test_pc.npy"
        clouds = load_data(path, PACK)
        if not isinstance(clouds, np.ndarray | list) or len(clouds) != len(records):
            found = f"{len(clouds)} records" if isinstance(clouds, np.ndarray | list) else f"a {type(clouds).__name__}"
            raise InputError(str(path), found, f"{len(records)} records, as many as test_split.json")
        return [
            DatasetItem(str(record["name"]), {"point_cloud": packed_cloud(path, place, cloud, rgb_max=255)}, (label,))
            for place, ((_, record), cloud, label) in enumerate(zip(records, clouds, labels, strict=True))
        ]


def packed_cloud(path: Path, place: int | str, record: Any, *, rgb_max: float) -> dict[str, Any]:
    """An OpenShape record of xyz and, where there are colours, rgb, as an item of the point_cloud modality.

    Raises:
        InputError: no such record.
    """
    if not isinstance(record, Mapping) or "xyz" not in record:
        found = f"a record with {', '.join(map(str, record)) or 'no keys'}" if isinstance(record, Mapping) else "no record"
        raise InputError(f"{path}[{place}]", found, "xyz [n, 3] and, as the case may be, rgb [n, 3]")
    return {"source": LateArray(str(path), place, partial(joined, record)), "up": "y", "rgb_max": rgb_max}


def joined(record: Mapping[str, Any]) -> np.ndarray:
    """xyz and rgb, where there are colours, side by side as float32 [n, 3 or 6]."""
    parts = [np.asarray(record[key], np.float32) for key in ("xyz", "rgb") if record.get(key) is not None]
    return np.concatenate(parts, axis=1)
