"""An option for every modality on the command line (`--point-cloud a.ply --image b.jpg`), in the order the user wrote them.

A command that looks for something takes a mixture: `--audio waves.wav --minus-text rain --image beach.jpg=0.5 -w audio=2`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens import checks
from vitlens.cli.options import named_values, own_parameters
from vitlens.errors import InputError, OptionError
from vitlens.modality import importable_modalities
from vitlens.read_options import parse_read_options

if TYPE_CHECKING:
    from vitlens.model import ViTLens

Streams = dict[str, list[str]]
"""Modality -> what was given for it, in order; texts for "text", files for the others."""
ReadOption = Annotated[
    list[str] | None,
    typer.Option("--read-option", "-r", metavar="MODALITY.OPTION=VALUE", help="An option for reading files; may be repeated."),
]


WeightOption = Annotated[
    list[str] | None,
    typer.Option("--weight", "-w", metavar="MODALITY=NUMBER", help="How much inputs of a modality count; below 0: away from it."),
]
AWAY = "minus_"


@dataclass(frozen=True)
class Mixture:
    """What is looked for: items of any modality, and the weight of each, one list for each modality."""

    streams: Streams
    weights: dict[str, list[float]]

    @classmethod
    def of(cls, given: Streams, weights: Sequence[str] | None) -> Mixture:
        """What was `given` for --NAME and --minus-NAME; an item without a weight of its own has what --weight says, or 1.

        Raises:
            OptionError: nothing given, or a weight that is none.
            InputError: a file that is not there.
        """
        if not given:
            raise OptionError("nothing to look for: give a file, such as --audio flush.wav, or --text")
        named = named_values("--weight", weights, "MODALITY=NUMBER, such as audio=2")
        checks.known("--weight: no input", named, {name.removeprefix(AWAY) for name in given})
        general = {name: _number(f"--weight {name}", text) for name, text in named.items()}
        made = cls({}, {})
        for option, items in given.items():
            name = option.removeprefix(AWAY)
            for item in items:
                own, weight = _weighted(item, name)
                weight = general.get(name, 1.0) if weight is None else weight
                made.streams.setdefault(name, []).append(own)
                made.weights.setdefault(name, []).append(-weight if option.startswith(AWAY) else weight)
        check_files(made.streams)
        return made

    @property
    def flat(self) -> list[float]:
        """The weights in the order of the items, stream by stream."""
        return [weight for name in self.streams for weight in self.weights[name]]

    @property
    def label(self) -> str:
        """The mixture in words."""
        inputs = [(name, item) for name, items in self.streams.items() for item in items]
        text = ""
        for (name, item), weight in zip(inputs, self.flat, strict=True):
            shown = f"“{item}”" if name == "text" else f"{name.replace('_', ' ')} {Path(item).name}"
            sign = " - " if weight < 0 else " + " if text else ""
            text += (sign if text else sign.lstrip()) + (shown if abs(weight) == 1 else f"{abs(weight):g} of {shown}")
        return text

    def embed(self, model: ViTLens, options: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The items' embeddings [n, E] by modality, in order."""
        return dict(model.encode(self.streams, read_options=options))


def _weighted(item: str, modality: str) -> tuple[str, float | None]:
    """`beach.jpg=0.5` as file and weight; a file that really is called so, and a text that ends in no number, have none."""
    name, equals, value = item.rpartition("=")
    if not equals or not name or (modality != "text" and Path(item).exists()):
        return item, None
    try:
        return name, checks.number(f"--{modality.replace('_', '-')} {item}: the weight", float(value))
    except ValueError as error:
        if isinstance(error, OptionError):
            raise
        return item, None


def _number(what: str, text: str) -> float:
    try:
        return checks.number(what, float(text))
    except ValueError as error:
        raise error if isinstance(error, OptionError) else OptionError(f"{what}={text}: a number is needed") from error


def with_streams(*, without: Sequence[str] = (), away: bool = False) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command (whose first argument is `streams`) an option for every modality that is installed.

    With `away` there is --minus-NAME besides, whose items stand under "minus_NAME".
    """

    def wrap(command: Callable[..., Any]) -> Callable[..., None]:
        kinds = {name: kind for name, kind in importable_modalities().items() if name not in without}
        minus = {f"{AWAY}{name}": name for name in kinds} if away else {}

        def run(ctx: typer.Context, **given: Any) -> None:
            order = [name for name in ctx.params if name in {**kinds, **minus} and ctx.params[name]]
            own = {name: value for name, value in given.items() if name not in {**kinds, **minus}}
            command({name: list(ctx.params[name]) for name in order}, **own)

        own = own_parameters(command)
        parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
        parameters += [p for p in own if p.default is p.empty]
        helps = {name: _help(name, kind) for name, kind in kinds.items()}
        helps |= {option: f"Away from {'a text' if name == 'text' else f'a file of {name}'}." for option, name in minus.items()}
        for name, help_ in helps.items():
            flag = f"--{name.replace('_', '-')}"
            option = typer.Option(flag, metavar=_metavar(name.removeprefix(AWAY), weighted=away), help=help_)
            kind = Annotated[list[str] | None, option]
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
        parameters += [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.default is not p.empty]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return wrap


def check_files(streams: Streams) -> None:
    """Raises InputError for a file that is not there, before any model is loaded."""
    for name, files in streams.items():
        for file in files if name != "text" else ():
            if not Path(file).exists():
                raise InputError(file, "no such file", f"a file of {name}")


def read_options(streams: Streams, given: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """`--read-option` as {modality: {option: value}}; the modality may be left out when there is only one."""
    return parse_read_options(given or (), next(iter(streams)) if len(streams) == 1 else None)


def _metavar(name: str, *, weighted: bool) -> str:
    return ("TEXT" if name == "text" else "FILE") + "[=WEIGHT]" * weighted


def _help(name: str, kind: Any) -> str:
    types = " ".join(f".{suffix}" for suffix in kind.extensions[:6])
    return "May be repeated." if name == "text" else f"{types}; may be repeated." if types else "May be repeated."
