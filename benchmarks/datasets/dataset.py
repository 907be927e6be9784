"""Dataset: what every dataset of a benchmark says of itself, and how its items are listed.

A dataset is a card in `cards/` and one file in this folder with a class that has `items`, registered with `register_dataset`.
Items are listed without being decoded: their inputs are what `Modality.load` takes.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from vitlens import checks
from vitlens.benchmarks.datasets.card import FOLDER, DatasetCard
from vitlens.errors import OptionError


@dataclass(frozen=True)
class DatasetItem:
    """One thing to embed and what is known of it."""

    id: str
    """Unique in its split; stays the same on every machine."""
    inputs: Mapping[str, Any]
    """Modality -> what `Modality.load` takes: a path, an array, or {"source": ..., read option: value}."""
    labels: tuple[str, ...] = ()
    """Class names as in the dataset's label list: one, or any number for multi-label."""
    captions: tuple[str, ...] = ()
    """Of a retrieval: every caption of this item."""


@dataclass(frozen=True)
class Problem:
    """Something a copy of the dataset lacks: where, and what was expected there."""

    path: str
    expected: str


class Dataset(ABC):
    """Base class of datasets. `root` is always the folder that the card's layout shows as the top."""

    card: ClassVar[DatasetCard]
    prompt_file: ClassVar[str | None] = None
    """Which file of `prompts/` is taken; None: the one called as the card."""

    @abstractmethod
    def check(self, root: Path) -> list[Problem]:
        """What is missing under `root`, found quickly and without decoding; empty for a complete copy."""

    @abstractmethod
    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        """Items of a split in the dataset's own order.

        Raises:
            InputError: a list or label file that is missing, damaged, or names something unknown.
            OptionError: no such split.
        """

    def classes(self, split: str) -> tuple[str, ...]:
        """Class names in label order; empty for a retrieval."""
        return ()

    def prompts(self, split: str) -> tuple[str, ...]:
        """Prompt templates, each with one `{}`."""
        return read_lines("prompts", self.prompt_file or self.card.name)

    def prompt_names(self, split: str) -> Mapping[str, str]:
        """Class name -> how it is written in a prompt, where that differs."""
        return {}

    def merged(self, split: str) -> Mapping[str, str]:
        """Classes that count as one after ranking, and the name they share; empty where each counts for itself."""
        return {}

    def checked(self, split: str) -> str:
        """`split`, if there is one of that name.

        Raises:
            OptionError: there is none.
        """
        checks.known(f"{self.card.name}: no split", [split], self.card.splits)
        return split


_REGISTRY: dict[str, type[Dataset]] = {}
_Kind = TypeVar("_Kind", bound=type[Dataset])


def register_dataset(cls: _Kind) -> _Kind:
    """Class decorator: make a dataset known by its card's name."""
    name = cls.card.name
    if name in _REGISTRY and _REGISTRY[name].__module__ != cls.__module__:
        raise OptionError(f"dataset {name!r} is registered twice: {_REGISTRY[name].__module__} and {cls.__module__}")
    _REGISTRY[name] = cls
    return cls


@cache
def _import_all() -> None:
    for module in pkgutil.iter_modules([str(FOLDER)]):
        import_module(f"vitlens.benchmarks.datasets.{module.name}")


def list_datasets() -> list[DatasetCard]:
    """The cards of all datasets, by name."""
    _import_all()
    return [_REGISTRY[name].card for name in sorted(_REGISTRY)]


def get_dataset(name: str) -> Dataset:
    """A dataset by its name.

    Raises:
        OptionError: no such dataset.
    """
    _import_all()
    checks.known("unknown dataset", [name], sorted(_REGISTRY))
    return _REGISTRY[name]()


@cache
def read_lines(kind: Literal["labels", "prompts"], name: str) -> tuple[str, ...]:
    """The lines of a data file `labels/NAME.txt` or `prompts/NAME.txt` in this folder."""
    text = (FOLDER / kind / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())
