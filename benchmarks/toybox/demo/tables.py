"""The Toybox's results as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vitlens.benchmarks.toybox.demo.evaluate import Results
from vitlens.benchmarks.toybox.sensors.drawn import LABELS
from vitlens.display.table import Table

if TYPE_CHECKING:
    from vitlens.benchmarks.toybox.demo.compose import Composed
    from vitlens.benchmarks.toybox.demo.describe import Described
    from vitlens.benchmarks.toybox.demo.generated import Generated
    from vitlens.benchmarks.toybox.demo.paint import Painted


def sensor_tables(results: Results) -> list[Table]:
    """The tables of one model: what each sensor tells, and which sensor finds which."""
    return [accuracy_table(results), *([retrieval_table(results)] if results.retrievals else [])]


def accuracy_table(results: Results) -> Table:
    """Top-1 / top-5 of every sensor on the three splits."""
    head = ("sensor", "asked for", "seen shapes", "unseen pairs", "never-seen shapes", "told apart from each other", "chance")
    rows = []
    for sensor, label in dict.fromkeys((a.sensor, a.label) for a in results.accuracies):
        cells = [_cell(results, sensor, split, label) for split in ("test", "unseen_pairs", "unseen_shapes")]
        own = _own(results, sensor, label)
        any_split = next(a for a in results.accuracies if (a.sensor, a.label) == (sensor, label))
        chance = f"{percent(any_split.chance1)} / {percent(any_split.chance5)}"
        rows.append((words(sensor), f"{label} ({any_split.classes})", *cells, own, chance))
    note = "Top-1 / top-5 in percent. Never-seen shapes were in no lens's training; beside them: among their own names alone."
    return Table(head, rows, "Zero-shot classification", note, numbers=head[2:])


def _cell(results: Results, sensor: str, split: str, label: str) -> str:
    try:
        found = results.accuracy(sensor, split, label)
    except KeyError:
        return "-"
    return f"{percent(found.top1)} / {percent(found.top5)}"


def _own(results: Results, sensor: str, label: str) -> str:
    """Never-seen shapes among their own names."""
    rows = [a for a in results.accuracies if (a.sensor, a.label, a.split) == (sensor, label, "unseen_shapes")]
    if len(rows) < 2:
        return "-"
    least = min(rows, key=lambda a: a.classes)
    return f"{percent(least.top1)} (chance {percent(least.chance1)})"


def retrieval_table(results: Results) -> Table:
    """R@1 / R@5: rows ask, columns are searched."""
    names = list(dict.fromkeys(r.query for r in results.retrievals))
    found = {(r.query, r.gallery): r for r in results.retrievals}
    items = results.retrievals[0].items
    rows = []
    for query in names:
        cells = (found.get((query, gallery)) for gallery in names)
        rows.append((words(query), *(f"{percent(r.r1)} / {percent(r.r5)}" if r else "" for r in cells)))
    chance = f"{100 / items:.1f} / {500 / items:.1f}"
    note = f"R@1 / R@5 in percent among {items} objects; chance {chance}."
    asked = [words(name) for name in names]
    return Table(("", *asked), rows, "Cross-modal retrieval: row asks, column is searched", note, numbers=asked)


def ablation_table(sensor: str, results: Mapping[str, Results], meanings: Mapping[str, str]) -> Table:
    """One row per ablation of a sensor's encoder."""
    head = ("variant", "seen shapes", "unseen pairs", "never-seen shapes", "told apart from each other", "what it is")
    rows = []
    label = LABELS[sensor]
    for name, found in results.items():
        cells = [_cell(found, sensor, split, label) for split in ("test", "unseen_pairs", "unseen_shapes")]
        rows.append((name, *cells, _own(found, sensor, label), meanings[name]))
    return Table(head, rows, f"Ablations: {words(sensor)}", "Top-1 / top-5 in percent.", numbers=head[1:-1])


DESCRIBED = {
    "all": "What the language model says, looking at all tokens of what a lens gives",
    "class_token": "The same, looking at the class token of what a lens gives",
    "patches": "What the LLaVA says, which reads patch tokens alone",
    "codes": "What the SEED-LLaMA says, which reads codes",
    "story": "What the SEED-LLaMA tells of three things in one prompt, each by a sense of its own",
}
"""Which tokens a host read -> the table's title."""


def generator_tables(found: Generated) -> list[Table]:
    """What the hosts say and the painter draws: shares of right shapes and materials, by sense."""
    told = "Share of descriptions (percent) that name the right one and no other. The host was trained on pictures alone."
    drawn = (
        "Share of painted pictures (percent) in which the Toybox's CLIP sees the right one first. The painter was trained on "
        "pictures' embeddings alone; with + the mean of two senses' embeddings, of two different things."
    )
    tables = []
    for look, title in DESCRIBED.items():
        own = [row for row in found.described if row.look == look]
        for neighbours in dict.fromkeys(row.neighbours for row in own):
            nearest = f"the {neighbours} nearest pictures of an index before the prompt, caption and codes"
            full = f"{title}; with {nearest}" if neighbours else title
            tables.append(_shares(full, [row for row in own if row.neighbours == neighbours], told))
    return [
        *tables,
        _shares("What is painted", found.painted, drawn),
        *([composed_table(found.composed)] if found.composed else []),
    ]


TASKS = {
    "codes": "painted from its codes",
    "words": "painted from a caption",
    "colour": "edited: another colour",
    "material": "edited: another material",
    "composition": "composed: the first, made of the second's material",
}
"""What the SEED-LLaMA is asked for."""


def composed_table(rows: Sequence[Composed]) -> Table:
    """What comes of codes, captions, edits and compositions: shares of right shapes, materials and colours."""
    head = ("task", "from", "right", "seen shapes", "with neighbours", "chance")
    own = {(r.task, r.sensors, r.label, bool(r.neighbours)): r for r in rows}
    lines = []
    for task, sensors, label in dict.fromkeys(key[:3] for key in own):
        alone, beside = (own.get((task, sensors, label, looked_up)) for looked_up in (False, True))
        shares = [percent(row.right) if row else "-" for row in (alone, beside)]
        chance = next(row.chance for row in (alone, beside) if row)
        lines.append((TASKS[task], words(sensors).replace("+", " + "), label, *shares, percent(chance)))
    note = (
        "Share of painted pictures (percent) in which the Toybox's CLIP sees the right one first; of colours among those of the "
        "material. Own picture: painted from the embedding of the wanted object's own picture. With neighbours: the nearest "
        "pictures of an index stand before the prompt, a caption and codes each."
    )
    return Table(head, lines, "What the SEED-LLaMA's codes become", note, numbers=head[3:])


def _shares(title: str, rows: Sequence[Described] | Sequence[Painted], note: str) -> Table:
    lines = []
    for sensors, label in dict.fromkeys((row.sensors, row.label) for row in rows):
        own = {row.split: row for row in rows if (row.sensors, row.label) == (sensors, label)}
        cells = [percent(own[s].right) if s in own else "-" for s in ("test", "unseen_pairs", "unseen_shapes")]
        lines.append((words(sensors).replace("+", " + "), label, *cells, percent(next(iter(own.values())).chance)))
    head = ("from", "right", "seen shapes", "unseen pairs", "never-seen shapes", "chance")
    return Table(head, lines, title, note, numbers=head[2:])


def words(name: str) -> str:
    """A modality's name for people."""
    return name.replace("_", " ")


def percent(share: float) -> str:
    """A share of 1 in percent, one decimal."""
    return f"{100 * share:.1f}"


def time_table(seconds: Mapping[str, float]) -> Table:
    """Minutes of every stage of a training."""
    rows = [(stage, f"{spent / 60:.1f}") for stage, spent in seconds.items()]
    rows.append(("together", f"{sum(seconds.values()) / 60:.1f}"))
    return Table(("stage", "minutes"), rows, "Time", numbers=("minutes",))
