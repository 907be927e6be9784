"""The command line: which commands there are, how each is found, and what an error becomes.

A command lives in a file of its own and is imported when it is called, so that `vitlens --help` stays quick. Commands check their
options and hand over to the library, which knows nothing of them.
Exit codes: 0 fine, 1 some inputs failed or a check did, 2 wrong usage or bad input, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import warnings
from pkgutil import resolve_name
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vitlens.errors import VitlensError

COMMANDS = {
    "embed": ("vitlens.cli.embed:app", "Embed files, texts or a manifest into one file; a stopped run goes on."),
    "classify": ("vitlens.cli.classify:app", "Say which of your own class names fits each file best (zero-shot)."),
    "similarity": ("vitlens.cli.similarity:app", "Compare two sides by cosine: files, texts, or stored embeddings."),
    "models": ("vitlens.cli.models:app", "List the models, or show one card, and whether it is on this machine."),
    "modalities": ("vitlens.cli.modalities:app", "List the sensors that are installed: unit, file types, package."),
    "info": ("vitlens.cli.info:app", "Say what a file is and how it will be preprocessed, and show both in a picture."),
    "doctor": ("vitlens.cli.doctor:app", "Check this installation, and say what repairs it."),
    "demo": (
        "vitlens.cli.demo:app",
        "Every sensor understood in one space, without a download; writes a report to look at.",
    ),
    "chat": ("vitlens.cli.chat:app", "Ask a multimodal language model about files of any sensor."),
    "imagine": ("vitlens.cli.imagine:app", "Make pictures, sounds, videos, 3D shapes or texts from files of any sensors."),
    "train": ("vitlens.cli.train:app", "Train a lens by a recipe; the same command goes on with a stopped run."),
    "eval": (
        "vitlens.cli.eval:app",
        "Measure a model on datasets: zero-shot, linear probe, few-shot; beside the published numbers.",
    ),
    "datasets": ("vitlens.cli.datasets:app", "The datasets of the field: what they are, and what is on this machine."),
    "index": ("vitlens.cli.index:app", "A vector index of anything, found by anything: build, add, query, info, export."),
    "scene": ("vitlens.cli.scene:app", "Find things in a scanned place by any sense: build a map of posed RGB-D, and ask it."),
    "serve": ("vitlens.cli.serve:app", "Serve a model over HTTP to what embedding clients already send, for every sensor."),
    "export": ("vitlens.cli.export:app", "Write one sensor's tower as ONNX or OpenVINO, its preprocessing beside it."),
    "bench": ("vitlens.cli.bench:app", "Measure speed as ratios to yardsticks of the same run."),
    "toybox": (
        "vitlens.cli.toybox:app",
        "A procedural world for every sensor: make it, train on it, measure a model on it.",
    ),
}
"""Name of a command -> where its typer app is, and its line in `vitlens --help`."""


class Commands(TyperGroup):
    """Imports a command when it is called, and turns what it raises into one line and an exit code.

    VITLENS_DEBUG=1 shows the traceback instead.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known, rest = super().resolve_command(ctx, args)
        return name, typer.main.get_command(resolve_name(COMMANDS[name][0])) if name in COMMANDS else known, rest

    def invoke(self, ctx: Any) -> Any:
        from vitlens.libraries import pip_line

        try:
            with pip_line():
                return super().invoke(ctx)
        except (VitlensError, OSError, KeyboardInterrupt) as error:
            if os.environ.get("VITLENS_DEBUG") == "1":
                raise
            raise typer.Exit(_report(error)) from error


def _report(error: BaseException) -> int:
    """Say what went wrong; the exit code."""
    if isinstance(error, BrokenPipeError):  # the reader of our output left: nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    from vitlens.cli.console import complain, remark

    if isinstance(error, KeyboardInterrupt):
        remark(str(error) or "stopped")
        cause = error if isinstance(error, Terminated) else error.__cause__
        return 128 + cause.number if isinstance(cause, Terminated) else 130
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    if "DataLoader worker process" in text:  # torch puts the worker's traceback before the message
        text = text.strip().rpartition("\n")[2].partition(": ")[2]
    complain(text)
    return 2


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: what Ctrl-C keeps is kept."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped")
        self.number = number


def _terminate(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)  # the second one ends it at once
    raise Terminated(number)


def main() -> None:
    """The entry point of the `vitlens` command."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    app(prog_name="vitlens")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"vitlens {version('vitlens')}")
        raise typer.Exit


@app.callback()
def vitlens(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """One frozen ViT, any sensor: pictures, words and what sensors measure in one CLIP space (vitlens modalities)."""
