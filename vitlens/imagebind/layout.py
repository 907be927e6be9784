"""Tensors as ImageBind lays them out, checked against what a model expects, and turned into what its encoders take.

| key | a batch | with clips |
|---|---|---|
| vision | [b, 3, h, w] | [b, views, 3, h, w], [b, clips, 3, frames, h, w] |
| audio | [b, 1, mel, frames] | [b, clips, 1, mel, frames] |
| text | [b, words] | |
| another | [b, ...] | [b, views, ...] |

Programs also prepare tensors by hand, with ImageBind's numbers. Of sound these are known by their shape and turned into the
model's own; of depth they are not, and a warning says so.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from vitlens.errors import OptionError
from vitlens.imagebind.chosen import advice, check_stamp, made_here, maker_of
from vitlens.imagebind.names import PICTURES
from vitlens.modality import Modality

BINS, FRAMES, RATE, MEAN, STD = 128, 204, 16000, -4.268, 9.138
"""ImageBind's clip of two seconds: mel bins, frames of 10 ms, hertz, and what its log-mel energies are normalised by."""
SILENCE = -15.9424
"""The least log-mel energy there is: the logarithm of float32's epsilon."""


def item_shape(key: str, modality: Modality) -> tuple[int, ...]:
    """The shape of one item without clips, as ImageBind lays it out; 0 stands for any number (of points)."""
    shape = tuple(modality.transform(modality.example()).shape)
    if key in PICTURES:
        return shape[-3:]
    if key == "audio":
        return (1, shape[-1], shape[-2])
    return (0, *shape[1:]) if key == "point_cloud" else shape


def audio_layout(clips: Tensor) -> Tensor:
    """Our clips [..., frames, mel] as ImageBind's [..., 1, mel, frames]."""
    return clips.transpose(-1, -2).unsqueeze(-3)


def to_encoder(key: str, x: Any, modality: Modality, expected: tuple[int, ...], model: str) -> Tensor:
    """`x` as the encoder of `modality` takes it: [b, ...] or, with clips, [b, views, ...].

    Raises:
        OptionError: no tensor, of another shape than the model's, or known to be made for another model.
    """
    if not isinstance(x, Tensor):
        raise OptionError(f"{key}: a tensor is needed, found {type(x).__name__}")
    check_stamp(x, key, model, modality)
    if key == "audio" and _is_imagebinds_sound(x, modality, expected):
        x = _own_sound(x, modality)
    if key == "depth" and not made_here(x, modality):
        warnings.warn(
            "depth: this tensor was not made by load_and_transform_depth_data: the model wants disparity of metres and a camera, "
            "normalised as that loader does it; ImageBind's own numbers mean something else to it",
            stacklevel=2,
        )
    views = x
    if key in PICTURES and x.ndim == 6:
        views = x.movedim(3, 2).flatten(1, 2)  # every frame of every clip is a picture
    most = 1 if modality.tower == "text" else 2
    leading = views.ndim - len(expected)
    if not 1 <= leading <= most or not _fits(tuple(views.shape[leading:]), expected):
        raise OptionError(_wrong_shape(key, x, modality, expected, model))
    if modality.tower == "text":
        if x.is_floating_point() or x.is_complex() or x.dtype is torch.bool:
            raise OptionError(f"{key}: token ids are whole numbers, found a tensor of {x.dtype}: leave it as the loader gives it")
        return views
    if key == "audio":
        views = views.squeeze(-3).transpose(-1, -2)
    return views.float()  # encoders compute in their own type; coordinates must not be halved before


def _is_imagebinds_sound(x: Tensor, modality: Modality, expected: tuple[int, ...]) -> bool:
    """Whether `x` is [..., 1, 128, 204], as ImageBind's code makes it, for a model that hears longer clips at that rate."""
    same_ear = expected[-2] == BINS and expected[-1] > FRAMES and modality.options()["rate"] == RATE
    return same_ear and x.ndim in (4, 5) and tuple(x.shape[-3:]) == (1, BINS, FRAMES) and not made_here(x, modality)


def _own_sound(x: Tensor, modality: Any) -> Tensor:
    """ImageBind's clips [..., 1, 128, 204] with the model's own mean and deviation, repeated until they fill its clips.

    Raises:
        OptionError: not normalised as ImageBind does it.
    """
    energies = x.float() * STD + MEAN
    if not energies.isfinite().all() or energies.min() < SILENCE - 0.1:
        raise OptionError(
            f"audio: {list(x.shape)} is ImageBind's layout, but not its log-mel energies, normalised with {MEAN} and {STD}: "
            "take data.load_and_transform_audio_data"
        )
    hears = round(100 * modality.options()["clip_seconds"]) - 2  # frames of a clip that is not padded
    clips = [_repeated(clip[0].T, hears) for clip in energies.reshape(-1, 1, BINS, FRAMES)]
    made = torch.stack([modality.normalised(clip) for clip in clips])
    return audio_layout(made).reshape(*x.shape[:-1], made.shape[-2])


def _repeated(energies: Tensor, frames: int) -> Tensor:
    """[n, mel] without the zeros that fill a short sound, as often as it takes to give [frames, mel]."""
    heard = energies.abs().amax(1) > 0.01
    length = int(heard.nonzero()[-1]) + 1 if heard.any() else len(energies)
    return energies[:length].repeat(-(-frames // length), 1)[:frames]


def _fits(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return all(wanted in (0, size) for size, wanted in zip(found, expected, strict=True))


def _wrong_shape(key: str, x: Tensor, modality: Modality, expected: tuple[int, ...], model: str) -> str:
    item = ", ".join(str(size or "n") for size in expected)
    accepted = [f"[b, {item}]"]
    if modality.tower != "text":
        accepted.append(f"[b, clips, {item}]")
    if key in PICTURES:
        accepted.append(f"[b, clips, 3, frames, {expected[1]}, {expected[2]}]")
    maker = maker_of(x, modality)
    other = f" (tensors of this shape were made here for the model {maker})" if maker not in (None, model) else ""
    return f"{key}: shape {list(x.shape)}{other}; the model {model} takes {' or '.join(accepted)}: {advice(model)}"
