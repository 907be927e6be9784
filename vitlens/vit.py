"""FrozenViT: one view over open_clip, timm and Hugging Face vision towers - tokens in, tokens or embedding out.

A tower is taken apart into class token, registers, positions, blocks, norms and projection; its patch embedding is handed to
the modality that wants it (`patch_embedding`), so that an encoder of another sensor does not carry it. Attention inside the
blocks is the libraries' own `scaled_dot_product_attention`.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitlens import checks
from vitlens.embed import ModEmbed, PatchEmbed
from vitlens.errors import ModelError, OptionError

_ViT = TypeVar("_ViT", bound="ViT")
Library = Literal["open_clip", "timm", "huggingface", "host"]


MOST_BLOCKS, MOST_WIDTH, LARGEST = 1000, 1 << 20, 1e9
"""Bounds of what a configuration may ask for, far above any ViT there is: whatever lies beyond is a mistake, or meant to harm."""
DEPTHS = ("layers", "depth", "num_hidden_layers", "num_layers")
"""What the libraries call the number of blocks."""


@dataclass(frozen=True)
class ViTSpec:
    """Which ViT: enough to build its architecture without weights.

    `name` is an architecture of the library ("ViT-L-14"; a timm model name; a transformers model type such as
    "clip_vision_model"); `config` gives its numbers in the library's own words, and is needed for open_clip architectures that
    are not built in and for Hugging Face ones. `skip_blocks` drops the first blocks (the rest is renumbered from 0).
    Library "host" stands for a ViT that lives inside another model: only its geometry is known
    (`config`: width, head_width, patches, patch_size; perhaps its fingerprint), and a lens gives tokens for it.
    """

    name: str
    library: Library = "open_clip"
    config: dict[str, Any] | None = field(default=None, hash=False)
    skip_blocks: int = 0

    def __post_init__(self) -> None:
        checks.text("ViT: name", self.name)
        checks.known(f"ViT {self.name}: unknown library", [self.library], get_args(Library))
        if self.config is not None and not isinstance(self.config, dict):
            raise OptionError(f"ViT {self.name}: config must be a dict, found {type(self.config).__name__}")
        checks.whole(f"ViT {self.name}: skip_blocks", self.skip_blocks, least=0, most=MOST_BLOCKS)
        _check_numbers(f"ViT {self.name}: config", self.config)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Trainable:
    """Which parts of the ViT train beside ModEmbed and lens; by default none."""

    class_token: bool = False
    positions: bool = False
    norm_pre: bool = False
    first_blocks: int = 0
    last_blocks: int = 0
    everything: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.endswith("_blocks"):
                checks.whole(f"trains: {name}", value, least=0, most=MOST_BLOCKS)
            else:
                checks.flag(f"trains: {name}", value)

    def names(self, parameter: str, depth: int) -> bool:
        """Whether `parameter` of a FrozenViT with `depth` blocks trains."""
        if self.everything:
            return True
        head, _, rest = parameter.partition(".")
        if head == "blocks":
            block = int(rest.partition(".")[0])
            return block < self.first_blocks or block >= depth - self.last_blocks
        return bool({"class_token": self.class_token, "positions": self.positions, "norm_pre": self.norm_pre}.get(head, False))


@dataclass(frozen=True)
class Geometry:
    """The measures of a ViT: what a ModEmbed and a lens must know to make tokens for it."""

    width: int
    """Of a token, D."""
    head_width: int
    patches: int
    """Number of patch tokens, class token and registers aside."""
    patch_size: int
    """Pixels along one side of a patch."""
    image_size: int
    """Pixels along one side of a picture."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            checks.whole(f"ViT: {name}", value, least=1)


class ViT(nn.Module):
    """What encoders know of a ViT: its geometry, and what of it trains. `FrozenViT` has the weights, `HostViT` has none."""

    blocks: nn.ModuleList

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.gradient_checkpointing = False

    @property
    def width(self) -> int:
        """Of a token, D."""
        return self.geometry.width

    @property
    def head_width(self) -> int:
        """Of an attention head."""
        return self.geometry.head_width

    @property
    def patches(self) -> int:
        """Number of patch tokens."""
        return self.geometry.patches

    @property
    def patch_size(self) -> int:
        """Pixels along one side of a patch."""
        return self.geometry.patch_size

    @property
    def image_size(self) -> int:
        """Pixels along one side of a picture."""
        return self.geometry.image_size

    @property
    def embed_dim(self) -> int:
        """Width E of what `forward` gives."""
        return self.geometry.width

    def patch_embedding(self) -> ModEmbed:
        """A copy of the ViT's own patch embedding [b, 3, h, w] -> [b, n, D], for modalities that look like pictures.

        Raises:
            OptionError: there is none.
        """
        raise OptionError("this ViT has no patch embedding to copy")

    def freeze(self: _ViT, *, but: Trainable = Trainable()) -> _ViT:
        """Let exactly the parameters that `but` names train; returns self."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(but.names(name, len(self.blocks)))
        return self

    def fork(self: _ViT, trains: Trainable) -> _ViT:
        """A second view for another sensor: shares every frozen tensor, has its own copy of what `trains` names."""
        shared: dict[int, Any] = {id(p): p for n, p in self.named_parameters() if not trains.names(n, len(self.blocks))}
        shared |= {id(b): b for b in self.buffers()}
        return copy.deepcopy(self, shared).freeze(but=trains)


class FrozenViT(ViT):
    """Tokens [b, m, D] in, embedding [b, E] out. Frozen at birth; `freeze(but=...)` names what trains.

    `positions` holds a row per patch and, when `positions_cover_prefix`, first one per prefix token (class token, registers).
    Other numbers of tokens than `patches` get resized positions, unless the blocks use rotary positions of a fixed grid, or
    the weights of a lens brought rows for its own number of tokens (`fit_positions`).
    """

    class_token: nn.Parameter | None
    registers: nn.Parameter | None
    positions: nn.Parameter | None
    proj: nn.Parameter | None
    rope: Tensor | None

    def __init__(
        self,
        *,
        blocks: Iterable[nn.Module],
        width: int,
        head_width: int,
        patch_size: int,
        image_size: int,
        class_token: Tensor | None = None,
        registers: Tensor | None = None,
        positions: Tensor | None = None,
        positions_cover_prefix: bool = True,
        norm_pre: nn.Module | None = None,
        norm_post: nn.Module | None = None,
        norm_after_pool: bool = False,
        pool: Literal["token", "average"] | nn.Module = "token",
        head: nn.Module | None = None,
        proj: Tensor | None = None,
        rope: Tensor | None = None,
        rope_per_block: bool = False,
        patch: ModEmbed | None = None,
    ) -> None:
        patches = (image_size // patch_size) ** 2
        super().__init__(Geometry(width, head_width, patches=patches, patch_size=patch_size, image_size=image_size))
        self.positions_cover_prefix = positions_cover_prefix
        self.norm_after_pool = norm_after_pool
        self.register_parameter("class_token", _parameter(class_token, width, flat=True))
        self.register_parameter("registers", _parameter(registers, width))
        self.register_parameter("positions", _parameter(positions, width))
        self.register_parameter("proj", None if proj is None else nn.Parameter(proj.detach()))
        self.register_buffer("rope", rope, persistent=False)
        self.rope_per_block = rope_per_block
        self.norm_pre = norm_pre or nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        self.norm_post = norm_post or nn.Identity()
        self.pool: Literal["token", "average", "module"] = "module" if isinstance(pool, nn.Module) else pool
        self.pooler = pool if isinstance(pool, nn.Module) else None
        self.head = head or nn.Identity()
        self.block_arguments = _block_arguments(self.blocks[0]) if len(self.blocks) else {}
        self._patch = (patch,)  # in a tuple: not a submodule, the encoder that takes it registers it
        self.freeze()

    @property
    def prefix(self) -> int:
        """Number of tokens before the patch tokens: class token and registers."""
        return (self.class_token is not None) + (0 if self.registers is None else self.registers.shape[0])

    @property
    def own_positions(self) -> int | None:
        """Number of tokens that the positions are for, where it is not that of the patches; else None."""
        if self.positions is None:
            return None
        count = self.positions.shape[0] - (self.prefix if self.positions_cover_prefix else 0)
        return None if count == self.patches else count

    def fit_positions(self, count: int) -> None:
        """Let the positions have rows for `count` tokens, whose values come from weights that are loaded next."""
        if self.positions is not None:
            rows = count + (self.prefix if self.positions_cover_prefix else 0)
            empty = self.positions.new_empty(rows, self.width)
            self.positions = nn.Parameter(empty, requires_grad=self.positions.requires_grad)

    @property
    def embed_dim(self) -> int:
        """Width E of the embedding."""
        if self.proj is not None:
            return self.proj.shape[1]
        linears = [m for m in self.head.modules() if isinstance(m, nn.Linear)]
        return linears[-1].out_features if linears else self.width

    @property
    def patch(self) -> ModEmbed:
        """The tower's own patch embedding [b, 3, h, w] -> [b, n, D], not a part of this module.

        Raises:
            OptionError: it was built without.
        """
        if self._patch[0] is None:
            raise OptionError("this ViT was built without its patch embedding")
        return self._patch[0]

    def patch_embedding(self) -> ModEmbed:
        """A copy of the tower's own patch embedding, for modalities that look like pictures."""
        return copy.deepcopy(self.patch)

    def adopt_patch_embedding(self, embed: nn.Module) -> None:
        """Let `embed`, if it is like this tower's patch embedding, be what `patch_embedding` copies: it is what gets weights."""
        patch = self._patch[0]
        if isinstance(embed, PatchEmbed) and patch is not None and _shapes(embed) == _shapes(patch):
            self._patch = (embed,)

    def prepare(self, tokens: Tensor) -> Tensor:
        """[b, m, D] -> [b, prefix + m, D]: prefix tokens and positions added, norm before the blocks."""
        prefix = [] if self.class_token is None else [self.class_token.view(1, 1, -1)]
        prefix += [] if self.registers is None else [self.registers.unsqueeze(0)]
        count = tokens.shape[1]
        if self.rope is not None and count != self.patches:
            raise OptionError(f"this ViT has rotary positions for {self.patches} tokens, found {count}")
        if self.positions is not None:
            covered = self.prefix if self.positions_cover_prefix else 0
            rows = resize_positions(self.positions, count, prefix=covered)
            tokens = tokens + rows[covered:].to(tokens.dtype)
            if covered:
                prefix = [torch.cat(prefix, dim=1) + rows[:covered].to(prefix[0].dtype)]
        expanded = [p.to(tokens.dtype).expand(tokens.shape[0], -1, -1) for p in prefix]
        return self.norm_pre(torch.cat([*expanded, tokens], dim=1))

    def run_blocks(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """[b, prefix + m, D] through the transformer blocks, or through those from `start` to before `stop`."""
        for index, block in list(enumerate(self.blocks))[start:stop]:
            extra = dict(self.block_arguments)
            if self.rope is not None:
                extra["rope"] = self.rope[index] if self.rope_per_block else self.rope
            x = first_output(checkpoint(block, x, use_reentrant=False, **extra) if self._recomputes else block(x, **extra))
        return x

    def finish(self, x: Tensor) -> Tensor:
        """[b, prefix + m, D] -> embedding [b, E], not normalised."""
        if not self.norm_after_pool:
            x = self.norm_post(x)
        if self.pooler is not None:
            x = self.pooler(x)
        elif self.pool == "token":
            x = x[:, 0]
        else:
            x = x[:, self.prefix :].mean(dim=1)
        if self.norm_after_pool:
            x = self.norm_post(x)
        x = self.head(x)
        return x if self.proj is None else x @ self.proj.to(x.dtype)

    def forward_tokens(self, tokens: Tensor) -> Tensor:
        """[b, m, D] -> the last block's tokens [b, prefix + m, D], before the final norm."""
        return self.run_blocks(self.prepare(tokens))

    def look_through(self, tokens: Tensor, layers: Iterable[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """[b, m, D] -> the embedding [b, E] as `forward` gives it, and hidden states {layer: [b, prefix + m, D]}.

        A layer is a block, counted from the end (-1 the last, -2 the last but one), whose output is meant, before any norm.

        Raises:
            OptionError: a layer that is none of its blocks.
        """
        depth, x, done = len(self.blocks), self.prepare(tokens), 0
        hidden: dict[int, Tensor] = {}
        for layer in sorted(set(layers)):
            checks.whole("ViT: layer", layer, least=-depth, most=-1)
            x, done = self.run_blocks(x, done, depth + layer + 1), depth + layer + 1
            hidden[layer] = x
        return self.finish(self.run_blocks(x, done)), hidden

    def forward(self, tokens: Tensor) -> Tensor:
        return self.finish(self.forward_tokens(tokens))

    @property
    def _recomputes(self) -> bool:
        return self.gradient_checkpointing and torch.is_grad_enabled()


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def resize_positions(positions: Tensor, count: int, *, prefix: int) -> Tensor:
    """Positions [prefix + n, D] for `count` patch tokens: bicubic with antialias over the square grid; the `prefix` rows stay.

    A count that is no square is reached from the largest square below it by nearest-neighbour steps, as in the reference.
    """
    rows = positions[prefix:]
    if rows.shape[0] == count:
        return positions
    old, new = math.isqrt(rows.shape[0]), math.isqrt(count)
    if old * old != rows.shape[0]:
        raise OptionError(f"{rows.shape[0]} positions are not a square grid, cannot resize them to {count}")
    grid = rows.float().T.reshape(1, -1, old, old)
    flat = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True).flatten(2)
    if new * new != count:
        flat = F.interpolate(flat, size=count, mode="nearest")
    return torch.cat([positions[:prefix], flat[0].T.to(positions.dtype)])


def first_output(out: Any) -> Tensor:
    """The tokens a transformer block gives, whether alone or first of several outputs."""
    return cast(Tensor, out[0] if isinstance(out, tuple) else out)


class HostViT(ViT):
    """The ViT of a host model (an MLLM), known by its geometry alone; a lens built for it gives tokens, not embeddings."""

    def __init__(
        self,
        *,
        name: str,
        width: int,
        head_width: int,
        patches: int,
        patch_size: int,
        fingerprint: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        image_size = math.isqrt(patches) * patch_size
        super().__init__(Geometry(width, head_width, patches=patches, patch_size=patch_size, image_size=image_size))
        self.name = name
        self.blocks = nn.ModuleList()
        self.fingerprint = fingerprint
        """Part of the ViT -> its projections (see `vitlens.fingerprint`), where the lens's file told which ViT it was."""

    def patch_embedding(self) -> ModEmbed:
        raise OptionError(f"the patch embedding of {self.name} is not known here: a sensor for it needs a ModEmbed of its own")

    def forward(self, tokens: Tensor) -> Tensor:
        raise ModelError(
            f"this lens makes tokens for the ViT of {self.name}, which is not part of it: use tokens(), or an adapter"
        )


def _parameter(tensor: Tensor | None, width: int, *, flat: bool = False) -> nn.Parameter | None:
    """The towers' own shapes ([1, n, D], [D] ...) as [n, D], or [D] when `flat`; the storage stays shared."""
    if tensor is None:
        return None
    return nn.Parameter(tensor.detach().reshape(-1) if flat else tensor.detach().reshape(-1, width))


def _block_arguments(block: nn.Module) -> dict[str, Any]:
    """transformers' CLIP blocks demand an attention mask by position; everybody else takes the tokens alone."""
    parameter = inspect.signature(block.forward).parameters.get("attention_mask")
    return {"attention_mask": None} if parameter is not None and parameter.default is parameter.empty else {}


def _check_numbers(what: str, value: Any, *, name: str = "", depth: int = 0) -> None:
    """Refuse a library's configuration that is nested without end, or asks for what no machine has; its words are its own."""
    if depth > 8:
        raise OptionError(f"{what} is nested more than 8 deep")
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_numbers(f"{what}: {key}", part, name=str(key), depth=depth + 1)
    elif isinstance(value, list | tuple) and name in DEPTHS:
        for part in value:
            checks.whole(what, part, least=1, most=MOST_BLOCKS)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_numbers(what, part, depth=depth + 1)
    elif isinstance(value, int | float):
        if name in DEPTHS:
            checks.whole(what, value, least=1, most=MOST_BLOCKS)
        checks.number(what, float(value) if abs(value) < LARGEST else value, least=-LARGEST, most=LARGEST)
