"""CIFAR-10 and CIFAR-100: pictures of 32 x 32 pixels (Krizhevsky, 2009): a small check of the anchors' image tower."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, label_at
from vitlens.benchmarks.datasets.safe_pickle import load_data
from vitlens.errors import InputError


class _CIFAR(Dataset):
    """Pictures in a pickle of rows of 3,072 values."""

    prompt_file: ClassVar[str | None] = "photos"
    file: ClassVar[str]
    meta: ClassVar[str]
    label_key: ClassVar[str]
    names_key: ClassVar[str]

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", self.card.name)

    def check(self, root: Path) -> list[Problem]:
        parts = {self.file: "10,000 test pictures", self.meta: "the names of the classes"}
        return absent(root, parts) or self._wrong_checksum(root / self.file)

    def _wrong_checksum(self, path: Path) -> list[Problem]:
        """Compared with the sums that torchvision publishes."""
        from torchvision.datasets import CIFAR10, CIFAR100

        known = (CIFAR10 if self.card.name == "cifar10" else CIFAR100).test_list[0][1]
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        return [] if found == known else [Problem(str(path), f"a file whose MD5 is {known}, found {found}")]

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        path, names = root / self.file, self.classes(self.checked(split))
        self._check_names(root / self.meta)
        pictures, numbers, files = self._columns(path)
        return [
            DatasetItem(str(file), {"image": picture}, (label_at(number, names, f"{path}[{place}]"),))
            for place, (picture, number, file) in enumerate(zip(pictures, numbers, files, strict=True))
        ]

    def _check_names(self, path: Path) -> None:
        """The copy's own class names must be ours, in our order."""
        found = _dict_of(path, (self.names_key,))[self.names_key]
        if tuple(str(name).replace("_", " ") for name in found) != self.classes("test"):
            raise InputError(str(path), f"{self.names_key} {list(found)[:4]} ...", f"the classes of labels/{self.card.name}.txt")

    def _columns(self, path: Path) -> tuple[np.ndarray, list[Any], list[Any]]:
        """Pictures uint8 [n, 32, 32, 3], label numbers and file names."""
        found = _dict_of(path, ("data", self.label_key, "filenames"))
        rows, numbers, files = np.asarray(found["data"]), found[self.label_key], found["filenames"]
        if rows.ndim != 2 or rows.shape[1] != 3072 or rows.dtype != np.uint8 or not len(rows) == len(numbers) == len(files):
            what = f"data {rows.dtype} {list(rows.shape)}, {len(numbers)} labels, {len(files)} names"
            raise InputError(str(path), what, "uint8 [n, 3072] and as many labels and names")
        return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), list(numbers), list(files)


def _dict_of(path: Path, keys: Sequence[str]) -> Mapping[str, Any]:
    accepted = f"a pickle of the python version, with {', '.join(keys)}"
    found = load_data(path, accepted)
    if not isinstance(found, Mapping) or any(key not in found for key in keys):
        raise InputError(str(path), f"a {type(found).__name__} without {' or '.join(keys)}", accepted)
    return found


@register_dataset
class CIFAR10(_CIFAR):
    """Ten classes."""

    card: ClassVar[DatasetCard] = dataset_card("cifar10")
    file, meta = "cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"
    label_key, names_key = "labels", "label_names"


@register_dataset
class CIFAR100(_CIFAR):
    """A hundred (fine) classes."""

    card: ClassVar[DatasetCard] = dataset_card("cifar100")
    file, meta = "cifar-100-python/test", "cifar-100-python/meta"
    label_key, names_key = "fine_labels", "fine_label_names"
