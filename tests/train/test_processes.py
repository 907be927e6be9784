"""Two processes do what one does: gradients of the same global batch, and whole runs - DDP, micro-batches, FSDP2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train import processes
from vitlens.train.logs import read_csv

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two gloo processes on the CPU left."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "tests.train.processes", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on after step 3 of 4" in done.stderr
    return folder


@pytest.mark.parametrize("variant", processes.VARIANTS)
def test_gradients_are_those_of_one_process(variant: str, two: Path, tmp_path: Path) -> None:
    alone = processes.gradients(tmp_path, *processes.ALONE[processes.VARIANTS[variant][0]])
    together = torch.load(two / f"{variant}.pt", weights_only=True)
    assert set(together) == set(alone)
    assert {"encoder.embed.conv1.weight", "encoder.vit.blocks.0.mlp.c_fc.weight"} <= set(alone)
    assert sum(name.endswith("scale.log_scale") for name in alone) == 1
    for name, expected in alone.items():
        assert torch.allclose(together[name], expected, atol=1e-6, rtol=1e-5), name
        assert float(expected.abs().max()) > 1e-5, f"{name}: a gradient of nothing proves nothing"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same runs in one process."""
    folders = {name: tmp_path_factory.mktemp(f"one-{name}") for name in processes.ALONE}
    for name, folder in folders.items():
        processes.train(folder, *processes.ALONE[name])
    return {name: folder / "run" for name, folder in folders.items()}


@pytest.mark.parametrize("variant", [*processes.VARIANTS, "apart"])
def test_runs_end_where_one_process_ends(variant: str, two: Path, one: dict[str, Path]) -> None:
    """The FSDP2 run was stopped before its last step and went on; in "apart" each process has an anchor cache of its own."""
    alone = one["tokens" if variant == "apart" else processes.VARIANTS[variant][0]]
    expected, found = (
        load_file(alone / "model" / "model.safetensors"),
        load_file(two / variant / "run" / "model" / "model.safetensors"),
    )
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=2e-5), name
    losses = [[float(row["loss"]) for row in read_csv(run / "log.csv")] for run in (alone, two / variant / "run")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[0]) == 4


def test_a_task_that_is_no_lens_ends_where_one_process_ends(two: Path, tmp_path: Path) -> None:
    processes.pairs(tmp_path)
    expected = torch.load(tmp_path / "weights.pt", weights_only=True)
    found = torch.load(two / "pairs" / "weights.pt", weights_only=True)
    assert set(found) == set(expected)
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in expected.items())
