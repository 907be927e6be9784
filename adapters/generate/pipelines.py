"""The diffusers pipeline of a decoder card: found, loaded in half precision, brought to a device or offloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from vitlens.adapters.generate.decoder_cards import DecoderCard
from vitlens.adapters.host_files import HostFiles, dtype_argument, import_diffusers, offline
from vitlens.adapters.running import memory
from vitlens.checks import one_of
from vitlens.devices import chosen_device
from vitlens.errors import MissingDependencyError, ModelError, OptionError


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
    names = [os.fspath(source)] if source else [name for name in (card.repo, *card.mirrors) if name]
    if not names:
        raise OptionError(f"decoder {card.name}: its card names no repository; give pipeline=")
    if Path(names[0]).is_dir() and not (Path(names[0]) / "model_index.json").is_file():
        raise ModelError(f"{names[0]}: no model_index.json in it; give the folder of a saved diffusers pipeline")
    _check_diffusers(card)
    chosen = dtype_argument(dtype or (torch.float32 if place.type == "cpu" else getattr(torch, card.half)))
    with decoder_memory(card.name):
        try:
            made = _loaded(card, names, chosen)
        except ModelError as error:
            raise ModelError(f"decoder {card.name}: {error}") from error
        if offload:
            getattr(made, f"enable_{offload}_cpu_offload")(device=place)
        else:
            made.to(place)
    return made


def _check_diffusers(card: DecoderCard) -> None:
    """Raises MissingDependencyError without diffusers, or with one that is too old for the card's pipeline."""
    found = import_diffusers("decoders").__version__
    if card.diffusers and Version(found) < Version(card.diffusers):
        raise MissingDependencyError(
            f"decoder {card.name} needs diffusers {card.diffusers} or newer, {found} is installed: "
            f"pip install 'diffusers>={card.diffusers}' (beside huggingface-hub 2, that takes Python 3.11 or newer)"
        )


def _loaded(card: DecoderCard, names: Sequence[str], options: Mapping[str, Any]) -> Any:
    """The pipeline with the parts and the adapter that come from elsewhere, on the CPU."""
    import diffusers

    local = (bool(card.parts or card.adapter) or not Path(names[0]).is_dir()) and offline()
    parts = {
        argument: HostFiles.at(repo, local=local).asked().load(getattr(diffusers, kind), **options)
        for argument, (kind, repo) in card.parts.items()
    }
    made = _first([HostFiles.at(name, local=local) for name in names], getattr(diffusers, card.pipeline), {**options, **parts})
    if card.adapter:
        files = HostFiles.at(card.adapter["pretrained_model_name_or_path_or_dict"], local=local)
        with files.reading("IP-Adapter"):
            made.load_ip_adapter(**card.adapter, local_files_only=files.local)
    return made


def _first(files: Sequence[HostFiles], cls: Any, options: Mapping[str, Any]) -> Any:
    """What the first of several repositories gives; one that is on this machine comes before any download.

    Raises:
        ModelError: none gives it; says of each why.
    """
    if len(files) == 1:
        return files[0].asked().load(cls, **options)
    problems: dict[str, str] = {}
    for one in [*(replace(one, local=True) for one in files), *(one for one in files if not one.local)]:
        try:
            return one.asked().load(cls, **options)
        except ModelError as problem:
            problems[one.name] = str(problem)
    raise ModelError(f"none of {len(files)} repositories gives it: {'; '.join(problems.values())}")
