"""The contrastive loss against the public reference's numbers; gradients of micro-batches against those of the whole batch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.train.gradcache import backward_through
from vitlens.train.losses import AnchorLoss, LogitScale, clip_loss

NUMBERS = {"image": 1, "text": 2, "visual": 3}


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, Any]:
    values = json.loads((reference / "golden_loss" / "values.json").read_text())
    with np.load(reference / "golden_loss" / "arrays.npz") as arrays:
        return {**values, "arrays": dict(arrays)}


def features(kind: str) -> Tensor:
    """The goldens' inputs, by their formula."""
    i, j, k = torch.arange(1, 7).double()[:, None], torch.arange(1, 9).double()[None], NUMBERS[kind]
    x = torch.sin(0.481 * i * j + 2.1 * k + 0.2 * k * i) + 0.3 * torch.cos(1.9 * i - 0.31 * j * k)
    return F.normalize(x, dim=-1).float().requires_grad_()


@pytest.mark.parametrize(
    ("case", "anchors"),
    [
        ("TriClipLoss", ("image", "text")),
        ("OpenShape_TriClipLoss", ("image", "text")),
        ("ClipLossGeneral_visual_text", ("text",)),
    ],
)
def test_the_loss_and_its_gradients_are_the_references(golden: dict[str, Any], case: str, anchors: tuple[str, ...]) -> None:
    x = {name: features(name) for name in (*anchors, "visual")}
    scale = LogitScale(1 / 0.07)
    loss = AnchorLoss(scale)({"embedding": x["visual"]}, {name: x[name] for name in anchors})
    loss.backward()
    assert float(loss.detach()) == pytest.approx(golden[case]["loss"], abs=1e-5)
    assert float(scale.log_scale.grad) == pytest.approx(golden[case]["grad_log_logit_scale"], abs=1e-4)
    for name, rows in x.items():
        expected = golden["arrays"][f"{case}__grad_{name}"]
        assert np.abs(rows.grad.numpy() - expected).max() < 1e-5, name


def test_clip_loss_of_two_anchors_is_the_references(golden: dict[str, Any]) -> None:
    image, text = features("image"), features("text")
    loss = clip_loss(image, text, torch.tensor(1 / 0.07))
    assert float(loss.detach()) == pytest.approx(golden["ClipLoss_image_text"]["loss"], abs=1e-5)


def test_equal_anchors_are_no_negatives_when_asked() -> None:
    torch.manual_seed(0)
    sensor, anchor = F.normalize(torch.randn(4, 8), dim=-1), F.normalize(torch.randn(4, 8), dim=-1)
    anchor[2] = anchor[0]
    scale = torch.tensor(10.0)
    kept = clip_loss(sensor, anchor, scale, ignore_duplicates=True)
    logits = scale * sensor @ anchor.T
    logits[0, 2] = logits[2, 0] = -math.inf
    other = scale * anchor @ sensor.T
    other[0, 2] = other[2, 0] = -math.inf
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(other, torch.arange(4))) / 2
    assert float(kept) == pytest.approx(float(expected), abs=1e-6)
    assert float(kept) < float(clip_loss(sensor, anchor, scale))


def test_the_temperature_stays_between_one_and_its_limit() -> None:
    scale = LogitScale(14.28)
    assert scale.value == pytest.approx(14.28, rel=1e-6)
    for pushed, kept in ((9.0, 100.0), (-3.0, 1.0)):
        with torch.no_grad():
            scale.log_scale.fill_(pushed)
        scale.clamp_()
        assert scale.value == pytest.approx(kept, rel=1e-6)


class Net(nn.Module):
    """A network with dropout and, if asked for, batch norm."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        middle = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(6, 16), middle, nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.layers(x), dim=-1)

    def named(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"embedding": self(inputs["x"])}


def gradients(net: nn.Module, scale: LogitScale) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in [*net.named_parameters(), *scale.named_parameters()] if p.grad is not None}


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 11])
def test_micro_batches_give_the_gradients_of_the_whole_batch(micro_batch: int) -> None:
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(2))
    goals = {"image": F.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(3)), dim=-1)}
    found = []
    for size in (None, micro_batch):
        net, scale = Net().double().eval(), LogitScale(20.0).double()
        anchor_loss = AnchorLoss(scale)
        loss, outputs = backward_through(net.named, {"x": x.double()}, lambda out, a=anchor_loss: a(out, goals), micro_batch=size)
        assert outputs["embedding"].shape == (12, 8)
        found.append((float(loss), gradients(net, scale)))
    (whole, expected), (parts, gathered) = found
    assert parts == pytest.approx(whole, rel=1e-6)
    assert set(gathered) == set(expected)
    assert all(torch.allclose(gathered[name], expected[name], atol=1e-6) for name in expected)
    assert float(expected["log_scale"].abs()) > 1e-4, "the temperature's gradient must count once, not once per micro-batch"


def test_random_numbers_inside_the_network_are_replayed() -> None:
    """With dropout the gradient must belong to the embeddings that made the loss."""
    net, scale, seen = Net().train(), LogitScale(20.0), []

    def network(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(net(inputs["x"]))
        return {"embedding": seen[-1]}

    torch.manual_seed(5)
    x = torch.randn(6, 6)
    goals = {"image": F.normalize(torch.randn(6, 8), dim=-1)}
    backward_through(network, {"x": x}, lambda out: AnchorLoss(scale)(out, goals), micro_batch=2)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.cat([net(part) for part in x.split(2)])), "dropout is off: this test tests nothing"


def test_running_statistics_are_updated_once() -> None:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    goals = {"image": F.normalize(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)), dim=-1)}
    net, twin, scale = Net(norm=True).train(), Net(norm=True).train(), LogitScale(20.0)
    backward_through(net.named, {"x": x}, lambda out: AnchorLoss(scale)(out, goals), micro_batch=4, module=net)
    for part in x.split(4):
        twin(part)
    for (name, one), (_, other) in zip(net.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.allclose(one.float(), other.float()), name
