"""Objaverse-LVIS: shapes of Objaverse (Deitke et al., CVPR 2023) with the 1,156 classes of LVIS, in OpenShape's packing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlens.benchmarks.datasets.dataset import Dataset, DatasetCard, Item, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, checked_label, json_records, wrong_count
from vitlens.benchmarks.datasets.modelnet40 import joined
from vitlens.benchmarks.datasets.packed import LateArray
from vitlens.benchmarks.datasets.published import UNI3D, scores
from vitlens.benchmarks.datasets.safe_pickle import load_data
from vitlens.errors import InputError

OTHERS = "arXiv 2305.10764 (OpenShape) and 2305.08275 (ULIP-2)"
TABLE, KEYS = "meta_data/split/lvis.json", ("uid", "category", "group")
SHAPE = "a packed shape of OpenShape: a dict with xyz [n, 3] and rgb [n, 3] of 0..1"

_CARD = DatasetCard(
    name="objaverse_lvis",
    title="Objaverse-LVIS: shapes of 1,156 classes",
    task="classification",
    modality="point_cloud",
    splits={"all": 46_205},
    default_split="all",
    licence="ODC-By 1.0 for the collection; every shape has its own Creative Commons licence",
    source="OpenShape's data on the Hugging Face Hub (arXiv 2305.10764); some 185 GB",
    layout="""
<root>/
  meta_data/split/lvis.json              46,205 records with uid, category, group
  Objaverse/000-000/UID.npy              one dict a shape: xyz [10000, 3], rgb [10000, 3] of 0..1; folders up to 000-159
""".strip(),
    published=(
        *scores("all", "top1", {"ViT-Lens-G": 52.0}),
        *scores("all", "top5", {"ViT-Lens-G": 79.9}),
        *scores("all", "top1", {"ViT-Lens-G": 50.1}, protocol="trained without these shapes"),
        *scores("all", "top5", {"ViT-Lens-G": 78.1}, protocol="trained without these shapes"),
        *scores("all", "top1", {"Uni3D-g": 55.3}, source=UNI3D),
        *scores("all", "top5", {"Uni3D-g": 82.9}, source=UNI3D),
        *scores("all", "top1", {"OpenShape": 46.8, "ULIP-2": 50.6}, source=OTHERS),
        *scores("all", "top5", {"OpenShape": 77.0, "ULIP-2": 79.1}, source=OTHERS),
    ),
    notes=(
        "Only a model trained without these shapes (OpenShape's train_no_lvis list) is zero-shot here; both are published.",
        "The list has 46,205 shapes, papers say 46,832: the packings differ.",
        "Names of classes are written with spaces for underscores in prompts; published runs took them as stored or do not say.",
        "Many classes are near-synonyms, and some have one shape: look at top-5 as well.",
    ),
)


@register_dataset
class ObjaverseLVIS(Dataset):
    """A list of shapes, each a file that is opened when it is read."""

    card: ClassVar[DatasetCard] = _CARD
    prompt_file: ClassVar[str | None] = "shapes"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "objaverse_lvis")

    def prompt_names(self, split: str) -> Mapping[str, str]:
        """`bow_(weapon)` as "bow (weapon)"."""
        return {name: name.replace("_", " ") for name in self.classes(split) if "_" in name}

    def check(self, root: Path) -> list[Problem]:
        parts = {TABLE: f"46,205 records with {', '.join(KEYS)}", "Objaverse/": "folders 000-000 to 000-159"}
        if problems := absent(root, parts):
            return problems
        files = [_file(root, record) for _, record in json_records(root / TABLE, KEYS)]
        counted = wrong_count(root / TABLE, len(files), self.card.splits["all"], "records")
        return counted + absent_files(files, f"a shape that {TABLE} lists", of=len(files))

    def items(self, root: Path, split: str) -> Sequence[Item]:
        names, items = frozenset(self.classes(self.checked(split))), []
        for where, record in json_records(root / TABLE, KEYS):
            label = record["category"]
            if label not in names:
                checked_label(label, self.classes(split), where)
            path = _file(root, record)
            source = LateArray(str(path), str(record["uid"]), partial(read_shape, path))
            items.append(Item(str(record["uid"]), {"point_cloud": {"source": source, "up": "y", "rgb_max": 1}}, (label,)))
        return items


def _file(root: Path, record: Mapping[str, Any]) -> Path:
    """Where a shape is; the path in its record begins with one of its packers' machine."""
    return root / "Objaverse" / str(record["group"]) / f"{record['uid']}.npy"


def read_shape(path: Path) -> np.ndarray:
    """The coloured points of a packed shape, float32 [n, 6].

    Raises:
        InputError: no such file, damaged, or no shape in it.
    """
    record = load_data(path, SHAPE)
    if not isinstance(record, Mapping) or "xyz" not in record:
        found = f"a dict with {', '.join(map(str, record))}" if isinstance(record, Mapping) else f"a {type(record).__name__}"
        raise InputError(str(path), found, SHAPE)
    return joined(record)
