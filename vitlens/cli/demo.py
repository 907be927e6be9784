"""`vitlens demo`: held-out objects of the Toybox as files of every sensor, understood in one space; a report to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitlens.cli.options import JsonOption, new_app

app = new_app()


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("demo"),
    as_json: JsonOption = False,
) -> None:
    """Sensors that the frozen ViT never saw, understood in CLIP space: no download, about a minute."""
    from vitlens.benchmarks.toybox.demo.run import next_commands, run_demo
    from vitlens.benchmarks.toybox.demo.tables import sensor_tables
    from vitlens.cli.console import remark, say, say_json, say_tables

    made = run_demo(output, say=remark)
    if as_json:
        say_json({"report": str(made.report), "manifest": str(made.manifest), **made.results.to_dict()})
        return
    say_tables(sensor_tables(made.results))
    say(f"\n{made.report} shows it. Next:\n")
    for command in next_commands(made):
        say(f"  {command}")
