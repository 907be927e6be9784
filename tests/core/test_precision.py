"""Arithmetic that is chosen by a probe, and processes that read by themselves: what decides, and that the same comes out."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vitlens.precision
from tests.train.tiny import tiny_clip, world
from vitlens.batches import WORTH_A_PROCESS, reading_processes
from vitlens.errors import OptionError
from vitlens.model import ViTLens
from vitlens.precision import probe
from vitlens.store.engine import Engine
from vitlens.store.items import Inputs, Item
from vitlens.store.job import Job, Settings
from vitlens.store.store import EmbeddingStore


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return tiny_clip()


def speeds(monkeypatch: pytest.MonkeyPatch, *found: float) -> list[float]:
    """What the clock says of bf16, one measurement after the other."""
    left = list(found)
    monkeypatch.setattr(vitlens.precision, "_times_as_fast", lambda *_: left.pop(0))
    return left


def test_bf16_is_chosen_where_it_is_faster_and_as_good(monkeypatch: pytest.MonkeyPatch, model: ViTLens) -> None:
    left = speeds(monkeypatch, 2.0, 1.9)
    found = model.probe("image")
    assert found.precision == "bf16" and found.speed == 1.9 and found.cosine is not None and 0.9999 <= found.cosine < 1
    assert model.probe("image") is found and not left, "tried once"
    items = [row["image"] for row in world(3)]
    auto, bf16, fp32 = (model.encode({"image": items}, dtype=dtype)["image"] for dtype in ("auto", torch.bfloat16, None))
    assert torch.equal(auto, bf16) and not torch.equal(auto, fp32)
    model._probes.clear()


@pytest.mark.parametrize(("found", "computed"), [((1.1,), False), ((2.0, 1.1), True)])
def test_fp32_stays_where_bf16_does_not_pay(monkeypatch: pytest.MonkeyPatch, found: tuple[float, ...], computed: bool) -> None:
    speeds(monkeypatch, *found)
    ran: list[bool] = []

    class Tower(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ran.append(True)
            return x

    result = probe(Tower(), torch.ones(2, 4), torch.device("cpu"))
    assert result.precision == "fp32" and bool(ran) is computed, "a processor without bf16 is not kept busy with the tower"


def test_fp32_stays_where_bf16_is_not_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, 3.0, 3.0)

    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(-1) if torch.is_autocast_enabled("cpu") else x

    result = probe(Coarse(), torch.arange(8.0).view(2, 4), torch.device("cpu"))
    assert result.precision == "fp32" and result.cosine is not None and result.cosine < 0.9999
    assert "fp32 (bf16 is 3 times as fast as fp32 here, cosine 0." in str(result)


def test_a_clock_decides(model: ViTLens) -> None:
    x = torch.randn(4, 4)
    assert vitlens.precision._times_as_fast(lambda: None, lambda: [x @ x for _ in range(100)], torch.device("cpu"), 0.01) > 2
    assert model.probe("image").precision in ("fp32", "bf16")


def test_what_was_chosen_stays_for_the_rest_of_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    speeds(monkeypatch, 2.0, 2.0)
    model, items = tiny_clip(), [row["image"] for row in world(6)]
    inputs = Inputs([Item(row, f"{row}", "image", value) for row, value in enumerate(items)])
    job = Job(inputs, tmp_path / "out.npz", "tiny", Settings(dtype="auto", batch_size=2, save_every=2))

    def killed(modality: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(lambda modalities: model, progress=killed)
    monkeypatch.setattr(ViTLens, "probe", lambda *_: pytest.fail("chosen already"))
    result = job.run(lambda modalities: tiny_clip())
    assert result.precision == {"image": "bfloat16"} and result.resumed == 2
    assert result.to_dict()["precision"] == {"image": "bfloat16"}


def test_the_store_keeps_what_auto_chose_under_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    speeds(monkeypatch, 2.0, 2.0)
    items, store = [row["image"] for row in world(2)], EmbeddingStore(tmp_path)
    store.embed(Engine(tiny_clip(), precision="auto"), "image", items)
    store.embed(Engine(tiny_clip(), precision="bf16"), "image", items)
    assert store.computed == 2


def test_processes_read_where_there_is_enough_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "fork")
    monkeypatch.setattr("vitlens.batches.NOT_FORKED", ())
    few = WORTH_A_PROCESS
    assert [reading_processes(count) for count in (0, few - 1, few, 2 * few, 100 * few)] == [0, 0, 1, 2, 3]
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(reading_processes(1000)))
    other.start()
    other.join()
    assert found == [0], "not from another thread"
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    assert reading_processes(1000) == 0
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "fork")
    monkeypatch.setattr("vitlens.batches.NOT_FORKED", ("numpy",))
    assert reading_processes(1000) == 0


def test_read_by_processes_the_same_comes_out(monkeypatch: pytest.MonkeyPatch, model: ViTLens) -> None:
    items = [np.full((8, 8, 3), i % 256, np.uint8) for i in range(70)]
    alone = model.encode({"image": items}, num_workers=0)["image"]
    asked: list[int] = []
    monkeypatch.setattr("vitlens.batches.reading_processes", lambda count: asked.append(count) or 1)
    assert torch.equal(model.encode({"image": items})["image"], alone) and asked == [70]
    with pytest.raises(OptionError, match="num_workers"):
        model.encode({"image": items}, num_workers="many")  # type: ignore[arg-type]
