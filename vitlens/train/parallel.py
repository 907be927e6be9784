"""The network that trains, on one device or several: accelerate for devices, precision and DDP; torch's FSDP2 on demand.

The loss is kept apart: it acts on gathered outputs, and its own parameters (a temperature) are outside of the wrapped network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlens.errors import MissingDependencyError, OptionError
from vitlens.precision import torch_dtype
from vitlens.train.frozen import in_run_precision
from vitlens.train.gradcache import Named
from vitlens.train.options import INSTALL, RunOptions
from vitlens.train.task import Task


def start_accelerate(options: RunOptions) -> Any:
    """Accelerate's view of the machine: its devices and processes (torchrun's), with the run's precision.

    Raises:
        MissingDependencyError: accelerate is not installed.
        OptionError: fp16 without an accelerator, or a batch that the processes cannot share evenly.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as error:
        raise MissingDependencyError(f"training needs accelerate: {INSTALL}") from error
    on_cpu = options.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if on_cpu and options.precision == "fp16":
        raise OptionError("precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    AcceleratorState._reset_state(reset_partial_state=False)  # another run in this process may have used another precision
    accelerator = Accelerator(mixed_precision="no" if options.precision == "fp32" else options.precision, cpu=on_cpu)
    if options.batch_size % accelerator.num_processes:
        raise OptionError(f"batch_size {options.batch_size} cannot be shared evenly by {accelerator.num_processes} processes")
    return accelerator


class Parallel:
    """A task's network on this process' device, wrapped for its processes; and what depends on the kind of wrapping."""

    def __init__(self, task: Task[Any], accelerator: Any) -> None:
        options, count = task.options, accelerator.num_processes
        self.precision, self.folder = torch_dtype(options.precision), options.folder
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.sharded = options.parallel == "fsdp2" and count > 1
        network = copy.deepcopy(task.network) if self.sharded else task.network
        if options.sync_batchnorm and count > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        task.train_mode(network)
        self.network = network.to(self.device)
        if options.compile:
            network.compile()
        self.wrapped: Any = self._sharded(task, count) if self.sharded else accelerator.prepare_model(network)

    def _sharded(self, task: Task[Any], count: int) -> nn.Module:
        """FSDP2: every unit of the task by itself, the rest is one."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (count,))
        for unit in task.units(self.network):
            fully_shard(unit, mesh=mesh)
        return cast(nn.Module, fully_shard(self.network, mesh=mesh))

    def run(self, inputs: Named) -> Named:
        """Inputs, each [b, ...] -> the network's outputs [b, ...], in the precision of the run."""
        with self.accelerator.autocast():
            return self.wrapped(**inputs)

    def no_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Backward passes in this context are local, but for the last."""
        if self.sharded:
            self.wrapped.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def frozen_in_precision(self) -> AbstractContextManager[None]:
        """Frozen matrices are in the precision of the run in this context; FSDP2 wants one dtype in every unit."""
        if self.sharded or not isinstance(self.precision, torch.dtype):
            return nullcontext()
        return in_run_precision(self.network, self.precision, self.folder)

    def close(self) -> None:
        """Take the wrapping off."""
        if not self.sharded:
            self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False, keep_torch_compile=False)


def named_trainable(*modules: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Everything the optimiser gets: what of the network trains, and of the loss."""
    return [(name, parameter) for module in modules for name, parameter in module.named_parameters() if parameter.requires_grad]


def whole(tensor: Tensor) -> Tensor:
    """A tensor, or the whole of a sharded one, detached. All processes must ask."""
    tensor = tensor.detach()
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients together, of the whole of sharded ones."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [whole(torch.linalg.vector_norm(g)).float() ** 2 for g in gradients]
    return torch.stack([s.to(squares[0].device) for s in squares]).sum().sqrt()
