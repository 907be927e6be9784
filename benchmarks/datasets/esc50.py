"""ESC-50: 2,000 sounds of the surroundings, five seconds each, in 50 classes (Piczak, ACM MM 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, csv_rows, label_at, some, whole_number, wrong_count
from vitlens.errors import InputError

COLUMNS = ("filename", "fold", "target", "category")


@register_dataset
class ESC50(Dataset):
    """Audio files and the list `meta/esc50.csv`."""

    card: ClassVar[DatasetCard] = dataset_card("esc50")
    prompt_file: ClassVar[str | None] = "sounds"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "esc50")

    def check(self, root: Path) -> list[Problem]:
        table = "the list of all clips: filename, fold, target, category"
        if problems := absent(root, {"meta/esc50.csv": table, "audio/": "2,000 wav files"}):
            return problems
        paths = [root / "audio" / row["filename"] for _, row in csv_rows(root / "meta" / "esc50.csv", COLUMNS)]
        listed = wrong_count(root / "meta" / "esc50.csv", len(paths), self.card.splits["all"], "rows")
        return listed + absent_files(paths, "a clip that meta/esc50.csv lists", of=len(paths))

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        fold, names = self.checked(split).removeprefix("fold"), self.classes(split)
        items = []
        for where, row in csv_rows(root / "meta" / "esc50.csv", COLUMNS):
            name = label_at(row["target"], names, where)
            if row["category"].replace("_", " ") != name:
                raise InputError(where, f"target {row['target']} called {row['category']!r}", f"{name!r}, as in the class list")
            if fold == "all" or whole_number(row["fold"], where) == int(fold):
                items.append(DatasetItem(Path(row["filename"]).stem, {"audio": root / "audio" / row["filename"]}, (name,)))
        return some(items, root / "meta" / "esc50.csv", f"clips of {split}")
