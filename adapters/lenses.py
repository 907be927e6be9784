"""Lenses plugged into a host: models, names or folders become streams that fit its ViT, under names of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from vitlens.adapters.splice import HostTower, LensStream
from vitlens.encoder import LensEncoder
from vitlens.errors import ModalityError, ModelError, OptionError, SpaceError
from vitlens.modality import list_modalities
from vitlens.model import ViTLens, load
from vitlens.zoo import card_of_file

Lenses = Mapping[str, "ViTLens | LensStream | str | os.PathLike[str]"]
"""Stream -> its lens: a model, a stream, a name or folder that `vitlens.load` knows, or a file of published weights."""

WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
"""Suffixes of files, which no name of a model has."""


def plugged_in(tower: HostTower, lenses: Lenses | None, *, taken: Sequence[str], allow_other_vit: bool) -> dict[str, LensStream]:
    """The streams of `lenses`, once they fit the host's ViT.

    `taken` are the names of what the host takes without a lens; `allow_other_vit` passes lenses of other ViTs of the same width.

    Raises:
        HostError: a lens that does not fit.
        OptionError: a lens under a name that is taken, or what is no lens.
        ModalityError, ModelError: as `vitlens.load`.
    """
    clash = next((name for name in taken if name in (lenses or {})), None)
    if clash is not None:
        raise OptionError(f"lens {clash!r}: {tower.name} takes {clash} itself; give the lens another name")
    streams = lens_streams(lenses or {})
    tower.check(*streams.values(), allow_other_vit=allow_other_vit)
    return streams


def lens_streams(lenses: Lenses) -> dict[str, LensStream]:
    """Streams by name: of models, of names, folders or files, or as they are.

    The name is the modality; of a model with a single lens it may be any ("point_cloud_left").

    Raises:
        ModalityError, ModelError, CheckpointError: as `vitlens.load`.
    """
    streams: dict[str, LensStream] = {}
    for name, lens in lenses.items():
        if isinstance(lens, str | os.PathLike):
            lens = _loaded(os.fspath(lens), name)
        if not isinstance(lens, ViTLens | LensStream):
            kinds = "a ViTLens, a LensStream, a model's name, or a folder or file of weights"
            raise OptionError(f"lenses[{name!r}] must be {kinds}, found {type(lens).__name__}")
        streams[name] = lens if isinstance(lens, LensStream) else LensStream.from_model(lens, _sensor(lens, name))
    return streams


def _loaded(lens: str, name: str) -> ViTLens:
    """The model of a name, a folder or a weights file, as far as the stream of this name needs it."""
    path = Path(lens).expanduser()
    known = name in list_modalities()
    if path.suffix not in WEIGHTS:
        return load(path if path.is_dir() else lens, modalities=[name] if known else None)
    if not path.is_file():
        raise ModelError(f"lens of {name!r}: {lens}: no such file")
    if (path.parent / "config.json").is_file():  # the weights of a native folder
        return load(path.parent, modalities=[name] if known else None)
    card = card_of_file(path, name if known else None)
    sensors = [encoder.modality for encoder in card.spec.encoders if encoder.modality not in ("image", "text")]
    return load(card.name, weights=path, modalities=[name] if known else sensors)


def with_sensors(model: ViTLens, lenses: Mapping[str, str]) -> ViTLens:
    """A model that also has the sensors of others in its space: {sensor: a name, a folder or a weights file}.

    A sensor that it has itself is replaced. The models stay as they are; their modules are shared.

    Raises:
        SpaceError: a model of another space.
        ModalityError, ModelError: as `vitlens.load`.
    """
    encoders = cast(dict[str, LensEncoder], dict(model.encoders.items()))
    specs = {encoder.modality: encoder for encoder in model.spec.encoders}
    for name, lens in lenses.items():
        other = _loaded(lens, name).to(model.device)
        if other.space != model.space:
            raise SpaceError(f"lens {name!r} of {lens} is in {other.space.name}, {model.spec.name} in {model.space.name}")
        encoders |= cast(dict[str, LensEncoder], dict(other.encoders.items()))
        specs |= {encoder.modality: encoder for encoder in other.spec.encoders}
    return ViTLens(spec=replace(model.spec, encoders=tuple(specs.values())), encoders=encoders, text=model.text).eval()


def _sensor(model: ViTLens, name: str) -> str:
    """Which sensor of a model a stream of this name is: the only one, or the one of the same name."""
    sensors = [encoder.modality for encoder in model.spec.encoders]
    return sensors[0] if len(sensors) == 1 else name


def check_streams(given: Iterable[str], known: Sequence[str]) -> None:
    """Raises ModalityError for a stream that a host does not take."""
    for name in given:
        if name not in known:
            there = ", ".join(known)
            raise ModalityError(f"no stream {name!r}: there is {there}; another one needs a lens (lenses={{{name!r}: ...}})")
