"""A condition - an embedding, prompts with weights, a picture - and how its texts become arguments of a pipeline's call.

Several prompts become one condition as CoDi does it (arXiv 2305.11846): the weighted sum of their contexts, and the
unconditional context mixed the same way. A pipeline that takes no contexts gets one sentence made of all prompts.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from vitlens.errors import OptionError

JOINT = ", "


@dataclass(frozen=True)
class Condition:
    """What a decoder is given: an embedding [E] at the length it expects, prompts with their weights, a picture.

    `before` and `after` are put around every prompt; `negative` is what the picture should not show.
    """

    embedding: Tensor | None = None
    prompts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    before: str = ""
    after: str = ""
    negative: str = ""
    picture: PIL.Image.Image | None = None

    def __post_init__(self) -> None:
        if len(self.weights) not in (0, len(self.prompts)):
            raise OptionError(f"{len(self.prompts)} prompts and {len(self.weights)} weights")

    @property
    def shares(self) -> list[float]:
        """The weights of the prompts, with sum 1; equal ones if none are given."""
        weights = self.weights or (1.0,) * len(self.prompts)
        return [weight / sum(weights) for weight in weights]

    @property
    def contexts(self) -> list[str]:
        """Every prompt with what is put around it."""
        return [joined(self.before, prompt, self.after) for prompt in self.prompts]

    @property
    def sentence(self) -> str:
        """All prompts in one, the heaviest first."""
        order = sorted(range(len(self.prompts)), key=lambda i: -self.shares[i])
        return joined(self.before, *dict.fromkeys(self.prompts[i] for i in order), self.after)


def joined(*parts: str) -> str:
    """The parts that are not empty, as one prompt."""
    return JOINT.join(part for part in parts if part)


def prompt_arguments(condition: Condition) -> dict[str, Any]:
    """All prompts as one sentence."""
    negative = {"negative_prompt": condition.negative} if condition.negative else {}
    return {"prompt": condition.sentence} | negative


def empty_context(pipeline: Any) -> dict[str, Tensor]:
    """Zeros for a UNet that was trained without text: all of its cross-attention's values are then equal."""
    width = pipeline.unet.config.cross_attention_dim
    zeros = torch.zeros(1, 1, width if isinstance(width, int) else width[0])
    return {"prompt_embeds": zeros, "negative_prompt_embeds": zeros}


def mixed_contexts(
    pipeline: Any, condition: Condition, returns: Sequence[str], *, device: torch.device, guided: bool
) -> dict[str, Tensor]:
    """The contexts of all prompts, weighted and summed; `returns` names what the pipeline's `encode_prompt` gives."""
    count = len(condition.prompts)
    given = {
        "prompt": condition.contexts,
        "negative_prompt": [condition.negative] * count if condition.negative else None,
        "device": device,
        "do_classifier_free_guidance": guided,
        "num_images_per_prompt": 1,
        "num_videos_per_prompt": 1,
        "num_waveforms_per_prompt": 1,
    }
    accepted = inspect.signature(pipeline.encode_prompt).parameters
    with torch.no_grad():
        returned = pipeline.encode_prompt(**{name: value for name, value in given.items() if name in accepted})
    parts = dict(zip(returns, returned, strict=True))
    if "attention_mask" in parts and guided:  # the unconditional ones come in the first half of each tensor
        halves = {name: part.chunk(2) for name, part in parts.items()}
        parts = {name: half[1] for name, half in halves.items()} | {f"negative_{name}": half[0] for name, half in halves.items()}
    return _summed(parts, condition.shares)


def _summed(parts: Mapping[str, Tensor | None], shares: list[float]) -> dict[str, Tensor]:
    """Each tensor [n, ...] summed over its n prompts with their shares; tokens masked in one prompt count as zeros there."""
    made: dict[str, Tensor] = {}
    for name, part in parts.items():
        if part is None:
            continue
        if name.endswith("attention_mask"):
            made[name] = part.amax(dim=0, keepdim=True)
            continue
        mask = parts.get(name.removesuffix("prompt_embeds") + "attention_mask") if name.endswith("prompt_embeds") else None
        context = part if mask is None else part * mask[..., None]
        weights = torch.tensor(shares, dtype=context.dtype, device=context.device).view(-1, *[1] * (context.ndim - 1))
        made[name] = (weights * context).sum(dim=0, keepdim=True).to(part.dtype)
    return made
