"""`vitlens datasets`: what can be measured, what is on this machine, and what of it is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.cli.options import JsonOption, new_app
from vitlens.display.table import Table
from vitlens.errors import InputError, VitlensError

if TYPE_CHECKING:
    from vitlens.benchmarks.datasets import Dataset

app = new_app()
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", "-d", help="A folder with a folder for each dataset, or the dataset itself (else $VITLENS_DATA)."
    ),
]


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(help="One dataset: its whole card, and everything that is missing.")] = None,
    data_root: DataRoot = None,
    as_json: JsonOption = False,
) -> None:
    """List the datasets of `vitlens eval`, and what of them is missing on this machine.

    **Examples**

    vitlens datasets --data-root /data

    vitlens datasets esc50
    """
    from vitlens.benchmarks.datasets import get_dataset, list_datasets
    from vitlens.cli import console

    if name is not None:
        dataset = get_dataset(name)
        state, problems = look(dataset, data_root)
        if as_json:
            console.say_json(about(dataset, state, problems))
        else:
            say_dataset(dataset, state, problems)
        return
    found = [(get_dataset(card.name), *look(get_dataset(card.name), data_root)) for card in list_datasets()]
    if as_json:
        console.say_json([about(*row) for row in found])
        return
    rows = []
    for dataset, state, problems in found:
        card = dataset.card
        more = f" and {len(problems) - 1} more" if problems[1:] else ""
        here = f"{state}: {problems[0][0]}{more}" if problems else state
        both = f"{card.modality}, {card.other_modality or 'text'}" if card.task == "retrieval" else card.modality
        rows.append((card.name, card.task.replace("_", "-"), both, card.licence, here))
    console.say_table(Table(("dataset", "task", "modality", "licence", "on this machine"), rows))
    if data_root is None and not os.environ.get("VITLENS_DATA"):
        console.say("say where data is with --data-root FOLDER or the environment variable VITLENS_DATA")


def look(dataset: Dataset, data_root: Path | None) -> tuple[str, list[tuple[str, str]]]:
    """("here: FOLDER" | "incomplete" | "not found" | "not looked for", what is missing and what was expected there)."""
    from vitlens.benchmarks.evaluation.run import root_of

    if data_root is None and not os.environ.get("VITLENS_DATA"):
        return "not looked for", []
    try:
        root = root_of(dataset, data_root)
        problems = [(problem.path, problem.expected) for problem in dataset.check(root)]
    except VitlensError as error:
        return ("damaged" if isinstance(error, InputError) else "not found"), [(str(error), "")]
    own = root != Path(data_root or os.environ["VITLENS_DATA"]).expanduser()
    if not problems:
        return f"here: {root}", []
    return ("incomplete" if own else "not found"), problems


def about(dataset: Dataset, state: str, problems: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A card as JSON types, with what is missing."""
    from dataclasses import asdict

    missing = [{"path": path, "expected": expected} for path, expected in problems]
    return {**asdict(dataset.card), "state": state, "missing": missing}


def say_dataset(dataset: Dataset, state: str, problems: Sequence[tuple[str, str]]) -> None:
    """A whole card."""
    from vitlens.cli import console

    card = dataset.card
    split = card.default_split
    counts = ", ".join(
        f"{name} ({count or 'size not known'}{', default' if name == split else ''})" for name, count in card.splits.items()
    )
    pairs = [("dataset", card.name), ("title", card.title), ("task", card.task.replace("_", "-")), ("modality", card.modality)]
    pairs += [("searched", card.other_modality or "captions")] if card.task == "retrieval" else []
    pairs += [("splits", counts)]
    if card.task != "retrieval":
        pairs += [("classes", str(len(dataset.classes(split)))), ("prompts", f"{len(dataset.prompts(split))} templates")]
    pairs += [("licence", card.licence), ("source", card.source), ("card version", card.version), ("layout", card.layout)]
    pairs += [*(("note", note) for note in card.notes), ("on this machine", state)]
    pairs += [("missing", f"{path}" + (f": expected {expected}" if expected else "")) for path, expected in problems]
    console.say_pairs(pairs)
    if card.published:
        rows = [(own.model, own.metric, own.split, f"{own.value:g}", own.source, own.protocol) for own in card.published]
        console.say()
        console.say_table(Table(("published by", "metric", "split", "percent", "source", "how"), rows, numbers=("percent",)))
