"""Frozen weights in little room while others train.

What no step reads lies in a file (`into_file`): it can be used as before, and takes memory only while it is. What every step
multiplies by is kept in the precision of the run (`in_run_precision`): autocast would cast it anew for every product and hold the
copy until the backward pass, so the products stay the same to the bit.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from vitlens.vit_blocks import Attention

ALIGNED = 64
"""Bytes; where a tensor begins in the file."""


@contextmanager
def in_run_precision(network: nn.Module, dtype: torch.dtype, folder: Path) -> Iterator[None]:
    """The frozen float32 matrices of a network are in `dtype` inside this block; their values wait in a file of `folder`, or, if
    the network is on an accelerator, in memory.
    """
    wide = [p for p in _multiplied(network) if p.dtype == torch.float32]
    device = next((p.device for p in wide), torch.device("cpu"))
    values = into_file(wide, folder, kept=dtype) if device.type == "cpu" else {p: p.detach().cpu() for p in wide}
    try:
        for parameter in values:
            parameter.data = parameter.detach().to(dtype)  # nothing is left to do on a CPU
        yield
    finally:
        for parameter, known in values.items():
            parameter.data = known.to(device)


def _multiplied(network: nn.Module) -> Iterator[nn.Parameter]:
    """Weights and biases of linear layers and attention, of modules in which nothing trains.

    A part that trains may use a frozen matrix otherwise: LoRA adds to it.
    """
    if any(p.requires_grad for p in network.parameters()):
        for child in network.children():
            yield from _multiplied(child)
    else:
        for module in network.modules():
            if type(module) is nn.Linear or isinstance(module, Attention):
                yield from module.parameters()


def into_file(parameters: Iterable[nn.Parameter], folder: Path, *, kept: torch.dtype | None = None) -> dict[nn.Parameter, Tensor]:
    """Let the values of `parameters` lie in an unnamed file in `folder`, which goes with the last of them; they can be read and
    written there as before.

    With `kept` the parameters are copies of that dtype instead. Returns what lies in the file.

    Raises:
        OSError: the disk takes no more; it names `folder`, and the parameters have their values.
    """
    written: list[tuple[nn.Parameter, int, torch.dtype, torch.Size]] = []
    found: dict[nn.Parameter, Tensor] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            for parameter in dict.fromkeys(p for p in parameters if p.numel()):
                known = parameter.detach()
                place = file.seek(-(-file.tell() // ALIGNED) * ALIGNED)
                file.write(known.contiguous().flatten().view(torch.uint8).numpy().data)
                file.flush()
                written.append((parameter, place, known.dtype, known.shape))
                parameter.data = known.new_empty(0) if kept is None else known.to(kept)
        except BaseException as error:
            kept = None  # also where a user stops it
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(folder)) from error
            raise
        finally:
            whole = torch.frombuffer(mmap.mmap(file.fileno(), 0), dtype=torch.uint8) if written else torch.empty(0)
            for parameter, place, dtype, shape in written:
                found[parameter] = whole[place : place + shape.numel() * dtype.itemsize].view(dtype).view(shape)
                if kept is None:
                    parameter.data = found[parameter]
    _to_the_system()
    return found


def _to_the_system() -> None:
    """Hand back what was freed: glibc keeps blocks of up to 32 MiB for itself."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
