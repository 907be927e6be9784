"""Linear probe and few-shot: what they train on, that they learn, and that they are repeatable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.benchmarks.evaluation_world import TEST, Captions, Merged, Shapes, Tags, variant
from vitlens.benchmarks.datasets import DatasetItem
from vitlens.benchmarks.evaluation import Settings, evaluate
from vitlens.benchmarks.evaluation.probe import features, fit, parts_of, trained_on, training_splits
from vitlens.errors import InputError, OptionError
from vitlens.model import ViTLens


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(cache=tmp_path_factory.mktemp("cache"), task="linear-probe", draws=3, shots=2)


def blobs(n: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Points around one centre per class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % classes
    return features(torch.eye(8)[targets] + 0.25 * torch.randn(n, 8, generator=generator)), targets


def test_it_learns_and_is_repeatable() -> None:
    rows, targets = blobs(60, 0)
    test, truth = blobs(60, 1)
    scores = fit(rows, targets, test, c=3)
    assert float((scores.argmax(dim=-1) == truth).float().mean()) > 0.9
    assert torch.equal(scores, fit(rows, targets, test, c=3))


def test_a_class_without_training_items_comes_last_and_two_classes_have_two_scores() -> None:
    rows, targets = blobs(40, 0, classes=2)
    scores = fit(rows, targets, blobs(10, 1)[0], c=3)
    assert scores.shape == (10, 3) and bool((scores.argmin(dim=-1) == 2).all())
    with pytest.raises(InputError, match="all of one class"):
        fit(rows[:5], torch.zeros(5, dtype=torch.long), rows, c=3, strength=1.0)


def test_labels_that_exclude_each_other_not() -> None:
    rows, targets = blobs(60, 0)
    hot = torch.stack([targets == 0, targets != 1, torch.zeros(60, dtype=torch.bool)], dim=1).long()
    test, truth = blobs(30, 1)
    scores = fit(rows, hot, test, c=3)
    assert float(((scores[:, 0] > 0) == (truth == 0)).float().mean()) > 0.9
    assert float(((scores[:, 1] > 0) == (truth != 1)).float().mean()) > 0.9


def test_the_whole_probe(model: ViTLens, root: Path, settings: Settings) -> None:
    result = evaluate(model, Shapes(), root, settings)
    assert result.task == "linear-probe" and result.settings["train_items"] == [16]
    assert "prompts" not in result.settings and result.published == [], "published numbers are zero-shot"
    assert result.metrics["top1"] > 25
    assert result.to_dict()["metrics"] == evaluate(model, Shapes(), root, settings).to_dict()["metrics"]
    assert "mAP" in evaluate(model, Tags(), root, settings).metrics


def test_few_shot_is_a_mean_over_draws(model: ViTLens, root: Path, settings: Settings) -> None:
    few = replace(settings, task="few-shot")
    result = evaluate(model, Shapes(), root, few)
    assert result.settings["shots"] == 2 and "2shots" in result.slug
    assert 0 <= result.metrics["top1"] <= 100 and "top1_std" in result.metrics
    assert result.metrics == evaluate(model, Shapes(), root, few).metrics
    draws = [evaluate(model, Shapes(), root, replace(few, draws=1, seed=seed)).metrics["top1"] for seed in range(3)]
    assert result.metrics["top1"] == pytest.approx(sum(draws) / 3)
    with pytest.raises(InputError, match=r"4 training items.*at least 5"):
        evaluate(model, Shapes(), root, replace(few, shots=5))
    with pytest.raises(OptionError, match="few-shot is for classifications"):
        evaluate(model, Tags(), root, few)


class Finer(Merged):
    """Its training split divides the merged classes otherwise."""

    def classes(self, split: str) -> tuple[str, ...]:
        return ("disc", "square", "cross") if split == "test" else ("disc", "square", "bar")

    def merged(self, split: str) -> Mapping[str, str]:
        return {"cross" if split == "test" else "bar": "others"}

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        own = {"test": ("bar", "cross"), "train": ("cross", "bar")}[split]
        found = super().items(root, split)
        return [replace(item, labels=(item.labels[0].replace(*own),)) for item in found]


def test_merged_classes_are_learned_as_one(model: ViTLens, root: Path, settings: Settings) -> None:
    result = evaluate(model, Finer(), root, settings)
    assert list(result.per_class) == ["disc", "square", "others"]
    assert result.per_class["others"]["items"] == 6


SPLITS = {"all": TEST, "fold1": None, "fold2": None, "fold3": None}
Folds = variant(Shapes, published=(), name="tiny-folds", splits=SPLITS, default_split="all")


class FoldedShapes(Folds):  # type: ignore[valid-type, misc]
    """Every third picture is a fold."""

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        found = Shapes().items(root, "test")
        return found if split == "all" else found[int(split[-1]) - 1 :: 3]


def test_all_folds_are_scored_by_the_others(model: ViTLens, root: Path, settings: Settings) -> None:
    parts = parts_of(FoldedShapes(), root, "all", FoldedShapes().items(root, "all"))
    assert [(len(train), len(test)) for train, test in parts] == [(8, 4)] * 3
    for train, test in parts:
        assert not {item.id for item in train} & {item.id for item in test}
    result = evaluate(model, FoldedShapes(), root, settings)
    assert sum(row["items"] for row in result.per_class.values()) == TEST


def test_what_is_trained_on() -> None:
    assert training_splits(Shapes(), "test") == ("train",)
    assert training_splits(FoldedShapes(), "fold2") == ("fold1", "fold3")
    assert training_splits(FoldedShapes(), "fold2", ["fold1"]) == ("fold1",)
    assert trained_on(FoldedShapes(), "all") == "the other folds of each" and trained_on(Shapes(), "test") == "train"
    with pytest.raises(OptionError, match="--train-split"):
        training_splits(Shapes(), "train")
    with pytest.raises(OptionError, match="cannot be trained on"):
        training_splits(Shapes(), "test", ["test"])


def test_what_cannot_be_probed(model: ViTLens, root: Path, settings: Settings) -> None:
    with pytest.raises(OptionError, match="retrieval"):
        evaluate(model, Captions(), root, settings)

    class Leaky(Shapes):
        def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
            return super().items(root, "test")

    with pytest.raises(InputError, match=r"\.png: an item of .* and of its training splits"):
        evaluate(model, variant(Leaky, splits={"test": TEST, "train": TEST})(), root, settings)
