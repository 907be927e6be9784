"""The loaders: ImageBind's parameters and layouts, the model's own preprocessing, and errors that say what is wrong."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vitlens
from vitlens.errors import InputError, ModalityError, ModelError, OptionError
from vitlens.imagebind import alias, data
from vitlens.imagebind.models.imagebind_model import imagebind_huge
from vitlens.modality import get_modality
from vitlens.zoo import find_modality

LOADERS: dict[str, Callable[..., Any]] = {
    name.removeprefix("load_and_transform_").removesuffix("_data"): loader
    for name, loader in vars(data).items()
    if name.startswith("load_and_transform_")
}
NEEDED = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("loader", "parameters"),
    [
        ("text", {"text": NEEDED, "device": NEEDED}),
        ("vision", {"image_paths": NEEDED, "device": NEEDED}),
        (
            "audio",
            {
                "audio_paths": NEEDED,
                "device": NEEDED,
                "num_mel_bins": 128,
                "target_length": 204,
                "sample_rate": 16000,
                "clip_duration": 2,
                "clips_per_video": 3,
                "mean": -4.268,
                "std": 9.138,
            },
        ),
        (
            "video",
            {"video_paths": NEEDED, "device": NEEDED, "clip_duration": 2, "clips_per_video": 5, "sample_rate": 16000},
        ),
    ],
)
def test_parameters_are_imagebinds(loader: str, parameters: dict[str, Any]) -> None:
    found = inspect.signature(LOADERS[loader]).parameters.values()
    positional = {p.name: p.default for p in found if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert list(positional.items()) == list(parameters.items())
    assert [p.name for p in found if p.kind is p.KEYWORD_ONLY] == ["model"]


@pytest.mark.parametrize("loader", sorted(LOADERS))
def test_nothing_gives_nothing(loader: str) -> None:
    assert LOADERS[loader](None, "cpu") is None


def test_tensors_have_imagebinds_layout(toybox: dict[str, list[str]], wide_video: str) -> None:
    shapes = {
        "text": [3, 77],
        "vision": [3, 3, 224, 224],
        "audio": [3, 3, 1, 128, 512],
        "depth": [3, 1, 224, 224],
        "point_cloud": [3, 2048, 3],
        "tactile": [3, 3, 224, 224],
        "eeg": [3, 128, 512],
    }
    options: dict[str, dict[str, Any]] = {"depth": {"scale": 0.001}}
    for name, shape in shapes.items():
        x = LOADERS[name](toybox[{"vision": "image"}.get(name, name)], "cpu", **options.get(name, {}))
        assert list(x.shape) == shape
        assert x.dtype == (torch.int64 if name == "text" else torch.float32)
    assert data.load_and_transform_video_data([wide_video], torch.device("cpu")).shape == (1, 15, 3, 2, 224, 224)


def test_preprocessing_is_the_models(toybox: dict[str, list[str]], long_sound: str) -> None:
    image, audio = find_modality("image", "vitlens-tiny-random"), find_modality("audio", "vitlens-tiny-random")
    torch.testing.assert_close(
        data.load_and_transform_vision_data(toybox["image"][:1], "cpu")[0], image.transform(image.load(toybox["image"][0]))
    )
    clips = data.load_and_transform_audio_data([long_sound], "cpu")[0]
    torch.testing.assert_close(clips[:, 0].transpose(1, 2), audio.transform(audio.load(long_sound)))
    assert not torch.equal(clips[0], clips[2])


def test_depth_is_metres_and_a_camera(toybox: dict[str, list[str]]) -> None:
    map_ = np.linspace(1, 5, 64 * 64, dtype=np.float32).reshape(64, 64)
    metres = data.load_and_transform_depth_data([map_], "cpu", focal_length=500.0, baseline=0.075)
    again = data.load_and_transform_depth_data([(map_ * 1000).astype(np.float32)], "cpu", scale=0.001, focal_length=500.0)
    wider = data.load_and_transform_depth_data([{"source": map_, "baseline": 0.15}], "cpu", focal_length=500.0)
    torch.testing.assert_close(metres, again, atol=1e-4, rtol=1e-4)
    depth = get_modality("depth")
    disparity = [x * depth.std + depth.mean for x in (metres, wider)]  # type: ignore[attr-defined]
    torch.testing.assert_close(disparity[1], 2 * disparity[0])
    with pytest.raises(InputError, match=r"scale= metres per unit"):
        data.load_and_transform_depth_data(toybox["depth"], "cpu")


def test_loaders_follow_the_model_made_last(
    toybox: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(alias.ENV)
    points = toybox["point_cloud"][:1]
    assert data.load_and_transform_point_cloud_data(points, "cpu").shape[1] == 8192, "vitlens-l before any model is made"
    model = imagebind_huge(pretrained=True, model="vitlens-tiny-random", modalities=["point_cloud", "vision"])
    assert data.load_and_transform_point_cloud_data(points, "cpu").shape[1] == 2048
    assert data.load_and_transform_point_cloud_data(points, "cpu", model="vitlens-l").shape[1] == 8192
    with pytest.raises(
        ModalityError,
        match=r"model vitlens-tiny-random, as it was made, has no modality 'audio'; it has image, point_cloud, video",
    ):
        data.load_and_transform_audio_data(toybox["audio"], "cpu")
    model.vitlens.save_pretrained(tmp_path / "folder")
    assert data.load_and_transform_point_cloud_data(points, "cpu", model=tmp_path / "folder").shape[1] == 2048
    assert data.load_and_transform_point_cloud_data(points, "cpu", model=model).shape[1] == 2048


def test_clips_of_sound_may_be_chosen(long_sound: str) -> None:
    assert data.load_and_transform_audio_data([long_sound], "cpu", clips_per_video=5).shape == (1, 5, 1, 128, 512)
    short = data.load_and_transform_audio_data([long_sound], "cpu", clip_duration=3)[0, 0, 0]
    assert short[:, 298:].unique().numel() == 1, "three seconds are 298 frames, the rest is padding"
    assert short[:, :298].unique().numel() > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0.0}, r"mean -4.2677393; 0.0 is not for it"),
        ({"sample_rate": 44100}, r"rate 16000; 44100"),
        ({"target_length": 1024}, r"frames 512; 1024"),
        ({"clip_duration": 10}, r"at most the 5.12 s that the model vitlens-tiny-random hears, found 10"),
        ({"clips_per_video": 0}, r"clips must be a whole number from 1 to 1048576, found 0"),
    ],
)
def test_numbers_that_belong_to_the_weights_are_not_for_choice(long_sound: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        data.load_and_transform_audio_data([long_sound], "cpu", **options)


def test_the_models_own_numbers_are_taken_as_well(long_sound: str) -> None:
    x = data.load_and_transform_audio_data([long_sound], "cpu", 128, 512, 16000, 2, 3, -4.2677393, 4.5689974)
    torch.testing.assert_close(x, data.load_and_transform_audio_data([long_sound], "cpu"))


def test_a_video_is_clips_of_three_crops(wide_video: str) -> None:
    x = data.load_and_transform_video_data([wide_video], "cpu", clip_duration=3, clips_per_video=2)[0]
    assert x.shape == (6, 3, 3, 224, 224)
    light = x.mean(dim=(1, 3, 4)).reshape(2, 3, 3)  # clip, crop, frame
    assert (light.diff(dim=1) > 0).all(), "left, middle, right"
    assert (light[0, :, -1] < light[1, :, 0]).all() and (light.diff(dim=2) > 0).all(), "time goes on within and across clips"
    middle = get_modality("video", frames=6)
    torch.testing.assert_close(
        x.reshape(2, 3, 3, 3, 224, 224)[:, 1].movedim(1, 2).flatten(0, 1),
        middle.transform(middle.load(wide_video)),
        atol=0.05,
        rtol=0,
    )
    for wrong in ({"clip_duration": 1.5}, {"clips_per_video": 0}):
        with pytest.raises(OptionError, match="whole number of 1 or more"):
            data.load_and_transform_video_data([wide_video], "cpu", **wrong)


@pytest.mark.parametrize("sensor", ["thermal", "imu"])
def test_thermal_and_imu_need_a_model_that_has_them(sensor: str) -> None:
    with pytest.raises(ModalityError, match=rf"no modality '{sensor}'; it has image.*no weights for {sensor}: train a lens"):
        LOADERS[sensor](["picture.png"], "cpu")


def test_wrong_lists_and_files_are_named(toybox: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.jpg: no such file"):
        data.load_and_transform_vision_data([toybox["image"][0], str(tmp_path / "gone.jpg")], "cpu")
    with pytest.raises(OptionError, match=r"a list of items is needed, found dog.jpg"):
        data.load_and_transform_vision_data("dog.jpg", "cpu")
    with pytest.raises(OptionError, match="put it in a list"):
        data.load_and_transform_text("a dog", "cpu")
    with pytest.raises(OptionError, match="empty list"):
        data.load_and_transform_text([], "cpu")
    with pytest.raises(OptionError, match="unknown read option 'metres'"):
        data.load_and_transform_depth_data(toybox["depth"], "cpu", metres=True)
    with pytest.raises(OptionError, match=r"different shapes \(\[2, 3, 224, 224\], \[3, 224, 224\]\)"):
        data.load_and_transform_tactile_data([toybox["tactile"][0], toybox["tactile"][:2]], "cpu")
    with pytest.raises(ModelError, match="unknown model 'vitlens-xxl'"):
        data.load_and_transform_vision_data(toybox["image"], "cpu", model="vitlens-xxl")
    with pytest.raises(OptionError, match="found int"):
        data.load_and_transform_vision_data(toybox["image"], "cpu", model=3)  # type: ignore[arg-type]


def test_saved_tensors_hold_nothing_of_ours(toybox: dict[str, list[str]], tmp_path: Path) -> None:
    x = data.load_and_transform_vision_data(toybox["image"], "cpu")
    torch.save(x, tmp_path / "x.pt")
    torch.testing.assert_close(torch.load(tmp_path / "x.pt", weights_only=True), x)
    assert os.path.getsize(tmp_path / "x.pt") < 4 * x.numel() + 4096


def test_the_generic_loader_takes_every_modality(toybox: dict[str, list[str]], wide_video: str) -> None:
    files = {**toybox, "vision": toybox["image"], "video": [wide_video]}
    for name in [*(name for name in vitlens.list_modalities() if name in files), "vision"]:
        own = LOADERS.get(name, LOADERS["vision"])
        options: dict[str, Any] = {"scale": 0.001} if name == "depth" else {}
        torch.testing.assert_close(
            data.load_and_transform(name, files[name], "cpu", **options), own(files[name], "cpu", **options)
        )
