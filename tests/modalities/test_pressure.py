"""Pressure: kilopascal out of arrays and text, and no guess about units, forms or the order of axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitlens.errors import InputError, OptionError
from vitlens.modalities.pressure import Pressure, footstep

pressure = Pressure()
FILM = footstep(0, frames=6, height=16, width=8)


def text(rows: np.ndarray, delimiter: str = ",") -> str:
    return "\n".join(delimiter.join(f"{value:.6f}" for value in row) for row in rows) + "\n"


def test_every_kind_of_file_gives_kilopascal(tmp_path: Path) -> None:
    np.save(tmp_path / "kpa.npy", FILM)
    np.savez(tmp_path / "two.npz", mat=(FILM / 6.894757293).astype(np.float64), time=np.arange(6))
    (tmp_path / "one.csv").write_text("# a mat of somebody\n" + text(FILM[2], ";"))
    (tmp_path / "film.txt").write_text("\n".join(text(frame, " ") for frame in FILM))
    flat = np.concatenate([np.arange(6)[:, None] * 20.0, FILM.reshape(6, -1)], axis=1)
    names = ",".join(f"c{i}" for i in range(128))
    (tmp_path / "lines.csv").write_text(f"time_ms,{names}\n" + text(flat))
    options: dict[str, dict[str, Any]] = {
        "kpa.npy": {},
        "two.npz": {"unit": "psi", "key": "mat"},
        "one.csv": {},
        "film.txt": {},
        "lines.csv": {"shape": [16, 8]},
    }
    for name, own in options.items():
        sample = pressure.read(tmp_path / name, **own)
        expected = FILM[2:3] if name == "one.csv" else FILM
        assert sample.data.dtype == np.float32
        np.testing.assert_allclose(sample.data, expected, atol=1e-3, err_msg=name)
        assert sample.info == ({"rate": pytest.approx(50.0)} if name == "lines.csv" else {})
    counts = np.rint(FILM * 4).astype(np.uint16)
    np.testing.assert_allclose(pressure.read(counts, scale=0.25, rate=50).data, FILM, atol=0.13)
    np.testing.assert_allclose(pressure.read(FILM[0] * 1000, unit="Pa").data[0], FILM[0], atol=1e-3)
    np.testing.assert_allclose(pressure.read(FILM - np.float32(0.5)).data, (FILM - 0.5).clip(0), atol=1e-4)


def test_what_would_be_a_guess_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "either.csv").write_text(text(np.random.default_rng(0).random((20, 64))))
    (tmp_path / "timed.csv").write_text("time,a,b,c,d\n" + text(np.random.default_rng(0).random((9, 5)).cumsum(0)))
    (tmp_path / "ragged.csv").write_text("1.5,2\n3\n")
    (tmp_path / "words.csv").write_text("1.5,2\n3,oops\n")
    (tmp_path / "none.csv").write_text("a,b\n")
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (np.rint(FILM), {}, r"whole numbers from 0 to \d+ of unknown unit.*kPa, Pa"),
        (np.rint(FILM).astype(np.uint8), {}, "whole numbers"),
        (FILM - 100, {}, "a mat is not pulled"),
        (FILM * 1000, {}, "which no mat measures"),
        (np.moveaxis(np.tile(FILM, (1, 1, 2)), 0, -1), {}, r"shape \[16, 16, 6\], whose frames may come first or last"),
        (FILM, {"shape": [8, 8]}, "frames of 16 x 8 and shape"),
        (FILM.reshape(6, -1), {"shape": [8, 8]}, "rows of 128 values and shape"),
        (FILM[None], {}, "frames come first"),
        (np.zeros((3, 1, 700)) + 0.5, {}, "frames of 1 x 700 cells"),
        (tmp_path / "either.csv", {}, "20 x 64 values, which may be one frame or a frame a line"),
        (tmp_path / "timed.csv", {}, "a frame a line of 4 values"),
        (tmp_path / "ragged.csv", {}, "rows of 1 to 2 values"),
        (tmp_path / "words.csv", {}, "line 2 holds '3,oops' among numbers"),
        (tmp_path / "none.csv", {}, "no numbers"),
    ]
    for source, options, match in wrong:
        with pytest.raises(InputError, match=match):
            pressure.read(source, **options)
    for options, match in (
        ({"unit": "bar/m"}, "unit must be kPa"),
        ({"scale": 0}, "scale"),
        ({"rate": -1}, "rate"),
        ({"shape": [3]}, "2 numbers"),
    ):
        with pytest.raises(OptionError, match=match):
            pressure.read(FILM, **options)


def test_the_tensor_keeps_form_time_and_order_of_size() -> None:
    other = Pressure(size=16, moments=3, patch=4, knee=2.0, full=200.0)
    assert Pressure(**json.loads(json.dumps(other.options()))) == other
    x = other.transform(other.read(FILM))
    assert x.shape == (3, 16, 16)
    assert not x[..., :4].any() and not x[..., 12:].any() and x[..., 4:12].any(), "8 columns stand in the middle of 16"
    torch.testing.assert_close(
        x[1, :, 4:12], torch.from_numpy(np.log1p(FILM[2:4].mean(0) / 2) / np.log1p(100)).float().clamp(max=1), atol=1e-5, rtol=0
    )
    still = other.transform(other.read(FILM[3]))
    torch.testing.assert_close(still[0], still[2])
    upright = other.transform(other.read(np.ascontiguousarray(FILM.swapaxes(1, 2))))
    torch.testing.assert_close(upright, x.transpose(1, 2))
    torch.manual_seed(0)
    moved = torch.stack([other.transform(other.read(FILM), train=True) for _ in range(6)])
    assert moved.std(dim=0).max() > 0.05 and moved.min() >= 0 and moved.max() <= 1
    for wrong in ({"size": 30, "patch": 8}, {"moments": 0}, {"knee": 0.0}, {"full": -2.0}):
        with pytest.raises(OptionError, match=f"pressure: {next(iter(wrong))}"):
            Pressure(**wrong)


def test_a_person_is_told_what_was_pressed() -> None:
    told = pressure.describe(pressure.example(0))
    assert told["cells"] == "32 x 16" and "50 Hz, 0.80 s" in told["frames"]
    assert pressure.describe(pressure.read(np.zeros((2, 8, 8))))["highest"] == "nothing pressed"
