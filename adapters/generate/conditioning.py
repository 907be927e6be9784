"""How a condition - an embedding, prompts with weights, a picture - becomes the arguments of a diffusers pipeline's call.

Several prompts become one condition as CoDi does it (arXiv 2305.11846): the weighted sum of their contexts, and the
unconditional context mixed the same way. A pipeline that takes no contexts gets one sentence made of all prompts.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from torch import Tensor

from vitlens.errors import HostError, OptionError

if TYPE_CHECKING:
    from vitlens.adapters.generate.decoders import Decoder

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


def call_arguments(decoder: Decoder, condition: Condition, options: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the pipeline's call for `condition`; `options` are those that steer it (steps, guidance, size ...)."""
    guidance = float(options.get("guidance_scale", _default(decoder.pipeline, "guidance_scale", 7.5)))
    made: dict[str, Any] = {}
    if decoder.card.embedding is not None:
        made |= _embedding_arguments(decoder, condition, guidance)
    if decoder.card.picture:
        made["image"] = condition.picture
    if decoder.card.text is not None:
        made |= _text_arguments(decoder, condition, guidance)
    return made | dict(options)


def _default(pipeline: Any, name: str, otherwise: float) -> float:
    found = inspect.signature(pipeline.__call__).parameters.get(name)
    return otherwise if found is None or found.default in (None, found.empty) else found.default


def _embedding_arguments(decoder: Decoder, condition: Condition, guidance: float) -> dict[str, Any]:
    if condition.embedding is None:
        raise OptionError(f"decoder {decoder.name} needs an embedding")
    embedding = decoder.place(condition.embedding[None])
    if decoder.card.embedding == "unclip":
        return {"image_embeds": embedding}
    if decoder.card.embedding == "kandinsky":
        return {"image_embeds": embedding, "negative_image_embeds": decoder.place(decoder.reference.blank())}
    guided = guidance > 1  # the first half is the unconditional one, which IP-Adapter was trained on as zeros
    rows = torch.cat([torch.zeros_like(embedding), embedding]) if guided else embedding
    return {"ip_adapter_image_embeds": [rows[:, None]]}


def _text_arguments(decoder: Decoder, condition: Condition, guidance: float) -> dict[str, Any]:
    if not decoder.reads_text:
        if condition.sentence:
            raise HostError(f"decoder {decoder.name}: no text encoder, cannot take the prompt {condition.sentence!r}")
        return _no_text(decoder)
    if len(condition.prompts) > 1 and decoder.card.mixes:
        return _mixed(decoder, condition, guidance)
    negative = {"negative_prompt": condition.negative} if condition.negative else {}
    return {"prompt": condition.sentence} | negative


def _no_text(decoder: Decoder) -> dict[str, Any]:
    """Zeros for a UNet that was trained without text: all of its cross-attention's values are then equal."""
    width = decoder.pipeline.unet.config.cross_attention_dim
    zeros = decoder.place(torch.zeros(1, 1, width if isinstance(width, int) else width[0]))
    return {"prompt_embeds": zeros, "negative_prompt_embeds": zeros}


def _mixed(decoder: Decoder, condition: Condition, guidance: float) -> dict[str, Any]:
    """The contexts of all prompts, weighted and summed."""
    encode = decoder.pipeline.encode_prompt
    count = len(condition.prompts)
    given = {
        "prompt": condition.contexts,
        "negative_prompt": [condition.negative] * count if condition.negative else None,
        "device": decoder.device,
        "do_classifier_free_guidance": guidance > 1,
        "num_images_per_prompt": 1,
        "num_videos_per_prompt": 1,
        "num_waveforms_per_prompt": 1,
    }
    accepted = inspect.signature(encode).parameters
    with torch.no_grad():
        returned = encode(**{name: value for name, value in given.items() if name in accepted})
    parts = dict(zip(decoder.card.mixes, returned, strict=True))
    if "attention_mask" in parts and guidance > 1:  # the unconditional ones come in the first half of each tensor
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
