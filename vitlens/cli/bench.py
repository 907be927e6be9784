"""`vitlens bench`: how fast this machine does it, as ratios to yardsticks of the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitlens.cli.options import DeviceOption, JsonOption, new_app

app = new_app()


@app.command()
def bench(
    figures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIGURES]...", help="vit, attention, spared, points, encode, busy, start, growth; all by default."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller ViT, fewer rounds: under three minutes on two cores.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the figures as .json.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them: a .png, .pdf, .svg ... file.")] = None,
    check: Annotated[Path | None, typer.Option(help="An earlier .json: exit code 1 if a ratio fell by more than 15 %.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure speed as ratios: each figure beside a yardstick that is timed in turns with it.

    Seconds depend on the machine and on who else uses it; ratios of one run can be compared. Nothing is downloaded.

    **Examples**

    vitlens bench --quick

    vitlens bench -o speed.json --plot speed.png

    vitlens bench --quick --check speed.json
    """
    from vitlens.benchmarks.speed.bench import measure
    from vitlens.benchmarks.speed.figures import Scope
    from vitlens.cli.console import complain, say_json, say_tables
    from vitlens.devices import chosen_device
    from vitlens.disk import output_file
    from vitlens.display.pictures import FORMATS
    from vitlens.display.progress import ProgressBar

    if output is not None:
        output_file("output", output, ["json"])
    if plot is not None:
        output_file("picture", plot, FORMATS)
    target = chosen_device(device)
    scope = Scope.quick(target) if quick else Scope(device=target)
    with ProgressBar() as bar:
        report = measure(scope, figures or (), progress=bar.update)
    if output is not None:
        report.write(output)
    if plot is not None:
        report.draw(plot)
    if as_json:
        say_json(report.to_dict())
    else:
        say_tables(report.tables())
    if check is not None and (worse := report.worse_than(check)):
        complain(f"slower than in {check}: {'; '.join(worse)}")
        raise typer.Exit(1)
