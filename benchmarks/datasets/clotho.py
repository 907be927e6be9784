"""Clotho: sounds of Freesound, 15 to 30 seconds, with five captions each (Drossos et al., ICASSP 2020): retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, csv_rows, some, wrong_count

CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
TABLE = "clotho_captions_{split}.csv"


@register_dataset
class Clotho(Dataset):
    """The official table of captions and its folder of sounds."""

    card: ClassVar[DatasetCard] = dataset_card("clotho")

    def check(self, root: Path) -> list[Problem]:
        """The splits whose tables are there."""
        there = [split for split in self.card.splits if (root / TABLE.format(split=split)).is_file()]
        if not there:
            return absent(root, {TABLE.format(split="evaluation"): f"a table of file_name, {', '.join(CAPTIONS)}"})
        return [problem for split in there for problem in self._absent(root, split)]

    def _absent(self, root: Path, split: str) -> list[Problem]:
        table = TABLE.format(split=split)
        files = [_folder(root, split) / row["file_name"] for _, row in csv_rows(root / table, ("file_name",))]
        counted = wrong_count(root / table, len(files), self.card.splits[split], "rows")
        return counted + absent_files(files, f"a sound that {table} lists", of=len(files))

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        table = root / TABLE.format(split=self.checked(split))
        folder, items = _folder(root, split), []
        for _, row in csv_rows(table, ("file_name", *CAPTIONS)):
            captions = tuple(row[column] for column in CAPTIONS)
            items.append(DatasetItem(Path(row["file_name"]).stem, {"audio": folder / row["file_name"]}, captions=captions))
        return some(items, table, "captions")


def _folder(root: Path, split: str) -> Path:
    """Where the sounds are: beside the table, or one folder down."""
    return root / "audio" / split if (root / "audio" / split).is_dir() else root / split
