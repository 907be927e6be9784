"""The progress bar of everything that takes long: on standard error, on a terminal only.

with ProgressBar() as bar:
    for done, item in enumerate(items, start=1):
        ...
        bar.update("encoding", done, len(items), note="loss 0.31")
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.text import Text

from vitlens.display.terminal import console


class ProgressBar:
    """One line per piece of work: its name, how much is done, how fast, what is left, a note.

    It appears with the first `update`, so that a spinner may have the screen until then. `show=False` keeps it silent.
    """

    def __init__(self, *, show: bool = True) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

        class Pace(ProgressColumn):
            """Items a second since the start, and the time left at that rate: a moving average is fooled by batches."""

            def render(self, task: Any) -> Text:
                made = task.completed - task.fields["before"]
                if made <= 0 or not task.elapsed:
                    return Text("")
                left = int((task.total - task.completed) * task.elapsed / made)
                clock = f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left" if left else ""
                return Text(f"{made / task.elapsed:.1f}/s{clock}", style="dim")

        self._console = console(error=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Pace(), TextColumn("{task.fields[note]}"))
        self._bars = Progress(*columns, console=self._console, disable=not (show and self._console.is_terminal))
        self._tasks: dict[str, Any] = {}
        self._show = show

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def update(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` pieces of `what`; the rate counts from what was done at the first call."""
        if what not in self._tasks:
            self._bars.start()
            self._tasks[what] = self._bars.add_task(what, completed=done, total=total, note=note, before=done)
        self._bars.update(self._tasks[what], completed=done, total=total, note=note)

    def say(self, text: str) -> None:
        """A line above the bars."""
        if self._show:
            self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._bars.stop()
