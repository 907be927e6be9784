"""A task of one's own: the loop runs it as it runs the training of a lens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.pairs import POINTS, PairLoss, PairTask, pair_options
from vitlens.errors import OptionError
from vitlens.train import NonFiniteLoss, Trainer, TrainingResult
from vitlens.train.logs import read_csv
from vitlens.train.options import OptimizerOptions


def run(folder: Path, **changes: Any) -> TrainingResult[Any]:
    return Trainer(PairTask(pair_options(folder, **changes)), progress=False).run()


def weights(result: TrainingResult[Any]) -> dict[str, Tensor]:
    return result.model.state_dict()


def test_it_learns_and_its_result_is_what_the_task_makes_of_it(tmp_path: Path) -> None:
    task = PairTask(pair_options(tmp_path, optimizer=OptimizerOptions(lr=3e-2)))
    result = Trainer(task, progress=False).run()
    assert result.model is task.network
    assert task.saved == tmp_path
    assert result.steps == 3 * 4
    rows = read_csv(tmp_path / "log.csv")
    losses = [float(row["loss"]) for row in rows]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5
    assert "logit_scale" not in rows[0], "a task logs what it names"
    assert not (tmp_path / "model").exists()


def test_micro_batches_change_nothing_for_any_output_of_the_network(tmp_path: Path) -> None:
    whole, parts = run(tmp_path / "a"), run(tmp_path / "b", micro_batch=5)
    assert all(torch.allclose(value, weights(parts)[name], atol=1e-6) for name, value in weights(whole).items())
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)


def test_what_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(tmp_path / "whole")
    forward, steps = PairLoss.forward, 0

    def interrupted(*arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return forward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PairLoss, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken")
    found = run(tmp_path / "broken")
    assert len(read_csv(tmp_path / "broken" / "log.csv")) == 12
    assert (found.steps, found.loss) == (expected.steps, expected.loss)
    assert all(torch.equal(value, weights(found)[name]) for name, value in weights(expected).items())
    with pytest.raises(OptionError, match="seed: 0 then, 1 now"):
        run(tmp_path / "broken", seed=1)


def test_the_average_is_the_result_while_training_goes_on_without_it(tmp_path: Path) -> None:
    averaged, plain = run(tmp_path / "a"), run(tmp_path / "b", optimizer=OptimizerOptions(lr=1e-2, eps=1e-3, clip_norm=1.0))
    assert averaged.loss == plain.loss
    assert not torch.equal(averaged.model.one.weight, plain.model.one.weight)


def test_a_number_that_is_none_names_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = POINTS.clone()
    broken[7, 2] = torch.nan
    monkeypatch.setattr("tests.train.pairs.POINTS", broken)
    with pytest.raises(NonFiniteLoss, match=r"items whose output is not finite: point 7\."):
        run(tmp_path)
