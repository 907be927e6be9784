"""Frozen weights in little room: the same steps to the bit, and everything as it was when a run is over, however it ends."""

from __future__ import annotations

import io
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.train.tiny import tiny_clip, tiny_recipe, world
from vitlens.encoder import LensEncoder
from vitlens.model import ViTLens
from vitlens.train import LensTask, NonFiniteLoss, Trainer
from vitlens.train.frozen import in_run_precision, into_file
from vitlens.train.parallel import Parallel
from vitlens.vit import FrozenViT
from vitlens.vit_blocks import with_our_attention


def clip() -> ViTLens:
    """The tiny model, with the attention that released models have."""
    model = tiny_clip()
    vit = cast(FrozenViT, cast(LensEncoder, model.encoders["image"]).vit)
    vit.blocks = nn.ModuleList([with_our_attention(block) for block in vit.blocks])
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


@pytest.mark.parametrize("changes", [(), ("model.trains.first_blocks=1",), ("model.lora={rank: 2, targets: attention}",)])
def test_steps_in_bf16_are_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]) -> None:
    seen: list[set[torch.dtype]] = []

    def run(folder: Path) -> ViTLens:
        recipe = tiny_recipe(folder, "precision=bf16", "optimizer.lr=1e-2", *changes)
        task = LensTask(recipe, model=clip(), train=world(16))
        step = task.after_step

        def after_step() -> None:
            frozen = [p for p in task.network.encoder.vit.blocks.parameters() if not p.requires_grad]
            seen.append({p.dtype for p in frozen})
            step()

        monkeypatch.setattr(task, "after_step", after_step)
        return Trainer(task, progress=False).run().model

    low = run(tmp_path / "low")
    assert all(torch.bfloat16 in dtypes for dtypes in seen)
    seen.clear()
    monkeypatch.setattr(Parallel, "frozen_in_precision", lambda self: nullcontext())
    wide = run(tmp_path / "wide")
    assert all(dtypes == {torch.float32} for dtypes in seen)
    assert same(state(low), state(wide))
    known = state(clip().encoders["image"])
    assert same(known, state(low.encoders["image"]))


def test_a_run_that_fails_gives_the_weights_back(tmp_path: Path) -> None:
    model = clip()
    known = state(model)
    task = LensTask(tiny_recipe(tmp_path, "precision=bf16"), model=model, train=world(16))

    def fails() -> None:
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}
        raise NonFiniteLoss("as if")

    task.after_step = fails  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss):
        Trainer(task, progress=False).run()
    assert same(known, state(model))


def test_values_in_a_file_are_used_and_changed_as_before(tmp_path: Path) -> None:
    layer = nn.Linear(7, 3)
    layer.register_parameter("odd", nn.Parameter(torch.arange(5).to(torch.bfloat16)))
    layer.register_parameter("one", nn.Parameter(torch.tensor(2.0)))
    known, x = state(layer), torch.randn(2, 7)
    given = layer(x)
    into_file(layer.parameters(), tmp_path)
    assert same(known, state(layer))
    assert torch.equal(layer(x), given)
    assert not list(tmp_path.iterdir()), "the file has no name: it goes with the process, however that ends"
    with torch.no_grad():
        layer.weight.zero_()
    assert not layer.weight.any()
    assert torch.equal(layer.bias, known["bias"])


@pytest.mark.parametrize("low", [False, True])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, low: bool) -> None:
    opened = tempfile.TemporaryFile

    def small(**options: Any) -> Any:
        file = opened(**options)
        write = file.write

        class Small(io.RawIOBase):
            def __enter__(self) -> Any:
                return self

            def write(self, data: Any) -> int:
                if file.tell() > 200:
                    raise OSError(28, "No space left on device")
                return int(write(data))

            def __getattribute__(self, name: str) -> Any:
                return super().__getattribute__(name) if name in ("__enter__", "write", "__exit__") else getattr(file, name)

        return Small()

    monkeypatch.setattr(tempfile, "TemporaryFile", small)
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).requires_grad_(False)
    known = state(layers)
    kept = in_run_precision(layers, torch.bfloat16, tmp_path)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        kept.__enter__() if low else into_file(layers.parameters(), tmp_path)
    assert same(known, state(layers))
