"""Files of a lens for a host's ViT: trimmed to the lens, or whole, as its training left them beside the ViT and the anchors.

    visual.visual_adapter.*, visual.perceiver.*    ModEmbed and lens (a trimmed file may leave `visual.` out)
    visual.eva_vit.*                               the ViT it was trained against (EVA-g), under timm's names
    visual.eva_vit_proj, image.*, text, logit_scale   the training's head and its anchors: left out here

The public reader (StanLei52/ViT-Lens-Integration) picks the first group and drops the rest unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from vitlens.errors import CheckpointError

GROUPS = ("visual_adapter.", "perceiver.")
VIT = "visual.eva_vit."
LEFT_OUT = {
    r"visual\.eva_vit_proj(\.|$)": "the head behind the ViT",
    r"image\.": "the image tower",
    r"(text|token_embedding|transformer|ln_final)\.|(positional_embedding|attn_mask)$|text_projection(\.|$)": "the text tower",
    r"logit_scale$": "the temperature",
}
"""Keys of a training's other parts -> what they are."""


@dataclass(frozen=True)
class LensFile:
    """What such a file holds: the lens's tensors without `visual.`, the ViT's without their prefix, and what is left out."""

    lens: dict[str, Tensor]
    vit: dict[str, Tensor]
    left_out: tuple[str, ...]


def is_lens_file(keys: Iterable[str]) -> bool:
    """Whether a file's keys are those of a lens for a host's ViT: no tower of CLIP's own stands under `visual.`."""
    visual = [key for key in keys if key.startswith(("visual.", *GROUPS))]
    known = [key for key in visual if _is_lens(key) or key.startswith(VIT) or _left_out(key)]
    return any(_is_lens(key) for key in visual) and len(known) == len(visual)


def split_lens_file(state: Mapping[str, Tensor]) -> LensFile:
    """The parts of such a file; every key belongs to one.

    Raises:
        CheckpointError: keys of none of them.
    """
    lens: dict[str, Tensor] = {}
    vit: dict[str, Tensor] = {}
    others: dict[str, None] = {}
    unknown: list[str] = []
    for key, value in state.items():
        if _is_lens(key):
            lens[key.removeprefix("visual.")] = value
        elif key.startswith(VIT):
            vit[key.removeprefix(VIT)] = value
        elif _left_out(key):
            others[_left_out(key)] = None
        else:
            unknown.append(key)
    if unknown:
        some = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        raise CheckpointError(f"{len(unknown)} keys that layout lens does not have: {some}")
    return LensFile(lens, vit, tuple(others))


def _is_lens(key: str) -> bool:
    return key.removeprefix("visual.").startswith(GROUPS)


def _left_out(key: str) -> str:
    return next((what for pattern, what in LEFT_OUT.items() if re.match(pattern, key)), "")
