"""Positions of lenses whose number of tokens is not that of the ViT's patches: the reference's rule, its files, ours again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vitlens
from tests import golden
from tests.core.test_checkpoint import one_stop
from vitlens import checkpoint
from vitlens.errors import CheckpointError
from vitlens.lens_config import PerceiverConfig
from vitlens.model import ViTLens
from vitlens.spec import ModelSpec
from vitlens.vit import FrozenViT, resize_positions
from vitlens.zoo import Pretrained

CASE, SENSOR = "eeg", "eeg"
LATENTS, POSITIONS = "visual.perceiver.latents", "visual.positional_embedding"


@pytest.mark.parametrize("count", [2, 91, 95, 99, 120, 195, 255, 300])
def test_a_count_that_is_no_square_starts_from_the_largest_square_below(count: int) -> None:
    positions = torch.randn(1 + 256, 8)
    rows = resize_positions(positions, count, prefix=1)
    side = math.isqrt(count)
    square = resize_positions(positions, side * side, prefix=1)[1:]
    taken = torch.tensor([place * side * side // count for place in range(count)])  # nearest, as torch rounds it: down
    torch.testing.assert_close(rows[1:], square[taken], rtol=0, atol=0)
    assert torch.equal(rows[0], positions[0])


def spec_with(latents: int) -> ModelSpec:
    spec = golden.model_spec(CASE)
    encoders = [replace(e, lens=PerceiverConfig(depth=1, latents=latents)) if e.modality == SENSOR else e for e in spec.encoders]
    return replace(spec, encoders=tuple(encoders))


def state_with(latents: int, positions: int | None) -> dict[str, torch.Tensor]:
    """The small training file of a lens with so many latents; positions for so many tokens, or (None) as the CLIP has them."""
    state = golden.official_state(CASE)
    state[LATENTS] = state[LATENTS].repeat(2, 1)[:latents].contiguous()
    if positions is not None:
        state[POSITIONS] = resize_positions(state[POSITIONS], positions, prefix=1)
    return state


def loaded(state: dict[str, torch.Tensor], spec: ModelSpec) -> ViTLens:
    sensor = "" if next(iter(state)).startswith("vitlens") else SENSOR
    content = checkpoint.import_official(state, sensor=sensor)
    return ViTLens.from_state(Pretrained(spec, content.state, "a made-up file"))


def out(model: ViTLens) -> torch.Tensor:
    with torch.inference_mode():
        return model({SENSOR: golden.batch(CASE)})[SENSOR]


def rows(model: ViTLens) -> int:
    vit = model.encoders[SENSOR].vit
    assert isinstance(vit, FrozenViT) and vit.positions is not None
    return vit.positions.shape[0]


@pytest.mark.parametrize("latents", [1, 95, 144, 196, 300])
def test_a_training_file_keeps_the_positions_that_the_reference_resized(latents: int, tmp_path: Path) -> None:
    model = loaded(state_with(latents, latents), spec_with(latents))
    assert rows(model) == latents + 1
    torch.testing.assert_close(out(model), out(loaded(state_with(latents, None), spec_with(latents))), rtol=0, atol=0)
    model.save_pretrained(tmp_path)
    again = vitlens.load(tmp_path, device="cpu")
    assert rows(again) == latents + 1
    torch.testing.assert_close(out(again), out(model), rtol=0, atol=0)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_positions_that_were_trained_are_the_files_own(tmp_path: Path) -> None:
    state = state_with(95, 95)
    state[POSITIONS] = state[POSITIONS] + 0.1 * torch.randn_like(state[POSITIONS])
    model = loaded(state, spec_with(95))
    assert torch.equal(model.state_dict()[f"encoders.{SENSOR}.vit.positions"], state[POSITIONS])
    assert (out(model) - out(loaded(state_with(95, 95), spec_with(95)))).abs().max() > 1e-4


def test_the_other_towers_keep_theirs() -> None:
    model = loaded(state_with(95, 95), spec_with(95))
    assert model.state_dict()["encoders.image.vit.positions"].shape[0] == 257


def test_a_one_stop_file_may_have_them_too() -> None:
    whole = one_stop({SENSOR: CASE})
    small = state_with(95, 95)
    whole |= {f"vitlens.{SENSOR}.{key.removeprefix('visual.')}": small[key] for key in (LATENTS, POSITIONS)}
    assert rows(loaded(whole, spec_with(95))) == 96


@pytest.mark.parametrize("given", [94, 96, 576])
def test_positions_for_another_number_of_tokens_are_refused(given: int) -> None:
    with pytest.raises(CheckpointError, match=r"shapes differ: encoders\.eeg\.vit\.positions"):
        loaded(state_with(95, given), spec_with(95))
    with pytest.raises(CheckpointError, match=r"shapes differ: encoders\.eeg\.vit\.positions"):
        loaded(state_with(256, given), spec_with(256))


def test_positions_of_another_width_are_refused() -> None:
    state = state_with(95, 95)
    state[POSITIONS] = state[POSITIONS][:, :-1]
    with pytest.raises(CheckpointError, match="shapes differ"):
        loaded(state, spec_with(95))


def test_frozen_stays_frozen() -> None:
    vit = loaded(state_with(95, 95), spec_with(95)).encoders[SENSOR].vit
    assert not any(parameter.requires_grad for parameter in vit.parameters())
