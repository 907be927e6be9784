"""CLIP's towers of our own give what open_clip's give, with its keys; attention is torch's, computed our way."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from vitlens.clip import clip_config, clip_text, clip_vit
from vitlens.errors import OptionError
from vitlens.text_tower import from_open_clip_text
from vitlens.towers import build_open_clip, build_text_tower, build_vit, from_open_clip
from vitlens.vit import ViTSpec
from vitlens.vit_blocks import Attention, with_our_attention

CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2},
}
PICTURE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
WORDS = torch.tensor([[1, 5, 9, 63, 0, 0, 0, 0], [2, 3, 4, 5, 6, 7, 8, 63]])


def changed(vision: dict[str, Any], text: dict[str, Any] | None = None, **whole: Any) -> dict[str, Any]:
    return {**CLIP, **whole, "vision_cfg": {**CLIP["vision_cfg"], **vision}, "text_cfg": {**CLIP["text_cfg"], **(text or {})}}


def randomised(module: nn.Module) -> nn.Module:
    """Libraries initialise some weights to zero or one, which would hide a wrong wiring."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize(
    "config",
    [
        CLIP,
        changed({"pool_type": "avg", "final_ln_after_pool": True, "mlp_ratio": 2.5}, {"mlp_ratio": 3}),
        changed({"no_ln_pre": True, "ls_init_value": 0.1, "image_size": [32, 32]}, {"ls_init_value": 0.1}, quick_gelu=True),
        changed({"norm_kwargs": {"eps": 1e-3}, "patch_dropout": 0.5}, {"norm_kwargs": {"eps": 1e-2}}, custom_text=True),
    ],
)
@torch.no_grad()
def test_our_towers_give_what_open_clips_give(config: dict[str, Any]) -> None:
    theirs = randomised(build_open_clip(ViTSpec("tiny", config=config)))
    for ours, view, inputs in (
        (clip_vit(config), from_open_clip(theirs.visual), PICTURE),
        (clip_text(config), from_open_clip_text(theirs), WORDS),
    ):
        assert ours is not None and list(ours.state_dict()) == list(view.state_dict())
        ours.load_state_dict(view.state_dict())
        if inputs is PICTURE:
            patch = view.patch_embedding()
            found, again, expected = ours(patch(inputs)), view(patch(inputs)), theirs.encode_image(inputs)
        else:
            found, again, expected = ours.eval()(inputs), view(inputs), theirs.encode_text(inputs)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(again, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "vision", [{"attentional_pool": True}, {"qk_norm": True}, {"block_type": "custom"}, {"act_kwargs": {"approximate": "tanh"}}]
)
def test_what_is_not_plain_is_left_to_open_clip(vision: dict[str, Any]) -> None:
    assert clip_vit(changed(vision)) is None
    assert clip_text(changed(vision)) is not None


@pytest.mark.parametrize("text", [{"pool_type": "last"}, {"embed_cls": True}, {"proj_bias": True}, {"no_causal_mask": True}])
def test_a_text_tower_that_is_not_plain_is_left_to_open_clip(text: dict[str, Any]) -> None:
    assert clip_text(changed({}, text)) is None


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14", "ViT-bigG-14", "ViT-B-32-quickgelu", "ViT-L-14-336"])
def test_shipped_architectures_have_the_shapes_of_open_clips(name: str) -> None:
    spec = ViTSpec(name)
    with torch.device("meta"):
        theirs = build_open_clip(spec)
        pairs = ((build_vit(spec), from_open_clip(theirs.visual)), (build_text_tower(spec), from_open_clip_text(theirs)))
    for ours, view in pairs:
        assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in view.state_dict().items()}
    assert pairs[0][0].geometry == pairs[0][1].geometry


def test_unknown_architectures_are_named() -> None:
    with pytest.raises(OptionError, match="'ViT-Z-99'"):
        clip_config(ViTSpec("ViT-Z-99"))


def test_a_start_imports_no_library_that_it_does_not_need() -> None:
    """Each of them takes seconds: those of towers, torch's compiler, and those of other sensors."""
    code = """
import sys, vitlens
vitlens.load("vitlens-tiny-random", modalities=["audio", "image"], device="cpu")
model = vitlens.load("vitlens-toybox", modalities=["text", "audio"], device="cpu")
model.encode({"text": ["a red ball"], "audio": [model.modality("audio").example()]})
slow = {"open_clip", "timm", "transformers", "torchvision", "torch._dynamo", "mne", "open3d"}
print(*slow & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


# --- attention ---------------------------------------------------------------------------------------------------------


def attention(heads: int = 4, **options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(32, heads, batch_first=True, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made.requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
def test_attention_is_torchs(bias: bool) -> None:
    theirs = attention(bias=bias)
    ours, x, y = Attention.of(theirs), torch.randn(2, 9, 32), torch.randn(2, 5, 32)
    mask = torch.full((9, 9), float("-inf")).triu(1)
    for given, options in (((x, x, x), {}), ((x, x, x), {"attn_mask": mask}), ((x, y, y), {}), ((x, y, 2 * y), {})):
        expected = theirs(*given, need_weights=False, **options)[0]
        torch.testing.assert_close(ours(*given, need_weights=False, **options)[0], expected, atol=1e-5, rtol=1e-5)
    assert all(a is b for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_gradients_to_the_tokens_are_torchs() -> None:
    theirs, x = attention().double(), torch.randn(2, 9, 32, dtype=torch.float64)
    gradients = []
    for module in (theirs, Attention.of(theirs)):
        tokens = x.clone().requires_grad_(True)
        module(tokens, tokens, tokens, need_weights=False)[0].square().sum().backward()
        gradients.append(tokens.grad)
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-10)


def test_under_autocast_tokens_keep_their_dtype_and_the_mask_follows() -> None:
    text = clip_text(CLIP)
    assert text is not None
    randomised(text)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = text(WORDS)
    with torch.no_grad():
        full = text(WORDS)
    assert torch.nn.functional.cosine_similarity(low.float(), full).min() > 0.999


def test_a_foreign_block_keeps_its_own_attention_while_ours_is_used() -> None:
    from open_clip.transformer import ResidualAttentionBlock

    block = ResidualAttentionBlock(32, 4).eval()
    view = with_our_attention(block)
    assert type(block.attn) is nn.MultiheadAttention and type(view.attn) is Attention
    assert [k for k, _ in view.named_parameters()] == [k for k, _ in block.named_parameters()]
    assert all(a is b for a, b in zip(view.parameters(), block.parameters(), strict=True))
    assert type(deepcopy(view).attn) is Attention
    plain = nn.Linear(2, 2)
    assert with_our_attention(plain) is plain


def test_attention_that_is_not_plain_stays_torchs() -> None:
    for theirs in (attention(kdim=16), attention(add_zero_attn=True), attention(add_bias_kv=True), attention(dropout=0.1)):
        assert with_our_attention(theirs) is theirs
    assert with_our_attention(nn.MultiheadAttention(32, 4)).batch_first is False
