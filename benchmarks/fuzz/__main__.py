"""`python -m vitlens.benchmarks.fuzz`: damaged files of every format, and a table of what the readers made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitlens.benchmarks.fuzz.run import Report, fuzz
from vitlens.disk import write_text
from vitlens.display.progress import ProgressBar
from vitlens.display.terminal import console


def main(
    count: Annotated[int | None, typer.Option(min=1, help="Files to read; the long form takes 20000 and more.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Or: go on for so many seconds (75 in the gate).")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other damages.")] = 0,
    first: Annotated[int, typer.Option(min=0, help="Number of the first case: with --count 1 one case again.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="A sensor, a type, or both ('eeg set'); may be repeated.")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Files read at once.")] = 2,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also keep the table here, as Markdown.")] = None,
    keep: Annotated[Path | None, typer.Option(help="A folder for the files that crash, hang or raise anything else.")] = None,
) -> None:
    """Mutate whole files by a seed and read them, each in a process of its own. Exit code 1: some crashed, hung or raised."""
    total = count if count is not None else 500 if seconds is None else None
    with ProgressBar() as bar:

        def told(report: Report) -> None:
            done = len(report.cases)
            bar.update("damaged files", done, total or done)
            if output is not None:
                first_line = f"Cases {first} to {first + done - 1} of seed {seed}:"
                write_text(output, f"{first_line}\n\n{report.table().to_markdown()}\n")

        report = fuzz(
            seed=seed,
            count=total,
            seconds=seconds,
            formats=only or (),
            first=first,
            jobs=jobs,
            keep=keep,
            progress=told,
        )
    screen = console()
    screen.print(report.table().to_rich())
    for case in report.faults[:20]:
        screen.print(f"case {case.number} ({case.format}): {case.outcome}: {case.detail}", soft_wrap=True)
    if report.faults:
        again = f"--seed {seed} --first NUMBER --count 1"
        screen.print(f"{len(report.faults)} of {len(report.cases)} should not be; one again: {again}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
