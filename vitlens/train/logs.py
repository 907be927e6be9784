"""What a run leaves to look at: CSV files, TensorBoard events, the curve as a picture."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitlens.disk import atomic
from vitlens.errors import MissingDependencyError
from vitlens.train.options import INSTALL, LogOptions

EVALUATION_COLUMNS = ("step", "epoch", "top1", "top5", "items", "skipped")


class CsvLog:
    """A CSV file that grows line by line; opened again, it forgets what came after the step gone on from."""

    def __init__(self, path: Path, columns: tuple[str, ...], *, step: int) -> None:
        self.path = path
        self.columns = columns
        kept = [
            row for row in read_csv(path) if row.get("step", "").isdigit() and int(row["step"]) <= step and row.get(columns[-1])
        ]
        with atomic(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            writer = csv.DictWriter(stream, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        self._stream = path.open("a", newline="", encoding="utf-8", errors="surrogateescape")
        self._writer = csv.DictWriter(self._stream, columns)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a line."""
        try:
            self._writer.writerow({c: _short(row.get(c, "")) for c in self.columns})
            self._stream.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file as mappings; none when there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return [dict(row) for row in csv.DictReader(stream)]


def _short(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float) else value


class Logs:
    """The logs of the main process; `columns` are numbers of its own that a task logs at each step, `chance` a guess's loss."""

    def __init__(
        self, folder: Path, options: LogOptions, *, step: int, columns: Iterable[str] = (), chance: float | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.options = options
        self.chance = chance
        self._shown = ("loss", "lr", *columns, "grad_norm", "items_per_second")
        self.steps = CsvLog(folder / "log.csv", ("step", "epoch", *self._shown, "seconds"), step=step)
        self.evaluations = CsvLog(folder / "evaluation.csv", EVALUATION_COLUMNS, step=step)
        self._events = _event_writer(folder / "tensorboard", step) if options.tensorboard else None
        self._drawn = 0.0

    def step(self, row: Mapping[str, Any]) -> None:
        """Note one step."""
        if row["step"] % self.options.every_steps == 0:
            self.steps.add(row)
            self._to_tensorboard("train", row, self._shown)

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Note one evaluation."""
        self.evaluations.add(row)
        self._to_tensorboard("evaluation", row, ("top1", "top5"))

    def _to_tensorboard(self, group: str, row: Mapping[str, Any], keys: Iterable[str]) -> None:
        if self._events is not None:
            for key in keys:
                if row.get(key) is not None:
                    self._events.add_scalar(f"{group}/{key}", float(row[key]), int(row["step"]))

    def draw(self, *, now: bool = False) -> None:
        """Draw the curve, at most every half minute unless `now`."""
        if self.options.plot and (now or time.monotonic() - self._drawn > 30):
            draw_curve(self.folder, self.chance)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Draw the curve a last time and close the files."""
        self.draw(now=True)
        self.steps.close()
        self.evaluations.close()
        if self._events is not None:
            self._events.close()


def _event_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(f"TensorBoard logs need tensorboard: {INSTALL}, or set logs.tensorboard=false") from error
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def draw_curve(folder: Path, chance: float | None = None) -> Path | None:
    """Draw `folder`/curve.png from the CSV files: the loss, its running mean, a guess's, and the top-1 where there is one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [(int(r["step"]), float(r["loss"])) for r in read_csv(folder / "log.csv") if r.get("loss")]
    if not steps:
        return None
    top1 = [(int(r["step"]), 100 * float(r["top1"])) for r in read_csv(folder / "evaluation.csv") if r.get("top1")]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    x, y = zip(*steps, strict=True)
    axes.plot(x, y, color="0.8", linewidth=0.8)
    axes.plot(x, running_mean(y, max(1, len(y) // 50)), color="C0", label="loss")
    if chance is not None:
        axes.axhline(chance, color="0.5", linestyle="--", linewidth=0.8, label=f"a guess: {chance:.3f}")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    if top1:
        right = axes.twinx()
        right.plot(*zip(*top1, strict=True), color="C1", marker="o", markersize=3)
        right.set_ylabel("zero-shot top-1 (%)", color="C1")
        right.set_ylim(0, 100)
        right.spines["top"].set_visible(False)
    path = folder / "curve.png"
    with atomic(path) as part:
        FigureCanvasAgg(figure).print_png(str(part))
    return path


def at_chance(folder: Path, chance: float) -> str:
    """A sentence where the last losses in `folder`/log.csv are no better than a guess's; none after fewer than 20 steps."""
    losses = [float(row["loss"]) for row in read_csv(folder / "log.csv") if row.get("loss")]
    if len(losses) < 20:
        return ""
    last = losses[-max(10, len(losses) // 20) :]
    mean = sum(last) / len(last)
    if mean < 0.98 * chance:
        return ""
    return (
        f"the loss ends at {mean:.3f}; a guess gives {chance:.3f}: nothing was learned. Do the captions tell the items apart? "
        "Is the learning rate neither too small nor too large?"
    )


def running_mean(values: Iterable[float], width: int) -> list[float]:
    """The mean of up to `width` values up to each place."""
    values = list(values)
    total, means = 0.0, []
    for index, value in enumerate(values):
        total += value - (values[index - width] if index >= width else 0.0)
        means.append(total / min(index + 1, width))
    return means
