"""The Toybox CLIP's training in miniature: it learns, survives an interruption bit by bit, and knows its own words."""

from __future__ import annotations

import math
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
from vitlens.train.logs import read_csv

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
    loss, calls = clip.CaptionLoss.forward, 0

    def interrupted(*batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return loss(*batch)

    with monkeypatch.context() as patch:
        patch.setattr(clip.CaptionLoss, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clip.train_clip(tmp_path, TINY, workers=1)
    again = clip.train_clip(tmp_path, TINY, workers=1)
    assert len(read_csv(tmp_path / "clip" / "log.csv")) == 9
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    with pytest.raises(OptionError, match=r"another run \(.*schedule\.epochs: 3 then, 9 now"):
        clip.train_clip(tmp_path, clip.ClipRecipe(objects=40, clip_only=8, epochs=9, batch=16), workers=1)


def test_the_result_is_an_ordinary_model(trained: tuple[Path, ViTLens], tmp_path: Path) -> None:
    _, model = trained
    again = ViTLens.from_pretrained(str(model.save_pretrained(tmp_path / "clip")), device="cpu")
    pictures = draw(trained[0] / "drawn", World(), "train", 4, ["image"], workers=1).column("image")
    for name, items in {"image": pictures, "text": ["a wooden mug"]}.items():
        assert torch.equal(model.encode({name: items})[name], again.encode({name: items})[name])


def test_equal_captions_count_as_right() -> None:
    x, swapped = torch.eye(4), torch.eye(4)[[1, 0, 2, 3]]
    lines = torch.arange(4)[:, None, None].expand(4, 2, 3)
    twins = lines.clone()
    twins[1] = twins[0]  # captions 0 and 1 read the same
    loss = clip.CaptionLoss()
    torch.nn.init.constant_(loss.scale.log_scale, math.log(20))

    def found(text: torch.Tensor, captions: torch.Tensor) -> float:
        return loss({"image": x, "text": torch.stack([text, text], dim=1)}, {"captions": captions}).item()

    assert found(x, lines) < 1e-3
    assert found(swapped, lines) > 5
    assert found(swapped, twins) == pytest.approx(found(x, twins), abs=1e-4)


def test_what_is_shown_follows_from_seed_epoch_and_picture(trained: tuple[Path, ViTLens], tmp_path: Path) -> None:
    (tmp_path / "drawn").symlink_to(trained[0] / "drawn")
    task = clip.ClipTask(tmp_path, TINY, workers=1)
    first, again, later = task[0, 3], task[0, 3], task[1, 3]
    assert all(torch.equal(value, again.inputs[name]) for name, value in first.inputs.items())
    assert not torch.equal(first.inputs["picture"], later.inputs["picture"])
    assert first.inputs["picture"].shape == (3, 64, 64)
    assert first.inputs["captions"].shape == (3, clip.CONTEXT)
