"""Towers as graphs: what they give is what torch gives, what drifts is not written, what is beside them tells how to use them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

import vitlens
from tests.command_line import refused, run
from tests.test_completeness import spec
from vitlens.errors import ModelError, OptionError
from vitlens.export import export_tower
from vitlens.export.formats import FORMATS, open_onnx, open_openvino
from vitlens.lens_config import IdentityConfig, LensConfig, PerceiverConfig
from vitlens.modality import list_modalities
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.vit import ViTSpec

TINY = ["--model", "vitlens-tiny-random"]
SMALL_LENS = PerceiverConfig(depth=1, latents=4)
SMALL_CLOUD = {"points": 96, "groups": 24, "group_size": 8, "encoder_width": 16}


def tiny(name: str, *, lens: LensConfig | None = None, **options: Any) -> ViTLens:
    made = spec(name)
    encoders = tuple(replace(encoder, options=options, lens=lens) for encoder in made.encoders)
    torch.manual_seed(0)
    return ViTLens.from_spec(replace(made, encoders=encoders))


def examples(model: ViTLens, name: str, seeds: range) -> torch.Tensor:
    reading = model.modality(name)
    return torch.stack([reading.transform(reading.example(seed)) for seed in seeds])


def encoded(model: ViTLens, name: str, items: torch.Tensor) -> np.ndarray:
    return F.normalize(model.embed(name, list(items)), dim=-1).numpy()


def test_the_command_writes_a_graph_that_tells_how_to_use_it(tmp_path: Path) -> None:
    model = vitlens.load("vitlens-tiny-random", modalities=["audio", "text"], device="cpu")
    audio, sound, out = model.modality("audio"), model.modality("audio").example(seed=21), tmp_path / "audio.onnx"
    file = audio.write(sound, tmp_path, "bell")
    said = run(
        "export", file, *TINY, "--modality", "audio", "-o", out, "--labels", "bell,drum", "--template", "the sound of a {}"
    ).stdout
    assert "1 given items" in said

    told = json.loads((tmp_path / "audio.onnx.json").read_text())
    assert told["preprocessing"]["steps"] == audio.steps()
    assert told["input"]["shape"] == ["batch", "views", audio.frames, audio.mel_bins]
    assert told["space"] == {"name": model.space.name, "dim": model.space.dim}
    assert told["drift"]["cosine"] > 0.99999
    assert onnxruntime.InferenceSession(out).get_modelmeta().custom_metadata_map["weights"] == told["weights"]

    graph = open_onnx(out)
    items = examples(model, "audio", range(5))
    views = torch.stack([items[:2, 0], items[2:4, 0]])  # two items of two views each
    for batch in (items, items[:1], views):
        np.testing.assert_allclose(graph(batch.numpy()), encoded(model, "audio", batch), atol=1e-4)
    vectors = np.load(tmp_path / told["labels"]["file"])
    scores = told["labels"]["logit_scale"] * graph(items.numpy()) @ vectors.T
    expected = model.classify(
        "audio", [audio.example(seed) for seed in range(5)], ["bell", "drum"], templates=["the sound of a {}"]
    )
    np.testing.assert_allclose(torch.softmax(torch.from_numpy(scores), -1), expected.probabilities, atol=1e-3)

    assert f"output {out} exists" in refused("export", *TINY, "--modality", "audio", "-o", out)
    assert "notes.txt: no such file" in refused(
        "export", tmp_path / "notes.txt", *TINY, "--modality", "audio", "-o", tmp_path / "b.onnx"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audio.onnx",
        "audio.onnx.json",
        "audio.onnx.labels.npy",
        file.name,
    ]


@pytest.mark.slow
def test_openvino_samples_the_points_of_every_cloud_anew(tmp_path: Path) -> None:
    model = tiny("point_cloud", lens=SMALL_LENS, upsample=False, **SMALL_CLOUD)
    made = export_tower(model, "point_cloud", tmp_path / "cloud.xml")
    assert [path.name for path in made.files] == ["cloud.xml", "cloud.bin", "cloud.xml.json"]
    assert made.description["input"]["shape"] == ["batch", "length", 3]
    graph = open_openvino(made.files[0])
    clouds = examples(model, "point_cloud", range(3, 6))
    for batch in (clouds, clouds[:1, :50]):
        np.testing.assert_allclose(graph(batch.numpy()), encoded(model, "point_cloud", batch), atol=1e-4)


@pytest.mark.parametrize(
    "name", [name if name == "text" else pytest.param(name, marks=pytest.mark.slow) for name in list_modalities()]
)
def test_every_sensor_can_be_exported(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    export_tower(model, name, tmp_path / "it.onnx")
    items = examples(model, name, range(2))
    np.testing.assert_allclose(open_onnx(tmp_path / "it.onnx")(items.numpy()), encoded(model, name, items), atol=1e-4)


@pytest.mark.slow
def test_balls_of_points_can_be_exported(tmp_path: Path) -> None:
    model = tiny("point_cloud", lens=SMALL_LENS, tokenizer="pnsa", color=True, **SMALL_CLOUD)
    export_tower(model, "point_cloud", tmp_path / "balls.xml")
    assert export_tower(model, "point_cloud", tmp_path / "balls.onnx").drift.difference < 1e-4


@pytest.mark.slow
def test_clouds_drawn_as_pictures_can_be_exported(tmp_path: Path) -> None:
    model = tiny("point_cloud", lens=IdentityConfig(), tokenizer="projection", color=True, upsample=False, points=512, size=32)
    made = export_tower(model, "point_cloud", tmp_path / "drawn.onnx")
    assert made.drift.difference < 1e-4
    graph, clouds = open_onnx(tmp_path / "drawn.onnx"), examples(model, "point_cloud", range(3, 6))
    for batch in (clouds, clouds[:1, :300]):
        np.testing.assert_allclose(graph(batch.numpy()), encoded(model, "point_cloud", batch), atol=1e-4)


@pytest.mark.slow
def test_a_compiled_model_gives_the_same(tmp_path: Path) -> None:
    plain = vitlens.load("vitlens-tiny-random", modalities=["eeg"], device="cpu")
    compiled = vitlens.load("vitlens-tiny-random", modalities=["eeg"], device="cpu", compile=True)
    for count in (3, 1, 4):
        items = examples(plain, "eeg", range(count))
        np.testing.assert_allclose(encoded(compiled, "eeg", items), encoded(plain, "eeg", items), atol=1e-5)
    again = vitlens.load(compiled.save_pretrained(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.embed("eeg", list(items)), plain.embed("eeg", list(items)))


@pytest.mark.parametrize("wrong", ["noise", "nan"])
def test_what_drifts_is_refused_and_not_left_behind(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("eeg")
    good = lambda x: encoded(model, "eeg", torch.from_numpy(x))  # noqa: E731
    bad = {"noise": lambda x: good(x) + np.float32(0.02), "nan": lambda x: good(x) * np.float32(np.nan)}[wrong]
    made = replace(FORMATS["onnx"], write=lambda graph, path, about: path.write_bytes(b"graph"), open=lambda path: bad)
    monkeypatch.setitem(FORMATS, "onnx", made)
    with pytest.raises(ModelError, match=r"eeg\.onnx: cosine .* on the worst of 8 items, at least 0\.9999 is needed"):
        export_tower(model, "eeg", tmp_path / "eeg.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    assert "say which sensor's tower" in refused("export", *TINY, "-o", out)
    assert "say where to write the graph" in refused("export", *TINY, "--modality", "audio")
    assert "the type must be .onnx, .xml" in refused("export", *TINY, "--modality", "audio", "-o", tmp_path / "x.pt")
    assert "the type must be .xml" in refused("export", *TINY, "--modality", "audio", "-o", out, "--format", "openvino")
    assert "--format must be onnx or openvino" in refused("export", *TINY, "--modality", "audio", "-o", out, "--format", "trt")
    assert "no such folder" in refused("export", *TINY, "--modality", "audio", "-o", tmp_path / "no" / "x.onnx")
    assert "has no modality 'smell'" in refused("export", *TINY, "--modality", "smell", "-o", out)
    with pytest.raises(OptionError, match=r"weights are torch\.bfloat16"):
        export_tower(tiny("eeg").to(torch.bfloat16), "eeg", out)
    config = {"width": 32, "head_width": 16, "patches": 64, "patch_size": 28}
    host = replace(spec("audio").encoders[0], vit=ViTSpec("some host", library="host", config=config))
    lens = ViTLens.from_spec(replace(spec("audio"), encoders=(host,), space=EmbeddingSpace("host", 32)))
    with pytest.raises(ModelError, match="gives tokens for another model's ViT"):
        export_tower(lens, "audio", out)
    assert list(tmp_path.iterdir()) == []
