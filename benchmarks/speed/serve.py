"""How a service stands up to load: throughput beside the model asked directly, latencies, a crowd, and bad files for minutes.

python -m vitlens.benchmarks.speed.serve                       # starts vitlens-toybox, all of it
python -m vitlens.benchmarks.speed.serve --only throughput --seconds 10

Clients are coroutines of one more process with httpx (locust, the kept tool of this kind, brings gevent and a web server and
counts by routes; what is asked here - nothing lost, memory flat, the model beside it in turns - it does not measure).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.libraries import pip_line

with pip_line():
    import httpx

MODEL = "vitlens-toybox"
CLIENTS = (1, 4, 16)
CROWD = 1000
Send = Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]
"""One request, awaited."""


def example_files(folder: Path, modalities: list[str], count: int) -> dict[str, list[Path]]:
    """Files of every sensor, `count` different ones each, as the model's own examples."""
    from vitlens.modality import get_modality

    sensors = {name: get_modality(name) for name in modalities}
    return {
        name: [sensor.write(sensor.example(seed), folder, f"{name}-{seed}") for seed in range(count)]
        for name, sensor in sensors.items()
    }


@contextmanager
def service(model: str, *options: str) -> Iterator[tuple[str, int]]:
    """(Address, process id) of a service of its own, once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vitlens", "serve", "--model", model, "--device", "cpu", "--port", str(port), *options]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while True:
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                try:
                    if httpx.get(f"{address}/healthz/ready", timeout=10).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.2)
            yield address, process.pid
        finally:
            process.terminate()
            process.wait()


def family(process: int) -> list[int]:
    """A process and all below it (Linux)."""
    found = [process]
    for folder in Path(f"/proc/{process}/task").glob("*"):
        with suppress(OSError):  # a thread that ended meanwhile
            for child in (folder / "children").read_text().split():
                found += family(int(child))
    return found


def memory(process: int) -> float:
    """Megabytes that a process and all below it hold; pages that several share are counted once (Linux)."""
    total = 0
    for one in family(process):
        with suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total / 1e6


def computed(process: int) -> float:
    """Seconds that a process and all below it have computed."""
    total = 0
    for one in family(process):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


async def drive(
    address: str, clients: int, seconds: float, send: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]
) -> list[float]:
    """Seconds of each request that `clients` clients had answered, one after the other each, for so long."""
    taken: list[float] = []
    end = time.monotonic() + seconds

    async def one(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            await send(http)
            taken.append(time.monotonic() - begun)

    async with httpx.AsyncClient(base_url=address, timeout=300, limits=httpx.Limits(max_connections=None)) as http:
        await asyncio.gather(*(one(http) for _ in range(clients)))
    return taken


def upload(path: Path, modality: str) -> Send:
    """A request with one file, which has to be answered with an embedding."""
    content = path.read_bytes()

    async def send(http: httpx.AsyncClient) -> None:
        reply = await http.post("/v1/embeddings", files={modality: (path.name, content)})
        reply.raise_for_status()

    return send


def throughput(name: str, modality: str, seconds: float, rounds: int) -> Table:
    """Items a second, served and asked directly, in turns, by number of clients; and what both cost in computing.

    The direct loop reads and embeds batches as large as there are clients, in one process.
    """
    import vitlens

    rows = []
    with tempfile.TemporaryDirectory() as folder, service(name) as (address, process):
        [path] = example_files(Path(folder), [modality], 1)[modality]
        model = vitlens.load(name, modalities=[modality], device="cpu")
        for clients in CLIENTS:
            direct, served, latencies = [], [], []
            direct_cost, served_cost = [], []
            for round_number in range(rounds + 1):  # the first warms up
                begun, before, count = time.monotonic(), time.process_time(), 0
                while time.monotonic() - begun < seconds:
                    model.encode({modality: [path] * clients}, batch_size=clients)
                    count += clients
                if round_number:
                    direct.append(count / (time.monotonic() - begun))
                    direct_cost.append((time.process_time() - before) / count)
                before_served, begun = computed(process), time.monotonic()
                taken = asyncio.run(drive(address, clients, seconds, upload(path, modality)))
                if round_number:
                    served.append(len(taken) / (time.monotonic() - begun))
                    served_cost.append((computed(process) - before_served) / len(taken))
                    latencies += taken
            p50, p95, p99 = 1000 * np.percentile(latencies, (50, 95, 99))
            ratio = float(np.median(np.array(served) / np.array(direct)))
            costs = [f"{1000 * np.median(cost):.1f}" for cost in (direct_cost, served_cost)]
            speeds = [f"{np.median(speed):.1f}" for speed in (direct, served)]
            rows.append([str(clients), *speeds, f"{100 * (ratio - 1):+.0f} %", *costs, f"{p50:.0f}", f"{p95:.0f}", f"{p99:.0f}"])
    columns = ("clients", "direct/s", "served/s", "difference", "direct CPU ms", "served CPU ms", "p50 ms", "p95 ms", "p99 ms")
    return Table(columns, rows, title=f"{modality} files, {name}", numbers=columns)


def crowd(name: str, modality: str, count: int) -> Table:
    """`count` requests at the same time."""
    with tempfile.TemporaryDirectory() as folder, service(name) as (address, _):
        [path] = example_files(Path(folder), [modality], 1)[modality]
        content = path.read_bytes()

        kinds: Counter[str] = Counter()

        async def one(http: httpx.AsyncClient) -> None:
            while True:
                reply = await http.post("/v1/embeddings", files={modality: (path.name, content)})
                if reply.status_code != 429:
                    break
                kinds["429, sent again when Retry-After was over"] += 1
                await asyncio.sleep(int(reply.headers["retry-after"]))
            kinds[str(reply.status_code)] += 1

        async def ask() -> list[Any]:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as http:
                return list(await asyncio.gather(*(one(http) for _ in range(count)), return_exceptions=True))

        begun = time.monotonic()
        kinds.update(type(error).__name__ for error in asyncio.run(ask()) if error is not None)
        seconds = time.monotonic() - begun
    rows = [[kind, str(number)] for kind, number in sorted(kinds.items())]
    return Table(
        ("answer", "requests"),
        rows,
        title=f"{count} requests at once, {modality} files, {name}: {seconds:.0f} s",
        numbers=("requests",),
    )


def mixed(name: str, seconds: float, clients: int = 8) -> Table:
    """All sensors and texts by several clients, a damaged file in every ten requests: memory by the minute, answers by status."""
    import vitlens

    modalities = [one for one in vitlens.card(name).spec.modalities if one != "text"]
    answers: Counter[str] = Counter()
    held: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, service(name) as (address, process):
        files = example_files(Path(folder), modalities, 3)
        contents = [(kind, path.name, path.read_bytes()) for kind, paths in files.items() for path in paths]
        dice = random.Random(0)
        done = threading.Event()

        def watch() -> None:
            begun = time.monotonic()
            while not done.wait(10):
                held.append((time.monotonic() - begun, memory(process)))

        async def send(http: httpx.AsyncClient) -> None:
            kind, file, content = dice.choice(contents)
            bad = dice.random() < 0.1
            if bad:
                keep = dice.randrange(len(content))
                content = content[:keep] + dice.randbytes(min(64, len(content) - keep))
            if dice.random() < 0.2 and not bad:
                reply = await http.post("/v1/embeddings", json={"input": ["a chair", "a mug"]})
            else:
                reply = await http.post("/v1/embeddings", files={kind: (file, content or b"x")})
            answers[f"{'bad' if bad else 'good'} file: {reply.status_code}"] += 1

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        asyncio.run(drive(address, clients, seconds, send))
        done.set()
        watcher.join()
    rows = [[kind, str(number)] for kind, number in sorted(answers.items())]
    rows += [[f"memory after {at:.0f} s, MB", f"{value:.0f}"] for at, value in held[:: max(len(held) // 8, 1)]]
    return Table(
        ("what", "number"), rows, title=f"mixed load for {seconds:.0f} s by {clients} clients, {name}", numbers=("number",)
    )


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("throughput", "crowd", "mixed"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--modality", default="audio")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of throughput")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5, help="of mixed load")
    parser.add_argument("--json", type=Path, help="also write the tables there")
    given = parser.parse_args()
    work: dict[str, Callable[[], Table]] = {
        "throughput": lambda: throughput(given.model, given.modality, given.seconds, given.rounds),
        "crowd": lambda: crowd(given.model, given.modality, CROWD),
        "mixed": lambda: mixed(given.model, 60 * given.minutes),
    }
    written = {}
    for name, run in work.items():
        if given.only in (None, name):
            table = run()
            written[name] = [list(table.head), *map(list, table.rows)]
            console().print(table.title)
            console().print(table.to_rich())
    if given.json:
        given.json.write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
