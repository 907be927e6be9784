"""`vitlens embed`: files, texts or the rows of a manifest become one file of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitlens.cli.options import (
    MODEL,
    BatchOption,
    DeviceOption,
    DryRunOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    ReadOption,
    TextOption,
    WorkersOption,
    new_app,
    open_model,
)
from vitlens.display.table import Table

if TYPE_CHECKING:
    from vitlens.model import ViTLens
    from vitlens.store.items import Inputs
    from vitlens.store.job import Result

app = new_app()
SHOWN = 5
"""Remarks of readers that are said."""


@app.command(no_args_is_help=True)
def embed(
    inputs: Annotated[list[str] | None, typer.Argument(help="Files, folders, or quoted patterns: 'sounds/**/*.flac'.")] = None,
    model: ModelOption = MODEL,
    modality: Annotated[
        list[str] | None,
        typer.Option("--as", help="Modality of the files (default: guessed); with --manifest the columns to take, repeated."),
    ] = None,
    text: TextOption = None,
    manifest: Annotated[
        Path | None, typer.Option(help="A .csv, .tsv, .jsonl or .parquet with a column per modality; see vitlens embed --help.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="An .npz, .parquet or .safetensors file.")] = None,
    read_option: ReadOption = None,
    batch_size: BatchOption = 32,
    num_workers: WorkersOption = 0,
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    save_every: Annotated[int, typer.Option(min=1, help="Keep what is done after so many items (and every minute).")] = 1000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Embed files, texts or a manifest into one file. Stop it at any moment: the same command goes on from there.

    Results are kept in OUTPUT.partial/ until all is done. Inputs that cannot be read are listed in OUTPUT.errors.csv, the rest
    goes on, and the exit code is 1.

    A manifest has a column per modality with paths relative to it (or texts) and may have columns such as depth.scale or
    audio.rate with read options for that row's item; empty cells are left out.

    **Examples**

    vitlens embed 'sounds/**/*.flac' -o sounds.npz

    vitlens embed kitchen.png --as depth -r depth.scale=0.001 -o depth.parquet

    vitlens embed --manifest items.csv -o items.parquet -b 64 -j 4 --dtype bf16
    """
    from vitlens.cli.console import remark, say_json
    from vitlens.cli.inputs import gather
    from vitlens.display.progress import ProgressBar
    from vitlens.errors import OptionError
    from vitlens.read_options import parse_read_options
    from vitlens.store.job import Job, Settings

    found = gather(inputs or (), texts=text or (), manifest=manifest, modalities=modality or ())
    options = parse_read_options(read_option or (), modality[0] if modality and len(modality) == 1 else None)
    settings = Settings(dtype, options, batch_size, num_workers, save_every, overwrite=overwrite)
    for note in found.notes:
        remark(note)
    if output is None and not dry_run:
        raise OptionError("say where to write the embeddings with -o FILE.npz, .parquet or .safetensors")
    job = Job(found, output or Path("-"), model, settings)
    if output is not None:
        job.check()
    if dry_run:
        say_json(found.to_dict()) if as_json else say_plan(found)
        raise typer.Exit(1 if found.failures else 0)
    with ProgressBar() as bar:

        def load(needed: list[str]) -> ViTLens:
            bar.close()  # the spinner has the screen now; the next update opens it again
            return open_model(model, needed, device)

        result = job.run(load, progress=bar.update)
    say_json(result.to_dict()) if as_json else say_result(result)
    if result.failures:
        raise typer.Exit(1)


def say_plan(inputs: Inputs) -> None:
    """What a dry run would embed."""
    from vitlens.cli.console import say, say_failures, say_table

    rows = [(item.name, item.modality, ", ".join(f"{k}={v}" for k, v in item.options.items())) for item in inputs.items[:20]]
    say_table(Table(("item", "modality", "read options"), rows))
    if len(inputs.items) > 20:
        say(f"... and {len(inputs.items) - 20} more (--json lists all)")
    counts = ", ".join(f"{len(items)} {modality}" for modality, items in inputs.by_modality().items())
    say(f"{counts or 'nothing'} to embed; nothing was done (--dry-run)")
    say_failures(inputs.failures)


def say_result(result: Result) -> None:
    """What an embedding job wrote."""
    from vitlens.cli.console import complain, remark, say, say_failures

    say_failures(result.failures)
    if result.errors_file is not None:
        total = len(result.failures) + sum(result.counts.values())
        remark(f"{len(result.failures)} of {total} inputs failed, see {result.errors_file}")
    for one in result.remarks[:SHOWN]:
        remark(f"{one.item}: {one.remark}")
    if len(result.remarks) > SHOWN:
        remark(f"... and {len(result.remarks) - SHOWN} more remarks of readers (--json lists all)")
    if result.output is None or result.space is None:
        complain("nothing was embedded, no output written")
        return
    counts = ", ".join(f"{count} {modality}" for modality, count in result.counts.items())
    before = f" ({result.resumed} from an earlier, stopped run)" if result.resumed else ""
    say(f"{result.output}: {counts} embeddings of {result.space.dim} values{before}, space {result.space.name}")
