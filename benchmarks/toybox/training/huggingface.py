"""The Toybox's image tower as transformers' own classes: what hosts and pipelines of that world take for a vision tower."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlens.encoder import LensEncoder
from vitlens.model import ViTLens
from vitlens.vit import FrozenViT

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""open_clip's names inside a block -> transformers'."""


def clip_vision(model: ViTLens) -> Any:
    """The image tower as a CLIPVisionModelWithProjection: pixels [b, 3, 64, 64] -> the same embedding [b, E], and all tokens."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tower = cast(LensEncoder, model.tower("image"))
    vit = cast(FrozenViT, tower.vit)
    config = CLIPVisionConfig(
        **vision_numbers(vit), projection_dim=vit.embed_dim, hidden_act="gelu", layer_norm_eps=1e-5, attention_dropout=0.0
    )
    out = cast(Any, CLIPVisionModelWithProjection)(config)
    state = {
        "vision_model.embeddings.class_embedding": cast(Tensor, vit.class_token),
        "vision_model.embeddings.patch_embedding.weight": cast(Any, tower.embed).conv1.weight,
        "vision_model.embeddings.position_embedding.weight": cast(Tensor, vit.positions),
        "visual_projection.weight": cast(Tensor, vit.proj).T,
    }
    state |= _named("vision_model.pre_layrnorm", vit.norm_pre) | _named("vision_model.post_layernorm", vit.norm_post)
    for index, block in enumerate(vit.blocks):
        prefix = f"vision_model.encoder.layers.{index}"
        state |= block_state(block, prefix)
        weights, biases = cast(Any, block).attn.in_proj_weight.chunk(3), cast(Any, block).attn.in_proj_bias.chunk(3)
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
            state |= {f"{prefix}.self_attn.{name}.weight": weight, f"{prefix}.self_attn.{name}.bias": bias}
        state |= _named(f"{prefix}.self_attn.out_proj", cast(Any, block).attn.out_proj)
    out.load_state_dict({key: value.detach().float() for key, value in state.items()})
    return out.eval().requires_grad_(False)


def blip_vision(model: ViTLens) -> Any:
    """The image tower as InstructBLIP's vision model, frozen: pixels [b, 3, 64, 64] -> normalised tokens [b, 65, D].

    InstructBLIP's ViT has no norm before its blocks; CLIP's has, so it is put in.
    """
    from transformers import InstructBlipVisionConfig, InstructBlipVisionModel

    class ClipInBlip(InstructBlipVisionModel):
        """InstructBLIP's vision model with CLIP's norm before the blocks, named as in transformers' CLIP."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.embeddings.register_forward_hook(lambda _module, _inputs, out: self.pre_layrnorm(out))

    tower = cast(LensEncoder, model.tower("image"))
    vit = cast(FrozenViT, tower.vit)
    config = InstructBlipVisionConfig(**vision_numbers(vit), hidden_act="gelu", layer_norm_eps=1e-5, attention_dropout=0.0)
    out = ClipInBlip(config)
    state = {
        "embeddings.class_embedding": cast(Tensor, vit.class_token).view(1, 1, -1),
        "embeddings.patch_embedding.weight": cast(Any, tower.embed).conv1.weight,
        "embeddings.patch_embedding.bias": torch.zeros(vit.width),
        "embeddings.position_embedding": cast(Tensor, vit.positions).unsqueeze(0),
    }
    state |= _named("pre_layrnorm", vit.norm_pre) | _named("post_layernorm", vit.norm_post)
    for index, block in enumerate(vit.blocks):
        prefix, attention = f"encoder.layers.{index}", cast(Any, block).attn
        state |= block_state(block, prefix) | _named(f"{prefix}.self_attn.projection", attention.out_proj)
        state |= {f"{prefix}.self_attn.qkv.weight": attention.in_proj_weight}
        state |= {f"{prefix}.self_attn.qkv.bias": attention.in_proj_bias}
    out.load_state_dict({key: value.detach().float() for key, value in state.items()})
    return out.eval().requires_grad_(False)


def vision_numbers(vit: FrozenViT) -> dict[str, Any]:
    """The geometry of a ViT in the words of transformers' vision configurations."""
    return {
        "hidden_size": vit.width,
        "intermediate_size": cast(Any, vit.blocks[0]).mlp.c_fc.out_features,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": vit.width // vit.head_width,
        "image_size": vit.image_size,
        "patch_size": vit.patch_size,
    }


def block_state(block: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Norms and feed-forward of an open_clip block under transformers' names; attention is each class's own."""
    state: dict[str, Tensor] = {}
    for ours, theirs in _BLOCK.items():
        state |= _named(f"{prefix}.{theirs}", block.get_submodule(ours))
    return state


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": cast(torch.Tensor, value) for name, value in module.state_dict().items()}
