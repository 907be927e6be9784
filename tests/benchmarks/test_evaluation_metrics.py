"""Metrics against the numbers that the released evaluation code gives, and where ours differ on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitlens.benchmarks.evaluation import metrics
from vitlens.errors import OptionError

CLASSES = [f"class {i}" for i in range(9)]


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, Any]:
    return json.loads((reference / "golden_loss" / "values.json").read_text())


@pytest.fixture(scope="module")
def arrays(reference: Path) -> dict[str, Tensor]:
    with np.load(reference / "golden_loss" / "arrays.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def owners(arrays: dict[str, Tensor]) -> Tensor:
    ids = arrays["ret_audio_ids"].tolist()
    return torch.tensor([ids.index(i) for i in arrays["ret_text_ids"].tolist()])


def test_top_k_is_the_reference_s(golden: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    found = metrics.classification(arrays["metric_logits"], arrays["metric_target"], CLASSES)
    assert found.metrics["top1"] == pytest.approx(golden["acc"]["acc1"], abs=1e-4)
    assert found.metrics["top5"] == pytest.approx(golden["acc"]["acc5"], abs=1e-4)
    hits = sum(row["top1"] * row["items"] / 100 for row in found.per_class.values() if row["items"])
    assert 100 * hits / 24 == pytest.approx(found.metrics["top1"], abs=1e-4)
    assert found.confusion is not None and int(found.confusion.sum()) == 24
    assert 100 * int(found.confusion.trace()) / 24 == pytest.approx(found.metrics["top1"], abs=1e-4)


def test_others_are_merged_after_ranking_as_in_the_reference(golden: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    merged = {CLASSES[i]: "others" for i in golden["cond_acc"]["map_to_others_idx"]}
    targets = arrays["metric_target"].clone()
    found = metrics.classification(arrays["metric_logits"], targets, CLASSES, merged)
    assert found.metrics["top1"] == pytest.approx(golden["cond_acc"]["acc1"], abs=1e-4)
    assert found.metrics["top5"] == pytest.approx(golden["cond_acc"]["acc5"], abs=1e-4)
    assert torch.equal(targets, arrays["metric_target"]), "the caller's targets stay as they are"
    assert "others" in found.per_class and len(found.per_class) == 7


def test_mean_average_precision_by_protocol(golden: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    logits, targets = arrays["metric_logits"], arrays["metric_multilabel"].long()
    ours = metrics.multi_label(logits, targets, CLASSES)
    paper = metrics.multi_label(logits, targets, CLASSES, "paper")
    assert paper.metrics["mAP"] == pytest.approx(100 * golden["MAP_with_one_class_without_positives"]["map"], abs=1e-4)
    assert ours.metrics["mAP"] == pytest.approx(100 * golden["MAP_first_8_classes"]["map"], abs=1e-4)
    assert ours.metrics["top1"] == pytest.approx(100 * golden["Accuracy_multi_label"]["accuracy"], abs=1e-4)
    for row, value in zip(list(ours.per_class.values())[:8], golden["AP_per_class"][:8], strict=True):
        assert row["AP"] == pytest.approx(100 * value, abs=1e-4)
    assert "AP" not in ours.per_class[CLASSES[8]]
    assert "left out" in ours.notes[0] and "count as 0" in paper.notes[0]


@pytest.mark.parametrize(
    ("protocol", "key"), [("default", "Recall_text_normalised"), ("paper", "Recall_reference_text_unnormalised")]
)
def test_retrieval_by_protocol(protocol: metrics.Protocol, key: str, golden: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    sides = arrays["ret_audio"], arrays["ret_text"], owners(arrays)
    found = metrics.retrieval(*sides, names=("audio", "text"), protocol=protocol).metrics
    for k in (1, 5, 10):
        assert found[f"audio_to_text_r@{k}"] == pytest.approx(golden[key][f"txt_r{k}"], abs=1e-4)
        assert found[f"text_to_audio_r@{k}"] == pytest.approx(golden[key][f"img_r{k}"], abs=1e-4)


def test_class_vectors_are_means_of_normalised_prompts() -> None:
    prompts = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[5.0, 0.0], [2.0, 0.0]]])
    half = 0.5**0.5
    assert torch.allclose(metrics.class_vectors_of(prompts), torch.tensor([[half, half], [1.0, 0.0]]))


def test_few_classes_have_no_top5_and_absent_ones_are_named() -> None:
    scores = torch.eye(3)[[0, 1, 1]]
    found = metrics.classification(scores, torch.tensor([0, 1, 0]), ["a", "b", "c"])
    assert set(found.metrics) == {"top1", "mean_per_class"}
    assert found.metrics["top1"] == pytest.approx(200 / 3, abs=1e-4)
    assert found.metrics["mean_per_class"] == pytest.approx(75)
    assert found.per_class["c"] == {"items": 0}
    assert found.notes == ["1 of 3 classes have no item"]


def test_a_small_gallery_leaves_out_large_k() -> None:
    found = metrics.retrieval(torch.eye(3), torch.eye(3), torch.arange(3), names=("depth", "image"))
    assert found.metrics == {"depth_to_image_r@1": 100.0, "image_to_depth_r@1": 100.0}
    assert len(found.notes) == 4 and "only 3" in found.notes[0]


def test_large_tables_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 8
    expected = metrics.top_k(scores, targets, 5)
    monkeypatch.setattr(metrics, "CHUNK", 7)
    assert metrics.top_k(scores, targets, 5) == pytest.approx(expected)
    assert expected == pytest.approx(metrics.top_k_merged(scores, targets, 5, torch.arange(8)), abs=1e-4)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(OptionError, match="default or paper"):
        metrics.checked_protocol("sane")
    with pytest.raises(OptionError, match="not in the class list: 'x'"):
        metrics.merging(["a"], {"x": "others"})
