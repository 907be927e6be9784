"""Audio: a waveform becomes clips of log-mel filter banks, cut into overlapping patches.

Filter bank and statistics follow the Audio Spectrogram Transformer (arXiv 2104.01778) as ViT-Lens (arXiv 2311.16081) uses them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitlens import checks
from vitlens.errors import InputError, OptionError
from vitlens.lens_config import PerceiverConfig
from vitlens.modalities.audio_features import LOWEST, filter_bank, mel, reach_of, resample
from vitlens.modalities.audio_files import ACCEPTED, check_size, checked_rate, checked_waveform, decode, from_array
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source, suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

_STRETCHES = 800
"""Of a waveform that is shown."""
TRACKS = ("mp4", "m4v", "mov", "webm", "mkv", "avi")
"""Containers that are a video's unless they are named as sound."""
FREQUENCY_MASK, TIME_MASK, NOISE, SHIFT = 12, 48, 0.1, 10


@register_modality
@dataclass(frozen=True)
class Audio(Modality):
    """Sound of any rate and number of channels, as `clips` log-mel spectrograms of `clip_seconds`.

    Clips: a recording longer than a clip gives clips that start at 0, m/clips, 2m/clips ... with m the time left after one clip.
    A shorter one is doubled until it fills a clip, then cut from 0, and all clips are the same; one shorter than a 32nd of a clip
    is refused. Channels: "first" takes the first one, as the published models do; "mean" mixes down.
    """

    name = "audio"
    unit = "waveform in -1..1, float32 [channels, samples], with its rate in hertz"
    accepts = ACCEPTED
    extensions = (
        "wav", "flac", "ogg", "mp3", "oga", "opus", "aif", "aiff", "au", "caf", "w64", "rf64", "m4a", "aac", "wma", "amr", "mka",
    )  # fmt: skip
    default_lens = PerceiverConfig(depth=2, self_per_cross=3)

    rate: int = 16000
    """Hertz the model hears at."""
    clip_seconds: float = 5.0
    clips: int = 3
    mel_bins: int = 128
    frames: int = 512
    """Spectrogram frames (every 10 ms) of a clip; fewer are padded with zeros before normalising."""
    stride: int = 10
    """Step between patches, in bins and frames."""
    mean: float = -4.2677393
    std: float = 4.5689974
    mono: Literal["first", "mean"] = "first"

    def __post_init__(self) -> None:
        for option in ("clips", "mel_bins", "frames", "stride"):
            checks.whole(f"audio: {option}", getattr(self, option), least=1, most=1 << 20)
        checks.whole("audio: rate", self.rate, least=1000, most=192000)
        checks.number("audio: clip_seconds", self.clip_seconds, least=0.1, most=3600)
        checks.number("audio: mean", self.mean)
        checks.number("audio: std", self.std, above=0)
        checks.one_of("audio: mono", self.mono, ("first", "mean"))

    def read(self, source: Any, *, rate: float | None = None, format: str | None = None) -> Sample:
        """Read sound as float32 [channels, samples] with its own rate in `info["rate"]` (hertz).

        `rate` belongs to an array; of a file it is only checked. The type of a file is found by its content, so that `format`
        is not needed. Integer samples are scaled by their full range (int16 / 32768).

        Raises:
            InputError: missing, empty, truncated, of another type, NaN, silent about its rate, [samples, channels], too long ...
        """
        given = Source(source, ACCEPTED)
        if rate is not None:
            rate = checked_rate(rate, given)
        if given.is_array:
            if rate is None:
                raise given.refuse("an array without its rate", "for example rate=16000")
            data = from_array(given.array(), rate, given)
        else:
            with given.local_file(format=format) as path, given.decoding():
                data, own_rate = decode(path, given)
            if rate not in (None, own_rate):
                raise given.refuse(f"a file of {own_rate} Hz, but rate={rate}", "leave rate= out")
            rate = checked_rate(own_rate, given)
            check_size(data.shape[0], data.shape[1], rate, given)
        return Sample(checked_waveform(data, given), given.name, {"rate": rate})

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Normalised log-mel filter banks [clips, frames, mel_bins]; one random, augmented clip [1, frames, mel_bins] to train.

        Raises:
            InputError: shorter than a 32nd of a clip.
        """
        import torch

        waveform, speed = self._mono(sample), self._speed(sample)
        total, length = math.ceil(waveform.shape[-1] * speed), round(self.clip_seconds * self.rate)
        if 32 * total < length:
            least = f"at least {self.clip_seconds / 32:g} s for clips of {self.clip_seconds:g} s"
            raise InputError(sample.source, f"a sound of {total / self.rate:.4f} s", least)
        repeats = total < length
        if repeats:
            waveform, speed = _resample(waveform, speed, 0, total), Fraction(1)
            while waveform.shape[-1] < length:
                waveform = torch.cat([waveform, waveform])
            total = waveform.shape[-1]
        if train:
            start = int(torch.randint(total - length + 1, ()))
            return self._augmented(_resample(waveform, speed, start, start + length))[None]
        starts = [0 if repeats else k * (total - length) // self.clips for k in range(self.clips)]
        banks = {s: self.normalised(self.filter_bank(_resample(waveform, speed, s, s + length))) for s in dict.fromkeys(starts)}
        return torch.stack([banks[start] for start in starts])

    def _speed(self, sample: Sample) -> Fraction:
        """The resampling ratio; off by less than a thousandth (two cents) for rates that share no small ratio with the model."""
        return Fraction(self.rate, int(sample.info["rate"])).limit_denominator(1000)

    def _mono(self, sample: Sample) -> Tensor:
        """One channel [samples]. (The published pipeline also subtracts the mean of all channels; the filter bank takes every
        frame's own mean away, so that it makes no difference.)"""
        import torch

        data = np.asarray(sample.data)
        return torch.tensor(data[0]) if self.mono == "first" else torch.tensor(data).mean(0)

    def filter_bank(self, waveform: Tensor) -> Tensor:
        """Log-mel energies [n, mel_bins] of [samples] at the model's rate."""
        return filter_bank(waveform - waveform.mean(), rate=self.rate, bins=self.mel_bins)

    def _padded(self, bank: Tensor) -> Tensor:
        from torch import nn

        return nn.functional.pad(bank[: self.frames], (0, 0, 0, max(0, self.frames - bank.shape[0])))

    def normalised(self, bank: Tensor) -> Tensor:
        """Log-mel energies [n, mel_bins], padded or cut, as the model hears them: [frames, mel_bins]."""
        return (self._padded(bank) - self.mean) / self.std

    def _augmented(self, waveform: Tensor) -> Tensor:
        """[frames, mel_bins] with SpecAugment masks (arXiv 1904.08779), some noise and a shift in time (arXiv 2104.01778)."""
        import torch

        bank = self._padded(self.filter_bank(waveform)).clone()
        low, high = _span(min(FREQUENCY_MASK, self.mel_bins), self.mel_bins)
        bank[:, low:high] = 0
        low, high = _span(min(TIME_MASK, self.frames), self.frames)
        bank[low:high] = 0
        bank = (bank - self.mean) / self.std
        bank = bank + torch.rand_like(bank) * torch.rand(()) * NOISE
        return torch.roll(bank, int(torch.randint(-SHIFT, SHIFT, ())), 0)

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """Patches as large as the ViT's, `stride` apart: [b, frames, mel_bins] -> [b, n, width], frequency-major.

        Raises:
            OptionError: the spectrogram is smaller than one patch.
        """
        from vitlens.modalities.audio_embed import AudioEmbed

        if vit.patch_size > min(self.mel_bins, self.frames):
            raise OptionError(f"audio: patches of {vit.patch_size} do not fit {self.mel_bins} mel bins by {self.frames} frames")
        return AudioEmbed(mel_bins=self.mel_bins, frames=self.frames, patch=vit.patch_size, stride=self.stride, width=width)

    def example(self, seed: int = 0) -> Sample:
        """Three seconds of a plucked string with vibrato and two bird calls, 44.1 kHz stereo."""
        rng, rate = np.random.default_rng(seed), 44100
        time = np.arange(3 * rate) / rate
        pitch = 220 * 2 ** (rng.integers(0, 13) / 12)
        wobble = 2 * np.pi * pitch * time + 0.6 * np.sin(2 * np.pi * 5.2 * time) * np.minimum(time, 1)
        string = sum(np.sin(k * wobble) * np.exp(-time * (0.8 + 0.5 * k)) / k for k in range(1, 9))
        bird = np.zeros_like(time)
        for at in rng.uniform((0.6, 1.7), (1.2, 2.3)):
            call = np.clip((time - at) / 0.25, 0, 1)
            sweep = 2600 + 900 * np.sin(2 * np.pi * 2.5 * call + rng.uniform(0, 2))
            bird += np.sin(2 * np.pi * np.cumsum(sweep) / rate) * np.sin(np.pi * call) ** 2
        hiss = 1e-3 * rng.standard_normal((2, len(time)))
        stereo = np.stack([0.35 * string + 0.10 * bird, 0.25 * string + 0.22 * bird]) + hiss
        return Sample((0.9 * stereo / np.abs(stereo).max()).astype(np.float32), f"<synthetic audio {seed}>", {"rate": rate})

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a float32 .wav, which keeps every sample value."""
        import soundfile

        path = Path(folder) / f"{stem}.wav"
        soundfile.write(path, np.asarray(sample.data).T, int(sample.info["rate"]), subtype="FLOAT")
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        """Duration (s), rate (Hz), channels and peak (dB below full scale)."""
        channels, samples = sample.data.shape
        peak = float(np.abs(sample.data).max())
        return {
            "duration": f"{samples / sample.info['rate']:.2f} s",
            "rate": f"{sample.info['rate']} Hz",
            "channels": {1: "mono", 2: "stereo"}.get(channels, str(channels)),
            "peak": f"{20 * math.log10(peak):.1f} dBFS" if peak else "silent",
        }

    def steps(self) -> list[str]:
        """The preprocessing in words."""
        return [
            "take the first channel" if self.mono == "first" else "mix the channels down to their mean",
            f"resample to {self.rate} Hz",
            f"cut {self.clips} clip(s) of {self.clip_seconds:g} s, spread over the recording; repeat a shorter one",
            f"log-mel filter bank: 25 ms windows every 10 ms, {self.mel_bins} bins",
            f"pad to {self.frames} frames, subtract {self.mean:g}, divide by {self.std:g}",
        ]

    def claims(self, path: Path) -> float:
        """1 for sound by its extension; half of that for a video, whose sound is read when it is asked for."""
        return 0.5 if suffix_of(path) in TRACKS else super().claims(path)

    def draw(self, sample: Sample, axes: Axes) -> None:
        """Log-mel spectrogram over seconds and kilohertz; of a long recording, the first minute."""
        from torch import nn

        waveform, speed = self._mono(sample), self._speed(sample)
        total = math.ceil(waveform.shape[-1] * speed)
        shown = _resample(waveform, speed, 0, min(total, 60 * self.rate))
        shown = nn.functional.pad(shown, (0, max(0, self.rate // 20 - len(shown))))  # the filter bank needs one window
        decibels = 10 / math.log(10) * self.filter_bank(shown).numpy().T
        top, seconds = float(decibels.max()), len(shown) / self.rate
        extent = (0.0, seconds, 0.0, float(self.mel_bins))
        axes.imshow(decibels, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top, extent=extent)
        lowest, highest = mel(LOWEST), mel(self.rate / 2)
        marks = [khz for khz in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16) if 1000 * khz <= self.rate / 2]
        heights = [self.mel_bins * (mel(1000 * khz) - lowest) / (highest - lowest) for khz in marks]
        axes.set_yticks(heights, [f"{khz:g}" for khz in marks])
        axes.set_xlabel("time (s)")
        axes.set_ylabel("frequency (kHz)")
        if total > len(shown):
            axes.set_title(f"first {seconds:.0f} s of {total / self.rate:.0f} s")

    def explore(self, sample: Sample) -> dict[str, Any]:
        """The waveform of what the model hears."""
        waveform = self._mono(sample).numpy()
        edges = np.unique(np.linspace(0, waveform.size, min(_STRETCHES, waveform.size) + 1).astype(int))[:-1]
        lowest, highest = np.minimum.reduceat(waveform, edges), np.maximum.reduceat(waveform, edges)
        seconds = waveform.size / sample.info["rate"]
        return {"waveform": np.stack([lowest, highest], axis=1).astype(np.float32), "seconds": seconds}


def _span(longest: int, size: int) -> tuple[int, int]:
    """A random stretch of at most `longest` out of `size`."""
    import torch

    length = float(torch.rand(()) * longest)
    start = float(torch.rand(()) * (size - length))
    return int(start), int(start) + int(length)


def _resample(waveform: Tensor, speed: Fraction, start: int, stop: int) -> Tensor:
    """Samples `start` to `stop` of [samples] after resampling by `speed`; nothing but what they depend on is computed."""
    if speed == 1:
        return waveform[start:stop]
    up, down = speed.numerator, speed.denominator
    reach = math.ceil(reach_of(up, down) / down) + 1  # in blocks of `down` input samples
    first, last = max(0, start // up - reach), stop // up + 1 + reach
    piece = resample(waveform[first * down : last * down], up, down)
    return piece[start - first * up : stop - first * up]
