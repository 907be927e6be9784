"""Image: every kind of picture becomes RGB pixels, prepared as the reference prepares them; nothing broken gets through."""

from __future__ import annotations

import io
import json
import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace

import hypothesis.extra.numpy as arrays
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.embed import PatchEmbed
from vitlens.errors import InputError, OptionError
from vitlens.modalities.image import Image, landscape
from vitlens.modalities.pixel_maps import MAX_PIXELS

REFERENCE = Path(__file__).parents[1] / "reference" / "vitlens"
PREPROC = REFERENCE / "golden_preproc_formula"
inputs = runpy.run_path(str(PREPROC / "inputs.py"))
image = Image()


def encoded(pixels: np.ndarray | PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = PIL.Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_preprocessing_equals_the_reference(tmp_path):
    golden = np.load(PREPROC / "image_480x640.npz")["x"]
    path = tmp_path / "picture.png"
    PIL.Image.fromarray(inputs["image"]()).save(path)
    x = image.transform(image.read(path))
    assert x.shape == (3, 224, 224)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[:, ::3, ::3], golden, atol=1e-5)


def test_tokens_of_the_vits_own_patches_equal_the_reference():
    fill = runpy.run_path(str(REFERENCE / "fill.py"))
    x = runpy.run_path(str(REFERENCE / "golden_forward" / "inputs.py"))["image"]()
    own = PatchEmbed(channels=3, width=128, patch=14)
    own.load_state_dict({"conv1.weight": torch.from_numpy(fill["value"]("image.conv1.weight", (128, 3, 14, 14)))})
    vit = SimpleNamespace(width=128, patch_size=14, image_size=224, patch_embedding=lambda: own)
    tokens = image.build_embed(128, vit)(torch.from_numpy(x))
    golden = np.load(REFERENCE / "golden_forward_lite" / "image.npz")["tok_x"]
    np.testing.assert_allclose(tokens[:, ::16].detach(), golden, rtol=1e-4, atol=1e-5)
    with pytest.raises(OptionError, match="128 wide"):
        image.build_embed(64, vit)
    with pytest.raises(OptionError, match="multiple"):
        Image(size=230).build_embed(128, vit)


def test_all_lossless_ways_in_give_the_same_pixels(tmp_path):
    pixels = landscape(0, 40, 60)
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(pixels, "PNG"))
    ways = [str(path), path, path.open("rb"), path.read_bytes(), PIL.Image.open(path), pixels, torch.from_numpy(pixels)]
    ways += [pixels / 255, (pixels / 255).astype(np.float32), encoded(pixels, "BMP"), encoded(pixels, "TIFF")]
    ways += [encoded(pixels, "PPM"), encoded(pixels, "WEBP", lossless=True)]
    for way in ways:
        np.testing.assert_array_equal(image.read(way).data, pixels)


def test_a_sample_does_not_change_with_the_array_it_came_from():
    pixels = landscape(0, 40, 60)
    sample = image.read(pixels)
    before = sample.data.copy()
    pixels[:] = 0
    np.testing.assert_array_equal(sample.data, before)


def test_every_pixel_mode_becomes_rgb():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.stack([grey] * 3, axis=-1)
    for source in (grey, grey[..., None], encoded(grey, "PNG"), grey / 255, encoded(grey.astype(np.uint16) * 257, "PNG")):
        np.testing.assert_array_equal(image.read(source).data, rgb)
    bits = image.read(encoded(PIL.Image.fromarray(grey > 127), "PNG")).data
    assert set(np.unique(bits)) == {0, 255}
    cmyk = image.read(encoded(PIL.Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")).data
    assert np.abs(cmyk[5, 5].astype(int) - (255, 0, 0)).max() < 6
    palette = PIL.Image.fromarray(rgb).quantize(256)
    np.testing.assert_array_equal(image.read(encoded(palette, "GIF")).data, np.array(palette.convert("RGB")))


def test_transparent_parts_become_white():
    red = np.zeros((8, 8, 4), np.uint8)
    red[..., 0], red[:, 4:, 3], red[:, 2:4, 3] = 255, 255, 128
    for source in (red, encoded(red, "PNG"), red / 255):
        pixels = image.read(source).data
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[0, 7].tolist() == [255, 0, 0]
        assert abs(int(pixels[0, 2, 1]) - 127) <= 1
    palette = PIL.Image.new("P", (8, 8), 0)
    assert image.read(encoded(palette, "PNG", transparency=0)).data.min() == 255


def test_exif_orientation_is_applied_and_can_be_left():
    pixels = landscape(1, 40, 60)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    turned = encoded(pixels, "PNG", exif=exif)
    np.testing.assert_array_equal(image.read(turned).data, np.rot90(pixels, -1))
    np.testing.assert_array_equal(image.read(turned, exif=False).data, pixels)


def test_the_first_picture_of_an_animation_is_read(tmp_path):
    frames = [PIL.Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    path = tmp_path / "two.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert image.read(path).data[0, 0].tolist() == [255, 0, 0]
    assert image.claims(path) < 1 == image.claims(tmp_path / "still.png")


BAD_ARRAYS = {
    "channels come last": np.zeros((3, 20, 20), np.uint8),
    r"shape \[2, 20, 20, 3\]": np.zeros((2, 20, 20, 3), np.uint8),
    r"shape \[20, 20, 2\]": np.zeros((20, 20, 2), np.uint8),
    "floats from 255 to 255": np.full((20, 20, 3), 255.0),
    "floats from -0.1": np.full((20, 20, 3), -0.1),
    "NaN": np.full((20, 20, 3), np.nan),
    "no values": np.zeros((0, 20, 3), np.uint8),
    "int64": np.zeros((20, 20, 3), np.int64),
    "bool": np.zeros((20, 20, 3), bool),
    "complex": np.zeros((20, 20, 3), complex),
    "100 times as long": np.zeros((1, 101, 3), np.uint8),
}


@pytest.mark.parametrize("reason", BAD_ARRAYS)
def test_arrays_that_are_no_pictures_are_refused_by_name(reason):
    with pytest.raises(InputError, match=reason) as caught:
        image.read(BAD_ARRAYS[reason])
    assert "<array" in caught.value.source
    assert "a picture" in caught.value.accepted
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_files_that_are_no_pictures_are_refused_by_name(tmp_path):
    for name, content in {"words.png": b"words", "empty.jpg": b"", "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            image.read(tmp_path / name)
    for source in (tmp_path, tmp_path / "missing.png", None, 7, [[0, 0]], io.StringIO("x"), "a\0b"):
        with pytest.raises(InputError, match="Accepted: a picture"):
            image.read(source)
    with pytest.raises(InputError, match=r"type \.obj"):
        image.read(b"x", format="obj")
    with pytest.raises(InputError, match="not a picture of a known type"):
        image.read(encoded(landscape(0, 8, 8), "PNG"), format="jpg")


def test_a_small_file_that_claims_a_huge_picture_is_refused():
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(InputError, match=r"pixels"):
        image.read(f"P6 {side} {side} 255\n".encode())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF"])
def test_a_cut_off_picture_is_never_half_read(kind):
    options = {"progressive": True} if "progressive" in kind else {}
    whole = encoded(landscape(2, 30, 40), kind.split()[-1], **options)
    pixels = image.read(whole).data
    refused = 0
    for length in {*range(1, len(whole), max(1, len(whole) // 40)), *range(len(whole) - 30, len(whole))}:
        try:
            np.testing.assert_array_equal(image.read(whole[:length]).data, pixels)
        except InputError:
            refused += 1
    assert refused > 30


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        arrays.arrays(
            st.sampled_from([np.uint8, np.uint16, np.int32, np.float16, np.float64, np.bool_, "U3", np.complex64]),
            arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        ),
        st.binary(max_size=200),
        st.sampled_from([b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"]).flatmap(
            lambda head: st.binary(max_size=80).map(lambda rest: head + rest)
        ),
    )
)
def test_wild_inputs_are_read_or_refused(source):
    try:
        sample = image.read(source)
    except InputError:
        return
    assert sample.data.dtype == np.uint8
    assert sample.data.shape[2] == 3
    assert image.transform(sample).isfinite().all()


def test_evaluation_is_fixed_and_training_follows_torchs_seed():
    sample = image.example(3)
    assert torch.equal(image.transform(sample), image.transform(sample))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(image.transform(sample, train=True))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == (3, 224, 224)


def test_options_survive_json_and_are_checked():
    other = Image(size=64, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5], interpolation="bilinear")
    assert Image(**json.loads(json.dumps(other.options()))) == other
    assert other.transform(other.example()).shape == (3, 64, 64)
    assert other.transform(other.read(np.zeros((50, 50, 3), np.uint8))).eq(-1).all()
    sizes = [{"size": size} for size in (0, 2.5, True, "224")]
    for wrong in (*sizes, {"mean": (1, 2)}, {"mean": "abc"}, {"std": (0, 1, 1)}, {"interpolation": "sinc"}):
        with pytest.raises(OptionError, match=f"image: {next(iter(wrong))}"):
            Image(**wrong)


def test_example_survives_writing_and_can_be_looked_at(tmp_path):
    sample = image.example(5)
    path = image.write(sample, tmp_path, "scene")
    np.testing.assert_array_equal(image.read(path).data, sample.data)
    assert image.describe(image.read(path))["size"] == "320 x 240 pixels"
    assert not np.array_equal(image.example(6).data, sample.data)
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    image.draw(sample, axes)
    assert axes.images
