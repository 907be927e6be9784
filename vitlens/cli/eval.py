"""`vitlens eval SUITE...`: what is measured, with what, and what came out.

Several processes: torchrun -m vitlens eval ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.cli.datasets import DataRoot
from vitlens.cli.options import MODEL, BatchOption, DeviceOption, DryRunOption, DtypeOption, JsonOption, ReadersOption, new_app
from vitlens.disk import ignore_runs
from vitlens.display.progress import ProgressBar
from vitlens.display.table import Table
from vitlens.errors import InputError, ModalityError, OptionError

if TYPE_CHECKING:
    from vitlens.benchmarks.datasets import DatasetCard
    from vitlens.benchmarks.evaluation.results import Measurement
    from vitlens.benchmarks.evaluation.run import Found, Settings

app = new_app()
TOYBOX, TOYBOX_MODEL = "toybox", "vitlens-toybox"


@app.command(no_args_is_help=True)
def evaluate_suites(
    suites: Annotated[
        list[str],
        typer.Argument(metavar="SUITE...", help="Datasets (vitlens datasets), toybox, all, or a table of your own (.csv ...)."),
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A zoo name, a folder, or a Hub repository (default vitlens-l).")
    ] = None,
    data_root: DataRoot = None,
    split: Annotated[str | None, typer.Option(help="Split to score (default: the dataset's own).")] = None,
    protocol: Annotated[str, typer.Option(help="default, or paper: as the released evaluation code counts.")] = "default",
    prompts: Annotated[Path | None, typer.Option(help="A text file with a prompt template a line, {} for the class.")] = None,
    task: Annotated[str, typer.Option(help="zero-shot, linear-probe or few-shot.")] = "zero-shot",
    label: Annotated[str, typer.Option(help="Of a table: the column with each row's class.")] = "label",
    modality: Annotated[
        str | None, typer.Option("--as", help="Of a table with several sensors: the column that is measured.")
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Training items of each class in few-shot.")] = 16,
    draws: Annotated[int, typer.Option(min=1, help="How often few-shot draws them.")] = 5,
    train_split: Annotated[list[str] | None, typer.Option(help="Train a probe on this split; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what a probe draws.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many items, evenly from the split.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results and reports.")] = Path("runs/eval"),
    cache: Annotated[Path | None, typer.Option(help="Folder of embeddings (default: in the user's cache).")] = None,
    batch_size: BatchOption = 32,
    num_workers: ReadersOption = "auto",
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    on_error: Annotated[str, typer.Option(help="raise, or skip: go on without bad items, and say so in the result.")] = "raise",
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Measure a model on datasets: zero-shot, linear probe or few-shot, beside the published numbers.

    Every run leaves OUTPUT/RUN/result.json, per_class.csv and confusion.png, and OUTPUT/report.html and report.md over all runs
    there; git ignores a folder runs/ that is made for it. Embeddings are kept, so that a stopped run goes on and another
    protocol or probe costs next to nothing.

    **Examples**

    vitlens eval toybox

    vitlens eval esc50 modelnet40 --model vitlens-l --data-root /data

    vitlens eval recordings.csv --label species --model my-lens

    vitlens eval nyuv2 --task few-shot --shots 4

    torchrun --nproc_per_node=4 -m vitlens eval audioset --data-root /data
    """
    from vitlens.benchmarks.evaluation.run import Settings, torchrun

    settings = Settings(
        task=task,
        protocol=protocol,
        split=split,
        templates=read_templates(prompts) if prompts else None,
        templates_from=str(prompts or ""),
        train_splits=tuple(train_split or ()),
        shots=shots,
        draws=draws,
        seed=seed,
        limit=limit,
        on_error=on_error,
        batch_size=batch_size,
        num_workers=num_workers,
        dtype=dtype,
        cache=cache,
    )
    with torchrun():
        chosen = gather(suites, data_root, settings, make=not dry_run, label=label, modality=modality)
        if dry_run:
            say_plan(chosen, settings, output, as_json=as_json)
            return
        name = model or (TOYBOX_MODEL if set(suites) == {TOYBOX} else MODEL)
        failures = run_all(chosen, name, settings, output, device=device, as_json=as_json)
    if failures:
        raise typer.Exit(1)


def read_templates(path: Path) -> tuple[str, ...]:
    """Prompt templates from a file, one a line.

    Raises:
        InputError: no such file, or a line without `{}`.
    """
    from vitlens.zeroshot import fill_templates

    accepted = "a UTF-8 text file with a prompt template on each line, {} once in the place of the class"
    try:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
        fill_templates("class", lines)
    except (OSError, UnicodeDecodeError, OptionError) as error:
        found = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
        raise InputError(str(path), found, accepted) from error
    return lines


def gather(
    suites: Sequence[str],
    data_root: Path | None,
    settings: Settings,
    *,
    make: bool = True,
    label: str = "label",
    modality: str | None = None,
) -> list[Found]:
    """What to evaluate: each suite found on this machine; of "all" what is there, with a remark about the rest.

    Raises:
        InputError, OptionError: a suite that is named but unknown, not there, or incomplete.
    """
    from vitlens.benchmarks.datasets import get_dataset, list_datasets
    from vitlens.benchmarks.evaluation.run import find, root_of
    from vitlens.benchmarks.evaluation.table import find_table, is_table
    from vitlens.cli.console import remark
    from vitlens.processes import world

    found: list[Found] = []
    for suite in dict.fromkeys(suites):
        if is_table(suite):
            found.append(find_table(Path(suite), label, modality, settings))
        elif suite == TOYBOX:
            from vitlens.benchmarks.evaluation.toybox import toybox_suite

            found += toybox_suite(data_root, settings, make=make)
        elif suite == "all":
            root_of(get_dataset(list_datasets()[0].name), data_root)  # a wrong folder is not wrong for each
            for card in list_datasets():
                try:
                    found.append(find(get_dataset(card.name), data_root, settings))
                except (InputError, OptionError) as error:
                    if world()[0] == 0:
                        remark(f"{card.name} is left out: {error}")
        else:
            found.append(find(get_dataset(suite), data_root, settings))
    if not found:
        raise OptionError("no dataset is here: vitlens datasets --data-root FOLDER says what is missing")
    return found


def say_plan(chosen: Sequence[Found], settings: Settings, output: Path, *, as_json: bool) -> None:
    """What a dry run would measure."""
    from vitlens.benchmarks.evaluation.probe import trained_on
    from vitlens.benchmarks.evaluation.run import templates_of
    from vitlens.cli import console

    rows = []
    for found in chosen:
        card, classes = found.dataset.card, found.dataset.classes(found.split)
        prompts = len(templates_of(found.dataset, found.split, settings))
        what = (
            f"{len(classes)} classes, {prompts} prompts each" if prompts else f"{len(classes)} classes" if classes else "captions"
        )
        if settings.task != "zero-shot":
            what += f", trained on {trained_on(found.dataset, found.split, settings.train_splits)}"
        values = (card.name, found.split, settings.task, card.modality, len(found.items), found.expected, what, str(found.root))
        names = ("dataset", "split", "task", "modality", "items", "items of a complete copy", "against", "root")
        rows.append(dict(zip(names, values, strict=True)) | {"notes": found.notes})
    if as_json:
        console.say_json({"output": str(output), "runs": rows})
        return
    lines = []
    for row in rows:
        complete = row["items of a complete copy"]
        of = f" of {complete}" if complete and complete != row["items"] else ""
        kept = [str(row[name]) for name in ("dataset", "split", "task", "modality")]
        lines.append([*kept, f"{row['items']}{of}", str(row["against"]), str(row["root"])])
    head = ("dataset", "split", "task", "modality", "items", "against", "folder")
    console.say_table(Table(head, lines, numbers=("items",)))
    for found in chosen:
        for note in found.notes:
            console.remark(f"{found.dataset.card.name}: {note}")
    console.say(f"results would go to {output}; nothing was done (--dry-run)")


def run_all(
    chosen: Sequence[Found], name: str, settings: Settings, output: Path, *, device: str | None, as_json: bool
) -> list[str]:
    """Evaluate one after the other; the names of those that failed. A single one that fails raises instead."""
    from vitlens.benchmarks.evaluation.report import write_report
    from vitlens.benchmarks.evaluation.results import read_results
    from vitlens.benchmarks.evaluation.run import evaluate
    from vitlens.cli import console
    from vitlens.processes import world

    main = world()[0] == 0
    if main:
        ignore_runs(output)
        console.remark(f"results go to {output.resolve()}")
    with console.waiting(f"loading {name}"):
        model = _load(name, chosen, settings, device)
    results: list[Measurement] = []
    failures: list[str] = []
    with ProgressBar(show=main) as bar:
        for found in chosen:
            moved = _named(bar, found.dataset.card.name)
            try:
                results.append(
                    evaluate(model, found.dataset, None, settings, model_name=short(name), progress=moved, found=found)
                )
            except (InputError, ModalityError, OptionError) as error:
                if len(chosen) == 1:
                    raise
                failures.append(found.dataset.card.name)
                if main:
                    console.complain(f"{found.dataset.card.name}: {error}")
                continue
            if main:
                results[-1].write(output)
    if main and results:
        write_report(output, read_results(output))
        say_results(results, output, as_json=as_json)
    return failures


def _load(name: str, chosen: Sequence[Found], settings: Settings, device: str | None) -> Any:
    """The model, with the towers that are needed and that it has; what is missing is an error of its dataset."""
    import torch

    from vitlens.model import load

    wanted = dict.fromkeys(m for found in chosen for m in modalities_of(found.dataset.card, settings))
    if device is None and torch.cuda.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        device = f"cuda:{torch.cuda.current_device()}"
    try:
        return load(name, modalities=list(wanted), device=device)
    except ModalityError:
        if len(chosen) == 1:
            raise
        return load(name, device=device)


def modalities_of(card: DatasetCard, settings: Settings) -> list[str]:
    """What a model must have for a dataset."""
    return [card.modality, *([card.other_modality or "text"] if settings.task == "zero-shot" else [])]


def short(name: str) -> str:
    """A model's name for results: of a folder its last part, of a training's `RUN/model` the run's."""
    if not os.path.isdir(name):
        return name
    folder = Path(name).resolve()
    return folder.parent.name if folder.name == "model" and folder.parent.name else folder.name


def _named(bar: ProgressBar, dataset: str) -> Callable[[str, int, int], None]:
    """Moves the bar's lines of one dataset."""
    return lambda what, done, total: bar.update(f"{dataset}: {what}", done, total)


def say_results(results: Sequence[Measurement], output: Path, *, as_json: bool) -> None:
    """The results of this command."""
    from vitlens.benchmarks.evaluation.report import summary
    from vitlens.cli import console

    if as_json:
        without = [{key: value for key, value in result.to_dict().items() if key != "confusion"} for result in results]
        console.say_json([{"folder": str(output / r.slug), **values} for r, values in zip(results, without, strict=True)])
        return
    console.say_table(summary(results))
    console.say(f"{output / 'report.html'}: all results there, per class and beside the published numbers")
