"""IMU: acceleration and turning of a thing that an inertial sensor sits on become one window, some samples a token.

Layout and length follow ImageBind (arXiv 2305.05665): six channels, 2,000 samples, five seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitlens import checks
from vitlens.errors import InputError, OptionError
from vitlens.lens_config import PerceiverConfig
from vitlens.modalities.imu_columns import CHANNELS, GRAVITY
from vitlens.modalities.imu_tables import looks_like_motion, of_array, read_table
from vitlens.modalities.imu_values import checked_units, motion
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

FULL = 0.97
"""Of the window must have been recorded; what lacks of the rest is the last value."""
JITTER, NOISE, GAIN = 0.02, 0.02, 0.03
"""Augmentation: seconds by which the window moves, noise in deviations of the window, and how far a sensor is off its scale."""
MARGIN = 0.5
"""Seconds around the window that its resampling may look at."""


@register_modality
@dataclass(frozen=True)
class IMU(Modality):
    """Inertial measurement unit: accelerometer and gyroscope along x, y, z; one window of `seconds` as `samples` points."""

    name = "imu"
    unit = "m/s² (accelerometer x, y, z) and rad/s (gyroscope x, y, z), float32 [6, samples], with rate in hertz"
    accepts = (
        "a table (csv, parquet, npy, npz) with a column for each axis of accelerometer and gyroscope, or an array [6, samples], "
        "with units and rate"
    )
    extensions = ("csv", "tsv", "txt", "parquet", "npy", "npz")
    default_lens = PerceiverConfig(depth=1)

    seconds: float = 5.0
    samples: int = 2000
    acceleration: float = GRAVITY
    """m/s² that become 1."""
    turning: float = 2.0
    """rad/s that become 1."""
    compress: bool = False
    """Whether values x become asinh(x), so that a blow of a hundred g and a trembling are both seen."""
    short: Literal["error", "hold"] = "error"
    """What becomes of a window of which less than 97 % was recorded: it is refused, or holds its last value."""
    window_size: int = 20
    """Samples per token."""
    stride: int = 20

    def __post_init__(self) -> None:
        checks.number("imu: seconds", self.seconds, least=0.05, most=3600)
        for option in ("samples", "window_size", "stride"):
            checks.whole(f"imu: {option}", getattr(self, option), least=1, most=1 << 20)
        if self.window_size > self.samples or self.samples < 2:
            raise OptionError(f"imu: window_size {self.window_size} does not fit into samples {self.samples}")
        checks.number("imu: acceleration", self.acceleration, above=0)
        checks.number("imu: turning", self.turning, above=0)
        checks.flag("imu: compress", self.compress)
        checks.one_of("imu: short", self.short, ("error", "hold"))

    def read(
        self,
        source: Any,
        *,
        rate: float | None = None,
        accel_unit: str | float | None = None,
        gyro_unit: str | float | None = None,
        time_unit: str | None = None,
        columns: Sequence[str] | None = None,
        missing: str = "error",
        start: float = 0.0,
        format: str | None = None,
        key: str | None = None,
    ) -> Sample:
        """Read a recording as float32 [6, samples] in m/s² and rad/s, at even steps.

        Channels are found by their columns' names (`ax`, `Accel_X (g)`, `gyro.z [deg/s]`, `rotationRateX(rad/s)` ...); an array
        without names holds ax, ay, az, gx, gy, gz. `columns` says it otherwise: of a table with names, which six it is in that
        order (seven: the time before them); of one without, what its rows are. Units stand in the names or are said:
        `accel_unit` "m/s2", "g", "mg" or m/s² per count, `gyro_unit` "rad/s", "deg/s", "mdeg/s" or rad/s per count, `time_unit`
        "s", "ms", "us", "ns". Uneven times are made even; gaps and pauses are in `info["remarks"]`, and of a recording with
        pauses the piece is read that holds `start` (seconds after its first row), where the window begins. `rate` (hertz)
        belongs to a table without times. `missing="zero"` takes a recording without a gyroscope.

        Raises:
            InputError: no unit, no rate, a channel that lacks or may be several columns, time that runs backwards, values that
                no sensor measures in the unit that was said, truncated, NaN ...
            OptionError: an unknown unit, or options that make no sense.
        """
        units = checked_units(accelerometer=accel_unit, gyroscope=gyro_unit, time=time_unit)
        checks.one_of("imu: missing", missing, ("error", "zero"))
        start = checks.number("imu: start (seconds into the recording)", start, least=0)
        if rate is not None:
            rate = checks.number("imu: rate (hertz)", rate, least=1 / 60, most=100_000)
        if columns is not None and (not isinstance(columns, list | tuple) or not all(isinstance(c, str) for c in columns)):
            raise OptionError(f"imu: columns must be a list of names, found {columns!r:.80}")
        given = Source(source, self.accepts)
        if given.is_array:
            table = of_array(given.array(), given)
        else:
            with given.local_file(self.extensions, format) as path:
                table = read_table(path, given, key)
        if columns is not None and table.names is not None and len(columns) not in (6, 7):
            raise OptionError(f"imu: columns names {len(columns)}; a table with names takes six, or seven with the time first")
        found = motion(table, given, columns=columns, units=units, rate=rate, start=start, missing=missing)
        if found.start >= found.data.shape[1] / found.rate:
            raise given.refuse(f"start {start:g} s is outside its {found.data.shape[1] / found.rate:g} s")
        info: dict[str, Any] = {"rate": found.rate, "channels": list(CHANNELS), "start": found.start}
        info |= {"pieces": list(found.pieces)} if found.pieces else {}
        return Sample(found.data, given.name, {**info, "remarks": found.remarks} if found.remarks else info)

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """One window float32 [6, samples]; to train, one that starts up to 20 ms earlier or later, of a sensor a little off.

        Raises:
            InputError: less than 97 % of the window was recorded, and `short` is not "hold".
        """
        import torch

        data, rate = np.asarray(sample.data), float(sample.info["rate"])
        start = float(sample.info.get("start", 0.0))
        total = data.shape[1] / rate
        if train:
            start += JITTER * float(torch.rand(()) * 2 - 1)
            start = min(max(start, 0.0), max(0.0, total - self.seconds))
        there = max(0.0, total - start) / self.seconds
        if there < FULL and self.short == "error":
            found = f"{max(0.0, total - start):.3g} s from its start, of a window of {self.seconds:g} s"
            raise InputError(sample.source, found, "a longer recording, or the option short='hold'")
        window = self._window(data, rate, start)
        window /= np.repeat([self.acceleration, self.turning], 3)[:, None]
        x = torch.from_numpy((np.arcsinh(window) if self.compress else window).astype(np.float32))
        if not train:
            return x
        x = x * (1 + GAIN * torch.randn(6, 1))
        return x + NOISE * x.std() * torch.randn_like(x)

    def _window(self, data: np.ndarray, rate: float, start: float) -> np.ndarray:
        """[6, samples] from `start` on, at the model's rate; what lacks at the end holds the last value."""
        own = self.samples / self.seconds
        first, last = max(0, int((start - MARGIN) * rate)), int((start + self.seconds + MARGIN) * rate) + 1
        piece = data[:, first:last].astype(np.float64)
        speed = (Fraction(own) / Fraction(rate)).limit_denominator(1000)
        if speed != 1:
            from scipy.signal import resample_poly

            middle = piece.mean(axis=1, keepdims=True)
            piece = resample_poly(piece - middle, speed.numerator, speed.denominator, axis=1, padtype="line") + middle
        at = round((start - first / rate) * own)
        window = piece[:, at : at + self.samples]
        lacking = self.samples - window.shape[1]
        return np.pad(window if window.size else piece[:, -1:], ((0, 0), (0, max(0, lacking))), mode="edge")[:, : self.samples]

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """One convolution over time: [b, 6, samples] -> [b, n, width], positions included."""
        from vitlens.embed import SignalEmbed

        return SignalEmbed(
            channels=len(CHANNELS), samples=self.samples, width=width, window_size=self.window_size, stride=self.stride
        )

    def example(self, seed: int = 0) -> Sample:
        """A telephone in a walker's pocket, who turns round half way: seconds + 1 at 100 Hz."""
        rng, rate = np.random.default_rng(seed), 100.0
        time = np.arange(round(rate * (self.seconds + 1))) / rate
        pace, half = 2 * np.pi * rng.uniform(1.6, 2.1), (self.seconds + 1) / 2
        step = pace * time + rng.uniform(0, 2 * np.pi)
        bounce = 2.6 * np.sin(step) + 1.2 * np.sin(2 * step + 0.7) + 6 * np.exp(8 * (np.cos(step - 1) - 1))
        sway = 1.1 * np.sin(step / 2)
        turn = np.pi / 0.9 * np.exp(-(((time - half) / 0.5) ** 2))
        lean = 0.3 + 0.12 * np.sin(step / 2 + rng.uniform(0, 1))
        acceleration = [
            sway + 0.4 * turn,
            (GRAVITY + bounce) * np.cos(lean),
            (GRAVITY + bounce) * np.sin(lean) + 0.8 * np.cos(step),
        ]
        turning = [0.12 * pace / 2 * np.cos(step / 2), turn * np.cos(lean) + 0.5 * np.sin(step / 2), turn * np.sin(lean)]
        data = np.stack([*acceleration, *turning]) + rng.normal(0, 1, (6, len(time))) * np.repeat([0.06, 0.01], 3)[:, None]
        info = {"rate": rate, "channels": list(CHANNELS), "start": 0.0}
        return Sample(data.astype(np.float32), f"<synthetic imu {seed}>", info)

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a .csv with a time column, units in its header, and every digit of the float32 values."""
        path = Path(folder) / f"{stem}.csv"
        units = ["m/s2"] * 3 + ["rad/s"] * 3
        header = ",".join(["time (s)", *(f"{name} ({unit})" for name, unit in zip(CHANNELS, units, strict=True))])
        data = np.asarray(sample.data, np.float64)
        table = np.column_stack([np.arange(data.shape[1]) / float(sample.info["rate"]), data.T])
        np.savetxt(path, table, fmt=["%.7f"] + ["%.9g"] * 6, delimiter=",", header=header, comments="")
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        """Rate (Hz), duration (s), typical and largest acceleration (m/s²) and turning (rad/s), and where the window starts."""
        data, rate = np.asarray(sample.data, np.float64), float(sample.info["rate"])
        lengths = [np.sqrt((rows**2).sum(axis=0)) for rows in (data[:3], data[3:])]
        return {
            "channels": ", ".join(sample.info.get("channels") or CHANNELS),
            "rate": f"{rate:.6g} Hz",
            "duration": f"{data.shape[1] / rate:.3g} s",
            "acceleration": f"{np.median(lengths[0]):.2f} m/s² by the median, at most {lengths[0].max():.4g}",
            "turning": f"{np.median(lengths[1]):.2f} rad/s by the median, at most {lengths[1].max():.4g}",
            "start": f"{sample.info.get('start', 0.0):g} s",
            **({"remarks": "; ".join(sample.info["remarks"])} if sample.info.get("remarks") else {}),
        }

    def steps(self) -> list[str]:
        """The preprocessing in words."""
        return [
            f"cut {self.seconds:g} s from the start",
            f"resample to {self.samples / self.seconds:g} Hz: {self.samples} samples",
            f"divide acceleration by {self.acceleration:g} m/s², turning by {self.turning:g} rad/s",
            *(["take asinh of both"] if self.compress else []),
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        """Acceleration above, turning below, over seconds; of a long recording the first minute from the start."""
        rate, begin = float(sample.info["rate"]), float(sample.info.get("start", 0.0))
        first = int(begin * rate)
        data = np.asarray(sample.data, np.float64)[:, first : first + max(2, int(60 * rate))]
        seconds = begin + np.arange(data.shape[1]) / rate
        below = axes.twinx()
        for half, rows, colours in ((axes, data[:3], "C0 C1 C2"), (below, data[3:], "C3 C4 C5")):
            for axis, row, colour in zip("xyz", rows, colours.split(), strict=True):
                half.plot(seconds, row, linewidth=0.8, color=colour, label=axis)
            low, high = float(rows.min()), float(rows.max())
            span = max(high - low, 1e-3)
            up = half is axes
            half.set_ylim(low - 1.25 * span if up else low - 0.1 * span, high + 0.1 * span if up else high + 1.25 * span)
            half.set_ylabel("acceleration (m/s²)" if up else "turning (rad/s)", loc="top" if up else "bottom")
            half.legend(loc="upper right" if up else "lower right", ncols=3, fontsize="small")
        axes.set_xlim(seconds[0], seconds[-1])
        axes.set_xlabel("time (s)")

    def claims(self, path: Path) -> float:
        """2 for a table whose column names say so, or an array of six rows; 0 for other tables: most are something else."""
        if super().claims(path) == 0:
            return 0.0
        return 2.0 if looks_like_motion(path) else 0.0
