"""The progress bar of everything that takes long: on standard error, on a terminal only.

with ProgressBar() as bar:
    for done, item in enumerate(items, start=1):
        ...
        bar.update("encoding", done, len(items), note="loss 0.31")

for item in track(items, "encoding"):
    ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

from rich.text import Text

from vitlens.display.terminal import console

T = TypeVar("T")


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
        name, note = (TextColumn("{task." + field + "}", markup=False) for field in ("description", "fields[note]"))
        columns = (name, BarColumn(), MofNCompleteColumn(), Pace(), note)
        self._bars = Progress(*columns, console=self._console, disable=not (show and self._console.is_terminal))
        self._lines: dict[str, tuple[Any, int]] = {}
        self._show = show

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def update(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` pieces of `what`; the rate counts from the first call. Fewer than before are a new line."""
        line, before = self._lines.get(what, (None, 0))
        if line is None or done < before:
            self._bars.start()
            line = self._bars.add_task(what, completed=done, total=total, note=note, before=done)
        self._lines[what] = (line, done)
        self._bars.update(line, completed=done, total=total, note=note)

    def say(self, text: str) -> None:
        """A line above the bars."""
        if self._show:
            self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._bars.stop()


def track(items: Iterable[T], what: str, total: int | None = None, *, show: bool = True) -> Iterator[T]:
    """The `items` one by one, with a bar that says how many of `total` (default: their number) were worked on."""
    if not show:
        yield from items
        return
    count = len(items) if total is None and isinstance(items, Sized) else total or 0
    with ProgressBar() as bar:
        bar.update(what, 0, count)
        for done, item in enumerate(items, start=1):
            yield item
            bar.update(what, done, count)
