"""The report of several results: Markdown to paste somewhere, and one self-contained HTML page, beside the published numbers."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitlens.benchmarks.evaluation.confusion import most_confused
from vitlens.benchmarks.evaluation.results import Result
from vitlens.disk import atomic

STYLES = (Path(__file__).parents[1] / "toybox" / "demo" / "report.css", Path(__file__).with_name("report.css"))
MAIN = {"classification": ("top1", "top5"), "multi_label": ("mAP",)}
SHOWN = 6
"""Best and worst classes, confused pairs and skipped items that are shown."""


@dataclass(frozen=True)
class Grid:
    """A table: columns whose name begins with a space hold words, the others numbers."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def filled(self) -> Grid:
        """Without the columns that are empty."""
        places = [place for place in range(len(self.head)) if any(row[place] for row in self.rows)]
        return Grid(tuple(self.head[p] for p in places), [tuple(row[p] for p in places) for row in self.rows])

    def markdown(self) -> str:
        """The table in Markdown."""
        marks = [":---" if name.startswith(" ") else "---:" for name in self.head]
        lines = [[name.strip() for name in self.head], marks, *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def html(self) -> str:
        """The table in HTML; a cell that begins with + or - is a difference."""
        kinds = ["left" if name.startswith(" ") else "" for name in self.head]
        head = "".join(f'<th class="{kind}">{_text(name.strip())}</th>' for name, kind in zip(self.head, kinds, strict=True))
        rows = "".join(
            "<tr>"
            + "".join(f'<td class="{kind or _sign(c)}">{_text(c)}</td>' for c, kind in zip(row, kinds, strict=True))
            + "</tr>"
            for row in self.rows
        )
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def write_report(output: Path, results: Sequence[Result]) -> list[Path]:
    """Write `output`/report.md and report.html for results whose folders are in `output`."""
    ordered = sorted(results, key=lambda r: (r.dataset["name"], r.dataset["split"], r.model["name"], r.task, r.protocol))
    pages = {"report.md": markdown(ordered), "report.html": page(ordered, output)}
    for name, content in pages.items():
        with atomic(output / name) as part:
            part.write_text(content, encoding="utf-8")
    return [output / name for name in pages]


# --- what both show ----------------------------------------------------------------------------------------------------------


def main_metrics(result: Result) -> list[str]:
    """The metrics that stand for a result."""
    names = MAIN.get(result.dataset["task"]) or [name for name in result.metrics if name.endswith("r@1")]
    return [name for name in names if name in result.metrics]


def summary(results: Iterable[Result]) -> Grid:
    """One line per result: its first metric beside chance and the best published number, and its other ones."""
    rows = []
    for result in results:
        name, *others = main_metrics(result) or list(result.metrics)
        best = max((p for p in result.published if p["metric"] == name), key=lambda p: p["value"], default=None)
        beside = (f"{best['model']} {best['value']:.1f}", signed(best["delta"])) if best else ("", "")
        what = (result.dataset["name"], result.dataset["split"], result.model["name"], task_name(result), result.protocol)
        also = ", ".join(f"{words(other)} {result.metrics[other]:.1f}" for other in others)
        guess = chance(result, name)
        ours = (words(name), f"{result.metrics[name]:.2f}", f"{guess:.1f}" if guess else "", also)
        rows.append((*what, str(result.dataset["items"]), *ours, *beside, ", ".join(result.differs)))
    head = (" dataset", " split", " model", " task", " protocol", "items", " metric", "ours", "chance", " also")
    return Grid((*head, " best published", "difference", " remark"), rows).filled()


def chance(result: Result, metric: str) -> float | None:
    """What a guess among equally likely classes gives, where that is known."""
    if result.dataset["task"] != "classification" or not metric.startswith("top"):
        return None
    return min(100.0, 100 * int(metric[3:]) / len(result.per_class))


def published(result: Result) -> Grid:
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
    return Grid((" published by", " metric", "theirs", "ours", "difference", " how and where"), rows)


def facts(result: Result) -> list[str]:
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


def ranked_classes(result: Result) -> list[tuple[str, float, int]]:
    """(class, score, items) of classes with a score, best first."""
    key = "AP" if result.dataset["task"] == "multi_label" else "top1"
    rows = [(name, row[key], int(row.get("items", 0))) for name, row in result.per_class.items() if key in row]
    return sorted(rows, key=lambda row: -row[1])


def task_name(result: Result) -> str:
    """The task, few-shot with its number."""
    return f"{result.settings['shots']}-shot" if result.settings.get("shots") else result.task


def words(metric: str) -> str:
    """A metric's name for people."""
    return metric.replace("_r@", " R@").replace("_", " ").replace("top", "top-")


def signed(value: float) -> str:
    """A difference."""
    return f"{'+' if value >= 0 else '-'}{abs(value):.1f}"


# --- Markdown ----------------------------------------------------------------------------------------------------------------


def markdown(results: Sequence[Result]) -> str:
    """The whole report in Markdown; scores in percent."""
    parts = ["# Benchmarks", "Scores in percent.", summary(results).markdown()]
    for result in results:
        parts += [f"## {result.title}", "; ".join(facts(result)) + "."]
        parts += [f"**Not comparable as it is: {', '.join(result.differs)}.**"] if result.differs else []
        parts.append(Grid((" metric", "percent"), [(words(n), f"{v:.2f}") for n, v in result.metrics.items()]).markdown())
        parts += [published(result).markdown()] if result.published else []
        parts += [f"![confusion matrix]({result.slug}/confusion.png)"] if result.confusion else []
        parts += [f"- {note}" for note in result.notes]
        parts += [f"- skipped {item['item']}, {item['file']}: {item['reason']}" for item in result.skipped[:SHOWN]]
    return "\n\n".join(parts) + "\n"


# --- HTML --------------------------------------------------------------------------------------------------------------------


def page(results: Sequence[Result], output: Path) -> str:
    """The whole report as one HTML page; pictures of confusions are taken from `output`."""
    style = "\n".join(path.read_text(encoding="utf-8") for path in STYLES)
    sections = "\n".join(_section(result, output) for result in results)
    intro = "<p>Scores in percent. A difference is ours minus the best published number of the same split and metric.</p>"
    body = f"<section><h2>All results</h2>{summary(results).html()}</section>{sections}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>vitlens benchmarks</title><style>{style}</style></head>\n"
        f"<body><main><h1>Benchmarks</h1>{intro}\n{body}\n</main></body></html>\n"
    )


def _section(result: Result, output: Path) -> str:
    chips = "".join(f"<span>{_text(fact)}</span>" for fact in facts(result))
    differs = ", ".join(result.differs)
    warning = f'<p class="warning">Not comparable as it is: {_text(differs)}.</p>' if differs else ""
    notes = "".join(f"<li>{_text(note)}</li>" for note in result.notes)
    parts = [
        f"<h2>{_text(result.title)}</h2>",
        f'<div class="chips">{chips}</div>',
        warning,
        f'<div class="tiles">{"".join(_tile(result, name) for name in result.metrics if not name.endswith("_std"))}</div>',
        published(result).html() if result.published else "",
        _details(result, output),
        f'<ul class="note">{notes}</ul>' if notes else "",
        _skipped(result),
    ]
    return f"<section>{''.join(parts)}</section>"


def _tile(result: Result, name: str) -> str:
    guess = chance(result, name)
    beside = f", chance {guess:.1f}" if guess else ""
    spread = f" ± {result.metrics[f'{name}_std']:.1f}" if f"{name}_std" in result.metrics else ""
    return f'<div class="tile"><b>{result.metrics[name]:.1f}</b><i>{_text(words(name))}{spread}{beside}</i></div>'


def _details(result: Result, output: Path) -> str:
    ranked = ranked_classes(result)
    if not ranked:
        return ""
    right = []
    worst = [row for row in ranked[::-1][:SHOWN] if row not in ranked[:SHOWN]]
    for title, rows in (("Best classes", ranked[:SHOWN]), ("Worst classes", worst)):
        right += [f"<h4>{title}</h4>", *(_bar(*row) for row in rows)] if rows else []
    picture = ""
    if result.confusion:
        pairs = most_confused(result.confusion["classes"], result.confusion["counts"], SHOWN)
        grid = Grid((" it is", " taken for", "items", "percent"), [(a, b, str(n), f"{share:.0f}") for a, b, n, share in pairs])
        right += ["<h4>Taken for each other most often</h4>", grid.html()] if pairs else []
        file = output / result.slug / "confusion.png"
        if file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            picture = f'<div><img class="wide" src="data:image/png;base64,{data}" alt="confusion matrix"></div>'
    return f'<div class="columns">{picture}<div>{"".join(right)}</div></div>'


def _bar(name: str, score: float, items: int) -> str:
    width = f'<div><i style="width:{score:.1f}%"></i></div>'
    return f'<div class="class"><span>{_text(name)}</span>{width}<b>{score:.1f} % of {items}</b></div>'


def _skipped(result: Result) -> str:
    if not result.skipped:
        return ""
    rows = [(item["item"], item["file"], item["reason"]) for item in result.skipped[:SHOWN]]
    more = len(result.skipped) - len(rows)
    below = f'<p class="note">and {more} more, see {_text(result.slug)}/skipped.csv</p>' if more else ""
    return f"<h4>Skipped items</h4>{Grid((' item', ' file', ' why'), rows).html()}{below}"


def _sign(cell: str) -> str:
    return {"+": "up", "-": "down"}.get(cell[:1], "")


def _text(value: str) -> str:
    return html.escape(value)
