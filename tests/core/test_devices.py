"""The device that is taken, and the one warning where a GPU is there that torch cannot use."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from vitlens import devices
from vitlens.devices import chosen_device, cuda_problem
from vitlens.errors import OptionError


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose driver is too old for this torch, which says so each time it is asked."""

    def asked() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system\nis too old (found version 12080).", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", asked)
    monkeypatch.setattr(torch.accelerator, "is_available", asked)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(devices, "nvidia_gpus", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices._warn_of.cache_clear()


@pytest.mark.usefixtures("old_driver")
def test_an_unusable_driver_is_said_once() -> None:
    with pytest.warns(UserWarning, match=r"CUDA 13\.2.*too old.*the CPU computes") as said:
        assert [chosen_device(), chosen_device(), chosen_device()] == [torch.device("cpu")] * 3
    assert len(said) == 1
    with pytest.raises(OptionError, match="too old"):
        chosen_device("cuda")


@pytest.mark.usefixtures("old_driver")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_on_purpose_is_no_problem(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen_device() == torch.device("cpu")


@pytest.mark.usefixtures("old_driver")
def test_without_a_gpu_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "nvidia_gpus", lambda: 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen_device() == torch.device("cpu")
    assert cuda_problem() == ""


@pytest.mark.usefixtures("old_driver")
def test_a_torch_without_cuda_beside_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in cuda_problem()


def test_gpus_are_counted_on_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, maker, kind in (("0", "0x10de", "0x030200"), ("1", "0x10de", "0x040300"), ("2", "0x8086", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(maker + "\n")
        (tmp_path / name / "class").write_text(kind + "\n")
    (tmp_path / "no device").mkdir()
    monkeypatch.setattr(devices, "BUS", tmp_path)
    assert devices.nvidia_gpus() == 1
