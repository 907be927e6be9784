"""Bridges between spaces: a known map is found, noise is not taken for one, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.adapters.generate.bridges import LinearBridge, fit_bridge
from vitlens.errors import CheckpointError, InputError, OptionError, SpaceError
from vitlens.space import EmbeddingSpace

A, B = EmbeddingSpace("a", 16), EmbeddingSpace("b", 24)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear_pairs(count: int = 300, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Directions, and their images under a fixed affine map."""
    x = F.normalize(draw(count, A.dim), dim=-1)
    y = x @ draw(A.dim, B.dim, seed=1) + draw(B.dim, seed=2)
    return x, y + noise * draw(count, B.dim, seed=3)


def test_a_known_linear_map_is_recovered_whatever_the_length_of_its_sources() -> None:
    x, y = linear_pairs()
    bridge = fit_bridge((3.0 * x, y), source=A, target=B)
    report = bridge.report
    assert report.cosine_after > 0.9999 and report.recall_after == 1.0 and report.chance == pytest.approx(1 / 60)
    assert report.cosine_before is None and (report.pairs, report.held_out) == (300, 60)
    new = F.normalize(draw(5, A.dim, seed=9), dim=-1)
    expected = new @ draw(A.dim, B.dim, seed=1) + draw(B.dim, seed=2)
    torch.testing.assert_close(bridge(new), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(bridge(7.0 * new[0]), expected[0], atol=1e-3, rtol=1e-3)
    assert bridge.norm == pytest.approx(float(y.norm(dim=-1).mean()), rel=0.05)
    assert "R@1 100.0%" in str(report) and "chance 1.7%" in str(report)


def test_random_pairs_are_reported_as_chance() -> None:
    report = fit_bridge((draw(500, A.dim), draw(500, B.dim, seed=1)), source=A, target=B).report
    assert report.recall_after < 0.06 and abs(report.cosine_after) < 0.2


def test_the_regulariser_is_chosen_on_pairs_that_did_not_fit_it() -> None:
    clean = fit_bridge(linear_pairs(60), source=A, target=B).report
    noisy = fit_bridge(linear_pairs(60, noise=2.0), source=A, target=B).report
    assert clean.regulariser is not None and noisy.regulariser is not None and noisy.regulariser > 10 * clean.regulariser
    overfitted = fit_bridge(linear_pairs(60, noise=2.0), source=A, target=B, regularisers=[1e-8]).report
    assert noisy.cosine_after > overfitted.cosine_after


def test_a_rotation_is_recovered_by_the_orthogonal_method() -> None:
    rotation = torch.linalg.qr(draw(A.dim, A.dim, seed=4)).Q
    x = F.normalize(draw(60, A.dim), dim=-1)
    other = EmbeddingSpace("c", A.dim)
    bridge = fit_bridge((x, 5.0 * x @ rotation), source=A, target=other, method="orthogonal")
    torch.testing.assert_close(bridge.weight, 5.0 * rotation, atol=1e-4, rtol=1e-4)
    assert bridge.report.cosine_after > 0.9999 and bridge.report.regulariser is None
    assert bridge.report.cosine_before is not None and bridge.report.cosine_before < 0.5
    assert bridge.norm == pytest.approx(5.0, rel=1e-5)


def test_fitting_is_deterministic_and_the_seed_chooses_what_is_held_out() -> None:
    pairs = linear_pairs(100, noise=0.5)
    first, again = (fit_bridge(pairs, source=A, target=B) for _ in range(2))
    assert torch.equal(first.weight, again.weight) and first.report == again.report
    assert fit_bridge(pairs, source=A, target=B, seed=1).report != first.report


def test_a_saved_bridge_comes_back(tmp_path: Path) -> None:
    bridge = fit_bridge(linear_pairs(40), source=A, target=B)
    again = LinearBridge.load(bridge.save(tmp_path / "bridge"))
    assert (again.source, again.target, again.report, again.norm) == (A, B, bridge.report, bridge.norm)
    x = draw(3, A.dim, seed=5)
    assert torch.equal(again(x), bridge(x))
    with pytest.raises(InputError, match="cannot be read"):
        LinearBridge.load(tmp_path)
    facts = json.loads((tmp_path / "bridge" / "bridge.json").read_text())
    (tmp_path / "bridge" / "bridge.json").write_text(json.dumps({**facts, "source": {"name": "a", "dim": 17}}))
    with pytest.raises(CheckpointError, match="17"):
        LinearBridge.load(tmp_path / "bridge")
    (tmp_path / "bridge" / "bridge.json").write_text(json.dumps({**facts, "format": 9}))
    with pytest.raises(InputError, match="format 9"):
        LinearBridge.load(tmp_path / "bridge")
    (tmp_path / "bridge" / "bridge.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read"):
        LinearBridge.load(tmp_path / "bridge")


def broken(count: int = 40, *, at: str = "x", value: float = float("nan")) -> tuple[Tensor, Tensor]:
    x, y = linear_pairs(count)
    (x if at == "x" else y)[3, 2] = value
    return x, y


@pytest.mark.parametrize(
    ("pairs", "options", "error", "says"),
    [
        (linear_pairs(19), {}, OptionError, "19 pairs; at least 20"),
        (broken(), {}, OptionError, "source embeddings hold values that are not finite"),
        (broken(at="y", value=float("inf")), {}, OptionError, "target embeddings hold"),
        ((torch.zeros(40, 16), draw(40, 24)), {}, OptionError, "rows of zeros"),
        ((draw(40, 16), draw(41, 24)), {}, OptionError, "40 source and 41 target"),
        ((draw(40, 15), draw(40, 24)), {}, SpaceError, r"source is shape \[40, 15\], space a has width 16"),
        (linear_pairs(40), {"target": None}, SpaceError, "target space is not known"),
        (linear_pairs(40), {"held_out": 0.5}, OptionError, "held_out"),
        (linear_pairs(40), {"method": "magic"}, OptionError, "'magic'"),
        (linear_pairs(40), {"regularisers": [0.0]}, OptionError, "regularisers must be positive"),
    ],
)
def test_what_is_wrong_with_the_pairs_is_named(pairs: Any, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        fit_bridge(pairs, **{"source": A, "target": B, **options})


def test_a_bridge_refuses_other_spaces() -> None:
    bridge = fit_bridge(linear_pairs(40), source=A, target=B)
    with pytest.raises(SpaceError, match="17 values"):
        bridge(draw(2, 17))
    other = draw(2, A.dim)
    other.space = EmbeddingSpace("z", A.dim)  # type: ignore[attr-defined]
    with pytest.raises(SpaceError, match="embeddings of z"):
        bridge(other)
    with pytest.raises(SpaceError, match="source is z"):
        fit_bridge((other, draw(2, B.dim)), source=A, target=B)
