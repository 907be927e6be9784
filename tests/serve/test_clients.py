"""Other people's clients, as they are, and requests as others send them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.serve.conftest import MODEL, Running
from tests.serve.served import Served
from tests.serve.test_embeddings import SENSORS, data_uri, direct, message, rows

WORDS = ["A dog.", "A car", "A bird"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served("--model", MODEL, log=tmp_path_factory.mktemp("served") / "log") as process:
        yield process.ready()


def test_the_openai_package(served: Served, service: Running, files: dict[str, Path]) -> None:
    client = openai.OpenAI(base_url=f"{served.address}/v1", api_key="none")
    expected = direct(service, "text", *WORDS)
    found = client.embeddings.create(model=MODEL, input=WORDS)  # asks for base64, and decodes it
    assert np.allclose([one.embedding for one in found.data], expected, atol=1e-5)
    plain = client.embeddings.create(model=MODEL, input=WORDS[0], encoding_format="float", dimensions=16)
    assert len(plain.data[0].embedding) == 16 and plain.usage.total_tokens > 0
    part = {"type": "audio_url", "audio_url": {"url": data_uri(files["audio"])}}
    sound: Any = client.embeddings.create(model=MODEL, input=[], extra_body={"input": [part]})
    assert np.allclose(sound.data[0].embedding, direct(service, "audio", files["audio"])[0], atol=1e-4)
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.embeddings.create(model="other", input="a")
    with pytest.raises(openai.BadRequestError, match="token ids") as caught:
        client.embeddings.create(model=MODEL, input=[1, 2, 3])
    assert caught.value.code == "invalid_value" and caught.value.param == "input"


def test_mteb_s_openai_wrapper(served: Served, service: Running, files: dict[str, Path]) -> None:
    wrappers = pytest.importorskip("mteb.models.openai_wrappers")
    from PIL import Image

    wrapper = wrappers.OpenAIAPIEncodeWrapper(served.address, MODEL)
    expected = direct(service, "text", *WORDS)
    assert np.allclose(wrapper._get_embeddings(WORDS), expected, atol=1e-5)
    with Image.open(files["image"]) as picture:
        items = [(text, None, None, None) for text in WORDS] + [(None, picture.convert("RGB"), None, None)]
        found = wrapper._get_multimodal_embeddings(items, "")
    assert np.allclose(found[:3], expected, atol=1e-5)
    assert np.allclose(found[3], direct(service, "image", files["image"])[0], atol=1e-3)


def test_infinity_s_form(service: Running, files: dict[str, Path]) -> None:
    for modality in ("image", "audio"):
        body = {"model": MODEL, "input": [data_uri(files[modality])] * 2, "modality": modality, "encoding_format": "base64"}
        reply = service.post("/embeddings", json=body).json()
        found = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in reply["data"]]
        assert np.allclose(found, direct(service, modality, files[modality], files[modality]), atol=1e-4)


def test_weaviate_s_smoke_requests(service: Running, files: dict[str, Path]) -> None:
    for path in ("/.well-known/ready", "/.well-known/live"):
        reply = service.get(path)
        assert reply.status_code == 204 and not reply.content
        assert service.run(service.client.head(path)).status_code == 204
    assert isinstance(service.get("/meta").json(), dict)
    content = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
    body = {"texts": WORDS, "images": [content["image"]] * 2, "audio": [content["audio"]], "video": None, "imu": []}
    reply = service.post("/vectorize", json=body)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert np.allclose(found["textVectors"], direct(service, "text", *WORDS), atol=1e-5)
    assert len(found["imageVectors"]) == 2 and len(found["audioVectors"]) == 1
    for name in ("video", "imu", "depth", "thermal"):
        assert found[f"{name}Vectors"] == []
    for modality in SENSORS:
        name = "images" if modality == "image" else modality
        head, *rest = modality.split("_")
        answer = service.post("/vectorize", json={name: [content[modality]]}).json()
        vectors = answer[head + "".join(part.capitalize() for part in rest) + "Vectors"]
        assert np.allclose(vectors, direct(service, modality, files[modality]), atol=1e-4), modality
    assert "no modality 'thermal'" in message(service.post("/vectorize", json={"thermal": [content["image"]]}))


def test_cohere_s_form(service: Running, files: dict[str, Path]) -> None:
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    body = {"model": MODEL, "texts": WORDS, "input_type": "search_document", "embedding_types": kinds, "truncate": "END"}
    reply = service.post("/v2/embed", json=body)
    assert reply.status_code == 200, reply.text
    found = {kind: np.array(rows) for kind, rows in reply.json()["embeddings"].items()}
    expected = direct(service, "text", *WORDS)
    assert np.allclose(found["float"], expected, atol=1e-5)
    assert np.allclose([np.frombuffer(base64.b64decode(row), "<f4") for row in found["base64"]], expected, atol=1e-5)
    int8 = found["int8"] / np.linalg.norm(found["int8"], axis=1, keepdims=True)
    assert (np.sum(int8 * expected, axis=1) > 0.999).all() and np.abs(found["int8"]).max() == 127
    assert np.array_equal(found["uint8"], found["int8"] + 128)
    assert np.array_equal(np.unpackbits(found["ubinary"].astype(np.uint8), axis=1), expected > 0)
    assert np.array_equal(found["binary"], found["ubinary"] - 128)
    picture = service.post("/v2/embed", json={"images": [data_uri(files["image"])]}).json()
    assert np.allclose(picture["embeddings"]["float"], direct(service, "image", files["image"]), atol=1e-4)
    assert picture["meta"]["billed_units"]["images"] == 1
    mixed = {
        "content": [{"type": "text", "text": "a dog"}, {"type": "image_url", "image_url": {"url": data_uri(files["image"])}}]
    }
    mixture = service.post("/v2/embed", json={"inputs": [mixed], "output_dimension": 8}).json()["embeddings"]["float"]
    assert len(mixture[0]) == 8 and np.isclose(np.linalg.norm(mixture[0]), 1, atol=1e-5)
    assert "one of texts, images and inputs" in message(service.post("/v2/embed", json={"model": MODEL}))
    assert "multiple of 8" in message(
        service.post("/v2/embed", json={"texts": ["a"], "embedding_types": ["binary"], "output_dimension": 12})
    )


def test_every_path_has_its_schema(service: Running) -> None:
    described = service.get("/openapi.json").json()["paths"]
    for path in ("/v1/embeddings", "/v1/classify", "/v1/similarity", "/v1/search", "/v1/scene", "/v2/embed", "/vectorize"):
        content = described[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert content["properties"], path
    assert "eeg" in described["/vectorize"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert rows(service.post("/v1/embeddings", json={"input": "a"})).shape == (1, 64)
