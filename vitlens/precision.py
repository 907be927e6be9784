"""Arithmetic by its name, and which of it pays: bf16 where a short probe on this machine says that it is faster and as good.

found = probe(model.tower("audio"), x, device)      # preprocessed items [b, ...]
found.precision, found.speed, found.cosine          # "bf16", 1.9, 0.99998
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from vitlens.errors import OptionError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Arithmetic by the name of its option, as torch calls it; embeddings are float32."""
AUTO: Literal["auto"] = "auto"
"""bf16 where it pays, else fp32."""
Arithmetic: TypeAlias = 'torch.dtype | Literal["auto"] | None'
"""What is computed in: float32 (None: of the weights), bfloat16, float16, or bfloat16 where `ViTLens.probe` says that it pays."""
LEAST_SPEED = 1.2
"""What bf16 must be faster by."""
LEAST_COSINE = 0.9999
"""Between embeddings of the same item in fp32 and in bf16, the least of them."""
SECONDS = 1.0
"""Of the probe, beside two runs of the tower."""


@dataclass(frozen=True)
class Probe:
    """What was chosen and why: how many times as fast as fp32 bf16 is, and the cosine between the two (None: not computed)."""

    precision: str
    speed: float
    cosine: float | None = None

    def __str__(self) -> str:
        cosine = "" if self.cosine is None else f", cosine {self.cosine:.5f}"
        return f"{self.precision} (bf16 is {self.speed:.2g} times as fast as fp32 here{cosine})"


def torch_dtype(precision: str) -> Arithmetic:
    """What a model is asked to compute in: None is the arithmetic of its weights (fp32)."""
    import torch

    if precision == AUTO:
        return AUTO
    return None if precision == "fp32" else getattr(torch, PRECISIONS[precision])


def check_dtype(dtype: Arithmetic, weights: torch.dtype) -> None:
    """Raises OptionError for an arithmetic that there is none for, or that `weights` of this type cannot be used in."""
    import torch

    if dtype not in (None, AUTO, torch.float32, torch.bfloat16, torch.float16):
        raise OptionError(f'dtype must be torch.float32, torch.bfloat16, torch.float16 or "auto", found {dtype!r}')
    if weights != torch.float32 and dtype not in (None, AUTO, weights):
        raise OptionError(f"the weights are {weights}: leave dtype out, or load them as float32 to compute in {dtype}")


def probe(tower: nn.Module, x: Tensor, device: torch.device) -> Probe:
    """Whether `tower`, evaluating, is to compute in bf16, tried on preprocessed items `x` [b, ...].

    On a processor a small matrix product alone is timed first: where bf16 is slow the tower would take minutes. (A GPU would be
    timed starting it, not computing it.)
    """
    import torch

    if device.type == "cpu" and (speed := product_speed(device)) < LEAST_SPEED:
        return Probe("fp32", speed)
    x = x.to(device)

    def run(low: bool) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
            return tower(x).float()

    cosine = float(torch.cosine_similarity(run(True), run(False)).min())
    speed = _times_as_fast(lambda: run(True), lambda: run(False), device, SECONDS)
    return Probe("bf16" if cosine >= LEAST_COSINE and speed >= LEAST_SPEED else "fp32", speed, cosine)


def product_speed(device: torch.device) -> float:
    """How many times as fast as in fp32 a small matrix product is in bf16: a hundredth without bf16 in the processor."""
    import torch

    a, b = (torch.randn(128, 512, device=device) for _ in range(2))
    low_a, low_b = a.bfloat16(), b.bfloat16()
    return _times_as_fast(lambda: low_a @ low_b.T, lambda: a @ b.T, device, SECONDS / 10)


def _times_as_fast(ours: Callable[[], object], theirs: Callable[[], object], device: torch.device, seconds: float) -> float:
    """How many times as fast as `theirs` `ours` is: the shortest of both, in turns, twice at least and for `seconds`."""
    import torch

    best = [math.inf, math.inf]
    begun, turns = time.perf_counter(), 0
    while turns < 2 or (turns < 50 and time.perf_counter() - begun < seconds):
        for place, run in enumerate((ours, theirs)):
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best[place] = min(best[place], time.perf_counter() - start)
        turns += 1
    return best[1] / best[0]
