"""The loop itself: it learns, keeps the frozen frozen, logs, stops when it must, and gives a model that can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.tiny import SHAPES, SIZE, tiny_clip, tiny_recipe, world
from vitlens.disk import write_csv
from vitlens.errors import InputError, ModalityError, OptionError
from vitlens.modality import modality_class
from vitlens.model import ViTLens
from vitlens.train import LensTask, NonFiniteLoss, Trainer, TrainingResult
from vitlens.train.logs import at_chance, read_csv

LEARNS = (
    "anchors.modalities=[text]",
    "model.lens={kind: perceiver, depth: 1}",
    "data.augment=false",
    "optimizer.lr=1e-3",
    "schedule.epochs=8",
)


Result = TrainingResult[ViTLens]


def task(folder: Path, *changes: str, rows: Any = None, model: ViTLens | None = None, evaluation: Any = None) -> LensTask:
    return LensTask(tiny_recipe(folder, *changes), model=model or tiny_clip(), train=rows or world(32), evaluation=evaluation)


def run(folder: Path, *changes: str, **data: Any) -> Result:
    return Trainer(task(folder, *changes, **data), progress=False).run()


def weights(result: Result) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in result.model.encoders["depth"].named_parameters()}


def close(one: Result, other: Result, tolerance: float = 1e-5) -> bool:
    first, second = weights(one), weights(other)
    return set(first) == set(second) and all(torch.allclose(first[n], second[n], atol=tolerance) for n in first)


def test_a_lens_in_front_of_a_frozen_vit_learns_what_the_anchors_say(tmp_path: Path) -> None:
    """Zero-shot on things never seen must beat chance (25 %) by 15 points at least; the ViT in the middle is random."""
    frozen = tiny_clip()
    result = run(tmp_path, *LEARNS, rows=world(128), evaluation=world(48, 1000), model=frozen)
    assert result.best_top1 is not None
    assert result.best_top1 >= 0.40
    losses = [float(row["loss"]) for row in read_csv(result.folder / "log.csv")]
    assert len(losses) == 128
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.2
    before, after = tiny_clip().encoders["image"].state_dict(), result.model.encoders["image"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the anchors must stay as they were"
    image, depth = (result.model.encoders[name].vit for name in ("image", "depth"))  # type: ignore[union-attr]
    assert depth.blocks[0].mlp.c_fc.weight is image.blocks[0].mlp.c_fc.weight, "frozen tensors are shared"


def test_the_result_is_a_model_folder_with_the_encoder_beside_its_anchors(tmp_path: Path) -> None:
    result = run(tmp_path, "optimizer.lr=1e-2")
    assert set(result.model.modalities) >= {"image", "depth", "text"}
    assert result.model.space == tiny_clip().space
    assert (result.folder / "model" / "config.json").is_file()
    assert (result.folder / "recipe.yaml").is_file()
    again = ViTLens.from_pretrained(str(result.folder / "model"), modalities=["depth"], device="cpu")
    maps = [thing["depth"] for thing in world(3, 50)]
    assert torch.allclose(again.encode({"depth": maps})["depth"], result.model.encode({"depth": maps})["depth"], atol=1e-6)
    assert again.logit_scale == pytest.approx(result.model.logit_scale)
    assert again.logit_scale != 14.0, "the temperature was learned"


def test_cached_anchors_train_what_computed_ones_train(tmp_path: Path) -> None:
    both = ("anchors.modalities=[image,text]", "optimizer.eps=1e-3")
    cached, computed = task(tmp_path / "a", *both), task(tmp_path / "b", *both, "anchors.cache=false")
    assert close(Trainer(cached, progress=False).run(), Trainer(computed, progress=False).run())
    assert cached.anchors_computed == 32 + len(SHAPES)
    assert computed.anchors_computed == 0


def test_micro_batches_and_gradient_checkpointing_change_nothing(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", "optimizer.eps=1e-3", "model.trains.last_blocks=1")
    saving = ("optimizer.eps=1e-3", "model.trains.last_blocks=1", "micro_batch=3", "gradient_checkpointing=true")
    assert close(plain, run(tmp_path / "b", *saving))


def test_workers_change_nothing(tmp_path: Path) -> None:
    alone, helped = run(tmp_path / "a"), run(tmp_path / "b", "data.num_workers=2")
    assert close(alone, helped, 0.0)


def test_seeds_matter(tmp_path: Path) -> None:
    assert not close(run(tmp_path / "a"), run(tmp_path / "b", "seed=1"), 1e-3)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader refuses NaN; here the preprocessing of one item divides by zero."""
    depth = modality_class("depth")
    plain = depth.transform
    rows = world(32)
    rows[9]["depth"] = np.full((SIZE, SIZE), 5.0, np.float32)

    def divided(self: Any, sample: Any, *, train: bool = False) -> Tensor:
        x = plain(self, sample, train=train)
        return x / (sample.data.std() > 0)

    monkeypatch.setattr(depth, "transform", divided)
    with pytest.raises(
        NonFiniteLoss, match=r"the loss is nan at step \d; items whose embedding is not finite: .*row 9\)\."
    ) as caught:
        run(tmp_path, rows=rows)
    assert "row 8" not in str(caught.value)
    with pytest.raises(NonFiniteLoss):
        run(tmp_path, rows=rows)  # what was learned before it is still there, and so is the item


def test_broken_items_are_skipped_counted_and_reported(tmp_path: Path) -> None:
    rows = world(40)
    rows[7]["depth"] = np.full((SIZE, SIZE), -1.0, np.float32)
    rows[20]["image"] = np.zeros((4, 4, 9), np.uint8)
    rows[30]["depth"] = str(tmp_path / "caf\udce9.npy")  # a name that is no UTF-8, of a file that is not there
    result = run(tmp_path, "data.max_bad_share=0.1", rows=rows)
    assert len(result.bad_items) == 3
    reported = {row["name"]: row["reason"] for row in read_csv(result.folder / "bad_items.csv")}
    assert reported == result.bad_items
    assert any("row 7" in name and "negative" in why for name, why in reported.items())
    assert any("row 20" in name and "[4, 4, 9]" in why for name, why in reported.items())
    with pytest.raises(OptionError, match=r"max_bad_share=0\.01"):
        run(tmp_path / "strict", rows=rows)


def test_captions_that_the_anchors_cannot_tell_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [{**thing, "text": f"{'A' if i % 8 > 3 else 'a'} {thing['text']}"} for i, thing in enumerate(world(32))]
    run(tmp_path / "some", "anchors.modalities=[image,text]", rows=told)
    said = " ".join(capsys.readouterr().err.split())
    assert "captions that the model cannot tell apart: 'a " in said and "their tokens are the same" in said
    same = [{**thing, "text": "a Thing" if i % 2 else "a thing"} for i, thing in enumerate(world(32))]
    with pytest.raises(OptionError, match=r"'a thing' and 'a Thing'.*nothing can be learned"):
        run(tmp_path / "all", "anchors.modalities=[text]", rows=same)


def test_a_loss_that_stays_at_a_guess_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, "optimizer.lr=1e-9", "schedule.epochs=6", "anchors.modalities=[text]", "loss.initial_scale=1")
    assert result.steps >= 20 and result.chance == pytest.approx(np.log(tiny_recipe(tmp_path).batch_size))
    assert result.loss == pytest.approx(result.chance, rel=0.02)
    said = " ".join(capsys.readouterr().err.split())
    assert f"a guess gives {result.chance:.3f}: nothing was learned" in said


@pytest.mark.parametrize(("last", "said"), [(4.16, True), (4.10, True), (3.9, False)])
def test_only_a_loss_near_a_guess_s_is_one(last: float, said: bool, tmp_path: Path) -> None:
    rows = [{"step": i, "loss": 9 - 4 * i / 80 if i < 80 else last} for i in range(100)]
    write_csv(tmp_path / "log.csv", rows)
    assert bool(at_chance(tmp_path, float(np.log(64)))) == said
    write_csv(tmp_path / "log.csv", rows[:10])
    assert at_chance(tmp_path, float(np.log(64))) == "", "too early to say"


def test_nothing_readable_is_an_input_error(tmp_path: Path) -> None:
    rows = [{**thing, "depth": np.zeros((3, 3, 3), np.float32)} for thing in world(16)]
    with pytest.raises((InputError, OptionError), match="cannot be read"):
        run(tmp_path, "data.max_bad_share=1", rows=rows)


def test_the_moving_average_is_what_is_saved_and_evaluated(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", evaluation=world(16, 100))
    follows = run(tmp_path / "b", "optimizer.ema=0", evaluation=world(16, 100))
    assert close(plain, follows, 0.0), "an average without memory is the weights themselves"
    lazy = run(tmp_path / "c", "optimizer.ema=0.999", evaluation=world(16, 100))
    assert not close(plain, lazy, 1e-3)
    assert plain.loss == lazy.loss, "training itself does not see the average"


def test_a_run_that_gets_no_better_stops(tmp_path: Path) -> None:
    changes = ("optimizer.lr=0", "schedule.epochs=9", "checkpoints.patience=2", "checkpoints.result=best")
    result = run(tmp_path, *changes, evaluation=world(16, 100))
    assert result.stopped_early
    assert result.steps == 3 * 4, "the first evaluation is the best, two more are not better"
    again = run(tmp_path, *changes, evaluation=world(16, 100))
    assert again.stopped_early
    assert again.steps == result.steps


def test_the_best_weights_can_be_the_result(tmp_path: Path) -> None:
    changes = ("schedule.epochs=3", "checkpoints.result=best")
    result = run(tmp_path, *changes, evaluation=world(16, 100))
    best = torch.load(result.folder / "checkpoints" / "best.pt", weights_only=True)
    assert best["progress"]["best"] == result.best_top1
    for name, value in best["network"].items():
        assert torch.equal(value, result.model.encoders["depth"].state_dict()[name.removeprefix("encoder.")])


def test_logs_are_tables_a_picture_and_events(tmp_path: Path) -> None:
    result = run(tmp_path, "logs.tensorboard=true", "logs.plot=true", "schedule.epochs=2", evaluation=world(8, 100))
    steps, evaluations = read_csv(result.folder / "log.csv"), read_csv(result.folder / "evaluation.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 9))
    assert [float(row["epoch"]) for row in evaluations] == [1.0, 2.0]
    assert float(steps[-1]["loss"]) == pytest.approx(result.loss, rel=1e-5)
    assert (result.folder / "curve.png").stat().st_size > 5000
    assert list((result.folder / "tensorboard").glob("events*"))


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    """With a large eps AdamW's step is as large as the gradient: clipped to next to nothing, the weights stay."""
    changes = ("optimizer.eps=1", "optimizer.weight_decay=0", "optimizer.lr=1e-2")
    start, free = run(tmp_path / "a", "optimizer.lr=0"), run(tmp_path / "b", *changes)
    held = run(tmp_path / "c", *changes, "optimizer.clip_norm=1e-6")
    moved, stayed = (
        sum(float((value - weights(start)[name]).abs().sum()) for name, value in weights(result).items())
        for result in (free, held)
    )
    assert stayed < 1e-3 * moved
    norms = [float(row["grad_norm"]) for row in read_csv(held.folder / "log.csv")]
    assert min(norms) > 1e-6, "the log has the norm before it was clipped"


def test_bfloat16_trains(tmp_path: Path) -> None:
    low, full = run(tmp_path / "a", "precision=bf16"), run(tmp_path / "b")
    assert all(value.dtype == torch.float32 for value in weights(low).values())
    assert low.loss == pytest.approx(full.loss, abs=0.1)
    assert low.loss != full.loss
    with pytest.raises(OptionError, match="fp16 needs a GPU"):
        run(tmp_path / "c", "precision=fp16")


def test_a_trained_encoder_can_be_trained_on(tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    start = weights(first)
    still = run(tmp_path / "b", "model.start=anchors", "optimizer.lr=0", model=first.model)
    assert all(torch.equal(value, start[name]) for name, value in weights(still).items())
    from_disk = run(tmp_path / "c", f"model.start={first.folder / 'model'}", "optimizer.lr=0")
    assert all(torch.equal(value, start[name]) for name, value in weights(from_disk).items())
    moved = run(tmp_path / "d", "model.start=anchors", model=first.model)
    assert not close(first, moved, 1e-3)


def test_lora_is_merged_into_weights_of_its_own(tmp_path: Path) -> None:
    lora = ("model.lora={rank: 2, targets: all}", "optimizer.lr=2e-2")
    result = run(tmp_path, *lora)
    image, depth = (result.model.encoders[name].vit.state_dict() for name in ("image", "depth"))  # type: ignore[union-attr]
    assert set(image) == set(depth), "the extra layers are gone"
    changed = {name for name in image if not torch.equal(image[name], depth[name])}
    assert {f"blocks.1.{name}" for name in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight")} <= changed
    assert not {"proj", "positions", "blocks.0.ln_1.weight"} & changed
    before = tiny_clip().encoders["image"].vit.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(image[name], before[name]) for name in before), "the anchors share tensors with it"
    again = ViTLens.from_pretrained(str(result.folder / "model"), modalities=["depth"], device="cpu")
    maps = [thing["depth"] for thing in world(3, 50)]
    assert torch.allclose(again.encode({"depth": maps})["depth"], result.model.encode({"depth": maps})["depth"], atol=1e-6)


def test_training_from_scratch_takes_new_weights(tmp_path: Path) -> None:
    result = run(tmp_path, "model.vit_weights=random", "model.trains.everything=true", "optimizer.lr=0")
    image, depth = (result.model.encoders[name].vit.state_dict() for name in ("image", "depth"))  # type: ignore[union-attr]
    assert not torch.equal(image["proj"], depth["proj"])


def test_a_new_map_may_be_seen_as_the_picture_is(tmp_path: Path) -> None:
    result = run(tmp_path, "model.patches=image", "optimizer.lr=0")
    image, depth = (result.model.encoders[name] for name in ("image", "depth"))
    one = torch.randn(2, 1, 32, 32)
    grey = one.expand(-1, 3, -1, -1)
    assert torch.allclose(depth(one), image(grey), atol=1e-6)
    with pytest.raises(OptionError, match="patches of 8 pixels, as the ViT does; found patches of 16 pixels"):
        run(tmp_path, "model.modality=thermal", "model.options={size: 32, patch: 16}", "model.patches=image")


def test_a_batch_norm_temperature_or_anchor_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModalityError, match="'audio' cannot be an anchor"):
        run(tmp_path, "anchors.modalities=[audio]")
    with pytest.raises(OptionError, match="no training data"):
        LensTask(tiny_recipe(tmp_path), model=tiny_clip())
    with pytest.raises(OptionError, match=r"anchors\.model"):
        LensTask(tiny_recipe(tmp_path), train=world(8))
    with pytest.raises(OptionError, match="batch_size is 64, but there are only 32"):
        run(tmp_path, "batch_size=64")


@pytest.mark.slow
def test_compiled_networks_train(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", "optimizer.eps=1e-3")
    assert close(plain, run(tmp_path / "b", "optimizer.eps=1e-3", "compile=true"), 1e-4)
