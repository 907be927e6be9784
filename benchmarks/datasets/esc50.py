"""ESC-50: 2,000 sounds of the surroundings, five seconds each, in 50 classes (Piczak, ACM MM 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.dataset import Dataset, DatasetCard, Item, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, csv_rows, label_at, some, whole_number, wrong_count
from vitlens.benchmarks.datasets.published import IMAGEBIND, scores
from vitlens.errors import InputError

COLUMNS = ("filename", "fold", "target", "category")
FOLDS = 5

CLAP = "IEEE ICASSP 2023 paper of LAION-CLAP, as quoted in LAION-AI/CLAP issue 133"

_CARD = DatasetCard(
    name="esc50",
    title="ESC-50: environmental sounds",
    task="classification",
    modality="audio",
    splits={"all": 2000, **{f"fold{fold}": 400 for fold in range(1, FOLDS + 1)}},
    default_split="all",
    licence="CC BY-NC 3.0; the ESC-10 part CC BY",
    source="the ESC-50 repository of K. J. Piczak on GitHub: karolpiczak/ESC-50",
    layout="""
ESC-50/                            <- root
  audio/1-100032-A-0.wav           {fold}-{freesound id}-{take}-{target}.wav, 2,000 of them
  meta/esc50.csv                   filename, fold, target, category, esc10, src_file, take
""".strip(),
    published=(
        *scores("all", "top1", {"ViT-Lens-B": 72.9, "ViT-Lens-L": 75.9}, protocol="trained on AudioSet in clips of 5 s"),
        *scores("all", "top1", {"ViT-Lens-L": 75.1}, protocol="trained on AudioSet in clips of 2 s"),
        *scores("all", "top1", {"ViT-Lens-L": 80.9}, protocol="trained on AudioSet and VGGSound"),
        *scores("all", "top1", {"ImageBind": 66.9}, source=IMAGEBIND),
        *scores("all", "top1", {"LAION-CLAP": 91.0}, source=CLAP, protocol="trained on sounds with captions"),
    ),
    notes=(
        "Published zero-shot numbers are over all 2,000 clips, which is the mean over the folds, for those are equally large.",
        "The recordings' band limits differ between classes, which a trained model may use; a zero-shot one cannot.",
        "The bare class name stands three times among the twelve prompts, as in the published set: a quarter of the weight.",
    ),
)


@register_dataset
class ESC50(Dataset):
    """Audio files and the list `meta/esc50.csv`."""

    card: ClassVar[DatasetCard] = _CARD
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

    def items(self, root: Path, split: str) -> Sequence[Item]:
        fold, names = self.checked(split).removeprefix("fold"), self.classes(split)
        items = []
        for where, row in csv_rows(root / "meta" / "esc50.csv", COLUMNS):
            name = label_at(row["target"], names, where)
            if row["category"].replace("_", " ") != name:
                raise InputError(where, f"target {row['target']} called {row['category']!r}", f"{name!r}, as in the class list")
            if fold == "all" or whole_number(row["fold"], where) == int(fold):
                items.append(Item(Path(row["filename"]).stem, {"audio": root / "audio" / row["filename"]}, (name,)))
        return some(items, root / "meta" / "esc50.csv", f"clips of {split}")
