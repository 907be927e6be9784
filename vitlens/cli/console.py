"""What the commands print: tables on standard output, progress and remarks on standard error, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from vitlens.cards import ModelCard
    from vitlens.cli.doctor import Check
    from vitlens.cli.inputs import Failure, Inputs
    from vitlens.modality import Modality
    from vitlens.store.job import Result

PIPE_WIDTH = 160
"""Columns where there is no terminal to ask; nothing is cut there, long cells are folded."""


class Screen(Console):
    """A console that lets the command know when the reader of its output has left (`vitlens models | head`)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, error: bool = False) -> Console:
    """A console that prints names as they are: no markup, no emoji codes, no highlighting."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Screen(file=stream, width=width, markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """A line on standard output."""
    console().print(text, soft_wrap=True)


def remark(text: str) -> None:
    """A line on standard error."""
    console(error=True).print(text, soft_wrap=True, style="dim")


def complain(text: str) -> None:
    """An error on standard error, in one line."""
    console(error=True).print(Text.assemble(("error: ", "bold red"), " ".join(text.split())), soft_wrap=True)


def say_json(value: Any) -> None:
    """A value as JSON on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; columns named in `right` hold numbers."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def say_pairs(pairs: Mapping[str, str] | Sequence[tuple[str, str]]) -> None:
    """Labels and their texts, in two columns."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs.items() if isinstance(pairs, Mapping) else pairs:
        grid.add_row(label, text)
    console().print(grid)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner while something takes time; silent without a terminal."""
    screen = console(error=True)
    if screen.is_terminal:
        with screen.status(text):
            yield
    else:
        yield


@contextmanager
def progress() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[], None]]]:
    """Two functions: (modality, done, total) starts a bar with rate and remaining time, () moves it on; on a terminal only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

    class Pace(ProgressColumn):
        """Items a second since the start, and the time left at that rate: batches come in bursts, which fool a moving average."""

        def render(self, task: Any) -> Text:
            made = task.completed - task.fields["before"]
            if not made or not task.elapsed:
                return Text("")
            left = int((task.total - task.completed) * task.elapsed / made)
            clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
            return Text(f"{made / task.elapsed:.1f}/s, {clock} left" if left else f"{made / task.elapsed:.1f}/s", style="dim")

    screen = console(error=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Pace())
    bars = Progress(*columns, console=screen, disable=not screen.is_terminal)
    current: list[Any] = []

    def started(modality: str, done: int, total: int) -> None:
        bars.start()  # not before: the spinner of a model that is being loaded has the screen until then
        current.append(bars.add_task(modality, completed=done, total=total, before=done))

    try:
        yield started, lambda: bars.advance(current[-1])
    finally:
        bars.stop()


def say_plan(inputs: Inputs) -> None:
    """What a dry run would embed."""
    shown = table("item", "modality", "read options")
    for item in inputs.items[:20]:
        shown.add_row(item.name, item.modality, ", ".join(f"{k}={v}" for k, v in item.options.items()))
    console().print(shown)
    if len(inputs.items) > 20:
        say(f"... and {len(inputs.items) - 20} more (--json lists all)")
    counts = ", ".join(f"{len(items)} {modality}" for modality, items in inputs.by_modality().items())
    say(f"{counts or 'nothing'} to embed; nothing was done (--dry-run)")
    say_failures(inputs.failures)


def say_failures(failures: Sequence[Failure], most: int = 5) -> None:
    """The first inputs that failed, on standard error."""
    for failure in failures[:most]:
        complain(f"{failure.name}: {failure.error}")
    if len(failures) > most:
        remark(f"... and {len(failures) - most} more")


def say_result(result: Result) -> None:
    """What an embedding job wrote."""
    say_failures(result.failures)
    if result.errors_file is not None:
        total = len(result.failures) + sum(result.counts.values())
        remark(f"{len(result.failures)} of {total} inputs failed, see {result.errors_file}")
    if result.output is None or result.space is None:
        complain("nothing was embedded, no output written")
        return
    counts = ", ".join(f"{count} {modality}" for modality, count in result.counts.items())
    before = f" ({result.resumed} from an earlier, stopped run)" if result.resumed else ""
    say(f"{result.output}: {counts} embeddings of {result.space.dim} values{before}, space {result.space.name}")


def say_classes(rows: Sequence[dict[str, Any]]) -> None:
    """A line per item and label: probability and cosine."""
    shown = table("item", "modality", "label", "probability", "cosine", right=("probability", "cosine"))
    for row in rows:
        for place, best in enumerate(row["top"]):
            head = (row["item"], row["modality"]) if place == 0 else ("", "")
            shown.add_row(*head, best["label"], f"{100 * best['probability']:.1f} %", f"{best['cosine']:.3f}")
    console().print(shown)


def say_similarity(rows: Sequence[str], columns: Sequence[str], matrix: Any, *, itself: bool = False, most: int = 3) -> None:
    """The whole table of cosines where it fits the screen, else the `most` nearest of every row.

    `itself` says that rows and columns are the same items: none is its own neighbour.
    """
    screen = console()
    if max(map(len, rows)) + sum(max(len(name), 6) + 4 for name in columns) <= screen.width:
        names = [_distinct(name, place, columns) for place, name in enumerate(columns)]
        shown = table("", *names, right=names)
        for name, values in zip(rows, matrix, strict=True):
            shown.add_row(name, *(f"{value:.3f}" for value in values))
    else:
        shown = table("item", "nearest", "cosine", right=("cosine",))
        for row, (name, values) in enumerate(zip(rows, matrix, strict=True)):
            nearest = [column for column in values.argsort()[::-1] if not itself or column != row]
            for place, column in enumerate(nearest[:most]):
                shown.add_row(name if place == 0 else "", columns[column], f"{values[column]:.3f}")
    screen.print(shown)


def _distinct(name: str, place: int, names: Sequence[str]) -> str:
    return name if names.count(name) == 1 else f"{name} ({place + 1})"


def say_cards(cards: Sequence[ModelCard]) -> None:
    """A line per model."""
    shown = table("model", "modalities", "licence", "summary")
    for card in cards:
        licence = card.licence.partition(" (")
        shown.add_row(card.name, " ".join(card.spec.modalities), licence[0] + " *" * bool(licence[1]), card.summary)
    console().print(shown)
    if any("(" in card.licence for card in cards):
        say("* with a remark: vitlens models NAME shows it")


def say_card(card: ModelCard, places: Mapping[Any, str | None]) -> None:
    """Everything a card says, and where its weights are on this machine."""
    from vitlens.cli.about import weights_name

    say_pairs(
        [
            ("model", card.name),
            ("summary", card.summary),
            ("modalities", ", ".join(card.spec.modalities)),
            ("space", f"{card.spec.space.name}, {card.spec.space.dim} values"),
            ("licence", card.licence),
            ("training data", card.training_data),
            ("source", card.source),
            *(("note", note) for note in card.notes),
            *(("weights", f"{weights_name(file, card)}: {place or 'not on this machine'}") for file, place in places.items()),
        ]
    )
    if card.scores:
        shown = table("published score", "metric", "value", "source", right=("value",))
        for score in card.scores:
            shown.add_row(score.dataset, score.metric, f"{score.value:g}", score.source)
        console().print()
        console().print(shown)


def say_modalities(found: Sequence[Mapping[str, Any]]) -> None:
    """A line per modality."""
    shown = table("modality", "unit", "file types", "from")
    for known in found:
        unit = known.get("unit") or f"cannot be loaded: {known['problem']}"
        shown.add_row(known["name"], unit, " ".join(known.get("extensions", ())), known["package"])
    console().print(shown)


def say_modality(known: Mapping[str, Any]) -> None:
    """Everything known of one modality."""
    pairs = [(key.replace("_", " "), value) for key, value in known.items() if isinstance(value, str)]
    pairs.append(("file types", " ".join(known["extensions"])))
    pairs.append(("read options", ", ".join(known["read_options"]) or "none"))
    pairs += [("option", f"{option} = {value}") for option, value in known["options"].items()]
    pairs += [(f"step {number}", step) for number, step in enumerate(known["steps"], start=1)]
    say_pairs(pairs)


def say_info(facts: Mapping[str, str], modality: Modality, tensor: Mapping[str, Any]) -> None:
    """What a file is, and what will be made of it."""
    steps = [(f"step {number}", step) for number, step in enumerate(modality.steps(), start=1)]
    say_pairs([*facts.items(), ("unit", modality.unit), *steps, ("tensor", f"{tensor['dtype']} {tensor['shape']}")])


def say_checks(checks: Iterable[Check], *, quiet: bool = False) -> list[Check]:
    """Print findings as they come, broken ones with what repairs them; returns all."""
    signs = {"ok": ("ok", "green"), "note": ("-", "yellow"), "broken": ("BROKEN", "bold red")}
    made: list[Check] = []
    screen = console()
    for check in checks:
        if not quiet:
            if not made or made[-1].group != check.group:
                screen.print(check.group, style="bold")
            sign, style = signs[check.state]
            line = Text.assemble("  ", (f"{sign:7}", style), f"{check.name:27} ", check.detail)
            screen.print(line, soft_wrap=True)
            if check.fix and check.state != "ok":
                screen.print(f"{'':9} -> {check.fix}", soft_wrap=True, style="bold")
        made.append(check)
    if not quiet:
        problems = sum(check.state == "broken" for check in made)
        screen.print(f"{problems} to repair" if problems else "everything needed works", style="bold")
    return made
