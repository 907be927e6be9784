"""Files of a few Toybox objects, a small model behind the drop-in, and the alias taken back after every test."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vitlens.benchmarks.toybox.sensors.make import make_toybox
from vitlens.imagebind import alias, chosen, uninstall
from vitlens.imagebind.models.imagebind_model import ImageBindModel, imagebind_huge
from vitlens.modality import Sample, get_modality

MODEL = "vitlens-tiny-random"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No model made yet, the tiny one by default, no alias: whatever the tests before this one did."""
    monkeypatch.setenv(alias.ENV, MODEL)
    monkeypatch.setattr(chosen, "_latest", [])
    yield
    uninstall()


@pytest.fixture(scope="session")
def toybox(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Modality -> what three objects give: files, and captions for "text"."""
    return made_files(tmp_path_factory.mktemp("toybox"), 3, ("image", "audio", "depth", "point_cloud", "tactile", "eeg"))


@pytest.fixture(scope="session")
def toybox_objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Captions and pictures of twenty objects."""
    return made_files(tmp_path_factory.mktemp("objects"), 20, ("image",))


def made_files(folder: Path, objects: int, sensors: tuple[str, ...]) -> dict[str, list[str]]:
    manifest = make_toybox(folder, objects={"test": objects}, sensors=sensors, progress=False)["test"]
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {"text": [row["text"] for row in rows], **{name: [str(folder / row[name]) for row in rows] for name in sensors}}


@pytest.fixture(scope="session")
def wide_video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A video twice as wide as high, dark on its left and light on its right, that gets lighter."""
    frames = np.zeros((24, 48, 96, 3), np.uint8)
    frames += np.linspace(0, 90, 96, dtype=np.uint8)[:, None] + np.arange(0, 72, 3, dtype=np.uint8)[:, None, None, None]
    return str(get_modality("video").write(Sample(frames, "<made>"), tmp_path_factory.mktemp("video"), "wide"))


@pytest.fixture(scope="session")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve seconds of a rising tone: its three clips differ."""
    time = np.arange(12 * 16000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * (200 + 60 * time) * time).astype(np.float32)
    sample = Sample(tone[None], "<made>", {"rate": 16000})
    return str(get_modality("audio").write(sample, tmp_path_factory.mktemp("sound"), "long"))


@pytest.fixture(scope="session")
def tiny() -> ImageBindModel:
    return imagebind_huge(pretrained=True, model=MODEL)
