"""`vitlens index query`: what fits a file, words, or a mixture of any sensors best; as a table, JSON, or a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.cli.options import DeviceOption, JsonOption
from vitlens.cli.streams import Mixture, ReadOption, Streams, WeightOption, read_options, with_streams
from vitlens.display.table import Table

if TYPE_CHECKING:
    from vitlens.index.query import Answer, Term
    from vitlens.model import ViTLens


MOST_COLUMNS = 3
"""Of the users' own in the table; JSON has all."""


@with_streams(away=True)
def query(
    streams: Streams,
    index: Annotated[str, typer.Argument(help="The folder of an index, or an address: s3://bucket/name.", show_default=False)],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Another model of the index's space.")] = None,
    weight: WeightOption = None,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Hits.")] = 10,
    among: Annotated[list[str] | None, typer.Option("--in", help="Modality of the hits; may be repeated (default: all).")] = None,
    where: Annotated[str | None, typer.Option(help="A filter on columns: \"licence = 'CC0' AND year > 2000\".")] = None,
    calibrate: Annotated[
        str, typer.Option(help="center: scores of different modalities on one scale; none: plain cosines.")
    ] = "center",
    exact: Annotated[bool, typer.Option("--exact", help="Look at every row.")] = False,
    page: Annotated[Path | None, typer.Option(help="Also write a page with pictures of what was found: found.html")] = None,
    read_option: ReadOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask an index by any sense, by words, or by a mixture of them: toward what is named, away from --minus-what.

    A number after the last = is a weight: --image beach.jpg=0.5. Scores are calibrated by centring: from every embedding the mean
    of its modality in the index is taken, so that sounds and scans can stand in one list.

    **Examples**

    vitlens index query things.index --audio waves.wav --minus-text rain --image beach.jpg=0.5

    vitlens index query things.index --text "a wooden chair" --in point_cloud --where "licence = 'CC0'" --page found.html
    """
    from vitlens.cli.console import say, say_json, say_table
    from vitlens.cli.options import MODEL, open_model
    from vitlens.disk import output_file
    from vitlens.index.index import Index
    from vitlens.modality import modality_class

    mixture = Mixture.of(streams, weight)
    options = read_options(mixture.streams, read_option)
    for name in among or ():
        modality_class(name)
    if page is not None:
        output_file("page", page, ("html",), inputs=[file for files in mixture.streams.values() for file in files])
    opened = Index.open(index)
    loaded = open_model(model or opened.card["model"] or MODEL, list(mixture.streams), device)
    opened.check_space(loaded.space, f"model {loaded.spec.name}")
    answer = opened.search(
        terms_of(mixture, loaded, options),
        loaded.space,
        k=top,
        where=where,
        modalities=among or (),
        calibrate=calibrate,
        exact=exact,
    )
    if page is not None:
        _write_page(opened, mixture, options, answer, page, model or opened.card["model"] or None)
    if as_json:
        say_json({"query": mixture.label, "index": index, **answer.to_dict(), "page": str(page) if page else None})
        return
    say_table(hit_table(answer)) if answer.hits else say("nothing found: no row passes")
    say(answer.calibration)
    if page is not None:
        say(f"{page} shows it")


def terms_of(mixture: Mixture, model: ViTLens, options: dict[str, dict[str, Any]]) -> list[Term]:
    """The parts of a mixture as embeddings with their weights."""
    from vitlens.index.query import Term

    found = mixture.embed(model, options)
    return [
        Term(vector.numpy(), name, weight, item)
        for name, items in mixture.streams.items()
        for item, vector, weight in zip(items, found[name], mixture.weights[name], strict=True)
    ]


def hit_table(answer: Answer) -> Table:
    """A line for each hit; columns that are empty everywhere are left out, and of the users' own those after the first few."""
    own = list(answer.hits[0].columns)[:MOST_COLUMNS] if answer.hits else []
    rows = [
        (
            str(hit.rank),
            f"{hit.score:.3f}",
            f"{hit.cosine:.3f}",
            hit.modality,
            hit.source,
            hit.licence or "",
            *("" if hit.columns[name] is None else str(hit.columns[name]) for name in own),
        )
        for hit in answer.hits
    ]
    numbers = ("", "score", "cosine")
    return Table((*numbers, "modality", "source", "licence", *own), rows, numbers=numbers).filled()


def _write_page(
    index: Any, mixture: Mixture, options: dict[str, dict[str, Any]], answer: Answer, page: Path, model: str | None
) -> None:
    from vitlens.index.page import Asked, write_page
    from vitlens.zoo import find_modality

    asked = [
        Asked(name, item, weight, options.get(name, {}))
        for name, items in mixture.streams.items()
        for item, weight in zip(items, mixture.weights[name], strict=True)
    ]
    facts = [("model", model)] if model else []
    write_page(
        index,
        asked,
        answer,
        page,
        reading=lambda name: find_modality(name, model),
        title=f"Nearest to {mixture.label}",
        facts=facts,
    )
