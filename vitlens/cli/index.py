"""`vitlens index build | add | query | info | compact | delete | export`: a vector index of anything, found by anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitlens.cli.index_inputs import Embedding, Given, fill, filled_dict, say_filled
from vitlens.cli.index_query import query
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
)
from vitlens.errors import OptionError

app = new_app(
    help="""A vector index of anything, found by anything: pictures by a sound, scans by words, by mixtures, by touch.

    **Examples**

    vitlens index build photos/ 'sounds/**/*.flac' -o things.index

    vitlens index query things.index --audio waves.wav --minus-text rain --page found.html

    vitlens index add things.index --manifest more.csv

    vitlens index info things.index --check
    """
)
IndexArgument = Annotated[
    str, typer.Argument(help="The folder of an index, or an address: s3://bucket/name.", show_default=False)
]
InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Files, folders, quoted patterns, or files of embeddings that vitlens embed wrote."),
]
AsManyOption = Annotated[
    list[str] | None,
    typer.Option("--as", help="Modality of the files (default: guessed); with --manifest the columns to take, repeated."),
]
ManifestOption = Annotated[
    Path | None,
    typer.Option(help="A table with a column per modality; further columns are kept, and may be filtered by."),
]
LicenceOption = Annotated[str | None, typer.Option(help="Licence of the items that have no column licence.")]
CacheOption = Annotated[Path | None, typer.Option(help="Folder of embeddings to go on with (default: the user's cache).")]
TwinsOption = Annotated[bool, typer.Option("--twins", help="Keep the same content once for every name that it has.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Write the columns of what is known anew.")]


@app.command(no_args_is_help=True)
def build(
    inputs: InputsArgument = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="The folder of the index, or an address.")] = None,
    model: ModelOption = MODEL,
    modality: AsManyOption = None,
    text: TextOption = None,
    manifest: ManifestOption = None,
    licence: LicenceOption = None,
    store: StoreOption = "float32",
    width: WidthOption = None,
    keep_full: Annotated[
        bool, typer.Option("--keep-full", help="Keep float32 besides, to score what was found by less.")
    ] = False,
    exact_below: Annotated[int, typer.Option(min=1, help="Rows below which every one is looked at.")] = 50_000,
    cache: CacheOption = None,
    twins: TwinsOption = False,
    read_option: ReadOption = None,
    batch_size: BatchOption = 32,
    num_workers: ReadersOption = "auto",
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build an index of files, folders, texts, a manifest, or what vitlens embed wrote. A stopped build goes on where it was.

    Nothing is embedded twice: embeddings are kept by content in the user's cache. With --store, --width the loss is measured.

    **Examples**

    vitlens index build photos/ 'sounds/**/*.flac' -o things.index

    vitlens index build --manifest items.csv --licence CC0 -o things.index

    vitlens index build sounds.npz images.parquet -o things.index --store int8

    vitlens index build nights/*.edf -r eeg.windows=30 -o nights.index
    """
    from vitlens.cli.console import say_failures, say_json
    from vitlens.cli.embed import say_plan
    from vitlens.display.progress import ProgressBar

    given = Given.of(inputs or (), text or (), manifest, modality or (), read_option, model)
    if output is None and not dry_run:
        raise OptionError("say where the index goes with -o FOLDER")
    if dry_run:
        say_json(given.to_dict()) if as_json else say_plan(given.inputs, given.stored)
        raise typer.Exit(1 if given.inputs.failures else 0)
    from vitlens.index.build import Settings, Stored, begin, finish

    settings = Settings(given.read_options, licence, cache, twins)
    stored = [Stored.open(path) for path in given.stored]
    if not stored and not given.inputs.items:
        say_failures(list(given.inputs.failures))  # what follows names no reason
    embedding = Embedding(
        stored[0].first.model if stored and not given.inputs.items else model, batch_size, num_workers, dtype, device
    )
    kept = {"store": store, "width": width, "keep_full": keep_full, "exact_below": exact_below}
    index, nearest = begin(str(output), stored, given.inputs.items, embedding.model, kept)
    with ProgressBar() as bar:
        filled = fill(index, given, stored, settings, embedding, bar, nearest=nearest)
        loss = finish(index, nearest)
    say_json(filled_dict(index, filled, loss)) if as_json else say_filled(index, filled, loss)
    if filled.failures:
        raise typer.Exit(1)


@app.command(no_args_is_help=True)
def add(
    index: IndexArgument,
    inputs: InputsArgument = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Another model of the index's space.")] = None,
    modality: AsManyOption = None,
    text: TextOption = None,
    manifest: ManifestOption = None,
    licence: LicenceOption = None,
    cache: CacheOption = None,
    twins: TwinsOption = False,
    replace: ReplaceOption = False,
    read_option: ReadOption = None,
    batch_size: BatchOption = 32,
    num_workers: ReadersOption = "auto",
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add to an index. What it has by content is left alone; a file that has changed replaces its row.

    **Example**

    vitlens index add things.index new-photos/ --licence CC-BY-4.0
    """
    from vitlens.cli.console import say_json
    from vitlens.display.progress import ProgressBar
    from vitlens.index.build import Settings, Stored
    from vitlens.index.index import Index

    opened = Index.open(index)
    embedding = Embedding(model or opened.card["model"] or MODEL, batch_size, num_workers, dtype, device)
    given = Given.of(inputs or (), text or (), manifest, modality or (), read_option, embedding.model)
    settings = Settings(given.read_options, licence, cache, twins, replace)
    stored = [Stored.open(path) for path in given.stored]
    with ProgressBar() as bar:
        filled = fill(opened, given, stored, settings, embedding, bar)
    say_json(filled_dict(opened, filled, None)) if as_json else say_filled(opened, filled, None)
    if filled.failures:
        raise typer.Exit(1)


app.command(no_args_is_help=True)(query)


@app.command(no_args_is_help=True)
def info(
    index: IndexArgument,
    check: Annotated[bool, typer.Option("--check", help="Measure recall@10 against looking at every row.")] = False,
    queries: Annotated[int, typer.Option(min=1, help="Rows that are asked for their neighbours by --check.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Say what an index is and how it is doing: rows, fragments, versions, disk; with --check its recall.

    **Example**

    vitlens index info things.index --check
    """
    from vitlens.cli.console import say_json, say_pairs, waiting
    from vitlens.index.index import Index
    from vitlens.index.measure import check as measure

    opened = Index.open(index)
    found = opened.info()
    with waiting("looking at every row"):
        recall = measure(opened, queries) if check else None
    loss = opened.measured_loss()
    if as_json:
        say_json({**found.to_dict(), "recall": recall and recall.to_dict(), "loss": loss})
        return
    kept = found.storage
    rows = ", ".join(f"{count} {name}" for name, count in found.rows.items()) or "none"
    disk = "not known behind an address" if found.disk is None else f"{found.disk / 1e6:.1f} MB"
    pairs = [
        ("index", found.path),
        ("space", f"{found.space} ({found.dim} values)" + (f", by {found.model}" if found.model else "")),
        ("rows", rows),
        ("vectors", f"{kept.kind}, {kept.width} of {kept.dim} values" + (", float32 besides" if kept.full else "")),
        ("columns", ", ".join(found.columns)),
        ("found by", found.structure + (f"; {found.unindexed} rows besides" if found.unindexed and opened.indexed else "")),
        ("on disk", f"{found.fragments} fragments, {found.versions} versions, {disk}"),
    ]
    if loss:
        said = f"recall@10 {loss['recall_at_10']:.3f} of what whole float32 vectors find"
        pairs.append(("loss", f"{said}, measured when it was built ({loss['queries']} queries, {loss['rows']} rows)"))
    if recall:
        said = f"recall@10 {recall.recall_at_10:.3f}, recall@1 {recall.recall_at_1:.3f} against {recall.against}"
        pairs.append(("check", f"{said} ({recall.queries} queries, {recall.rows} rows), {recall.milliseconds:g} ms a query"))
    elif check:
        pairs.append(("check", "no rows"))
    say_pairs(pairs)


@app.command(no_args_is_help=True)
def compact(index: IndexArgument, as_json: JsonOption = False) -> None:
    """Put fragments together, delete old versions, and renew the search structures now. A writer does so by itself in time.

    **Example**

    vitlens index compact things.index
    """
    from vitlens.cli.console import say, say_json, waiting
    from vitlens.index.index import Index

    opened = Index.open(index)
    with waiting("compacting"):
        opened.compact()
    found = opened.info()
    if as_json:
        say_json(found.to_dict())
    else:
        disk = "" if found.disk is None else f", {found.disk / 1e6:.1f} MB"
        parts = f"{found.fragments} fragments, {found.versions} versions{disk}"
        say(f"{index}: {sum(found.rows.values())} rows in {parts}; {found.structure}")


@app.command(no_args_is_help=True)
def delete(
    index: IndexArgument,
    source: Annotated[list[str] | None, typer.Option(help="A file or text, as it was added; may be repeated.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="A row's key; may be repeated.")] = None,
    where: Annotated[str | None, typer.Option(help="A filter: \"licence = 'unknown'\".")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many rows it would be.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete rows by source, by key, or by a filter.

    **Example**

    vitlens index delete things.index --where "modality = 'audio' AND year < 1990" --dry-run
    """
    from vitlens.cli.console import say, say_json
    from vitlens.index.index import Index

    opened = Index.open(index)
    count = opened.delete(keys=key or (), sources=source or (), where=where, dry_run=dry_run)
    if as_json:
        say_json({"index": index, "deleted": 0 if dry_run else count, "found": count, "rows": len(opened)})
    else:
        say(f"{index}: {count} rows {'would be ' if dry_run else ''}deleted; {len(opened)} rows")


@app.command(no_args_is_help=True)
def export(
    index: IndexArgument,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A .faiss, .npz, .parquet or .safetensors file.")] = None,
    where: Annotated[str | None, typer.Option(help="A filter: only the rows that pass.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
) -> None:
    """Write an index for FAISS, with its ids beside it, or as a file of embeddings like those of vitlens embed.

    **Example**

    vitlens index export things.index -o things.faiss
    """
    from vitlens.cli.console import say
    from vitlens.index.export import export as write
    from vitlens.index.index import Index

    if output is None:
        raise OptionError("say where to with -o FILE.faiss, .npz, .parquet or .safetensors")
    for path in write(Index.open(index), output, where=where, overwrite=overwrite):
        say(str(path))
