"""/v1/search and /v1/scene answer what the index and the scene answer when they are asked directly."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scene.rooms import shots, write_open3d
from tests.serve.conftest import MODEL, Running, tiny
from tests.serve.test_embeddings import data_uri, message
from vitlens.errors import SpaceError
from vitlens.index import Index, Term
from vitlens.scene.build import Settings as Building
from vitlens.scene.build import build
from vitlens.scene.check import check
from vitlens.scene.folder import open_scene
from vitlens.scene.layouts import open_recording
from vitlens.scene.search import find
from vitlens.scene.windows import Cutting
from vitlens.serve.service import Service
from vitlens.serve.settings import Settings
from vitlens.space import EmbeddingSpace

WORDS = ["a dog", "rain on a roof", "a wooden chair"]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("image", "text")


@pytest.fixture(scope="module")
def made(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of words and a picture, and a scene."""
    folder = tmp_path_factory.mktemp("collections")
    index = Index.create(folder / "things.index", model.space, model=MODEL)
    index.add(model.encode({"text": WORDS})["text"].numpy(), model.space, modality="text", sources=WORDS)
    sensor = model.modality("image")
    picture = sensor.write(sensor.example(), folder, "picture")
    row = model.encode({"image": [picture]})["image"].numpy()
    index.add(row, model.space, modality="image", sources=["picture.png"], files=[str(picture)])
    report = check(open_recording(write_open3d(folder / "recorded", shots()[::4])))
    building = Building(voxel=0.1, cutting=Cutting(sizes=(1.0,), most=8), batch_size=16)
    build(report.recording, folder / "a.scene", lambda: model, building, check=report.to_dict())
    return folder


@pytest.fixture(scope="module")
def asked(model: Any, made: Path) -> Iterator[Running]:
    settings = Settings(model=MODEL, readers=1, index=made / "things.index", scene=made / "a.scene")
    running = Running(Service(settings, load=lambda: model))
    yield running
    running.close()


def test_search_gives_the_index_s_hits(asked: Running, model: Any, made: Path) -> None:
    vector = model.encode({"text": ["rain"]})["text"][0].numpy()
    expected = Index.open(made / "things.index").search(Term(vector, "text"), model.space, k=3)
    reply = asked.post("/v1/search", json={"input": ["rain", "a dog"], "k": 3}).json()
    assert [hit["source"] for hit in reply["data"][0]["hits"]] == [hit.source for hit in expected.hits]
    assert np.allclose([hit["score"] for hit in reply["data"][0]["hits"]], [hit.score for hit in expected.hits], atol=1e-5)
    assert reply["data"][1]["hits"][0]["source"] == "a dog" and reply["data"][1]["index"] == 1


def test_search_takes_weights_filters_and_modalities(asked: Running) -> None:
    parts = [{"type": "text", "text": "rain"}, {"type": "text", "text": "a dog", "weight": -0.5}]
    body = {"input": [parts], "modalities": ["text"], "where": "source != 'rain on a roof'", "calibrate": "none"}
    hits = asked.post("/v1/search", json=body).json()["data"][0]["hits"]
    assert {hit["source"] for hit in hits} == {"a dog", "a wooden chair"}
    assert "columns" in message(asked.post("/v1/search", json={"input": "a", "where": "nothing = 3"})).lower()


def test_a_hit_s_file_is_shown_by_its_key_alone(asked: Running, made: Path) -> None:
    body = {"input": "a", "modalities": ["image"]}
    reply = asked.post("/v1/search", json=body)
    assert str(made) not in reply.text
    [hit] = reply.json()["data"][0]["hits"]
    shown = asked.get("/v1/search/file", params={"key": hit["key"]})
    assert hit["has_file"] and shown.content == (made / "picture.png").read_bytes()
    assert "sandbox" in shown.headers["content-security-policy"]
    for key in ("../../etc/passwd", "' OR 1 = 1 --", ""):
        assert "no file for the key" in message(asked.get("/v1/search/file", params={"key": key}), 404)


def test_a_scene_is_asked_by_words_and_pictures(asked: Running, model: Any, made: Path) -> None:
    scene = open_scene(made / "a.scene")
    picture = scene.frames.colour[0]
    vector = model.encode({"image": [picture]})["image"][0].numpy()
    expected = find(scene, vector, model.space, most=2)
    body = {"input": [data_uri(picture)], "modality": "image", "places": 2, "heat": True}
    reply = asked.post("/v1/scene", json=body).json()
    assert [place["frames"] for place in reply["places"]] == [place.to_dict()["frames"] for place in expected.places]
    heat = np.frombuffer(base64.b64decode(reply["heat"]), "<f4")
    assert np.allclose(heat, expected.heat, atol=1e-4, equal_nan=True)
    card = asked.get("/v1/scene").json()
    assert (
        len(base64.b64decode(card["points"])) == 12 * card["voxels"]
        and len(base64.b64decode(card["colours"])) == 3 * card["voxels"]
    )
    frame = asked.get("/v1/scene/frame", params={"name": card["frames"][0]})
    assert frame.content == picture.read_bytes()
    assert asked.get("/v1/scene/frame", params={"name": "../x"}).status_code == 404
    assert "one thing at a time" in message(asked.post("/v1/scene", json={"input": ["a", "b"]}))


def test_without_a_collection_it_says_which_option_brings_one(service: Running) -> None:
    assert "--index PATH" in message(service.post("/v1/search", json={"input": "a"}), 404)
    assert "--scene PATH" in message(service.post("/v1/scene", json={"input": "a"}), 404)


def test_a_collection_of_another_space_is_refused_at_the_start(model: Any, tmp_path: Path) -> None:
    Index.create(tmp_path / "other.index", EmbeddingSpace("another", model.space.dim))
    running = Running(Service(Settings(model=MODEL, readers=1, index=tmp_path / "other.index"), load=lambda: model), wait=False)
    try:
        assert "could not start" in message(running.post("/v1/embeddings", json={"input": "a"}), 503)
        assert isinstance(running.service.failure, SpaceError) and "another" in str(running.service.failure)
    finally:
        running.close()
