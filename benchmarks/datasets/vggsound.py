"""VGGSound: ten seconds of YouTube videos, one of 309 sounds each (Chen et al., ICASSP 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.clips import absent_clips, clip_of, clips_in, parts_there
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, checked_label, csv_rows, some, whole_number

TABLE, COLUMNS = "vggsound.csv", ("video", "start", "label", "split")
SOUNDS = {split: (f"audio/{split}", f"vggsound/audio/{split}", split, "audio") for split in ("test", "train")}


@register_dataset
class VGGSound(Dataset):
    """The official table, and whichever of its clips are there."""

    card: ClassVar[DatasetCard] = dataset_card("vggsound")
    prompt_file: ClassVar[str | None] = "sounds"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "vggsound")

    def check(self, root: Path) -> list[Problem]:
        """The splits whose sounds are there."""
        if problems := absent(root, {TABLE: "the official table: YouTube id, start, label, split"}):
            return problems
        for split in parts_there(root, SOUNDS, self.card.default_split):
            problems += absent_clips(root, SOUNDS[split], (clip for _, _, _, clip in _listed(root, split)))
        return problems

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        names, items = self.classes(self.checked(split)), []
        for where, name, label, clip in _listed(root, split):
            if clip is not None:
                items.append(DatasetItem(name, {"audio": clip}, (checked_label(label, names, where),)))
        return some(items, root / TABLE, f"clips of the split {split} that are in {SOUNDS[split][0]}")


def _listed(root: Path, split: str) -> Iterator[tuple[str, str, str, Path | None]]:
    """Place in the table, id, label and file of every clip of a split."""
    rows = csv_rows(root / TABLE, COLUMNS, header=False)
    clips = clips_in(root, SOUNDS[split])
    for where, row in rows:
        if row["split"] == split:
            start = whole_number(row["start"], where)
            yield where, f"{row['video']}_{start:06d}", row["label"], clip_of(clips, row["video"], start)
