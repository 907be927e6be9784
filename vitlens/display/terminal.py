"""The terminal: consoles that print names as they are, and know when their reader has left."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console

PIPE_WIDTH = 160
"""Columns where there is no terminal to ask; nothing is cut there, long cells are folded."""


class Screen(Console):
    """A console that lets the command know when the reader of its output has left (`vitlens models | head`)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output(*, error: bool = False) -> TextIO:
    """Standard output or standard error. What they cannot show of a name, such as bytes that are no UTF-8, stands as \\udce9."""
    stream = sys.stderr if error else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


def console(*, error: bool = False) -> Console:
    """A console on standard output or standard error: no markup, no emoji codes, no highlighting."""
    stream = output(error=error)
    width = None if stream.isatty() else PIPE_WIDTH
    return Screen(file=stream, width=width, markup=False, emoji=False, highlight=False)


def remark(text: str) -> None:
    """A line on standard error; above the bars, where there are some."""
    console(error=True).print(text, soft_wrap=True, style="dim")
