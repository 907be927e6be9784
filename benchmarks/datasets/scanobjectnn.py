"""ScanObjectNN: 2,902 things cut out of scanned rooms, 15 classes (Uy et al., ICCV 2019), in the two forms that are in use.

`scanobjectnn` is the official HDF5 release, whose variants are splits here. `scanobjectnn-openshape` is OpenShape's pack, on
which the published zero-shot numbers were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, label_at
from vitlens.benchmarks.datasets.modelnet40 import packed_cloud
from vitlens.benchmarks.datasets.safe_pickle import load_data
from vitlens.errors import InputError, MissingDependencyError
from vitlens.sources import check_file, decoding

FILES: dict[str, tuple[str, ...]] = {
    "obj_only": ("main_split_nobg/test_objectdataset.h5",),
    "obj_only_train": ("main_split_nobg/training_objectdataset.h5",),
    "obj_only_all": ("main_split_nobg/training_objectdataset.h5", "main_split_nobg/test_objectdataset.h5"),
    "obj_bg": ("main_split/test_objectdataset.h5",),
    "pb_t50_rs": ("main_split/test_objectdataset_augmentedrot_scale75.h5",),
}
HDF5 = "an HDF5 file with data [n, 2048, 3] and label [n]"
PACK = "OpenShape's pack: a dict with xyz (a cloud per thing), label (a number per thing) and perhaps rgb"


class _ScanObjects(Dataset):
    """What both forms share: classes and prompts."""

    prompt_file: ClassVar[str | None] = "shapes"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "scanobjectnn")


@register_dataset
class ScanObjectNN(_ScanObjects):
    """HDF5 files of clouds and label numbers."""

    card: ClassVar[DatasetCard] = dataset_card("scanobjectnn")

    def check(self, root: Path) -> list[Problem]:
        """Any of the files will do; that of a split is asked for when its items are."""
        if any((root / file).is_file() for files in FILES.values() for file in files):
            return []
        return absent(root, dict.fromkeys(FILES[self.card.default_split], HDF5))

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        self.checked(split)
        return [item for file in FILES[split] for item in self._items_of(root / file, file)]

    def _items_of(self, path: Path, file: str) -> list[DatasetItem]:
        clouds, labels = _read(path)
        names = self.classes(self.card.default_split)
        stem = file.removesuffix(".h5").replace("/", "-")
        return [
            DatasetItem(
                f"{stem}-{place:05d}",
                {"point_cloud": packed_cloud(path, place, {"xyz": cloud}, rgb_max=1)},
                (label_at(label, names, f"{path}[{place}]"),),
            )
            for place, (cloud, label) in enumerate(zip(clouds, labels, strict=True))
        ]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Clouds [n, 2048, 3] and labels [n] of an official file."""
    check_file(path, accepted=HDF5)
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("ScanObjectNN's files need h5py: pip install 'vitlens[eval]'") from error
    with decoding(path, HDF5), h5py.File(path, "r") as file:
        if missing := [key for key in ("data", "label") if key not in file]:
            raise InputError(str(path), f"no {', '.join(missing)} (it holds {', '.join(file)})", HDF5)
        clouds, labels = np.asarray(file["data"], np.float32), np.asarray(file["label"]).reshape(-1)
    if clouds.ndim != 3 or clouds.shape[2] != 3 or len(clouds) != len(labels):
        raise InputError(str(path), f"data {list(clouds.shape)} and {len(labels)} labels", HDF5)
    return clouds, labels


@register_dataset
class ScanObjectNNOpenShape(_ScanObjects):
    """One packed dict."""

    card: ClassVar[DatasetCard] = dataset_card("scanobjectnn-openshape")

    def check(self, root: Path) -> list[Problem]:
        return absent(root, {"meta_data/scanobjectnn/xyz_label.npy": PACK})

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        path, names = root / "meta_data" / "scanobjectnn" / "xyz_label.npy", self.classes(self.checked(split))
        records = _records(path)
        return [
            DatasetItem(
                f"{place:05d}",
                {"point_cloud": packed_cloud(path, place, record, rgb_max=1)},
                (label_at(record["label"], names, f"{path}[{place}]"),),
            )
            for place, record in enumerate(records)
        ]


def _records(path: Path) -> list[dict[str, Any]]:
    """The pack's columns as a record per thing."""
    pack = load_data(path, PACK)
    if not isinstance(pack, Mapping) or not {"xyz", "label"} <= set(pack):
        found = f"a dict with {', '.join(map(str, pack))}" if isinstance(pack, Mapping) else f"a {type(pack).__name__}"
        raise InputError(str(path), found, PACK)
    columns = {key: pack[key] for key in ("xyz", "label", "rgb") if pack.get(key) is not None}
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) != 1 or not lengths["xyz"]:
        raise InputError(str(path), ", ".join(f"{count} of {key}" for key, count in lengths.items()), PACK)
    return [{key: column[place] for key, column in columns.items()} for place in range(lengths["xyz"])]
