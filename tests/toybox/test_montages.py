"""The EEG lens with fewer electrodes: what was measured is what the docs say, and can be measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import vitlens
from vitlens.benchmarks.toybox import World
from vitlens.benchmarks.toybox.demo.montages import COUNTS, montage_figure, montage_table, recorded, shipped, spread_out
from vitlens.benchmarks.toybox.sensors import brain
from vitlens.benchmarks.toybox.sensors.drawn import draw

DOCS = Path(__file__).parents[2] / "docs"


def test_the_docs_show_what_was_measured() -> None:
    rows = shipped()
    assert [row.electrodes for row in rows] == list(COUNTS)
    assert montage_table(rows).to_markdown().strip() in (DOCS / "sensors.md").read_text(encoding="utf-8")
    assert all(row.splines1 >= row.zeros1 and row.splines5 >= row.zeros5 for row in rows if row.electrodes >= 32), (
        "the page says so"
    )
    assert len(montage_figure(rows).axes[0].lines) == 3


def test_first_electrodes_of_the_order_are_spread_over_the_head() -> None:
    places = brain.electrodes()
    order = spread_out(places)
    assert sorted(order) == list(range(128))
    nearest = [np.linalg.norm(places[order[n]] - places[order[:n]], axis=1).min() for n in range(1, 128)]
    assert np.all(np.diff(nearest) <= 1e-12)


def test_recordings_of_some_electrodes_are_measured(tmp_path: Path) -> None:
    model = vitlens.load("vitlens-toybox", modalities=["eeg", "text"], device="cpu")
    few, all_of_them = recorded(model, draw(tmp_path, World(), "test", 3, ["image", "eeg"], workers=0), (16, 128))
    assert (few.electrodes, few.objects, few.farthest_cm) == (16, 3, 5.4)
    assert (all_of_them.splines1, all_of_them.splines5) == (all_of_them.zeros1, all_of_them.zeros5)
