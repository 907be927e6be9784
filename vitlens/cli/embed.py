"""`vitlens embed`: files, texts, shards or the rows of a manifest become one file of embeddings, or a folder of parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
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
    ReadersOption,
    ReadOption,
    StoreOption,
    TextOption,
    WidthOption,
    new_app,
    open_model,
)
from vitlens.display.table import Table
from vitlens.errors import ModelError, OptionError
from vitlens.store.places import is_uri
from vitlens.vectors import Packing

if TYPE_CHECKING:
    from vitlens.model import ViTLens
    from vitlens.store.items import Inputs
    from vitlens.store.job import Result, Settings
    from vitlens.store.listing import Listing

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
        str | None, typer.Option(help="A .csv, .tsv, .jsonl or .parquet with a column per modality; see vitlens embed --help.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="An .npz, .parquet or .safetensors file; DIR/ or s3://bucket/dir/: a folder of parts."
        ),
    ] = None,
    read_option: ReadOption = None,
    batch_size: BatchOption = 32,
    num_workers: ReadersOption = "auto",
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    store: StoreOption = "float32",
    width: WidthOption = None,
    save_every: Annotated[int, typer.Option(min=1, help="Keep what is done after so many items (and every minute).")] = 1000,
    part_items: Annotated[int, typer.Option(min=1, help="Of a folder of parts: items of a part.")] = 4096,
    engine: Annotated[str, typer.Option(help="Of a folder of parts: local (also under torchrun), or ray.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="The Ray cluster; by default one on this machine.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Actors of Ray; by default one for each GPU, else one.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Embed files, texts, shards or a manifest. Stop it at any moment: the same command goes on from there.

    Results are kept in OUTPUT.partial/ until all is done. Inputs that cannot be read are listed in OUTPUT.errors.csv, the rest
    goes on, and the exit code is 1.

    A manifest has a column per modality with paths relative to it (or texts) and may have columns such as depth.scale or
    audio.rate with read options for that row's item; empty cells are left out. In a .parquet a column may hold the files' bytes.

    For large jobs the output is a folder (DIR/, or an address such as s3://bucket/dir/): a data set of Parquet parts, each
    written once and whole, errors/ with what could not be read, and _SUCCESS at the end. Inputs may be WebDataset shards and
    addresses too. Any number of processes (torchrun, --engine ray) may make it, and any of them may be killed.

    **Examples**

    vitlens embed 'sounds/**/*.flac' -o sounds.npz

    vitlens embed kitchen.png --as depth -r depth.scale=0.001 -o depth.parquet

    vitlens embed night.edf --model vitlens-l -r eeg.windows=2 -o night.npz

    vitlens embed --manifest items.csv -o items.parquet -b 64 -j 4 --dtype bf16

    vitlens embed photos/ --as image -o photos.parquet --store int8 --width 384

    vitlens embed 's3://bucket/shards/{0000..0999}.tar' --as image -o s3://bucket/embeddings/ --engine ray --workers 8

    torchrun --nproc-per-node 8 -m vitlens embed photos/ --as image -o embeddings/
    """
    from vitlens.cli.inputs import cutting_for
    from vitlens.store.job import Settings
    from vitlens.store.listing import Listing

    cutting = cutting_for(read_option, modality, model)
    listing = Listing(inputs or (), text or (), manifest, modality or (), cutting=cutting)
    packing = _packing(store, width, model)
    settings = Settings(dtype, cutting.reads(), batch_size, num_workers, save_every, overwrite=overwrite, packing=packing)
    if output is not None and is_folder(output):
        from vitlens.cli.bulk import Ask, embed_in_bulk

        ask = Ask(model, output, part_items, engine, ray_address, workers, device, dry_run, as_json)
        embed_in_bulk(listing, settings, ask)
        return
    if engine != "local" or ray_address or workers:
        raise OptionError("--engine, --ray-address and --workers are for a folder of parts: -o DIR/")
    _embed_in_one_file(listing, settings, model, output, device, dry_run=dry_run, as_json=as_json)


def _packing(store: str, width: int | None, model: str) -> Packing:
    """What vectors are kept as; a width is compared with the model's before hours of work, where its spec is on this machine."""
    packing = Packing(store, width)
    if not packing.whole:
        from vitlens.zoo import find_spec

        with suppress(ModelError):
            packing.space(find_spec(model).space)
    return packing


def is_folder(output: str) -> bool:
    """Whether an output is a folder of parts: it ends in a slash, is one already, is an address, or has no type."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output) or is_uri(output) or not Path(output).suffix


def _embed_in_one_file(
    listing: Listing, settings: Settings, model: str, output: str | None, device: str | None, *, dry_run: bool, as_json: bool
) -> None:
    from vitlens.cli.console import remark, say_json
    from vitlens.cli.inputs import gather
    from vitlens.display.progress import ProgressBar
    from vitlens.store.blobs import Blob
    from vitlens.store.job import Job

    found = gather(
        listing.inputs, texts=listing.texts, manifest=listing.manifest, modalities=listing.modalities, cutting=listing.cutting
    )
    for note in found.notes:
        remark(note)
    if output is None and not dry_run:
        raise OptionError("say where to write the embeddings with -o FILE.npz, .parquet or .safetensors, or with -o DIR/")
    job = Job(found, Path(output or "-"), model, settings)
    if output is not None:
        job.check()
    if dry_run:
        say_json(found.to_dict()) if as_json else say_plan(found)
        raise typer.Exit(1 if found.failures else 0)
    with ProgressBar() as bar:

        def load(needed: list[str]) -> ViTLens:
            bar.close()  # the spinner has the screen now; the next update opens it again
            return open_model(model, needed, device)

        if any(isinstance(item.source, Blob) for item in found.items):
            from vitlens.cli.bulk import embed_by_parts

            result = embed_by_parts(listing, job, load, bar.update)
        else:
            result = job.run(load, progress=bar.update)
    say_json(result.to_dict()) if as_json else say_result(result)
    if result.failures:
        raise typer.Exit(1)


def say_plan(inputs: Inputs, stored: Sequence[str] = ()) -> None:
    """What a dry run would embed; `stored` are files that hold embeddings already."""
    from vitlens.cli.console import say, say_failures, say_table

    rows = [(item.name, item.modality, ", ".join(f"{k}={v}" for k, v in item.options.items())) for item in inputs.items[:20]]
    rows = [*((name, "embeddings", "") for name in stored), *rows]
    say_table(Table(("item", "modality", "read options"), rows))
    if len(inputs.items) > 20:
        say(f"... and {len(inputs.items) - 20} more (--json lists all)")
    counts = ", ".join(f"{len(items)} {modality}" for modality, items in inputs.by_modality().items())
    counts = ", ".join([*([f"{len(stored)} files of embeddings"] * bool(stored)), *([counts] * bool(counts))])
    say(f"{counts or 'nothing'} to {'take' if stored else 'embed'}; nothing was done (--dry-run)")
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
    low = ", ".join(f"{modality} in {precision}" for modality, precision in result.precision.items() if precision != "float32")
    computed = f", computed {low}" if low else ""
    say(f"{result.output}: {counts} embeddings of {result.space.dim} values{before}, space {result.space.name}{computed}")
