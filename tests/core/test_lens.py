"""Lenses: shapes for any token and latent count, weight tying, configuration round trip, clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vitlens.errors import OptionError
from vitlens.lens import PerceiverLens, build_lens
from vitlens.lens_config import (
    IdentityConfig,
    PerceiverConfig,
    SelfAttentionConfig,
    lens_config_from_dict,
    lens_config_to_dict,
)
from vitlens.towers import build_vit
from vitlens.vit import FrozenViT, ViTSpec

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def vit() -> FrozenViT:
    torch.manual_seed(0)
    return build_vit(ViTSpec("tiny", config=CLIP)).eval()


@pytest.mark.parametrize("latents", [1, 7, 16, 40])
@pytest.mark.parametrize("count", [1, 5, 33])
def test_perceiver_gives_its_latents_whatever_the_token_count(vit: FrozenViT, latents: int, count: int) -> None:
    lens = build_lens(PerceiverConfig(depth=2, latents=latents), input_width=12, vit=vit)
    out = lens(torch.randn(3, count, 12))
    assert out.shape == (3, latents, 32)
    assert vit(out).shape == (3, 16)


def test_perceiver_defaults_follow_the_vit(vit: FrozenViT) -> None:
    lens = build_lens(PerceiverConfig(depth=1), input_width=32, vit=vit)
    assert lens(torch.randn(1, 4, 32)).shape == (1, vit.patches, 32)
    keys = {key: tuple(value.shape) for key, value in lens.state_dict().items()}
    assert keys["layers.0.0.fn.to_q.weight"] == (16, 32)  # one cross head as wide as the ViT's heads
    assert keys["layers.0.2.0.0.fn.to_q.weight"] == (32, 32)


def test_a_token_does_not_depend_on_the_batch_beside_it(vit: FrozenViT) -> None:
    lens = build_lens(PerceiverConfig(depth=2, self_per_cross=2), input_width=12, vit=vit).eval()
    x = torch.randn(4, 9, 12)
    assert torch.allclose(lens(x)[1:2], lens(x[1:2]), atol=1e-6)


def test_tied_layers_share_one_set_from_the_second_on() -> None:
    tied = PerceiverLens(input_width=8, width=16, latents=4, depth=5, heads=2, head_width=8, tied=True)
    untied = PerceiverLens(input_width=8, width=16, latents=4, depth=5, heads=2, head_width=8)
    assert list(tied.state_dict()) == list(untied.state_dict())
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    one_layer = (count(untied) - 4 * 16) // 5
    assert count(tied) == 4 * 16 + 2 * one_layer
    out = tied(torch.randn(2, 3, 8)).sum()
    out.backward()
    assert tied.layers[1] is tied.layers[4]


def test_self_attention_lens_can_start_from_the_vits_blocks(vit: FrozenViT) -> None:
    lens = build_lens(SelfAttentionConfig(depth=1, pretrained=True), input_width=32, vit=vit)
    x = torch.randn(2, 5, 32)
    assert torch.allclose(lens(x), vit.blocks[0](x), atol=1e-6)
    assert all(p.requires_grad for p in lens.parameters())
    assert not any(p.requires_grad for p in vit.parameters())


def test_new_self_attention_blocks_keep_the_shape(vit: FrozenViT) -> None:
    lens = build_lens(SelfAttentionConfig(depth=2, heads=4), input_width=32, vit=vit)
    assert lens(torch.randn(2, 5, 32)).shape == (2, 5, 32)


@pytest.mark.parametrize("config", [IdentityConfig(), SelfAttentionConfig(depth=3, heads=2), PerceiverConfig(depth=3, tied=True)])
def test_configurations_survive_json(config: IdentityConfig | SelfAttentionConfig | PerceiverConfig) -> None:
    assert lens_config_from_dict(lens_config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "named"), [({"kind": "telescope"}, "telescope"), ({"kind": "perceiver", "dept": 2}, "dept"), ({}, "None")]
)
def test_unknown_configurations_are_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        lens_config_from_dict(values)


def test_widths_that_do_not_fit_are_refused(vit: FrozenViT) -> None:
    with pytest.raises(OptionError, match="found 12, the ViT takes 32"):
        build_lens(IdentityConfig(), input_width=12, vit=vit)
    with pytest.raises(OptionError, match="not divisible by 5 heads"):
        build_lens(SelfAttentionConfig(heads=5), input_width=32, vit=vit)
    with pytest.raises(OptionError, match="perceiver lens: width 32 is not divisible by head_width 12"):
        build_lens(PerceiverConfig(head_width=12), input_width=12, vit=vit)


def test_pretrained_blocks_come_with_their_arguments_and_their_limit() -> None:
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
    clip = build_vit(ViTSpec("clip_vision_model", library="huggingface", config={**small, "patch_size": 8}))
    lens = build_lens(SelfAttentionConfig(depth=2, pretrained=True), input_width=32, vit=clip)
    assert lens(torch.randn(2, 5, 32)).shape == (2, 5, 32)
    with pytest.raises(OptionError, match="found 2 blocks"):
        build_lens(SelfAttentionConfig(depth=3, pretrained=True), input_width=32, vit=clip)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"depth": 0}, "depth must be a whole number from 1 to 1000, found 0"),
        ({"latents": 0}, "latents must be a whole number from 1 to 65536, found 0"),
        ({"self_per_cross": -1}, "self_per_cross must be a whole number from 0 to 1000, found -1"),
        ({"tied": 1}, "tied must be true or false, found 1"),
    ],
)
def test_perceivers_that_cannot_be(values: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=f"lens perceiver: {named}"):
        PerceiverConfig(**values)
