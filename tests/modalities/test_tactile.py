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
