"""A training step with anchors from the disk against the same step with the three towers run each time, in one run.

python -m vitlens.benchmarks.speed.anchor_cache [--recipe vitlens-l-depth] [--batch 4] [--micro 1] [--set KEY=VALUE]

Also the memory of a batch taken in micro-batches (GradCache) against the batch taken whole. Weights are random, items are the
modalities' own examples in memory, precision float32. Every variant is a process of its own, so that its peak memory is its own;
on a GPU the peak is what torch allocated there, on a CPU the process' resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.modality import get_modality
from vitlens.model import ViTLens
from vitlens.train import LensTask, Trainer, load_recipe
from vitlens.train.logs import read_csv
from vitlens.train.start import anchor_spec

VARIANTS = {
    "three towers": ["anchors.cache=false"],
    "cached anchors": [],
    "cached, micro-batches": ["micro_batch={micro}"],
}


def rows(modality: str, count: int) -> list[dict[str, Any]]:
    """Different items in memory: sensor, picture, caption."""
    sensor, image = get_modality(modality), get_modality("image")
    return [{modality: sensor.example(i), "image": image.example(i), "text": f"thing number {i}"} for i in range(count)]


def measure(recipe_name: str, folder: Path, changes: list[str], batch: int, steps: int) -> dict[str, float]:
    """Train a few steps in this process: seconds of the shortest step, peak memory in MiB, anchors computed."""
    fixed = [f"batch_size={batch}", f"schedule.max_steps={steps}", f"schedule.epochs={steps}", "precision=fp32"]
    fixed += [f"output={folder / 'run'}", f"anchors.cache_folder={folder.parent / 'cache'}", f"anchors.batch_size={batch}"]
    fixed += ["logs.plot=false", "logs.tensorboard=false"]
    recipe = load_recipe(recipe_name, set=[*fixed, *changes])
    torch.manual_seed(0)
    model = ViTLens.from_spec(anchor_spec(recipe))
    task = LensTask(recipe, model=model, train=rows(recipe.model.modality, 2 * batch))
    result = Trainer(task, progress=False).run()
    seconds = [float(row["seconds"]) for row in read_csv(result.folder / "log.csv")][1:]
    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": min(seconds, default=0.0), "peak": peak, "computed": task.anchors_computed}


def in_a_process(arguments: argparse.Namespace, folder: Path, changes: list[str], steps: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    task = json.dumps([arguments.recipe, str(folder), [*arguments.set, *changes], arguments.batch, steps])
    command = [sys.executable, "-m", "vitlens.benchmarks.speed.anchor_cache", "--task", task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(arguments: argparse.Namespace) -> None:
    """Print the table of all variants."""
    with tempfile.TemporaryDirectory() as name:
        first = in_a_process(arguments, Path(name) / "fill", [], 1)  # so that no variant below pays for filling the cache
        best: dict[str, dict[str, float]] = {}
        for turn in range(arguments.rounds):  # in turns, so that another load on the machine does not hit one variant alone
            for variant, changes in VARIANTS.items():
                chosen = [change.format(micro=arguments.micro) for change in changes]
                found = in_a_process(arguments, Path(name) / f"{turn} {variant}", chosen, arguments.steps)
                known = best.setdefault(variant, found)
                best[variant] = {key: min(known[key], found[key]) for key in found}
        base = next(iter(best.values()))
        rows = []
        for variant, found in best.items():
            ratios = [f"{found[key] / base[key]:.2f}" for key in ("seconds", "peak")]
            rows.append((variant, f"{found['seconds']:.2f}", ratios[0], f"{found['peak']:.0f}", ratios[1]))
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
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        recipe, folder, changes, batch, steps = json.loads(arguments.task)
        print(json.dumps(measure(recipe, Path(folder), changes, batch, steps)))
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
