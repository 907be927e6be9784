"""What is known of models, modalities and single files: for `vitlens models`, `modalities` and `info`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitlens.cli.inputs import gather
from vitlens.errors import InputError
from vitlens.modality import GROUP, Modality, Sample, modality_class

if TYPE_CHECKING:
    from vitlens.cards import ModelCard, Weights


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
    repo, name = hub_file(file, card) or (None, file.file)
    tag = file.file if file.kind == "open_clip" else None
    return {**asdict(file), "file": name, "repo": repo, "open_clip_tag": tag, "on_this_machine": place}


def hub_file(file: Weights, card: ModelCard) -> tuple[str, str] | None:
    """(Hub repository, file name) of weights, also of those a card names by their open_clip tag; None for others."""
    if file.kind == "open_clip":
        from vitlens.zoo import open_clip_source

        return open_clip_source(card, file.file)
    return (file.repo, file.file) if file.kind == "hub" else None


def weights_name(file: Weights, card: ModelCard) -> str:
    """What to call weights: file and Hub repository, what the user must give, or the formula."""
    source = hub_file(file, card)
    return f"{source[1]} ({source[0]})" if source else file.file or file.kind


def about_modality(name: str) -> dict[str, Any]:
    """Everything a user may want to know of a modality, as JSON types; `problem` instead where it cannot be imported."""
    known: dict[str, Any] = {"name": name, "package": package_of(name)}
    try:
        cls = modality_class(name)
        modality = cls()
    except Exception as error:  # a third party's module may raise anything; the list of the others must not suffer
        return {**known, "problem": f"{type(error).__name__}: {error}"}
    return {
        **known,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "summary": (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " "),
        "unit": cls.unit,
        "accepts": cls.accepts,
        "extensions": list(cls.extensions),
        "encoder": f"shares the one of {cls.shares}" if cls.shares else f"its own ({cls.tower} tower)",
        "read_options": cls.read_options(),
        "options": modality.options(),
        "steps": modality.steps(),
    }


def package_of(name: str) -> str:
    """The distribution whose entry point brings a modality; its module when it was registered by hand."""
    for point in entry_points(group=GROUP, name=name):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return modality_class(name).__module__


def read_one(
    file: str, modality: str | None, options: Mapping[str, Mapping[str, Any]], model: str | None = None
) -> tuple[Modality, Sample]:
    """One file's modality, with the options of `model` (see `zoo.find_modality`), and the Sample it reads.

    Raises:
        InputError: no such file, a folder, several files, or one that cannot be read.
        ModelError, ModalityError: as `zoo.find_modality`.
    """
    if Path(file).is_dir():
        raise InputError(file, "a folder", "one file")
    found = gather([file], modalities=[modality] if modality else [])
    if found.failures:
        raise found.failures[0].to_error("a file of a known modality")
    if len(found.items) != 1:
        raise InputError(file, f"{len(found.items)} files", "one file")
    from vitlens.zoo import find_modality

    item = found.items[0]
    chosen = find_modality(item.modality, model)
    return chosen, chosen.load(item.source, **options.get(item.modality, {}))
