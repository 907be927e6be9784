"""IMU: tables as loggers write them, their units, clocks and gaps, and the window that a model gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from vitlens.errors import InputError, OptionError
from vitlens.modalities.imu import IMU
from vitlens.modalities.imu_columns import CHANNELS, GRAVITY, column
from vitlens.modality import guess_modality

imu = IMU()
SI = {"accel_unit": "m/s2", "gyro_unit": "rad/s"}
WALK = imu.example(0).data
RATE = 100.0
TIME = np.arange(WALK.shape[1]) / RATE


def csv(path: Path, header: str, columns: Any, *, mark: str = ",", comma: bool = False, before: str = "") -> Path:
    """A table under `header`."""
    shown = [["" if x != x else str(x).replace(".", "," if comma else ".") for x in row] for row in zip(*columns, strict=True)]
    rows = [mark.join(row) for row in shown]
    path.write_text(before + "\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


LOGGERS = {
    "plain": ("time (s),ax (m/s2),ay (m/s2),az (m/s2),gx (rad/s),gy (rad/s),gz (rad/s)", 1, 1, 1, {}),
    "phyphox": (
        '"Time (s)","Acceleration x (m/s^2)","Acceleration y (m/s^2)","Acceleration z (m/s^2)",'
        '"Gyroscope x (rad/s)","Gyroscope y (rad/s)","Gyroscope z (rad/s)"', 1, 1, 1, {},
    ),
    "sensorlog": (
        "timestamp_ms,accelerometerAccelerationX(G),accelerometerAccelerationY(G),accelerometerAccelerationZ(G),"
        "gyroRotationX(rad/s),gyroRotationY(rad/s),gyroRotationZ(rad/s)", 1e3, 1 / GRAVITY, 1, {},
    ),
    "registers": (
        "t,acc_x,acc_y,acc_z,gyro_x,gyro_y,gyro_z", 1e6, 1e3 / GRAVITY, 180 / np.pi, {"accel_unit": "mg", "gyro_unit": "deg/s"},
    ),
    "counts": (
        "us,aX,aY,aZ,wX,wY,wZ", 1e6, 4096 / GRAVITY, 16.4 * 180 / np.pi,
        {"accel_unit": GRAVITY / 4096, "gyro_unit": np.pi / 180 / 16.4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOGGERS)
def test_tables_of_loggers_are_the_same_motion(name: str, tmp_path: Path) -> None:
    header, ticks, force, turning, said = LOGGERS[name]
    path = csv(
        tmp_path / "walk.csv", header, [TIME * ticks, *(WALK[:3].astype(float) * force), *(WALK[3:].astype(float) * turning)]
    )
    sample = imu.read(path, **said)
    np.testing.assert_allclose(sample.data, WALK, rtol=1e-5, atol=1e-6)
    assert sample.info["rate"] == pytest.approx(RATE)
    assert sample.info.get("remarks", []) == (
        ["times of no stated unit, 10000 apart: taken as us"] if name == "registers" else []
    )
    assert guess_modality(path) == "imu"


def test_csv_is_read_in_any_dress(tmp_path: Path) -> None:
    head = "time;Accel_LN_X;Accel_LN_Y;Accel_LN_Z;Gyro_X;Gyro_Y;Gyro_Z;Battery"
    units = "ms;m/(s^2);m/(s^2);m/(s^2);deg/s;deg/s;deg/s;mV"
    columns = [TIME * 1000, *WALK[:3], *(WALK[3:] * 180 / np.pi), [3700.0] * len(TIME)]
    dressed = csv(tmp_path / "shimmer.csv", f"{head}\n{units}", columns, mark=";", comma=True, before="# Shimmer 8665\n\n")
    np.testing.assert_allclose(imu.read(dressed).data, WALK, rtol=1e-4, atol=1e-5)
    bare = tmp_path / "bare.txt"
    np.savetxt(bare, np.column_stack([TIME, WALK.T]), fmt="%.9g")
    names = ["time", *CHANNELS]
    with pytest.raises(InputError, match="7 channels, but the six are ax"):
        imu.read(bare, **SI)
    np.testing.assert_allclose(imu.read(bare, columns=names, time_unit="s", **SI).data, WALK, rtol=1e-6)
    utf16 = tmp_path / "wide.csv"
    utf16.write_text(dressed.read_text(encoding="utf-8"), encoding="utf-16")
    np.testing.assert_array_equal(imu.read(utf16).data, imu.read(dressed).data)


def test_parquet_and_npy_with_named_columns(tmp_path: Path) -> None:
    stamps = np.datetime64("2026-01-01T00:00:00", "ns") + (TIME * 1e9).round().astype("timedelta64[ns]")
    named: dict[str, Any] = {"label": ["walk"] * len(TIME), "timestamp": stamps}
    named |= {f"{name} (m/s2)": row for name, row in zip(CHANNELS[:3], WALK[:3], strict=True)}
    named |= {f"{name}_dps": row * 180 / np.pi for name, row in zip(CHANNELS[3:], WALK[3:], strict=True)}
    parquet.write_table(pa.table(named), tmp_path / "walk.parquet")
    sample = imu.read(tmp_path / "walk.parquet")
    np.testing.assert_allclose(sample.data, WALK, rtol=1e-5, atol=1e-6)
    assert guess_modality(tmp_path / "walk.parquet") == "imu"
    parquet.write_table(pa.table({"caption": ["a dog"], "image": ["a.jpg"]}), tmp_path / "manifest.parquet")
    assert imu.claims(tmp_path / "manifest.parquet") == 0
    table = np.empty(len(TIME), [("t", "f8"), *((name, "f4") for name in CHANNELS)])
    table["t"] = TIME
    for name, row in zip(CHANNELS, WALK, strict=True):
        table[name] = row
    np.save(tmp_path / "walk.npy", table)
    np.testing.assert_array_equal(imu.read(tmp_path / "walk.npy", **SI).data, WALK)
    assert guess_modality(tmp_path / "walk.npy") == "imu"
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "walk.parquet").read_bytes()[:-300])
    with pytest.raises(InputError, match="cannot be decoded"):
        imu.read(tmp_path / "cut.parquet")


def test_arrays_have_six_rows_a_rate_and_units() -> None:
    for array in (WALK, WALK.T, torch.from_numpy(WALK)):
        np.testing.assert_array_equal(imu.read(array, rate=100, **SI).data, WALK)
    swapped = imu.read(WALK[[3, 4, 5, 0, 1, 2]], rate=100, columns=["gx", "gy", "gz", "ax", "ay", "az"], **SI)
    np.testing.assert_array_equal(swapped.data, WALK)
    alone = imu.read(WALK[:3], rate=100, columns=["ax", "ay", "az"], accel_unit="m/s2", missing="zero")
    assert not alone.data[3:].any() and "no gyroscope" in alone.info["remarks"][0]


def test_what_nobody_says_is_asked_about() -> None:
    asked = {
        "accel_unit='m/s2', 'g' or 'mg'": (WALK, {"rate": 100}),
        "gyro_unit='rad/s', 'deg/s' or 'mdeg/s'": (WALK, {"rate": 100, "accel_unit": "m/s2"}),
        "rate=100": (WALK, SI),
        "missing='zero'": (WALK[:3], {"rate": 100, "columns": ["ax", "ay", "az"], "accel_unit": "m/s2"}),
        "time_unit='s', 'ms', 'us' or 'ns'": (np.vstack([np.arange(len(TIME)), WALK]), {"columns": ["t", *CHANNELS], **SI}),
    }
    for hint, (source, said) in asked.items():
        with pytest.raises(InputError, match=hint.replace("'", ".")):
            imu.read(source, **said)


def test_values_of_another_unit_than_was_said_are_refused(tmp_path: Path) -> None:
    still = 1e-3 * np.random.default_rng(0).normal(size=(6, 600))
    still[2] += 1
    fast = np.vstack([WALK[:3], 100 * WALK[3:]])
    wrong = {
        "probably g": (still, SI),
        "probably m/s": (still * GRAVITY, {**SI, "accel_unit": "g"}),
        "probably deg/s": (fast, SI),
        "counts": (WALK * 4096, SI),
        "flat": (np.ones((6, 600)), SI),
        "NaN": (np.where(np.arange(WALK.shape[1]) == 5, np.nan, WALK), SI),
    }
    for reason, (source, said) in wrong.items():
        with pytest.raises(InputError, match=reason):
            imu.read(source, rate=100, **said)
    header = LOGGERS["sensorlog"][0]
    path = csv(tmp_path / "said.csv", header, [TIME * 1e3, *WALK])
    with pytest.raises(InputError, match="probably m/s"):
        imu.read(path)
    sample = imu.read(path, accel_unit="m/s2")  # a header that is wrong
    np.testing.assert_allclose(sample.data, WALK, rtol=1e-5)
    assert "say g, accel_unit says m/s2" in sample.info["remarks"][0]


def test_uneven_times_gaps_and_empty_cells_are_made_even_and_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    slow = np.sin(2 * np.pi * 0.7 * TIME)
    times = TIME + rng.uniform(-0.002, 0.002, len(TIME))
    rows = [np.sin(2 * np.pi * 0.7 * times) + k for k in range(6)]
    kept = (TIME < 2) | (TIME > 2.2)
    uneven = csv(tmp_path / "uneven.csv", LOGGERS["plain"][0], [times[kept], *(row[kept] for row in rows)])
    sample = imu.read(uneven)
    grid = np.arange(sample.data.shape[1]) / sample.info["rate"]
    np.testing.assert_allclose(sample.data[0], np.sin(2 * np.pi * 0.7 * (grid + times[0])), atol=0.09)
    said = "; ".join(sample.info["remarks"])
    assert "1 gap(s) of at most 0.2" in said and "uneven times" in said
    other = np.arange(len(TIME)) % 2 == 1  # a gyroscope of half the rate, beside an accelerometer
    merged = [TIME, *(slow + k for k in range(3)), *(np.where(other, np.nan, slow + k) for k in range(3))]
    sample = imu.read(csv(tmp_path / "merged.csv", LOGGERS["plain"][0], merged))
    assert sample.info["rate"] == pytest.approx(100) and "300 of 600 rows are empty" in sample.info["remarks"][0]
    np.testing.assert_allclose(sample.data[3], slow[: sample.data.shape[1]], atol=0.002)


def test_a_pause_parts_a_recording(tmp_path: Path) -> None:
    times = np.where(np.arange(600) < 200, TIME, TIME + 10)
    path = csv(tmp_path / "paused.csv", LOGGERS["plain"][0], [times, *WALK])
    first, second = imu.read(path), imu.read(path, start=12.5)
    assert first.data.shape[1] == 200 and second.data.shape[1] == 400
    assert second.info["start"] == pytest.approx(0.5) and "0 to 1.99 s, 12 to" in second.info["remarks"][0]
    with pytest.raises(InputError, match="start 5 s is outside"):
        imu.read(path, start=5)
    with pytest.raises(InputError, match="2 s from its start, of a window of 5 s"):
        imu.transform(first)


def test_clocks_that_cannot_be_are_refused(tmp_path: Path) -> None:
    clocks = {
        "backwards at row 301": np.where(np.arange(600) < 300, TIME, TIME - 1),
        "too coarse": np.floor(TIME * 10) / 10,
        "but rate=50": TIME,
    }
    for reason, times in clocks.items():
        with pytest.raises(InputError, match=reason):
            imu.read(csv(tmp_path / "clock.csv", LOGGERS["plain"][0], [times, *WALK]), **({"rate": 50} if "50" in reason else {}))


def test_columns_that_may_be_several_are_asked_about(tmp_path: Path) -> None:
    both = csv(tmp_path / "two.csv", ",".join(f"{w}_{n} ({u})" for w in ("wrist", "ankle") for n, u in (
        ("acc_x", "m/s2"), ("acc_y", "m/s2"), ("acc_z", "m/s2"), ("gyro_x", "rad/s"), ("gyro_y", "rad/s"), ("gyro_z", "rad/s"))),
        [*WALK, *(2 * WALK)])  # fmt: skip
    with pytest.raises(InputError, match="several columns that may be ax: wrist_acc_x"):
        imu.read(both, rate=100)
    names = [f"ankle_{n}_{a} ({u})" for n, u in (("acc", "m/s2"), ("gyro", "rad/s")) for a in "xyz"]
    np.testing.assert_allclose(imu.read(both, rate=100, columns=names).data, 2 * WALK, rtol=1e-6)
    with pytest.raises(InputError, match="no single column 'nose'"):
        imu.read(both, rate=100, columns=["nose", *names[1:]])


def test_names_of_other_quantities_are_not_taken() -> None:
    for name in ("mag_x", "gravity_x", "quat_x", "temperature", "x", "label", "roll", "acc_mean", "heart_rate", "g", "a"):
        assert column(name) is None, name
    gravityless = column("motionUserAccelerationX(G)")
    assert gravityless is not None and gravityless.linear and gravityless.unit == "g"


def test_the_window_is_imagebinds_and_begins_at_the_start() -> None:
    seconds = np.arange(1200) / RATE
    sample = imu.read(np.stack([GRAVITY * seconds] * 3 + [2 * seconds] * 3) * 0.1, rate=RATE, start=3, **SI)
    x = imu.transform(sample)
    assert x.shape == (6, 2000) and x.dtype == torch.float32
    torch.testing.assert_close(x[0], torch.arange(2000) / 4000 + 0.3, atol=2e-3, rtol=0)
    torch.testing.assert_close(x[3], x[0], atol=2e-3, rtol=0)
    short = imu.read(WALK[:, :300], rate=RATE, **SI)
    with pytest.raises(InputError, match="3 s from its start, of a window of 5 s"):
        imu.transform(short)
    held = IMU(short="hold").transform(short)
    assert held.shape == (6, 2000) and bool((held[:, 1300:] == held[:, 1300:1301]).all())
    squeezed = IMU(compress=True).transform(sample)
    torch.testing.assert_close(squeezed, torch.asinh(x))


def test_options_are_checked_and_survive_json() -> None:
    other = IMU(seconds=2, samples=128, window_size=8, stride=8, compress=True)
    assert IMU(**json.loads(json.dumps(other.options()))) == other
    for wrong in ({"seconds": 0}, {"samples": 1}, {"turning": 0}, {"short": "repeat"}, {"compress": 1}, {"window_size": 3000}):
        with pytest.raises(OptionError, match="imu: "):
            IMU(**wrong)
    for wrong in (
        {"accel_unit": "ft/s2"},
        {"gyro_unit": -1.0},
        {"time_unit": 5},
        {"missing": "guess"},
        {"start": -1},
        {"columns": "ax"},
    ):
        with pytest.raises(OptionError, match="imu: "):
            imu.read(WALK, rate=100, **{**SI, **wrong})


@settings(max_examples=60, deadline=None)
@given(st.text("0123456789.,;-\n axyzgt()/s", max_size=200) | st.binary(max_size=120))
def test_wild_files_are_read_or_refused(content: str | bytes) -> None:
    raw = content if isinstance(content, bytes) else f"t,ax,ay,az,gx,gy,gz\n{content}".encode()
    try:
        sample = imu.read(raw, format="csv", rate=100, time_unit="s", **SI)
    except InputError:
        return
    assert sample.data.dtype == np.float32 and np.isfinite(sample.data).all()
