"""Which device a model goes to, and what is said where a GPU is there that cannot be used."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path

import torch

from vitlens.errors import OptionError

BUS = Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"
"""The maker's number on the PCI bus."""


def chosen_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name; None takes CUDA if there is one, then MPS, then the CPU.

    Where None falls to the CPU beside an NVIDIA GPU, a warning says why, once.

    Raises:
        OptionError: no such device on this machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own about a driver: said once, below
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        if accelerator is not None and accelerator.type in ("cuda", "mps"):
            return accelerator
        _warn_of(cuda_problem())
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"{str(name)!r} is no torch device: give cpu, cuda, cuda:1, mps or xpu") from error
    count = torch.accelerator.device_count() if accelerator is not None else 0
    there = device.type == "cpu" or (accelerator is not None and device.type == accelerator.type)
    if not there or (device.index or 0) >= max(count, 1):
        reason = f": {cuda_problem()}" if device.type == "cuda" and cuda_problem() else ""
        raise OptionError(
            f"device {name}: torch finds no such device on this machine{reason} (vitlens doctor shows what it finds)"
        )
    return device


def cuda_problem() -> str:
    """Why CUDA cannot be used although the machine has an NVIDIA GPU; "" where it can, or where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # hidden on purpose
        return ""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available() or not nvidia_gpus():
            return ""
    if not torch.version.cuda:
        return f"this machine has an NVIDIA GPU, but torch {torch.__version__} is built without CUDA"
    words = " ".join(str(said[0].message).split()) if said else "no driver answers"
    return f"torch {torch.__version__} is built for CUDA {torch.version.cuda}, but cannot use this machine's NVIDIA GPU ({words})"


def nvidia_gpus() -> int:
    """How many NVIDIA display or compute controllers are on the PCI bus (Linux), whether or not a driver drives them."""
    found = 0
    for device in BUS.glob("*"):
        try:
            maker, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        found += maker == NVIDIA and kind.startswith("0x03")
    return found


@cache
def _warn_of(problem: str) -> None:
    if problem:
        warnings.warn(f"{problem}: the CPU computes", stacklevel=3)
