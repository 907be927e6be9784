"""What smaller vectors cost: recall of the Toybox's retrieval when the gallery is kept as float16, int8, bits, or cut.

nice python -m vitlens.benchmarks.speed.vectors [--model vitlens-toybox] [--objects 196]

A held-out object's depth map, touch and sound each look for it among the pictures of all. Queries stay float32, cut as the
gallery is. "recall@10" is the share of the whole float32 gallery's ten nearest that are found again, "R@1" and "R@10" how often
the object itself is first, or among ten.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import vitlens
from vitlens.benchmarks.toybox.demo.evaluate import GALLERY, embed_drawn
from vitlens.benchmarks.toybox.sensors.drawn import draw
from vitlens.benchmarks.toybox.world.objects import World
from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.vectors import KINDS, Packing, decoded, unit

GALLERY_SENSOR = "image"
QUERY_SENSORS = ("depth", "tactile", "audio")
TOP = 10


def nearest(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Places [q, TOP] of the nearest of `gallery` [n, w], best first."""
    return np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :TOP]


def row(packing: Packing, gallery: np.ndarray, queries: np.ndarray, right: np.ndarray) -> tuple[str, ...]:
    """One way of keeping the gallery [n, E]: bytes of a vector, what queries [q, E] still find of `right` [q, TOP]."""
    kept = packing.encode(packing.cut(gallery))
    found = nearest(unit(decoded(kept, packing.kind)), packing.cut(queries))
    own = np.arange(len(queries)) % len(gallery)
    recall = np.mean([len({*a} & {*b}) / TOP for a, b in zip(found.tolist(), right.tolist(), strict=True)])
    first, ten = (found[:, 0] == own).mean(), (found == own[:, None]).any(axis=1).mean()
    width = str(packing.width or gallery.shape[1])
    return packing.kind, width, str(kept[0].nbytes), f"{recall:.3f}", f"{100 * first:.1f}", f"{100 * ten:.1f}"


def table(gallery: np.ndarray, queries: np.ndarray) -> Table:
    """Every kind, whole, cut to a half and to a quarter."""
    dim, right = gallery.shape[1], nearest(gallery, queries)
    rows = [
        row(Packing(kind, None if part == 1 else dim // part), gallery, queries, right) for part in (1, 2, 4) for kind in KINDS
    ]
    head = ("store", "width", "bytes", "recall@10", "R@1 %", "R@10 %")
    return Table(head, rows, numbers=head[1:])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vitlens-toybox")
    parser.add_argument("--objects", type=int, default=GALLERY)
    arguments = parser.parse_args()
    sensors = (GALLERY_SENSOR, *QUERY_SENSORS)
    model = vitlens.load(arguments.model, modalities=sensors, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = embed_drawn(model, draw(Path(folder), World(), "test", arguments.objects, sensors, workers=0), sensors)
    queries = np.concatenate([found[sensor].numpy() for sensor in QUERY_SENSORS])
    console().print(table(found[GALLERY_SENSOR].numpy(), queries).to_markdown(), soft_wrap=True)


if __name__ == "__main__":
    main()
