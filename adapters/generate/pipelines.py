"""The diffusers pipeline of a decoder card: found, loaded in half precision, brought to a device or offloaded."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from vitlens.adapters.generate.decoder_cards import DecoderCard
from vitlens.adapters.host_files import dtype_argument, import_diffusers, reading
from vitlens.adapters.running import memory
from vitlens.checks import one_of
from vitlens.devices import chosen_device
from vitlens.errors import ModelError, OptionError


def decoder_memory(name: str) -> AbstractContextManager[None]:
    """Lack of memory around a decoder, said with what helps."""
    advice = f"try load_decoder({name!r}, offload='model') (or 'sequential', slower and smaller), dtype=torch.float16, "
    return memory(f"decoder {name}", f"{advice}a smaller height and width, or fewer frames")


def load_pipeline(
    card: DecoderCard,
    source: str | os.PathLike[str] | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    offload: str | None = None,
) -> Any:
    """The pipeline of a card, from `source` (a folder or a repository) instead of the card's own; see `load_decoder`.

    Raises:
        OptionError, ModelError, HostError, MissingDependencyError: as `load_decoder`.
    """
    one_of("offload", offload, (None, "model", "sequential"))
    place = chosen_device(device)
    if offload and place.type == "cpu":
        raise OptionError(f"offload={offload!r} moves weights to an accelerator and back; there is none here")
    name = os.fspath(source) if source else card.repo
    if not name:
        raise OptionError(f"decoder {card.name}: its card names no repository; give pipeline=")
    if Path(name).is_dir() and not (Path(name) / "model_index.json").is_file():
        raise ModelError(f"{name}: no model_index.json in it; give the folder of a saved diffusers pipeline")
    diffusers = import_diffusers("decoders")
    chosen = dtype_argument(dtype or (torch.float32 if place.type == "cpu" else getattr(torch, card.half)))
    with decoder_memory(card.name), reading(f"decoder {card.name}: {name}", "`hf download` it, or give pipeline="):
        parts = {k: getattr(diffusers, kind).from_pretrained(r, **chosen) for k, (kind, r) in card.parts.items()}
        made = getattr(diffusers, card.pipeline).from_pretrained(name, **chosen, **parts)
        if card.adapter:
            made.load_ip_adapter(**card.adapter)
    with decoder_memory(card.name):
        if offload:
            getattr(made, f"enable_{offload}_cpu_offload")(device=place)
        else:
            made.to(place)
    return made
