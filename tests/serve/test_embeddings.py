"""/v1/embeddings: every form in which a thing may be sent gives what the model gives when it is asked directly."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.serve.conftest import MODEL, Running
from vitlens.modality import modality_class

SENSORS = ["image", "video", "point_cloud", "depth", "audio", "tactile", "eeg"]


def data_uri(path: Path, kind: str = "application/octet-stream") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def rows(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return np.array([one["embedding"] for one in data], np.float32)


def direct(service: Running, modality: str, *items: Any) -> np.ndarray:
    with torch.inference_mode():
        return service.service.model.encode({modality: list(items)})[modality].numpy()


def message(response: Any, status: int = 400) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] and error["type"]
    return str(error["message"])


def test_texts_one_or_many(service: Running) -> None:
    expected = direct(service, "text", "a dog", "rain")
    many = service.post("/v1/embeddings", json={"model": MODEL, "input": ["a dog", "rain"], "user": "me"})
    assert np.allclose(rows(many), expected, atol=1e-5)
    assert many.json()["object"] == "list" and many.json()["model"] == MODEL
    assert many.json()["usage"]["total_tokens"] == many.json()["usage"]["prompt_tokens"] > 0
    one = service.post("/v1/embeddings", json={"input": "rain"})
    assert np.allclose(rows(one), expected[1:], atol=1e-5)


def test_base64_holds_the_same_numbers(service: Running) -> None:
    plain = rows(service.post("/v1/embeddings", json={"input": ["a dog"]}))
    reply = service.post("/v1/embeddings", json={"input": ["a dog"], "encoding_format": "base64"}).json()
    assert np.array_equal(np.frombuffer(base64.b64decode(reply["data"][0]["embedding"]), "<f4"), plain[0])


def test_fewer_dimensions_are_the_first_ones_of_length_one(service: Running) -> None:
    whole = direct(service, "text", "a dog")[0]
    short = rows(service.post("/v1/embeddings", json={"input": "a dog", "dimensions": 8}))[0]
    assert np.allclose(short, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-5)
    assert "from 1 to 64" in message(service.post("/v1/embeddings", json={"input": "a", "dimensions": 65}))
    assert "dimensions" in message(service.post("/v1/embeddings", json={"input": "a", "dimensions": 0}))


@pytest.mark.parametrize("modality", SENSORS)
def test_a_file_is_the_same_in_every_form(service: Running, files: dict[str, Path], modality: str) -> None:
    path = files[modality]
    expected = direct(service, modality, path)
    uri, content = data_uri(path), path.read_bytes()
    part = {"type": f"{modality}_url", f"{modality}_url": {"url": uri}}
    sent = {"type": f"input_{modality}", f"input_{modality}": {"data": uri.partition(",")[2], "format": path.suffix[1:]}}
    forms: list[dict[str, Any]] = [
        {"input": [uri], "modality": modality},
        {"input": uri.partition(",")[2], "modality": modality},
        {"input": [part]},
        {"input": {modality: uri}},
        {"messages": [{"role": "user", "content": [part]}]},
        {"messages": [[{"role": "user", "content": [sent]}]]},
    ]
    for form in forms:
        assert np.allclose(rows(service.post("/v1/embeddings", json=form)), expected, atol=1e-4), form.keys()
    upload = service.post("/v1/embeddings", files={modality: (path.name, content)})
    assert np.allclose(rows(upload), expected, atol=1e-4)
    assert upload.json()["data"][0]["modality"] == modality


@pytest.mark.parametrize("modality", [name for name in SENSORS if name != "tactile"])
def test_what_a_file_is_is_found_out(service: Running, files: dict[str, Path], modality: str) -> None:
    path = files[modality]
    reply = service.post("/v1/embeddings", files={"file": (path.name, path.read_bytes())})
    assert reply.json()["data"][0]["modality"] == modality


def test_several_parts_are_a_mixture_by_weight(service: Running, files: dict[str, Path]) -> None:
    model = service.service.model
    parts = [{"type": "image_url", "image_url": data_uri(files["image"]), "weight": 2}, {"type": "text", "text": "a dog"}]
    expected = model.compose(
        [torch.from_numpy(direct(service, "image", files["image"])[0]), torch.from_numpy(direct(service, "text", "a dog")[0])],
        weights=[2, 1],
    )
    for form in ({"input": [parts]}, {"input": {"content": parts}}, {"messages": [{"role": "user", "content": parts}]}):
        assert np.allclose(rows(service.post("/v1/embeddings", json=form))[0], expected.numpy(), atol=1e-4)
    given = [{"type": "embedding", "embedding": expected.tolist()}]
    assert np.allclose(rows(service.post("/v1/embeddings", json={"input": given}))[0], expected.numpy(), atol=1e-5)


def test_read_options_reach_the_reader(service: Running, tmp_path: Path) -> None:
    values = (1000 + 200 * np.random.default_rng(0).random((60, 80))).astype(np.uint16)
    np.save(tmp_path / "map.npy", values)
    uri = data_uri(tmp_path / "map.npy")
    expected = direct(service, "depth", {"source": tmp_path / "map.npy", "scale": 0.001})
    part = {"type": "depth_url", "depth_url": {"url": uri, "scale": 0.001}}
    assert np.allclose(rows(service.post("/v1/embeddings", json={"input": [part]})), expected, atol=1e-4)
    upload = {"depth": ("map.npy", (tmp_path / "map.npy").read_bytes())}
    form = service.post("/v1/embeddings", files=upload, data={"depth.scale": "0.001"})
    assert np.allclose(rows(form), expected, atol=1e-4)
    assert "scale=" in message(service.post("/v1/embeddings", files=upload))
    wrong = {"type": "depth_url", "depth_url": {"url": uri, "scales": 0.001}}
    assert "no read option 'scales'" in message(service.post("/v1/embeddings", json={"input": [wrong]}))


def test_files_that_another_one_names_come_beside_it(service: Running, tmp_path: Path) -> None:
    eeg = modality_class("eeg")()
    sample = eeg.example()
    mne = pytest.importorskip("mne")
    pytest.importorskip("pybv")
    names = list(sample.info["channels"]) if "channels" in sample.info else [f"E{n}" for n in range(len(sample.data))]
    rate = float(sample.info.get("rate", 1000))
    raw = mne.io.RawArray(np.asarray(sample.data, np.float64), mne.create_info(names, rate, "eeg"), verbose="error")
    mne.export.export_raw(tmp_path / "a.vhdr", raw, verbose="error", overwrite=True)
    sent = [("eeg", ("a.vhdr", (tmp_path / "a.vhdr").read_bytes()))]
    sent += [("beside", (path.name, path.read_bytes())) for path in tmp_path.iterdir() if path.suffix != ".vhdr"]
    assert np.allclose(rows(service.post("/v1/embeddings", files=sent)), direct(service, "eeg", tmp_path / "a.vhdr"), atol=1e-4)
    assert "a.eeg" in message(service.post("/v1/embeddings", files=sent[:1]))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": [1, 2, 3]}, "token ids"),
        ({"input": [[1, 2], [3]]}, "token ids"),
        ({}, "input or in messages; found neither"),
        ({"input": "a", "messages": [{"content": "b"}]}, "found both"),
        ({"input": []}, "empty list"),
        ({"input": [None]}, "found nothing"),
        ({"input": 7.5}, "found 7.5"),
        ({"inputs": "a"}, "unknown field 'inputs'"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "modality": "smell"}, "no modality 'smell'"),
        ({"input": "data:image/png;base64,AAAA"}, "say what it is"),
        ({"input": "file:///etc/passwd", "modality": "image"}, "'file' is not taken"),
        ({"input": "../../etc/passwd", "modality": "image"}, "never opened"),
        ({"input": [{"type": "image_url", "image_url": "/etc/passwd"}]}, "never opened"),
        ({"input": [{"type": "smell_url", "smell_url": "data:,a"}]}, "no part of type 'smell_url'"),
        ({"input": [{"type": "image_url"}]}, "expected a data: URI"),
        ({"input": [{"type": "image_url", "image_url": "data:image/png;base64,!!"}]}, "not base64"),
        ({"input": [{"type": "image_url", "image_url": "data:image/png;base64,"}]}, "empty file"),
        ({"input": [{"type": "text", "text": "a", "rate": 3}]}, "unknown key 'rate'"),
        ({"input": [{"type": "text", "text": "a", "weight": "much"}]}, "weight must be a number"),
        ({"input": [{"type": "embedding", "embedding": [1, 2]}]}, "64 finite numbers"),
        ({"input": [[{"type": "text", "text": "a"}, {"type": "text", "text": "a", "weight": -1}]]}, "cancel out"),
        ({"messages": [{"role": "system", "content": "be brief"}]}, "'system'"),
        ({"messages": []}, "expected a list of messages"),
        ({"input": "http://example.org/a.png", "modality": "image"}, "no host is allowed"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_sentence(service: Running, body: dict[str, Any], said: str) -> None:
    assert said in message(service.post("/v1/embeddings", json=body))


def test_a_bad_file_is_named_by_its_place_and_its_client_s_name(service: Running, files: dict[str, Path]) -> None:
    broken = "data:image/png;name=holiday.png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\nnothing").decode()
    good = data_uri(files["image"])
    reply = service.post("/v1/embeddings", json={"input": [good, broken], "modality": "image"})
    said = message(reply)
    assert "input[1] (holiday.png)" in said and "/tmp" not in said and "vitlens-serve" not in said
    assert reply.json()["error"]["param"] == "input[1]"


def test_another_model_is_not_found(service: Running) -> None:
    reply = service.post("/v1/embeddings", json={"model": "clip", "input": "a"})
    assert MODEL in message(reply, 404)
    assert reply.json()["error"]["code"] == "model_not_found"


def test_bodies_that_are_none(service: Running) -> None:
    json = {"content-type": "application/json"}
    assert "no JSON" in message(service.post("/v1/embeddings", content=b"{", headers=json))
    assert "no JSON" in message(service.post("/v1/embeddings", content=b"[1]", headers=json))
    assert "no JSON" in message(service.post("/v1/embeddings", content=b"[" * 100_000, headers=json))
    assert "send Content-Type" in message(service.post("/v1/embeddings", content=b"a"), 415)
    packed = {**json, "content-encoding": "gzip"}
    assert "compressed" in message(service.post("/v1/embeddings", content=b"\x1f\x8b", headers=packed), 415)
    assert "nothing at this path" in message(service.get("/v1/nothing"), 404)
    assert "takes POST" in message(service.get("/v1/embeddings"), 405)
    for kind, content in (("multipart/form-data", b"abc"), ("multipart/form-data; boundary=x", b"garbage")):
        reply = service.post("/v1/embeddings", content=content, headers={"content-type": kind})
        assert reply.status_code == 400 and "the form cannot be read" in reply.json()["error"]["message"]


def test_words_that_the_model_does_not_know_are_remarked(start: Any) -> None:
    import vitlens

    toy = start(wrap=lambda model: vitlens.load("vitlens-toybox", modalities=["text"], device="cpu"))
    remarks = toy.post("/v1/embeddings", json={"input": ["a chair", "a zeppelin"]}).json()["remarks"]
    assert [one["index"] for one in remarks] == [1] and "'zeppelin'" in remarks[0]["text"]


def test_models_say_what_each_sensor_reads(service: Running) -> None:
    [card] = service.get("/v1/models").json()["data"]
    assert card["id"] == MODEL and card["dimensions"] == 64 and card["space"] == service.service.model.space.name
    assert set(card["modalities"]) == {"text", *SENSORS}
    assert "rate" in card["modalities"]["audio"]["read_options"] and "wav" in card["modalities"]["audio"]["extensions"]
    assert service.get(f"/v1/models/{MODEL}").json() == card
    assert service.get("/v1/models/other").status_code == 404
