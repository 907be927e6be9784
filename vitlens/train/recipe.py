"""Recipe: everything the training of a lens is, as frozen dataclasses; written as YAML (see recipe_files.py)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vitlens.errors import OptionError
from vitlens.train.options import Range, RunOptions, without
from vitlens.vit import Trainable


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
    patches: Literal["new", "image"] = "new"
    """Of a new encoder: random first weights, or, for a map in patches of the ViT's size, those of a grey picture."""
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
class ClassStateOptions:
    """The class token's whole state is to be the picture's, not only what the projection keeps of it."""

    weight: float = 0.0
    layer: int | None = None
    """The block, counted from the end (-1 the last), whose output the host reads; none: the last one's behind the final norm."""

    @property
    def block(self) -> int:
        """The block whose output is taken."""
        return self.layer or -1


@dataclass(frozen=True)
class PatchOptions:
    """The patch tokens are to say what a picture's say: to small frozen readers, or token by token where the grid is the same."""

    kind: Literal["none", "per_token", "readers"] = "none"
    weight: float = 1.0
    layer: int = -2
    """The block, counted from the end, whose output is read; -2, the last but one, is what LLaVA reads."""
    readers: int = 3
    reader_steps: int = 300
    """Steps in which the readers are fitted to pictures, before the training."""


@dataclass(frozen=True)
class SpreadOptions:
    """The patch tokens of a batch are to be spread as pictures' are: sliced Wasserstein distance, at the layer of `patches`."""

    weight: float = 0.0
    directions: int = 64


@dataclass(frozen=True)
class TokenOptions:
    """For hosts that read the ViT's tokens and not the embedding: what of the tokens is to be a picture's (docs/tokens.md)."""

    class_state: ClassStateOptions = field(default_factory=ClassStateOptions)
    patches: PatchOptions = field(default_factory=PatchOptions)
    spread: SpreadOptions = field(default_factory=SpreadOptions)
    pictures: int = 1000
    """Training pictures that channel statistics, readers and the pool of tokens are made from."""

    @property
    def patches_weight(self) -> float:
        """0 without a term on patch tokens."""
        return 0.0 if self.patches.kind == "none" else self.patches.weight

    @property
    def on(self) -> bool:
        """Whether there is any term."""
        return max(self.class_state.weight, self.patches_weight, self.spread.weight) > 0

    @property
    def need_patches(self) -> bool:
        """Whether a term needs the patch tokens themselves."""
        return self.spread.weight > 0 or (self.patches.kind == "per_token" and self.patches.weight > 0)

    @property
    def per_token(self) -> bool:
        """Whether every picture's own patch tokens are needed."""
        return self.patches.kind == "per_token" and self.patches.weight > 0


@dataclass(frozen=True)
class Recipe(RunOptions):
    """The training of a lens: what it is, what it is to agree with, on which data; and how the run goes."""

    notes: list[str] = field(default_factory=list)
    """Where the numbers come from, and where they differ from there."""
    model: ModelOptions = field(default_factory=ModelOptions)
    anchors: AnchorOptions = field(default_factory=AnchorOptions)
    data: DataOptions = field(default_factory=DataOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    tokens: TokenOptions = field(default_factory=TokenOptions)
    gradient_checkpointing: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON types: what is trained first, then how."""
        known = super().to_dict()
        first = ("name", "notes", "model", "anchors", "data", "evaluation", "loss", "tokens")
        return {key: known[key] for key in dict.fromkeys((*first, *known))}

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        return without(
            super().identity(),
            ("notes", "gradient_checkpointing"),
            anchors=("weights", "cache", "cache_folder", "batch_size"),
            data=("num_workers", "max_bad_share"),
            evaluation=("batch_size",),
        )

    def ranges(self) -> list[Range]:
        """Every number with a range."""
        data, loss, tokens = self.data, self.loss, self.tokens
        return [
            *super().ranges(),
            ("loss.max_scale", loss.max_scale, 1.0, None),
            ("loss.initial_scale", loss.initial_scale, 1.0, loss.max_scale),
            ("tokens.class_state.weight", tokens.class_state.weight, 0.0, None),
            ("tokens.class_state.layer", tokens.class_state.layer, -1000, -1),
            ("tokens.patches.weight", tokens.patches.weight, 0.0, None),
            ("tokens.patches.layer", tokens.patches.layer, -1000, -1),
            ("tokens.patches.readers", tokens.patches.readers, 1, 64),
            ("tokens.patches.reader_steps", tokens.patches.reader_steps, 1, None),
            ("tokens.spread.weight", tokens.spread.weight, 0.0, None),
            ("tokens.spread.directions", tokens.spread.directions, 1, None),
            ("tokens.pictures", tokens.pictures, 2, None),
            ("data.max_bad_share", data.max_bad_share, 0.0, 1),
            ("data.num_workers", data.num_workers, 0, 1024),
            ("data.repeat", data.repeat, 1, None),
            ("data.shard_window", data.shard_window, 1, None),
            ("anchors.batch_size", self.anchors.batch_size, 1, None),
            ("evaluation.every_epochs", self.evaluation.every_epochs, 1, None),
            ("evaluation.batch_size", self.evaluation.batch_size, 1, None),
        ]


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
