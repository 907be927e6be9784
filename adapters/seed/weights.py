"""What a file of SEED-2 weights says of the tokenizer in it: its sizes, its head, its ViT, and keys that have no use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vitlens.errors import CheckpointError, OptionError

TEXT_BRANCH = re.compile(
    r"Qformer\.(cls\.|bert\.embeddings\.(word|position)_embeddings\.|bert\.encoder\.layer\.\d+\.(intermediate|output)\.)"
)
"""Keys of a Q-Former's text branch, which the tokenizer does not have."""
EVA_EXTRAS = ("norm.", "fc_norm.", "head.", "lm_head.", "mask_token")
"""Keys of an EVA file that its blocks do not need."""
EVA_BLOCKS, TAKEN_BLOCKS = 40, 39
"""BLIP-2 and SEED take the output of the last but one of EVA-g's blocks (arXiv 2301.12597)."""


def with_vit(state: Mapping[str, Tensor], vit: Mapping[str, Tensor], *, source: str, vit_source: str) -> dict[str, Tensor]:
    """A tokenizer's state dict with the ViT of an EVA file (keys with or without `visual_encoder.`) added.

    Of EVA-g's 40 blocks the last is left out, as everywhere in the BLIP-2 family, and so are the classifier's parts.

    Raises:
        CheckpointError: a ViT in both files, or keys in the EVA file that are none of an EVA ViT's.
    """
    if any(key.startswith("visual_encoder.") for key in state):
        raise CheckpointError(f"{source} holds a ViT of its own (visual_encoder.*): leave vit={vit_source} out")
    bare = {key.removeprefix("visual_encoder."): value for key, value in vit.items()}
    depth = _count(bare, r"blocks\.(\d+)\.")
    last = f"blocks.{TAKEN_BLOCKS}." if depth == EVA_BLOCKS else None
    taken = {k: v for k, v in bare.items() if not k.startswith(EVA_EXTRAS) and not (last and k.startswith(last))}
    strange = [k for k in taken if not k.startswith(("cls_token", "pos_embed", "patch_embed.proj.", "blocks."))]
    if strange or not depth:
        raise CheckpointError(f"{vit_source}: not the weights of an EVA ViT: keys {', '.join((strange or list(bare))[:8])}")
    return {**state, **{f"visual_encoder.{key}": value for key, value in taken.items()}}


def sizes_of(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The constructor's options that a state dict shows: all but the numbers of heads.

    Raises:
        CheckpointError: no ViT, none or both of the heads, or a key that the sizes are read from is missing.
    """
    if not any(key.startswith("visual_encoder.") for key in state):
        raise CheckpointError(
            f"{source}: no ViT in it (visual_encoder.*); give the file of EVA-g's weights beside it, such as vit='eva_vit_g.pth'"
        )
    found = [head for head, key in (("image_down", "image_down."), ("reverse_qformer", "Reverse_Qformer.")) if _has(state, key)]
    if len(found) != 1:
        raise CheckpointError(
            f"{source}: {'both heads' if found else 'no head'} in it; needed: either image_down.* or Reverse_Qformer.* "
            "(from_state_dict(leave_out=...) passes one over)"
        )

    def shape(key: str) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"{source}: not a SEED-2 tokenizer: key {key} is missing")
        return tuple(state[key].shape)

    layer = "Qformer.bert.encoder.layer"
    conv, rows = shape("visual_encoder.patch_embed.proj.weight"), shape("visual_encoder.pos_embed")[1] - 1
    crossing = sorted({int(m[1]) for key in state if (m := re.match(rf"{layer}\.(\d+)\.crossattention\.", key))})
    positions = [value.shape[-1] for key, value in state.items() if key.endswith("Qformer.bert.embeddings.position_ids")]
    return {
        "image_size": round(rows**0.5) * conv[-1],
        "patch_size": conv[-1],
        "vit_width": conv[0],
        "vit_depth": _count(state, r"visual_encoder\.blocks\.(\d+)\."),
        "vit_mlp": shape("visual_encoder.blocks.0.mlp.fc1.weight")[0],
        "hidden": shape("query_tokens")[2],
        "queries": shape("query_tokens")[1],
        "layers": _count(state, rf"{layer}\.(\d+)\."),
        "intermediate": shape(f"{layer}.0.intermediate_query.dense.weight")[0],
        "cross_every": crossing[1] - crossing[0] if len(crossing) > 1 else 2,
        "codes": shape("quantize.embedding.weight")[0],
        "code_width": shape("quantize.embedding.weight")[1],
        "decode_depth": _count(state, r"blocks_image\.(\d+)\."),
        "embed_dim": shape("distill_image_proj.weight")[0],
        "head": found[0],
        "text_positions": positions[0] if positions else 512,
    }


def without(state: Mapping[str, Tensor], leave_out: Sequence[str], source: str) -> dict[str, Tensor]:
    for prefix in leave_out:
        if not _has(state, prefix):
            raise OptionError(f"leave_out: {source} has no key that starts with {prefix!r}")
    return {k: v for k, v in state.items() if not k.startswith(tuple(leave_out)) and not TEXT_BRANCH.search(k)}


def _has(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return max((int(m[1]) + 1 for key in state if (m := re.match(pattern, key))), default=0)


def heads_of(option: str, width: int, head_width: int) -> int:
    if width % head_width:
        raise OptionError(f"SEED tokenizer: {option} must be given for a width of {width}, heads are not {head_width} wide there")
    return width // head_width
