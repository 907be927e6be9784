"""A learned linear bridge from one embedding space to another, fitted on pairs, with its error on pairs it never saw.

bridge = fit_bridge((model_a.encode(...)["image"], raw_b), target=EmbeddingSpace("open_clip/ViT-H-14/laion2b_s32b_b79k", 1024))
print(bridge.report)
bridge.save("l_to_h")
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.checkpoint import save_tensors
from vitlens.checks import number, one_of
from vitlens.disk import atomic
from vitlens.errors import CheckpointError, InputError, OptionError, SpaceError
from vitlens.space import EmbeddingSpace

FORMAT = 1
FEWEST = 20
"""Pairs below which there is nothing to hold out."""
REGULARISERS = tuple(10.0**exponent for exponent in range(-8, 3))
"""Tried in turn, in units of the mean variance of a source coordinate."""


@dataclass(frozen=True)
class BridgeReport:
    """How well a bridge does on the `held_out` pairs that neither the map nor its regulariser has seen.

    `cosine_before` is None where the spaces differ in width. `recall_*` is R@1: the share of held-out sources whose own target
    is the nearest of all held-out targets; guessing gives `chance`.
    """

    method: str
    pairs: int
    held_out: int
    regulariser: float | None
    cosine_before: float | None
    cosine_after: float
    recall_before: float | None
    recall_after: float
    chance: float

    def __str__(self) -> str:
        before = "" if self.cosine_before is None else f" (before: {self.cosine_before:.3f}, {self.recall_before:.1%})"
        return (
            f"{self.method} on {self.pairs - self.held_out} pairs; on {self.held_out} held out: cosine {self.cosine_after:.3f}, "
            f"R@1 {self.recall_after:.1%}{before}, chance {self.chance:.1%}"
        )


@dataclass(frozen=True, eq=False)
class LinearBridge:
    """`(x / |x|) @ weight + bias`: embeddings [n, S] of `source` -> [n, T] of `target`.

    `norm` is the mean length of the targets it was fitted on.
    """

    source: EmbeddingSpace
    target: EmbeddingSpace
    weight: Tensor
    bias: Tensor
    norm: float
    report: BridgeReport

    def __call__(self, x: Tensor) -> Tensor:
        """Map embeddings [n, S] or [S].

        Raises:
            SpaceError: embeddings of another width, or known to be of another space.
        """
        space = getattr(x, "space", self.source)
        if space != self.source or x.shape[-1] != self.source.dim:
            raise SpaceError(
                f"bridge from {self.source.name} ({self.source.dim}) got embeddings of {space.name} with {x.shape[-1]} values"
            )
        return F.normalize(x.float().cpu(), dim=-1) @ self.weight + self.bias

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write bridge.safetensors and bridge.json to `folder`."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        facts = {
            "format": FORMAT,
            "source": asdict(self.source),
            "target": asdict(self.target),
            "norm": self.norm,
            "report": asdict(self.report),
        }
        save_tensors(path / "bridge.safetensors", {"weight": self.weight, "bias": self.bias})
        with atomic(path / "bridge.json") as part:
            part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> LinearBridge:
        """Read what `save` wrote.

        Raises:
            InputError: no such folder, or files that are not a bridge.
            CheckpointError: tensors that do not fit the spaces.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path, accepted = Path(folder), "a folder written by LinearBridge.save (bridge.json, bridge.safetensors)"
        try:
            facts = json.loads((path / "bridge.json").read_text(encoding="utf-8"))
            tensors = load_file(str(path / "bridge.safetensors"))
            if facts["format"] != FORMAT:
                raise InputError(os.fspath(folder), f"a bridge of format {facts['format']}", f"format {FORMAT}")
            source, target = EmbeddingSpace(**facts["source"]), EmbeddingSpace(**facts["target"])
            made = cls(source, target, tensors["weight"], tensors["bias"], float(facts["norm"]), BridgeReport(**facts["report"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(os.fspath(folder), f"cannot be read ({type(error).__name__}: {error})", accepted) from error
        shapes = list(made.weight.shape), list(made.bias.shape)
        if shapes != ([source.dim, target.dim], [target.dim]):
            raise CheckpointError(f"{folder}: weight and bias {shapes}; its spaces have {source.dim} and {target.dim} values")
        return made


def fit_bridge(
    pairs: tuple[Tensor, Tensor],
    *,
    source: EmbeddingSpace | None = None,
    target: EmbeddingSpace | None = None,
    method: Literal["ridge", "orthogonal"] = "ridge",
    held_out: float = 0.2,
    regularisers: Sequence[float] = REGULARISERS,
    seed: int = 0,
) -> LinearBridge:
    """Fit a linear map on pairs of embeddings of the same things, (x [n, S], y [n, T]).

    Give y at the length its own encoder gives (not normalised): the map then knows how long the decoder's embeddings are. The
    pairs are shuffled by `seed`; the share `held_out` is kept for the report alone. Of the rest as much again chooses the
    regulariser of the ridge regression, then all of the rest fits the map. "orthogonal" turns and reflects only (Procrustes):
    for few pairs. The spaces are taken from the tensors where `encode` made them.

    Raises:
        SpaceError: a space that is not known, or another width than the space's.
        OptionError: too few pairs, unequal numbers, values that are not finite, rows of zeros, options out of range.
    """
    x, y, source, target = _checked(pairs, source, target)
    number("held_out", held_out, above=0, most=0.4)
    one_of("method", method, ("ridge", "orthogonal"))
    if method == "ridge" and not (len(regularisers) and all(math.isfinite(r) and r > 0 for r in regularisers)):
        raise OptionError(f"regularisers must be positive numbers, found {list(regularisers)}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    part = max(2, round(held_out * len(x)))
    test, rest, chooser, fitter = order[:part], order[part:], order[part : 2 * part], order[2 * part :]
    norm = float(y[rest].norm(dim=-1).mean())
    best: float | None = None
    if method == "ridge":
        scores = [_cosine(x[chooser] @ w + b, y[chooser]) for w, b in _ridges(x[fitter], y[fitter], regularisers)]
        best = float(regularisers[max(range(len(scores)), key=scores.__getitem__)])
        ((weight, bias),) = _ridges(x[rest], y[rest], [best])
    else:
        weight, bias = _orthogonal(x[rest], y[rest])
    after = x[test] @ weight + bias
    same = source.dim == target.dim
    report = BridgeReport(
        method=method,
        pairs=len(x),
        held_out=len(test),
        regulariser=best,
        cosine_before=_cosine(x[test], y[test]) if same else None,
        cosine_after=_cosine(after, y[test]),
        recall_before=_recall(x[test], y[test]) if same else None,
        recall_after=_recall(after, y[test]),
        chance=1 / len(test),
    )
    return LinearBridge(source, target, weight.float(), bias.float(), norm, report)


def _checked(
    pairs: tuple[Tensor, Tensor], source: EmbeddingSpace | None, target: EmbeddingSpace | None
) -> tuple[Tensor, Tensor, EmbeddingSpace, EmbeddingSpace]:
    """Both sides in float64, x at length 1, and their spaces."""
    if len(pairs) != 2:
        raise OptionError(f"pairs must be two tensors, (x [n, S], y [n, T]), found {len(pairs)}")
    spaces: list[EmbeddingSpace] = []
    sides: list[Tensor] = []
    for name, given, space in zip(("source", "target"), pairs, (source, target), strict=True):
        side = torch.as_tensor(given).detach()
        known = getattr(given, "space", None)
        space = space or known
        if space is None:
            raise SpaceError(f"fit_bridge: the {name} space is not known; give {name}=EmbeddingSpace(name, width)")
        if known not in (None, space) or side.ndim != 2 or side.shape[1] != space.dim:
            found = f"{known.name}, " if known else ""
            raise SpaceError(f"fit_bridge: {name} is {found}shape {list(side.shape)}, space {space.name} has width {space.dim}")
        if not bool(torch.isfinite(side).all() and (side.float().norm(dim=-1) > 0).all()):
            raise OptionError(f"fit_bridge: the {name} embeddings hold values that are not finite, or rows of zeros")
        spaces.append(space)
        sides.append(side.double().cpu())
    x, y = sides
    if len(x) != len(y):
        raise OptionError(f"fit_bridge: {len(x)} source and {len(y)} target embeddings are no pairs")
    if len(x) < FEWEST:
        raise OptionError(f"fit_bridge: {len(x)} pairs; at least {FEWEST} are needed to fit a map and to know its error")
    return F.normalize(x, dim=-1), y, spaces[0], spaces[1]


def _ridges(x: Tensor, y: Tensor, regularisers: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Closed-form ridge regression with an intercept, for every regulariser from one eigendecomposition."""
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    centred = x - x_mean
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    projected = vectors.T @ (centred.T @ (y - y_mean))
    unit = values.clamp(min=0).mean().clamp(min=torch.finfo(x.dtype).tiny)
    made = []
    for regulariser in regularisers:
        weight = vectors @ (projected / (values.clamp(min=0) + regulariser * unit)[:, None])
        made.append((weight, y_mean - x_mean @ weight))
    return made


def _orthogonal(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation (with reflections; between widths: with a projection) nearest to the pairs, and the shift of the means."""
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    left, values, right = torch.linalg.svd((x - x_mean).T @ (y - y_mean), full_matrices=False)
    scale = values.sum() / (x - x_mean).square().sum()
    weight = scale * (left @ right)
    return weight, y_mean - x_mean @ weight


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=-1).mean())


def _recall(a: Tensor, b: Tensor) -> float:
    nearest = (F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T).argmax(dim=-1)
    return float((nearest == torch.arange(len(a))).double().mean())
