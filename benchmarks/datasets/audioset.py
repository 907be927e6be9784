"""AudioSet: ten seconds of YouTube videos, any number of 527 sounds in each (Gemmeke et al., ICASSP 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.clips import absent_clips, clip_of, clips_in, parts_there
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, csv_rows, some
from vitlens.errors import InputError

COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
TABLES = {"eval": "eval_segments.csv", "balanced_train": "balanced_train_segments.csv"}
SOUNDS = {split: (f"audio/{split}", f"{split}_segments", split, "audio") for split in TABLES}
TABLE_IS = "three lines of comment, then YTID, start_seconds, end_seconds, positive_labels"


@register_dataset
class AudioSet(Dataset):
    """The official table, and whichever of its clips are there."""

    card: ClassVar[DatasetCard] = dataset_card("audioset")
    prompt_file: ClassVar[str | None] = "sounds"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "audioset")

    def prompt_names(self, split: str) -> Mapping[str, str]:
        """Lower case, as in the published protocol."""
        return {name: name.lower() for name in self.classes(split) if name != name.lower()}

    def check(self, root: Path) -> list[Problem]:
        """The splits whose sounds are there."""
        problems = []
        for split in parts_there(root, SOUNDS, self.card.default_split):
            missing = absent(root, {TABLES[split]: TABLE_IS})
            problems += missing or absent_clips(root, SOUNDS[split], (clip for _, _, _, clip in _listed(root, split)))
        return problems

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        names = dict(zip(read_lines("labels", "audioset_mids"), self.classes(self.checked(split)), strict=True))
        items = []
        for where, name, mids, clip in _listed(root, split):
            if unknown := [mid for mid in mids if mid not in names]:
                raise InputError(
                    where, f"the label {unknown[0]!r}, which is not in the class list", "one of 527, such as /m/09x0r"
                )
            if clip is not None:
                items.append(DatasetItem(name, {"audio": clip}, tuple(names[mid] for mid in mids)))
        return some(items, root / TABLES[split], f"clips of the split {split} that are in {SOUNDS[split][0]}")


def _listed(root: Path, split: str) -> Iterator[tuple[str, str, list[str], Path | None]]:
    """Place in the table, id, class ids and file of every clip of a split."""
    rows = csv_rows(root / TABLES[split], COLUMNS, header=False)
    clips = clips_in(root, SOUNDS[split])
    for where, row in rows:
        try:
            start, end = float(row["start_seconds"]), float(row["end_seconds"])
        except ValueError as error:
            raise InputError(where, f"{row['start_seconds']!r} to {row['end_seconds']!r}", "seconds") from error
        yield where, f"{row['YTID']}_{int(start):06d}", row["positive_labels"].split(","), clip_of(clips, row["YTID"], start, end)
