"""Anchors by open_clip tag: `open_clip/ViT-B-16/openai` as a model card that follows the tag's own configuration.

An architecture alone does not say how a tag was trained: OpenAI's, MetaCLIP's and DFN's have QuickGELU where the architecture's
file says GELU, some were shown pictures of another mean, or squashed ones. open_clip's pretrained configurations tell, and the
model's preprocessing then says so wherever it goes. Other towers than those of `vitlens.clip` are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitlens.cards import ModelCard, Weights
from vitlens.clip import clip_config, not_plain
from vitlens.encoder import EncoderSpec
from vitlens.errors import OptionError
from vitlens.modality import get_modality
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.vit import ViTSpec

PREFIX = "open_clip/"
IMAGE, TEXT = "image", "text"
"""The modality whose encoder holds the pretrained ViT, and the one with CLIP's other tower."""


def open_clip_card(name: str) -> ModelCard:
    """The card of anchors `open_clip/ARCHITECTURE/TAG`: towers, preprocessing and weights.

    Raises:
        OptionError: another form, no such architecture or tag, or towers that do not fit; says why.
    """
    architecture, tag = _parts(name)
    config = clip_config(ViTSpec(architecture))
    reason = not_plain(config)
    if reason is not None:
        raise OptionError(
            f"anchors.model {name!r} cannot be used: {reason}; take a plain CLIP, such as open_clip/ViT-B-16/openai"
        )
    tag, trained = _pretrained(name, architecture, tag)
    name = f"{PREFIX}{architecture}/{tag}"
    quick = bool(trained.get("quick_gelu")) and not config.get("quick_gelu")
    vit = ViTSpec(architecture, config={**config, "quick_gelu": True} if quick else None)
    spec = ModelSpec(
        name=name,
        space=EmbeddingSpace(name, config["embed_dim"]),
        encoders=(EncoderSpec(IMAGE, vit, options=_image_options(config, trained)),),
        text=vit,
        text_options=_text_options(architecture, config["text_cfg"]),
    )
    weights = Weights("open_clip", (IMAGE, TEXT), tag, layout="open_clip")
    return ModelCard(spec=spec, summary="", weights=(weights,), source=name)


def _parts(name: str) -> tuple[str, str]:
    parts = name.split("/")
    if len(parts) != 3 or not all(parts):
        raise OptionError(f"anchors.model {name!r}: write it as open_clip/ARCHITECTURE/TAG, such as open_clip/ViT-B-16/openai")
    return parts[1], parts[2]


def _pretrained(name: str, architecture: str, tag: str) -> tuple[str, Mapping[str, Any]]:
    """A tag as open_clip writes it, which takes it in capitals and with hyphens too, and its pretrained configuration."""
    import open_clip

    known = open_clip.list_pretrained_tags_by_model(architecture)
    tag = next((one for one in known if one == tag.lower().replace("-", "_")), "")
    if not tag:
        told = ", ".join(known) or "none"
        raise OptionError(f"anchors.model {name!r}: open_clip knows no such tag of {architecture}; it knows {told}")
    return tag, open_clip.get_pretrained_cfg(architecture, tag)


def _image_options(config: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """How the tag's pictures were prepared, as options of the modality image; only what is not its default."""
    size = config["vision_cfg"].get("image_size", 224)
    told = {
        "size": size[0] if isinstance(size, list | tuple) else size,
        "mean": tuple(trained["mean"]),
        "std": tuple(trained["std"]),
        "interpolation": trained["interpolation"],
        "resize_mode": trained["resize_mode"],
    }
    usual = get_modality(IMAGE).options()
    return {name: value for name, value in get_modality(IMAGE, **told).options().items() if value != usual[name]}


def _text_options(architecture: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    told = {"context_length": numbers.get("context_length", 77)}
    if numbers.get("hf_tokenizer_name"):
        told["tokenizer"] = architecture
    usual = get_modality(TEXT).options()
    return {name: value for name, value in told.items() if value != usual[name]}
