"""Depth files as they are met: renders with many passes, units that are not said, compressions and byte orders."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from vitlens.errors import InputError
from vitlens.modalities.depth import Depth
from vitlens.modalities.exr_files import depth_channels

WALL = np.where(np.arange(64) < 32, 2.5, 4.0) * np.ones((48, 1))
depth = Depth()


def exr(path: Path, **channels: Any) -> Path:
    openexr = pytest.importorskip("OpenEXR")
    arrays = {name: np.full((48, 64), value, np.float32) for name, value in channels.items()}
    openexr.File({"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}, arrays).write(str(path))
    return path


NORMAL = ["ViewLayer.Normal.X", "ViewLayer.Normal.Y", "ViewLayer.Normal.Z"]
DENOISING = [f"ViewLayer.Denoising Normal.{axis}" for axis in "XYZ"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["Z"], ["Z"]),
        (["R", "G", "B", "Z"], ["Z"]),
        (["depth"], ["depth"]),
        (["A", "Depth"], ["Depth"]),
        (["Y"], ["Y"]),
        (["A", "Y"], ["Y"]),
        (["V"], ["V"]),
        ([*NORMAL, "ViewLayer.Depth.V"], ["ViewLayer.Depth.V"]),
        ([*NORMAL, "ViewLayer.Depth.Z"], ["ViewLayer.Depth.Z"]),
        ([*DENOISING, "ViewLayer.Depth.Z"], ["ViewLayer.Depth.Z"]),
        (["P.X", "P.Y", "P.Z", "Z"], ["Z"]),
        (["X", "Y", "Z"], []),
        (["Normal.Z"], []),
        (["P.Z", "depth.Z"], ["depth.Z"]),
        (["Left.Depth.Z", "Right.Depth.Z"], ["Left.Depth.Z", "Right.Depth.Z"]),
        (["ViewLayer.Mist.Z"], []),
        (["BY", "RY", "Y"], []),
        (["A"], []),
        (["B", "G", "R"], []),
    ],
)
def test_the_channel_that_is_depth(names: list[str], found: list[str]) -> None:
    assert depth_channels(names) == found


def test_an_exr_of_several_depths_lists_them_and_takes_the_one_that_is_said(tmp_path: Path) -> None:
    path = exr(tmp_path / "two.exr", **{"Left.Depth.Z": 2.0, "Right.Depth.Z": 3.0})
    with pytest.raises(InputError, match=r"2 channels that may be depth \(Left.Depth.Z, Right.Depth.Z\).*key="):
        depth.read(path)
    np.testing.assert_allclose(depth.read(path, key="Right.Depth.Z").data, 3)
    with pytest.raises(InputError, match=r"none that is depth \(B, G, R\)"):
        depth.read(exr(tmp_path / "colour.exr", R=1, G=1, B=1))


@pytest.mark.parametrize("empty", [1e10, np.inf, 65504.0, 3.4e38])
@pytest.mark.parametrize("kind", ["exr", "npy", "tiff"])
def test_a_renders_empty_background_is_missing(empty: float, kind: str, tmp_path: Path) -> None:
    thing = np.zeros((48, 64), bool)
    thing[16:32, 16:32] = True
    values = np.where(thing, 2, empty).astype(np.float32)
    path = tmp_path / f"render.{kind}"
    if kind == "exr":
        exr(path, Z=values)
    else:
        np.save(path, values) if kind == "npy" else tifffile.imwrite(path, values)
    sample = depth.read(path)
    np.testing.assert_array_equal(sample.data, np.where(thing, 2, 0))
    assert sample.info["background"] == (~thing).sum()
    assert "2,816 pixels" in depth.describe(sample)["background"]


@pytest.mark.parametrize(("scale", "offset"), [(1000.0, 0.0), (1000.0, 0.4), (100.0, 0.25), (10.0, 0.0), (10.0, 0.3)])
def test_floats_in_smaller_units_are_asked_about(scale: float, offset: float) -> None:
    room = np.round((1.5 + 3 * np.random.default_rng(0).random((48, 64))) * scale) + offset
    with pytest.raises(InputError, match=r"unknown unit.*scale=0.001 for millimetres"):
        depth.read(room.astype(np.float32))
    np.testing.assert_allclose(depth.read(room, scale=1 / scale).data, room / scale, rtol=1e-6)


def test_a_map_never_becomes_one_constant_in_silence() -> None:
    far = 60 + 20 * np.random.default_rng(0).random((48, 64))
    with pytest.raises(InputError, match="all outside what the model tells apart"):
        depth.transform(depth.read(far, scale=1))
    flat = depth.transform(depth.read(np.full((48, 64), 2.5)))  # a wall is one constant
    assert flat.std() < 1e-5


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("compression", "predictor"), [(None, False), ("zlib", False), ("lzw", False), ("zlib", True), ("lzw", True)]
)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_tiff_of_floats(order: str, compression: str | None, predictor: bool, dtype: str, tmp_path: Path) -> None:
    options = {"compression": compression, "predictor": predictor} if compression else {}
    tifffile.imwrite(tmp_path / "wall.tiff", WALL.astype(f"{order}{dtype}"), byteorder=order, **options)
    assert depth.claims(tmp_path / "wall.tiff") == 2
    np.testing.assert_array_equal(depth.read(tmp_path / "wall.tiff").data, WALL)


def test_pgm_of_16_bits_is_read_as_stored(tmp_path: Path) -> None:
    stored = (WALL * 1000).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5\n# made by hand\n64 48\n5000\n" + stored.tobytes())
    assert depth.claims(tmp_path / "a.pgm") == 2
    np.testing.assert_allclose(depth.read(tmp_path / "a.pgm", scale=0.001).data, WALL)
    (tmp_path / "b.pgm").write_bytes(b"P5 64 48 255\n" + bytes(64 * 48))
    assert depth.claims(tmp_path / "b.pgm") == 0
    with pytest.raises(InputError, match="8-bit picture"):
        depth.read(tmp_path / "b.pgm", scale=0.001)
    (tmp_path / "c.pgm").write_bytes(b"P5 64 48 65535\n" + bytes(64 * 48))
    with pytest.raises(InputError, match="cut off: 3,072 of 6,144 bytes"):
        depth.read(tmp_path / "c.pgm", scale=0.001)


def test_a_pfm_with_more_than_its_header_says_is_told_so(tmp_path: Path) -> None:
    content = b"Pf\n64 48\n-1\n" + WALL[::-1].astype("<f4").tobytes()
    (tmp_path / "a.pfm").write_bytes(content + b"\n")
    np.testing.assert_array_equal(depth.read(tmp_path / "a.pfm").data, WALL)
    (tmp_path / "b.pfm").write_bytes(content + b"x")
    with pytest.raises(InputError, match=r"12,289 bytes of pixels where its header says 12,288 \(64 x 48\)"):
        depth.read(tmp_path / "b.pfm")
    (tmp_path / "c.pfm").write_bytes(content[:-1])
    with pytest.raises(InputError, match="cut off: 12,287 of 12,288"):
        depth.read(tmp_path / "c.pfm")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    head = struct.pack("<2sHIH", b"II", 42, 8, 9)
    tags = {256: 120_000, 257: 120_000, 258: 32, 259: 8, 262: 1, 273: 130, 277: 1, 278: 120_000, 279: 4}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "bomb.tiff").write_bytes(head + entries + bytes(8) + b"x\x9c\x03\x00")
    with pytest.raises(InputError, match="GiB of memory"):
        depth.read(tmp_path / "bomb.tiff")


def test_depth_that_is_normalised_by_the_focal_length_becomes_metres(tmp_path: Path) -> None:
    """Depth Anything 3's metric model: metres = output * focal length / 300, the recipe of docs/sensors.md."""
    output, focal = np.linspace(0.5, 4, 48 * 64, dtype=np.float32).reshape(48, 64), 600
    np.save(tmp_path / "da3.npy", output)
    sample = depth.read(tmp_path / "da3.npy", scale=focal / 300, focal_length=focal)
    assert np.allclose(sample.data, 2 * output)
    assert sample.info["focal_length"] == 600
    metres = depth.transform(depth.read(2 * output, focal_length=focal))
    assert np.allclose(depth.transform(sample), metres, atol=1e-5)
