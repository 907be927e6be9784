"""Tactile: touch pictures and their frames, prepared as the reference prepares them."""

from __future__ import annotations

import json
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
from vitlens.modalities.tactile import MAX_FRAMES, Tactile, imprint

REFERENCE = Path(__file__).parents[1] / "reference" / "vitlens"
PREPROC = REFERENCE / "golden_preproc_formula"
tactile = Tactile()


@pytest.mark.parametrize("antialias", [False, True])
def test_preprocessing_equals_the_reference(antialias, tmp_path):
    path = tmp_path / "touch.png"
    PIL.Image.fromarray(runpy.run_path(str(PREPROC / "inputs.py"))["tactile"]()).save(path)
    x = Tactile(antialias=antialias).transform(tactile.read(path))
    assert x.shape == (3, 224, 224)
    golden = np.load(PREPROC / "tactile_360x480.npz")[f"antialias_{antialias}"]
    np.testing.assert_allclose(x[:, ::3, ::3], golden, atol=1e-5)


def test_tokens_equal_the_reference():
    value = runpy.run_path(str(REFERENCE / "fill.py"))["value"]
    own = PatchEmbed(channels=3, width=128, patch=14)
    own.load_state_dict({"conv1.weight": torch.from_numpy(value("visual.conv1.weight", (128, 3, 14, 14)))})
    vit = SimpleNamespace(width=128, patch_size=14, image_size=224, patch_embedding=lambda: own)
    x = runpy.run_path(str(REFERENCE / "golden_forward" / "inputs.py"))["tactile"]()
    tokens = tactile.build_embed(128, vit)(torch.from_numpy(x))
    golden = np.load(REFERENCE / "golden_forward_lite" / "tactile.npz")["tok_x"]
    np.testing.assert_allclose(tokens[:, ::16].detach(), golden, rtol=1e-4, atol=1e-5)


def test_frames_are_prepared_as_single_pictures_are(tmp_path):
    frames = np.stack([imprint(seed, 90, 120) for seed in range(3)])
    paths = []
    for i, frame in enumerate(frames):
        paths.append(tmp_path / f"{i}.png")
        PIL.Image.fromarray(frame).save(paths[-1])
    for source in (frames, torch.from_numpy(frames), list(frames), paths, frames / 255):
        sample = tactile.read(source)
        np.testing.assert_array_equal(sample.data, frames)
    x = tactile.transform(sample)
    assert x.shape == (3, 3, 224, 224)
    torch.testing.assert_close(x[1], tactile.transform(tactile.read(frames[1])))
    assert tactile.describe(sample)["frames"] == "3"


def test_what_is_no_touch_picture_is_refused(tmp_path):
    (tmp_path / "words.png").write_text("words")
    bad = {
        "0 frames": [],
        f"{MAX_FRAMES + 1} frames": [np.zeros((4, 4, 3), np.uint8)] * (MAX_FRAMES + 1),
        "different sizes": [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)],
        "shape": np.zeros((2, 4, 4, 2), np.uint8),
        "5, 4, 4, 3": np.zeros((1, 5, 4, 4, 3), np.uint8),
        "words.png": tmp_path / "words.png",
        "NaN": np.full((2, 4, 4, 3), np.nan),
        "a NoneType": [None],
    }
    for reason, source in bad.items():
        with pytest.raises(InputError, match=reason):
            tactile.read(source)


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int16, np.float32, np.bool_, "U2"]),
        arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    )
    | st.binary(max_size=100)
    | st.lists(st.none() | st.just(np.zeros((4, 4, 3), np.uint8)) | st.binary(max_size=20), max_size=3)
)
def test_wild_inputs_are_read_or_refused(source):
    try:
        sample = tactile.read(source)
    except InputError:
        return
    assert sample.data.dtype == np.uint8
    assert tactile.transform(sample).shape[-3:] == (3, 224, 224)


def test_evaluation_is_fixed_and_training_follows_torchs_seed():
    sample = tactile.example(0)
    assert torch.equal(tactile.transform(sample), tactile.transform(sample))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(tactile.transform(sample, train=True))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_options_survive_json_and_are_checked():
    other = Tactile(size=64, resize=70, antialias=True)
    assert Tactile(**json.loads(json.dumps(other.options()))) == other
    assert other.transform(other.example()).shape == (3, 64, 64)
    for wrong in ({"resize": 100}, {"resize": 0}, {"antialias": None}, {"size": -1}, {"std": (1, 1)}):
        with pytest.raises(OptionError, match=f"tactile: {next(iter(wrong))}"):
            Tactile(**wrong)


def test_example_survives_writing_and_never_wins_a_picture(tmp_path):
    sample = tactile.example(2)
    path = tactile.write(sample, tmp_path, "screw")
    np.testing.assert_array_equal(tactile.read(path).data, sample.data)
    assert 0 < tactile.claims(path) < 1
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    tactile.draw(sample, axes)
    assert axes.images


def gel(seed: int, pressed: bool) -> np.ndarray:
    """A marked gel under uneven light, with or without a ball in it."""
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    light = 120 + 40 * x[..., None] * (1, -0.5, -0.5) - 30 * (x * x + y * y)[..., None]
    light[::40, ::40] -= 60  # markers
    ball = np.clip(1 - ((x - 0.2) ** 2 + y**2) / 0.05, 0, 1)[..., None] * (50, -30, 20) * pressed
    return (light + ball + np.random.default_rng(seed).normal(0, 1.5, light.shape)).clip(0, 255).astype(np.uint8)


def test_a_background_takes_the_untouched_gel_away(tmp_path):
    bare, pressed = gel(0, False), gel(1, True)
    PIL.Image.fromarray(bare).save(tmp_path / "bare.png")
    for background in (bare, tmp_path / "bare.png", str(tmp_path / "bare.png")):
        sample = tactile.load({"source": pressed, "background": background})
        away = np.abs(sample.data.astype(float) - bare.mean(axis=(0, 1))).max(axis=-1)
        assert away[:, :120].mean() < 5 and away[110:130, 180:205].mean() > 25
        assert "remarks" not in sample.info and "background" in tactile.describe(sample)
    frames = tactile.read(np.stack([pressed, gel(2, True)]), background=bare)
    np.testing.assert_array_equal(frames.data[0], sample.data)
    with pytest.raises(InputError, match="320 x 240 and 120 x 90 pixels"):
        tactile.read(pressed, background=imprint(0, 90, 120))


def test_an_empty_touch_is_said(tmp_path):
    bare = gel(0, False)
    said = {"background=": tactile.read(bare), "look alike": tactile.read(gel(3, False), background=bare)}
    for words, sample in said.items():
        assert words in sample.info["remarks"][0] and words in tactile.describe(sample)["remarks"]
    assert "remarks" not in tactile.read(gel(1, True)).info
    assert "remarks" not in tactile.read(np.stack([bare, gel(1, True)])).info, "one of the frames is a touch"
    assert all("remarks" not in tactile.read(imprint(seed)).info for seed in range(4))
