"""Kaldi's log-mel filter bank and a sinc resampler: torchaudio's where it can be imported, else the same sums done here.

torchaudio ended with torch 2.11 and refuses newer ones. Of it we need two functions that are plain tensor arithmetic; theirs are
taken where they are to be had, ours agree with them in float32 to rounding (the rounding of the tables included: the published
models heard it). Both ways are held to one set of golden numbers.
"""

from __future__ import annotations

import importlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

WINDOW, STEP = 25, 10
"""Milliseconds of a frame, and from one to the next."""
LOWEST = 20.0
"""Hertz where the lowest mel band begins; the highest ends at half the rate."""
PRE_EMPHASIS = 0.97
ZERO_CROSSINGS, ROLLOFF = 6, 0.99
"""Of the resampler's low-pass: zero crossings on either side, and its edge as a share of the lower Nyquist frequency."""


@lru_cache(maxsize=1)
def has_torchaudio() -> bool:
    """Whether torchaudio can be imported beside this torch."""
    try:
        import torchaudio  # noqa: F401
    except Exception:  # built for another torch it raises what it likes: OSError, RuntimeError, AttributeError ...
        return False
    return True


def _kaldi() -> Any:
    """torchaudio's filter banks; loaded anew where they were imported inside `torch.device("meta")`, as transformers may do.

    Their one constant has no value then, and every sound would fail for as long as the process lives.
    """
    import torch
    from torchaudio.compliance import kaldi

    if not kaldi.EPSILON.is_meta:
        return kaldi
    with torch.device("cpu"):
        return importlib.reload(kaldi)


def filter_bank(waveform: Tensor, *, rate: int, bins: int) -> Tensor:
    """Log-mel energies [n, bins] of float32 [samples], at least one window, at `rate` hertz.

    Hann windows of 25 ms every 10 ms, whole ones only, without dither.
    """
    import torch

    if has_torchaudio():
        return _kaldi().fbank(
            waveform[None],
            sample_frequency=rate,
            num_mel_bins=bins,
            window_type="hanning",
            frame_length=WINDOW,
            frame_shift=STEP,
            htk_compat=True,
            use_energy=False,
            dither=0.0,
        )
    size, step = int(rate * WINDOW * 0.001), int(rate * STEP * 0.001)
    frames = waveform.unfold(0, size, step)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    frames = (frames - PRE_EMPHASIS * before) * torch.hann_window(size, periodic=False, dtype=frames.dtype)
    points = 1 << (size - 1).bit_length()
    power = torch.fft.rfft(frames, points).abs() ** 2
    energies = power @ _mel_bands(rate, bins, points).T
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


@lru_cache(maxsize=4)
def _mel_bands(rate: int, bins: int, points: int) -> Tensor:
    """Triangles [bins, points / 2 + 1] that overlap by half, of equal width in mel; Kaldi leaves the last frequency out."""
    import torch

    low, high = mel(LOWEST), mel(rate / 2)
    width = (high - low) / (bins + 1)
    left, centre, right = (low + (torch.arange(bins)[:, None] + corner) * width for corner in (0.0, 1.0, 2.0))
    at = 1127.0 * (1.0 + (rate / points) * torch.arange(points // 2) / 700.0).log()
    bands = torch.minimum((at - left) / (centre - left), (right - at) / (right - centre)).clamp(min=0)
    return torch.nn.functional.pad(bands, (0, 1))


def mel(hertz: float) -> float:
    """A frequency on the mel scale."""
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def resample(waveform: Tensor, up: int, down: int) -> Tensor:
    """[samples] at `up` / `down` (a reduced fraction) times its rate, ceil(samples up / down) of them."""
    import torch

    with torch.no_grad():
        if has_torchaudio():
            return _torchaudio_resampler(up, down)(waveform)
        kernel, reach = _kernel(up, down)
        padded = torch.nn.functional.pad(waveform, (reach, reach + down))
        phases = torch.nn.functional.conv1d(padded[None, None], kernel, stride=down)[0]
        return phases.T.flatten()[: math.ceil(len(waveform) * up / down)]


def reach_of(up: int, down: int) -> int:
    """How many input samples on either side a resampled one depends on."""
    return math.ceil(ZERO_CROSSINGS * down / (min(up, down) * ROLLOFF))


@lru_cache(maxsize=4)
def _kernel(up: int, down: int) -> tuple[Tensor, int]:
    """A windowed sinc for each of the `up` phases [up, 1, 2 reach + down], and its reach; its float32 rounding is heard, too."""
    import torch

    edge, reach = min(up, down) * ROLLOFF, reach_of(up, down)
    inputs = torch.arange(-reach, reach + down, dtype=torch.float32)[None, None] / down
    phases = torch.arange(0, -up, -1, dtype=torch.float32)[:, None, None] / up
    time = ((phases + inputs) * edge).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(time * math.pi / ZERO_CROSSINGS / 2) ** 2
    sinc = torch.where(time == 0, torch.ones(()), torch.sin(time * math.pi) / (time * math.pi))
    return sinc * (window * (edge / down)), reach


@lru_cache(maxsize=4)
def _torchaudio_resampler(up: int, down: int) -> nn.Module:
    import torch
    from torchaudio.transforms import Resample

    return Resample(down, up, dtype=torch.float32)
