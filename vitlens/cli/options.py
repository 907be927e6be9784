"""What several commands share: a typer app for a command's file, options that read the same everywhere, opening the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.errors import OptionError

if TYPE_CHECKING:
    from vitlens.model import ViTLens

MODEL = "vitlens-l"
ModelOption = Annotated[str, typer.Option("--model", "-m", help="A zoo name (vitlens models), a folder, or a Hub repository.")]
AsOption = Annotated[str | None, typer.Option("--as", help="Modality of the files; without it each file's is guessed.")]
TextOption = Annotated[list[str] | None, typer.Option("--text", "-t", help="A text; may be repeated.")]
ReadOption = Annotated[
    list[str] | None,
    typer.Option(
        "--read-option", "-r", metavar="MODALITY.OPTION=VALUE", help="An option for reading all files; may be repeated."
    ),
]
SoundOption = Annotated[
    float | None,
    typer.Option(
        "--sound",
        metavar="SHARE",
        min=0,
        max=1,
        help="Compose each video with its own sound track: SHARE (0 to 1) of the sound, the rest of its pictures.",
    ),
]
BatchOption = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Items that go through the model at once.")]
WorkersOption = Annotated[int, typer.Option("--num-workers", "-j", min=0, help="Processes that read and preprocess files.")]
ReadersOption = Annotated[
    Any,
    typer.Option(
        "--num-workers",
        "-j",
        metavar="N|auto",
        parser=lambda text: text if text == "auto" else _number(text),
        help="Processes that read and preprocess files while the model computes; auto takes some where there are many files.",
    ),
]
DtypeOption = Annotated[
    str,
    typer.Option(help="Arithmetic: fp32, bf16, fp16, or auto: bf16 where a short probe says it pays. Embeddings are float32."),
]
StoreOption = Annotated[str, typer.Option("--store", help="How vectors are kept: float32, float16, int8 or binary.")]
WidthOption = Annotated[int | None, typer.Option("--width", help="Keep only so many of a vector's values (Matryoshka).")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps ...; by default the best there is.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; load no model.")]


def _number(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a number of processes nor auto")
    return int(text)


def new_app(help: str | None = None) -> typer.Typer:
    """The typer app of one command, or with `help` of a family of them."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        no_args_is_help=help is not None,
        help=help,
    )


def own_parameters(command: Callable[..., Any]) -> list[inspect.Parameter]:
    """A command's parameters behind the first, with annotations as they are.

    Not by `get_type_hints`: before Python 3.11 it wraps what defaults to None once more, and typer no longer sees the option.
    """
    return list(inspect.signature(command, eval_str=True).parameters.values())[1:]


def open_model(name: str, modalities: list[str] | None, device: str | None) -> ViTLens:
    """Load a model, with a spinner for who waits."""
    from vitlens.cli.console import waiting

    with waiting(f"loading {name}"):
        from vitlens.model import load

        return load(name, modalities=modalities, device=device)


def with_sound(modalities: Iterable[str], sound: float | None) -> list[str]:
    """The modalities that are needed where videos are composed with their sound."""
    return list(dict.fromkeys([*modalities, *(["audio"] if sound is not None and "video" in modalities else [])]))


def named_values(flag: str, given: Sequence[str] | None, form: str = "NAME=VALUE") -> dict[str, str]:
    """What repeated options of the form NAME=VALUE say; a dash in a name is an underscore.

    Raises:
        OptionError: one without its equals sign, or a name given twice.
    """
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals or not name or not value:
            raise OptionError(f"{flag} {text!r}: write it as {form}")
        if name in found:
            raise OptionError(f"{flag} {name} is given twice")
        found[name] = value
    return found
