"""Table: rows of text under a head, for the terminal, for Markdown and for pages."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True)
class Table:
    """A table of texts; columns named in `numbers` stand to the right, and on a page a + or - colours a cell of `differences`."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    numbers: Sequence[str] = ()
    differences: Sequence[str] = ()

    def filled(self) -> Table:
        """Without the columns that are empty."""
        places = [place for place in range(len(self.head)) if any(row[place] for row in self.rows)]
        rows = [[row[place] for place in places] for row in self.rows]
        return replace(self, head=[self.head[place] for place in places], rows=rows)

    def to_rich(self) -> rich.table.Table:
        """The table for the terminal; long cells are folded, none is cut."""
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for name in self.head:
            grid.add_column(Text(name), justify="right" if self._right(name) else "left", overflow="fold")
        for row in self.rows:
            grid.add_row(*map(Text, row))
        return grid

    def to_markdown(self) -> str:
        """The table and its note as Markdown, without the title."""
        marks = ["---:" if self._right(name) else "---" for name in self.head]
        lines = [_line(self.head), "|" + "|".join(marks) + "|", *map(_line, self.rows)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    def to_html(self) -> str:
        """The table alone as HTML, every cell escaped, in a frame that scrolls sideways."""
        head = "".join(f"<th{self._kind(name)}>{html.escape(name)}</th>" for name in self.head)
        rows = "".join(
            "<tr>"
            + "".join(f"<td{self._kind(n, c)}>{html.escape(c)}</td>" for n, c in zip(self.head, row, strict=True))
            + "</tr>"
            for row in self.rows
        )
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'

    __html__ = to_html  # so that a template may say {{ table }}

    def _right(self, name: str) -> bool:
        return name in self.numbers or name in self.differences

    def _kind(self, name: str, cell: str = "") -> str:
        sign = {"+": " up", "-": " down"}.get(cell[:1], "") if name in self.differences else ""
        return f' class="number{sign}"' if self._right(name) else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.splitlines()).replace("|", "\\|") for cell in cells) + " |"
