"""EEG: volts of named channels become one window of 512 samples, a token each.

Preprocessing follows ViT-Lens (arXiv 2311.16081) on the ImageNet-EEG recordings (Spampinato et al., CVPR 2017): 128 channels at
1 kHz, the first 20 ms after the picture are left out, 440 samples are stretched to 512.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitlens import checks
from vitlens.errors import InputError, OptionError
from vitlens.lens_config import PerceiverConfig
from vitlens.modalities import eeg_values as values
from vitlens.modalities.companions import companions
from vitlens.modalities.eeg_example import imitated
from vitlens.modalities.eeg_layouts import LAYOUTS
from vitlens.modalities.eeg_montage import ACCEPTED, Montage, Picking, in_words
from vitlens.modalities.eeg_places import plain, positions
from vitlens.modalities.eeg_recordings import Recording, from_file
from vitlens.modalities.eeg_values import UNITS
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source, suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

FULL = 0.97
"""The data set keeps trials that miss up to 10 of the window's 440 samples, and stretches them."""
BY_NAME = "by name, in the model's order; make missing ones of the others by spherical splines"
JITTER, NOISE = 0.02, 0.05
"""Augmentation: seconds by which the window moves, and noise in standard deviations of the window."""


@register_modality
@dataclass(frozen=True)
class EEG(Modality):
    """Electroencephalogram: `channels` electrodes, one window of a recording, in the order of `names`.

    Channels are found by name, whatever order and spelling the file has, and by place; those that a recording lacks are made of
    the others by spherical splines. Without `names` the file's own order is taken, and it must hold exactly `channels` of them.
    """

    name = "eeg"
    unit = "volts, float32 [channels, samples], with channel names and rate in hertz"
    accepts = ACCEPTED
    extensions = ("edf", "bdf", "vhdr", "fif", "set", "cnt", "npy", "npz")  # cnt: MNE only reads it, so no test of ours does
    default_lens = PerceiverConfig(depth=1)

    channels: int = 128
    names: Sequence[str] | str | None = None
    """The model's channels, in its order; or what `LAYOUTS` calls a data set's."""
    places: Sequence[Sequence[float]] | None = None
    """Directions [channels, 3] from the head's centre (x to the right, y to the nose) of `names` that no system knows."""
    rate: float = 1000.0
    """Hertz to which recordings of another rate are resampled."""
    window: Sequence[float] = (0.02, 0.46)
    """Seconds after the sample's start."""
    samples: int = 512
    """Points to which the window is stretched, both ends included."""
    band: Sequence[float] | None = None
    """Band-pass in hertz: second-order Butterworth, forward and backward. The published data are of 5 to 95 Hz."""
    reference: Literal["average"] | None = None
    """"average": every sample is taken against the mean of the model's channels; None: as it was recorded."""
    standardize: bool = True
    """Whether every channel is given mean 0 and deviation 1 over the whole recording, unless it already is."""
    short: Literal["error", "stretch"] = "error"
    """What becomes of a window of which less than 97 % was recorded."""
    window_size: int = 1
    """Samples per token."""
    stride: int = 1

    def __post_init__(self) -> None:
        for option in ("channels", "samples", "window_size", "stride"):
            checks.whole(f"eeg: {option}", getattr(self, option), least=1, most=1 << 20)
        if self.window_size > self.samples:
            raise OptionError(f"eeg: window_size {self.window_size} is larger than samples {self.samples}")
        checks.number("eeg: rate", self.rate, least=10, most=100_000)
        checks.one_of("eeg: short", self.short, ("error", "stretch"))
        checks.flag("eeg: standardize", self.standardize)
        object.__setattr__(self, "window", _interval("window", self.window, 0, math.inf))
        if round(self.window[1] * self.rate) - round(self.window[0] * self.rate) < 2:
            raise OptionError(f"eeg: window {list(self.window)} holds less than two samples at {self.rate} Hz")
        if self.band is not None:
            object.__setattr__(self, "band", _interval("band", self.band, 1e-3, self.rate / 2))
        if self.names is not None:
            object.__setattr__(self, "names", _names_option(self.names, self.channels))
        if self.places is not None:
            object.__setattr__(self, "places", _places_option(self.places, self.names))
        if self.reference is not None:
            checks.one_of("eeg: reference", self.reference, ("average",))

    def options(self) -> dict[str, Any]:
        """The constructor options, as JSON types."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in super().options().items()}
        return {**plain, "places": None if self.places is None else [list(place) for place in self.places]}

    def read(
        self,
        source: Any,
        *,
        rate: float | None = None,
        channels: Sequence[str] | str | None = None,
        unit: str = "V",
        start: float = 0.0,
        epoch: int = 0,
        bads: Sequence[str] = (),
        montage: str | Mapping[str, Sequence[float]] | None = None,
        sparse: bool = False,
        reference: str | None = None,
        format: str | None = None,
        key: str | None = None,
    ) -> Sample:
        """Read a recording as float32 [channels, samples] in volts: the model's channels, picked by name, or made of the others.

        `start` says where the sample begins, in seconds from the recording's first sample, as the format counts the times of its
        events (of an EDF+D with pauses that is real time); in a file of epochs, from the event of epoch number `epoch`. Of a
        recording with pauses the piece that holds the start is read.

        `channels` names the rows of an array, or a file's EEG channels; "model": they are the model's, in its order. `bads` count
        as missing, as those do that a file marks. `montage` says where electrodes sit if names and file do not: one of MNE's
        standard montages, or metres by name. `sparse` insists on few or far electrodes. `reference` "average" re-references.

        `unit` is that of an array's values (a file's own units are known; another `unit` than "V" scales them further, for files
        that state theirs wrongly); "standardized" values have mean 0 and deviation 1 per channel and are left as they are. `rate`
        belongs to an array; of a recording it is only checked. `key` names the array of an .npz. `info["montage"]` says what was
        measured and what made, `info["remarks"]` that in words and what MNE warns of.

        Raises:
            InputError: missing, empty or truncated, lacks channels, flat, not finite, not of its unit, an array without rate ...
            OptionError: an unknown `unit`, or a `start` or `epoch` that is no number.
        """
        _check_options(unit, start, epoch, bads, sparse, reference)
        given = Source(source, ACCEPTED)
        rate = None if rate is None else values.checked_rate(rate, given)
        pick = Picking(self._montage(), channels, tuple(bads), montage, sparse)
        recording = self._recording(given, rate, unit, float(start), int(epoch), pick, format, key)
        picked, seconds = recording.picked, recording.data.shape[1] / recording.rate
        remarks = [*recording.remarks, *values.check_volts(recording.data, unit, recording.names, given), *picked.remarks]
        if not 0 <= recording.start < seconds:
            raise given.refuse(f"start {recording.start:g} s is outside its {seconds:g} s")
        names = recording.names if picked.weights is None else list(self.names or ())
        info = {"rate": recording.rate, "channels": names, "unit": unit, "start": float(recording.start)}
        if recording.pieces:
            info |= {"pieces": list(recording.pieces), "pauses": recording.pauses}
        if facts := picked.facts():
            info["montage"] = facts
            remarks.insert(0, in_words(facts))
        if reference is not None:
            info["reference"] = reference
        return Sample(picked.apply(recording.data), given.name, {**info, "remarks": remarks} if remarks else info)

    def _recording(
        self,
        source: Source,
        rate: float | None,
        unit: str,
        start: float,
        epoch: int,
        pick: Picking,
        format: str | None,
        key: str | None,
    ) -> Recording:
        """The channels of whatever `source` is that the model's become of."""
        if source.is_array:
            return values.from_array(source.array(), source, rate, pick, unit)._replace(start=start)
        with source.local_file(self.extensions, format) as path:
            if suffix_of(path) in ("npy", "npz"):
                array = source.npy(path, key=key, check=lambda shape: values.check_shape(shape, source))
                return values.from_array(array, source, rate, pick, unit)._replace(start=start)
            if suffix_of(path) == "vhdr" and not source.is_path:
                raise source.refuse("a BrainVision header without the files beside it", "give its path")
            recording = from_file(path, source, pick, start=start, epoch=epoch, factor=UNITS[unit])
        own = values.checked_rate(recording.rate, source)
        if rate is not None and abs(rate - own) > 1e-6 * own:
            raise source.refuse(f"a file of {own:g} Hz, but rate={rate:g}", "leave rate= out")
        return recording

    def _montage(self) -> Montage:
        return Montage(self.channels, self.names, self.places)  # type: ignore[arg-type]  # tuples, since __post_init__

    def inspect(self, item: Any, **defaults: Any) -> Sample:
        """A recording of any number of channels."""
        return _AnyMontage(**{**self.options(), "names": None, "places": None}).load(item, **defaults)

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """One window [channels, samples]; to train, one that starts up to 20 ms earlier or later, with a little noise.

        Raises:
            InputError: less than 97 % of the window was recorded, and `short` is not "stretch".
        """
        import torch

        data, rate = np.asarray(sample.data), float(sample.info["rate"])
        begin = round(sample.info.get("start", 0.0) * self.rate)
        first, last = (begin + round(edge * self.rate) for edge in self.window)
        total = math.ceil(data.shape[1] * self._speed(rate))
        values.check_size(len(data), total, Source(data, ACCEPTED, sample.source))
        if last > total and sample.info.get("pauses"):
            found = f"a window of {self.window[0]:g} to {self.window[1]:g} s after its start that goes on across a gap"
            raise InputError(sample.source, f"{found} of the recording", "a start earlier before the gap, or behind it")
        there = max(0, min(last, total) - first)
        if there < FULL * (last - first) and (self.short == "error" or there < 2):
            found = f"{there} of the {last - first} samples from {self.window[0]:g} to {self.window[1]:g} s after its start"
            raise InputError(sample.source, found, "a longer recording, or the option short='stretch'")
        if train:
            reach = round(JITTER * self.rate)
            shift = int(torch.randint(-min(reach, first), max(0, min(reach, total - last)) + 1, ()))
            first, last = first + shift, last + shift
        step = max(1, (1 << 23) // max(total, data.shape[1]))  # channels at a time, for the sake of memory
        standardized = sample.info.get("unit") == "standardized"
        if sample.info.get("reference") or self.reference:
            data = self._rereferenced(data, standardized, sample.source)
        parts = [self._window(data[i : i + step], rate, first, last, standardized) for i in range(0, len(data), step)]
        window = torch.from_numpy(np.concatenate(parts))
        return window + NOISE * window.std() * torch.randn_like(window) if train else window

    def _rereferenced(self, data: np.ndarray, standardized: bool, source: str) -> np.ndarray:
        """Against the average of the channels.

        Raises:
            InputError: standardized values, whose channels have lost their sizes.
        """
        if standardized:
            raise InputError(source, "standardized values, which have no average reference any more", "volts, or reference=None")
        return data - data.mean(axis=0, dtype=np.float64).astype(data.dtype)

    def _speed(self, rate: float) -> Fraction:
        return (Fraction(self.rate) / Fraction(rate)).limit_denominator(10_000)

    def _window(self, data: np.ndarray, rate: float, first: int, last: int, standardized: bool) -> np.ndarray:
        """Samples `first` to `last`, at the model's rate, of some channels, stretched to float32 [c, samples]."""
        data, speed = data.astype(np.float64), self._speed(rate)
        if speed != 1:
            from scipy.signal import resample_poly

            # Without the electrode's offset, which is a thousand times the EEG: the filter's ripple would show it.
            offset = data.mean(axis=1, keepdims=True)
            data = resample_poly(data - offset, speed.numerator, speed.denominator, axis=1, padtype="line") + offset
        if self.band is not None:
            from scipy.signal import butter, sosfiltfilt

            sections = butter(2, self.band, "bandpass", fs=self.rate, output="sos")
            data = sosfiltfilt(sections, data, axis=1, padlen=min(15, data.shape[1] - 1))
        if self.standardize and not standardized:
            deviation = data.std(axis=1, keepdims=True)
            data = (data - data.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
        return _stretch(data[:, first:last], self.samples).astype(np.float32)

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """One convolution over time: [b, channels, samples] -> [b, n, width], positions included."""
        from vitlens.embed import SignalEmbed

        return SignalEmbed(
            channels=self.channels, samples=self.samples, width=width, window_size=self.window_size, stride=self.stride
        )

    def example(self, seed: int = 0) -> Sample:
        """A second at 1 kHz after a picture: 1/f background, alpha at the back of the head, and the answer to the picture."""
        names, volts = imitated(self.names, self.channels, max(1.0, self.window[1] + 0.1), seed)
        return Sample(volts, f"<synthetic eeg {seed}>", {"rate": 1000.0, "channels": names, "unit": "V", "start": 0.0})

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a .fif recording, which keeps volts in float32.

        Raises:
            InputError: the sample is standardized; a recording holds volts.
        """
        import mne

        if sample.info.get("unit") == "standardized":
            raise InputError(sample.source, "standardized values", "a sample in volts, as recordings are")
        names = list(sample.info.get("channels") or [f"EEG{i + 1:03d}" for i in range(len(sample.data))])
        path = Path(folder) / f"{stem}_raw.fif"
        with mne.use_log_level("ERROR"):
            info = mne.create_info(names, float(sample.info["rate"]), "eeg")
            mne.io.RawArray(np.asarray(sample.data, np.float64), info).save(path, fmt="single", overwrite=True)
        return path

    def companions(self, path: Path) -> list[Path]:
        """The data and markers of a header, the rest of a recording in several files."""
        return companions(path)

    def describe(self, sample: Sample) -> dict[str, str]:
        """Channels, rate (Hz), duration (s), root mean square (microvolts) and where the sample starts."""
        data, names = np.asarray(sample.data, np.float64), list(sample.info.get("channels") or [])
        rms = float(data.std(axis=1).mean())
        listed = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
        flat = int((np.ptp(data, axis=1) == 0).sum())
        made = in_words(sample.info["montage"]) if "montage" in sample.info else ""
        remarks = [remark for remark in sample.info.get("remarks", ()) if remark != made]
        return {
            "channels": f"{len(data)}{listed}" + (f", {flat} of them flat" if flat else ""),
            "rate": f"{sample.info['rate']:g} Hz",
            "duration": f"{data.shape[1] / sample.info['rate']:.3g} s",
            "rms": f"{rms:.2f} (standardized)" if sample.info.get("unit") == "standardized" else f"{1e6 * rms:.1f} microvolts",
            "start": f"{sample.info.get('start', 0.0):g} s",
            **({"reference": f"average of the {len(data)} channels"} if sample.info.get("reference") or self.reference else {}),
            **({"electrodes": made} if made else {}),
            **({"remarks": "; ".join(remarks)} if remarks else {}),
        }

    def steps(self) -> list[str]:
        """The preprocessing in words."""
        return [
            f"pick {self.channels} channels"
            + (
                " by name, in the model's order; make those that are missing by spherical splines"
                if self.names
                else " in the file's order"
            ),
            *(["subtract the average of the channels (average reference)"] if self.reference else []),
            f"resample to {self.rate:g} Hz",
            *([f"band-pass {self.band[0]:g} to {self.band[1]:g} Hz"] if self.band else []),
            *(["subtract every channel's mean and divide by its deviation over the recording"] if self.standardize else []),
            f"cut {1000 * self.window[0]:g} to {1000 * self.window[1]:g} ms after the start",
            f"stretch to {self.samples} samples",
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        """Up to 16 channels one above the other, over seconds, with a bar for the scale."""
        from matplotlib import rcParams

        rate, begin = sample.info["rate"], sample.info.get("start", 0.0)
        offset = int(begin * rate)
        data = np.asarray(sample.data, np.float64)[:, offset : offset + max(2, int(4 * rate))]
        rows = np.unique(np.linspace(0, len(data) - 1, min(16, len(data))).round().astype(int))
        traces = data[rows] - np.median(data[rows], axis=1, keepdims=True)
        names = list(sample.info.get("channels") or map(str, range(1, len(data) + 1)))
        gap = 4 * float(np.median(traces.std(axis=1))) or float(np.abs(traces).max()) or 1.0
        seconds = begin + np.arange(traces.shape[1]) / rate
        for i, trace in enumerate(traces):
            axes.plot(seconds, trace - i * gap, linewidth=0.7, color=f"C{i % 10}")
        axes.set_yticks([-i * gap for i in range(len(rows))], [names[row] for row in rows])
        axes.set_xlim(begin, begin + len(seconds) / rate)
        axes.set_ylim(-len(rows) * gap, gap)
        axes.set_xlabel("time (s)")
        standardized = sample.info.get("unit") == "standardized"
        bar = 10.0 ** math.floor(math.log10(gap))
        bar *= 5 if gap >= 5 * bar else 2 if gap >= 2 * bar else 1
        label = f"{bar:g} deviations" if standardized else f"{1e6 * bar:g} microvolts"
        beside, ink = axes.get_yaxis_transform(), rcParams["text.color"]
        axes.plot([1.01, 1.01], [gap - bar, gap], color=ink, linewidth=2, transform=beside, clip_on=False)
        axes.text(1.02, gap - bar / 2, label, rotation=90, va="center", ha="left", transform=beside)

    def explore(self, sample: Sample) -> dict[str, Any]:
        """Where on the head the electrodes sit that the 10-05 system knows by name; seen from above."""
        if find_spec("mne") is None:
            return {}
        known = {plain(name): place for name, place in positions().items()}
        found = [(name, known[plain(name)]) for name in sample.info.get("channels") or () if plain(name) in known]
        if not found:
            return {}
        sphere = np.stack([place / np.linalg.norm(place) for _, place in found])
        turned = np.arccos(sphere[:, 2].clip(-1, 1)) / (np.pi / 2)  # from the crown: 1 is the height of the ears
        places = sphere[:, :2] / np.maximum(np.linalg.norm(sphere[:, :2], axis=1), 1e-9)[:, None] * turned[:, None]
        return {"electrodes": [name for name, _ in found], "places": places.astype(np.float32)}


class _AnyMontage(EEG):
    """Reads whatever EEG channels a recording has."""

    def _montage(self) -> Montage:
        return Montage(None, None)


def _interval(option: str, value: Any, low: float, high: float) -> tuple[float, float]:
    start, stop = checks.numbers(f"eeg: {option} (from, to)", value, 2)
    if not low <= start < stop < high:
        raise OptionError(f"eeg: {option} must rise from {low:g} or more to less than {high:g}, found {list(value)}")
    return start, stop


def _names_option(names: Any, channels: int) -> tuple[str, ...]:
    if isinstance(names, str):
        names = LAYOUTS[checks.one_of("eeg: names (a list of channel names, or a layout)", names, LAYOUTS)]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and plain(name) for name in names):
        raise OptionError(f"eeg: names must be a list of channel names, found {names!r:.80}")
    if len(names) != channels:
        raise OptionError(f"eeg: names lists {len(names)} channels, but channels is {channels}")
    if len({plain(name) for name in names}) != len(names):
        raise OptionError("eeg: names holds a channel twice")
    return tuple(names)


def _places_option(places: Any, names: Any) -> tuple[tuple[float, ...], ...]:
    """Directions of length 1."""
    if names is None or len(checks.listed("eeg: places", places)) != len(names):
        raise OptionError(f"eeg: places must be one for each of names, found {len(places)} for {len(names or ())}")
    found = [checks.numbers(f"eeg: places, {name} (x, y, z)", place, 3) for name, place in zip(names, places, strict=True)]
    if not all(map(any, found)):
        raise OptionError("eeg: places holds the head's centre, which is no direction")
    return tuple(place if abs(math.hypot(*place) - 1) < 1e-4 else _unit(place) for place in found)


def _unit(place: Sequence[float]) -> tuple[float, ...]:
    return tuple(value / math.hypot(*place) for value in place)


def _check_options(unit: Any, start: Any, epoch: Any, bads: Any, sparse: Any, reference: Any) -> None:
    checks.one_of("eeg: unit", unit, UNITS)
    checks.number("eeg: start (seconds into the recording)", start)
    checks.whole("eeg: epoch", epoch)
    if not isinstance(bads, list | tuple) or not all(isinstance(name, str) for name in bads):
        raise OptionError(f"eeg: bads must be a list of channel names, found {bads!r:.80}")
    checks.flag("eeg: sparse", sparse)
    if reference is not None:
        checks.one_of("eeg: reference", reference, ("average",))


def _stretch(data: np.ndarray, samples: int) -> np.ndarray:
    """Linear interpolation along time to `samples` points, both ends included."""
    position = np.linspace(0, data.shape[1] - 1, samples)
    left = np.minimum(position.astype(int), data.shape[1] - 2)
    return data[:, left] + (position - left) * (data[:, left + 1] - data[:, left])
