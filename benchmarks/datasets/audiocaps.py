"""AudioCaps: captions of ten seconds of AudioSet (Kim et al., NAACL 2019): retrieval, on the official or the published lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.clips import ENDINGS, absent_clips, clip_of, clips_in
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, register_dataset
from vitlens.benchmarks.datasets.listing import absent, csv_rows, json_content, some, whole_number
from vitlens.errors import InputError

OFFICIAL = {"test": "test.csv", "val": "val.csv"}
VITLENS = {"test_963": "audiocaps_test_texts.json", "test_813": "audiocaps_test_ib_texts.json"}
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
TABLE_IS = "the official table: audiocap_id, youtube_id, start_time, caption"
TEXTS_ARE = 'a list of ViT-Lens: {"1": ["caption", ...], ...}'


@register_dataset
class AudioCaps(Dataset):
    """The official table, or the numbered lists of ViT-Lens."""

    card: ClassVar[DatasetCard] = dataset_card("audiocaps")

    def check(self, root: Path) -> list[Problem]:
        lists = [split for split, name in VITLENS.items() if (root / name).is_file()]
        if lists and not (root / OFFICIAL["test"]).is_file():
            return [problem for split in lists for problem in self._absent(root, split)]
        return absent(root, {OFFICIAL["test"]: TABLE_IS}) or self._absent(root, "test")

    def _absent(self, root: Path, split: str) -> list[Problem]:
        folders = _folders(split)
        if not any((root / folder).is_dir() for folder in folders):
            return [Problem(str(root / folders[0]), f"sounds ({', '.join(ENDINGS)})")]
        return absent_clips(root, folders, (clip for _, _, clip in _listed(root, split)))

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        items = []
        for name, captions, clip in _listed(root, self.checked(split)):
            if clip is None and split in VITLENS:
                raise InputError(str(root / _folders(split)[0] / name), "no such sound", f"as {VITLENS[split]} lists it")
            if clip is not None:
                items.append(DatasetItem(name, {"audio": clip}, captions=captions))
        return some(items, root, f"clips of the split {split} that are in {_folders(split)[0]}")


def _folders(split: str) -> tuple[str, ...]:
    part = split.partition("_")[0]
    return (f"audio/{part}", f"audiocaps/audio/{part}", part, "audio")


def _listed(root: Path, split: str) -> Iterator[tuple[str, tuple[str, ...], Path | None]]:
    """Id, captions and file of every clip of a split."""
    if split in VITLENS:
        texts = _texts(root / VITLENS[split])
        clips = clips_in(root, _folders(split))
        yield from ((name, captions, clips.get(name)) for name, captions in texts.items())
        return
    captions_of: dict[tuple[str, int], list[str]] = {}
    for where, row in csv_rows(root / OFFICIAL[split], COLUMNS):
        captions_of.setdefault((row["youtube_id"], whole_number(row["start_time"], where)), []).append(row["caption"])
    clips = clips_in(root, _folders(split))
    for (video, start), captions in captions_of.items():
        yield f"{video}_{start:06d}", tuple(captions), clip_of(clips, video, start)


def _texts(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each numbered clip."""
    found = json_content(path, TEXTS_ARE)
    if not isinstance(found, dict) or not found:
        raise InputError(str(path), f"a {type(found).__name__}", TEXTS_ARE)
    for name, captions in found.items():
        if not isinstance(captions, list) or not captions or not all(isinstance(caption, str) for caption in captions):
            raise InputError(f"{path}, {name!r}", f"a {type(captions).__name__}", TEXTS_ARE)
    return {name: tuple(captions) for name, captions in found.items()}
