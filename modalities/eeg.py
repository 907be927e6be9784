"""EEG: volts of named channels become one window of 512 samples, a token each.

Preprocessing follows ViT-Lens (arXiv 2311.16081) on the ImageNet-EEG recordings (Spampinato et al., CVPR 2017): 128 channels at
1 kHz, the first 20 ms after the picture are left out, 440 samples are stretched to 512.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from vitlens.modalities.eeg_drawing import draw_traces
from vitlens.modalities.eeg_example import imitated
from vitlens.modalities.eeg_kept import PREPARED, RECORDING, of_file
from vitlens.modalities.eeg_montage import ACCEPTED, Montage, Picking, in_words
from vitlens.modalities.eeg_options import check_reading, interval, names_option, places_option
from vitlens.modalities.eeg_places import plain, positions
from vitlens.modalities.eeg_recordings import Recording, from_file
from vitlens.modalities.eeg_values import UNITS
from vitlens.modalities.eeg_windows import checked_windows, every, in_file
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source, suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

FULL = 0.97
"""The data set keeps trials that miss up to 10 of the window's 440 samples, and stretches them."""
BY_NAME = "by name, in the model's order; make those that are missing by spherical splines"
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
        object.__setattr__(self, "window", interval("window", self.window, 0, math.inf))
        if round(self.window[1] * self.rate) - round(self.window[0] * self.rate) < 2:
            raise OptionError(f"eeg: window {list(self.window)} holds less than two samples at {self.rate} Hz")
        if self.band is not None:
            object.__setattr__(self, "band", interval("band", self.band, 1e-3, self.rate / 2))
        if self.names is not None:
            object.__setattr__(self, "names", names_option(self.names, self.channels))
        if self.places is not None:
            object.__setattr__(self, "places", places_option(self.places, self.names))
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
        windows: float | str | None = None,
        keep: bool = False,
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

        `windows` makes several items of a recording, see the method of this name; `keep` keeps what is read for the next of them.

        `unit` is that of an array's values (a file's own units are known; another `unit` than "V" scales them further, for files
        that state theirs wrongly); "standardized" values have mean 0 and deviation 1 per channel and are left as they are. `rate`
        belongs to an array; of a recording it is only checked. `key` names the array of an .npz. `info["montage"]` says what was
        measured and what made, `info["remarks"]` that in words and what MNE warns of.

        Raises:
            InputError: missing, empty or truncated, lacks channels, flat, not finite, not of its unit, an array without rate ...
            OptionError: an unknown `unit`, or a `start` or `epoch` that is no number.
        """
        check_reading(unit, start, epoch, bads, sparse, reference)
        if windows is not None:
            raise OptionError("eeg: windows= makes several items of one: EEG.windows() lists them, so does vitlens embed")
        checks.flag("eeg: keep", keep)
        given = Source(source, ACCEPTED)
        rate = None if rate is None else values.checked_rate(rate, given)
        pick = Picking(self._montage(), channels, tuple(bads), montage, sparse)

        def read() -> Sample:
            sample = self._sample(self._recording(given, rate, unit, float(start), int(epoch), pick, format, key), unit, given)
            if keep:
                sample = replace(sample, info={**sample.info, "begins": float(start) - sample.info["start"], "keep": True})
            return sample

        if not keep or not given.is_path:
            sample = read()
        else:
            asked = of_file(source), repr((self, rate, unit, epoch, pick, format, key))
            sample = RECORDING.get(asked, read, lambda last: _holds(last, float(start)))
            sample = replace(sample, info={**sample.info, "start": float(start) - sample.info["begins"]})
        return sample if reference is None else replace(sample, info={**sample.info, "reference": reference})

    def _sample(self, recording: Recording, unit: str, given: Source) -> Sample:
        """The model's channels of what was read, and what is known of them."""
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
        return Sample(picked.apply(recording.data), given.name, {**info, "remarks": remarks} if remarks else info)

    def windows(self, source: Any, how: Any, **options: Any) -> dict[str, dict[str, Any]]:
        """The windows of a recording: what each is called ("t=2.5"), and its read options (start=2.5).

        `how` is a number - a window every so many seconds, of each piece of the recording - or a text: one at every event of
        this name or pattern (marks of the file, codes of a trigger channel; "event 12" where the name is a number); of a file of
        epochs those of this name. `options` are those of the reading.

        Raises:
            InputError: no recording, one shorter than a window, or no such event; those there are are listed.
            OptionError: a `how` that is neither.
        """
        how, given = checked_windows(how), Source(source, ACCEPTED)
        if not given.is_array:
            with given.local_file(self.extensions, options.get("format")) as path:
                if suffix_of(path) not in ("npy", "npz"):
                    return in_file(path, given, how, self.window)
        if isinstance(how, str):
            raise given.refuse(f"an array, and windows at events {how!r}", "windows every so many seconds")
        sample = self.inspect(source, **{**options, "start": 0.0})
        return every(how, [(0.0, sample.data.shape[1] / sample.info["rate"])], self.window, given)

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
        standardized = sample.info.get("unit") == "standardized"
        if sample.info.get("reference") or self.reference:
            data = self._rereferenced(data, standardized, sample.source)
        if sample.info.get("keep"):
            whole = self._kept(sample.data, data, rate, total, standardized)[:, first:last]
            window = torch.from_numpy(_stretch(whole, self.samples).astype(np.float32))
        else:
            parts = [_stretch(part[:, first:last], self.samples) for part in self._parts(data, rate, total, standardized)]
            window = torch.from_numpy(np.concatenate(parts).astype(np.float32))
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

    def _kept(self, key: np.ndarray, data: np.ndarray, rate: float, total: int, standardized: bool) -> np.ndarray:
        """All of a recording as windows are cut from it, float32 [channels, total]."""

        def make() -> tuple[np.ndarray, np.ndarray]:
            whole = np.empty((len(data), total), np.float32)
            np.concatenate(list(self._parts(data, rate, total, standardized)), out=whole, casting="same_kind")
            return key, whole  # the key is held: no other array can take its place in memory

        return PREPARED.get((id(key), self, data is key), make, lambda last: last[0] is key)[1]

    def _parts(self, data: np.ndarray, rate: float, total: int, standardized: bool) -> Iterator[np.ndarray]:
        """All samples at the model's rate, some channels at a time for the sake of memory."""
        step = max(1, (1 << 23) // max(total, data.shape[1]))
        return (self._prepared(data[i : i + step], rate, standardized) for i in range(0, len(data), step))

    def _prepared(self, data: np.ndarray, rate: float, standardized: bool) -> np.ndarray:
        """Some channels at the model's rate, filtered and standardized, float64 [c, total]."""
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
        return data

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
            f"pick {self.channels} channels " + (BY_NAME if self.names else "in the file's order"),
            *(["subtract the average of the channels (average reference)"] if self.reference else []),
            f"resample to {self.rate:g} Hz",
            *([f"band-pass {self.band[0]:g} to {self.band[1]:g} Hz"] if self.band else []),
            *(["subtract every channel's mean and divide by its deviation over the recording"] if self.standardize else []),
            f"cut {1000 * self.window[0]:g} to {1000 * self.window[1]:g} ms after the start",
            f"stretch to {self.samples} samples",
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        """Up to 16 channels one above the other, over seconds, with a bar for the scale."""
        draw_traces(sample, axes)

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


def _holds(sample: Sample, start: float) -> bool:
    """Whether a kept recording, or the piece of one, goes over the moment `start`."""
    begins, seconds = sample.info["begins"], sample.data.shape[1] / sample.info["rate"]
    return bool(begins <= start < begins + seconds)


def _stretch(data: np.ndarray, samples: int) -> np.ndarray:
    """Linear interpolation along time to `samples` points, both ends included."""
    position = np.linspace(0, data.shape[1] - 1, samples)
    left = np.minimum(position.astype(int), data.shape[1] - 2)
    return data[:, left] + (position - left) * (data[:, left + 1] - data[:, left])
