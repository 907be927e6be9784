"""The network that trains, on one device or several: accelerate for devices, precision and DDP; torch's FSDP2 on demand.

The temperature is kept apart: it enters the loss after the embeddings are gathered, outside of the wrapped network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.encoder import LensEncoder
from vitlens.errors import MissingDependencyError, OptionError
from vitlens.train.losses import LogitScale
from vitlens.train.recipe import INSTALL, Recipe
from vitlens.train.start import train_mode


class TrainedTower(nn.Module):
    """Sensor tensor [b, ...] -> normalised embedding [b, E], float32."""

    def __init__(self, encoder: LensEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.encoder(x).float(), dim=-1)


def start_accelerate(recipe: Recipe) -> Any:
    """Accelerate's view of the machine: its devices and processes (torchrun's), with the recipe's precision.

    Raises:
        MissingDependencyError: accelerate is not installed.
        OptionError: fp16 without an accelerator, or a batch that the processes cannot share evenly.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as error:
        raise MissingDependencyError(f"training needs accelerate: {INSTALL}") from error
    on_cpu = recipe.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if on_cpu and recipe.precision == "fp16":
        raise OptionError("precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    AcceleratorState._reset_state(reset_partial_state=False)  # another run in this process may have used another precision
    accelerator = Accelerator(mixed_precision="no" if recipe.precision == "fp32" else recipe.precision, cpu=on_cpu)
    if recipe.batch_size % accelerator.num_processes:
        raise OptionError(f"batch_size {recipe.batch_size} cannot be shared evenly by {accelerator.num_processes} processes")
    return accelerator


class Parallel:
    """The tower on this process' device, wrapped for its processes; and what depends on the kind of wrapping."""

    def __init__(self, encoder: LensEncoder, recipe: Recipe, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.sharded = recipe.parallel == "fsdp2" and accelerator.num_processes > 1
        if self.sharded and recipe.model.lora:
            raise OptionError("model.lora trains few parameters: use parallel=ddp with it, fsdp2 does not shard it")
        tower = TrainedTower(copy.deepcopy(encoder) if self.sharded else encoder)
        if recipe.sync_batchnorm and accelerator.num_processes > 1 and self.device.type == "cuda":
            tower = cast(TrainedTower, nn.SyncBatchNorm.convert_sync_batchnorm(tower))
        tower.encoder.vit.gradient_checkpointing = recipe.gradient_checkpointing
        train_mode(tower.encoder)
        tower.to(self.device)
        self.tower = tower
        if recipe.compile:
            tower.compile()
        self.wrapped: Any = (
            shard(tower, accelerator.num_processes, self.device) if self.sharded else accelerator.prepare_model(tower)
        )

    def embed(self, x: Tensor) -> Tensor:
        """[b, ...] -> normalised embeddings [b, E], in the recipe's precision."""
        with self.accelerator.autocast():
            return self.wrapped(x)

    def no_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Backward passes in this context are local, but for the last."""
        if self.sharded:
            self.wrapped.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def close(self) -> None:
        """Take the wrapping off."""
        if not self.sharded:
            self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False, keep_torch_compile=False)
            self.tower.encoder.vit.gradient_checkpointing = False


def shard(tower: TrainedTower, count: int, device: torch.device) -> nn.Module:
    """FSDP2: every block of the ViT is a unit of its own, the rest is one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (count,))
    for block in tower.encoder.vit.blocks:
        fully_shard(block, mesh=mesh)
    return cast(nn.Module, fully_shard(tower, mesh=mesh))


def named_trainable(tower: TrainedTower, scale: LogitScale) -> list[tuple[str, nn.Parameter]]:
    """Everything the optimiser gets, once each."""
    named = [*tower.encoder.named_parameters(), ("log_scale", scale.log_scale)]
    return [(name, p) for name, p in named if p.requires_grad]


def live_state(encoder: LensEncoder) -> dict[str, Tensor]:
    """What training changes: trainable parameters and running statistics, by name; the tensors themselves."""
    kept = set(encoder.state_dict())
    state = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    return {**state, **{name: b for name, b in encoder.named_buffers() if name in kept}}


def whole(tensor: Tensor) -> Tensor:
    """A tensor, or the whole of a sharded one, detached. All processes must ask."""
    tensor = tensor.detach()
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that later steps do not touch."""
    return {name: whole(value).cpu().clone() for name, value in state.items()}


@torch.no_grad()
def put_back(live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Write saved values into live tensors, sharded or not.

    Raises:
        OptionError: other names.
    """
    odd = sorted(set(live) ^ set(saved))
    if odd:
        raise OptionError(f"the checkpoint is of another network: {', '.join(odd[:6])}")
    for name, value in live.items():
        value.copy_(_like(saved[name], value))


def _like(saved: Tensor, live: Tensor) -> Tensor:
    """`saved` cut as `live` is."""
    if not hasattr(live, "full_tensor"):
        return saved
    from torch.distributed.tensor import distribute_tensor

    sharded = cast(Any, live)
    return distribute_tensor(saved.to(live.device), sharded.device_mesh, sharded.placements)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state with whole tensors on the CPU."""
    state = optimizer.state_dict()
    return {
        "state": {
            index: {key: whole(value).cpu().clone() if isinstance(value, Tensor) else value for key, value in entry.items()}
            for index, entry in state["state"].items()
        },
        "param_groups": [dict(group) for group in state["param_groups"]],
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`."""
    parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {key: _like(v, parameters[index]) if key.startswith("exp_avg") else v for key, v in entry.items()}
        for index, entry in saved["state"].items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients together, of the whole of sharded ones."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [whole(torch.linalg.vector_norm(g)).float() ** 2 for g in gradients]
    return torch.stack([s.to(squares[0].device) for s in squares]).sum().sqrt()
