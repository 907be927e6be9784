"""An option for every modality on the command line (`--point-cloud a.ply --image b.jpg`), in the order the user wrote them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from vitlens.errors import InputError
from vitlens.modality import importable_modalities
from vitlens.read_options import parse_read_options

Streams = dict[str, list[str]]
"""Modality -> what was given for it, in order; texts for "text", files for the others."""
ReadOption = Annotated[
    list[str] | None,
    typer.Option("--read-option", "-r", metavar="MODALITY.OPTION=VALUE", help="An option for reading files; may be repeated."),
]


def with_streams(*, without: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command (whose first argument is `streams`) an option for every modality that is installed."""

    def wrap(command: Callable[..., Any]) -> Callable[..., None]:
        kinds = {name: kind for name, kind in importable_modalities().items() if name not in without}

        def run(ctx: typer.Context, **given: Any) -> None:
            order = [name for name in ctx.params if name in kinds and ctx.params[name]]
            own = {name: value for name, value in given.items() if name not in kinds}
            command({name: list(ctx.params[name]) for name in order}, **own)

        hints = get_type_hints(command, include_extras=True)
        own = list(inspect.signature(command).parameters.values())[1:]
        parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
        parameters += [p.replace(annotation=hints[p.name]) for p in own if p.default is p.empty]
        for name, kind in kinds.items():
            option = typer.Option(f"--{name.replace('_', '-')}", metavar=_metavar(name), help=_help(name, kind))
            parameters.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[list[str] | None, option]
                )
            )
        parameters += [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own if p.default is not p.empty]
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


def _metavar(name: str) -> str:
    return "TEXT" if name == "text" else "FILE"


def _help(name: str, kind: Any) -> str:
    types = " ".join(f".{suffix}" for suffix in kind.extensions[:6])
    return "May be repeated." if name == "text" else f"{types}; may be repeated." if types else "May be repeated."
