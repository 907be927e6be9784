"""MSR-VTT: short videos with captions (Xu et al., CVPR 2016): retrieval among the thousand test clips of the 1k-A split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, csv_rows, wrong_count

TABLE, COLUMNS = "MSRVTT_JSFUSION_test.csv", ("key", "vid_key", "video_id", "sentence")
FOLDER = "MSRVTT_Videos"


@register_dataset
class MSRVTT(Dataset):
    """A table with a caption for each video."""

    card: ClassVar[DatasetCard] = dataset_card("msrvtt")

    def check(self, root: Path) -> list[Problem]:
        parts = {TABLE: f"a table of {', '.join(COLUMNS)}", f"{FOLDER}/": "video0.mp4 to video9999.mp4"}
        if problems := absent(root, parts):
            return problems
        files = [root / FOLDER / f"{row['video_id']}.mp4" for _, row in csv_rows(root / TABLE, COLUMNS)]
        counted = wrong_count(root / TABLE, len(files), self.card.splits["test"], "rows")
        return counted + absent_files(files, f"a video that {TABLE} lists", of=len(files))

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        self.checked(split)
        return [
            DatasetItem(row["video_id"], {"video": root / FOLDER / f"{row['video_id']}.mp4"}, captions=(row["sentence"],))
            for _, row in csv_rows(root / TABLE, COLUMNS)
        ]
