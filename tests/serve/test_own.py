"""/v1/classify and /v1/similarity give what the model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.conftest import Running
from tests.serve.test_embeddings import data_uri, message, rows

LABELS = ["dog", "rain", "a chair"]


def test_classify_is_the_model_s(service: Running, files: dict[str, Path]) -> None:
    model = service.service.model
    items = [files["audio"], files["audio"]]
    expected = model.classify("audio", items, LABELS, templates=["{}", "the sound of {}"])
    body = {
        "input": [data_uri(path) for path in items],
        "modality": "audio",
        "labels": LABELS,
        "templates": ["{}", "the sound of {}"],
        "top": 2,
    }
    reply = service.post("/v1/classify", json=body)
    assert reply.status_code == 200, reply.text
    for one, best in zip(reply.json()["data"], expected.top(2), strict=True):
        assert [found["label"] for found in one["labels"]] == [label for label, _ in best]
        assert np.allclose([found["probability"] for found in one["labels"]], [value for _, value in best], atol=1e-3)
    form = {"labels": LABELS, "templates": ["{}", "the sound of {}"]}
    upload = service.post("/v1/classify", files={"audio": (items[0].name, items[0].read_bytes())}, data=form)
    assert [found["label"] for found in upload.json()["data"][0]["labels"][:2]] == [label for label, _ in expected.top(2)[0]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": "a"}, "labels is missing"),
        ({"input": "a", "labels": []}, "labels"),
        ({"input": "a", "labels": ["a", "a"]}, "different"),
        ({"input": "a", "labels": ["a", "A "]}, "cannot tell apart"),
        ({"input": "a", "labels": ["a", "b"], "templates": ["x"]}, "must contain {}"),
        ({"input": "a", "labels": ["a", "b"], "top": 0}, "top"),
    ],
)
def test_labels_that_cannot_be_used(service: Running, body: dict[str, Any], said: str) -> None:
    assert said in message(service.post("/v1/classify", json=body))


def test_similarity_of_two_sides_or_of_one_with_itself(service: Running, files: dict[str, Path]) -> None:
    image = {"type": "image_url", "image_url": data_uri(files["image"])}
    a = rows(service.post("/v1/embeddings", json={"input": ["a dog", image]}))
    b = rows(service.post("/v1/embeddings", json={"input": ["rain"]}))
    reply = service.post("/v1/similarity", json={"input": ["a dog", image], "with": ["rain"]}).json()
    assert np.allclose(reply["cosines"], a @ b.T, atol=1e-5) and reply["space"] == service.service.model.space.name
    alone = service.post("/v1/similarity", json={"input": ["a dog", image]}).json()
    assert np.allclose(alone["cosines"], a @ a.T, atol=1e-5)
    path = files["image"]
    sent = [("text", (None, "a dog")), ("image", (path.name, path.read_bytes())), ("with.text", (None, "rain"))]
    assert np.allclose(service.post("/v1/similarity", files=sent).json()["cosines"], a @ b.T, atol=1e-5)
