"""`vitlens bench`: figures and curves in tables, as JSON and as a plot, and whether figures got worse since an earlier run."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vitlens.benchmarks.speed.figures import FIGURES, Figure, Scope
from vitlens.benchmarks.speed.growth import Curve, curves
from vitlens.checks import known
from vitlens.disk import atomic
from vitlens.display.table import Table
from vitlens.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROWTH = "growth"
"""The group of curves, beside those of figures."""
GROUPS = (*FIGURES, GROWTH)
WORSE = 0.85
"""A ratio below this share of an earlier one is worse; noise on a shared machine stays above it."""


@dataclass(frozen=True)
class Report:
    """What was measured, and on what."""

    figures: Sequence[Figure]
    machine: dict[str, Any]
    curves: Sequence[Curve] = ()

    def tables(self) -> list[Table]:
        """Figures and curves, whichever there are."""
        return [*([self.table()] if self.figures else []), *([self.growth()] if self.curves else [])]

    def growth(self) -> Table:
        """A row a curve: its slope, and its ends."""
        rows = [
            (c.name, f"{c.slope:.2f}", *(f"{c.seconds[at]:.3g} s at {c.sizes[at]:,} {c.unit}" for at in (0, -1)))
            for c in self.curves
        ]
        said = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        return Table(("growth", "slope", "from", "to"), rows, title="How cost grows", note=said, numbers=("slope",))

    def table(self) -> Table:
        """A row a figure."""
        rows = [
            (f.name, f"{f.ratio:.2f}", "" if f.goal is None else f"{f.goal:g}", f.means, *(f"{s:.3g}" for s in f.seconds), f.note)
            for f in self.figures
        ]
        head = ("figure", "ratio", "goal", "of", "seconds", "yardstick", "note")
        said = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        return Table(head, rows, title="Speed", note=said, numbers=("ratio", "goal", "seconds", "yardstick")).filled()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        figures = [asdict(figure) for figure in self.figures]
        return {"machine": self.machine, "figures": figures, "growth": [curve.to_dict() for curve in self.curves]}

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        with atomic(path) as part:
            part.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def draw(self, path: Path) -> Path:
        """Draw the ratios as bars and the goals as marks; below them the curves."""
        from matplotlib.figure import Figure as Drawing

        from vitlens.display.pictures import save

        bars = 0.9 + 0.42 * len(self.figures) if self.figures else 0.0
        curves = 2.4 * -(-len(self.curves) // 2)
        figure = Drawing(figsize=(9, bars + curves), dpi=120, layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[bars, curves]) if bars and curves else [figure, figure]
        if bars:
            self._draw_bars(parts[0].add_subplot())
        for place, curve in enumerate(self.curves, start=1):
            curve.draw(parts[1].add_subplot(-(-len(self.curves) // 2), 2, place))
        return save(figure, path)

    def _draw_bars(self, axes: Axes) -> None:
        from vitlens.display.pictures import INK

        names = [found.name for found in self.figures][::-1]
        axes.barh(names, [found.ratio for found in self.figures][::-1], color="#2a6f97", height=0.6)
        for place, found in enumerate(list(self.figures)[::-1]):
            axes.annotate(f" {found.ratio:.2f} {found.means}", (found.ratio, place), va="center", fontsize=8, color=INK)
            if found.goal is not None:
                axes.plot([found.goal] * 2, [place - 0.38, place + 0.38], color="#c0392b", linewidth=2)
        axes.set_xscale("log")
        axes.set_xlim(right=30 * max(found.ratio for found in self.figures))
        axes.set_xlabel("ratio to the yardstick of the same run; red: the goal")

    def worse_than(self, path: Path) -> list[str]:
        """Figures that fell below 85 % of those in an earlier JSON.

        Raises:
            InputError: no such file, or none that `vitlens bench` wrote.
        """
        try:
            before = {f["name"]: float(f["ratio"]) for f in json.loads(path.read_text(encoding="utf-8"))["figures"]}
        except FileNotFoundError as error:
            raise InputError(str(path), "no such file", "the JSON of an earlier vitlens bench -o") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(str(path), f"cannot be decoded ({error})", "the JSON of an earlier vitlens bench -o") from error
        return [
            f"{figure.name}: {figure.ratio:.2f}, was {before[figure.name]:.2f}"
            for figure in self.figures
            if figure.ratio < WORSE * before.get(figure.name, 0.0)
        ]


def measure(scope: Scope, groups: Sequence[str] = (), *, progress: Callable[[str, int, int], None] | None = None) -> Report:
    """Measure the groups of figures, and the curves (default: all).

    Raises:
        OptionError: an unknown group.
    """
    known("bench: unknown figures", groups, GROUPS)
    chosen = list(groups) or list(GROUPS)
    figures: list[Figure] = []
    grown: list[Curve] = []
    for place, group in enumerate(chosen):
        if progress:
            progress(group, place, len(chosen))
        if group == GROWTH:
            grown += curves(scope)
        else:
            figures += FIGURES[group](scope)
    if progress:
        progress("done", len(chosen), len(chosen))
    return Report(figures, machine_of(scope), grown)


def machine_of(scope: Scope) -> dict[str, Any]:
    """Device, threads and version, so that nobody compares two machines unawares."""
    gpu = scope.device.type == "cuda"
    name = torch.cuda.get_device_name(scope.device) if gpu else torch.backends.cpu.get_cpu_capability()
    facts = {"device": f"{scope.device.type} {name}", "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {
        **facts,
        "bf16": _has_bf16(),
        "system": f"{platform.system()} {platform.machine()}",
        "blocks": scope.blocks,
        "batch": scope.batch,
    }


def _has_bf16() -> str:
    """Which bfloat16 products the processor has."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "not told"
    return "AMX" if "amx_bf16" in flags else "AVX512-BF16" if "avx512_bf16" in flags else "none"
