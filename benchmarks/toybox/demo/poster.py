"""The demo in one picture: an object by every sense, and what the model says of each.

python -m vitlens.benchmarks.toybox.demo.poster docs/pictures/senses.png
"""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitlens.benchmarks.toybox.demo.figures import PALE, SENSES, tiles
from vitlens.benchmarks.toybox.demo.report import Demo, namer

if TYPE_CHECKING:
    from vitlens.model import ViTLens

RIGHT, WRONG = "#1b7f4d", "#b03a2e"
COLUMNS = 5
"""Senses in a row: more could not be read on a README's width."""
LEFT_OVER = "one frozen ViT\n\nbelow each sense\nwhat it says"


def poster(demo: Demo, model: ViTLens, path: Path) -> Path:
    """Draw the first held-out object that every sense names right; if there is none, the first object."""
    import PIL.Image
    from matplotlib.figure import Figure

    from vitlens.display.pictures import save

    named = namer(demo, model)
    good = (i for i in range(len(demo.things)) if all(named(i, sense)[0][2] for sense in demo.senses))
    chosen = next(good, 0)
    tile = tiles(demo.things)
    columns = min(len(demo.senses), COLUMNS)
    rows = -(-len(demo.senses) // columns)
    figure = Figure(figsize=(2.1 * columns, 3.3 * rows), dpi=110)
    places = list(np.asarray(figure.subplots(rows, columns)).flat)
    for axes, sense in zip(places, demo.senses, strict=False):
        axes.imshow(PIL.Image.open(io.BytesIO(base64.b64decode(tile(chosen, sense).partition(",")[2]))))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#d5dbe1")
        axes.set_title(SENSES[sense], fontsize=13, color=PALE, pad=8)
        label, share, right = named(chosen, sense)[0]
        axes.set_xlabel(f"{label}\n", fontsize=16, color=RIGHT if right else WRONG, labelpad=8, weight="bold")
        axes.text(0.5, -0.33, f"{100 * share:.0f} %", fontsize=11, color=PALE, ha="center", transform=axes.transAxes)
    free = places[len(demo.senses) :]
    for axes in free:
        axes.axis("off")
    for axes in free[-1:]:
        axes.text(0.5, 0.5, LEFT_OVER, fontsize=14, color=PALE, ha="center", va="center")
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.14 / rows, bottom=0.2 / rows, wspace=0.06, hspace=0.42)
    return save(figure, path)


def main(path: Path) -> None:
    """Run the demo in a folder that is thrown away, and draw it."""
    import vitlens
    from vitlens.benchmarks.toybox.demo.run import MODEL, run_demo

    with tempfile.TemporaryDirectory() as folder:
        print(poster(run_demo(Path(folder)), vitlens.load(MODEL), path))


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1] if len(sys.argv) > 1 else "senses.png"))
