"""The state of a run - all that changes from step to step - as a checkpoint and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlens.errors import OptionError
from vitlens.processes import from_all, world
from vitlens.train.gradcache import rng_state, set_rng_state
from vitlens.train.optimizer import MovingAverage
from vitlens.train.parallel import Parallel, whole
from vitlens.train.task import Task


@dataclass
class RunProgress:
    """How far a run has come."""

    step: int = 0
    loss: float = float("nan")
    best: float = -1.0
    """The best top-1 so far; -1 before the first evaluation."""
    waiting: int = 0
    """Evaluations since then."""
    stopped: bool = False
    score: tuple[float, float, int, int] | None = None
    bad: dict[str, str] = field(default_factory=dict)


class RunState:
    """Weights, the loss's own ones, optimiser, moving average, random generators and progress."""

    def __init__(self, task: Task[Any], parallel: Parallel, optimizer: Any, scaler: Any) -> None:
        options = task.options.optimizer
        self.device = parallel.device
        self.weights = live_state(parallel.network)
        """The live weights that training changes, by name in the network."""
        self.loss = live_state(task.loss)
        self.optimizer = optimizer
        self.average = MovingAverage(self.weights, options.ema, warmup=options.ema_warmup) if options.ema is not None else None
        self.bad = task.bad
        self.scaler = scaler
        self.progress = RunProgress()

    def result(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Copies of the weights of network and loss as they would be used: averaged, where there is an average."""
        return whole_copies(self.average.state if self.average is not None else self.weights), whole_copies(self.loss)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The live weights are the averaged ones inside this block."""
        if self.average is None:
            yield
            return
        kept = {name: value.detach().clone() for name, value in self.weights.items()}
        put_back(self.weights, self.average.state)
        try:
            yield
        finally:
            put_back(self.weights, kept)

    def to_checkpoint(self) -> dict[str, Any]:
        """Everything, as tensors on the CPU and plain values, to be written before the next step: what is there is not copied.

        All processes must ask, one may write.
        """
        self.progress.bad = dict(self.bad.reasons)
        return {
            "progress": dict(vars(self.progress)),
            "network": _to_write(self.weights),
            "loss": _to_write(self.loss),
            "optimizer": optimizer_state(self.optimizer),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "average": None if self.average is None else _to_write(self.average.state),
            "generators": from_all([rng_state(self.device)]),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of `to_checkpoint`; another number of processes goes on with fresh random generators."""
        self.progress = RunProgress(**saved["progress"])
        put_back(self.weights, saved["network"])
        put_back(self.loss, saved["loss"])
        load_optimizer_state(self.optimizer, saved["optimizer"])
        if self.scaler is not None and saved["scaler"] is not None:
            self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            put_back(self.average.state, saved["average"])
        self.bad.reasons = dict(self.progress.bad)
        rank, count = world()
        if len(saved["generators"]) == count:
            set_rng_state(saved["generators"][rank], self.device)


def live_state(module: nn.Module) -> dict[str, Tensor]:
    """What training changes: trainable parameters and running statistics, by name; the tensors themselves."""
    kept = set(module.state_dict())
    state = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return {**state, **{name: b for name, b in module.named_buffers() if name in kept}}


def whole_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that later steps do not touch."""
    return {name: whole(value).cpu().clone() for name, value in state.items()}


def _to_write(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU; copies where a tensor is a part of more, which would be written with it."""
    found = {name: whole(value).cpu() for name, value in state.items()}
    return {name: x if x.untyped_storage().nbytes() == x.nbytes else x.clone() for name, x in found.items()}


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
            index: {**entry, **_to_write({key: value for key, value in entry.items() if isinstance(value, Tensor)})}
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
