"""Prompts of classifiers on disk: embedded once for one text tower, and the least used ones make room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.train.tiny import tiny_clip
from vitlens.model import ViTLens
from vitlens.store import prompts as module
from vitlens.store.prompts import stored_prompts


@pytest.fixture
def model() -> ViTLens:
    return tiny_clip()


def blinded(model: ViTLens) -> ViTLens:
    """The same model, of which nobody may ask the text tower."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the text tower is asked")

    model.tower("text").forward = asked  # type: ignore[method-assign]
    return model


def test_a_later_process_does_not_ask_the_text_tower(model: ViTLens, tmp_path: Path) -> None:
    labels = ["dog", "cat"]
    expected = model.class_vectors(labels)
    kept = model.class_vectors(labels, templates=("{}", "a {}"), embed=stored_prompts(model, tmp_path))
    shut = blinded(tiny_clip())
    assert torch.equal(shut.class_vectors(labels, templates=("{}", "a {}"), embed=stored_prompts(shut, tmp_path)), kept)
    assert torch.allclose(tiny_clip().class_vectors(labels, embed=stored_prompts(model, tmp_path)), expected, atol=1e-6)
    other = tiny_clip()
    with torch.no_grad():
        next(other.tower("text").parameters()).mul_(1.5)
    assert not torch.allclose(other.class_vectors(labels, templates=("{}", "a {}"), embed=stored_prompts(other, tmp_path)), kept)


def test_those_not_used_for_longest_make_room(model: ViTLens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = stored_prompts(model, tmp_path)
    for text in ("first", "second", "third"):
        embed([text])
    files = sorted(tmp_path.glob("prompts/*/*.safetensors"))
    assert len(files) == 3
    for age, file in enumerate(files):
        os.utime(file, ns=(age, age))
    embed(["first"])  # used again: it is the newest now
    sizes = [file.stat().st_size for file in files]
    monkeypatch.setattr(module, "MOST", 2 * max(sizes))
    other = tmp_path / "key" / "embeddings.safetensors"  # of another store in the same folder
    other.parent.mkdir()
    other.write_bytes(bytes(4 * max(sizes)))
    embed(["first"])
    assert len([*tmp_path.glob("prompts/*/*.safetensors")]) == 2 and other.is_file()
    assert torch.equal(stored_prompts(blinded(tiny_clip()), tmp_path)(["first"]), embed(["first"]))


def test_a_cache_that_cannot_be_written_costs_a_warning(model: ViTLens, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="prompts are not kept"):
        found = model.class_vectors(["dog", "cat"], embed=stored_prompts(model, tmp_path / "file"))
    assert torch.allclose(found, tiny_clip().class_vectors(["dog", "cat"]))
