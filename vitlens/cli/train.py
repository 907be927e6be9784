"""`vitlens train RECIPE.yaml [--set key=value] [--dry-run]`: train a lens, or say what would train."""

from __future__ import annotations

from typing import Annotated

import typer

from vitlens.cli.options import new_app

app = new_app()


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe (see --list).")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a value.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder of the run (default runs/NAME).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would train, and stop.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the whole recipe as YAML, and stop.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the shipped recipes, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train a lens; the same command goes on with an interrupted run. Several processes: torchrun -m vitlens train ..."""
    from vitlens.cli.console import console, say
    from vitlens.train.recipe_files import load_recipe, recipe_yaml, shipped_recipes

    if list_ or not recipe:
        for name in shipped_recipes():
            say(name)
        raise typer.Exit(0 if list_ else 2)
    if show:
        say(recipe_yaml(load_recipe(recipe, set=set_ or [])))
        return
    chosen = load_recipe(recipe, set=[*(set_ or []), *([f"output={output}"] if output else [])])
    if dry_run:
        from vitlens.train.parameters import parameter_table, summary

        for line in [*summary(chosen), *(f"note       {note}" for note in chosen.notes)]:
            say(line)
        say()
        console().print(parameter_table(chosen).table().to_rich())
        return
    from vitlens.disk import ignore_runs
    from vitlens.processes import leave, world
    from vitlens.train import LensTask, Trainer

    ignore_runs(chosen.folder)
    result = Trainer(LensTask(chosen), progress=not quiet).run()
    if world()[0] == 0:
        score = f", zero-shot top-1 {100 * result.score.top1:.1f} %" if result.score else ""
        bad = f", {len(result.bad_items)} items could not be read" if result.bad_items else ""
        guess = f" (a guess: {result.chance:.4f})" if result.chance else ""
        say(f"{result.steps} steps, loss {result.loss:.4f}{guess}{score}{bad}")
        say(f"model: {result.folder / 'model'}")
    leave()
