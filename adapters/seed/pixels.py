"""SEED's image embeddings to pictures: the decoder `unclip-h` for the space that a quantizer decodes to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vitlens.adapters.generate.decoder_cards import decoder_card
from vitlens.adapters.generate.decoders import Decoder, load_decoder
from vitlens.errors import HostError
from vitlens.space import EmbeddingSpace

CARD = "unclip-h"
"""Stable unCLIP 2.1, as SEED-LLaMA's de-tokenizer uses it."""


def unclip_decoder(pixels: Any, space: EmbeddingSpace, *, offload: bool = False) -> Decoder:
    """What draws embeddings of `space`: a `Decoder` as it is, a loaded pipeline, `CARD`, or a pipeline's folder or Hub name.

    `offload` keeps on the device only the part that computes, of a pipeline that is loaded here.

    Raises:
        HostError: a pipeline that takes no embeddings, or those of another space; not enough memory.
        ModelError, OptionError, MissingDependencyError: as `load_decoder`.
    """
    card = replace(decoder_card(CARD), space=space)
    if isinstance(pixels, str):
        return load_decoder(card, None if pixels == CARD else pixels, offload="model" if offload else None)
    if not isinstance(pixels, Decoder):
        if not hasattr(pixels, "unet"):
            raise HostError(f"pixels: a StableUnCLIPImg2ImgPipeline is needed, found {type(pixels).__name__}")
        return Decoder(card, pixels)
    if pixels.card.space != space:
        own = pixels.card.space
        found = f"listens in {own.name} ({own.dim})" if own else "takes no embeddings"
        raise HostError(f"pixels: decoder {pixels.name} {found}, the quantizer gives {space.name} ({space.dim})")
    return pixels
