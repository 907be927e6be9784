"""The page's routes: its files under a strict policy, what an upload is and looks like, and the examples."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.serve.conftest import Running, Start
from tests.serve.test_embeddings import message, rows
from vitlens.cli.serve import examples_of
from vitlens.serve.routes.page import _FILES

LARGEST = 100_000
"""Bytes of the whole page."""


def array(told: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(told["data"]), told["dtype"]).reshape(told["shape"])


def test_the_page_is_small_and_loads_only_its_own_files(service: Running) -> None:
    reply = service.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert sum(path.stat().st_size for path in _FILES.values()) < LARGEST
    texts = {name: path.read_text(encoding="utf-8") for name, path in _FILES.items()}
    for name, text in texts.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"innerHTML|\sstyle=|\bonclick=\"", text), name
    named = {*re.findall(r'(?:href|src)="/static/([^"]+)"', texts["index.html"])}
    named |= {module for text in texts.values() for module in re.findall(r'from "\./([^"]+)"', text)}
    assert named | {"index.html"} == set(_FILES)
    for name in named:
        part = service.get(f"/static/{name}")
        assert part.status_code == 200 and part.headers["content-security-policy"] == policy
    for strange in ("../routes/page.py", "..%2froutes%2fpage.py", "nothing.js"):
        assert service.get(f"/static/{strange}").status_code == 404


def test_a_preview_tells_and_draws_every_sensor(service: Running, files: dict[str, Path]) -> None:
    for name, path in files.items():
        if name == "text":
            continue
        reply = service.post("/v1/preview", files={name: (path.name, path.read_bytes())}, data={"dark": "true"})
        assert reply.status_code == 200, reply.text
        shown = reply.json()
        sensor = service.service.model.modality(name)
        facts = sensor.describe(sensor.load(path))
        assert shown["modality"] == name and shown["facts"] == {**facts, "unit": sensor.unit} and shown["steps"] == sensor.steps()
        assert str(list(sensor.transform(sensor.load(path)).shape)) in shown["gets"]
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(shown["picture"])))
        assert picture.mode == "RGBA" and len(np.unique(np.asarray(picture))) > 10


def test_a_preview_finds_the_sensor_and_tells_of_texts(service: Running, files: dict[str, Path]) -> None:
    found = service.post("/v1/preview", files={"file": (files["audio"].name, files["audio"].read_bytes())}).json()
    assert found["modality"] == "audio"
    text = service.post("/v1/preview", json={"input": "a wooden chair"}).json()
    assert text["facts"]["length"] == "3 words, 14 characters" and "picture" not in text
    assert "one thing" in message(service.post("/v1/preview", json={"input": ["a", "b"]}))
    broken = service.post("/v1/preview", files={"audio": ("dog.wav", b"RIFF but no sound")})
    assert broken.status_code == 400 and "dog.wav" in message(broken)
    row = rows(service.post("/v1/embeddings", json={"input": "a"}))[0].tolist()
    assert "nothing to see" in message(service.post("/v1/preview", json={"input": {"type": "embedding", "embedding": row}}))


def test_points_waveforms_and_electrodes_are_the_file_s(service: Running, files: dict[str, Path]) -> None:
    def explored(name: str) -> dict[str, Any]:
        reply = service.post("/v1/preview", files={name: (files[name].name, files[name].read_bytes())})
        return reply.json()["explore"]

    cloud = explored("point_cloud")
    points, colours = array(cloud["points"]), array(cloud["colours"])
    assert points.shape == colours.shape and points.dtype == np.float32 and colours.dtype == np.uint8
    assert 0.4 < np.abs(points).max() <= 1 and np.ptp(points[:, 2]) > np.ptp(points[:, 1])  # a chair is taller than deep
    sound = service.service.model.modality("audio").load(files["audio"])
    told = explored("audio")
    waveform = array(told["waveform"])
    assert told["seconds"] == pytest.approx(sound.data.shape[1] / sound.info["rate"])
    assert waveform[:, 1].max() == pytest.approx(sound.data[0].max()) and (waveform[:, 0] <= waveform[:, 1]).all()
    brain = explored("eeg")
    assert len(brain["electrodes"]) == len(array(brain["places"])) > 0
    places = dict(zip(brain["electrodes"], array(brain["places"]), strict=True))
    for left, right in (("T7", "T8"), ("O1", "O2"), ("C3", "C4"), ("F3", "F4")):
        if {left, right} <= set(places):
            assert places[left][0] < 0 < places[right][0]


def test_an_embedding_keeps_its_modality(service: Running) -> None:
    row = rows(service.post("/v1/embeddings", json={"input": "a"}))[0].tolist()
    part = {"type": "embedding", "embedding": row, "modality": "audio"}
    assert service.post("/v1/embeddings", json={"input": [part]}).json()["data"][0]["modality"] == "audio"
    assert "thermal" in message(service.post("/v1/embeddings", json={"input": [{**part, "modality": "thermal"}]}))


def test_examples_come_from_a_manifest_or_a_folder(start: Start, tmp_path: Path, files: dict[str, Path]) -> None:
    folder = tmp_path / "shown"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(files["image"].read_bytes())
    assert [item.name for item in examples_of(folder)] == [str(folder / f"{number}.png") for number in range(3)]
    (folder / "test.csv").write_text("depth,depth.scale,text\n0.png,0.5,a chair\n")
    running = start("text", "depth", examples=examples_of(folder))
    told = running.get("/v1/page").json()
    assert told["examples"] == [
        {"files": ["0.png"], "modality": "depth", "options": {"scale": 0.5}},
        {"text": "a chair", "modality": "text", "options": {}},
    ]
    assert told["limits"]["file_bytes"] == {"value": 64_000_000, "option": "--max-file-mb"} and not told["index"]
    assert running.get("/v1/examples/0/0").content == files["image"].read_bytes()
    for path in ("0/1", "1/0", "9/0", "-1/0"):
        assert running.get(f"/v1/examples/{path}").status_code == 404
