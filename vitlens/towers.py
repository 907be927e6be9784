"""Towers: building ViTs and text towers by their spec, and viewing those of open_clip, timm and Hugging Face as a FrozenViT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from vitlens.clip import clip_config, clip_text, clip_vit
from vitlens.embed import PatchEmbed
from vitlens.errors import MissingDependencyError, OptionError
from vitlens.text_tower import TextTower, from_open_clip_text
from vitlens.vit import FrozenViT, HostViT, ViT, ViTSpec
from vitlens.vit_blocks import with_our_attention


def build_vit(spec: ViTSpec) -> ViT:
    """Build the ViT `spec` names, weights as the library initialises them (none under `torch.device("meta")`).

    Raises:
        OptionError: unknown architecture, or more blocks skipped than there are.
        MissingDependencyError: a Hugging Face tower without transformers.
    """
    vit = _BUILDERS[spec.library](spec)
    if spec.skip_blocks:
        if not 0 < spec.skip_blocks < len(vit.blocks):
            raise OptionError(f"{spec.name}: cannot skip {spec.skip_blocks} of {len(vit.blocks)} blocks")
        vit.blocks = nn.ModuleList(list(vit.blocks)[spec.skip_blocks :])
    return vit


def from_open_clip(visual: nn.Module) -> FrozenViT:
    """View an open_clip vision tower (`model.visual`), its own ViT or a timm trunk, as a FrozenViT; parameters are shared."""
    tower = cast(Any, visual)
    if hasattr(tower, "trunk"):
        return from_timm(tower.trunk, head=tower.head)
    if getattr(tower, "transformer", None) is None or tower.conv1 is None:
        raise OptionError(f"open_clip tower {type(visual).__name__} is not a ViT")
    if tower.attn_pool is not None or tower.pool_type not in ("tok", "avg"):
        raise OptionError(f"open_clip tower with pooling {tower.pool_type!r} or attentional pooling is not supported")
    width = tower.conv1.out_channels
    return FrozenViT(
        blocks=[with_our_attention(block) for block in tower.transformer.resblocks],
        width=width,
        head_width=width // tower.transformer.resblocks[0].attn.num_heads,
        patch_size=tower.conv1.kernel_size[0],
        image_size=_first(tower.image_size),
        class_token=tower.class_embedding,
        positions=tower.positional_embedding,
        norm_pre=tower.ln_pre,
        norm_post=tower.ln_post,
        norm_after_pool=tower.final_ln_after_pool,
        pool="token" if tower.pool_type == "tok" else "average",
        proj=tower.proj,
        patch=_patch_of(tower.conv1),
    )


def from_timm(trunk: nn.Module, *, head: nn.Module | None = None) -> FrozenViT:
    """View a timm ViT (plain or EVA) as a FrozenViT; `head` maps the pooled features to the embedding."""
    tower = cast(Any, trunk)
    for attribute in ("blocks", "patch_embed", "pos_embed"):
        if not hasattr(tower, attribute):
            raise OptionError(f"timm model {type(trunk).__name__} is not a ViT: it has no {attribute}")
    if not isinstance(tower.patch_embed.proj, nn.Conv2d):
        raise OptionError(f"timm model {type(trunk).__name__} has a patch embedding that is no single convolution")
    width = tower.embed_dim
    rope_module = getattr(tower, "rope", None)
    rope = None
    if rope_module is not None:
        rope = (
            rope_module.get_embed()
            if hasattr(rope_module, "feat_shape")
            else rope_module.get_embed(shape=tower.patch_embed.grid_size)
        )
    pool: Any = tower.attn_pool
    if pool is None:
        pool = "average" if tower.global_pool == "avg" else "token"
        if tower.global_pool not in ("avg", "token"):
            raise OptionError(f"timm model {type(trunk).__name__}: pooling {tower.global_pool!r} is not supported")
    return FrozenViT(
        blocks=tower.blocks,
        width=width,
        head_width=width // tower.blocks[0].attn.num_heads,
        patch_size=_first(tower.patch_embed.patch_size),
        image_size=_first(tower.patch_embed.img_size),
        class_token=tower.cls_token,
        registers=tower.reg_token,
        positions=tower.pos_embed,
        positions_cover_prefix=not tower.no_embed_class,
        norm_pre=tower.norm_pre,
        norm_post=tower.norm,
        pool=pool,
        head=nn.Sequential(tower.fc_norm, tower.head, head or nn.Identity()),
        rope=rope,
        rope_per_block=getattr(tower, "rope_mixed", False),
        patch=_patch_of(tower.patch_embed.proj),
    )


def from_huggingface(model: nn.Module) -> FrozenViT:
    """View a transformers vision tower (CLIP, SigLIP, BLIP-2 / InstructBLIP, ViT) as a FrozenViT; parameters are shared."""
    outer = cast(Any, model)
    tower = getattr(outer, "vision_model", outer)
    config, embeddings = tower.config, tower.embeddings
    encoder = getattr(tower, "encoder", tower)
    blocks = getattr(encoder, "layers", None)
    blocks = getattr(encoder, "layer", None) if blocks is None else blocks
    convolution = next((m for m in embeddings.modules() if isinstance(m, nn.Conv2d)), None)
    positions = next((p for n, p in embeddings.named_parameters() if "position_embedding" in n), None)
    norm_post = getattr(tower, "post_layernorm", None) or getattr(tower, "layernorm", None)
    if blocks is None or convolution is None or positions is None or norm_post is None:
        raise OptionError(f"transformers model {type(model).__name__} is not a ViT of a known shape")
    class_token = next((p for n, p in embeddings.named_parameters() if n in ("class_embedding", "cls_token")), None)
    projection = getattr(outer, "visual_projection", None)
    pooling_head = getattr(tower, "head", None) if getattr(tower, "use_head", False) else None
    return FrozenViT(
        blocks=blocks,
        width=config.hidden_size,
        head_width=config.hidden_size // config.num_attention_heads,
        patch_size=_first(config.patch_size),
        image_size=_first(config.image_size),
        class_token=class_token,
        positions=positions,
        norm_pre=getattr(tower, "pre_layrnorm", None),
        norm_post=norm_post,
        norm_after_pool=False,
        pool=pooling_head if pooling_head is not None else ("average" if class_token is None else "token"),
        head=projection,
        patch=_patch_of(convolution),
    )


def _build_open_clip(spec: ViTSpec) -> FrozenViT:
    return clip_vit(clip_config(spec)) or from_open_clip(build_open_clip(spec).visual)


def build_text_tower(spec: ViTSpec) -> TextTower:
    """The text tower of the open_clip architecture `spec` names.

    Raises:
        OptionError: the architecture is not open_clip's, or its text tower is not the plain CLIP one.
    """
    if spec.library != "open_clip":
        raise OptionError(f"a text tower comes from open_clip, not from {spec.library}")
    return clip_text(clip_config(spec)) or from_open_clip_text(build_open_clip(spec))


def build_open_clip(spec: ViTSpec) -> Any:
    """The whole open_clip model (vision and text tower) `spec` names, by open_clip itself, without pretrained weights.

    Raises:
        OptionError: unknown architecture.
    """
    from open_clip.model import CLIP, CustomTextCLIP

    config = clip_config(spec)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    return kind(**config)


def _build_timm(spec: ViTSpec) -> FrozenViT:
    import timm

    if not timm.is_model(spec.name):
        raise OptionError(f"timm knows no model {spec.name!r}; see timm.list_models()")
    options = {"num_classes": 0, **(spec.config or {})}
    trunk = timm.create_model(spec.name, pretrained=False, **options)
    if getattr(trunk, "rope", None) is not None:  # rotary tables are computed at birth: they need a real device
        with torch.device("cpu"):
            trunk = timm.create_model(spec.name, pretrained=False, **options)
    return from_timm(trunk)


def _build_huggingface(spec: ViTSpec) -> FrozenViT:
    try:
        import transformers
        from transformers import CONFIG_MAPPING, AutoModel, CLIPVisionModelWithProjection
    except ImportError as error:
        raise MissingDependencyError("Hugging Face vision towers need transformers: pip install 'vitlens[hf]'") from error
    if spec.name not in CONFIG_MAPPING:
        raise OptionError(f"transformers knows no model type {spec.name!r}")
    config = CONFIG_MAPPING[spec.name](**(spec.config or {}))
    if spec.name == "clip_vision_model" and "projection_dim" in (spec.config or {}):
        return from_huggingface(cast(Any, CLIPVisionModelWithProjection)(config))
    if spec.name in _WITHOUT_AUTO_MODEL:
        return from_huggingface(getattr(transformers, _WITHOUT_AUTO_MODEL[spec.name])(config))
    return from_huggingface(AutoModel.from_config(config))


def _build_host(spec: ViTSpec) -> HostViT:
    config, needed = spec.config or {}, ("width", "head_width", "patches", "patch_size")
    if set(config) - {"fingerprint"} != set(needed):
        raise OptionError(
            f"ViT of the host {spec.name}: config gives {', '.join(needed)}, found {', '.join(config) or 'nothing'}"
        )
    return HostViT(name=spec.name, **config)


_WITHOUT_AUTO_MODEL = {
    "blip_2_vision_model": "Blip2VisionModel",
    "blip_vision_model": "BlipVisionModel",
    "instructblip_vision_model": "InstructBlipVisionModel",
}
"""Vision towers of chat models, which transformers builds by their class only."""

_BUILDERS: dict[str, Callable[[ViTSpec], ViT]] = {
    "open_clip": _build_open_clip,
    "timm": _build_timm,
    "huggingface": _build_huggingface,
    "host": _build_host,
}


def _patch_of(convolution: nn.Conv2d) -> PatchEmbed:
    with torch.device("meta"):
        patch = PatchEmbed(
            channels=convolution.in_channels,
            width=convolution.out_channels,
            patch=_first(convolution.kernel_size),
            stride=_first(convolution.stride),
            bias=convolution.bias is not None,
        )
    patch.conv1 = convolution
    return patch


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)
