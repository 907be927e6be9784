"""One table for the terminal, Markdown and pages: nothing of a cell is lost, cut, or taken for markup."""

from __future__ import annotations

import io

from rich.console import Console

from vitlens.display.table import Table

SCORES = Table(
    ("model", "ours", "difference", "remark"),
    [("a|b", "61.5", "+1.2", ""), ("<b>evil</b>", "3.0", "-0.4", "")],
    title="Scores",
    note="In percent.",
    numbers=("ours",),
    differences=("difference",),
)


def printed(table: Table, width: int = 60) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False).print(table.to_rich())
    return stream.getvalue()


def test_the_terminal_shows_every_cell() -> None:
    lines = printed(SCORES).splitlines()
    assert lines[0].split() == ["model", "ours", "difference", "remark"]
    assert "<b>evil</b>" in lines[2]
    assert lines[1].index("61.5") + 4 == lines[2].index("3.0") + 3, "numbers end in one column"
    long = Table(("name",), [("word" * 30,)])
    assert "".join(printed(long, 40).split()) == "name" + "word" * 30


def test_brackets_are_no_markup() -> None:
    table = Table(("input", "answer"), [("a[red].wav", "[/bold]")])
    stream = io.StringIO()
    Console(file=stream, width=60).print(table.to_rich())
    assert "a[red].wav" in stream.getvalue() and "[/bold]" in stream.getvalue()


def test_markdown_escapes_bars_and_keeps_rows() -> None:
    lines = SCORES.to_markdown().splitlines()
    assert lines[:3] == ["| model | ours | difference | remark |", "|---|---:|---:|---|", "| a\\|b | 61.5 | +1.2 |  |"]
    assert lines[-2:] == ["", "In percent."] and "Scores" not in lines
    assert Table(("text",), [("two\nlines",)]).to_markdown().splitlines()[-1] == "| two lines |"


def test_html_escapes_and_colours_differences() -> None:
    page = SCORES.to_html()
    assert "&lt;b&gt;evil" in page and "<b>" not in page
    assert '<td class="number up">+1.2</td>' in page and '<td class="number down">-0.4</td>' in page
    assert '<td class="number">61.5</td>' in page and "<td>a|b</td>" in page


def test_empty_columns_go() -> None:
    filled = SCORES.filled()
    assert list(filled.head) == ["model", "ours", "difference"] and all(len(row) == 3 for row in filled.rows)
    assert filled.title == "Scores" and filled.numbers == ("ours",)
