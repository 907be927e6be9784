"""ImageNet-1k's validation pictures (Russakovsky et al., IJCV 2015): how good the anchors' own image tower is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, some, wrong_count
from vitlens.errors import InputError

PICTURES = (".jpeg", ".jpg", ".png")


@register_dataset
class ImageNet(Dataset):
    """A folder per class."""

    card: ClassVar[DatasetCard] = dataset_card("imagenet")
    prompt_file: ClassVar[str | None] = "photos"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "imagenet")

    def prompt_names(self, split: str) -> Mapping[str, str]:
        """Names as CLIP's authors chose them, but for the two of each pair that they wrote alike (missile, sunglasses)."""
        from open_clip import IMAGENET_CLASSNAMES

        chosen = dict(zip(self.classes(split), IMAGENET_CLASSNAMES, strict=True))
        return {name: word for name, word in chosen.items() if IMAGENET_CLASSNAMES.count(word) == 1}

    def check(self, root: Path) -> list[Problem]:
        synsets = read_lines("labels", "imagenet_synsets")
        if problems := absent(root, {"val/": "1,000 folders such as n01440764"}):
            return problems
        missing = [synset for synset in synsets if not (root / "val" / synset).is_dir()]
        problems = [Problem(str(root / "val" / synset), "50 pictures of this class") for synset in missing[:3]]
        if missing:
            return [*problems, *wrong_count(root / "val", len(synsets) - len(missing), len(synsets), "folders of classes")]
        counts = {synset: len(_pictures(root / "val" / synset)) for synset in synsets}
        return [p for synset, count in counts.items() for p in wrong_count(root / "val" / synset, count, 50, "pictures")][:4]

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        place = root / self.checked(split)
        if not place.is_dir():
            raise InputError(str(place), "no such folder", "1,000 folders such as n01440764")
        names = dict(zip(read_lines("labels", "imagenet_synsets"), self.classes(split), strict=True))
        items = []
        for folder in sorted(entry for entry in place.iterdir() if entry.is_dir()):
            if folder.name not in names:
                raise InputError(
                    str(folder), f"the label {folder.name!r}, which is not in the class list", "one of 1,000 synsets"
                )
            items += [DatasetItem(path.stem, {"image": path}, (names[folder.name],)) for path in _pictures(folder)]
        return some(items, place, "pictures in folders by class")


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
