"""Linear probe and few-shot: a logistic regression (scikit-learn) on frozen embeddings, trained on other splits.

The features are the normalised embeddings times the square root of their width, so that each has a variance of about one and the
regularisation means the same for every width. A linear probe chooses its strength on a fifth of the training items; few-shot
keeps 1, draws `shots` items of each class, and reports the mean over several draws.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.benchmarks.datasets import Dataset, DatasetItem
from vitlens.benchmarks.evaluation.metrics import Scores, needed
from vitlens.benchmarks.evaluation.tasks import Scorer, Work
from vitlens.errors import InputError, OptionError
from vitlens.sources import is_path, name_of

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of scikit-learn's C among which a linear probe chooses."""
ITERATIONS = 1000
_FOLD = re.compile(r"(.*?)\d+$")


def training_splits(dataset: Dataset, split: str, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """The splits to train on when `split` is scored: as chosen, else "train", else the other folds of the same kind.

    Raises:
        OptionError: nothing to train on, or the split itself among the chosen.
    """
    splits, name = list(dataset.card.splits), dataset.card.name
    if chosen:
        if split in chosen:
            raise OptionError(f"{name}: split {split!r} is scored, it cannot be trained on")
        return tuple(dataset.checked(own) for own in chosen)
    fold = _FOLD.fullmatch(split)
    folds = [own for own in splits if own != split and fold and (m := _FOLD.fullmatch(own)) and m[1] == fold[1]]
    if folds:
        return tuple(folds)
    if "train" in splits and split != "train":
        return ("train",)
    raise OptionError(
        f"{name}: name a split to train on with --train-split, of {', '.join(own for own in splits if own != split)}"
    )


Part = tuple[Sequence[DatasetItem], Sequence[DatasetItem]]
"""Items to train on, and items to score."""


def parts_of(dataset: Dataset, root: Path, split: str, items: Sequence[DatasetItem], chosen: Sequence[str] = ()) -> list[Part]:
    """What to train on and to score: one part, or for a split that is all folds together one part for each fold.

    Raises:
        OptionError: nothing to train on.
    """
    folds = [] if chosen else _folds(dataset, split)
    if not folds:
        train = [item for own in training_splits(dataset, split, chosen) for item in _listed(dataset, root, own)]
        return [(train, _collapsed(dataset, split, items))]
    listed = {fold: _listed(dataset, root, fold) for fold in folds}
    wanted = {item.id for item in items}
    parts = []
    for fold, own in listed.items():
        train = [item for other, rows in listed.items() if other != fold for item in rows]
        parts.append((train, [item for item in own if item.id in wanted]))
    return [part for part in parts if part[1]]


def trained_on(dataset: Dataset, split: str, chosen: Sequence[str] = ()) -> str:
    """What a probe of `split` trains on, for people.

    Raises:
        OptionError: nothing to train on.
    """
    folds = [] if chosen else _folds(dataset, split)
    return "the other folds of each" if folds else ", ".join(training_splits(dataset, split, chosen))


def _listed(dataset: Dataset, root: Path, split: str) -> list[DatasetItem]:
    return _collapsed(dataset, split, dataset.items(root, split))


def _collapsed(dataset: Dataset, split: str, items: Sequence[DatasetItem]) -> list[DatasetItem]:
    """Items with merged classes as one label: a probe learns them as one, and splits may divide them differently."""
    merged = dataset.merged(split)
    return [replace(item, labels=tuple(dict.fromkeys(merged.get(label, label) for label in item.labels))) for item in items]


def _folds(dataset: Dataset, split: str) -> list[str]:
    folds = [own for own in dataset.card.splits if _FOLD.fullmatch(own)]
    return [] if split in folds or "train" in dataset.card.splits or len(folds) < 2 else folds


@dataclass(frozen=True)
class Prepared:
    """A part with its features: training rows [n, E] of `train_items`, rows [m, E] to score, and their targets."""

    train_items: list[DatasetItem]
    train_rows: Tensor
    train_targets: Tensor
    rows: Tensor
    targets: Tensor


def linear_probe(work: Work, parts: Sequence[Part], *, seed: int = 0) -> Scorer:
    """Train on all training items, score the others."""
    prepared = [_prepare(work, *part) for part in parts]

    def score() -> Scores:
        c = len(work.classes)
        return _scored(work, prepared, [fit(p.train_rows, p.train_targets, p.rows, c=c, seed=seed) for p in prepared])

    return score


def few_shot(work: Work, parts: Sequence[Part], *, shots: int, draws: int = 5, seed: int = 0) -> Scorer:
    """Train on `shots` items of each class, `draws` times; metrics are means, and `<metric>_std` their spread.

    Only what is drawn is embedded.

    Raises:
        OptionError: not a classification.
        InputError: a class with fewer training items.
    """
    if work.dataset.card.task != "classification":
        raise OptionError(f"{work.dataset.card.name}: few-shot is for classifications, this is {work.dataset.card.task}")
    drawn = [[draw_shots(work, train, shots, seed + draw) for draw in range(draws)] for train, _ in parts]
    prepared = []
    for (train, test), own in zip(parts, drawn, strict=True):
        prepared.append(_prepare(work, [train[place] for place in sorted(set().union(*own))], test))

    def once(draw: int) -> Scores:
        fitted = []
        for p, (train, _), own in zip(prepared, parts, drawn, strict=True):
            wanted = {id(train[place]) for place in own[draw]}
            rows = [place for place, item in enumerate(p.train_items) if id(item) in wanted]
            fitted.append(fit(p.train_rows[rows], p.train_targets[rows], p.rows, c=len(work.classes), strength=1.0))
        return _scored(work, prepared, fitted)

    def score() -> Scores:
        found = [once(draw) for draw in range(draws)]
        values = {name: [own.metrics[name] for own in found] for name in found[0].metrics}
        metrics = {name: mean(own) for name, own in values.items()} | {f"{name}_std": pstdev(own) for name, own in values.items()}
        note = f"means over {draws} draws of {shots} items a class; per-class numbers and confusions are the first draw's"
        return replace(found[0], metrics=metrics, notes=[*found[0].notes, note])

    return score


def draw_shots(work: Work, train: Sequence[DatasetItem], shots: int, seed: int) -> set[int]:
    """Places of `shots` items of each class in `train`, drawn with `seed`.

    Raises:
        InputError: a class with fewer items.
    """
    targets = np.array([work.label_numbers(item)[0] for item in train])
    chance = np.random.default_rng(seed)
    chosen: set[int] = set()
    for place, name in enumerate(work.classes):
        own = np.flatnonzero(targets == place)
        if len(own) < shots:
            raise InputError(
                f"{work.dataset.card.name}, class {name}", f"{len(own)} training items", f"at least {shots} (--shots)"
            )
        chosen |= set(chance.choice(own, shots, replace=False).tolist())
    return chosen


def _prepare(work: Work, train: Sequence[DatasetItem], test: Sequence[DatasetItem]) -> Prepared:
    if work.dataset.card.task == "retrieval":
        raise OptionError(f"{work.dataset.card.name} is a retrieval: there is no class to probe for")
    needed("sklearn.linear_model")
    modality = work.dataset.card.modality
    twice = _files(train, modality) & _files(test, modality)
    if twice:
        raise InputError(min(twice)[0], f"an item of {work.where} and of its training splits", "splits without a common item")
    for items in (train, test):
        work.targets(items)  # a wrong label is found before hours of embedding
    train_rows, train_items = work.embed(modality, train)
    rows, items = work.embed(modality, test)
    return Prepared(train_items, features(train_rows), work.targets(train_items), features(rows), work.targets(items))


def _files(items: Sequence[DatasetItem], modality: str) -> set[tuple[str, str]]:
    """The files of items with their read options (ids may repeat in another split)."""
    found = set()
    for item in items:
        given = item.inputs.get(modality)
        options = dict(given) if isinstance(given, Mapping) else {"source": given}
        source = options.pop("source", None)
        if is_path(source):
            found.add((name_of(source), repr(sorted(options.items()))))
    return found


def _scored(work: Work, prepared: Sequence[Prepared], fitted: Sequence[Tensor]) -> Scores:
    return work.score(torch.cat(list(fitted)), torch.cat([part.targets for part in prepared]))


def features(rows: Tensor) -> Tensor:
    """Embeddings [n, E] -> unit length, times the square root of E."""
    return F.normalize(rows, dim=-1) * rows.shape[1] ** 0.5


def fit(rows: Tensor, targets: Tensor, test: Tensor, *, c: int, seed: int = 0, strength: float | None = None) -> Tensor:
    """Scores [m, c] of `test` [m, E] by a logistic regression on rows [n, E] with targets [n], or multi-hot targets [n, c].

    Without a `strength` the best of STRENGTHS is taken, by the likelihood of a fifth of the rows.

    Raises:
        InputError: training items of fewer than two classes.
    """
    x, y = rows.double().numpy(), targets.numpy()
    if strength is None:
        held = np.random.default_rng(seed).permutation(len(x)) < max(1, len(x) // 5)
        tried = {s: _loss(_regress(x[~held], y[~held], s, x[held], c), y[held]) for s in STRENGTHS}
        strength = min(tried, key=lambda s: tried[s])
    return torch.from_numpy(_regress(x, y, strength, test.double().numpy(), c))


def _regress(x: np.ndarray, y: np.ndarray, strength: float, test: np.ndarray, c: int) -> np.ndarray:
    """Scores [m, c]; a class without a training item is lower than all others."""
    if y.ndim == 2:
        return 2 * np.stack([_regress(x, column, strength, test, 2)[:, 1] for column in y.T], axis=1)
    known = np.unique(y)
    if len(known) < 2:
        if c == 2:
            return np.tile([0.0, 0.0], (len(test), 1))
        raise InputError("the training items", f"all of one class of {c}", "items of at least two classes")
    model: Any = needed("sklearn.linear_model").LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", needed("sklearn.exceptions").ConvergenceWarning)  # the last step's weights are as good
        model.fit(x, y)
    found = model.decision_function(test)
    found = np.stack([-found, found], axis=1) / 2 if found.ndim == 1 else found
    scores = np.full((len(test), c), found.min() - 1.0)
    scores[:, known] = found
    return scores


def _loss(scores: np.ndarray, y: np.ndarray) -> float:
    """Cross-entropy of scores, over classes or for multi-hot targets over labels."""
    logits, targets = torch.from_numpy(scores), torch.from_numpy(y)
    if y.ndim == 2:
        return float(F.binary_cross_entropy_with_logits(logits, targets.double()))
    return float(F.cross_entropy(logits, targets))
