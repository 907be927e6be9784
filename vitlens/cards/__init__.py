"""Model cards: what every named model is, where its weights lie, under which licence, and its published scores.

They are the YAML files beside this one, in the order of their names; another file is another card, and no code needs to know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from vitlens.checkpoint import Layout
from vitlens.errors import OptionError
from vitlens.facts import Entry, read_facts, yaml_of
from vitlens.spec import CONFIG_FORMAT, ModelSpec

FOLDER = Path(__file__).parent
PACKAGE = FOLDER.parent
_MODEL = [field.name for field in fields(ModelSpec)]


@dataclass(frozen=True)
class Weights:
    """One source of weights: a file on the Hub, an open_clip pretrained tag, our own fixed formula, or a native folder that is
    part of this package."""

    kind: Literal["hub", "open_clip", "formula", "shipped"]
    towers: tuple[str, ...]
    """The modalities whose towers are taken from it."""
    file: str = ""
    """File name on the Hub, the open_clip tag, or the folder in this package."""
    other_names: tuple[str, ...] = ()
    """How else the file's name is written in public: tried in order where `file` is not there."""
    repo: str = ""
    """On the Hub."""
    revision: str | None = None
    """Commit, branch or tag there; None: the main branch, because no commit is known here."""
    layout: Layout | None = None
    sha256: str | None = None
    """None: not known here."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that the file may have, in the order in which they are tried."""
        return (self.file, *self.other_names)


@dataclass(frozen=True)
class PublishedScore:
    """A published score, in percent."""

    dataset: str
    metric: str
    value: float
    source: str
    protocol: str = ""
    """How it was measured: on what part of the dataset, with how many classes, prompts ..."""
    training_data: str = ""
    """What the measured weights were trained on; empty: what the card says."""


@dataclass(frozen=True)
class ModelCard:
    """What a user wants to know before choosing a model."""

    spec: Annotated[ModelSpec, PlainValidator(ModelSpec.from_dict)]
    summary: str
    weights: tuple[Weights, ...]
    source: str
    training_data: str = "unknown"
    scores: tuple[PublishedScore, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name `load` takes."""
        return self.spec.name

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return self.spec.licence


@cache
def all_cards() -> dict[str, ModelCard]:
    """Name -> card, in the order they are listed to users."""
    return {card.name: card for file in sorted(FOLDER.glob("*.yaml")) for card in read_cards(file)}


def read_cards(file: Path) -> list[ModelCard]:
    """The cards of one file.

    Raises:
        OptionError: what does not fit, by its place in the file.
    """
    return read_facts(ModelCard, file, prepare=_with_spec)


def _with_spec(entry: Entry) -> Entry:
    """The fields of the model itself as its config.json has them; of a model that is part of this package they stand there."""
    if "folder" in entry:
        return _shipped(**entry)
    if not entry.get("licence"):
        raise OptionError("licence: missing")
    model = {key: value for key, value in entry.items() if key in _MODEL}
    rest = {key: value for key, value in entry.items() if key not in _MODEL}
    return {"spec": {"format": CONFIG_FORMAT, "text": None, "logit_scale": 100.0, **model}, **rest}


def _shipped(folder: str) -> Entry:
    """A card that a training wrote beside the weights, in a native folder of this package."""
    config = json.loads((PACKAGE / folder / "config.json").read_text(encoding="utf-8"))
    written: dict[str, Any] = yaml_of(PACKAGE / folder / "card.yaml")
    towers = [encoder["modality"] for encoder in config["encoders"]] + (["text"] if config["text"] else [])
    return {"spec": config, "weights": [{"kind": "shipped", "towers": towers, "file": folder}], **written}
