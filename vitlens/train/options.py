"""RunOptions: how a run goes, whatever it trains - optimiser, schedule, batches, precision, processes, checkpoints, logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from vitlens.checks import number, whole

INSTALL = "pip install 'vitlens[train]'"

Range = tuple[str, float | None, float, float | None]
"""(key, value, least, most) of a number; a `least` that is an int asks for a whole number."""


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW; biases, norms and other tensors of one dimension have no weight decay, nor has logit_scale."""

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.2
    vit_lr_scale: float = 1.0
    """Factor on the learning rate of what trains of the ViT."""
    clip_norm: float | None = None
    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.999; the average is what is evaluated and saved."""
    ema_warmup: bool = False
    """Let the average follow fast at first: its decay at step n (from 0) is at most (1 + n) / (10 + n)."""


@dataclass(frozen=True)
class ScheduleOptions:
    """Learning rate: linear warm-up, then a cosine to `final_share` of it, or constant."""

    kind: Literal["cosine", "cosine_from_start", "constant"] = "cosine"
    """cosine_from_start: the cosine begins at the first step, and the warm-up is a factor on it."""
    warmup_steps: int = 10000
    final_share: float = 0.0
    epochs: int = 1
    max_steps: int | None = None
    """Ends the run (and the cosine) earlier."""


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints to resume from; one is written at the end of every epoch, too."""

    every_steps: int | None = None
    keep: int = 2
    result: Literal["last", "best"] = "last"
    """Which weights the result has: the last ones, or those of the best evaluation."""
    patience: int | None = None
    """Stop after so many evaluations without a better top-1."""


@dataclass(frozen=True)
class LogOptions:
    """Logs, beside the CSV files, which are always written."""

    every_steps: int = 1
    tensorboard: bool = True
    plot: bool = True


@dataclass(frozen=True)
class RunOptions:
    """How a run goes. `batch_size` is the number of items in one optimiser step, over all processes."""

    name: str = ""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    logs: LogOptions = field(default_factory=LogOptions)
    batch_size: int = 64
    micro_batch: int | None = None
    """Items a process takes through the network at once; a larger batch is exact all the same (arXiv 2101.06983)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """How several processes (started with torchrun) share the work."""
    sync_batchnorm: bool = True
    """Batch statistics over all processes; on GPUs only."""
    device: Literal["auto", "cpu"] = "auto"
    deterministic: bool = False
    """Refuse operations that differ from run to run (GPUs)."""
    seed: int = 0
    output: str | None = None
    """Folder of the run; default runs/NAME."""

    def __post_init__(self) -> None:
        for key, value, least, most in self.ranges():
            if value is not None:
                check = whole if isinstance(least, int) else number
                check(f"recipe {self.name}: {key}", value, least=least, most=most)  # type: ignore[arg-type]

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.output or f"runs/{self.name}")

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON types."""
        return plain(self)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one: all that decides the result, not where and how it runs."""
        return without(
            self.to_dict(),
            ("output", "logs", "device", "parallel", "compile"),
            checkpoints=("every_steps", "keep", "result"),
        )

    def ranges(self) -> list[Range]:
        """Every number with a range."""
        optimizer, schedule = self.optimizer, self.schedule
        return [
            ("batch_size", self.batch_size, 1, None),
            ("micro_batch", self.micro_batch, 1, None),
            ("seed", self.seed, 0, 1 << 62),
            ("optimizer.lr", optimizer.lr, 0.0, 100),
            ("optimizer.betas[0]", optimizer.betas[0], 0.0, 1),
            ("optimizer.betas[1]", optimizer.betas[1], 0.0, 1),
            ("optimizer.eps", optimizer.eps, 0.0, 1),
            ("optimizer.weight_decay", optimizer.weight_decay, 0.0, 100),
            ("optimizer.vit_lr_scale", optimizer.vit_lr_scale, 0.0, 100),
            ("optimizer.clip_norm", optimizer.clip_norm, 1e-12, None),
            ("optimizer.ema", optimizer.ema, 0.0, 1),
            ("schedule.warmup_steps", schedule.warmup_steps, 0, None),
            ("schedule.final_share", schedule.final_share, 0.0, 1),
            ("schedule.epochs", schedule.epochs, 1, None),
            ("schedule.max_steps", schedule.max_steps, 1, None),
            ("checkpoints.every_steps", self.checkpoints.every_steps, 1, None),
            ("checkpoints.keep", self.checkpoints.keep, 1, None),
            ("checkpoints.patience", self.checkpoints.patience, 1, None),
            ("logs.every_steps", self.logs.every_steps, 1, None),
        ]


def plain(value: Any) -> Any:
    """Dataclasses, mappings and lists in `value` as JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def without(known: dict[str, Any], keys: Iterable[str], **sections: Iterable[str]) -> dict[str, Any]:
    """`known` without some keys, and without some in its sections."""
    left = {key: value for key, value in known.items() if key not in keys}
    return left | {name: {k: v for k, v in left[name].items() if k not in gone} for name, gone in sections.items()}
