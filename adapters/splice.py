"""The splice: a lens's tokens put into the ViT of a host model, in the place of the patches of a picture.

    stream = LensStream.from_model(vitlens.load("my-lenses/depth-clip-l-336"), "depth")
    tower = HostTower(lambda: llava.model.vision_tower, name="LLaVA")
    tower.check(stream)                                        # the same ViT?
    [tokens] = stream(stream.read(["kitchen.png"], {"scale": 0.001}))
    hidden = tower.hidden(tokens)                              # [1, 1 + m, D]

A lens replaces the patch convolution. Where its recipe trained more of the ViT (class token, positions, the first blocks), the
lens brings those parts along, and the host's ViT takes over behind them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from vitlens.checks import one_of
from vitlens.encoder import EncoderSpec, LensEncoder
from vitlens.errors import HostError, InputError, ModalityError
from vitlens.fingerprint import ViTFingerprint, fingerprint
from vitlens.model import ViTLens
from vitlens.sources import name_of
from vitlens.towers import from_huggingface
from vitlens.vit import FrozenViT, HostViT, Trainable

Positions = Literal["strict", "interpolate"]


@dataclass(frozen=True)
class LensTokens:
    """What a stream hands to the host's ViT.

    Without a `block`: tokens [b, m, D], before class token and positions. With one: hidden states [b, prefix + m, D] that the
    host's block of that number takes over.
    """

    x: Tensor
    block: int | None = None
    own: str = ""
    """Which parts of the ViT the lens brought along, in words."""


class LensStream(nn.Module):
    """A sensor's way into a host's ViT: its reading, ModEmbed and lens, and the parts of the ViT that its recipe trained."""

    def __init__(self, encoder: LensEncoder, spec: EncoderSpec, *, modality: Any, name: str) -> None:
        super().__init__()
        trains = spec.trains
        if trains.everything or trains.last_blocks:
            raise HostError(f"{name}, {spec.modality}: its recipe trained the last blocks of the ViT, which are the host's")
        self.modality = modality
        self.name = f"{spec.modality} of {name}"
        self.width = encoder.vit.width
        self.skipped = spec.vit.skip_blocks
        self.embed, self.lens = encoder.embed, encoder.lens
        self.trains = trains
        self.fingerprint: ViTFingerprint | None = None
        self.own: FrozenViT | None = None
        if isinstance(encoder.vit, HostViT) and encoder.vit.fingerprint is not None:
            self.fingerprint = ViTFingerprint({part: tuple(values) for part, values in encoder.vit.fingerprint.items()})
        if isinstance(encoder.vit, FrozenViT):
            self.fingerprint = fingerprint(encoder.vit)
            if trains != Trainable() or self.skipped or encoder.vit.own_positions:
                self.own = _first_blocks(encoder.vit, trains.first_blocks)

    @classmethod
    def from_model(cls, model: ViTLens, modality: str) -> LensStream:
        """The stream of one of a model's sensors; weights are shared with the model.

        Raises:
            ModalityError: the model has no lens for it.
        """
        spec = next((encoder for encoder in model.spec.encoders if encoder.modality == modality), None)
        if spec is None:
            known = ", ".join(encoder.modality for encoder in model.spec.encoders)
            raise ModalityError(f"model {model.spec.name} has no lens for {modality!r}; it has lenses for {known}")
        encoder = cast(LensEncoder, model.encoders[modality])
        return cls(encoder, spec, modality=model.modality(modality), name=model.spec.name)

    @property
    def frozen_parts(self) -> list[str]:
        """Parts of the ViT that the lens needs as they were in its training: those that it does not bring along."""
        return [part for part in (self.fingerprint.parts if self.fingerprint else ()) if not self._brings(part)]

    def _brings(self, part: str) -> bool:
        if self.own is None:
            return False
        return _block(part) < len(self.own.blocks)

    def read(self, items: Sequence[Any], options: Mapping[str, Any] | None = None) -> Tensor:
        """Sensor files, arrays or Samples -> a preprocessed batch [b, ...] (or [b, views, ...]) on the stream's device.

        Raises:
            InputError: an item that cannot be read, or one whose number of views is not that of the others.
        """
        found: list[Tensor] = []
        for item in items:
            x = self.modality.transform(self.modality.load(item, **dict(options or {})))
            if found and x.shape != found[0].shape:
                becomes = f"becomes {list(x.shape)}, the first item of the batch {list(found[0].shape)}"
                raise InputError(name_of(item), becomes, "items of one batch that become one shape")
            found.append(x)
        return torch.stack(found).to(next(self.parameters()).device)

    def forward(self, x: Tensor) -> list[LensTokens]:
        """A batch -> tokens for the host's ViT, of each view."""
        ndim = getattr(self.embed, "input_ndim", x.ndim)
        views = x.unbind(1) if x.ndim == ndim + 1 else [x]
        return [self._tokens(view) for view in views]

    def _tokens(self, x: Tensor) -> LensTokens:
        tokens = self.lens(self.embed(x.to(next(self.parameters()).dtype)))
        if self.own is None:
            return LensTokens(tokens)
        own = f"{self.name} brings {_in_words(self.trains, self.skipped, self.own.own_positions)}"
        return LensTokens(self.own.forward_tokens(tokens), self.skipped + len(self.own.blocks), own)


class HostTower:
    """A host's ViT. It is looked at anew in every use, so the host may be moved, cast or hooked at any time.

    `vision` gives the host's module: a vision tower of transformers, a FrozenViT, or whatever `as_vit` makes one of. What of it
    trains is its owner's affair and left as it is. `blocks` is how many blocks the host runs at most (None: all): what lies
    behind them may be anything.
    """

    def __init__(
        self,
        vision: Callable[[], nn.Module],
        *,
        name: str,
        positions: Positions = "strict",
        as_vit: Callable[[Any], FrozenViT] | None = None,
        blocks: int | None = None,
    ) -> None:
        one_of("positions", positions, get_args(Positions))
        self.vision, self.as_vit = vision, as_vit or from_huggingface
        self.name = name
        self.positions = positions
        self.blocks = blocks

    def view(self) -> FrozenViT:
        """The ViT as it is now, sharing all tensors with the host."""
        module = self.vision()
        if isinstance(module, FrozenViT):
            return module
        trains = [parameter for parameter in module.parameters() if parameter.requires_grad]
        vit = self.as_vit(module)  # a FrozenViT is frozen at birth
        for parameter in trains:
            parameter.requires_grad_(True)
        return vit

    def check(self, *streams: LensStream, allow_other_vit: bool = False) -> None:
        """Refuse lenses that were trained against another ViT; `allow_other_vit` lets those of the same width pass.

        Raises:
            HostError: another width, or weights that differ, part by part.
        """
        vit = self.view()
        mine: ViTFingerprint | None = None
        for stream in streams:
            if stream.width != vit.width:
                raise HostError(
                    f"{stream.name}: tokens of width {stream.width}, but the ViT of {self.name} has width {vit.width}; "
                    "take a lens that was trained against this ViT"
                )
            if not allow_other_vit and stream.fingerprint is not None:
                mine = mine or fingerprint(vit)
                self._check_weights(stream, stream.fingerprint, _renumbered(mine, stream.skipped))

    def _check_weights(self, stream: LensStream, theirs: ViTFingerprint, mine: ViTFingerprint) -> None:
        # A host may have dropped the last blocks, behind those that it takes its features from (LAVIS does), or never run them.
        last = math.inf if self.blocks is None else self.blocks - stream.skipped
        needed = [
            part for part in stream.frozen_parts if (part in mine.parts and _block(part) < last) or not part.startswith("blocks.")
        ]
        wrong = theirs.differing(mine, needed)
        if wrong:
            far = theirs.distance(mine, wrong)
            raise HostError(
                f"{stream.name} was trained against another ViT than that of {self.name}: {_some(wrong)} differ "
                f"(weights apart by up to {far:.2g}, rounding makes 0.002). Its tokens would mean nothing there; take a lens "
                "trained against this ViT, or pass allow_other_vit=True to try it all the same"
            )

    def image_tokens(self, pixels: Tensor) -> LensTokens:
        """Pictures [b, 3, h, w], preprocessed as the host wants them, through the host's own patch convolution."""
        patch = self.view().patch
        weight = next(patch.parameters())
        return LensTokens(patch(pixels.to(device=weight.device, dtype=weight.dtype)))

    def hidden(self, tokens: LensTokens, *, blocks: int | None = None) -> Tensor:
        """One pass: [b, prefix + m, D] behind the first `blocks` blocks (none: all), before the final norm.

        Raises:
            HostError: another number of tokens than the ViT has positions, unless positions are interpolated.
        """
        vit = self.view()
        blocks = len(vit.blocks) if blocks is None else blocks
        x = tokens.x.to(*_place(vit))
        if tokens.block is None:
            self._check_count(vit, x)
            return vit.run_blocks(vit.prepare(x), 0, blocks)
        if tokens.block > blocks:
            raise HostError(f"{tokens.own}, but {self.name} takes its features behind block {blocks}")
        return vit.run_blocks(x, tokens.block, blocks)

    def hidden_together(self, tokens: Sequence[LensTokens], *, blocks: int | None = None) -> Tensor:
        """One pass over all streams: one class token, every stream with the full positions [b, prefix + sum of m, D].

        Raises:
            HostError: a lens that brings parts of its own, which a shared pass cannot hold; a wrong number of tokens.
        """
        vit = self.view()
        for one in tokens:
            if one.block is not None:
                raise HostError(f'{one.own}: it cannot share one pass with other streams; fuse before "qformer" or "llm"')
            self._check_count(vit, one.x)
        place = _place(vit)
        prepared = [vit.prepare(one.x.to(*place)) for one in tokens]
        x = torch.cat([prepared[0], *(one[:, vit.prefix :] for one in prepared[1:])], dim=1)
        return vit.run_blocks(x, 0, blocks)

    def _check_count(self, vit: FrozenViT, tokens: Tensor) -> None:
        count, width = tokens.shape[1:]
        if width != vit.width:
            raise HostError(f"tokens of width {width}, but the ViT of {self.name} has width {vit.width}")
        if count != vit.patches and self.positions == "strict":
            raise HostError(
                f"{count} tokens, but the ViT of {self.name} has positions for {vit.patches}; take a lens with {vit.patches} "
                'latents, or positions="interpolate"'
            )


def _first_blocks(vit: FrozenViT, count: int) -> FrozenViT:
    """A view of a ViT with its first blocks only; nothing else of it is kept alive."""
    view = copy.copy(vit)
    view._modules = {**vit._modules, "blocks": nn.ModuleList(list(vit.blocks)[:count])}
    for name in ("norm_post", "head"):
        view._modules[name] = nn.Identity()
    view._parameters = {**vit._parameters, "proj": None}
    view._patch = (None,)
    return view


def _block(part: str) -> int:
    """The number of the block that a part of a fingerprint is; -1 for what comes before the blocks."""
    return int(part.partition(".")[2]) if part.startswith("blocks.") else -1


def _renumbered(found: ViTFingerprint, skipped: int) -> ViTFingerprint:
    """The fingerprint as a lens that skips the first blocks counts them."""
    if not skipped:
        return found
    parts = {name: value for name, value in found.parts.items() if _block(name) < 0}
    blocks = {_block(name): value for name, value in found.parts.items()}
    return ViTFingerprint(parts | {f"blocks.{n - skipped}": value for n, value in blocks.items() if n >= skipped})


def _place(vit: FrozenViT) -> tuple[torch.device, torch.dtype]:
    """Where a host's ViT computes, and in which dtype; linear layers of 8 bits say nothing about that, norms do."""
    norms = [p for n, p in vit.named_parameters() if "norm" in n or "ln_" in n]
    return (norms[0].device, norms[0].dtype) if norms else (next(vit.parameters()).device, torch.float32)


def _in_words(trains: Trainable, skipped: int, positions: int | None) -> str:
    own = [name for name in ("class_token", "positions", "norm_pre") if getattr(trains, name)]
    own += [f"positions for its {positions} tokens"] if positions and not trains.positions else []
    count = trains.first_blocks
    own += ["its own first block" if count == 1 else f"its own first {count} blocks"] if count else []
    own += [f"no tokens for the first {skipped} blocks"] if skipped else []
    return " and ".join([", ".join(own[:-1]), own[-1]] if own[1:] else own)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more parts" if len(names) > 4 else "")
