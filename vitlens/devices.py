"""Which device a model goes to."""

from __future__ import annotations

import torch

from vitlens.errors import OptionError


def chosen_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name; None takes CUDA if there is one, then MPS, then the CPU.

    Raises:
        OptionError: no such device on this machine.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return accelerator if accelerator is not None and accelerator.type in ("cuda", "mps") else torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"{str(name)!r} is no torch device: give cpu, cuda, cuda:1, mps or xpu") from error
    count = torch.accelerator.device_count() if accelerator is not None else 0
    there = device.type == "cpu" or (accelerator is not None and device.type == accelerator.type)
    if not there or (device.index or 0) >= max(count, 1):
        raise OptionError(f"device {name}: torch finds no such device on this machine (vitlens doctor shows what it finds)")
    return device
