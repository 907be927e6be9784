"""Clotho: sounds of Freesound, 15 to 30 seconds, with five captions each (Drossos et al., ICASSP 2020): retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.dataset import Dataset, DatasetCard, Item, Problem, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, csv_rows, some, wrong_count
from vitlens.benchmarks.datasets.published import IMAGEBIND, scores

CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
TABLE = "clotho_captions_{split}.csv"
DIRECTION = "direction not named in the table; the ImageBind column beside it is text to audio"
BOTH = f"trained on AudioSet and VGGSound; {DIRECTION}"

_CARD = DatasetCard(
    name="clotho",
    title="Clotho: sounds and captions",
    task="retrieval",
    modality="audio",
    splits={"evaluation": 1045, "validation": 1045},
    default_split="evaluation",
    licence="sounds: each its own Freesound licence; captions: Tampere University, non-commercial (not checked here)",
    source="the record 'Clotho dataset' of Tampere University on Zenodo, version 2.1 (repairs files of 2.0)",
    layout="""
<root>/
  clotho_captions_evaluation.csv        file_name, caption_1 ... caption_5
  evaluation/*.wav                      1,045 sounds, as clotho_audio_evaluation.7z unpacks (audio/evaluation/ will do too)
""".strip(),
    published=(
        *scores("evaluation", "text_to_audio_r@1", {"ViT-Lens-B": 7.5, "ViT-Lens-L": 8.1}, protocol=DIRECTION),
        *scores("evaluation", "text_to_audio_r@10", {"ViT-Lens-B": 29.5, "ViT-Lens-L": 31.2}, protocol=DIRECTION),
        *scores("evaluation", "text_to_audio_r@1", {"ViT-Lens-L": 7.9}, protocol=BOTH),
        *scores("evaluation", "text_to_audio_r@10", {"ViT-Lens-L": 31.5}, protocol=BOTH),
        *scores("evaluation", "text_to_audio_r@1", {"ImageBind": 6.0}, source=IMAGEBIND),
        *scores("evaluation", "text_to_audio_r@10", {"ImageBind": 28.4}, source=IMAGEBIND),
    ),
    notes=(
        "Text to audio: 5,225 captions ask, 1,045 sounds are searched. Audio to text: any of its five captions is a hit.",
        "The published code does not normalise text embeddings, which changes audio to text; here both sides are normalised.",
        "DCASE names the splits differently.",
    ),
)


@register_dataset
class Clotho(Dataset):
    """The official table of captions and its folder of sounds."""

    card: ClassVar[DatasetCard] = _CARD

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

    def items(self, root: Path, split: str) -> Sequence[Item]:
        table = root / TABLE.format(split=self.checked(split))
        folder, items = _folder(root, split), []
        for _, row in csv_rows(table, ("file_name", *CAPTIONS)):
            captions = tuple(row[column] for column in CAPTIONS)
            items.append(Item(Path(row["file_name"]).stem, {"audio": folder / row["file_name"]}, captions=captions))
        return some(items, table, "captions")


def _folder(root: Path, split: str) -> Path:
    """Where the sounds are: beside the table, or one folder down."""
    return root / "audio" / split if (root / "audio" / split).is_dir() else root / split
