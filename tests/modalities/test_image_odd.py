"""Pictures as they are met: every number of bits, where 0 is white, transparent colours, runs, orientations; and their memory."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from vitlens.errors import InputError
from vitlens.modalities.image import Image, landscape
from vitlens.modalities.point_cloud import PointCloud

image = Image()
RAMP = np.tile(np.arange(64), (48, 1))  # dark on the left


def is_grey(source: Any, values: np.ndarray, **options: Any) -> bool:
    """Whether a picture has these grey values of 0..255, but for rounding."""
    pixels = image.read(source, **options).data.astype(int)
    return pixels.shape == (*values.shape, 3) and np.abs(pixels - values[..., None]).max() <= 1


def tiff(path: Path, values: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of numbers of so many bits, each row filled up to whole bytes."""
    places = (values[..., None] >> np.arange(bits)[::-1] & 1).reshape(len(values), -1).astype(np.uint8)
    return np.packbits(places, axis=1).tobytes()


def bare_tiff(path: Path, content: bytes, bits: int, *, white: int = 1, order: str = "<", orientation: int = 1) -> Path:
    """A grey TIFF of 64 x 48 pixels by the letter of TIFF 6.0; `white` is its PhotometricInterpretation."""
    tags = {256: 64, 257: 48, 258: bits, 259: 1, 262: white, 273: 134, 274: orientation, 277: 1, 278: 48, 279: len(content)}
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + content)
    return path


@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
def test_tiff_of_any_number_of_bits_in_which_0_is_black_or_white(tmp_path: Path, bits: int, white: int) -> None:
    most = 2**bits - 1
    stored = RAMP * most // 63
    content = stored.astype("<u2").tobytes() if bits == 16 else packed(stored, bits)
    shown = stored if white else most - stored
    assert is_grey(bare_tiff(tmp_path / "bits.tiff", content, bits, white=white), shown * 255 / most)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u2"])
def test_tiff_of_floats_and_16_bits_in_every_byte_order(tmp_path: Path, kind: str, compression: str | None, order: str) -> None:
    values = (RAMP / 63).astype(kind) if kind[0] == "f" else (RAMP * 1000).astype(kind)
    path = tmp_path / "values.tiff"
    for predictor in (False, True) if compression and kind != "f2" else (False,):
        tiff(path, values.astype(order + kind), compression=compression, predictor=predictor, byteorder=order)
        assert is_grey(path, RAMP / 63 * 255 if kind[0] == "f" else RAMP * 1000 / 257)
        colours = np.stack([values, values[:, ::-1], values * 0], axis=-1).astype(order + kind)
        tiff(path, colours, compression=compression, predictor=predictor, byteorder=order, photometric="rgb")
        left, right = image.read(path).data[0, [0, -1]].astype(int)
        most = 255 if kind[0] == "f" else 63000 / 257
        assert np.abs(left - (0, most, 0)).max() <= 1
        assert np.abs(right - (most, 0, 0)).max() <= 1


def test_alpha_of_16_bit_tiff_is_laid_on_white_whether_colours_are_multiplied_by_it_or_not(tmp_path: Path) -> None:
    straight = np.zeros((48, 64, 4), np.uint16)
    straight[..., 0], straight[:, :32, 3], straight[:, 32:, 3] = 65535, 65535, 32768
    multiplied = straight.copy()
    multiplied[:, 32:, 0] = 32768
    for name, values in (("unassalpha", straight), ("assocalpha", multiplied)):
        pixels = image.read(tiff(tmp_path / "a.tiff", values, photometric="rgb", extrasamples=[name])).data.astype(int)
        assert pixels[0, 0].tolist() == [255, 0, 0]
        assert np.abs(pixels[0, -1] - (255, 127, 127)).max() <= 1
    pixels = image.read(tiff(tmp_path / "a.tiff", straight, photometric="rgb", extrasamples=["unspecified"])).data
    assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["i4", "u4", "i2"])
def test_integers_that_leave_most_of_their_range_empty_are_asked_about(tmp_path: Path, kind: str) -> None:
    path = tiff(tmp_path / "dark.tiff", (RAMP * 4).astype(kind))
    with pytest.raises(InputError, match=r"integers from 0 to 252 in \d+ bits, .* white=255"):
        image.read(path)
    assert is_grey(path, RAMP * 4, white=255)
    with pytest.raises(InputError, match=r"integers from 0 to 252.*values from 0 to 100"):
        image.read(path, white=100)


def test_integers_of_32_bits_that_fill_16_are_of_16(tmp_path: Path) -> None:
    assert is_grey(tiff(tmp_path / "wide.tiff", (RAMP * 1040).astype(np.int32)), RAMP * 1040 / 257)
    for values in ((RAMP - 3) * 100, RAMP * 100_000):
        with pytest.raises(InputError, match="white is not known"):
            image.read(tiff(tmp_path / "wide.tiff", values.astype(np.int32)))
    assert is_grey(PIL.Image.fromarray((RAMP * 1040).astype(np.int32)), RAMP * 1040 / 257)
    with pytest.raises(InputError, match="white=255"):
        image.read(PIL.Image.fromarray((RAMP * 4).astype(np.int32)))


def test_arrays_of_other_integers_are_read_once_white_is_said() -> None:
    assert is_grey((RAMP * 65).astype(np.uint16), RAMP * 65 / 4095 * 255, white=4095)
    assert is_grey(RAMP * 1.0, RAMP / 63 * 255, white=63)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_all_orientations_of_a_tiff(tmp_path: Path, orientation: int, bits: int) -> None:
    stored = RAMP * 2 + np.arange(48)[:, None]
    content = stored.astype("u1").tobytes() if bits == 8 else (stored * 257).astype("<u2").tobytes()
    path = bare_tiff(tmp_path / "turned.tiff", content, bits, orientation=orientation)
    moves = {2: "[:, ::-1]", 3: "[::-1, ::-1]", 4: "[::-1]", 5: ".T", 6: "[::-1].T", 7: "[::-1, ::-1].T", 8: "[:, ::-1].T"}
    wanted = {1: stored, **{number: eval("stored" + move, {"stored": stored}) for number, move in moves.items()}}
    assert is_grey(path, wanted[orientation])
    assert is_grey(path, stored, exif=False)


# --- PNG ---


def png(rows: np.ndarray, kind: int, bits: int, transparent: bytes = b"") -> bytes:
    """A PNG by the letter, of rows of bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = rows.shape[1] * 8 // bits // {0: 1, 2: 3}[kind]
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + (chunk(b"tRNS", transparent) if transparent else b"")
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def test_the_transparent_colour_of_a_16_bit_png_is_white_and_no_other_is() -> None:
    colours = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1235, 0x5678, 0x9ABC], [0, 0x80, 0]]], ">u2").repeat(2, axis=0)
    key = colours[0, 0].tobytes()
    for transparent, first in ((key, [255] * 3), (b"", [0x12, 0x56, 0x9A])):
        source = png(colours.reshape(2, -1).view(np.uint8), 2, 16, transparent)
        pixels = image.read(source).data.astype(int)
        assert np.abs(pixels[0, 0] - first).max() <= 1
        assert np.abs(pixels[0, 1] - (0x12, 0x56, 0x9A)).max() <= 1
        assert np.abs(pixels[1, 2]).max() <= 1
    np.testing.assert_array_equal(
        image.read(PIL.Image.open(io.BytesIO(png(colours.reshape(2, -1).view(np.uint8), 2, 16, key)))).data[0, 0], 255
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_white_and_no_other_is(bits: int) -> None:
    most = 2**bits - 1
    values = np.array([[0, most // 2, most, most // 3] * 4] * 8)
    key = most // 3
    rows = values.astype(">u2").view(np.uint8) if bits == 16 else np.frombuffer(packed(values, bits), np.uint8).reshape(8, -1)
    wanted = np.where(values == key, 255, values * 255 / most)
    assert is_grey(png(rows, 0, bits, struct.pack(">H", key)), wanted)


# --- BMP ---

PALETTE = bytes([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0])
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def bmp(content: bytes, bits: int, size: tuple[int, int] = (8, 2)) -> bytes:
    palette = PALETTE + bytes(4 * (2**bits - 4))
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(content), 0, 0, start)
    return (
        head
        + struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, 1 if bits == 8 else 2, len(content), 0, 0, 2**bits, 0)
        + palette
        + content
    )


@pytest.mark.parametrize(
    ("bits", "row"),
    [
        (4, bytes([0, 3, 0x01, 0x20, 5, 0x33, 0, 0])),  # three literal pixels fill two bytes
        (4, bytes([0, 5, 0x01, 0x23, 0x30, 0, 3, 0x33, 0, 0])),  # five fill three, and one more
        (4, bytes([3, 0x01, 1, 0x20, 4, 0x33, 0, 0])),
        (8, bytes([0, 3, 0, 1, 2, 0, 5, 3, 0, 0])),
        (8, bytes([1, 0, 1, 1, 1, 2, 0, 5, 3, 3, 3, 3, 3, 0, 0, 0])),
    ],
)
def test_runs_of_a_bmp(bits: int, row: bytes) -> None:
    first = [RED, GREEN, BLUE, *[WHITE] * 5]
    if row[:4] == bytes([3, 0x01, 1, 0x20]):
        first[2:4] = [RED, BLUE]  # a run of three takes turns
    if len(row) == 10 and bits == 4:
        first = [RED, GREEN, BLUE, WHITE, WHITE, WHITE, WHITE, WHITE]
    pixels = image.read(bmp(row * 2 + bytes([0, 1]), bits)).data
    assert pixels.tolist() == [[list(colour) for colour in first]] * 2
    with pytest.raises(InputError, match="cut short"):
        image.read(bmp(row, bits))


def test_runs_of_a_bmp_start_at_the_bottom_leap_and_are_never_half_read() -> None:
    content = bytes([8, 1, 0, 0, 2, 2, 0, 2, 3, 0, 3, 3, 0, 1])
    pixels = image.read(bmp(content, 8)).data
    assert pixels[1].tolist() == [list(GREEN)] * 8
    assert pixels[0].tolist() == [list(colour) for colour in (BLUE, BLUE, RED, RED, RED, WHITE, WHITE, WHITE)]
    with pytest.raises(InputError, match="colour 9 of 4"):
        image.read(bmp(bytes([8, 9, 0, 0, 8, 9, 0, 1]), 8).replace(struct.pack("<II", 256, 0), struct.pack("<II", 4, 0)))


@pytest.mark.parametrize("header", [56, 108, 124])
@pytest.mark.parametrize("alpha", [0, 128])
def test_alpha_of_a_bmp_that_nobody_filled_is_opaque(header: int, alpha: int) -> None:
    pixels = np.zeros((4, 8, 4), np.uint8)
    pixels[..., 2], pixels[0, 0, 3] = 200, alpha
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<2sIHHI", b"BM", 14 + header + pixels.nbytes, 0, 0, 14 + header)
    head += struct.pack("<IiiHHIIiiII", header, 8, 4, 1, 32, 3, pixels.nbytes, 0, 0, 0, 0) + masks
    seen = image.read(head + (b"BGRs" + bytes(100))[: header - 56] + pixels.tobytes()).data
    if alpha == 0:
        assert (seen == [200, 0, 0]).all()
    else:
        assert seen[0, 0].tolist() == [255, 255, 255]
        assert abs(int(seen[3, 0, 1]) - 127) <= 1


# --- memory ---

PEAK = """
import resource, sys
from vitlens.modalities.image import Image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels = Image().read(sys.argv[1]).data
print(pixels.shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does: run it there")
def test_a_large_transparent_picture_takes_little_more_than_its_own_size(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    PIL.Image.new("RGBA", (6000, 5000), (200, 0, 0, 128)).save(path, compress_level=1)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    shape, _, kilobytes = done.stdout.rpartition(" ")
    assert shape == "(5000, 6000, 3)"
    assert int(kilobytes) * 1024 < 10 * 6000 * 5000


def test_the_memory_of_a_picture_is_bounded_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITLENS_READ_GIB", "0.001")
    path = tmp_path / "picture.png"
    PIL.Image.fromarray(landscape(0, 480, 640)).save(path)
    with pytest.raises(InputError, match=r"a picture of 640 x 480 pixels, which takes .* GiB of memory"):
        image.read(path)


def claimed_png(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(3000))) + chunk(b"IEND", b"")


def test_a_picture_of_too_many_pixels_says_so_and_a_large_one_warns_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"a picture of 1,600,000,000 pixels\. Accepted: .*at most 179 million pixels"):
            image.read(claimed_png(40_000, 40_000), format="png")
        monkeypatch.setenv("VITLENS_READ_GIB", "0.5")
        with pytest.raises(InputError, match=r"a picture of 13000 x 13000 pixels, which takes 1\.6 GiB of memory"):
            image.read(claimed_png(13_000, 13_000), format="png")
        (mesh := tmp_path / "a.obj").write_text(
            "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
        )
        mesh.with_name("a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
        mesh.with_name("a.png").write_bytes(claimed_png(13_000, 13_000))
        with pytest.raises(InputError, match=r"a texture of 13000 x 13000 pixels, which takes 1\.3 GiB of memory"):
            PointCloud().read(mesh)


def test_damaged_pictures_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind, options in (("TIFF", {"compression": "tiff_lzw"}), ("JPEG", {}), ("PNG", {}), ("WEBP", {})):
        buffer = io.BytesIO()
        PIL.Image.fromarray(landscape(0, 60, 80)).save(buffer, kind, **options)
        content = bytearray(buffer.getvalue())
        for at in range(60, len(content), max(1, len(content) // 12)):
            damaged = content.copy()
            damaged[at] ^= 255
            with contextlib.suppress(InputError):
                image.read(bytes(damaged))
    assert capfd.readouterr() == ("", "")
