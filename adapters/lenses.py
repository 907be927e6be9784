"""Lenses plugged into a host: models, names or folders become streams that fit its ViT, under names of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vitlens.adapters.splice import HostTower, LensStream
from vitlens.errors import ModalityError, OptionError
from vitlens.model import ViTLens, load

Lenses = Mapping[str, "ViTLens | LensStream | str"]
"""Stream -> its lens: a model, a stream, or a name or folder that `vitlens.load` knows."""


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
    """Streams by name: of models, of names or folders that `vitlens.load` knows, or as they are.

    The name is the modality; of a model with a single lens it may be any ("point_cloud_left").

    Raises:
        ModalityError, ModelError: as `vitlens.load`.
    """
    streams: dict[str, LensStream] = {}
    for name, lens in lenses.items():
        if isinstance(lens, str):
            lens = load(lens, modalities=[name])
        if not isinstance(lens, ViTLens | LensStream):
            raise OptionError(f"lenses[{name!r}] must be a ViTLens, a LensStream or a model's name, found {type(lens).__name__}")
        streams[name] = lens if isinstance(lens, LensStream) else LensStream.from_model(lens, _sensor(lens, name))
    return streams


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
