"""`vitlens modalities`: the sensors that are installed, what each takes, and whose they are."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from vitlens.cli.options import JsonOption, new_app
from vitlens.display.table import Table
from vitlens.modality import GROUP, Modality, list_modalities, modality_class

app = new_app()


@app.command()
def modalities(
    name: Annotated[str | None, typer.Argument(help="One modality: what it takes, its options and its preprocessing.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the sensors that are installed, with their unit, file types, and the package each comes from.

    **Example**

    vitlens modalities depth
    """
    from vitlens.cli.console import say_json, say_pairs, say_table

    if name is not None:
        modality_class(name)
    found = [about_modality(known) for known in ([name] if name else list_modalities())]
    if as_json:
        say_json(found[0] if name else found)
    elif name:
        say_pairs(modality_pairs(found[0]))
    else:
        say_table(modality_table(found))


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
        "summary": summary_of(cls),
        "unit": cls.unit,
        "accepts": cls.accepts,
        "extensions": list(cls.extensions),
        "encoder": f"shares the one of {cls.shares}" if cls.shares else f"its own ({cls.tower} tower)",
        "read_options": cls.read_options(),
        "options": modality.options(),
        "steps": modality.steps(),
    }


def summary_of(cls: type[Modality]) -> str:
    """The first paragraph of a class's docstring, or of its file's where the class has none of its own."""
    own = cls.__doc__ or ""
    written = own and not own.startswith(f"{cls.__name__}(")  # a dataclass without a docstring gets its signature for one
    text = inspect.getdoc(cls) if written else inspect.getdoc(sys.modules[cls.__module__])
    return " ".join((text or "").split("\n\n")[0].split())


def package_of(name: str) -> str:
    """The distribution whose entry point brings a modality; its module when it was registered by hand."""
    for point in entry_points(group=GROUP, name=name):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return modality_class(name).__module__


def modality_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """A line per modality."""
    rows = []
    for known in found:
        unit = known.get("unit") or f"cannot be loaded: {known['problem']}"
        rows.append((known["name"], unit, " ".join(known.get("extensions", ())), known["package"]))
    return Table(("modality", "unit", "file types", "from"), rows)


def modality_pairs(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything known of one modality."""
    pairs = [(key.replace("_", " "), value) for key, value in known.items() if isinstance(value, str)]
    if "problem" in known:
        return pairs
    pairs.append(("file types", " ".join(known["extensions"])))
    pairs.append(("read options", ", ".join(known["read_options"]) or "none"))
    pairs += [("option", f"{option} = {value}") for option, value in known["options"].items()]
    pairs += [(f"step {number}", step) for number, step in enumerate(known["steps"], start=1)]
    return pairs
