"""What programs take from ImageBind's `data` to prepare its tensors themselves: filter banks, crops, clip times, words."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitlens.errors import OptionError
from vitlens.modality import get_modality

DEFAULT_AUDIO_FRAME_SHIFT_MS = 10
"""Milliseconds from one frame of a filter bank to the next."""
GAP = 0.2
"""Share of its frames that a sound may lack, or have too many, before that is said."""


def return_bpe_path() -> str:
    """Where CLIP's byte-pair vocabulary lies on this machine: open_clip's copy of it."""
    found = importlib.util.find_spec("open_clip")
    assert found is not None and found.origin is not None  # a dependency of this package
    return str(Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz"))


BPE_PATH = return_bpe_path()


def waveform2melspec(waveform: Tensor, sample_rate: int, num_mel_bins: int, target_length: int) -> Tensor:
    """Sound [channels, samples], of which the first channel is heard, as log-mel energies [1, num_mel_bins, target_length].

    Not yet normalised; zeros fill what a short sound lacks, and a long one is cut. Unlike ImageBind's, it leaves `waveform` as
    it is.

    Raises:
        OptionError: no floating-point [channels, samples], or shorter than one window of 25 ms.
    """
    if not isinstance(waveform, Tensor) or waveform.ndim != 2 or not waveform.is_floating_point():
        found = f"{list(waveform.shape)} of {waveform.dtype}" if isinstance(waveform, Tensor) else type(waveform).__name__
        raise OptionError(f"waveform must be a floating-point tensor [channels, samples], found {found}")
    if waveform.shape[1] < 0.025 * sample_rate:
        raise OptionError(f"waveform must be 25 ms long at least, found {waveform.shape[1]} samples at {sample_rate} Hz")
    audio: Any = get_modality("audio", rate=int(sample_rate), mel_bins=num_mel_bins)
    bank = audio.filter_bank(waveform[0].float()).T
    lacking = target_length - bank.shape[1]
    if abs(lacking) > GAP * bank.shape[1]:
        logging.getLogger(__name__).warning("a sound of %d frames is made one of %d", bank.shape[1], target_length)
    return nn.functional.pad(bank, (0, max(0, lacking)))[None, :, :target_length]


def get_clip_timepoints(clip_sampler: Callable[..., Any], duration: Any) -> list[tuple[Any, Any]]:
    """(start, end) in seconds of every clip that a clip sampler of pytorchvideo takes from `duration` seconds."""
    times: list[tuple[Any, Any]] = []
    last, end = False, 0.0
    while not last:
        start, end, _, _, last = clip_sampler(end, duration, annotation=None)
        times.append((start, end))
    return times


def crop_start(length: int, size: int, place: int) -> int:
    """Where a crop of `size` out of `length` begins: at the start (0), in the middle (1), or to reach the end (2)."""
    return (0, math.ceil((length - size) / 2), length - size)[place]


def crop_boxes(boxes: Any, x_offset: int, y_offset: int) -> Any:
    """Boxes [n, 4] (x0, y0, x1, y1) in the pixels of a crop that begins at these offsets."""
    moved = boxes.copy() if hasattr(boxes, "copy") else boxes.clone()
    moved[:, [0, 2]] -= x_offset
    moved[:, [1, 3]] -= y_offset
    return moved


def uniform_crop(
    images: Tensor, size: int, spatial_idx: int, boxes: Any = None, scale_size: int | None = None
) -> tuple[Tensor, Any]:
    """A square of [..., h, w] along its longer side: at its start (0), its middle (1) or its end (2); and the boxes in it.

    With `scale_size` the shorter side is first brought to so many pixels (the boxes are not).

    Raises:
        OptionError: another `spatial_idx`, no [c, h, w] or [n, c, h, w], or a square larger than the pictures.
    """
    if spatial_idx not in (0, 1, 2):
        raise OptionError(f"spatial_idx must be 0, 1 or 2, found {spatial_idx!r}")
    if images.ndim not in (3, 4):
        raise OptionError(f"pictures must be [c, h, w] or [n, c, h, w], found {list(images.shape)}")
    if scale_size is not None:
        images = _shorter_side(images, scale_size)
    height, width = images.shape[-2:]
    if size > min(height, width):
        raise OptionError(f"a square of {size} pixels does not fit pictures of {height} by {width}: scale_size= enlarges them")
    tall = height > width
    top, left = crop_start(height, size, spatial_idx if tall else 1), crop_start(width, size, 1 if tall else spatial_idx)
    cropped = images[..., top : top + size, left : left + size]
    return cropped, None if boxes is None else crop_boxes(boxes, left, top)


def _shorter_side(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    target = (int(height / width * size), size) if width <= height else (size, int(width / height * size))
    batch = images if images.ndim == 4 else images[None]
    scaled = nn.functional.interpolate(batch, size=target, mode="bilinear", align_corners=False)
    return scaled if images.ndim == 4 else scaled[0]


class SpatialCrop(nn.Module):
    """Each video [c, frames, h, w] as three squares of `crop_size` pixels along its longer side, or as its middle one."""

    def __init__(self, crop_size: int = 224, num_crops: int = 3) -> None:
        super().__init__()
        if num_crops not in (1, 3):
            raise OptionError(f"num_crops must be 1 or 3, found {num_crops!r}")
        self.crop_size = crop_size
        self.crops_to_ext = [1] if num_crops == 1 else [0, 1, 2]

    def forward(self, videos: Sequence[Tensor]) -> list[Tensor]:
        """A list of videos [c, frames, h, w] -> their crops [c, frames, crop_size, crop_size], video by video.

        Raises:
            OptionError: no list of such tensors, or videos smaller than a crop.
        """
        if not isinstance(videos, list | tuple) or any(video.ndim != 4 for video in videos):
            raise OptionError("SpatialCrop takes a list of videos [c, frames, h, w]")
        return [uniform_crop(video, self.crop_size, place)[0] for video in videos for place in self.crops_to_ext]


class NormalizeVideo:
    """Subtract a mean and divide by a deviation for each channel of a video [c, frames, h, w]; `inplace` writes into it."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        self.mean, self.std, self.inplace = mean, std, inplace

    def __call__(self, clip: Tensor) -> Tensor:
        mean, std = (
            torch.as_tensor(one, dtype=clip.dtype, device=clip.device)[:, None, None, None] for one in (self.mean, self.std)
        )
        return (clip if self.inplace else clip.clone()).sub_(mean).div_(std)
