"""How the commands speak: results on standard output, remarks and errors on standard error, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid
from rich.text import Text

from vitlens.display.table import Table
from vitlens.display.terminal import console

if TYPE_CHECKING:
    from vitlens.cli.inputs import Failure


def say(text: str = "") -> None:
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


def table(*columns: str, right: Sequence[str] = ()) -> Grid:
    """An empty table; columns named in `right` hold numbers."""
    made = Grid(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def say_table(table: Table) -> None:
    """A table on standard output."""
    console().print(table.to_rich())


def say_pairs(pairs: Mapping[str, str] | Sequence[tuple[str, str]]) -> None:
    """Labels and their texts, in two columns."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs.items() if isinstance(pairs, Mapping) else pairs:
        grid.add_row(label, text)
    console().print(grid)


def say_failures(failures: Sequence[Failure], most: int = 5) -> None:
    """The first inputs that failed, on standard error."""
    for failure in failures[:most]:
        complain(f"{failure.name}: {failure.error}")
    if len(failures) > most:
        remark(f"... and {len(failures) - most} more")


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
