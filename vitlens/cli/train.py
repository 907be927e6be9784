"""`vitlens train RECIPE.yaml [--set key=value] [--dry-run]`: train a lens, or say what would train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vitlens.train.recipe_files import load_recipe, recipe_yaml, shipped_recipes

if TYPE_CHECKING:
    from vitlens.train.loop import Result


def cli_train(
    recipe: str, *, set: Sequence[str] = (), output: str | None = None, dry_run: bool = False, progress: bool = True
) -> Result | None:
    """What the command does: train a recipe (a YAML file or a shipped name), or with `dry_run` print what would train.

    Raises:
        OptionError: a recipe that cannot be used; the key is named.
    """
    from rich.console import Console

    changes = [*set, *([f"output={output}"] if output else [])]
    chosen = load_recipe(recipe, set=changes)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if dry_run:
        from vitlens.train.parameters import parameter_table, summary

        for line in [*summary(chosen), *(f"note       {note}" for note in chosen.notes)]:
            console.print(line)
        console.print()
        console.print(parameter_table(chosen).to_rich())
        return None
    from vitlens.processes import leave, world
    from vitlens.train.loop import Trainer

    result = Trainer(chosen, progress=progress).run()
    if world()[0] == 0:
        score = f", zero-shot top-1 {100 * result.score.top1:.1f} %" if result.score else ""
        bad = f", {len(result.bad_items)} items could not be read" if result.bad_items else ""
        console.print(f"{result.steps} steps, loss {result.loss:.4f}{score}{bad}")
        console.print(f"model: {result.folder / 'model'}")
    leave()
    return result


def train_command(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe (see --list).")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a value.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder of the run (default runs/NAME).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would train, and stop.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the whole recipe as YAML, and stop.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the shipped recipes, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train a lens; the same command goes on with an interrupted run. Several processes: torchrun -m vitlens train ..."""
    if list_ or not recipe:
        for name in shipped_recipes():
            typer.echo(name)
        raise typer.Exit(0 if list_ else 2)
    if show:
        typer.echo(recipe_yaml(load_recipe(recipe, set=set_ or [])))
        return
    cli_train(recipe, set=set_ or [], output=output, dry_run=dry_run, progress=not quiet)
