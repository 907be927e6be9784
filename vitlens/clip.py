"""CLIP's image and text towers, built from the numbers of open_clip's configurations without open_clip itself.

    {"embed_dim": 768, "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
     "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 12}}

A configuration that asks for more than the plain towers have (attentional pooling, a timm trunk ...) is left to open_clip.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitlens import checks
from vitlens.embed import PatchEmbed, normal
from vitlens.errors import OptionError
from vitlens.text_tower import TextTower
from vitlens.vit import MOST_BLOCKS, MOST_WIDTH, FrozenViT, ViTSpec
from vitlens.vit_blocks import Block, LayerNorm

Config = Mapping[str, Any]

BOTH: Config = {
    "layers": 12,
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "act_kwargs": None,
    "norm_kwargs": None,
    "output_tokens": False,
}
VISION: Config = {
    **BOTH,
    "width": 768,
    "head_width": 64,
    "patch_size": 16,
    "image_size": 224,
    "no_ln_pre": False,
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "patch_dropout": 0.0,
}
TEXT: Config = {**BOTH, "width": 512, "heads": 8, "context_length": 77, "vocab_size": 49408, "pool_type": "argmax"}
"""open_clip's defaults for what our towers have."""
ELSEWHERE = ("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "pad_id", "eos_id")
"""Fields of a text tower that concern its tokenizer, or another pooling."""
WHOLE = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias"}
"""Fields of a whole CLIP."""
WHOLE_NUMBERS = {
    "width": MOST_WIDTH,
    "layers": MOST_BLOCKS,
    "heads": 4096,
    "head_width": MOST_WIDTH,
    "patch_size": 4096,
    "image_size": 1 << 16,
    "context_length": 1 << 16,
    "vocab_size": 1 << 24,
}
"""Numbers of a tower, and their bounds."""
OFF = {"pos_embed_type": "learnable", "proj_type": "linear", "block_type": (None, "default")}
"""What fields that our towers do not have must say; the others must be off."""


def clip_config(spec: ViTSpec) -> dict[str, Any]:
    """The configuration of an open_clip architecture: the spec's own, else the one that open_clip ships.

    Raises:
        OptionError: unknown architecture.
    """
    config = spec.config or _shipped(spec.name) or _added(spec.name)
    if config is None:
        raise OptionError(f"open_clip knows no architecture {spec.name!r}; see open_clip.list_models()")
    for part in ("vision_cfg", "text_cfg"):
        checks.mapping(f"CLIP {spec.name}: {part}", config.get(part))
    checks.whole(f"CLIP {spec.name}: embed_dim", config.get("embed_dim"), least=1, most=MOST_WIDTH)
    return dict(config)


@cache
def _shipped(name: str) -> dict[str, Any] | None:
    found = find_spec("open_clip")  # does not import it, which takes seconds
    for folder in found.submodule_search_locations or () if found and name == Path(name).name else ():
        file = Path(folder) / "model_configs" / f"{name}.json"
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
    return None


def _added(name: str) -> dict[str, Any] | None:
    """What somebody gave open_clip beside its own; whoever did has imported it."""
    known = sys.modules.get("open_clip")
    return known.get_model_config(name) if known else None


def not_plain(config: Config) -> str | None:
    """Why the towers of a whole open_clip configuration are not both the plain ones of this file, under CLIP's own names of
    weights; None where they are."""
    vision, text = config.get("vision_cfg") or {}, config.get("text_cfg") or {}
    if "multimodal_cfg" in config:
        return "it is a CoCa, with attentional pooling and a text tower that also looks at pictures"
    if vision.get("timm_model_name"):
        return f"its image tower is timm's {vision['timm_model_name']}, no plain CLIP ViT"
    if not isinstance(vision.get("layers", 12), int):
        return "its image tower is a ResNet, no ViT"
    if text.get("hf_model_name"):
        return f"its text tower is {text['hf_model_name']} of transformers, no plain CLIP"
    if config.get("custom_text"):
        return "its text tower keeps its weights under names of its own (custom_text)"
    with torch.device("meta"):
        image_fits, text_fits = clip_vit(config) is not None, clip_text(config) is not None
    odd = [name for name, fits in (("image", image_fits), ("text", text_fits)) if not fits]
    return f"its {' and '.join(odd)} tower{'s have' if odd[1:] else ' has'} what plain CLIP does not" if odd else None


def clip_vit(config: Config) -> FrozenViT | None:
    """The image tower with new weights; None where it is none of the plain ones."""
    numbers = _plain(config, "vision_cfg", VISION)
    if numbers is None or not isinstance(numbers["layers"], int) or numbers["pool_type"] not in ("tok", "avg"):
        return None
    width, patch, image = numbers["width"], _side(numbers["patch_size"]), _side(numbers["image_size"])
    if patch is None or image is None:
        return None
    if width % numbers["head_width"] or patch > image:
        wrong = f"heads of {numbers['head_width']}, patches of {patch} pixels in pictures of {image}"
        raise OptionError(f"CLIP: vision_cfg: width {width} is cut into whole heads, pictures into patches; found {wrong}")
    norms = [LayerNorm(width, **(numbers["norm_kwargs"] or {})) for _ in range(2)]
    std = width**-0.5
    return FrozenViT(
        blocks=_blocks(numbers, heads=width // numbers["head_width"], quick_gelu=config.get("quick_gelu", False)),
        width=width,
        head_width=numbers["head_width"],
        patch_size=patch,
        image_size=image,
        class_token=normal(width, std=std),
        positions=normal((image // patch) ** 2 + 1, width, std=std),
        norm_pre=None if numbers["no_ln_pre"] else norms[0],
        norm_post=norms[1],
        norm_after_pool=numbers["final_ln_after_pool"],
        pool="token" if numbers["pool_type"] == "tok" else "average",
        proj=normal(width, config["embed_dim"], std=std),
        patch=PatchEmbed(channels=3, width=width, patch=patch),
    )


def clip_text(config: Config) -> TextTower | None:
    """The text tower with new weights, as CLIP draws them; None where it is none of the plain ones."""
    numbers = _plain(config, "text_cfg", TEXT)
    if numbers is None or numbers["pool_type"] != "argmax":
        return None
    width = numbers["width"]
    if width % numbers["heads"]:
        raise OptionError(f"CLIP: text_cfg: width {width} is no multiple of its {numbers['heads']} heads")
    blocks = _blocks(numbers, heads=numbers["heads"], quick_gelu=config.get("quick_gelu", False))
    residual = width**-0.5 * (2 * len(blocks)) ** -0.5
    for block in blocks:
        attention, mlp = block.attn, block.mlp
        for weight, std in (
            (attention.in_proj_weight, width**-0.5),
            (attention.out_proj.weight, residual),
            (mlp.c_fc.weight, (2 * width) ** -0.5),
            (mlp.c_proj.weight, residual),
        ):
            weight.data = normal(*weight.shape, std=std)
    return TextTower(
        token_embedding=nn.Embedding.from_pretrained(normal(numbers["vocab_size"], width, std=0.02), freeze=False),
        positions=normal(numbers["context_length"], width, std=0.01),
        blocks=nn.ModuleList(blocks),
        norm_final=LayerNorm(width, **(numbers["norm_kwargs"] or {})),
        projection=normal(width, config["embed_dim"], std=width**-0.5),
    )


def _blocks(numbers: Config, *, heads: int, quick_gelu: bool) -> list[Any]:
    width = numbers["width"]
    options = {
        "mlp_width": int(width * numbers["mlp_ratio"]),
        "quick_gelu": quick_gelu,
        "layer_scale": numbers["ls_init_value"],
        **(numbers["norm_kwargs"] or {}),
    }
    return [Block(width=width, heads=heads, **options) for _ in range(numbers["layers"])]


def _plain(config: Config, part: str, known: Config) -> dict[str, Any] | None:
    """All numbers of a tower, if it has nothing that ours do not have."""
    if not set(config) <= WHOLE:
        return None
    given = {key: value for key, value in config[part].items() if key not in ELSEWHERE}
    numbers = {**known, **{key: value for key, value in given.items() if key in known}}
    others = {key: value for key, value in given.items() if key not in known}
    strange = [key for key, value in others.items() if value not in OFF.get(key, (False, None))]
    odd_norm = set(numbers["norm_kwargs"] or {}) - {"eps"}
    if strange or odd_norm or numbers["act_kwargs"]:
        return None
    for key, most in WHOLE_NUMBERS.items():
        if key in numbers and not isinstance(numbers[key], list | tuple):  # lists: a ResNet's layers, a picture's two sides
            checks.whole(f"CLIP: {part}: {key}", numbers[key], least=1, most=most)
    for key in ("no_ln_pre", "final_ln_after_pool"):
        if key in numbers:
            checks.flag(f"CLIP: {part}: {key}", numbers[key])
    checks.flag("CLIP: quick_gelu", config.get("quick_gelu", False))
    checks.number(f"CLIP: {part}: mlp_ratio", numbers["mlp_ratio"], above=0, most=64)
    for name, value in (("ls_init_value", numbers["ls_init_value"]), ("eps", (numbers["norm_kwargs"] or {}).get("eps"))):
        if value is not None:
            checks.number(f"CLIP: {part}: {name}", value, least=0, most=1)
    return numbers


def _side(size: Any) -> int | None:
    """The side of a square, given as one number or as two equal ones; None where it is none."""
    sides = size if isinstance(size, list | tuple) else [size]
    if not sides or any(side != sides[0] for side in sides):
        return None
    return checks.whole("CLIP: the side of a square", sides[0], least=1, most=1 << 16)
