"""How the commands speak: results on standard output, remarks and errors on standard error, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.text import Text

from vitlens.display.table import Table
from vitlens.display.terminal import console, output, remark

if TYPE_CHECKING:
    from vitlens.store.items import Failure


def say(text: str = "") -> None:
    """A line on standard output."""
    console().print(text, soft_wrap=True)


def complain(text: str) -> None:
    """An error on standard error, in one line."""
    console(error=True).print(Text.assemble(("error: ", "bold red"), " ".join(text.split())), soft_wrap=True)


def say_json(value: Any) -> None:
    """A value as JSON on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str), file=output())


def say_table(table: Table) -> None:
    """A table without its title on standard output."""
    console().print(table.to_rich())


def say_tables(tables: Sequence[Table]) -> None:
    """Tables with their titles and notes."""
    for table in tables:
        say(f"\n{table.title}\n")
        say_table(table)
        if table.note:
            say(table.note)


def say_pairs(pairs: Mapping[str, str] | Sequence[tuple[str, str]]) -> None:
    """Labels and their texts, in two columns."""
    from rich.table import Table as Grid

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
