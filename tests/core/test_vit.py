"""FrozenViT gives what the wrapped tower itself gives, for every library; freezing, forking, positions, checkpointing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vitlens.errors import ModelError, OptionError
from vitlens.towers import build_open_clip, build_vit, from_huggingface, from_open_clip, from_timm
from vitlens.vit import FrozenViT, Trainable, ViTSpec, resize_positions

CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
PICTURE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tiny() -> FrozenViT:
    torch.manual_seed(0)
    return build_vit(ViTSpec("tiny", config=CLIP)).eval()


def randomised(module: nn.Module) -> nn.Module:
    """Libraries initialise some weights to zero, which would hide a wrong wiring."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module.eval()


def through(vit: FrozenViT, picture: torch.Tensor = PICTURE) -> torch.Tensor:
    return vit(vit.patch_embedding()(picture))


@pytest.mark.parametrize(
    "vision",
    [{}, {"pool_type": "avg"}, {"pool_type": "avg", "final_ln_after_pool": True}, {"no_ln_pre": True}, {"ls_init_value": 0.1}],
)
@torch.no_grad()
def test_open_clip(vision: dict[str, Any]) -> None:
    config = {**CLIP, "vision_cfg": {**CLIP["vision_cfg"], **vision}}
    tower = randomised(build_open_clip(ViTSpec("tiny", config=config)).visual)
    assert torch.allclose(through(from_open_clip(tower).eval()), tower(PICTURE), atol=1e-5)


@torch.no_grad()
def test_open_clip_over_a_timm_trunk() -> None:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "avg", "timm_proj": "linear", "image_size": 224}
    tower = randomised(build_open_clip(ViTSpec("tiny", config={**CLIP, "vision_cfg": vision})).visual)
    vit = from_open_clip(tower).eval()
    picture = torch.randn(1, 3, 224, 224)
    assert vit.embed_dim == 16
    assert torch.allclose(through(vit, picture), tower(picture), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": True}),
        ("vit_tiny_patch16_224", {"reg_tokens": 3, "no_embed_class": True}),
        ("vit_base_patch16_siglip_224", {"embed_dim": 48, "depth": 2, "num_heads": 2}),
        ("eva02_tiny_patch14_224", {}),
        ("eva_giant_patch14_224", {"embed_dim": 48, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}),
    ],
)
@torch.no_grad()
def test_timm(name: str, options: dict[str, Any]) -> None:
    import timm

    size = 28 if "patch14" in name else 32
    trunk = randomised(timm.create_model(name, pretrained=False, img_size=size, num_classes=0, **options))
    picture = torch.randn(2, 3, size, size)
    assert torch.allclose(through(from_timm(trunk).eval(), picture), trunk(picture), atol=1e-4)


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


@torch.no_grad()
def test_huggingface_clip() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = randomised(CLIPVisionModelWithProjection(CLIPVisionConfig(**SMALL, projection_dim=16)))
    assert torch.allclose(through(from_huggingface(model).eval()), model(PICTURE).image_embeds, atol=1e-5)


@torch.no_grad()
def test_huggingface_siglip() -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    model = randomised(SiglipVisionModel(SiglipVisionConfig(**SMALL)))
    assert torch.allclose(through(from_huggingface(model).eval()), model(PICTURE).pooler_output, atol=1e-5)


@torch.no_grad()
def test_huggingface_instructblip_tokens() -> None:
    from transformers import InstructBlipVisionConfig, InstructBlipVisionModel

    model = randomised(InstructBlipVisionModel(InstructBlipVisionConfig(**SMALL)))
    vit = from_huggingface(model).eval()
    tokens = vit.norm_post(vit.forward_tokens(vit.patch_embedding()(PICTURE)))
    assert torch.allclose(tokens, model(PICTURE).last_hidden_state, atol=1e-5)


@torch.no_grad()
def test_huggingface_vit() -> None:
    from transformers import ViTConfig, ViTModel

    model = randomised(ViTModel(ViTConfig(**SMALL), add_pooling_layer=False))
    vit = from_huggingface(model).eval()
    assert torch.allclose(through(vit), model(PICTURE).last_hidden_state[:, 0], atol=1e-5)


def test_a_spec_builds_each_library() -> None:
    timm = ViTSpec("vit_tiny_patch16_224", library="timm", config={"depth": 1})
    clip = ViTSpec("clip_vision_model", library="huggingface", config={**SMALL, "projection_dim": 16})
    assert [build_vit(spec).embed_dim for spec in (timm, clip, ViTSpec("tiny", config=CLIP))] == [192, 16, 16]


@pytest.mark.parametrize("library", ["open_clip", "timm", "huggingface"])
def test_unknown_architectures_are_named(library: Any) -> None:
    with pytest.raises(OptionError, match="no-such-vit"):
        build_vit(ViTSpec("no-such-vit", library=library))


def test_a_convolutional_tower_is_refused() -> None:
    import timm

    with pytest.raises(OptionError, match="not a ViT"):
        from_timm(timm.create_model("resnet18", pretrained=False))


def test_a_host_vit_knows_its_geometry_only() -> None:
    host = {"width": 32, "head_width": 16, "patches": 16, "patch_size": 8}
    vit = build_vit(ViTSpec("EVA in a host", library="host", config=host))
    assert vit.geometry == tiny().geometry  # what a ModEmbed and a lens rely on, of this ViT as of one with weights
    assert (vit.width, vit.head_width, vit.patches, vit.patch_size, vit.image_size) == (32, 16, 16, 8, 32)
    with pytest.raises(ModelError, match="EVA in a host"):
        vit(torch.zeros(1, 16, 32))
    with pytest.raises(OptionError, match="EVA in a host is not known here"):
        vit.patch_embedding()


@pytest.mark.parametrize(
    ("change", "told"), [({"width": 0}, "width must be a whole number of 1"), ({"depth": 3}, "config gives width, head_width")]
)
def test_a_host_vit_of_no_sense_is_refused(change: dict[str, int], told: str) -> None:
    host = {"width": 32, "head_width": 16, "patches": 16, "patch_size": 8, **change}
    with pytest.raises(OptionError, match=told):
        build_vit(ViTSpec("EVA in a host", library="host", config=host))


def test_skipped_blocks_are_the_first_and_the_rest_is_renumbered() -> None:
    whole = tiny()
    torch.manual_seed(0)
    cut = build_vit(ViTSpec("tiny", config=CLIP, skip_blocks=2))
    assert len(cut.blocks) == 1
    assert torch.equal(cut.blocks[0].mlp.c_fc.weight, whole.blocks[2].mlp.c_fc.weight)
    with pytest.raises(OptionError, match="cannot skip 3 of 3"):
        build_vit(ViTSpec("tiny", config=CLIP, skip_blocks=3))


def trained(vit: FrozenViT) -> set[str]:
    return {name for name, parameter in vit.named_parameters() if parameter.requires_grad}


def test_freeze_plans_name_exactly_what_trains() -> None:
    vit = tiny()
    assert trained(vit) == set()
    assert trained(vit.freeze(but=Trainable(class_token=True))) == {"class_token"}
    assert trained(vit.freeze(but=Trainable(positions=True, norm_pre=True))) == {"positions", "norm_pre.weight", "norm_pre.bias"}
    assert {n.split(".")[1] for n in trained(vit.freeze(but=Trainable(first_blocks=1, last_blocks=1)))} == {"0", "2"}
    assert len(trained(vit.freeze(but=Trainable(everything=True)))) == len(list(vit.parameters()))


def test_a_fork_shares_what_is_frozen_and_owns_what_trains() -> None:
    vit = tiny()
    fork = vit.fork(Trainable(class_token=True, first_blocks=1))
    assert fork.class_token is not vit.class_token
    assert fork.blocks[0].mlp.c_fc.weight is not vit.blocks[0].mlp.c_fc.weight
    assert fork.blocks[1].mlp.c_fc.weight is vit.blocks[1].mlp.c_fc.weight
    with torch.no_grad():
        fork.class_token.add_(1)
    assert not torch.equal(fork.class_token, vit.class_token)
    assert trained(vit) == set()


def test_gradients_reach_the_tokens_but_not_the_frozen_weights() -> None:
    vit = tiny()
    tokens = torch.randn(2, 16, 32, requires_grad=True)
    vit(tokens).sum().backward()
    assert tokens.grad is not None
    assert float(tokens.grad.abs().sum()) > 0
    assert all(p.grad is None for p in vit.parameters())


def test_gradient_checkpointing_changes_no_number() -> None:
    vit = tiny()
    grads = []
    for recompute in (False, True):
        vit.gradient_checkpointing = recompute
        tokens = torch.ones(2, 16, 32, requires_grad=True)
        vit(tokens).square().sum().backward()
        grads.append(tokens.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("count", [1, 4, 9, 10, 16, 25, 300])
def test_positions_fit_any_number_of_tokens(count: int) -> None:
    assert tiny()(torch.randn(2, count, 32)).shape == (2, 16)


def test_resized_positions_keep_the_prefix_and_the_picture() -> None:
    grid = torch.linspace(0, 1, 8)
    plane = (grid[:, None] + 2 * grid[None, :]).reshape(64, 1)
    positions = torch.cat([torch.full((1, 1), 7.0), plane])
    assert resize_positions(positions, 64, prefix=1) is positions
    smaller = resize_positions(positions, 16, prefix=1)
    assert smaller[0].item() == 7.0
    rows = smaller[1:].reshape(4, 4)
    assert bool((rows.diff(dim=0) > 0).all())
    assert bool((rows.diff(dim=1) > 0).all())
    assert smaller[1:].mean().item() == pytest.approx(plane.mean().item(), abs=1e-3)
    with pytest.raises(OptionError, match="not a square grid"):
        resize_positions(torch.zeros(6, 4), 9, prefix=0)


def test_rotary_towers_refuse_another_number_of_tokens() -> None:
    vit = build_vit(ViTSpec("eva02_tiny_patch14_224", library="timm", config={"img_size": 28, "depth": 1}))
    with pytest.raises(OptionError, match="rotary positions for 4 tokens, found 5"):
        vit(torch.zeros(1, 5, vit.width))
