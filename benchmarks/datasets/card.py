"""The cards of datasets: what each is, where it comes from, its licence, and the scores that others report.

They are the YAML files in `cards/`, one for each dataset; `sources.yaml` has short names for where scores are published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vitlens.errors import OptionError
from vitlens.facts import Entry, read_facts, yaml_of

Task = Literal["classification", "multi_label", "retrieval"]
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Published:
    """A score that others report, in percent."""

    model: str
    metric: str
    """As our results name it: "top1", "top5", "mAP", "audio_to_text_r@1" ..."""
    value: float
    split: str
    source: str
    protocol: str = ""
    """What was different from our default, where it is known."""


@dataclass(frozen=True)
class DatasetCard:
    """What a user wants to know before running a dataset."""

    name: str
    """How commands call it: "modelnet40"."""
    title: str
    task: Task
    modality: str
    """The sensor that is classified, or the query side of a retrieval."""
    splits: Mapping[str, int | None]
    """Split -> number of items that a complete copy has (None: not known)."""
    default_split: str
    licence: str
    source: str
    """Where a user gets it."""
    layout: str
    """The expected folders and files, as a tree."""
    version: str = "1"
    """Raised when the reader or the labels change what is measured."""
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()
    """Traps and caveats, each a sentence."""
    other_modality: str | None = None
    """Of a retrieval: what is searched (default: the captions)."""

    @property
    def folder(self) -> str:
        """How the layout calls its top folder; empty where it may have any name."""
        top = re.match(r"([^\s<>/*]+)/ *(<- root)?(\n|$)", self.layout)
        return top[1] if top else ""

    def __post_init__(self) -> None:
        known = ", ".join(self.splits)
        if self.default_split not in self.splits:
            raise OptionError(f"default_split {self.default_split!r} is none of {known}")
        for score in self.published:
            if score.split not in self.splits:
                raise OptionError(f"published: split {score.split!r} is none of {known}")


def dataset_card(name: str) -> DatasetCard:
    """The card in `cards/NAME.yaml`.

    Raises:
        OptionError: what does not fit, by its place in the file.
    """
    return read_card(FOLDER / "cards" / f"{name}.yaml")


def read_card(file: Path) -> DatasetCard:
    """The card of a file.

    Raises:
        OptionError: what does not fit, by its place in the file.
    """
    (card,) = read_facts(DatasetCard, file, prepare=_one_score_a_row)
    return card


def _one_score_a_row(entry: Entry) -> Entry:
    """The card with its published scores one by one: a file gives several models' values together."""
    rows: list[Any] = []
    for group in entry.get("published", []):
        values = {**group}
        scores, source = values.pop("values"), _source(values.pop("source"))
        rows += [{"model": model, "value": value, "source": source, **values} for model, value in scores.items()]
    return {**entry, "published": rows}


def _source(given: str) -> str:
    """A short name of `sources.yaml` in words; words as they are."""
    known = _sources()
    if given not in known and " " not in str(given):
        raise OptionError(f"published: source {given!r} is neither in sources.yaml ({', '.join(known)}) nor in words")
    return known.get(given, given)


@cache
def _sources() -> dict[str, str]:
    return yaml_of(FOLDER / "sources.yaml")
