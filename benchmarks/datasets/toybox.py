"""The Toybox: objects of our own making, which every sensor can measure; one dataset per sensor.

Made on any machine by `vitlens.benchmarks.toybox.sensors.make.make_toybox`, so this is the one benchmark that needs no download.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, register_dataset
from vitlens.benchmarks.datasets.listing import absent, absent_files, checked_label, some
from vitlens.benchmarks.toybox.sensors.drawn import LABELS
from vitlens.benchmarks.toybox.world.objects import MATERIAL_NAMES, SHAPE_NAMES
from vitlens.errors import InputError
from vitlens.store.manifest import read_manifest

SPLITS = ("test", "unseen_pairs", "unseen_shapes")
MADE = "a manifest that make_toybox writes"
CLASSES = {"shape": SHAPE_NAMES, "material": MATERIAL_NAMES}


class Toybox(Dataset):
    """A manifest per split, with a column for the sensor's files and columns for their read options."""

    label: ClassVar[str]
    """What is asked for: "shape" or "material"."""

    def classes(self, split: str) -> tuple[str, ...]:
        return CLASSES[self.label]

    def prompt_names(self, split: str) -> Mapping[str, str]:
        """Shapes with their article: the prompts have none."""
        if self.label == "material":
            return {}
        return {name: f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in self.classes(split)}

    def check(self, root: Path) -> list[Problem]:
        made = [split for split in SPLITS if (root / f"{split}.csv").is_file()]
        problems = [] if made else absent(root, {f"{self.card.default_split}.csv": MADE})
        for split in made:
            files = [root / str(row.get(self.card.modality) or "") for row in read_manifest(root / f"{split}.csv")]
            problems += absent_files(files, f"the {self.card.modality} of an object of {split}.csv", of=len(files))
        return problems

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        path, sensor = root / f"{self.checked(split)}.csv", self.card.modality
        items = []
        for number, row in enumerate(read_manifest(path)):
            where = f"{path}, row {number}"
            if missing := [column for column in ("id", self.label, sensor) if not row.get(column)]:
                raise InputError(where, f"no {', '.join(missing)}", f"{MADE}, with the sensor {sensor}")
            label = checked_label(row[self.label], self.classes(split), where)
            items.append(DatasetItem(row["id"], {sensor: {"source": root / row[sensor], **_options(row, sensor)}}, (label,)))
        return some(items, path, MADE)


def _options(row: Mapping[str, Any], sensor: str) -> dict[str, Any]:
    """The read options in columns called `sensor.option`, numbers as numbers."""
    filled = {key.partition(".")[2]: value for key, value in row.items() if key.startswith(f"{sensor}.") and value != ""}
    return {option: _value(text) for option, text in filled.items()}


def _value(text: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _card(sensor: str, label: str) -> DatasetCard:
    return DatasetCard(
        name=f"toybox-{sensor}",
        title=f"Toybox: {label} by {sensor.replace('_', ' ')}",
        task="classification",
        modality=sensor,
        splits=dict.fromkeys(SPLITS),
        default_split="test",
        licence="Apache-2.0, as this package, which makes it",
        source="made on your machine by vitlens.benchmarks.toybox.sensors.make.make_toybox",
        layout=f"""
<root>/                          the folder given to make_toybox
  toybox.json                    seed and detail
  test.csv                       new objects, pairs of shape and material as in training
  unseen_pairs.csv               pairs of shape and material that were not in training
  unseen_shapes.csv              shapes that no lens has seen
  test/{sensor}/...              the sensor's files
columns: id, shape, material, {sensor} and {sensor}.OPTION for read options
""".strip(),
        notes=(
            "A made world: its numbers compare methods with each other and say nothing of real sensors.",
            f"Asked for is the {label} among {len(CLASSES[label])}; numbers of items are those you made.",
            *(("The Toybox's own report adds a prompt with the adjective ('a wooden thing').",) if label == "material" else ()),
        ),
    )


def _register(sensor: str, label: str) -> None:
    own = {"card": _card(sensor, label), "label": label, "prompt_file": f"toybox_{label}", "__module__": __name__}
    register_dataset(type(f"Toybox_{sensor}", (Toybox,), own))


for _sensor, _label in LABELS.items():
    _register(_sensor, _label)
