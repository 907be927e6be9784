"""How far the EEG lens gets with fewer electrodes: some of the cap's 128, the others made by splines, beside zeros instead."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitlens.benchmarks.toybox.demo.evaluate import class_embeddings, hit_rates
from vitlens.benchmarks.toybox.demo.tables import percent
from vitlens.benchmarks.toybox.sensors import brain
from vitlens.benchmarks.toybox.sensors.drawn import LABELS, Drawn
from vitlens.display.table import Table
from vitlens.model import ViTLens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTS = (8, 16, 32, 64, brain.CHANNELS)
SHIPPED = Path(__file__).parents[1] / "weights" / "montages.json"
"""What was measured of the shipped lens."""


@dataclass(frozen=True)
class Recorded:
    """Zero-shot shapes of new objects, by recordings of some electrodes: shares of 1."""

    electrodes: int
    farthest_cm: float
    """From the nearest electrode, of all channels that were made."""
    objects: int
    splines1: float
    splines5: float
    zeros1: float
    zeros5: float


def spread_out(places: np.ndarray) -> list[int]:
    """An order of electrodes [n, 3] whose first ones are spread over the head: the next is the farthest from all before."""
    order, apart = [0], np.full(len(places), np.inf)
    while len(order) < len(places):
        apart = np.minimum(apart, np.linalg.norm(places - places[order[-1]], axis=1))
        order.append(int(apart.argmax()))
    return order


def recorded(model: ViTLens, drawn: Drawn, counts: Sequence[int] = COUNTS) -> list[Recorded]:
    """What `model` makes of the EEG that was `drawn`, by as many electrodes as `counts` says."""
    names, classes = class_embeddings(model, LABELS["eeg"])
    targets = torch.tensor([names.index(getattr(thing, LABELS["eeg"])) for thing in drawn.things])
    order, items, rows = spread_out(brain.electrodes()), drawn.column("eeg"), []
    for count in counts:
        kept = sorted(order[:count])
        fewer = [_fewer(item, kept) for item in items]
        zeros = [{**item, "source": _zeroed(item["source"], kept)} for item in items]
        scores = [model.encode({"eeg": some}, batch_size=128)["eeg"] @ classes.T for some in (fewer, zeros)]
        rates = [[round(share, 4) for share in hit_rates(one, targets)] for one in scores]
        facts = model.modality("eeg").load(fewer[0]).info.get("montage", {})
        rows.append(Recorded(count, facts.get("farthest_cm", 0.0), len(items), *rates[0], *rates[1]))
    return rows


def _fewer(item: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    channels = [item["channels"][row] for row in kept]
    return {**item, "source": item["source"][list(kept)], "channels": channels, "sparse": True}


def _zeroed(microvolts: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    filled = np.zeros_like(microvolts)
    filled[list(kept)] = microvolts[list(kept)]
    return filled


def shipped() -> list[Recorded]:
    """What was measured of the shipped lens."""
    return [Recorded(**row) for row in json.loads(SHIPPED.read_text(encoding="utf-8"))]


def as_json(rows: Sequence[Recorded]) -> str:
    """The rows as the text of a file."""
    return json.dumps([asdict(row) for row in rows], indent=1) + "\n"


def montage_table(rows: Sequence[Recorded]) -> Table:
    """Top-1 / top-5 in percent."""
    cells = [
        (
            str(row.electrodes),
            f"{row.farthest_cm:g} cm" if row.farthest_cm else "-",
            f"{percent(row.splines1)} / {percent(row.splines5)}",
            f"{percent(row.zeros1)} / {percent(row.zeros5)}",
        )
        for row in rows
    ]
    return Table(("electrodes", "farthest channel", "splines", "zeros"), cells, title="shapes by EEG, top-1 / top-5 in percent")


def montage_figure(rows: Sequence[Recorded]) -> Figure:
    """Top-1 over the number of electrodes, of splines and of zeros."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes, counts = figure.add_subplot(), [row.electrodes for row in rows]
    axes.plot(counts, [100 * row.splines1 for row in rows], "o-", label="missing channels made by spherical splines")
    axes.plot(counts, [100 * row.zeros1 for row in rows], "s--", label="zeros in their place")
    axes.axhline(100 / 33, color="gray", linewidth=0.8, label="chance (33 shapes)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("electrodes of the Toybox's cap of 128")
    axes.set_ylabel("shape of new objects, top-1 (%)")
    axes.legend(frameon=False)
    return figure
