"""kill -9 at any moment, then the same command: the run ends bit for bit as one that was never interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.tiny import TOKENS, tiny_clip, tiny_recipe, world
from vitlens.errors import OptionError
from vitlens.model import ViTLens
from vitlens.store.engine import Engine
from vitlens.train import LensTask, Trainer, TrainingResult, lens_task
from vitlens.train.checkpoints import CheckpointFolder, read_tensors
from vitlens.train.logs import read_csv

# Dropout (in LoRA), augmentation, a moving average, micro-batches, evaluations: everything that has a state of its own.
CHANGES = (
    "schedule.epochs=3",
    "checkpoints.every_steps=1",
    "model.lora={rank: 2, targets: mlp, dropout: 0.2}",
    "optimizer.ema=0.9",
    "micro_batch=3",
    "anchors.batch_size=4",
)


def train(folder: Path, *changes: str) -> TrainingResult[ViTLens]:
    recipe = tiny_recipe(folder, *CHANGES, *changes)
    return Trainer(LensTask(recipe, model=tiny_clip(), train=world(32), evaluation=world(8, 100)), progress=False).run()


def killed(folder: Path, changes: tuple[str, ...], ready: Callable[[], bool], pause: float) -> bool:
    """Run in a process of its own and kill it `pause` seconds after `ready`; False when it was done before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking is safe here: the child only trains and dies
        child = multiprocessing.get_context("fork").Process(target=train, args=(folder, *changes))
        child.start()
    assert child.pid is not None
    while child.is_alive() and not ready():
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return child.exitcode == -signal.SIGKILL


def last_step(folder: Path) -> int:
    files = CheckpointFolder(folder / "run" / "checkpoints", 2).files()
    return int(files[-1].stem.removeprefix("step-")) if files else 0


@pytest.mark.parametrize("changes", [(), TOKENS], ids=["plain", "tokens"])
def test_a_killed_run_ends_as_one_that_was_not(changes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_task, "Engine", partial(Engine, save_every=4))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = train(whole, *changes)
    caught = [killed(broken, changes, lambda: any((broken / "cache").rglob("*.safetensors")), 0.0)]
    for number in range(4):
        step = last_step(broken)
        caught.append(killed(broken, changes, lambda step=step: last_step(broken) > step, 0.013 * number))
    assert all(caught), "every run must have been killed, not have ended"
    assert 0 < last_step(broken) < 12
    found = train(broken, *changes)
    assert (found.steps, found.loss, found.score) == (expected.steps, expected.loss, expected.score)
    first, second = (load_file(folder / "run" / "model" / "model.safetensors") for folder in (whole, broken))
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for name, columns in (("log.csv", ("step", "loss", "lr", "logit_scale", "grad_norm")), ("evaluation.csv", ("step", "top1"))):
        rows = [[[row[c] for c in columns] for row in read_csv(f / "run" / name)] for f in (whole, broken)]
        assert rows[0] == rows[1], name


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    first = Trainer(LensTask(recipe, model=tiny_clip(), train=world(16)), progress=False).run()
    before = read_csv(first.folder / "log.csv")
    again = Trainer(LensTask(recipe, model=tiny_clip(), train=world(16)), progress=False).run()
    assert read_csv(first.folder / "log.csv") == before
    assert (again.steps, again.loss) == (first.steps, first.loss)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))


def test_a_folder_with_another_run_is_left_alone(tmp_path: Path) -> None:
    Trainer(LensTask(tiny_recipe(tmp_path), model=tiny_clip(), train=world(16)), progress=False).run()
    with pytest.raises(OptionError, match=r"optimizer\.lr: 0\.003 then, 0\.1 now"):
        Trainer(LensTask(tiny_recipe(tmp_path, "optimizer.lr=0.1"), model=tiny_clip(), train=world(16)), progress=False).run()
    with pytest.raises(OptionError, match=r"inputs\.train"):
        Trainer(LensTask(tiny_recipe(tmp_path), model=tiny_clip(), train=world(24)), progress=False).run()
    other = tiny_clip()
    with torch.no_grad():
        other.encoders["image"].vit.proj[0, 0] += 1
    with pytest.raises(OptionError, match=r"inputs\.anchors\.image"):
        Trainer(LensTask(tiny_recipe(tmp_path), model=other, train=world(16)), progress=False).run()


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 2, 3):
        folder.save({"step": step}, step)
    assert [file.name for file in folder.files()] == ["step-000000002.pt", "step-000000003.pt"]
    content = folder.files()[-1].read_bytes()
    folder.files()[-1].write_bytes(content[: len(content) // 2])
    assert folder.latest() == {"format": 1, "step": 2}
    (tmp_path / "step-000000009.pt").write_bytes(b"")
    assert folder.latest() == {"format": 1, "step": 2}
    assert read_tensors(tmp_path / "gone.pt") is None


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    from vitlens.disk import lock_folder

    lock = lock_folder(tmp_path / "run", holder="a test")
    with pytest.raises(OptionError, match="in use"):
        Trainer(LensTask(tiny_recipe(tmp_path), model=tiny_clip(), train=world(16)), progress=False).run()
    lock.close()
