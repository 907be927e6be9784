"""The report of several results: Markdown to paste somewhere, and one self-contained HTML page, beside the published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vitlens.benchmarks.evaluation.confusion import most_confused
from vitlens.benchmarks.evaluation.results import Measurement
from vitlens.disk import write_text
from vitlens.display.page import render
from vitlens.display.table import Table

PAGE = Path(__file__).with_name("report.html.j2")
MAIN = {"classification": ("top1", "top5"), "multi_label": ("mAP",)}
SHOWN = 6
"""Best and worst classes, confused pairs and skipped items that are shown."""


def write_report(output: Path, results: Sequence[Measurement]) -> list[Path]:
    """Write `output`/report.md and report.html for results whose folders are in `output`."""
    ordered = sorted(results, key=lambda r: (r.dataset["name"], r.dataset["split"], r.model["name"], r.task, r.protocol))
    pages = {"report.md": markdown(ordered), "report.html": page(ordered, output)}
    for name, content in pages.items():
        write_text(output / name, content)
    return [output / name for name in pages]


# --- what both show ----------------------------------------------------------------------------------------------------------


def main_metrics(result: Measurement) -> list[str]:
    """The metrics that stand for a result."""
    names = MAIN.get(result.dataset["task"]) or [name for name in result.metrics if name.endswith("r@1")]
    return [name for name in names if name in result.metrics]


def summary(results: Iterable[Measurement]) -> Table:
    """One line per result: its first metric beside chance and the best published number, and its other ones."""
    rows = []
    for result in results:
        name, *others = main_metrics(result) or list(result.metrics)
        best = max((p for p in result.published if p["metric"] == name), key=lambda p: p["value"], default=None)
        beside = (f"{best['model']} {best['value']:.1f}", signed(best["delta"])) if best else ("", "")
        what = (result.dataset["name"], result.dataset["split"], result.model["name"], result.task_name, result.protocol)
        also = ", ".join(f"{words(other)} {result.metrics[other]:.1f}" for other in others)
        guess = chance(result, name)
        ours = (words(name), f"{result.metrics[name]:.2f}", f"{guess:.1f}" if guess else "", also)
        rows.append((*what, str(result.dataset["items"]), *ours, *beside, ", ".join(result.differs)))
    head = ("dataset", "split", "model", "task", "protocol", "items", "metric", "ours", "chance", "also")
    theirs = ("best published", "difference", "remark")
    return Table((*head, *theirs), rows, numbers=("items", "ours", "chance"), differences=("difference",)).filled()


def chance(result: Measurement, metric: str) -> float | None:
    """What a guess among equally likely classes gives, where that is known."""
    if result.dataset["task"] != "classification" or not metric.startswith("top"):
        return None
    return min(100.0, 100 * int(metric[3:]) / len(result.per_class))


def published(result: Measurement) -> Table:
    """Ours beside theirs."""
    rows = [
        (
            p["model"],
            words(p["metric"]),
            f"{p['value']:.1f}",
            f"{result.metrics[p['metric']]:.2f}",
            signed(p["delta"]),
            "; ".join(part for part in (p["protocol"], p["source"]) if part),
        )
        for p in result.published
    ]
    head = ("published by", "metric", "theirs", "ours", "difference", "how and where")
    return Table(head, rows, numbers=("theirs", "ours"), differences=("difference",))


def facts(result: Measurement) -> list[str]:
    """What a number needs beside it."""
    dataset, settings = result.dataset, result.settings
    prompts = settings.get("prompts")
    found = [
        f"{dataset['items']} items",
        f"{len(result.per_class)} classes" if result.per_class else "",
        f"protocol {result.protocol}",
        f"dataset card version {dataset['version']}",
        f"{prompts['count']} prompts from {prompts['from']}" if prompts else "",
        f"seed {settings['seed']}" if result.task != "zero-shot" else "",
        *(f"{name} weights {value[:12]}" for name, value in result.model["weights"].items()),
        f"{result.environment['device']}, {settings['dtype']}",
        f"torch {result.environment['versions'].get('torch', '?')}",
        f"licence {dataset['licence']}",
    ]
    return [fact for fact in found if fact]


def ranked_classes(result: Measurement) -> list[tuple[str, float, int]]:
    """(class, score, items) of classes with a score, best first."""
    key = "AP" if result.dataset["task"] == "multi_label" else "top1"
    rows = [(name, row[key], int(row.get("items", 0))) for name, row in result.per_class.items() if key in row]
    return sorted(rows, key=lambda row: -row[1])


def words(metric: str) -> str:
    """A metric's name for people."""
    return metric.replace("_r@", " R@").replace("_", " ").replace("top", "top-")


def signed(value: float) -> str:
    """A difference."""
    return f"{'+' if value >= 0 else '-'}{abs(value):.1f}"


# --- Markdown ----------------------------------------------------------------------------------------------------------------


def markdown(results: Sequence[Measurement]) -> str:
    """The whole report in Markdown; scores in percent."""
    parts = ["# Benchmarks", "Scores in percent.", summary(results).to_markdown()]
    for result in results:
        parts += [f"## {result.title}", "; ".join(facts(result)) + "."]
        parts += [f"**Not comparable as it is: {', '.join(result.differs)}.**"] if result.differs else []
        scores = [(words(name), f"{value:.2f}") for name, value in result.metrics.items()]
        parts.append(Table(("metric", "percent"), scores, numbers=("percent",)).to_markdown())
        parts += [published(result).to_markdown()] if result.published else []
        parts += [f"![confusion matrix]({result.slug}/confusion.png)"] if result.confusion else []
        parts += [f"- {note}" for note in result.notes]
        parts += [f"- skipped {item['item']}, {item['file']}: {item['reason']}" for item in result.skipped[:SHOWN]]
    return "\n\n".join(parts) + "\n"


# --- HTML --------------------------------------------------------------------------------------------------------------------


def page(results: Sequence[Measurement], output: Path) -> str:
    """The whole report as one HTML page; pictures of confusions are taken from `output`."""
    sections = [section(result, output) for result in results]
    return render(PAGE, title="Benchmarks", summary=summary(results), sections=sections)


def section(result: Measurement, output: Path) -> dict[str, Any]:
    """What the page's template shows of a result."""
    ranked = ranked_classes(result)
    picture = output / result.slug / "confusion.png"
    skipped = [(item["item"], item["file"], item["reason"]) for item in result.skipped]
    return {
        "result": result,
        "facts": facts(result),
        "tiles": [tile(result, name) for name in result.metrics if not name.endswith("_std")],
        "published": published(result),
        "best": ranked[:SHOWN],
        "worst": [row for row in ranked[::-1][:SHOWN] if row not in ranked[:SHOWN]],
        "confused": confused(result),
        "picture": picture.read_bytes() if result.confusion and picture.is_file() else None,
        "skipped": Table(("item", "file", "why"), skipped[:SHOWN]),
        "more": len(skipped[SHOWN:]),
    }


def tile(result: Measurement, name: str) -> tuple[str, str]:
    """A metric's value, and what it is: with its spread, and beside chance."""
    guess = chance(result, name)
    spread = f" ± {result.metrics[f'{name}_std']:.1f}" if f"{name}_std" in result.metrics else ""
    return f"{result.metrics[name]:.1f}", words(name) + spread + (f", chance {guess:.1f}" if guess else "")


def confused(result: Measurement) -> Table:
    """The pairs of classes that are taken for each other most often."""
    pairs = most_confused(result.confusion["classes"], result.confusion["counts"], SHOWN) if result.confusion else []
    rows = [(true, taken, str(count), f"{share:.0f}") for true, taken, count, share in pairs]
    return Table(("it is", "taken for", "items", "percent"), rows, numbers=("items", "percent"))
