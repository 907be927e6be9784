"""The progress bar: lines on a terminal, silence elsewhere, and nothing on standard output."""

from __future__ import annotations

import io
import sys

import pytest

from vitlens.display.progress import ProgressBar, track


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error as a terminal, from within a test: pytest sets its own between fixtures and test."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return made


def test_lines_say_what_how_much_and_a_note(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = open_terminal(monkeypatch)
    with ProgressBar() as bar:
        assert terminal.getvalue() == "", "nothing before the first update"
        bar.update("embedding [b]audio[/b]", 3, 40)
        bar.say("a line above")
        bar.update("embedding [b]audio[/b]", 40, 40, note="loss 0.31")
        bar.update("images", 1, 2)
    shown = terminal.getvalue()
    assert "40/40" in shown and "1/2" in shown and "loss 0.31" in shown and "a line above" in shown
    assert capsys.readouterr().out == ""


def test_fewer_than_before_begin_a_new_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with ProgressBar() as bar:
        for done in (4, 5, 1, 2):
            bar.update("parts", done, 5)
    last = terminal.getvalue().rpartition("\x1b[1A")[2]
    assert "5/5" in terminal.getvalue() and "2/5" in last


def test_names_are_printed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with ProgressBar() as bar:
        bar.update("set [red]1[/red] :smile:", 1, 2)
    assert "[red]1[/red] :smile:" in terminal.getvalue()


@pytest.mark.parametrize("show", [True, False])
def test_it_is_silent_without_a_terminal(show: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "letters", show=show)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_track_counts_and_ends_with_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    assert list(track((i for i in range(3)), "numbers", 3)) == [0, 1, 2]
    assert "3/3" in terminal.getvalue()


def test_it_says_nothing_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with ProgressBar(show=False) as bar:
        bar.update("work", 1, 2)
        bar.say("a line")
    assert terminal.getvalue() == ""
