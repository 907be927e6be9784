"""Touch-and-Go: what people touch with a GelSight sensor (Yang et al., NeurIPS 2022): material, hard or soft, rough or smooth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.dataset import Dataset, DatasetCard, Item, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, label_at, some, text_lines, wrong_count
from vitlens.benchmarks.datasets.published import scores
from vitlens.errors import InputError

LISTS = {"test.txt": 29_879, "test_rough.txt": 8_085, "train.txt": 91_982, "train_rough.txt": 35_119}
LINES = "lines such as 20220318_014426/0000033833.jpg,3 (frame and label number)"
SOFT = ("leather", "synthetic fabric", "natural fabric", "paper", "grass")
"""Hard and soft are not annotated: these materials are soft, all others hard."""
OTHERS = "others"

_CARD = DatasetCard(
    name="touch_and_go",
    title="Touch-and-Go: what is touched",
    task="classification",
    modality="tactile",
    splits={
        "material": 29_879,
        "material_no_others": 29_745,
        "hard_soft": 29_879,
        "rough_smooth": 8_085,
        "train_material": 91_982,
        "train_hard_soft": 91_982,
        "train_rough_smooth": 35_119,
    },
    default_split="material",
    licence="not stated beside the files (the paper may state one; not checked here)",
    source="the touch-and-go project page (University of Michigan); lists in the repository fredfyyang/Touch-and-Go",
    layout="""
dataset/                                           <- root
  test.txt  test_rough.txt  train.txt  train_rough.txt        lines video/frame.jpg,label
  20220318_014426/gelsight_frame/0000033833.jpg    after running the authors' frame extractor
""".strip(),
    published=(
        *scores("material", "top1", {"ViT-Lens-L": 65.8}),
        *scores("hard_soft", "top1", {"ViT-Lens-L": 74.7}),
        *scores("rough_smooth", "top1", {"ViT-Lens-L": 63.8}),
        *scores("material", "top1", {"ViT-Lens-B": 63.0}, protocol="linear probe"),
        *scores("hard_soft", "top1", {"ViT-Lens-B": 92.0}, protocol="linear probe"),
        *scores("rough_smooth", "top1", {"ViT-Lens-B": 85.1}, protocol="linear probe"),
    ),
    notes=(
        "The split is by frame: 100 of the 106 test videos also occur in training, and neighbouring frames look alike.",
        "41 % of the rough/smooth test frames are in the list the published models were trained on: not clean for those.",
        "Always answering hard gives 68.0 %, always rough 56.3 %.",
        "18 of the 20 material classes occur in the test list; ruber is the dataset's own spelling, and is what the prompts say.",
        "Hard/soft is derived from the material (leather, fabrics, paper and grass are soft), not felt.",
    ),
)


@register_dataset
class TouchAndGo(Dataset):
    """Frames of a list; the split says what is asked of them."""

    card: ClassVar[DatasetCard] = _CARD

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

    def items(self, root: Path, split: str) -> Sequence[Item]:
        path = root / _list(self.checked(split))
        question, names, items = _question(split), self.classes(split), []
        stored = read_lines("labels", "touch_and_go_rough_smooth" if question == "rough_smooth" else "touch_and_go_material")
        for where, line in text_lines(path, LINES):
            name, frame, number = _frame(root, where, line)
            label = label_at(number, stored, where)
            if question == "hard_soft":
                label = "soft" if label in SOFT else "hard"
            if label in names:  # all but others, where that is no class
                items.append(Item(name, {"tactile": frame}, (label,)))
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
