"""A training step of a recipe against the reference's way of taking it, in one run.

python -m vitlens.benchmarks.speed.training [--recipe vitlens-l-depth] [--batch 4] [--micro 1] [--set KEY=VALUE]

The reference runs the picture, the text and the sensor's tower in every step, with torch's own attention. Here: the same with
our attention; the anchors from the disk; that in bf16 (where the machine is fast at it), in micro-batches (GradCache), and with
what a block saved for its backward pass computed again. Weights are random, items are the modalities' own examples in memory, the
precision is float32 where nothing else is said. Every variant is a process of its own, so that its peak memory is its own; on a
GPU the peak is what torch allocated there, on a CPU the process' resident memory in the steps after the first (on Linux;
elsewhere from the start on). "No heap" tells glibc to give every block of a MiB back to the system at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitlens.benchmarks.speed.bulk import peak
from vitlens.benchmarks.speed.figures import TorchAttention
from vitlens.display.progress import ProgressBar
from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.modality import get_modality
from vitlens.model import ViTLens
from vitlens.train import LensTask, Trainer, load_recipe
from vitlens.train.logs import read_csv
from vitlens.train.start import anchor_spec
from vitlens.vit_blocks import Block


@dataclass(frozen=True)
class Variant:
    """One way of taking the step: changes of the recipe, and whose attention."""

    changes: tuple[str, ...] = ()
    plain: bool = False
    """torch's attention."""
    environment: tuple[tuple[str, str], ...] = ()


VARIANTS = {
    "the reference's way": Variant(("anchors.cache=false",), plain=True),
    "three towers": Variant(("anchors.cache=false",)),
    "cached anchors": Variant(),
    "cached, bf16": Variant(("precision=bf16",)),
    "cached, bf16, recomputed": Variant(("precision=bf16", "gradient_checkpointing=true")),
    "cached, bf16, recomputed, no heap": Variant(
        ("precision=bf16", "gradient_checkpointing=true"), environment=(("MALLOC_MMAP_THRESHOLD_", str(2**20)),)
    ),
    "cached, micro-batches": Variant(("micro_batch={micro}",)),
    "cached, recomputed": Variant(("gradient_checkpointing=true",)),
}


def rows(modality: str, count: int) -> list[dict[str, Any]]:
    """Different items in memory: sensor, picture, caption."""
    sensor, image = get_modality(modality), get_modality("image")
    return [{modality: sensor.example(i), "image": image.example(i), "text": f"thing number {i}"} for i in range(count)]


def with_torch_attention(model: ViTLens) -> None:
    """Let every block of the towers attend as torch does; weights are random anyway."""
    for block in [module for module in model.modules() if isinstance(module, Block)]:
        ours = block.attn
        block.attn = TorchAttention(ours.embed_dim, ours.num_heads, batch_first=True)  # type: ignore[assignment]
        for parameter, own in zip(block.attn.parameters(), ours.parameters(), strict=True):
            parameter.requires_grad_(own.requires_grad)


def measure(recipe_name: str, folder: Path, changes: list[str], batch: int, steps: int, plain: bool) -> dict[str, float]:
    """Train a few steps in this process: seconds of the shortest step, peak memory in MiB, anchors computed."""
    fixed = ["precision=fp32", f"batch_size={batch}", f"schedule.max_steps={steps}", f"schedule.epochs={steps}"]
    fixed += [f"output={folder / 'run'}", f"anchors.cache_folder={folder.parent / 'cache'}", f"anchors.batch_size={batch}"]
    fixed += ["logs.plot=false", "logs.tensorboard=false"]
    recipe = load_recipe(recipe_name, set=[*fixed, *changes])
    torch.manual_seed(0)
    model = ViTLens.from_spec(anchor_spec(recipe))
    if plain:
        with_torch_attention(model)
    task = LensTask(recipe, model=model, train=rows(recipe.model.modality, 2 * batch))
    peaks: list[float] = []
    after_step = task.after_step

    def watched() -> None:
        after_step()
        peaks.append(peak_memory())

    task.after_step = watched  # type: ignore[method-assign]
    result = Trainer(task, progress=False).run()
    seconds = [float(row["seconds"]) for row in read_csv(result.folder / "log.csv")][1:]
    return {"seconds": min(seconds, default=0.0), "peak": max(peaks[1:], default=0.0), "computed": task.anchors_computed}


def peak_memory() -> float:
    """The most memory since the last call, in MiB; where the system cannot start over, since the process began."""
    if torch.cuda.is_available():
        most = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return most
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak()
    most = next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: the peak is what is resident now
    return most


def in_a_process(arguments: argparse.Namespace, folder: Path, variant: Variant, steps: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    changes = [*arguments.set, *(change.format(micro=arguments.micro) for change in variant.changes)]
    task = json.dumps([arguments.recipe, str(folder), changes, arguments.batch, steps, variant.plain])
    command = [sys.executable, "-m", "vitlens.benchmarks.speed.training", "--task", task]
    environment = os.environ | dict(variant.environment)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(arguments: argparse.Namespace) -> None:
    """Print the table of all variants."""
    best: dict[str, dict[str, float]] = {}
    variants = arguments.only or list(VARIANTS)
    with tempfile.TemporaryDirectory() as name, ProgressBar() as bar:
        # so that no variant below pays for filling the cache
        first = in_a_process(arguments, Path(name) / "fill", VARIANTS["cached, micro-batches"], 1)
        for turn in range(arguments.rounds):  # in turns, so that another load on the machine does not hit one variant alone
            for place, chosen in enumerate(variants):
                bar.update(chosen, turn * len(variants) + place, arguments.rounds * len(variants))
                found = in_a_process(arguments, Path(name) / f"{turn} {chosen}", VARIANTS[chosen], arguments.steps)
                known = best.setdefault(chosen, found)
                best[chosen] = {key: min(known[key], found[key]) for key in found}
    base = next(iter(best.values()))
    rows = []
    for chosen, found in best.items():
        ratios = [f"{found[key] / base[key]:.2f}" for key in ("seconds", "peak")]
        rows.append((chosen, f"{found['seconds']:.2f}", ratios[0], f"{found['peak']:.0f}", ratios[1]))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    head = ("step", "s/step", "x", "peak MiB", "x")
    console().print(f"{arguments.recipe}, batch {arguments.batch}, micro-batch {arguments.micro}")
    console().print(Table(head, rows, numbers=head[1:]).to_rich())
    console().print(f"{device}; the cache was filled once with {first['computed']:.0f} anchors")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vitlens-l-depth", help="a shipped recipe, or a YAML file")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--micro", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the recipe")
    parser.add_argument(
        "--only", action="append", choices=tuple(VARIANTS), help="these alone; the first is what others are compared with"
    )
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        recipe, folder, *rest = json.loads(arguments.task)
        print(json.dumps(measure(recipe, Path(folder), *rest)))
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
