"""Bulk embedding measured: what a job survives, how its speed and memory grow with the number of items, how long a listing takes.

python -m vitlens.benchmarks.speed.bulk kill FOLDER [--items 3000] [--bad 30] [--kills 10] [--engines local ray]
python -m vitlens.benchmarks.speed.bulk sizes FOLDER [--sizes 1000 10000 100000] [--workers 1 2]
python -m vitlens.benchmarks.speed.bulk listing FOLDER [--items 1000000]

`kill` runs the job over mixed files, and kills -9 the driver, a reader's process, an actor that starts or one that
works, at random; then it compares with a run that nobody disturbed. `sizes` takes a model of one narrow block, so that what is
measured is all the rest. Every run is a process of its own, whose peak memory is its own (resident set, MiB).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.encoder import EncoderSpec
from vitlens.model import ViTLens, load
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.store.bulk.job import BulkJob, Local
from vitlens.store.bulk.pieces import Spool, cut
from vitlens.store.files import read_table
from vitlens.store.job import Settings
from vitlens.store.listing import Listing
from vitlens.store.places import Folder
from vitlens.vit import ViTSpec

MODEL = "vitlens-tiny-random"
PART, BATCH = 128, 32
VICTIMS = {"local": ("driver", "reader"), "ray": ("driver", "actor that starts", "actor that works")}
TITLES = {"actor that starts": "ray::Worker.ready", "actor that works": "ray::Worker.make"}


# --- kill ---


def write_world(folder: Path, items: int, bad: int) -> None:
    """Mixed small files - pictures, sounds, point clouds, texts - of which `bad` are broken, spread over the others."""
    import soundfile

    rng = np.random.default_rng(0)
    broken = set(rng.choice(items, bad, replace=False).tolist())
    for number in range(items):
        parent = folder / f"{number // 500:03d}"
        parent.mkdir(parents=True, exist_ok=True)
        kind = number % 20
        if kind == 0:
            path = parent / f"{number:06d}.wav"
            soundfile.write(path, rng.normal(0, 0.1, 8000).astype(np.float32), 16000)
        elif kind == 1:
            path = parent / f"{number:06d}.npy"
            np.save(path, rng.normal(size=(128, 3)).astype(np.float32))
        elif kind < 6:
            path = parent / f"{number:06d}.txt"
            path.write_text(f"a picture of thing number {number}", encoding="utf-8")
        else:
            path = parent / f"{number:06d}.png"
            PIL.Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        if number in broken:
            path.write_bytes(b"" if kind < 6 else path.read_bytes()[:40])


def start(files: Path, out: Path, engine: str, model: ViTLens) -> Any:
    """The job in a process of its own: forked off, with all that it needs loaded; for Ray, whose actors load it, anew."""
    if engine == "ray":
        options = ["-m", MODEL, "-o", f"{out}/", "--part-items", str(PART), "-b", str(BATCH), "--device", "cpu", "--workers", "2"]
        run = [sys.executable, "-m", "vitlens", "embed", str(files), "--engine", "ray", *options]
        return subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    child = multiprocessing.get_context("fork").Process(target=embed, args=(files, out, model))
    child.start()
    return child


def embed(files: Path, out: Path, model: ViTLens) -> None:
    """The job."""
    named = (str(files),)
    job = BulkJob(Listing([str(files)]), Folder(out), MODEL, Settings(batch_size=BATCH, num_workers=1), PART, named)
    job.run(Local(job.maker(lambda _: model)))


def ended(run: Any) -> bool:
    """Whether a process came to its end."""
    return (run.poll() is not None) if isinstance(run, subprocess.Popen) else not run.is_alive()


def victims(driver: int, kind: str) -> list[int]:
    """Processes of this kind that run now, by /proc."""
    if kind == "driver":
        return [driver]
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit():
                continue
            title = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_reader = kind == "reader" and parent == driver
            if is_reader or (kind in TITLES and title.startswith(TITLES[kind].encode())):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def parts_in(out: Path) -> int:
    """How many parts are done."""
    return len(list(out.glob("_pieces/*.json")))


def disturbed(files: Path, out: Path, kills: int, engines: list[str], rng: random.Random, model: ViTLens) -> Counter[str]:
    """Run the job until it ends by itself, killing at random in between; how often what was killed."""
    killed: Counter[str] = Counter()
    while True:
        engine = rng.choice(engines)
        run = start(files, out, engine, model)
        while not ended(run) and killed.total() < kills:
            kind, after = rng.choice(VICTIMS[engine]), parts_in(out) + rng.randint(0, 3)
            while not ended(run):
                there = victims(run.pid, kind) if kind == "actor that starts" or parts_in(out) >= after else []
                if there:
                    time.sleep(rng.uniform(0, 1))
                    with suppress(ProcessLookupError):
                        os.kill(rng.choice(there), signal.SIGKILL)
                        killed[f"{engine}: {kind}"] += 1
                    console().print(f"{killed.total()} killed: {engine}, {kind}; {parts_in(out)} parts so far")
                    break
                time.sleep(0.01)
        run.wait() if isinstance(run, subprocess.Popen) else run.join()
        if (out / "_SUCCESS").exists():
            return killed


def rows_of(out: Path) -> tuple[Counter[str], Counter[str]]:
    """Items of the parts and of the tables of errors."""
    embedded: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for names, at in ((embedded, out), (failed, out / "errors")):
        for file in sorted(at.glob("part-*.parquet")):
            with file.open("rb") as stream:
                names.update(read_table(stream)["item"].to_pylist())
    return embedded, failed


def kill(arguments: argparse.Namespace) -> None:
    """The proof that nothing is lost and nothing is there twice."""
    folder = Path(arguments.folder)
    files, whole, out = folder / "files", folder / "whole", folder / "out"
    if not files.exists():
        write_world(files, arguments.items, arguments.bad)
    torch.set_num_threads(1)
    model = load(MODEL, modalities=["image", "audio", "point_cloud", "text"], device="cpu")
    embed(files, whole, model)
    shutil.rmtree(out, ignore_errors=True)
    begun = time.monotonic()
    killed = disturbed(files, out, arguments.kills, arguments.engines, random.Random(arguments.seed), model)
    seconds = time.monotonic() - begun
    embedded, failed = rows_of(out)
    names = {str(path) for path in files.rglob("*") if path.is_file()}
    same = {str(f.relative_to(whole)): f.read_bytes() for f in whole.rglob("*.parquet")} == {
        str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*.parquet")
    }
    both = embedded + failed
    rows = [(what, str(count)) for what, count in sorted(killed.items())]
    rows += [
        ("items", str(len(names))),
        ("embedded", str(embedded.total())),
        ("errors", str(failed.total())),
        ("lost", str(len(names - set(both)))),
        ("twice", str(sum(count > 1 for count in both.values()))),
        ("same bytes as undisturbed", "yes" if same else "no"),
        ("seconds", f"{seconds:.0f}"),
    ]
    console().print(Table(("killed, found", "count"), rows, numbers=("count",)).to_rich())


# --- sizes ---


def stub() -> ViTLens:
    """A picture encoder of one narrow block on 32 x 32 pixels."""
    config = {
        "embed_dim": 768,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 16, "heads": 1, "layers": 1},
    }
    encoder = EncoderSpec("image", ViTSpec("stub", config=config), options={"size": 32})
    torch.manual_seed(0)
    return ViTLens.from_spec(ModelSpec("stub", EmbeddingSpace("stub", 768), (encoder,)))


def links(folder: Path, count: int) -> Path:
    """A folder of `count` names of a hundred pictures, a thousand names in a folder of it."""
    target = folder / f"links-{count}"
    if not target.exists():
        pictures = folder / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for number in range(100):
            PIL.Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
        for number in range(count):
            parent = target / f"{number // 1000:04d}"
            if number % 1000 == 0:
                parent.mkdir(parents=True)
            os.link(pictures / f"{number % 100}.png", parent / f"{number:07d}.png")
    return target


def peak() -> float:
    """MiB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def cpu_seconds() -> float:
    """That this process and those that it waited for have computed: what a machine shared with others does not change."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def task_size(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Embed `count` pictures in this process, or with several workers through Ray."""
    torch.set_num_threads(1)
    out = folder / f"out-{count}-{workers}"
    shutil.rmtree(out, ignore_errors=True)
    job = BulkJob(
        Listing([str(links(folder, count))], modalities=["image"]), Folder(out), str(folder / "stub"), Settings(batch_size=64)
    )
    if workers == 0:
        model = stub()
        pool: Any = Local(job.maker(lambda _: model))
    else:
        from vitlens.store.bulk.ray_pool import RayPool

        stub().save_pretrained(folder / "stub")
        pool = RayPool(job.maker(lambda _: stub()), workers=workers, device="cpu")
    before = cpu_seconds()
    result = job.run(pool)
    computed = cpu_seconds() - before
    size = sum(file.stat().st_size for file in out.glob("part-*.parquet"))
    assert result.complete and result.counts == {"image": count}
    return {"seconds": result.seconds, "computed": computed, "peak": peak(), "bytes": size}


def in_a_process(*task: Any) -> dict[str, Any]:
    """A `task_...` in a process of its own."""
    line = [sys.executable, "-m", "vitlens.benchmarks.speed.bulk", "task", json.dumps([str(part) for part in task])]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def slope(xs: list[float], ys: list[float]) -> float:
    """Of the line through the logarithms."""
    return float(np.polyfit([math.log(x) for x in xs], [math.log(y) for y in ys], 1)[0])


def sizes(arguments: argparse.Namespace) -> None:
    """Speed and memory by the number of items, and workers of Ray beside each other."""
    rows, seconds, peaks = [], [], []
    for count in arguments.sizes:
        found = in_a_process("size", arguments.folder, count, 0)
        seconds.append(found["computed"])
        peaks.append(found["peak"])
        rows.append((f"{count}", "local", *_numbers(found, count)))
    for workers in arguments.workers:
        count = arguments.sizes[-2] if len(arguments.sizes) > 1 else arguments.sizes[0]
        found = in_a_process("size", arguments.folder, count, workers)
        numbers = _numbers(found, count)
        numbers[2:4] = "", ""  # the actors' seconds are not this process'
        rows.append((f"{count}", f"ray, {workers}", *numbers))
    head = ("items", "engine", "items/s", "s", "CPU s", "items/CPU s", "peak MiB", "bytes/item")
    console().print(Table(head, rows, numbers=head[2:]).to_rich())
    if len(arguments.sizes) > 1:
        line = [slope(arguments.sizes, values) for values in (seconds, peaks)]
        console().print(f"slopes of the log-log lines: CPU seconds {line[0]:.2f}, peak memory {line[1]:.3f}")


def _numbers(found: dict[str, Any], count: int) -> list[str]:
    each = (count / found["seconds"], found["seconds"], found["computed"], count / found["computed"], found["peak"])
    return [f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in (*each, found["bytes"] / count)]


# --- listing ---


def task_listing(folder: Path, count: int) -> dict[str, Any]:
    """Look at `count` files, as a job does before it begins."""
    target = links(folder, count)
    before, begun, used = peak(), time.monotonic(), cpu_seconds()
    spool = Spool()
    for piece in cut(Listing([str(target)], modalities=["image"]), 4096):
        spool.add(piece)
    assert spool.counts.items == {"image": count}
    seconds, computed = time.monotonic() - begun, cpu_seconds() - used
    return {"seconds": seconds, "computed": computed, "peak": peak(), "before": before, "pieces": spool.counts.pieces}


def listing(arguments: argparse.Namespace) -> None:
    """Time and memory of a listing."""
    found = in_a_process("listing", arguments.folder, arguments.items)
    console().print(
        f"{arguments.items} files in {found['pieces']} pieces: {found['seconds']:.1f} s ({found['computed']:.1f} of CPU), "
        f"peak {found['peak']:.0f} MiB, {found['before']:.0f} MiB before"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="what", required=True)
    for name, items in (("kill", 3000), ("sizes", 0), ("listing", 1_000_000)):
        part = parts.add_parser(name)
        part.add_argument("folder")
        part.add_argument("--items", type=int, default=items)
        part.add_argument("--bad", type=int, default=30)
        part.add_argument("--kills", type=int, default=10)
        part.add_argument("--seed", type=int, default=0)
        part.add_argument("--engines", nargs="+", default=["local", "ray"], choices=["local", "ray"])
        part.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
        part.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="actors of Ray, one run for each number")
    parts.add_parser("task").add_argument("task")
    arguments = parser.parse_args()
    if arguments.what == "task":
        name, folder, *numbers = json.loads(arguments.task)
        tasks: dict[str, Callable[..., Any]] = {"size": task_size, "listing": task_listing}
        print(json.dumps(tasks[name](Path(folder), *map(int, numbers))))
    else:
        {"kill": kill, "sizes": sizes, "listing": listing}[arguments.what](arguments)


if __name__ == "__main__":
    main()
