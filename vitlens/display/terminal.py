"""The terminal: consoles that print names as they are, and know when their reader has left."""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_WIDTH = 160
"""Columns where there is no terminal to ask; nothing is cut there, long cells are folded."""


class Screen(Console):
    """A console that lets the command know when the reader of its output has left (`vitlens models | head`)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, error: bool = False) -> Console:
    """A console on standard output or standard error: no markup, no emoji codes, no highlighting."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Screen(file=stream, width=width, markup=False, emoji=False, highlight=False)
