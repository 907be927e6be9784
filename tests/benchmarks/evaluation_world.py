"""A small dataset on disk for the tests of the evaluation: pictures of shapes, as classification, multi-label and retrieval."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import PIL.Image

from tests.train.tiny import SHAPES, item
from vitlens.benchmarks.datasets import Dataset, DatasetCard, DatasetItem, Problem, Published
from vitlens.errors import InputError

TEST, TRAIN = 12, 16
TEMPLATES = ("{}", "a photo of a {}.", "{}")


def write_world(root: Path) -> Path:
    """`root`/list.csv and the pictures; the first 12 are the split "test"."""
    (root / "pictures").mkdir(parents=True)
    rows = []
    for index in range(TEST + TRAIN):
        thing = item(index)
        name = f"{index:03}.png"
        PIL.Image.fromarray(thing["image"]).save(root / "pictures" / name)
        rows.append({"file": name, "label": thing["label"], "split": "test" if index < TEST else "train"})
    with (root / "list.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return root


class Shapes(Dataset):
    """Pictures and a list of them."""

    card: ClassVar[DatasetCard] = DatasetCard(
        name="tiny-shapes",
        title="Tiny shapes",
        task="classification",
        modality="image",
        splits={"test": TEST, "train": TRAIN},
        default_split="test",
        licence="CC0",
        source="the tests",
        layout="list.csv\npictures/*.png",
        published=(Published("Another", "top1", 60.0, "test", "a paper"), Published("Weaker", "top1", 10.0, "test", "a blog")),
    )

    def check(self, root: Path) -> list[Problem]:
        wanted = {"list.csv": "the list of pictures", "pictures": "a folder of pictures"}
        return [Problem(str(root / name), what) for name, what in wanted.items() if not (root / name).exists()]

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        self.checked(split)
        if not (root / "list.csv").is_file():
            raise InputError(str(root / "list.csv"), "no such file", "the list of pictures")
        with (root / "list.csv").open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["split"] == split]
        return [self.item(root / "pictures" / row["file"], row["label"]) for row in rows]

    def item(self, path: Path, label: str) -> DatasetItem:
        return DatasetItem(path.stem, {"image": path}, (label,))

    def classes(self, split: str) -> tuple[str, ...]:
        return SHAPES

    def prompts(self, split: str) -> tuple[str, ...]:
        return TEMPLATES


def variant(base: type[Shapes], **card: object) -> type[Shapes]:
    """The dataset with another card."""
    from dataclasses import replace

    return type("Variant", (base,), {"card": replace(base.card, **card)})  # type: ignore[arg-type]


class Merged(variant(Shapes, name="tiny-merged")):  # type: ignore[misc]
    """Two of the shapes count as one."""

    def merged(self, split: str) -> Mapping[str, str]:
        return {"bar": "others", "cross": "others"}


class Tags(variant(Shapes, name="tiny-tags", task="multi_label", published=())):  # type: ignore[misc]
    """Each picture has its shape as a tag, and straight ones have another."""

    def item(self, path: Path, label: str) -> DatasetItem:
        tags = (label,) if label == "disc" else (label, "straight")
        return DatasetItem(path.stem, {"image": path}, tags)

    def classes(self, split: str) -> tuple[str, ...]:
        return (*SHAPES, "straight", "never there")


class Captions(variant(Shapes, name="tiny-captions", task="retrieval", published=())):  # type: ignore[misc]
    """Two captions for each picture."""

    def item(self, path: Path, label: str) -> DatasetItem:
        number = int(path.stem)
        return DatasetItem(path.stem, {"image": path}, captions=(f"a {label} number {number}", f"picture {number}"))

    def classes(self, split: str) -> tuple[str, ...]:
        return ()


class Twins(variant(Captions, name="tiny-twins", other_modality="video")):  # type: ignore[misc]
    """The same picture on both sides."""

    def item(self, path: Path, label: str) -> DatasetItem:
        return DatasetItem(path.stem, {"image": path, "video": [path]})


DATASETS = (Shapes, Merged, Tags, Captions)
