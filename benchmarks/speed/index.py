"""An index of many vectors: seconds to build, disk, latency of a query, recall@10, for each way of keeping vectors.

nice python -m vitlens.benchmarks.speed.index [--rows 200000] [--dim 768] [--store float32] [--width 384] [--keep-full]
python -m vitlens.benchmarks.speed.index --single 5000

Vectors are made such as encoders give them: they crowd in a cone (cosine 0.5 to its axis), lie in clusters of clusters (rows / 50
small ones in rows / 5000 large ones), and their spectrum falls off like a power of the dimension. Queries are new members of the
clusters. What is right is computed from the float32 vectors while they are made, so that memory does not grow with them.

`--single` instead adds rows one by one, with a delete after every fifth: seconds, fragments, versions, disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitlens.display.progress import ProgressBar
from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.index import Index, Rows, Term
from vitlens.index.measure import TOP, Nearest
from vitlens.space import EmbeddingSpace
from vitlens.vectors import unit

PIECE = 20_000


@dataclass(frozen=True)
class World:
    """Where vectors come from."""

    rows: int
    dim: int

    def __post_init__(self) -> None:
        generator = np.random.default_rng(0)
        spectrum = (1 + np.arange(self.dim) / 16) ** -0.5
        spectrum /= np.linalg.norm(spectrum)
        large = generator.standard_normal((max(self.rows // 5000, 4), self.dim)) * spectrum
        small = generator.standard_normal((max(self.rows // 50, 40), self.dim)) * spectrum
        centres = 0.6 * large[generator.integers(len(large), size=len(small))] + 0.6 * small
        cone = generator.standard_normal(self.dim) * spectrum
        made = {"spectrum": spectrum, "centres": centres.astype(np.float32), "cone": 0.58 * cone / np.linalg.norm(cone)}
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Unit vectors float32 [n, E]."""
        generator = np.random.default_rng([1, seed])
        centres = self.centres[generator.integers(len(self.centres), size=count)]  # type: ignore[attr-defined]
        noise = generator.standard_normal((count, self.dim), np.float32) * self.spectrum.astype(np.float32)  # type: ignore[attr-defined]
        return unit(centres + 0.5 * noise + self.cone)  # type: ignore[attr-defined]

    def pieces(self) -> Iterator[np.ndarray]:
        """All rows, some at a time."""
        for number, at in enumerate(range(0, self.rows, PIECE)):
            yield self.draw(min(PIECE, self.rows - at), number)


def measure(index: Index, nearest: Nearest, calibrate: str) -> dict[str, float]:
    """Milliseconds of a query (after some that warm up), and the share of the ten right rows that are found."""
    seconds, hits = [], []
    for query, right in zip(nearest.queries, nearest.right(), strict=True):
        begun = time.perf_counter()
        answer = index.search(Term(query, "image"), index.space, k=TOP, calibrate=calibrate)
        seconds.append(time.perf_counter() - begun)
        hits.append(len({hit.key for hit in answer.hits} & {*right}) / TOP)
    warm = np.array(seconds[len(seconds) // 5 :]) * 1000
    p10, p50, p95 = (float(np.percentile(warm, share)) for share in (10, 50, 95))
    return {"p10": p10, "p50": p50, "p95": p95, "recall": float(np.mean(hits))}


def build(arguments: argparse.Namespace, folder: Path) -> None:
    """Build an index, query it, print."""
    space, world = EmbeddingSpace("benchmark", arguments.dim), World(arguments.rows, arguments.dim)
    nearest = Nearest(queries=world.draw(arguments.queries, 10**6))
    index = Index.create(folder, space, store=arguments.store, width=arguments.width, keep_full=arguments.keep_full)
    adding, done = 0.0, 0
    clock, cpu = time.perf_counter(), time.process_time()
    with ProgressBar() as bar, index.bulk():
        for vectors in world.pieces():
            rows = Rows(space, vectors, ["image"] * len(vectors), list(map(str, range(done, done + len(vectors)))))
            nearest.see(rows.keys(), vectors, rows.modalities)
            begun = time.perf_counter()
            index.add_rows(rows)
            adding, done = adding + time.perf_counter() - begun, done + len(vectors)
            bar.update("adding", done, arguments.rows)
        clock, cpu = time.perf_counter(), time.process_time()
    making, busy = time.perf_counter() - clock, time.process_time() - cpu
    index.compact()
    info = index.info()
    screen = console()
    screen.print(f"{arguments.rows} x {arguments.dim}, {arguments.store}, width {index.storage.width}: {info.structure}")
    disk = (info.disk or 0) / 1e9
    screen.print(f"adding {adding:.0f} s, structures {making:.0f} s ({busy:.0f} s of processors), disk {disk:.2f} GB")
    rows_ = []
    for calibrate in ("none", "center"):
        found = measure(index, nearest, calibrate)
        recall = f"{found['recall']:.3f}" if calibrate == "none" else ""
        rows_.append((calibrate, *(f"{found[name]:.1f}" for name in ("p10", "p50", "p95")), recall))
    numbers = ("p10 ms", "p50 ms", "p95 ms", "recall@10")
    screen.print(Table(("calibrate", *numbers), rows_, numbers=numbers).to_rich())


def single(count: int, dim: int, folder: Path) -> None:
    """Rows one by one, deletes between them."""
    space = EmbeddingSpace("benchmark", dim)
    index = Index.create(folder, space)
    vectors, largest, begun = World(count, dim).draw(count, 0), 0, time.perf_counter()
    with ProgressBar() as bar:
        for place, vector in enumerate(vectors):
            index.add(vector[None], space, modality="image", sources=[str(place)])
            if place % 5 == 4:
                index.delete(sources=[str(place - 2)])
            if place % 100 == 99:
                largest = max(largest, index.info().disk or 0)
            bar.update("adding one by one", place + 1, count)
    seconds, info = time.perf_counter() - begun, index.info()
    index.compact()
    after = index.info()
    facts = {
        "adds": count,
        "deletes": count // 5,
        "rows": len(index),
        "ms an add": round(1000 * seconds / count, 1),
        "vectors MB": round(len(index) * dim * 4 / 1e6, 1),
        "largest MB": round(largest / 1e6, 1),
        "fragments": info.fragments,
        "versions": info.versions,
        "MB after compact": round((after.disk or 0) / 1e6, 1),
    }
    console().print(json.dumps(facts, indent=1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--store", default="float32")
    parser.add_argument("--width", type=int)
    parser.add_argument("--keep-full", action="store_true")
    parser.add_argument("--single", type=int, metavar="COUNT", help="add so many rows one by one instead")
    parser.add_argument("--folder", type=Path, help="where the index is made, and stays (default: a temporary folder)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp()) / "index"
    try:
        single(arguments.single, arguments.dim, folder) if arguments.single else build(arguments, folder)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
