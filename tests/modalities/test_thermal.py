"""Thermal: kelvin out of every kind of file, and a question wherever a temperature would be a guess."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch

from vitlens.errors import InputError, OptionError
from vitlens.modalities import thermal as module
from vitlens.modalities.thermal import Thermal
from vitlens.modality import guess_modality

thermal = Thermal()
KELVIN = np.linspace(280, 310, 12 * 16).reshape(12, 16)


def flir_jpeg(path: Path, kelvin: np.ndarray) -> Path:
    """A JPEG in false colours with FLIR's records: raw values in two segments, and Planck's constants of an E40 (ExifTool,
    "FLIR Tags")."""
    r1, r2, b, f, o = 21106.77, 0.012545258, 1501.0, 1.0, -7340
    raw = np.rint(r1 / (r2 * (np.exp(b / kelvin) - f)) - o).astype("<u2")
    camera = bytearray(900)
    struct.pack_into("<6f", camera, 32, 1.0, 0.0, 293.15, 293.15, 293.15, 1.0)  # emissivity, distance, surroundings, window
    struct.pack_into("<f", camera, 60, 0.5)  # humidity
    struct.pack_into("<3f", camera, 88, r1, b, f)
    struct.pack_into("<5f", camera, 112, 0.006569, 0.01262, -0.002276, -0.00667, 1.9)  # the atmosphere
    struct.pack_into("<if", camera, 776, o, r2)
    head = struct.pack("<6H", 2, raw.shape[1], raw.shape[0], 0, 0, 0).ljust(32, b"\0") + raw.tobytes()
    start = 64 + 32 * 4
    entries = [(1, start, len(head)), (32, start + len(head), len(camera)), (0, 0, 0), (0, 0, 0)]
    directory = b"".join(struct.pack(">2H7I", kind, 2, 0x64, 1, at, size, 0, 0, 0) for kind, at, size in entries)
    file = b"FFF\0" + bytes(16) + struct.pack(">3I", 100, 64, len(entries)) + bytes(32) + directory + head + bytes(camera)
    stream = io.BytesIO()
    PIL.Image.new("RGB", raw.shape[::-1], (200, 40, 90)).save(stream, "JPEG")
    half, segments = len(file) // 2, b""
    for number, part in enumerate((file[:half], file[half:])):
        segments += b"\xff\xe1" + struct.pack(">H", len(part) + 10) + b"FLIR\0\x01" + bytes([number, 1]) + part
    plain = stream.getvalue()
    path.write_bytes(plain[:2] + segments + plain[2:])
    return path


def test_every_kind_of_file_gives_kelvin(tmp_path: Path) -> None:
    hundredths = np.rint(100 * KELVIN).astype(np.uint16)
    tifffile.imwrite(tmp_path / "deep.tiff", hundredths)
    PIL.Image.fromarray(hundredths).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "tenths.tif", np.rint(10 * (KELVIN - 273.15)).astype(np.int16))
    tifffile.imwrite(tmp_path / "float.tiff", KELVIN.astype(np.float32), compression="zlib")
    np.save(tmp_path / "celsius.npy", KELVIN - 273.15)
    np.savez(tmp_path / "two.npz", heat=(KELVIN - 273.15) * 9 / 5 + 32, mask=np.zeros(3))
    grey = np.rint((KELVIN - 280) * 255 / 30).astype(np.uint8)
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    PIL.Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(tmp_path / "grey.jpg", quality=100, subsampling=0)
    options: dict[str, dict[str, Any]] = {
        "deep.tiff": {"scale": 0.01},
        "deep.png": {"scale": 0.01},
        "tenths.tif": {"scale": 0.1, "offset": 0, "unit": "C"},
        "float.tiff": {},
        "celsius.npy": {"unit": "C"},
        "two.npz": {"unit": "F", "key": "heat"},
        "grey.png": {"range": [280, 310]},
        "grey.jpg": {"range": [6.85, 36.85], "unit": "C"},
    }
    for name, own in options.items():
        data = thermal.read(tmp_path / name, **own).data
        assert data.dtype == np.float32 and data.shape == (12, 16), name
        np.testing.assert_allclose(data, KELVIN, atol=0.5 if "grey" in name else 0.06, err_msg=name)
    np.testing.assert_allclose(thermal.read(hundredths[..., None], scale=0.01).data, KELVIN, atol=0.01)
    np.testing.assert_allclose(thermal.read(grey, range=[280, 310]).data, KELVIN, atol=0.1)
    np.testing.assert_allclose(
        thermal.read(io.BytesIO((tmp_path / "grey.png").read_bytes()), format="png", range=[280, 310]).data, KELVIN, atol=0.2
    )


def test_a_flir_jpeg_brings_its_own_temperatures(tmp_path: Path) -> None:
    pytest.importorskip("flyr")
    path = flir_jpeg(tmp_path / "camera.jpg", KELVIN)
    sample = thermal.read(path)
    np.testing.assert_allclose(sample.data, KELVIN, atol=0.05)
    assert guess_modality(path) == "thermal" and thermal.claims(path) == 2
    assert "FLIR" in thermal.describe(sample)["temperatures"]
    with pytest.raises(InputError, match="states its own temperatures, and range="):
        thermal.read(path, range=[0, 1])
    whole = path.read_bytes()
    for damaged in (whole[:700], whole.replace(b"FFF\0", b"FFF\1").replace(struct.pack(">H", 32), b"\0\x21")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"camera.jpg"):
            thermal.read(path)


def test_without_its_library_a_flir_jpeg_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from vitlens.errors import MissingDependencyError
    from vitlens.sources import Source

    monkeypatch.setitem(sys.modules, "flyr", None)
    path = flir_jpeg(tmp_path / "camera.jpg", KELVIN)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vitlens\[flir\]'"):
        module.flir_kelvin(path, Source(path, thermal.accepts))


def test_what_would_be_a_guess_is_asked_about(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8) + np.array([9, 90, 200], np.uint8)).save(tmp_path / "iron.png")
    PIL.Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "grey.png")
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (KELVIN - 273.15, {}, r"floats of unknown unit .*unit=.K., .C. or .F."),
        ((KELVIN - 273.15) * 9 / 5 + 32, {}, "unknown unit"),
        (KELVIN * 100, {}, "unknown unit"),
        (KELVIN / 300, {}, "unknown unit"),
        (KELVIN.astype(np.uint16), {}, "integers from 280 to 310 of unknown unit.*scale=0.01"),
        (KELVIN.astype(np.uint16), {"scale": 0.01}, "which no thermal camera sees"),
        (KELVIN - 600, {"unit": "C"}, "kelvin, which cannot be"),
        (tmp_path / "grey.png", {}, r"8-bit values, whose temperatures are not known.*range="),
        (tmp_path / "iron.png", {"range": [0, 40], "unit": "C"}, "in colours, which are no temperatures"),
        (KELVIN, {"range": [0, 40]}, "range= and values of type float64"),
        (KELVIN.astype(np.uint16), {"range": [0, 40]}, "range= and values of type uint16"),
        (np.stack([KELVIN] * 3), {}, r"shape \[3, 12, 16\]"),
        (np.where(KELVIN > 300, np.nan, KELVIN), {}, "NaN"),
    ]
    for source, options, match in wrong:
        with pytest.raises(InputError, match=match):
            thermal.read(source, **options)
    for options, match in (
        ({"unit": "R"}, "unit must be K, C or F"),
        ({"scale": 0}, "scale"),
        ({"range": [1, 2], "scale": 2}, "give one of them"),
        ({"range": [4, 4]}, "two different"),
        ({"range": [4]}, "2 numbers"),
    ):
        with pytest.raises(OptionError, match=match):
            thermal.read(KELVIN, **options)


def test_the_tensor_is_imagebinds(tmp_path: Path) -> None:
    other = Thermal(size=56, low=280, high=310)
    assert Thermal(**json.loads(json.dumps(other.options()))) == other
    x = other.transform(other.read(np.linspace(275, 315, 80)[None].repeat(60, 0)))
    assert x.shape == (1, 56, 56) and x.min() >= 0 and x.max() <= 1
    middle = 275 + 40 * (10 + np.array([7, 28, 48]) * 60 / 56) / 80
    torch.testing.assert_close(x[0, 5, [7, 28, 48]], torch.tensor((middle - 280) / 30).float(), atol=0.02, rtol=0)
    with pytest.raises(InputError, match=r"from 330.0 to 340.0 K.*280 to 310 K"):
        other.transform(other.read(np.linspace(330, 340, 100).reshape(10, 10)))
    assert other.transform(other.read(np.full((9, 9), 300.0))).isfinite().all(), "one temperature everywhere is a measurement"
    for wrong in ({"low": 320.0, "high": 310.0}, {"low": -1.0}, {"size": 0}, {"antialias": 1}, {"patch": 0}):
        with pytest.raises(OptionError, match=f"thermal: {next(iter(wrong))}"):
            Thermal(**wrong)
