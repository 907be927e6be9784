"""Depth: metres whatever the file, disparity as the reference has it, and no map whose unit is a guess."""

from __future__ import annotations

import contextlib
import io
import json
import math
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

from vitlens.errors import InputError, OptionError
from vitlens.modalities.depth import Depth, room, to_disparity
from vitlens.modality import Sample, guess_modality

REFERENCE = Path(__file__).parents[1] / "reference" / "vitlens"
PREPROC = REFERENCE / "golden_preproc_formula"
inputs = runpy.run_path(str(PREPROC / "inputs.py"))
depth = Depth()
ROOM = room(0, 48, 64)
MILLIMETRES = np.rint(ROOM * 1000).astype(np.uint16)


def disparity_sample(*size: int) -> Sample:
    """The reference's formula input; it dips below zero, which no file may."""
    return Sample(inputs["disparity"](*size), "formula", {"kind": "disparity"})


@pytest.mark.parametrize("antialias", [False, True])
def test_preprocessing_equals_the_reference(antialias):
    x = Depth(antialias=antialias).transform(disparity_sample(480, 640))
    assert x.shape == (1, 224, 224)
    assert x.dtype == torch.float32
    golden = np.load(PREPROC / "depth_480x640.npz")[f"antialias_{antialias}"]
    np.testing.assert_allclose(x[:, ::3, ::3], golden, rtol=1e-5, atol=1e-5)


def test_a_map_of_the_right_size_equals_the_reference():
    x = depth.transform(disparity_sample(224, 224))
    np.testing.assert_allclose(x[:, ::2, ::2], np.load(PREPROC / "depth_224x224.npz")["x"], rtol=1e-5, atol=1e-5)


def test_tokens_equal_the_reference():
    prefix = "visual.visual_adapter."
    keys = json.loads((REFERENCE / "golden_forward" / "keys_tiny_depth.json").read_text())
    value = runpy.run_path(str(REFERENCE / "fill.py"))["value"]
    weights = {
        k.removeprefix(prefix): torch.from_numpy(value(k, *v)) for k, v in keys.get("keys", keys).items() if k.startswith(prefix)
    }
    embed = depth.build_embed(128, SimpleNamespace(patch_size=14, image_size=224))
    embed.load_state_dict(weights)
    x = torch.from_numpy(runpy.run_path(str(REFERENCE / "golden_forward" / "inputs.py"))["depth"]())
    golden = np.load(REFERENCE / "golden_forward_lite" / "depth.npz")
    tokens, positions = embed.split(x)
    np.testing.assert_allclose(tokens[:, ::16].detach(), golden["tok_x"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(positions[::16].detach(), golden["tok_pos"], rtol=1e-4)
    with pytest.raises(OptionError, match="not a multiple"):
        Depth(size=230).build_embed(128, SimpleNamespace(patch_size=14, image_size=224))


def test_metres_become_disparity():
    metres = torch.tensor([0.0, 0.5, 2.0, 49.0, 100.0])
    expected = torch.tensor([75.0 / 0.01, 150.0, 37.5, 75 / 49, 1.5])
    torch.testing.assert_close(to_disparity(metres, focal_length=1000.0, baseline=0.075), expected)
    torch.testing.assert_close(to_disparity(metres[1:3], focal_length=1000.0, baseline=0.075, factor=8.0), expected[1:3] / 8)


def test_the_camera_of_the_sample_wins_over_the_modalitys():
    own = depth.read(ROOM, focal_length=1037.715802, baseline=0.0375)
    assert torch.equal(depth.disparity(own), depth.disparity(depth.read(ROOM)))
    assert not torch.equal(depth.disparity(depth.read(ROOM, baseline=0.095)), depth.disparity(own))
    assert "assumed" not in depth.describe(own)["camera"]
    assert "518.9 pixels, baseline 0.075 m (assumed" in depth.describe(depth.read(ROOM))["camera"]


def rotated(millimetres: np.ndarray) -> np.ndarray:
    return (millimetres << 3) | (millimetres >> 13)


def test_sun_rgbds_rotation_is_undone_by_name_only():
    stored = rotated(MILLIMETRES)
    np.testing.assert_array_equal(depth.read(stored, encoding="sunrgbd").data, (MILLIMETRES * 0.001).astype(np.float32))
    high = np.full((8, 8), 60001, np.uint16)
    assert depth.read(rotated(high), encoding="sunrgbd").data[0, 0] == pytest.approx(60.001)
    plain = depth.read(stored, scale=0.001)
    np.testing.assert_allclose(plain.data, 8 * ROOM, atol=0.005)
    assert "sunrgbd" in depth.describe(plain)["note"]
    assert "note" not in depth.describe(depth.read(MILLIMETRES, scale=0.001))


def test_metres_factor_8_gives_what_the_released_weights_saw():
    """Released: the rotated values read as millimetres. Ours: true metres, times 8."""
    released = depth.transform(depth.read(rotated(MILLIMETRES), scale=0.001))
    torch.testing.assert_close(
        Depth(metres_factor=8.0).transform(depth.read(MILLIMETRES, scale=0.001)), released, rtol=1e-4, atol=1e-4
    )


def pfm(array: np.ndarray, order: str = "<") -> bytes:
    scale = -1.0 if order == "<" else 1.0
    return f"Pf\n{array.shape[1]} {array.shape[0]}\n{scale}\n".encode() + array[::-1].astype(f"{order}f4").tobytes()


def save_exr(path: Path, **channels: np.ndarray) -> None:
    openexr = pytest.importorskip("OpenEXR")
    openexr.File({"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}, channels).write(str(path))


def test_every_file_type_gives_the_same_metres(tmp_path):
    def image(array: np.ndarray, name: str) -> None:
        PIL.Image.fromarray(array).save(tmp_path / name)

    image(MILLIMETRES, "mm.png")
    image(MILLIMETRES, "mm.tif")
    image(ROOM, "metres.tiff")
    np.save(tmp_path / "metres.npy", ROOM[None])
    np.save(tmp_path / "mm.npy", MILLIMETRES[..., None])
    np.savez(tmp_path / "one.npz", depth=ROOM)
    np.savez(tmp_path / "two.npz", depth=ROOM, colour=ROOM * 0)
    (tmp_path / "little.pfm").write_bytes(pfm(ROOM))
    (tmp_path / "big.pfm").write_bytes(pfm(ROOM, ">"))
    save_exr(tmp_path / "one.exr", V=ROOM)
    save_exr(tmp_path / "z.exr", R=ROOM * 0, Z=ROOM)
    save_exr(tmp_path / "half.exr", D=ROOM.astype(np.float16), E=ROOM.astype(np.float16))
    for path in sorted(tmp_path.iterdir()):
        options = {"scale": 0.001} if path.stem == "mm" else {"key": "depth"} if path.stem == "two" else {}
        options |= {"key": "D"} if path.stem == "half" else {}
        for source in (path, path.open("rb")):
            data = depth.read(source, **options).data
            assert data.dtype == np.float32
            np.testing.assert_allclose(data, ROOM, atol=0.002, err_msg=path.name)
    with pytest.raises(InputError, match="key="):
        depth.read(tmp_path / "two.npz")
    with pytest.raises(InputError, match="D, E"):
        depth.read(tmp_path / "half.exr")
    np.testing.assert_array_equal(depth.read(torch.from_numpy(ROOM)).data, ROOM)
    np.testing.assert_allclose(depth.read(ROOM.astype(np.float16) * 1000, scale=0.001).data, ROOM, rtol=0.01)


def test_missing_pixels():
    holes = ROOM.copy()
    holes[:5] = 0
    assert depth.describe(depth.read(holes))["missing"] == f"{100 * 5 / 48:.1f} %"
    holes[:5], holes[0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"256 of 3072 values are NaN or infinite.*invalid='zero'"):
        depth.read(holes)
    assert not depth.read(holes, invalid="zero").data[:5].any()


BAD_MAPS = {
    r"integers \(uint16\) of unknown unit": MILLIMETRES,
    r"a colour picture \[48, 64, 3\]": np.stack([ROOM] * 3, axis=-1),
    r"a colour picture \[3, 48, 64\]": np.stack([ROOM] * 3),
    r"shape \[2, 48, 64, 1\]": np.ones((2, 48, 64, 1)),
    "64 of 3072 values are negative": np.where(np.arange(48)[:, None] == 0, -1, ROOM),
    "nothing but missing pixels": np.zeros((8, 8)),
    "depth of unknown unit .*beyond 10 m.*scale=0.001": ROOM * 1000,
    "depth of unknown unit .*whole numbers.*0.1 for decimetres": np.round(ROOM * 10 / ROOM.max()),
    "no values|no pixels": np.zeros((0, 8)),
    "100 times as long": np.ones((1, 200)),
    "bool": np.ones((8, 8), bool),
}


@pytest.mark.parametrize("reason", BAD_MAPS)
def test_arrays_that_are_no_depth_maps_are_refused_by_name(reason):
    with pytest.raises(InputError, match=reason) as caught:
        depth.read(BAD_MAPS[reason])
    assert "<array" in caught.value.source


def test_files_that_are_no_depth_maps_are_refused_by_name(tmp_path):
    def refused(name: str, reason: str, content: object) -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, PIL.Image.Image):
            content.save(path)
        with pytest.raises(InputError, match=reason) as caught:
            depth.read(path, scale=0.001)
        assert name in caught.value.source

    refused("grey.png", "8-bit picture", PIL.Image.new("L", (20, 20), 9))
    refused("colour.png", "a colour picture", PIL.Image.new("RGB", (20, 20)))
    refused("colour.pfm", "a colour picture", b"PF\n1 1\n-1\n" + bytes(12))
    refused("other.pfm", "begin with Pf", b"P5\n1 1\n255\n1")
    refused("short.pfm", "cut off", pfm(ROOM)[:-1])
    refused("huge.pfm", "at most", b"Pf\n99999 99999\n-1.0\n")
    refused("photo.jpg", "type .jpg", PIL.Image.new("RGB", (20, 20)))
    refused("missing.png", "no such file", None)
    refused("words.exr", "cannot be decoded", b"words")
    PIL.Image.fromarray(MILLIMETRES).save(tmp_path / "pages.tif", save_all=True, append_images=[PIL.Image.fromarray(MILLIMETRES)])
    refused("pages.tif", "2 pages", None)
    for source in (None, 3, [[1.0]], io.StringIO("x"), b"abc"):
        with pytest.raises(InputError):
            depth.read(source)


def test_read_options_are_checked():
    bad = {"scale": 0, "focal_length": -1, "baseline": math.nan, "encoding": "kinect", "kind": "normals", "invalid": "drop"}
    for option, value in bad.items():
        with pytest.raises(OptionError, match=f"depth: {option}"):
            depth.read(ROOM, **{option: value})
    with pytest.raises(OptionError, match="holds depth"):
        depth.read(MILLIMETRES, encoding="sunrgbd", kind="disparity")
    with pytest.raises(InputError, match="16-bit integers"):
        depth.read(ROOM, encoding="sunrgbd")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["png", "tiff", "npy", "exr"])
def test_a_cut_off_map_is_never_half_read(kind, tmp_path):
    path = tmp_path / f"map.{kind}"
    if kind == "png":
        PIL.Image.fromarray(MILLIMETRES).save(path)
    elif kind == "tiff":
        PIL.Image.fromarray(ROOM).save(path)
    elif kind == "npy":
        np.save(path, ROOM)
    else:
        save_exr(path, Z=ROOM)
    options = {"scale": 0.001} if kind == "png" else {}
    whole, data = path.read_bytes(), depth.read(path, **options).data
    for length in (1, 9, len(whole) // 5, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            depth.read(path, **options)
    path.write_bytes(whole)
    np.testing.assert_array_equal(depth.read(path, **options).data, data)


def test_a_header_that_claims_petabytes_is_refused():
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
    with pytest.raises(InputError, match="GiB of memory"):
        depth.read(header.getvalue() + bytes(100), format="npy")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        arrays.arrays(
            st.sampled_from([np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64, np.bool_, np.complex64]),
            arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        ),
        st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\x93NUMPY\x01\0", b"Pf\n2 2\n-1\n", b"PK\x03\x04"]).flatmap(
            lambda head: st.binary(max_size=60).map(lambda rest: head + rest)
        ),
    ),
    st.sampled_from(["png", "tiff", "npy", "npz", "pfm"]),
    st.sampled_from([{}, {"scale": 0.001}, {"invalid": "zero", "scale": 2.0}, {"kind": "disparity"}, {"encoding": "sunrgbd"}]),
)
def test_wild_inputs_are_read_or_refused(source, kind, options):
    try:
        sample = depth.read(source, format=kind, **options)
    except InputError:
        return
    assert sample.data.dtype == np.float32
    assert sample.data.ndim == 2
    with contextlib.suppress(InputError):  # different depths that the model cannot tell apart
        assert depth.transform(sample).isfinite().all()


def test_evaluation_is_fixed_and_training_follows_torchs_seed():
    sample = depth.read(ROOM)
    assert torch.equal(depth.transform(sample), depth.transform(sample))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(depth.transform(sample, train=True))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == (1, 224, 224)


def test_options_survive_json_and_are_checked():
    other = Depth(size=112, metres_factor=8, antialias=True)
    assert Depth(**json.loads(json.dumps(other.options()))) == other
    assert other.transform(other.read(ROOM)).shape == (1, 112, 112)
    wrong = [
        {"size": 0},
        {"focal_length": 0},
        {"baseline": -1},
        {"std": 0.0},
        {"mean": math.nan},
        {"antialias": "no"},
        {"near": 60.0},
    ]
    for options in (*wrong, {"min_disparity": 80.0}, {"metres_factor": True}):
        with pytest.raises(OptionError, match=f"depth: {next(iter(options))}"):
            Depth(**options)


def test_example_is_a_room_that_survives_writing_and_can_be_looked_at(tmp_path):
    sample = depth.example(1)
    assert sample.data.shape == (480, 640)
    assert 0.5 < sample.data.min() < sample.data.max() < 8
    path = depth.write(sample, tmp_path, "room")
    np.testing.assert_array_equal(depth.read(path).data, sample.data)
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    depth.draw(sample, axes)
    assert "metres" in {a.get_ylabel() for a in axes.figure.axes}


def test_files_are_claimed_by_their_content(tmp_path):
    PIL.Image.fromarray(MILLIMETRES).save(tmp_path / "mm.png")
    PIL.Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    (tmp_path / "words.png").write_text("words")
    assert depth.claims(tmp_path / "mm.png") == 2
    assert (
        depth.claims(tmp_path / "photo.png") == depth.claims(tmp_path / "words.png") == depth.claims(tmp_path / "none.png") == 0
    )
    assert depth.claims(tmp_path / "a.exr") == depth.claims(tmp_path / "a.pfm") == depth.claims(tmp_path / "a.npy") == 1
    np.save(tmp_path / "a.npy", MILLIMETRES)
    with pytest.raises(InputError, match="depth or eeg"):
        guess_modality(tmp_path / "a.npy")
