"""Recipe: everything a training run is, as frozen dataclasses; written as YAML (see recipe_files.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vitlens.errors import OptionError
from vitlens.vit import Trainable

INSTALL = "pip install 'vitlens[train]'"


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank updates of the ViT's blocks (arXiv 2106.09685), merged into the weights when the run ends."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: Literal["attention", "mlp", "all"] = "all"


@dataclass(frozen=True)
class ModelOptions:
    """What is trained: the fields of an EncoderSpec, and where its first weights come from."""

    modality: str = ""
    vit: dict[str, Any] | None = None
    """Fields of a ViTSpec; none: the ViT of the anchors' image encoder."""
    options: dict[str, Any] = field(default_factory=dict)
    """Constructor options of the modality."""
    lens: dict[str, Any] | None = None
    """{kind: perceiver | self_attention | identity, ...}; none: the modality's default."""
    token_width: int | None = None
    trains: Trainable = field(default_factory=Trainable)
    """What of the ViT trains beside ModEmbed and lens."""
    lora: LoraOptions | None = None
    vit_weights: Literal["anchors", "random"] = "anchors"
    """Of a new encoder: the anchors' image ViT, or the library's random initial weights (training from scratch)."""
    start: str | None = None
    """Go on from a trained encoder of this modality: a zoo name or native folder, or "anchors" for the anchors' own."""


@dataclass(frozen=True)
class AnchorOptions:
    """The frozen model whose embeddings are the goal."""

    model: str | None = None
    """A native folder, a zoo name, or open_clip/ARCHITECTURE/TAG."""
    weights: str | None = None
    """The folder (or file) where its weights lie, as `vitlens.load(weights=)` takes it."""
    modalities: list[str] = field(default_factory=lambda: ["image", "text"])
    """The loss is the sum of one CLIP loss for each."""
    cache: bool = True
    """Compute every anchor once and keep it on disk; false runs the towers at every step."""
    cache_folder: str | None = None
    """Default: VITLENS_CACHE, else the user's cache folder."""
    batch_size: int = 64
    """Items that the anchor towers take at once."""


@dataclass(frozen=True)
class DataOptions:
    """Where items come from: a manifest (.csv .tsv .jsonl .parquet), or WebDataset shards ("shards/{000..099}.tar", "*.tar")."""

    train: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """Modality -> column (of shards: file extension), where it is not the modality's own name."""
    captions: list[str] = field(default_factory=lambda: ["text", "caption", "captions"])
    """Columns with captions, those that are there; a cell is a text or a list of texts."""
    caption_separator: str | None = None
    """Splits a cell into several captions, such as "|"."""
    label: str = "label"
    templates: list[str] = field(default_factory=list)
    """Prompt templates that turn the label into further captions."""
    read_options: dict[str, Any] = field(default_factory=dict)
    """{modality: {option: value}} for every item; a column "modality.option" wins."""
    augment: bool = True
    repeat: int = 1
    """How often an epoch goes through the items."""
    shard_window: int = 16
    """Shards whose items are shuffled together."""
    num_workers: int = 0
    max_bad_share: float = 0.01
    """The run stops when more than this share of the items cannot be read."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Zero-shot classification while training: class prompts against the sensor's embeddings of labelled items."""

    data: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    label: str = "label"
    classes: list[str] = field(default_factory=list)
    """Class names in order; none: the labels that occur, sorted."""
    templates: list[str] = field(default_factory=lambda: ["{}", "a photo of a {}.", "this is a {}."])
    read_options: dict[str, Any] = field(default_factory=dict)
    every_epochs: int = 1
    batch_size: int = 64


@dataclass(frozen=True)
class LossOptions:
    """The contrastive loss (arXiv 2103.00020) and its temperature."""

    initial_scale: float | None = None
    """exp(logit_scale) at the start; none: the anchors'."""
    max_scale: float = 100.0
    learn_scale: bool = True
    ignore_duplicates: bool = False
    """Do not push an item away from an equal anchor (the same caption) of another item in the batch."""


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


@dataclass(frozen=True)
class ScheduleOptions:
    """Learning rate: linear warm-up, then a cosine to `final_share` of it, or constant."""

    kind: Literal["cosine", "constant"] = "cosine"
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
class Recipe:
    """A training run. `batch_size` is the number of items in one optimiser step, over all processes."""

    name: str = ""
    notes: list[str] = field(default_factory=list)
    """Where the numbers come from, and where they differ from there."""
    model: ModelOptions = field(default_factory=ModelOptions)
    anchors: AnchorOptions = field(default_factory=AnchorOptions)
    data: DataOptions = field(default_factory=DataOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    logs: LogOptions = field(default_factory=LogOptions)
    batch_size: int = 64
    micro_batch: int | None = None
    """Items a process takes through the network at once; a larger batch is exact all the same (arXiv 2101.06983)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
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
        for key, value, low, high in _numbers(self):
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise OptionError(f"recipe {self.name}: {key} must be {low:g} to {high:g}, found {value!r}")

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.output or f"runs/{self.name}")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON types."""
        return _plain(self)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one: all that decides the result, not where and how it runs."""
        known = self.to_dict()
        for key in ("notes", "output", "logs", "device", "parallel", "compile", "gradient_checkpointing"):
            del known[key]
        for section, keys in _FREE.items():
            for key in keys:
                del known[section][key]
        return known


_FREE = {
    "anchors": ("weights", "cache", "cache_folder", "batch_size"),
    "data": ("num_workers", "max_bad_share"),
    "evaluation": ("batch_size",),
    "checkpoints": ("every_steps", "keep", "result"),
}


def _numbers(recipe: Recipe) -> list[tuple[str, float | None, float, float]]:
    """(key, value, smallest, largest) of every number with a range."""
    optimizer, schedule, loss = recipe.optimizer, recipe.schedule, recipe.loss
    most = float(1 << 40)
    return [
        ("batch_size", recipe.batch_size, 1, most),
        ("micro_batch", recipe.micro_batch, 1, most),
        ("seed", recipe.seed, 0, float(1 << 62)),
        ("optimizer.lr", optimizer.lr, 0, 100),
        ("optimizer.betas[0]", optimizer.betas[0], 0, 1),
        ("optimizer.betas[1]", optimizer.betas[1], 0, 1),
        ("optimizer.eps", optimizer.eps, 0, 1),
        ("optimizer.weight_decay", optimizer.weight_decay, 0, 100),
        ("optimizer.vit_lr_scale", optimizer.vit_lr_scale, 0, 100),
        ("optimizer.clip_norm", optimizer.clip_norm, 1e-12, most),
        ("optimizer.ema", optimizer.ema, 0, 1),
        ("schedule.warmup_steps", schedule.warmup_steps, 0, most),
        ("schedule.final_share", schedule.final_share, 0, 1),
        ("schedule.epochs", schedule.epochs, 1, most),
        ("schedule.max_steps", schedule.max_steps, 1, most),
        ("loss.max_scale", loss.max_scale, 1, most),
        ("loss.initial_scale", loss.initial_scale, 1, loss.max_scale),
        ("data.max_bad_share", recipe.data.max_bad_share, 0, 1),
        ("data.num_workers", recipe.data.num_workers, 0, 1024),
        ("data.repeat", recipe.data.repeat, 1, most),
        ("data.shard_window", recipe.data.shard_window, 1, most),
        ("anchors.batch_size", recipe.anchors.batch_size, 1, most),
        ("evaluation.every_epochs", recipe.evaluation.every_epochs, 1, most),
        ("evaluation.batch_size", recipe.evaluation.batch_size, 1, most),
        ("checkpoints.every_steps", recipe.checkpoints.every_steps, 1, most),
        ("checkpoints.keep", recipe.checkpoints.keep, 1, most),
        ("checkpoints.patience", recipe.checkpoints.patience, 1, most),
        ("logs.every_steps", recipe.logs.every_steps, 1, most),
    ]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def require(recipe: Recipe) -> Recipe:
    """Check what only a real run needs.

    Raises:
        OptionError: no modality, or no name.
    """
    if not recipe.model.modality:
        raise OptionError("recipe: model.modality says which sensor's encoder is trained; it is missing")
    if not recipe.anchors.modalities:
        raise OptionError("recipe: anchors.modalities must name at least one of the anchors' modalities, such as [image, text]")
    if not recipe.name:
        return replace(recipe, name=recipe.model.modality)
    return recipe
