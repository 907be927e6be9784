"""Terms on tokens: they are what their formulas say, pull on ModEmbed and lens alone, and refuse what cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from typer.testing import CliRunner

from tests.train.tiny import TOKENS, WIDTH, tiny_clip, tiny_recipe, world
from vitlens.cli.app import app
from vitlens.errors import OptionError
from vitlens.model import ViTLens
from vitlens.train import LensTask, Trainer, TrainingResult
from vitlens.train import picture_tokens as made
from vitlens.train.logs import read_csv
from vitlens.train.losses import AnchorLoss, clip_loss
from vitlens.train.token_terms import TokenLoss

STATE, PER_TOKEN, READERS, SPREAD = (
    ("tokens.class_state.weight=1",),
    ("tokens.patches={kind: per_token, layer: -1}",),
    ("tokens.patches={kind: readers, readers: 2, reader_steps: 3, layer: -1}",),
    ("tokens.spread={weight: 1, directions: 16}", "tokens.patches.layer=-1"),
)
LENS = ("model.trains.first_blocks=1", "data.augment=false")


def task(folder: Path, *changes: str, rows: Any = None, model: ViTLens | None = None) -> LensTask:
    return LensTask(tiny_recipe(folder, *changes), model=model or tiny_clip(), train=rows or world(24))


def run(folder: Path, *changes: str) -> TrainingResult[ViTLens]:
    return Trainer(task(folder, *changes), progress=False).run()


def weights(result: TrainingResult[ViTLens]) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in result.model.encoders["depth"].named_parameters()}


def prepared(folder: Path, *changes: str, **data: Any) -> LensTask:
    found = task(folder, *LENS, *changes, **data)
    found.prepare(torch.device("cpu"), lambda *_: None)
    return found


def one_batch(lens: LensTask, count: int = 6) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs of the network and targets, of the first rows."""
    batch = lens.collate([lens.items[0, row] for row in range(count)])
    return lens.network(**batch.inputs), dict(lens.targets(batch))


def hidden_of(model: ViTLens, modality: str, rows: Any, *, norm: bool) -> Tensor:
    """The ViT's last hidden states of things, by way of the parts that have long been there."""
    encoder: Any = model.encoders[modality]
    x = torch.stack([model.modality(modality).transform(model.modality(modality).load(row[modality])) for row in rows])
    hidden = encoder.vit.forward_tokens(encoder.tokens(x))
    return encoder.vit.norm_post(hidden) if norm else hidden


def extra(lens: LensTask, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """What the terms add to the loss of the embedding."""
    assert isinstance(lens.loss, TokenLoss)
    return lens.loss(outputs, targets) - lens.loss.embedding(outputs, {"image": targets["image"]})


def amount(lens: LensTask, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> float:
    """The same as a number."""
    return float(extra(lens, outputs, targets).detach())


# --- formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["true", "false"])
def test_the_class_state_is_compared_channel_by_channel_in_pictures_deviations(cache: str, tmp_path: Path) -> None:
    lens = prepared(tmp_path, *STATE, f"anchors.cache={cache}")
    outputs, targets = one_batch(lens)
    mine = hidden_of(lens.model, "depth", world(6), norm=True)[:, 0]
    theirs = hidden_of(tiny_clip(), "image", world(24), norm=True)[:, 0]
    expected = (((mine - theirs[:6]) / theirs.std(dim=0)) ** 2).mean()
    assert amount(lens, outputs, targets) == pytest.approx(float(expected), rel=1e-4)


def test_patch_tokens_are_compared_one_by_one_where_the_grid_is_the_same(tmp_path: Path) -> None:
    lens = prepared(tmp_path, *PER_TOKEN)
    outputs, targets = one_batch(lens)
    mine = hidden_of(lens.model, "depth", world(6), norm=False)[:, 1:]
    theirs = hidden_of(tiny_clip(), "image", world(24), norm=False)[:, 1:]
    expected = (((mine - theirs[:6]) / theirs.half().float().flatten(0, 1).std(dim=0)) ** 2).mean()
    assert amount(lens, outputs, targets) == pytest.approx(float(expected), rel=1e-3)


def test_readers_give_the_contrastive_loss_once_more(tmp_path: Path) -> None:
    lens = prepared(tmp_path, *READERS)
    outputs, targets = one_batch(lens)
    assert outputs["read"].shape == (6, 2, 16)
    patches = hidden_of(lens.model, "depth", world(6), norm=False)[:, 1:]
    assert lens.pictures is not None and lens.pictures.readers is not None
    read = F.normalize(lens.pictures.readers(patches), dim=-1)
    scale = lens.loss.scale().detach()
    expected = torch.stack([clip_loss(one, targets["image"], scale) for one in read.unbind(1)]).mean()
    assert amount(lens, outputs, targets) == pytest.approx(float(expected), rel=1e-4)
    before = float(lens.loss.scale.log_scale.detach())
    extra(lens, outputs, targets).backward()
    assert lens.loss.scale.log_scale.grad is None or float(lens.loss.scale.log_scale.grad) == pytest.approx(0, abs=1e-6)
    assert float(lens.loss.scale.log_scale.detach()) == before


def test_the_spread_is_zero_for_pictures_and_large_for_others(tmp_path: Path) -> None:
    lens = prepared(tmp_path, *SPREAD)
    outputs, targets = one_batch(lens)
    assert lens.pictures is not None
    pool = lens.pictures.pool.float()
    far = amount(lens, outputs, targets)
    near = amount(lens, {**outputs, "patches": pool[torch.randperm(len(pool))[:96]].view(6, 1, 16, WIDTH)}, targets)
    shifted = amount(lens, {**outputs, "patches": outputs["patches"] + 3 * lens.pictures.statistics.patch_std}, targets)
    assert near < 0.3 * far
    assert shifted > far + 1, "every direction is a unit vector: a shift of 3 in all channels is a shift of about 3 in them"


def test_directions_change_from_step_to_step_and_follow_from_the_seed(tmp_path: Path) -> None:
    lens, other = prepared(tmp_path / "a", *SPREAD), prepared(tmp_path / "b", *SPREAD, "seed=1")
    outputs, targets = one_batch(lens)
    first, second = (amount(lens, outputs, targets) for _ in range(2))
    assert first != second
    again = prepared(tmp_path / "a", *SPREAD)
    assert amount(again, outputs, targets) == first
    assert amount(other, outputs, targets) != first


def test_every_view_agrees_by_itself(tmp_path: Path) -> None:
    """A sound's clips are streams of their own to a host: two views that differ from the picture by +1 and -1 do not agree."""
    lens = prepared(tmp_path, *STATE)
    outputs, targets = one_batch(lens)
    assert lens.pictures is not None
    off = lens.pictures.statistics.class_std
    views = torch.stack([targets["class_state"] + off, targets["class_state"] - off], dim=1)
    assert amount(lens, {**outputs, "class_state": views}, targets) == pytest.approx(1, rel=1e-4)
    x = lens.collate([lens.items[0, row] for row in range(3)]).inputs["x"]
    seen = lens.network(torch.stack([x, x.flip(-1)], dim=1))
    assert seen["class_state"].shape == (3, 2, WIDTH)
    assert torch.allclose(seen["class_state"][:, 0], lens.network(x)["class_state"][:, 0], atol=1e-5)


# --- in the run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [STATE, PER_TOKEN, READERS, SPREAD], ids=["state", "per_token", "readers", "spread"])
def test_the_gradient_reaches_modembed_and_lens_alone(changes: tuple[str, ...], tmp_path: Path) -> None:
    lens = prepared(tmp_path, *changes, "loss.learn_scale=false")
    extra(lens, *one_batch(lens)).backward()
    reached = {name for name, p in lens.network.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}
    assert any(name.startswith("encoder.embed.") for name in reached)
    assert any(name.startswith("encoder.vit.blocks.0.") for name in reached), "the ViT's first block is the lens here"
    assert all(name.startswith(("encoder.embed.", "encoder.vit.blocks.0.")) for name in reached)


@pytest.mark.parametrize("changes", [TOKENS, (*STATE, *PER_TOKEN)], ids=["readers", "per_token"])
def test_micro_batches_and_no_cache_change_nothing(changes: tuple[str, ...], tmp_path: Path) -> None:
    base = ("optimizer.eps=1e-3", "schedule.max_steps=3", *LENS, *changes)
    plain = run(tmp_path / "a", *base)
    for name, how in (("b", "micro_batch=3"), ("c", "anchors.cache=false")):
        other = run(tmp_path / name, *base, how)
        assert all(torch.allclose(value, weights(other)[key], atol=1e-5) for key, value in weights(plain).items()), how
        assert other.loss == pytest.approx(plain.loss, rel=1e-4)


def test_the_terms_fall_and_are_logged(tmp_path: Path) -> None:
    rows = {}
    for name, weight in (("on", 1.0), ("off", 1e-9)):
        run(tmp_path / name, *LENS, f"tokens.class_state.weight={weight}", "schedule.epochs=8")
        rows[name] = [float(row["class_state"]) for row in read_csv(tmp_path / name / "run" / "log.csv")]
    assert np.mean(rows["on"][-3:]) < 0.9 * np.mean(rows["on"][:3])
    assert np.mean(rows["on"][-3:]) < 0.95 * np.mean(rows["off"][-3:])


def test_off_is_as_if_there_were_none(tmp_path: Path) -> None:
    plain = run(tmp_path / "a")
    off = ("tokens.patches={kind: readers, weight: 0}", "tokens.pictures=5", "tokens.class_state.layer=-2")
    other = run(tmp_path / "b", *off)
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(plain).items())
    assert plain.loss == other.loss
    lens = prepared(tmp_path / "c", *off)
    assert isinstance(lens.loss, AnchorLoss)
    assert set(lens.network(**lens.collate([lens.items[0, 0]]).inputs)) == {"embedding"}
    assert not list((tmp_path / "c").rglob("tokens"))


def test_bf16_trains_what_fp32_trains_but_for_rounding(tmp_path: Path) -> None:
    base = (*TOKENS, *LENS, "schedule.max_steps=2")
    whole, half = run(tmp_path / "a", *base), run(tmp_path / "b", *base, "precision=bf16")
    assert half.loss == pytest.approx(whole.loss, rel=0.02)


def test_readers_are_kept_by_the_anchors_weights_and_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path, *READERS).pictures
    fit = made._fit
    monkeypatch.setattr(made, "_fit", None)
    again = prepared(tmp_path, *READERS, "tokens.patches.weight=0.1", "optimizer.lr=0.5").pictures
    assert first is not None and again is not None
    assert first.readers is not None and again.readers is not None
    assert again.key == first.key
    assert all(torch.equal(a, b) for a, b in zip(first.readers.parameters(), again.readers.parameters(), strict=True))
    monkeypatch.setattr(made, "_fit", fit)
    moved = tiny_clip()
    with torch.no_grad():
        moved.encoders["image"].vit.proj[0, 0] += 1  # type: ignore[union-attr, operator]
    others = [prepared(tmp_path, *READERS, model=moved), prepared(tmp_path, *READERS, "seed=1")]
    others += [prepared(tmp_path, *READERS, rows=world(24, 1)), prepared(tmp_path, *READERS, "tokens.patches.layer=-2")]
    keys = {first.key, *(one.pictures.key for one in others if one.pictures is not None)}
    assert len(keys) == 5


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    rows = world(24)
    whole = prepared(tmp_path / "a", *READERS, "anchors.cache=false", rows=rows[1:]).pictures
    rows[0]["image"] = tmp_path / "gone.png"
    found = prepared(tmp_path / "b", *READERS, "anchors.cache=false", "data.max_bad_share=0.1", rows=rows).pictures
    assert whole is not None and found is not None
    assert torch.allclose(found.statistics.patch_mean, whole.statistics.patch_mean, atol=1e-5)


def test_readers_learn_to_read_pictures(tmp_path: Path) -> None:
    """Fitted on pictures' patch tokens they tell which picture it is; with their first weights they do not."""
    found = []
    for steps in (1, 60):
        how = f"tokens.patches={{kind: readers, readers: 1, reader_steps: {steps}, layer: -1}}"
        lens = prepared(tmp_path / str(steps), how)
        patches = hidden_of(tiny_clip(), "image", world(24), norm=False)[:, 1:]
        assert lens.pictures is not None and lens.pictures.readers is not None
        with torch.no_grad():
            read = F.normalize(lens.pictures.readers(patches)[:, 0], dim=-1)
        goals = tiny_clip().encode({"image": [row["image"] for row in world(24)]})["image"]
        found.append(float((read * goals).sum(dim=-1).mean()))
    assert found[1] > found[0] + 0.3


# --- refusals --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"anchors\.modalities is \[text\]: add image"):
        prepared(tmp_path, *STATE, "anchors.modalities=[text]")
    for change, message in {
        "tokens.class_state={weight: 1, layer: -3}": r"tokens\.class_state\.layer=-3: there are 2 blocks, so -1 to -2",
        "tokens.patches={kind: readers, layer: -7}": r"tokens\.patches\.layer=-7",
        "tokens.spread={weight: 1, directions: 99}": r"tokens\.spread\.directions=99: tokens of width 32",
        "tokens.class_state={weight: 1, layer: 2}": r"tokens\.class_state\.layer must be",
        "data.augment=true": r"per_token compares .* set data\.augment=false",
        "tokens.patches.kind=cosine": r"tokens\.patches\.kind",
        "tokens.patch.kind=none": r"unknown key 'tokens.patch'; did you mean tokens\.patches\?",
    }.items():
        with pytest.raises(OptionError, match=message):
            prepared(tmp_path, *(PER_TOKEN if change == "data.augment=true" else ()), change)
    perceiver = ("model.lens={kind: perceiver, depth: 1, latents: 9}", "model.trains.first_blocks=0")
    lens = prepared(tmp_path, *PER_TOKEN, *perceiver)
    with pytest.raises(OptionError, match="the lens gives 9 patch tokens, a picture 16"):
        lens.loss(*one_batch(lens))


def test_a_vit_without_class_token_has_no_class_state(tmp_path: Path) -> None:
    model = tiny_clip()
    vit: Any = model.encoders["image"].vit
    vit.class_token, vit.positions = None, torch.nn.Parameter(vit.positions[1:].detach(), requires_grad=False)
    with pytest.raises(OptionError, match="no class token"):
        prepared(tmp_path, *STATE, model=model)


def test_the_dry_run_says_what_is_cached(tmp_path: Path) -> None:
    def said(*changes: str) -> str:
        done = CliRunner().invoke(app, ["train", "vitlens-l-audio", "--dry-run", *(f"--set={change}" for change in changes)])
        assert done.exit_code == 0, done.output
        return done.output

    assert "tokens" not in said()
    found = said("tokens.class_state.weight=1", "tokens.patches.kind=readers", "tokens.spread.weight=4")
    assert "4,096 bytes an item" in found, "a class state of ViT-L in float32"
    assert "readers" in found and "block -2" in found
    assert "134,217,728 bytes once" in found, "65,536 patch tokens of width 1024 in float16"
    assert "pictures through their tower at every step" in said("tokens.patches.kind=per_token")
