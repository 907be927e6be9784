"""Touch-and-Go: what people touch with a GelSight sensor (Yang et al., NeurIPS 2022): material, hard or soft, rough or smooth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, label_at, some, text_lines, wrong_count
from vitlens.errors import InputError

LISTS = {"test.txt": 29_879, "test_rough.txt": 8_085, "train.txt": 91_982, "train_rough.txt": 35_119}
LINES = "lines such as 20220318_014426/0000033833.jpg,3 (frame and label number)"
SOFT = ("leather", "synthetic fabric", "natural fabric", "paper", "grass")
"""Hard and soft are not annotated: these materials are soft, all others hard."""
OTHERS = "others"


@register_dataset
class TouchAndGo(Dataset):
    """Frames of a list; the split says what is asked of them."""

    card: ClassVar[DatasetCard] = dataset_card("touch_and_go")

    def classes(self, split: str) -> tuple[str, ...]:
        names = read_lines("labels", f"touch_and_go_{_question(split)}")
        return tuple(name for name in names if name != OTHERS) if split == "material_no_others" else names

    def prompts(self, split: str) -> tuple[str, ...]:
        return read_lines("prompts", "touch_material" if _question(split) == "material" else "touch_feel")

    def check(self, root: Path) -> list[Problem]:
        lists = {name: f"{count:,} {LINES}" for name, count in LISTS.items() if name.startswith("test")}
        if problems := absent(root, lists):
            return problems
        for name in lists:
            frames = [_frame(root, where, line)[1] for where, line in text_lines(root / name, LINES)]
            problems += wrong_count(root / name, len(frames), LISTS[name], "frames")
            problems += absent_files(frames, f"a GelSight frame that {name} lists", of=len(frames))
        return problems

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        path = root / _list(self.checked(split))
        question, names, items = _question(split), self.classes(split), []
        stored = read_lines("labels", "touch_and_go_rough_smooth" if question == "rough_smooth" else "touch_and_go_material")
        for where, line in text_lines(path, LINES):
            name, frame, number = _frame(root, where, line)
            label = label_at(number, stored, where)
            if question == "hard_soft":
                label = "soft" if label in SOFT else "hard"
            if label in names:  # all but others, where that is no class
                items.append(DatasetItem(name, {"tactile": frame}, (label,)))
        return some(items, path, f"frames of the split {split}")


def _question(split: str) -> str:
    return split.removeprefix("train_").removesuffix("_no_others")


def _list(split: str) -> str:
    """The list that holds a split."""
    part = "train" if split.startswith("train_") else "test"
    return f"{part}_rough.txt" if _question(split) == "rough_smooth" else f"{part}.txt"


def _frame(root: Path, where: str, line: str) -> tuple[str, Path, str]:
    """Id, GelSight picture and label number of a line."""
    name, comma, number = line.rpartition(",")
    video, slash, file = name.partition("/")
    if not (comma and slash and file):
        raise InputError(where, repr(line[:60]), LINES)
    return name.rpartition(".")[0], root / video / "gelsight_frame" / file, number
