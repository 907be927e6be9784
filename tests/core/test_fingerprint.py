"""Fingerprints tell one ViT from another, whatever library holds it and in whatever precision."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import vitlens
from vitlens.benchmarks.toybox.training.huggingface import blip_vision, clip_vision
from vitlens.fingerprint import SAME, ViTFingerprint, canonical_block, fingerprint
from vitlens.towers import build_vit, from_huggingface
from vitlens.vit import FrozenViT, ViTSpec


@pytest.fixture(scope="module")
def vit() -> FrozenViT:
    return vitlens.load("vitlens-toybox", modalities=["image"]).tower("image").vit


@pytest.mark.parametrize("convert", [clip_vision, blip_vision])
def test_the_same_vit_in_another_library_is_the_same(convert: object, vit: FrozenViT) -> None:
    other = from_huggingface(convert(vitlens.load("vitlens-toybox", modalities=["image"])))  # type: ignore[operator]
    assert fingerprint(other).distance(fingerprint(vit)) == 0


def test_rounding_is_not_another_vit(vit: FrozenViT) -> None:
    rounded = fingerprint(copy.deepcopy(vit).bfloat16())
    assert 0 < rounded.distance(fingerprint(vit)) < SAME
    assert rounded.differing(fingerprint(vit), rounded.parts) == []


def test_a_fine_tuned_part_is_named(vit: FrozenViT) -> None:
    tuned = copy.deepcopy(vit)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.blocks[3].parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * 0.03)
    found = fingerprint(tuned)
    assert found.differing(fingerprint(vit), found.parts) == ["blocks.3"]
    assert found.distance(fingerprint(vit)) == pytest.approx(0.03, rel=0.5)


def test_the_same_directions_of_another_length_are_another_vit(vit: FrozenViT) -> None:
    longer = copy.deepcopy(vit)
    with torch.no_grad():
        longer.blocks[1].mlp.c_fc.weight.mul_(1.2)  # type: ignore[union-attr, operator]
    assert fingerprint(longer).differing(fingerprint(vit), ["blocks.0", "blocks.1"]) == ["blocks.1"]


def test_unrelated_weights_are_far_apart_and_other_depths_infinitely() -> None:
    spec = ViTSpec("vit_tiny_patch16_224", library="timm", config={"img_size": 32, "depth": 2})
    one, two = fingerprint(build_vit(spec)), fingerprint(build_vit(spec))
    assert 0.3 < one.distance(two, ["blocks.0"]) < 3
    deeper = ViTSpec("vit_tiny_patch16_224", library="timm", config={"img_size": 32, "depth": 3})
    assert fingerprint(build_vit(deeper)).distance(one) == math.inf
    assert ViTFingerprint({}).distance(ViTFingerprint({})) == 0


def test_packings_of_attention_come_down_to_one() -> None:
    """EVA's separate query and value biases, transformers' joined ones, CLIP's three projections."""
    torch.manual_seed(0)
    joined, parted, three = (nn.Module() for _ in range(3))
    weight, query, value = torch.randn(12, 4), torch.randn(4), torch.randn(4)
    for module, attention in ((joined, "self_attn"), (parted, "attn"), (three, "self_attn")):
        module.add_module(attention, nn.Module())
    joined.self_attn.qkv = nn.Linear(4, 12)
    joined.self_attn.qkv.weight.data, joined.self_attn.qkv.bias.data = weight, torch.cat([query, torch.zeros(4), value])
    parted.attn.qkv = nn.Linear(4, 12, bias=False)
    parted.attn.qkv.weight.data = weight
    parted.attn.q_bias, parted.attn.v_bias = nn.Parameter(query), nn.Parameter(value)
    for name, rows, bias in zip("qkv", weight.chunk(3), (query, torch.zeros(4), value), strict=True):
        three.self_attn.add_module(f"{name}_proj", nn.Linear(4, 4))
        three.self_attn.get_submodule(f"{name}_proj").weight.data = rows
        three.self_attn.get_submodule(f"{name}_proj").bias.data = bias
    found = [canonical_block(module) for module in (joined, parted, three)]
    assert [sorted(one) for one in found] == [["attn.qkv.bias", "attn.qkv.weight"]] * 3
    for one in found[1:]:
        assert all(torch.equal(one[key], found[0][key]) for key in one)
