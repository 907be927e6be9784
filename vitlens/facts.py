"""Facts kept as data: a YAML file becomes frozen dataclasses; what does not fit is named with its place in the file.

A file holds one card, or several under `cards:`; what they have in common stands under `shared:` with a YAML anchor (`&name`)
and is put in with `*name`, or with `<<: *name` where more fields follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from vitlens.errors import OptionError

T = TypeVar("T")
Entry = dict[str, Any]


def read_facts(kind: type[T], file: Path, *, prepare: Callable[[Entry], Entry] | None = None) -> list[T]:
    """The cards of `file` as objects of the dataclass `kind`, after `prepare` has had each as it is written.

    Raises:
        OptionError: no YAML, a key that is missing, unknown or there twice, a value of another type; each with its place.
    """
    cards = _entries(file)
    problems: list[str] = []
    made: list[T] = []
    for number, card in enumerate(cards):
        where = str(card.get("name", f"card {number}"))
        try:
            made.append(_validated(kind, prepare(card) if prepare else card))
        except (OptionError, KeyError, TypeError) as error:
            text = f"no {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{where}: {text}")
    if problems:
        raise OptionError(f"{file}: {'; '.join(problems)}")
    return made


def yaml_of(file: Path) -> Any:
    """What a YAML file holds.

    Raises:
        OptionError: it is none, or a key stands in it twice.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with file.open(encoding="utf-8") as stream:
            reader = loader(stream)
            root = reader.get_single_node()
            _refuse_twins(root, str(file))
            return None if root is None else reader.construct_document(root)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{file}: not YAML ({' '.join(str(error).split())})") from error


def _refuse_twins(node: Any, file: str) -> None:
    """A key that stands twice would be read as the last one, in silence."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    names = [key.value for key, _ in pairs if key.tag != "tag:yaml.org,2002:merge"]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"{file}, line {node.start_mark.line + 1}: {', '.join(twice)} is there twice")
    for child in [value for _, value in pairs] or (node.value if getattr(node, "id", "") == "sequence" else []):
        _refuse_twins(child, file)


def _entries(file: Path) -> list[Entry]:
    content = yaml_of(file)
    if isinstance(content, dict) and "cards" in content:
        strange = set(content) - {"cards", "shared"}
        if strange:
            raise OptionError(f"{file}: {', '.join(sorted(map(str, strange)))} beside cards; only shared stands there")
        content = content["cards"]
    cards = content if isinstance(content, list) else [content]
    if not cards or not all(isinstance(card, dict) for card in cards):
        raise OptionError(f"{file}: one card (a mapping), or a list of them under cards, is needed")
    return cards


@cache
def _adapter(kind: type[Any]) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    rules = ConfigDict(extra="forbid", strict=True)
    return TypeAdapter(list[kind], config=rules)  # type: ignore[valid-type]  # of a list: a dataclass alone takes no rules


def _validated(kind: type[T], values: Entry) -> T:
    from pydantic import ValidationError

    try:
        adapter = _adapter(kind)  # type: ignore[arg-type]  # a class is hashable
        return adapter.validate_json(json.dumps([values]))[0]  # as JSON a list may become a tuple, but text no number
    except ValidationError as error:
        raise OptionError("; ".join(_explained(problem) for problem in error.errors())) from error


def _explained(problem: Mapping[str, Any]) -> str:
    place = ".".join(map(str, problem["loc"][1:]))
    if problem["type"] == "value_error":  # ours, which says itself what it found
        text = str(problem["ctx"]["error"])
    elif problem["type"] in ("missing", "unexpected_keyword_argument"):
        text = "missing" if problem["type"] == "missing" else "unknown key"
    else:
        text = f"{problem['msg'].lower()}, found {problem['input']!r}"
    return f"{place}: {text}" if place else text
