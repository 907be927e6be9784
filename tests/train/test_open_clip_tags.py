"""Anchors by open_clip tag give what open_clip gives with its own configuration of the tag, or say why they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from torch import nn

import vitlens
from tests.train.tiny import tiny_recipe
from vitlens.encoder import LensEncoder
from vitlens.errors import ModelError, OptionError
from vitlens.model import ViTLens
from vitlens.train.open_clip_tags import open_clip_card
from vitlens.train.start import anchor_spec, load_anchors, with_new_encoder

ARCHITECTURE = "tiny-tag-test"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 48, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PLAIN = {"hf_hub": "me/tiny/", "mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
TAGS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "quick": {**PLAIN, "quick_gelu": True},
    "half": {**PLAIN, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "smooth_squash": {**PLAIN, "interpolation": "bilinear", "resize_mode": "squash", "quick_gelu": True},
}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """open_clip knows a small architecture with tags; its weights lie in a folder."""
    file = tmp_path / f"{ARCHITECTURE}.json"
    file.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(file)
    monkeypatch.setitem(_PRETRAINED, ARCHITECTURE, TAGS)
    torch.manual_seed(5)
    model = open_clip.create_model(ARCHITECTURE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    return tmp_path


def anchors(folder: Path, tag: str) -> ViTLens:
    recipe = tiny_recipe(folder, f"anchors.model=open_clip/{ARCHITECTURE}/{tag}", f"anchors.weights={folder}")
    model = load_anchors(recipe)
    assert model.spec.to_dict() == {**anchor_spec(recipe).to_dict(), "logit_scale": model.spec.logit_scale}
    return model


def theirs(folder: Path, tag: str) -> nn.Module:
    quick = bool(TAGS[tag].get("quick_gelu"))
    model = open_clip.create_model(ARCHITECTURE, force_quick_gelu=quick).eval()
    model.load_state_dict(torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True))
    return model


@pytest.fixture(scope="module")
def picture() -> PIL.Image.Image:
    rng = np.random.default_rng(0)
    return PIL.Image.fromarray(rng.integers(0, 256, (70, 120, 3), dtype=np.uint8))


@pytest.mark.parametrize("tag", TAGS)
@torch.no_grad()
def test_towers_and_preprocessing_are_those_of_the_tag(tag: str, weights: Path, picture: PIL.Image.Image, tmp_path: Path) -> None:
    own, model = TAGS[tag], theirs(weights, tag)
    prepare = open_clip.image_transform(
        48, False, own["mean"], own["std"], resize_mode=own["resize_mode"], interpolation=own["interpolation"]
    )
    pixels, words = prepare(picture)[None], open_clip.get_tokenizer("ViT-B-32")(["a toy car", "a drum"])
    ours = anchors(weights, tag)
    again = vitlens.load(ours.save_pretrained(tmp_path / "saved"), device="cpu")
    for one in (ours, again):
        image = one.modality("image")
        torch.testing.assert_close(image.transform(image.load(picture))[None], pixels, atol=1e-6, rtol=0)
        found = one.encode({"image": [picture], "text": ["a toy car", "a drum"]}, normalize=False)
        torch.testing.assert_close(found["image"], model.encode_image(pixels), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found["text"], model.encode_text(words), atol=1e-5, rtol=1e-4)
        video = one.modality("video").options()
        assert {name: video[name] for name in image.options()} == image.options()


def test_activation_matters(weights: Path, picture: PIL.Image.Image) -> None:
    plain, quick = (anchors(weights, tag).encode({"image": [picture]})["image"] for tag in ("plain", "quick"))
    assert (plain - quick).abs().max() > 1e-3


def test_a_lens_in_front_of_such_anchors_looks_through_the_tags_own_vit(weights: Path) -> None:
    recipe = tiny_recipe(weights, f"anchors.model=open_clip/{ARCHITECTURE}/quick", f"anchors.weights={weights}")
    model = with_new_encoder(load_anchors(recipe), recipe)
    image, depth = (model.encoders[name] for name in ("image", "depth"))
    assert isinstance(image, LensEncoder) and isinstance(depth, LensEncoder)
    tokens = torch.randn(1, image.vit.patches, image.vit.width)
    assert torch.equal(image.vit(tokens), depth.vit(tokens))
    assert depth.vit.get_parameter("blocks.0.mlp.c_fc.weight") is image.vit.get_parameter("blocks.0.mlp.c_fc.weight")


def test_one_tag_has_one_space_however_it_is_written(weights: Path) -> None:
    first, second = (open_clip_card(f"open_clip/{ARCHITECTURE}/{tag}").spec for tag in ("smooth_squash", "Smooth-Squash"))
    assert first == second and first.space.name == f"open_clip/{ARCHITECTURE}/smooth_squash"


def test_both_files_that_open_clip_keeps_weights_in_are_found(weights: Path) -> None:
    from safetensors.torch import save_file

    file = weights / "open_clip_pytorch_model.bin"
    save_file(torch.load(file, weights_only=True), weights / "open_clip_model.safetensors")
    before = anchors(weights, "plain").state_dict()
    file.unlink()
    after = anchors(weights, "plain").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    (weights / "open_clip_model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"open_clip_pytorch_model\.bin or open_clip_model\.safetensors of the Hub repository me/tiny"
    ):
        anchors(weights, "plain")


OPTIONS = {
    "ViT-B-16/openai": ({}, True),
    "ViT-B-16/metaclip_400m": ({}, True),
    "ViT-L-14/dfn2b": ({}, True),
    "ViT-B-16/datacomp_xl_s13b_b90k": ({}, False),
    "ViT-B-16-quickgelu/openai": ({}, True),
    "ViT-L-14/laion2b_s32b_b82k": ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}, False),
    "ViT-L-14-336/openai": ({"size": 336}, True),
    "ViT-B-16-plus-240/laion400m_e32": ({"size": 240}, False),
    "ViT-H-14-378/dfn5b": ({"size": 378, "resize_mode": "squash"}, True),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_public_tags_say_how_they_were_trained(name: str) -> None:
    from vitlens.clip import clip_config

    options, quick = OPTIONS[name]
    spec = open_clip_card(f"open_clip/{name}").spec
    assert dict(spec.encoders[0].options) == options
    assert bool(clip_config(spec.encoders[0].vit).get("quick_gelu")) is quick
    assert spec.text == spec.encoders[0].vit


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-B-16-SigLIP/webli", "its image tower is timm's vit_base_patch16_siglip_224"),
        ("ViT-B-16-SigLIP2/webli", "its image tower is timm's vit_base_patch16_siglip_224"),
        ("EVA02-B-16/merged2b_s8b_b131k", "its image tower is timm's eva02_base_patch16_clip_224"),
        ("MobileCLIP-S1/datacompdr", "its image tower is timm's fastvit_mci1"),
        ("MobileCLIP2-B/dfndr2b", "its image tower is timm's vit_base_mci_224"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "it is a CoCa"),
        ("RN50/openai", "its image tower is a ResNet"),
        ("convnext_base/laion400m_s13b_b51k", "timm's convnext_base"),
        ("roberta-ViT-B-32/laion2b_s12b_b32k", "its text tower is roberta-base of transformers"),
        ("ViT-L-14-CLIPA/datacomp1b", "its text tower has what plain CLIP does not"),
        ("ViT-H-14-worldwide/metaclip2_worldwide", "its text tower has what plain CLIP does not"),
        ("PE-Core-B-16/meta", "its image tower is timm's"),
        ("ViT-B-16/nobody", "knows no such tag of ViT-B-16; it knows openai, laion400m_e31"),
        ("ViT-Z/openai", "knows no architecture 'ViT-Z'"),
        ("ViT-B-16", "write it as open_clip/ARCHITECTURE/TAG"),
        ("ViT-B-16/", "write it as open_clip/ARCHITECTURE/TAG"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        anchor_spec(tiny_recipe(tmp_path, f"anchors.model=open_clip/{name}"))
    assert reason in str(caught.value)


def test_every_tag_of_open_clip_fits_or_is_refused_in_words() -> None:
    refused = []
    for architecture, tags in _PRETRAINED.items():
        for tag in tags:
            try:
                open_clip_card(f"open_clip/{architecture}/{tag}")
            except OptionError as error:
                refused.append(str(error))
    assert refused and all("cannot be used: it" in told for told in refused)
    assert len(refused) < sum(map(len, _PRETRAINED.values())) - 60
