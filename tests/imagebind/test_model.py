"""The model: what comes out, in every habit of ImageBind's clients, and errors that name what does not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vitlens
from tests.imagebind.conftest import MODEL
from vitlens.encoder import EncoderSpec
from vitlens.errors import CheckpointError, ModalityError, OptionError
from vitlens.imagebind import ModalityType, data
from vitlens.imagebind.models.imagebind_model import ImageBindModel, imagebind_huge
from vitlens.model import ViTLens

SENSORS = ("text", "image", "audio", "depth", "point_cloud", "tactile", "eeg")


def loaded(toybox: dict[str, list[str]]) -> dict[str, Any]:
    options: dict[str, dict[str, Any]] = {"depth": {"scale": 0.001}}
    return {
        {"image": "vision"}.get(name, name): data.load_and_transform(name, toybox[name], "cpu", **options.get(name, {}))
        for name in SENSORS
    }


@pytest.fixture(scope="module")
def inputs(toybox: dict[str, list[str]], tiny: ImageBindModel) -> dict[str, Any]:
    return loaded(toybox)


@pytest.fixture(scope="module")
def outputs(inputs: dict[str, Any], tiny: ImageBindModel) -> dict[str, Tensor]:
    with torch.no_grad():
        return tiny(inputs)


def test_names_are_imagebinds_and_ours() -> None:
    theirs = {"VISION": "vision", "TEXT": "text", "AUDIO": "audio", "THERMAL": "thermal", "DEPTH": "depth", "IMU": "imu"}
    assert theirs.items() <= vars(ModalityType).items()
    assert set(vitlens.list_modalities()) <= set(vars(ModalityType).values())


def test_embeddings_are_those_of_vitlens(outputs: dict[str, Tensor], toybox: dict[str, list[str]], tiny: ImageBindModel) -> None:
    wanted = tiny.vitlens.encode({name: toybox[name] for name in SENSORS}, read_options={"depth": {"scale": 0.001}})
    for name in SENSORS:
        found = outputs["vision" if name == "image" else name]
        assert found.shape == (3, tiny.embed_dim)
        torch.testing.assert_close(F.normalize(found, dim=-1), wanted[name], atol=1e-5, rtol=1e-4)


def test_lengths_are_imagebinds_factors(outputs: dict[str, Tensor], tiny: ImageBindModel) -> None:
    scale = tiny.vitlens.logit_scale
    factors = {"vision": 1, "text": scale, "audio": 20, "depth": 5, "point_cloud": scale, "tactile": scale, "eeg": scale}
    for key, factor in factors.items():
        torch.testing.assert_close(outputs[key].norm(dim=-1), torch.full((3,), float(factor)), rtol=1e-4, atol=0)
    after: Any = tiny.modality_postprocessors
    scaling = after[ModalityType.AUDIO][1]
    assert scaling.log_logit_scale.exp().clamp(max=scaling.max_logit_scale).item() == pytest.approx(20)
    assert after[ModalityType.TEXT][1].log_logit_scale.exp().item() == pytest.approx(scale)


def test_a_factor_beyond_100_is_clipped_as_in_imagebind(toybox: dict[str, list[str]]) -> None:
    model = vitlens.load(MODEL, modalities=["text"], device="cpu")
    model.logit_scale = 150.0
    out = ImageBindModel(model)({"text": data.load_and_transform_text(toybox["text"], "cpu")})["text"]
    torch.testing.assert_close(out.norm(dim=-1), torch.full((3,), 100.0))


def test_clips_and_frames_are_averaged(tiny: ImageBindModel, long_sound: str, wide_video: str) -> None:
    sound = data.load_and_transform_audio_data([long_sound], "cpu")
    video = data.load_and_transform_video_data([wide_video], "cpu", clips_per_video=2)
    with torch.no_grad():
        out = tiny({"audio": sound, "vision": video})
        clips = [tiny.vitlens({"audio": sound[:, i, 0].transpose(1, 2)})["audio"] for i in range(sound.shape[1])]
        frames = [tiny.vitlens({"image": video[:, i, :, t]})["image"] for i in range(6) for t in range(2)]
        single = tiny({"audio": sound[:, 1]})["audio"]
        pictures = tiny({"vision": video[:, :, :, 0]})["vision"]
    torch.testing.assert_close(out["audio"], 20 * F.normalize(sum(clips), dim=-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out["vision"], F.normalize(sum(frames), dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(single, 20 * F.normalize(clips[1], dim=-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pictures, F.normalize(sum(frames[::2]), dim=-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("key", ["image", "video"])
def test_our_words_for_vision_are_taken(
    tiny: ImageBindModel, inputs: dict[str, Any], outputs: dict[str, Tensor], key: str
) -> None:
    with torch.no_grad():
        torch.testing.assert_close(tiny({key: inputs["vision"]})[key], outputs["vision"])


def test_one_modality_at_a_time_and_batches_give_the_same(
    tiny: ImageBindModel, inputs: dict[str, Any], outputs: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        for key, x in inputs.items():
            torch.testing.assert_close(tiny({key: x[1:2]})[key][0], outputs[key][1], atol=1e-4, rtol=1e-4)


def test_absent_modalities_are_left_out(tiny: ImageBindModel, inputs: dict[str, Any]) -> None:
    out = tiny({ModalityType.TEXT: inputs["text"], ModalityType.DEPTH: data.load_and_transform_depth_data(None, "cpu")})
    assert list(out) == ["text"]
    assert tiny({}) == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(inputs: dict[str, Any], outputs: dict[str, Tensor], dtype: torch.dtype) -> None:
    model = imagebind_huge(pretrained=True).eval().to("cpu").to(dtype)
    halved = {key: x[:1] if key == "text" else x[:1].to(dtype) for key, x in inputs.items()}
    with torch.no_grad():
        out, vision = model(halved), model({"vision": inputs["vision"]})["vision"]
    for key, x in out.items():
        assert x.dtype == dtype
        assert F.cosine_similarity(x.float(), outputs[key][:1]).min() > 0.99, key
    assert F.cosine_similarity(vision.float(), outputs["vision"]).min() > 0.99, "float32 in, as the loader gave it"


def test_it_is_a_module_like_any_other(tiny: ImageBindModel, inputs: dict[str, Any], outputs: dict[str, Tensor]) -> None:
    untrained = imagebind_huge()
    assert not torch.allclose(untrained({"text": inputs["text"]})["text"], outputs["text"], atol=0.1)
    untrained.load_state_dict(tiny.state_dict())
    torch.testing.assert_close(untrained({"text": inputs["text"]})["text"], outputs["text"])
    twin = copy.deepcopy(tiny)
    torch.testing.assert_close(twin({"vision": inputs["vision"]})["vision"], outputs["vision"])
    x = inputs["vision"].clone().requires_grad_()
    tiny({"vision": x})["vision"].sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    assert tiny.device == torch.device("cpu")


def test_only_what_is_asked_for_is_loaded() -> None:
    model = imagebind_huge(pretrained=True, modalities=["vision", "text"])
    assert set(model.vitlens.modalities) == {"image", "video", "text"}
    assert set(model.modality_postprocessors) == {"vision", "text"}
    assert set(imagebind_huge(modalities="depth").vitlens.modalities) == {"depth"}
    with pytest.raises(ModalityError, match=r"model vitlens-tiny-random has no modality 'audio'; it has vision, text$"):
        model({"audio": torch.zeros(1, 1, 128, 512)})


def test_a_model_of_ones_own(tmp_path: Path, toybox: dict[str, list[str]], outputs: dict[str, Tensor]) -> None:
    vitlens.load(MODEL, device="cpu").save_pretrained(tmp_path / "own")
    for model in (
        imagebind_huge(pretrained=True, model=tmp_path / "own"),
        ImageBindModel(vitlens.load(tmp_path / "own", device="cpu")),
    ):
        out = model({"vision": data.load_and_transform_vision_data(toybox["image"], "cpu")})
        torch.testing.assert_close(out["vision"], outputs["vision"])


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("vision", (1, 3, 64, 64), r"vision: shape \[1, 3, 64, 64\]; the model vitlens-tiny-random takes \[b, 3, 224, 224\] or"),
        ("vision", (1, 3, 2, 224, 224), r"\[b, clips, 3, frames, 224, 224\]: load it after the model is made"),
        ("vision", (3, 224, 224), r"shape \[3, 224, 224\]"),
        ("audio", (1, 3, 1, 128, 208), r"\[b, 1, 128, 512\] or \[b, clips, 1, 128, 512\]"),
        ("audio", (1, 3, 1, 64, 204), r"shape \[1, 3, 1, 64, 204\]"),
        ("audio", (1, 3, 512, 128), r"shape \[1, 3, 512, 128\]"),
        ("point_cloud", (1, 2048, 6), r"\[b, n, 3\]"),
        ("text", (1, 1, 77), r"takes \[b, 77\]: "),
    ],
)
def test_a_wrong_shape_is_named(tiny: ImageBindModel, key: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tiny({key: torch.zeros(shape, dtype=torch.long if key == "text" else torch.float32)})


def test_wrong_types_are_named(tiny: ImageBindModel) -> None:
    with pytest.raises(OptionError, match=r"text: token ids are whole numbers, found a tensor of torch.float16"):
        tiny({"text": torch.zeros(1, 77).half()})
    with pytest.raises(OptionError, match="vision: a tensor is needed, found list"):
        tiny({"vision": ["dog.jpg"]})
    with pytest.raises(ModalityError, match="no modality 'smell'"):
        tiny({"smell": torch.zeros(1)})
    with pytest.raises(ModalityError, match=r"no modality 'imu'.*no weights for imu: train a lens"):
        tiny({ModalityType.IMU: torch.zeros(1, 6, 2000)})


def test_tensors_made_for_another_model_are_refused_by_name(tmp_path: Path, toybox: dict[str, list[str]]) -> None:
    spec = vitlens.card(MODEL).spec
    other = EncoderSpec("image", spec.encoders[0].vit, options={"mean": (0.5, 0.5, 0.5)})
    grey = ViTLens.from_spec(vitlens.ModelSpec(name="grey", space=spec.space, encoders=(other,)))
    before = data.load_and_transform_vision_data(toybox["image"], "cpu")
    cloud = data.load_and_transform_point_cloud_data(toybox["point_cloud"], "cpu", model="vitlens-g-openshape").half()
    model = ImageBindModel(grey)
    with pytest.raises(
        OptionError, match=f"this tensor was made for the model {MODEL}, which prepares it otherwise than grey: load it"
    ):
        model({"vision": before})
    assert model({"vision": data.load_and_transform_vision_data(toybox["image"], "cpu")})["vision"].shape == (3, 64)
    assert model({"vision": before.clone()})["vision"].shape == (3, 64), "of a copy only the shape is known"
    with pytest.raises(
        OptionError, match=r"shape \[3, 10000, 6\] \(tensors of this shape were made here for the model vitlens-g-openshape"
    ):
        imagebind_huge(pretrained=True)({"point_cloud": cloud})


def test_equal_preprocessing_is_as_good(tiny: ImageBindModel, toybox: dict[str, list[str]], outputs: dict[str, Tensor]) -> None:
    x = data.load_and_transform_vision_data(toybox["image"], "cpu", model="vitlens-l")
    with torch.no_grad():
        torch.testing.assert_close(tiny({"vision": x})["vision"], outputs["vision"])


def test_what_imagebind_has_and_this_has_not_is_said(tiny: ImageBindModel) -> None:
    for name in ("modality_heads", "modality_trunks", "modality_preprocessors"):
        assert not hasattr(tiny, name)
        with pytest.raises(AttributeError, match=rf"{name} is a layer of ImageBind.*model.vitlens.encoders"):
            getattr(tiny, name)
    with pytest.raises(CheckpointError, match="ImageBind's own weights"):
        tiny.load_state_dict({"modality_trunks.vision.blocks.0.attn.in_proj_weight": torch.zeros(1)})
    with pytest.raises(OptionError, match="the dimensions of ImageBind's own layers mean nothing here"):
        ImageBindModel(vision_embed_dim=1280)
    with pytest.raises(OptionError, match="weights= is for pretrained=True"):
        imagebind_huge(weights="weights")


def test_thermal_tensors_are_imagebinds(tmp_path: Path) -> None:
    spec = vitlens.card(MODEL).spec
    sensor = EncoderSpec("thermal", spec.encoders[0].vit, lens=vitlens.IdentityConfig())
    model = ImageBindModel(ViTLens.from_spec(vitlens.ModelSpec(name="hot", space=spec.space, encoders=(sensor,))))
    grey = tmp_path / "night.png"
    PIL.Image.fromarray(np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))).save(grey)
    x = data.load_and_transform_thermal_data([grey, np.full((224, 224), 51, np.uint8)], "cpu", unit="C", range=[-10, 50])
    assert x is not None and x.shape == (2, 1, 224, 224)
    assert x.min() >= 0 and x.max() <= 1
    torch.testing.assert_close(x[0, 0, 112, [0, 112, 223]], torch.tensor([0.125, 0.5, 0.875]), atol=0.01, rtol=0)
    torch.testing.assert_close(x[1], torch.full((1, 224, 224), 0.2))
    out = model({ModalityType.THERMAL: x})[ModalityType.THERMAL]
    torch.testing.assert_close(out.norm(dim=-1), torch.full((2,), 10.0))
