"""Two gloo processes, as torchrun would start them, evaluate together; each writes what it found to FOLDER/<rank>.json.

python -m tests.benchmarks.evaluation_processes ROOT FOLDER
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.evaluation_world import DATASETS, Shapes
from tests.train.tiny import tiny_clip
from vitlens.benchmarks.evaluation import Settings, evaluate
from vitlens.benchmarks.evaluation.run import torchrun
from vitlens.errors import InputError

APART = ("tiny-shapes", "tiny-captions")


def results(root: Path, cache: Path, *only: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The results of every kind of task (or `only` some) without what differs from run to run, and what an error says;
    beside it the number of embeddings that this process computed for each."""
    model, settings = tiny_clip(), Settings(cache=cache, batch_size=2, on_error="skip")
    runs = {cls.card.name: (cls(), settings) for cls in DATASETS}
    runs["probe"] = (Shapes(), replace(settings, task="linear-probe"))
    found, computed = {}, {}
    for name, (dataset, own) in runs.items():
        if not only or name in only:
            found[name] = evaluate(model, dataset, root, own).to_dict()
            computed[name] = found[name].pop("run")["embedded_by_this_process"]
    try:
        evaluate(model, Shapes(), root, replace(settings, on_error="raise"))
    except InputError as error:
        found["error"] = {"says": str(error)}
    return found, computed


def process(rank: int, port: int, root: Path, folder: Path) -> None:
    """One of the two."""
    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in own.items()}
    with torchrun():
        shared, computed = results(root, folder / "cache")
        apart, _ = results(root, folder / f"cache-{rank}", *APART)  # as on machines that share no folder
    (folder / f"{rank}.json").write_text(json.dumps({"shared": shared, "computed": computed, "apart": apart}))
    os._exit(0)  # torch's native threads may abort the teardown of the interpreter, after all that is tested here


def main(root: Path, folder: Path) -> int:
    """Start both; 0 when both end well."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=process, args=(rank, port, root, folder)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return max(abs(child.exitcode or 0) for child in children)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
