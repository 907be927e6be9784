"""`vitlens models`: the cards of the zoo, and what of their weights is on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.cli.options import JsonOption, new_app
from vitlens.display.table import Table
from vitlens.errors import ModelError, OptionError
from vitlens.modality import modality_class

if TYPE_CHECKING:
    from vitlens.cards import ModelCard, Weights

app = new_app()


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="One model: its whole card.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", "--license", help="Only licences that contain this.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Only models with this modality; may be repeated.")] = None,
    verify: Annotated[bool, typer.Option(help="Compare the weights files of NAME with the Hub's sizes and sums.")] = False,
    redownload: Annotated[bool, typer.Option(help="Fetch those of NAME again that are not what the Hub has.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models by name, or show one card: scores, licence, weights, source, and whether it is on this machine.

    With --verify, file by file, whether it is what the Hub has (exit code 1 where one is not).

    **Examples**

    vitlens models --modality audio --licence apache

    vitlens models vitlens-l
    """
    from vitlens.cli.console import say, say_json, say_table
    from vitlens.zoo import card, list_models

    if verify or redownload:
        if name is None:
            raise OptionError("--verify and --redownload need the NAME of a model")
        _check(card(name), redownload=redownload, as_json=as_json)
        return
    if name is not None:
        chosen = card(name)
        places = weights_here(chosen)
        say_json(about_model(chosen, places)) if as_json else say_card(chosen, places)
        return
    for wanted in modality or ():
        modality_class(wanted)
    cards = [card(known) for known in list_models()]
    cards = [c for c in cards if (licence or "").lower() in c.licence.lower() and {*(modality or ())} <= {*c.spec.modalities}]
    if as_json:
        say_json([about_model(c, weights_here(c)) for c in cards])
    elif cards:
        say_table(card_table(cards))
        if any("(" in known.licence for known in cards):
            say("* with a remark: vitlens models NAME shows it")
    else:
        say("no model fits")


def _check(chosen: ModelCard, *, redownload: bool, as_json: bool) -> None:
    """Say of every weights file of a card whether it is what the Hub has; with `redownload` fetch what is not."""
    from vitlens.cli.console import say_json, say_table

    rows = [_checked(chosen, file, place, redownload) for file, place in weights_here(chosen).items()]
    if as_json:
        say_json([dict(zip(("file", "place", "state", "text"), row, strict=True)) for row in rows])
    else:
        say_table(Table(("weights", "place", "", "verified"), rows))
    if any(state == "damaged" for _, _, state, _ in rows):
        raise typer.Exit(1)


def _checked(chosen: ModelCard, file: Weights, place: str | None, redownload: bool) -> tuple[str, str, str, str]:
    """(name, place, state, text) of a weights file."""
    from vitlens.hub import fetch
    from vitlens.hub_check import Verdict, check_file, sum_in_cache
    from vitlens.zoo import hub_source

    name, source = weights_name(file, chosen), hub_source(file, chosen)
    if source is None or (place is None and not redownload):
        absent = place is None
        return name, place or "not on this machine", "absent" if absent else "ok", "" if absent else "part of the package"
    verdict = Verdict("unknown", "not on this machine") if place is None else check_file(Path(place), source, file.sha256)
    if redownload and verdict.state != "ok":
        if place is not None and sum_in_cache(Path(place)) is None and not _in_cache(Path(place)):
            raise ModelError(f"{place} ({verdict.text}) was put there by hand: delete it, or put another copy there")
        place = os.fspath(fetch(source, f"{chosen.name}: {source}", again=True))
        verdict = check_file(Path(place), source, file.sha256)
    return name, place or "", verdict.state, verdict.text


def _in_cache(path: Path) -> bool:
    from huggingface_hub import constants

    return path.absolute().is_relative_to(Path(constants.HF_HUB_CACHE).absolute())


def about_model(card: ModelCard, places: Mapping[Any, str | None]) -> dict[str, Any]:
    """A model card as JSON types, with the place of each of its weights files on this machine (null: nowhere)."""
    return {
        "name": card.name,
        "summary": card.summary,
        "modalities": card.spec.modalities,
        "space": asdict(card.spec.space),
        "licence": card.licence,
        "training_data": card.training_data,
        "source": card.source,
        "notes": list(card.notes),
        "scores": [asdict(score) for score in card.scores],
        "weights": [_about_weights(file, card, place) for file, place in places.items()],
    }


def _about_weights(file: Weights, card: ModelCard, place: str | None) -> dict[str, Any]:
    from vitlens.zoo import hub_source

    source = hub_source(file, card)
    names, repo = (source.names, source.repo) if source else ((file.file,), None)
    tag = file.file if file.kind == "open_clip" else None
    known = {"file": names[0], "other_names": list(names[1:]), "repo": repo}
    return {**asdict(file), **known, "open_clip_tag": tag, "on_this_machine": place}


def weights_name(file: Weights, card: ModelCard) -> str:
    """What to call weights: file and Hub repository, what the user must give, or the formula."""
    from vitlens.zoo import hub_source

    source = hub_source(file, card)
    return f"{source.names[0]} ({source.repo})" if source else file.file or file.kind


def weights_here(chosen: ModelCard) -> dict[Weights, str | None]:
    """Where each weights file of a card lies on this machine (None: nowhere); nothing is asked of the network."""
    from vitlens.zoo import find_weights

    places: dict[Weights, str | None] = {}
    with _offline():
        for file in chosen.weights:
            try:
                places[file] = "made by a formula" if file.kind == "formula" else os.fspath(find_weights(file, chosen))
            except ModelError:
                places[file] = None
    return places


@contextmanager
def _offline() -> Iterator[None]:
    """As if HF_HUB_OFFLINE were set: the same search as for loading, less its last place."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def card_table(cards: Sequence[ModelCard]) -> Table:
    """A line per model; a licence with a remark has a star."""
    rows = []
    for card in cards:
        licence, remark, _ = card.licence.partition(" (")
        rows.append((card.name, " ".join(card.spec.modalities), licence + " *" * bool(remark), card.summary))
    return Table(("model", "modalities", "licence", "summary"), rows)


def say_card(card: ModelCard, places: Mapping[Any, str | None]) -> None:
    """Everything a card says, and where its weights are on this machine."""
    from vitlens.cli.console import say, say_pairs, say_table

    say_pairs(
        [
            ("model", card.name),
            ("summary", card.summary),
            ("modalities", ", ".join(card.spec.modalities)),
            ("space", f"{card.spec.space.name}, {card.spec.space.dim} values"),
            ("licence", card.licence),
            ("training data", card.training_data),
            ("source", card.source),
            *(("note", note) for note in card.notes),
            *(("weights", f"{weights_name(file, card)}: {place or 'not on this machine'}") for file, place in places.items()),
        ]
    )
    if card.scores:
        rows = [(s.dataset, s.metric, f"{s.value:g}", s.training_data or "as above", s.protocol, s.source) for s in card.scores]
        say()
        say_table(Table(("published score", "metric", "value", "trained on", "how", "source"), rows, numbers=("value",)))
