"""A page with what an index found: the query and the hits, each as its sensor sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlens.disk import atomic
from vitlens.display.page import address, render
from vitlens.display.pictures import sample_picture
from vitlens.errors import InputError, VitlensError
from vitlens.index.index import Index
from vitlens.index.query import Answer, Hit
from vitlens.modality import Modality, modality_class
from vitlens.store.blobs import remote_file
from vitlens.store.places import is_uri

Reading = Callable[[str], Modality]
"""Name of a modality -> the modality with the options that its files are read with."""


@dataclass(frozen=True)
class Asked:
    """A part of the query: what the user gave, and how much it counts."""

    modality: str
    item: str
    weight: float
    options: dict[str, Any]


def write_page(
    index: Index,
    asked: Sequence[Asked],
    answer: Answer,
    path: Path,
    *,
    reading: Reading,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the page; it holds its pictures itself."""
    values = {
        "title": title,
        "terms": [_term(one, reading) for one in asked],
        "hits": [_hit(hit, reading) for hit in answer.hits],
        "facts": [
            ("index", f"{index.path}: {len(index)} rows of {index.space.name}"),
            ("scores", answer.calibration),
            ("looked at", "every row" if answer.exact else "the nearest by the index's graph"),
            *facts,
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_text(render(Path(__file__).with_name("index.html.j2"), **values), encoding="utf-8")
    return path


def _term(one: Asked, reading: Reading) -> dict[str, Any]:
    sign = "away from" if one.weight < 0 else "like"
    return {
        "words": sign if abs(one.weight) == 1 else f"{sign}, weight {abs(one.weight):g}",
        "modality": one.modality.replace("_", " "),
        "name": "" if modality_class(one.modality).tower == "text" else Path(one.item).name,
        **_seen(one.modality, one.item, one.item, one.options, reading),
    }


def _hit(hit: Hit, reading: Reading) -> dict[str, Any]:
    wordy = modality_class(hit.modality).tower == "text"
    options = json.loads(hit.options) if hit.options else {}
    columns = {"licence": hit.licence, **hit.columns}
    return {
        "rank": hit.rank,
        "score": f"{hit.score:.3f}",
        "cosine": f"{hit.cosine:.3f}",
        "modality": hit.modality.replace("_", " "),
        "name": "" if wordy else Path(hit.source).name,
        "source": "" if wordy else hit.source,
        "columns": [(name, str(value)) for name, value in columns.items() if value not in (None, "")],
        **_seen(hit.modality, hit.source, hit.file, options, reading),
    }


def _seen(modality: str, source: str, file: str | None, options: dict[str, Any], reading: Reading) -> dict[str, str]:
    """Text, or a picture, or why there is none."""
    if modality_class(modality).tower == "text":
        return {"text": source, "picture": "", "missing": ""}
    try:
        if file is None:
            raise InputError(source, "where its file lies is not known", "")
        chosen = reading(modality)
        given: Any = remote_file(file).open() if is_uri(file) else file
        return {"text": "", "picture": address(sample_picture(chosen, chosen.inspect(given, **options))), "missing": ""}
    except (VitlensError, OSError) as error:
        found = error.found if isinstance(error, InputError) else str(error)
        return {"text": "", "picture": "", "missing": found}
