"""One evaluator per kind of task: it embeds a dataset's items, and gives the function that scores them.

The two steps are apart because all processes embed, and one of them scores. A dataset is never named here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.benchmarks.datasets import Dataset, DatasetItem
from vitlens.benchmarks.evaluation.metrics import (
    Protocol,
    Scores,
    class_vectors_of,
    classification,
    merging,
    multi_label,
    retrieval,
)
from vitlens.checks import known
from vitlens.errors import InputError
from vitlens.store.engine import Engine, Progress
from vitlens.store.items import source_name
from vitlens.store.store import Embedded, EmbeddingStore, OnError
from vitlens.words import said_same, unknown_words
from vitlens.zeroshot import fill_templates

Scorer = Callable[[], Scores]
SHOWN_CLASSES = 8
"""Class names that a message lists."""


@dataclass(frozen=True)
class Skipped:
    """An item that was left out, and why."""

    item: str
    file: str
    reason: str


@dataclass
class Work:
    """What an evaluator works on."""

    dataset: Dataset
    split: str
    items: Sequence[DatasetItem]
    store: EmbeddingStore
    engine: Engine
    templates: Sequence[str] = ()
    protocol: Protocol = "default"
    on_error: OnError = "raise"
    progress: Progress | None = None
    collapsed: bool = False
    """Whether labels already are the names of merged classes (of a probe, which learns them as one)."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the result must say of itself."""

    @property
    def merged(self) -> Mapping[str, str]:
        """Classes that count as one after ranking, and the name they share."""
        return {} if self.collapsed else self.dataset.merged(self.split)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        classes = self.dataset.classes(self.split)
        return merging(classes, self.dataset.merged(self.split))[1] if self.collapsed else classes

    def embed(self, modality: str, items: Sequence[DatasetItem]) -> tuple[Tensor, list[DatasetItem]]:
        """Embeddings [n, E] of one modality of items, not normalised, and the items that have one; the others are noted.

        Raises:
            InputError: an item that cannot be read (unless errors are skipped), or no item that can.
        """
        found = self._embed(modality, [self._input(item, modality) for item in items])
        for index, error in found.errors.items():
            skipped = Skipped(items[index].id, error.source, error.reason)
            self.skipped += [skipped] if skipped not in self.skipped else []
        if not found.kept:
            first = next(iter(found.errors.values()), "there is no item")
            raise InputError(
                f"{self.where}, {modality}", f"none of {len(items)} items can be used: {first}", "items that can be read"
            )
        return found.vectors, [items[index] for index in found.kept]

    def _embed(self, modality: str, items: Sequence[object]) -> Embedded:
        return self.store.embed(self.engine, modality, items, on_error=self.on_error, progress=self.progress)

    @property
    def where(self) -> str:
        """The dataset and split, for messages."""
        return f"{self.dataset.card.name}/{self.split}"

    def _input(self, item: DatasetItem, modality: str) -> object:
        if modality not in item.inputs:
            raise InputError(
                f"{self.where}, item {item.id}", f"no {modality} (it has {', '.join(item.inputs)})", f"its {modality}"
            )
        return item.inputs[modality]

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [n, E] of texts, not normalised."""
        return self._embed("text", texts).vectors

    def label_numbers(self, item: DatasetItem) -> list[int]:
        """Places of an item's labels in the class list.

        Raises:
            InputError: a label that is not in it, or for a classification none or several.
        """
        classes = self._places()
        unknown = [label for label in item.labels if label not in classes]
        if unknown:
            near = difflib.get_close_matches(unknown[0], list(classes), n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise InputError(self._named(item), f"the label {unknown[0]!r}", f"one of the {some(list(classes))}{hint}")
        if self.dataset.card.task == "classification" and len(item.labels) != 1:
            raise InputError(self._named(item), f"{len(item.labels)} labels", "exactly one label for a classification")
        return [classes[label] for label in item.labels]

    def _places(self) -> Mapping[str, int]:
        if getattr(self, "_known", None) is None:
            self._known = {name: place for place, name in enumerate(self.classes)}
        return self._known

    def _named(self, item: DatasetItem) -> str:
        source = item.inputs.get(self.dataset.card.modality)
        return f"{self.where}, item {item.id}" + (f" ({source_name(source)})" if source is not None else "")

    def targets(self, items: Sequence[DatasetItem]) -> Tensor:
        """Class numbers [n], or for multi-label rows of 0 and 1 [n, c]."""
        numbers = [self.label_numbers(item) for item in items]
        if self.dataset.card.task == "classification":
            return torch.tensor([row[0] for row in numbers])
        table = torch.zeros(len(items), len(self.classes), dtype=torch.long)
        for place, row in enumerate(numbers):
            table[place, row] = 1
        return table

    def class_vectors(self) -> Tensor:
        """Class vectors [c, E] of the prompts, each template filled with how the class is written."""
        names = self.dataset.prompt_names(self.split)
        prompts = {name: fill_templates(names.get(name, name), self.templates) for name in self.classes}
        self.check_words({name: lines[:1] for name, lines in prompts.items()}, "classes")
        lines = [line for own in prompts.values() for line in own]
        return class_vectors_of(self.texts(lines).unflatten(0, (len(self.classes), -1)))

    def check_words(self, texts: Mapping[str, Sequence[str]], what: str) -> None:
        """Note which texts (by name) the model cannot tell apart, else which of their words it does not know."""
        text = self.engine.model.modality("text")
        said = said_same(text, texts, what) or unknown_words(text, (line for lines in texts.values() for line in lines))
        self.notes += [said] if said else []

    def score(self, scores: Tensor, targets: Tensor) -> Scores:
        """Metrics of scores [n, c] by the dataset's kind of task."""
        if self.dataset.card.task == "classification":
            return classification(scores, targets, self.classes, self.merged)
        return multi_label(scores, targets, self.classes, self.protocol)


def some(names: Sequence[str]) -> str:
    """A number of classes, with the first names."""
    more = ", ..." if len(names) > SHOWN_CLASSES else ""
    return f"{len(names)} classes ({', '.join(names[:SHOWN_CLASSES])}{more})"


def zero_shot(work: Work) -> Scorer:
    """Items against class prompts: classification and multi-label."""
    work.targets(work.items)  # a wrong label is found before hours of embedding
    vectors = work.class_vectors()
    rows, items = work.embed(work.dataset.card.modality, work.items)
    return lambda: work.score(F.normalize(rows, dim=-1) @ vectors.T, work.targets(items))


def search(work: Work) -> Scorer:
    """Items against captions, or against their other modality, both ways."""
    card = work.dataset.card
    if card.other_modality is not None and card.other_modality != "text":
        return _search_pairs(work, card.other_modality)
    for item in work.items:
        if not item.captions:
            raise InputError(f"{work.where}, item {item.id}", "no caption", "at least one caption for a retrieval")
    rows, items = work.embed(card.modality, work.items)
    captions = [(place, caption) for place, item in enumerate(items) for caption in item.captions]
    work.check_words({caption: [caption] for _, caption in captions}, "captions")
    texts = work.texts([caption for _, caption in captions])
    owners = torch.tensor([place for place, _ in captions])
    return lambda: retrieval(rows, texts, owners, names=(card.modality, "text"), protocol=work.protocol)


def _search_pairs(work: Work, other: str) -> Scorer:
    card = work.dataset.card
    rows, items = work.embed(card.modality, work.items)
    others, kept = work.embed(other, items)
    place = {item.id: index for index, item in enumerate(items)}
    rows = rows[[place[item.id] for item in kept]]
    # The text side alone goes unnormalised under the "paper" protocol; there is none here.
    return lambda: retrieval(rows, others, torch.arange(len(kept)), names=(card.modality, other))


EVALUATORS: dict[str, Callable[[Work], Scorer]] = {"classification": zero_shot, "multi_label": zero_shot, "retrieval": search}


def evaluator(task: str) -> Callable[[Work], Scorer]:
    """The evaluator of a kind of task.

    Raises:
        OptionError: an unknown kind.
    """
    known("no evaluator for the task", [task], EVALUATORS)
    return EVALUATORS[task]
