"""Embeddings on disk: computed once, the same as the model's, going on after a stop, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.evaluation_world import TEST, write_world
from tests.train.tiny import tiny_clip
from vitlens.benchmarks.evaluation.embeddings import Embedder, source_name
from vitlens.errors import InputError
from vitlens.model import ViTLens


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return tiny_clip()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = write_world(tmp_path_factory.mktemp("world") / "shapes")
    return sorted((root / "pictures").glob("*.png"))[:TEST]


def test_they_are_the_model_s_and_are_computed_once(model: ViTLens, pictures: list[Path], tmp_path: Path) -> None:
    first = Embedder(model, tmp_path, batch_size=4)
    found = first.embed("image", pictures)
    expected = model.encode({"image": pictures}, batch_size=4, normalize=False)["image"]
    assert torch.equal(found.vectors, expected)
    assert found.kept == list(range(TEST)) and not found.errors
    assert first.computed == TEST and set(first.hashes) == {"image"}
    again = Embedder(model, tmp_path, batch_size=4)
    assert torch.equal(again.embed("image", pictures).vectors, expected)
    assert again.computed == 0
    assert not torch.allclose(expected.norm(dim=-1), torch.ones(TEST)), "kept as they come, not normalised"


def test_other_weights_are_another_cache(model: ViTLens, pictures: list[Path], tmp_path: Path) -> None:
    Embedder(model, tmp_path).embed("image", pictures[:2])
    other = tiny_clip()
    with torch.no_grad():
        next(iter(other.tower("image").parameters())).add_(1)
    changed = Embedder(other, tmp_path)
    changed.embed("image", pictures[:2])
    assert changed.computed == 2


def test_texts_are_embedded_once_and_equal_ones_together(model: ViTLens, tmp_path: Path) -> None:
    embedder = Embedder(model, tmp_path)
    found = embedder.embed("text", ["a disc", "a bar", "a disc"])
    assert embedder.computed == 2
    assert torch.equal(found.vectors[0], found.vectors[2])
    assert not torch.equal(found.vectors[0], found.vectors[1])


def test_a_stopped_run_goes_on(model: ViTLens, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.encode({"image": pictures}, batch_size=2, normalize=False)["image"]

    def stop(what: str, done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Embedder(model, tmp_path, batch_size=2, progress=stop).embed("image", pictures)
    rest = Embedder(model, tmp_path, batch_size=2)
    assert torch.equal(rest.embed("image", pictures).vectors, expected)
    assert rest.computed == TEST - 6


def test_a_file_that_does_not_decode_is_named_or_skipped(model: ViTLens, pictures: list[Path], tmp_path: Path) -> None:
    bad, twin, gone = tmp_path / "bad.png", tmp_path / "twin.png", tmp_path / "gone.png"
    for path in (bad, twin):
        path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    items: list[Any] = [pictures[0], bad, pictures[1], gone, {"source": twin}, pictures[2]]
    with pytest.raises(InputError, match=r"gone\.png"):
        Embedder(model, tmp_path / "cache").embed("image", items)
    del items[3]
    with pytest.raises(InputError, match=r"bad\.png"):
        Embedder(model, tmp_path / "cache", batch_size=1).embed("image", items)
    items.insert(3, gone)
    found = Embedder(model, tmp_path / "cache").embed("image", items, on_error="skip")
    assert found.kept == [0, 2, 5] and sorted(found.errors) == [1, 3, 4]
    assert str(gone) in str(found.errors[3]) and "bad.png" in str(found.errors[1])
    assert torch.allclose(found.vectors, model.encode({"image": pictures[:3]}, normalize=False)["image"], atol=1e-5)
    nothing = Embedder(model, tmp_path / "cache").embed("image", [bad], on_error="skip")
    assert nothing.vectors.shape == (0, model.space.dim) and nothing.kept == []


def test_names_of_sources(tmp_path: Path) -> None:
    assert source_name({"source": tmp_path / "a.png", "scale": 2}) == str(tmp_path / "a.png")
    assert source_name("b.wav") == "b.wav"
