"""What `vitlens bench` measures: each figure is a ratio to a yardstick that is timed in turns with it, in one run.

A yardstick is the matrix product of the same dtype, or the plain way to do the same thing.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vitlens.precision import product_speed

if TYPE_CHECKING:
    from vitlens.vit import FrozenViT

Run = Callable[[], object]
IMITATED = 0.5
"""bf16 products below this share of fp32's speed: the processor has none."""
ONE_SOUND = """
import vitlens
model = vitlens.load("vitlens-toybox", modalities=["audio"], device="cpu")
model.encode({"audio": [model.modality("audio").example()]})
"""


@dataclass(frozen=True)
class Figure:
    """One ratio; larger is better. `seconds` are ours and the yardstick's, the shortest of all rounds."""

    name: str
    ratio: float
    means: str
    """What the ratio is of."""
    seconds: tuple[float, float]
    goal: float | None = None
    note: str = ""


def faster(name: str, means: str, seconds: Sequence[float], goal: float | None = None, note: str = "") -> Figure:
    """How many times as fast as the yardstick: `seconds` are ours and the yardstick's."""
    return Figure(name, seconds[1] / seconds[0], means, (seconds[0], seconds[1]), goal, note)


@dataclass(frozen=True)
class Scope:
    """How much is measured: blocks of the ViT-L/14, pictures at once, rounds in turns, files."""

    blocks: int = 24
    batch: int = 8
    rounds: int = 3
    files: int = 200
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def quick(cls, device: torch.device) -> Scope:
        """Under three minutes on two cores."""
        return cls(blocks=4, batch=8, rounds=2, files=40, device=device)


def in_turns(*runs: Run, rounds: int, device: torch.device) -> list[float]:
    """The shortest seconds of each, run one after the other in every round, after one round that warms up."""
    best = [math.inf] * len(runs)
    for turn in range(rounds + 1):
        for place, run in enumerate(runs):
            begun = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                best[place] = min(best[place], time.perf_counter() - begun)
    return best


def vit_figures(scope: Scope) -> Iterator[Figure]:
    """The picture tower of ViT-L/14 (the first `blocks` of it) against the matrix products that it is made of."""
    vit = _vit(scope.blocks).to(scope.device).eval()
    tokens = torch.randn(scope.batch, 256, vit.width, device=scope.device)
    rows, work = scope.batch * 257, _flops(vit, scope.batch)
    low, arithmetics = torch.bfloat16, _arithmetics(scope.device)
    times: dict[torch.dtype, float] = {}
    results: dict[torch.dtype, Tensor] = {}
    for dtype, (name, goal) in arithmetics.items():
        a, b = (torch.randn(n, vit.width, device=scope.device, dtype=dtype) for n in (rows, 4 * vit.width))
        product = 2 * rows * 4 * vit.width * vit.width

        def forward(dtype: torch.dtype = dtype) -> None:
            with torch.inference_mode(), torch.autocast(scope.device.type, dtype=low, enabled=dtype == low):
                results[dtype] = vit(tokens)

        def gemm(a: Tensor = a, b: Tensor = b) -> None:
            for _ in range(8):
                a @ b.T

        ours, theirs = in_turns(forward, gemm, rounds=scope.rounds, device=scope.device)
        times[dtype] = ours
        share = (work / ours) / (8 * product / theirs)
        yield Figure(f"ViT-L/14 forward {name}", share, f"share of the {name} matrix product's rate", (ours, theirs), goal)
    if low not in arithmetics:
        return
    cosine = torch.cosine_similarity(results[torch.float32].float(), results[low].float()).min().item()
    seconds = (times[low], times[torch.float32])
    yield faster("ViT-L/14 bf16", "times as fast as fp32", seconds, 1.8, f"cosine {cosine:.5f}")


def _arithmetics(device: torch.device) -> dict[torch.dtype, tuple[str, float]]:
    """What is measured, its name, and the share of a matrix product's rate that is aimed at.

    bf16 is left out on processors that only imitate it: a hundredth of fp32's speed, and minutes.
    """
    every = {torch.float32: ("fp32", 0.80), torch.bfloat16: ("bf16", 0.70)}
    imitated = device.type == "cpu" and product_speed(device) < IMITATED
    return {torch.float32: every[torch.float32]} if imitated else every


def attention_figures(scope: Scope) -> Iterator[Figure]:
    """A block with the gradient to its input, as training has it, against torch's own attention as open_clip calls it."""
    from vitlens.vit_blocks import Block

    block = Block(width=1024, heads=16, mlp_width=4096).to(scope.device).requires_grad_(False)
    plain = Block(width=1024, heads=16, mlp_width=4096).to(scope.device)
    plain.attn = TorchAttention(1024, 16, batch_first=True)  # type: ignore[assignment]
    plain = plain.to(scope.device).requires_grad_(False)
    tokens = torch.randn(scope.batch, 257, 1024, device=scope.device)

    def step(module: nn.Module, dtype: torch.dtype) -> Run:
        def run() -> None:
            x = tokens.clone().requires_grad_()
            with torch.autocast(scope.device.type, dtype=dtype, enabled=dtype != torch.float32):
                module(x).square().mean().backward()

        return run

    for dtype, (name, _) in _arithmetics(scope.device).items():
        seconds = in_turns(step(block, dtype), step(plain, dtype), rounds=scope.rounds, device=scope.device)
        ratio = seconds[1] / seconds[0]
        yield Figure(
            f"block, forward and backward {name}", ratio, "times as fast as torch's own attention", (seconds[0], seconds[1])
        )


class TorchAttention(nn.MultiheadAttention):
    """torch's attention as open_clip's blocks call it, in the place of ours."""

    def forward(self, query: Tensor, attn_mask: Tensor | None = None) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(query, query, query, need_weights=False, attn_mask=attn_mask)[0], None


def spared_figures(scope: Scope) -> Iterator[Figure]:
    """What need not be computed: equal views of a short sound."""
    import vitlens

    model = vitlens.load("vitlens-toybox", modalities=["audio"], device=scope.device)
    tower, reading = model.tower("audio"), model.modality("audio")
    clips = [reading.transform(reading.load(reading.example(i))) for i in range(16)]
    clips = [clip[:1].expand(3, *clip.shape[1:]).contiguous() for clip in clips]

    def every() -> None:
        with torch.inference_mode():
            tower(torch.stack(clips).to(scope.device))

    seconds = in_turns(lambda: model.embed("audio", clips), every, rounds=scope.rounds, device=scope.device)
    yield faster("three equal clips", "times as fast as computing each", seconds)


def point_figures(scope: Scope) -> Iterator[Figure]:
    """Farthest point sampling of a scan, against the textbook loop."""
    from vitlens.benchmarks.speed.point_sampling import numpy_loop, shells
    from vitlens.modalities.point_sampling import farthest_point_sample

    xyz = shells(1, 10_000)
    cloud, count = torch.from_numpy(xyz), 2048
    runs = (lambda: farthest_point_sample(cloud, count), lambda: numpy_loop(xyz[0], count))
    ours, loop = in_turns(*runs, rounds=1, device=torch.device("cpu"))
    yield faster("farthest points, 10,000 to 2,048", "times as fast as the numpy loop", (ours, loop))


def encode_figures(scope: Scope) -> Iterator[Figure]:
    """Pictures in memory from arrays to embeddings, against the model alone: how busy the model is."""
    import vitlens

    toybox = vitlens.load("vitlens-toybox", modalities=["image", "audio"], device=scope.device)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(scope.files)]
    sounds = [{"source": random.normal(0, 0.1, 16000).astype(np.float32), "rate": 16000} for _ in range(scope.files)]
    for name, items in (("image", pictures), ("audio", sounds)):
        reading = toybox.modality(name)
        ready = [reading.transform(reading.load(item)) for item in items]

        def whole(name: str = name, items: list[object] = items) -> None:  # type: ignore[assignment]
            toybox.encode({name: items}, batch_size=32)

        def alone(name: str = name, ready: list[Tensor] = ready) -> None:
            for at in range(0, len(ready), 32):
                toybox.embed(name, ready[at : at + 32])

        seconds = in_turns(whole, alone, rounds=scope.rounds, device=scope.device)
        yield faster(f"encode {len(items)} {name} items", "share of the time the model works", seconds, 0.9)


def busy_figures(scope: Scope) -> Iterator[Figure]:
    """Files of three sensors through ViT-L/14 towers: how much of the time `encode` takes is the model's."""
    from vitlens.model import ViTLens
    from vitlens.zoo import find_spec

    whole, names = find_spec("vitlens-l"), ("image", "audio", "point_cloud")
    spec = replace(whole, text=None, encoders=tuple(one for one in whole.encoders if one.modality in names))
    model = ViTLens.from_spec(spec).to(scope.device)
    working = [0.0]
    embed = model.embed

    def timed(*given: Any, **options: Any) -> Tensor:
        begun = time.perf_counter()
        found = embed(*given, **options)
        working[0] += time.perf_counter() - begun
        return found

    model.embed = timed  # type: ignore[method-assign]
    for name in names:
        with TemporaryDirectory() as folder:
            sensor, count = model.modality(name), 64 if scope.files >= 200 else 4  # from 64 on another process reads
            files = [sensor.write(sensor.example(seed), Path(folder), f"{seed}") for seed in range(count)]
            model.encode({name: files[:2]}, batch_size=8)
            working[0], begun = 0.0, time.perf_counter()
            model.encode({name: files}, batch_size=8)
            seconds = time.perf_counter() - begun
        means = "share of the time the model works"
        yield Figure(f"{count} {name} files, ViT-L/14", working[0] / seconds, means, (seconds, working[0]), 0.9)


def start_figures(scope: Scope) -> Iterator[Figure]:
    """Start of the command line and of the library, against `import torch`, each in a process of its own."""
    runs = {"import torch": [sys.executable, "-c", "import torch"], "--help": [sys.executable, "-m", "vitlens", "--help"]}
    runs["load and embed one sound"] = [sys.executable, "-c", ONE_SOUND]

    def started(command: list[str]) -> Run:
        return lambda: subprocess.run(command, check=True, capture_output=True)

    seconds = dict(
        zip(runs, in_turns(*map(started, runs.values()), rounds=scope.rounds, device=torch.device("cpu")), strict=True)
    )
    yardstick = seconds.pop("import torch")
    for name, goal in (("--help", 2.7 / 0.5), ("load and embed one sound", 2.7 / 4)):
        yield faster(f"start: {name}", "times as fast as `import torch`", (seconds[name], yardstick), round(goal, 2))


def _vit(blocks: int) -> FrozenViT:
    from vitlens.towers import build_vit
    from vitlens.vit import ViTSpec

    vision = {"image_size": 224, "patch_size": 14, "width": 1024, "layers": blocks, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    return cast("FrozenViT", build_vit(ViTSpec("bench", config={"embed_dim": 768, "vision_cfg": vision, "text_cfg": text})))


def _flops(vit: FrozenViT, batch: int) -> float:
    """Multiplications and additions of a forward pass."""
    n, d = 1 + vit.patches, vit.width
    attention = 2 * 2 * n * n * d
    whole = 2 * n * 12 * d * d + attention
    return batch * (len(vit.blocks) * whole + 2 * d * 768)


FIGURES: dict[str, Callable[[Scope], Iterator[Figure]]] = {
    "vit": vit_figures,
    "attention": attention_figures,
    "spared": spared_figures,
    "points": point_figures,
    "encode": encode_figures,
    "busy": busy_figures,
    "start": start_figures,
}
"""Groups of figures by the name that chooses them."""
