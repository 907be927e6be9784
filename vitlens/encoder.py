"""LensEncoder: ModEmbed -> Lens -> FrozenViT, one sensor's way into the space; and the spec that builds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlens import checks
from vitlens.errors import ModalityError, OptionError
from vitlens.lens import build_lens
from vitlens.lens_config import LensConfig, lens_config_from_dict, lens_config_to_dict
from vitlens.modality import Modality, get_modality
from vitlens.towers import build_vit
from vitlens.vit import MOST_WIDTH, FrozenViT, Trainable, ViT, ViTSpec


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that builds one encoder. None for `lens` and `token_width` means the modality's default."""

    modality: str
    vit: ViTSpec
    options: Mapping[str, Any] = field(default_factory=dict)
    """Constructor options of the modality: what its preprocessing and ModEmbed assume."""
    lens: LensConfig | None = None
    token_width: int | None = None
    trains: Trainable = field(default_factory=Trainable)
    """What of the ViT trains beside ModEmbed and lens."""

    def __post_init__(self) -> None:
        checks.text("encoder spec: modality", self.modality)
        checks.mapping(f"encoder spec: options of {self.modality}", self.options)
        if self.token_width is not None:
            checks.whole(f"encoder spec: token_width of {self.modality}", self.token_width, least=1, most=MOST_WIDTH)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON types."""
        return {
            "modality": self.modality,
            "vit": self.vit.to_dict(),
            "options": dict(self.options),
            "lens": None if self.lens is None else lens_config_to_dict(self.lens),
            "token_width": self.token_width,
            "trains": asdict(self.trains),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderSpec:
        """The inverse of `to_dict`.

        Raises:
            OptionError: a field is missing or not known.
        """
        try:
            checks.mapping("encoder spec", values)
            checks.known("encoder spec: unknown field", values, [known.name for known in fields(cls)])
            lens = values.get("lens")
            return cls(
                modality=values["modality"],
                vit=ViTSpec(**values["vit"]),
                options=values.get("options", {}),
                lens=None if lens is None else lens_config_from_dict(lens),
                token_width=values.get("token_width"),
                trains=Trainable(**values.get("trains") or {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise OptionError(f"encoder spec: {type(error).__name__}: {error}") from error


class LensEncoder(nn.Module):
    """Sensor tensor in, embedding [b, E] out (not normalised).

    A batch with one dimension more than the ModEmbed takes holds several views per item ([b, views, ...]: clips of a sound,
    frames of a video); the embeddings of the views are averaged.
    """

    def __init__(self, *, embed: nn.Module, lens: nn.Module, vit: ViT) -> None:
        super().__init__()
        self.embed = embed
        self.lens = lens
        self.vit = vit

    @property
    def token_count(self) -> int | None:
        """Number of tokens m that the lens gives, where latents or learned positions say so; else None."""
        counted = getattr(self.lens, "latents", None)
        counted = getattr(self.embed, "pos_emb", None) if counted is None else counted
        return None if counted is None else int(counted.shape[0])

    def tokens(self, x: Tensor) -> Tensor:
        """Lens tokens [b, m, D], the splice point: what the ViT would take after its patch embedding.

        With several views the tokens of the views follow each other: [b, views * m, D].
        """
        flat, views = self._flatten(x)
        tokens = self.lens(self.embed(flat))
        return tokens if views is None else tokens.unflatten(0, (-1, views)).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        flat, views = self._flatten(x)
        embedding = self.vit(self.lens(self.embed(flat)))
        return embedding if views is None else embedding.unflatten(0, (-1, views)).mean(dim=1)

    def look_through(self, x: Tensor, layers: Iterable[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """The embedding [b, E], and what the ViT's tokens are behind some of its blocks, of every view by itself.

        `layers` count from the end (see `FrozenViT.look_through`); {layer: [b, views, prefix + m, D]}.
        """
        flat, views = self._flatten(x)
        embedding, hidden = cast(FrozenViT, self.vit).look_through(self.lens(self.embed(flat)), layers)
        each = {layer: states.unflatten(0, (-1, views or 1)) for layer, states in hidden.items()}
        return embedding if views is None else embedding.unflatten(0, (-1, views)).mean(dim=1), each

    def _flatten(self, x: Tensor) -> tuple[Tensor, int | None]:
        ndim = getattr(self.embed, "input_ndim", x.ndim)
        if x.ndim == ndim + 1:
            return x.flatten(0, 1), x.shape[1]
        if x.ndim != ndim:
            raise OptionError(f"a batch of {ndim} dimensions (or {ndim + 1} with views) is needed, found shape {list(x.shape)}")
        return x, None


def token_width(modality: Modality, vit: ViT, given: int | None = None) -> int:
    """How wide the tokens of a ModEmbed are: as `given`, else as the modality says, else as the ViT's."""
    return given or modality.token_width or vit.width


def check_embed(modality: Modality, embed: nn.Module, width: int) -> None:
    """Pass the modality's example through its own preprocessing and `embed`, which is to give tokens [b, n, width].

    Raises:
        ModalityError: a `transform` or ModEmbed that does not keep to what it promises; both sides are named.
    """
    seen = [modality.transform(modality.example(seed)) for seed in range(2)]
    odd = next((x for x in seen if not isinstance(x, Tensor)), None)
    if odd is not None:
        raise ModalityError(f"{modality.name}: transform gives a {type(odd).__name__}; a torch tensor is needed")
    shapes = [list(x.shape) for x in seen]
    if shapes[0] != shapes[1]:
        raise ModalityError(f"{modality.name}: transform gives {shapes[0]} and {shapes[1]} of two examples; one shape is needed")
    ndim = getattr(embed, "input_ndim", seen[0].ndim + 1)
    if seen[0].ndim + 1 not in (ndim, ndim + 1):
        raise ModalityError(
            f"{modality.name}: transform gives {shapes[0]}; its ModEmbed {type(embed).__name__} takes {ndim - 1} dimensions "
            f"(or {ndim}, views first)"
        )
    batch = torch.stack(seen) if seen[0].ndim + 1 == ndim else torch.cat(seen)
    try:
        with torch.no_grad():
            tokens = embed(batch)
    except RuntimeError as error:
        raise ModalityError(
            f"{modality.name}: its ModEmbed {type(embed).__name__} does not take what transform gives, {shapes[0]}: "
            f"{' '.join(str(error).split())}"
        ) from error
    if tokens.ndim != 3 or tokens.shape[::2] != (len(batch), width):
        raise ModalityError(
            f"{modality.name}: its ModEmbed {type(embed).__name__} makes {list(tokens.shape)} of {list(batch.shape)}; tokens "
            f"[{len(batch)}, n, {width}] are needed (build_embed is told the width, {width})"
        )


def build_encoder(spec: EncoderSpec, *, vit: ViT | None = None) -> LensEncoder:
    """Build an encoder, around `vit` when given (shared frozen tensors; `spec.vit` is then only recorded), else a new one.

    Raises:
        ModalityError: unknown modality.
        OptionError: options, lens and ViT that do not fit together.
    """
    modality: Modality = get_modality(spec.modality, **spec.options)
    tower = build_vit(spec.vit) if vit is None else vit.fork(spec.trains)
    width = token_width(modality, tower, spec.token_width)
    embed = modality.build_embed(width, tower)
    if isinstance(tower, FrozenViT):
        tower.adopt_patch_embedding(embed)
    lens = build_lens(spec.lens or modality.default_lens, input_width=width, vit=tower)
    return LensEncoder(embed=embed, lens=lens, vit=tower.freeze(but=spec.trains))


@contextmanager
def evaluating(tower: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: batch norm must neither learn from what is encoded nor depend on the batch."""
    modes = [(module, module.training) for module in tower.modules() if module.training]
    tower.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
