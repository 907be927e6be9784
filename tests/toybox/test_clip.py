"""The Toybox CLIP's training in miniature: it learns, survives an interruption bit by bit, and knows its own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vitlens.benchmarks.toybox import World
from vitlens.benchmarks.toybox.sensors.drawn import draw
from vitlens.benchmarks.toybox.training import clip
from vitlens.benchmarks.toybox.world.captions import captions, shape_prompts
from vitlens.errors import OptionError
from vitlens.modality import get_modality
from vitlens.model import ViTLens

SMALL = {"width": 64, "layers": 1, "embed_dim": 16, "text_width": 32, "text_layers": 1}
TINY = clip.ClipRecipe(objects=40, clip_only=8, epochs=3, batch=16, warmup=1, **SMALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ViTLens]:
    folder = tmp_path_factory.mktemp("clip")
    return folder, clip.train_clip(folder, TINY, workers=1)


def test_every_caption_is_made_of_known_tokens() -> None:
    text = get_modality("text", vocabulary=clip.vocabulary(), context_length=clip.CONTEXT)
    lines = captions(World().object("unseen_shapes", 3)) + shape_prompts("goblet")
    for line in lines:
        ids = text.transform(text.load(line))
        assert 1 not in ids, line
        assert ids[-1] == 0, "room for the longest caption"
    assert 1 in text.transform(text.load("a xylophone"))


def test_an_interrupted_training_ends_like_an_undisturbed_one(
    trained: tuple[Path, ViTLens], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = trained
    (tmp_path / "drawn").symlink_to(folder / "drawn")
    loss, calls = clip.clip_loss, 0

    def interrupted(*batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return loss(*batch)

    with monkeypatch.context() as patch:
        patch.setattr(clip, "clip_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clip.train_clip(tmp_path, TINY, workers=1, save_seconds=0)
    again = clip.train_clip(tmp_path, TINY, workers=1)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    with pytest.raises(OptionError, match="another recipe"):
        clip.train_clip(tmp_path, clip.ClipRecipe(objects=40, clip_only=8, epochs=9, batch=16), workers=1)


def test_the_result_is_an_ordinary_model(trained: tuple[Path, ViTLens], tmp_path: Path) -> None:
    _, model = trained
    again = ViTLens.from_pretrained(str(model.save_pretrained(tmp_path / "clip")), device="cpu")
    pictures = draw(trained[0] / "drawn", World(), "train", 4, ["image"], workers=1).column("image")
    for name, items in {"image": pictures, "text": ["a wooden mug"]}.items():
        assert torch.equal(model.encode({name: items})[name], again.encode({name: items})[name])


def test_equal_captions_count_as_right() -> None:
    x = torch.eye(4)
    same = torch.eye(4, dtype=torch.bool)
    alone = clip.contrastive_loss(x, x, torch.tensor(20.0), same)
    assert float(alone) < 1e-3
    swapped = x[[1, 0, 2, 3]]
    strict = clip.contrastive_loss(x, swapped, torch.tensor(20.0), same)
    twins = same.clone()
    twins[0, 1] = twins[1, 0] = True  # captions 0 and 1 read the same
    forgiving = clip.contrastive_loss(x, swapped, torch.tensor(20.0), twins)
    assert float(strict) > 5
    assert float(forgiving) == pytest.approx(float(clip.contrastive_loss(x, x, torch.tensor(20.0), twins)), abs=1e-4)
