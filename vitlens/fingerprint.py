"""Fingerprints of ViT weights: is the frozen ViT a lens was trained against the one inside this host?

The same ViT has other key names and another packing of its attention in open_clip, timm, transformers and LAVIS, and is stored in
float32, float16 or bfloat16. A fingerprint sees through both: every part's tensors are brought into one shape, sampled, and
projected onto fixed patterns of plus and minus one, so that two fingerprints tell how far the weights are apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from vitlens.vit import FrozenViT

PATTERNS = 16
"""Projections kept of each part."""
SAMPLES, STEP = 8192, 97
"""Values looked at of each tensor, evenly spread; and how far apart two tensors' places in the patterns are."""
SAME = 0.005
"""Weights are one ViT's up to this relative distance: rounding to bfloat16 makes about 0.001."""

_NAMES = (
    (r"^ln_1\.|^layer_norm1\.|^layernorm_before\.", "norm1."),
    (r"^ln_2\.|^layer_norm2\.|^layernorm_after\.", "norm2."),
    (r"^mlp\.c_fc\.", "mlp.fc1."),
    (r"^mlp\.c_proj\.", "mlp.fc2."),
    (r"^self_attn\.|^attention\.attention\.", "attn."),
    (r"^attn\.(out_proj|projection)\.", "attn.proj."),
    (r"^attn\.in_proj_(weight|bias)$", r"attn.qkv.\1"),
    (r"^attn\.(query|key|value)\.", lambda found: f"attn.{found[1][0]}_proj."),
)
"""Names inside a block -> timm's."""


@dataclass(frozen=True)
class ViTFingerprint:
    """Part of the ViT ("class_token", "positions", "norm_pre", "blocks.0" ...) -> its projections."""

    parts: dict[str, tuple[float, ...]]

    def distance(self, other: ViTFingerprint, parts: Iterable[str] | None = None) -> float:
        """Estimated relative difference of the weights, the largest of all parts (or of those named); 0 is equal, 1.4 unrelated.

        A part that only one of them has is infinitely far.
        """
        names = set(self.parts) | set(other.parts) if parts is None else set(parts)
        return max((self._apart(other, name) for name in names), default=0.0)

    def differing(self, other: ViTFingerprint, parts: Iterable[str]) -> list[str]:
        """Those of the parts that are farther apart than rounding explains."""
        return [name for name in parts if self._apart(other, name) > SAME]

    def _apart(self, other: ViTFingerprint, part: str) -> float:
        a, b = self.parts.get(part), other.parts.get(part)
        if a is None or b is None:
            return 0.0 if a is b else math.inf
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a))


@torch.no_grad()
def fingerprint(vit: FrozenViT) -> ViTFingerprint:
    """The fingerprint of what runs before the final norm: prefix tokens, positions, norm before the blocks, blocks."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name in ("class_token", "registers", "positions"):
        tensor = getattr(vit, name)
        if tensor is not None:
            parts[name] = {name: tensor}
    if any(True for _ in vit.norm_pre.parameters()):
        parts["norm_pre"] = dict(vit.norm_pre.named_parameters())
    for index, block in enumerate(vit.blocks):
        parts[f"blocks.{index}"] = canonical_block(block)
    return ViTFingerprint({name: _projections(tensors) for name, tensors in parts.items()})


@torch.no_grad()
def fingerprint_of_state(state: Mapping[str, Tensor]) -> ViTFingerprint:
    """The fingerprint of a ViT's state dict under timm's names (`cls_token`, `pos_embed`, `blocks.0.attn.qkv.weight` ...)."""
    parts = {name: {name: state[key]} for key, name in (("cls_token", "class_token"), ("pos_embed", "positions")) if key in state}
    depth = max((int(key.split(".")[1]) + 1 for key in state if key.startswith("blocks.")), default=0)
    for index in range(depth):
        head = f"blocks.{index}."
        parts[head[:-1]] = _canonical((key.removeprefix(head), value) for key, value in state.items() if key.startswith(head))
    return ViTFingerprint({name: _projections(tensors) for name, tensors in parts.items()})


def canonical_block(block: nn.Module) -> dict[str, Tensor]:
    """A transformer block's weights under timm's names: one qkv, no biases that are all zero."""
    return _canonical([*block.named_parameters(), *block.named_buffers()])


def _canonical(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in tensors:
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    for kind in ("weight", "bias"):
        separate = [found.pop(f"attn.{letter}_proj.{kind}", None) for letter in "qkv"]
        joined = _joined(separate)
        if joined is not None:
            found[f"attn.qkv.{kind}"] = joined
    biases = _joined([found.pop(f"attn.{letter}_bias", None) for letter in "qkv"])
    if biases is not None:
        found["attn.qkv.bias"] = biases
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point() and bool(tensor.any())}


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    """Query, key and value as one tensor; one that is not there is zero."""
    known = next((part for part in parts if part is not None), None)
    return None if known is None else torch.cat([torch.zeros_like(known) if part is None else part for part in parts])


def _projections(tensors: dict[str, Tensor]) -> tuple[float, ...]:
    """Samples of each tensor with unit norm, all together with unit norm, projected onto the patterns; and their norms."""
    signs = _signs()
    total, size = torch.zeros(PATTERNS, dtype=torch.float64), 0.0
    for index, name in enumerate(sorted(tensors)):
        flat = tensors[name].detach().flatten()
        flat = flat[:: -(-len(flat) // SAMPLES)].cpu().double()
        norm = flat.norm().clamp_min(1e-12)
        size += math.log(norm)
        total += signs[:, index * STEP : index * STEP + len(flat)] @ (flat / norm)
    return tuple((torch.cat([total, torch.tensor([size])]) / math.sqrt(max(len(tensors), 1))).tolist())


@cache
def _signs() -> Tensor:
    """PATTERNS rows of +-1, the same on every machine: bits of a mixed counter. Each tensor starts at a place of its own."""
    mixed = torch.arange(SAMPLES + 100 * STEP)
    for factor, shift in ((0x45D9F3B, 16), (0x45D9F3B, 13), (0x119DE1F3, 15)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & 0xFFFFFFFF
    mixed = mixed ^ (mixed >> 16)
    return torch.stack([((mixed >> (row + 8)) & 1) * 2 - 1 for row in range(PATTERNS)]).double()
