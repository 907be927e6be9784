"""`vitlens chat`: ask a multimodal language model about files of any sensor, once or in a conversation."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any

import typer

from vitlens.cli.options import JsonOption, named_values, new_app
from vitlens.cli.streams import ReadOption, Streams, check_files, read_options, with_streams
from vitlens.errors import OptionError, VitlensError

app = new_app()
SHIPPED = {"vitlens-toybox": "vitlens.benchmarks.toybox.demo.describe:shipped_host"}
"""Hosts that need no download: name -> what opens them."""
ADAPTERS = {
    "instructblip": "vitlens.adapters.chat.instructblip:InstructBlipAdapter",
    "blip-2": "vitlens.adapters.chat.blip2:Blip2Adapter",
    "llava": "vitlens.adapters.chat.llava:LlavaAdapter",
    "llama": "vitlens.adapters.seed.llama:SeedLlamaAdapter",
}
"""transformers' model type -> its adapter."""
HELP_LINES = "/image FILE (any sensor's name) adds an input, /clear takes all inputs away, /inputs lists them, /quit ends"


@dataclass
class Question:
    """What is asked of a host: inputs, and how."""

    streams: Streams
    read: Mapping[str, Mapping[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)


LensOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lens",
        metavar="STREAM=MODEL",
        help="Where a stream's lens comes from: a zoo name, a folder or a weights file; repeated.",
    ),
]


@app.command()
@with_streams(without=["text"])
def chat(
    streams: Streams,
    question: Annotated[str | None, typer.Argument(help="What to ask; without it a conversation begins.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="HOST",
            help="A Hub repository or folder of InstructBLIP, BLIP-2, LLaVA or SEED-LLaMA; or vitlens-toybox.",
        ),
    ] = None,
    lens: LensOption = None,
    fuse: Annotated[
        str | None, typer.Option(help="Where several streams meet: vit, qformer or llm (InstructBLIP, BLIP-2; default qformer).")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="A generation option, such as max_new_tokens=40.")
    ] = None,
    host_option: Annotated[
        list[str] | None,
        typer.Option(
            "--host-option", metavar="NAME=VALUE", help="An option of the host's from_pretrained, such as quantizer=FOLDER."
        ),
    ] = None,
    load_in_8bit: Annotated[bool, typer.Option("--8bit", help="Load the language model in 8 bits (bitsandbytes).")] = False,
    allow_other_vit: Annotated[
        bool, typer.Option("--allow-other-vit", help="Take lenses that were trained against another ViT.")
    ] = False,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Fit the ViT's positions to lenses with another number of tokens.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for pictures that SEED-LLaMA draws.")] = None,
    read_option: ReadOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be loaded and asked, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a multimodal language model about files of any sensor, each through its lens.

    Several files of one sensor are answered one by one (SEED-LLaMA sees them together); files of several sensors are seen
    together, in the order given. `--model vitlens-toybox` works at once, on the files of `vitlens demo`.

    vitlens chat -m vitlens-toybox --point-cloud demo/test/point_cloud/test-000000.ply "what is this?"

    vitlens chat -m Salesforce/instructblip-vicuna-7b --lens point_cloud=eva_g14_objaverse.pt --point-cloud a.ply "What is this?"
    """
    from vitlens.cli import console

    if model is None:
        raise OptionError(f"--model is needed: {', '.join(SHIPPED)}, or a Hub repository or folder of {', '.join(ADAPTERS)}")
    check_files(streams)
    lenses = named_values("--lens", lens)
    asked = Question(streams, read_options(streams, read_option), _values("--option", option))
    if fuse is not None:
        asked.options["fuse"] = fuse
    loading = _values("--host-option", host_option)
    loading |= {"load_in_8bit": True} if load_in_8bit else {}
    loading |= {"allow_other_vit": True} if allow_other_vit else {}
    loading |= {"positions": "interpolate"} if interpolate else {}
    if dry_run:
        console.say_pairs(_plan(model, lenses, asked, question, loading))
        return
    if question is None and as_json:
        raise OptionError("--json answers one question: give it")
    with console.waiting(f"loading {model}"):
        host = open_host(model, lenses=lenses, **loading)
    if question is None:
        _converse(host, asked, out)
        return
    answers = answer(host, question, asked, out)
    if as_json:
        console.say_json({"question": question, "inputs": streams, "answers": answers})
        return
    for line in answers:
        console.say(line)


def open_host(model: str, *, lenses: Mapping[str, str], **options: Any) -> Any:
    """The adapter for a host: one that ships, or of the kind that its configuration names.

    Raises:
        ModelError, HostError, MissingDependencyError: as the adapters.
        OptionError: options that a host does not have, or a kind of model that no adapter takes.
    """
    if model in SHIPPED:
        return resolve_name(SHIPPED[model])(lenses=dict(lenses), **options)
    from vitlens.adapters.host_files import host_type

    kind = host_type(model)
    if kind not in ADAPTERS:
        raise OptionError(f"{model} is a {kind} model; there are adapters for {', '.join(ADAPTERS)}")
    return resolve_name(ADAPTERS[kind]).from_pretrained(model, lenses=dict(lenses), **options)


def answer(host: Any, question: str, asked: Question, out: Path | None = None, *, history: Any = ()) -> list[str]:
    """The host's answers: one, or one for each file of a sensor."""
    if hasattr(host, "chat"):
        return [_seed_answer(host, question, asked, out, history)[0]]
    options = {**asked.options, "read_options": asked.read} if asked.read else dict(asked.options)
    if history:
        options["history"] = history
    inputs = {name: files if len(files) > 1 else files[0] for name, files in asked.streams.items()}
    return list(host.generate(question, inputs, **options))


def _seed_answer(host: Any, question: str, asked: Question, out: Path | None, history: Any) -> tuple[str, Any]:
    """SEED-LLaMA's answer, with its pictures written to `out`; and the history to go on with."""
    things = [{name: _item(file, asked.read.get(name, {}))} for name, files in asked.streams.items() for file in files]
    reply = host.chat([*things, question], history=history, **asked.options)
    text = reply.text
    if reply.pictures and out is not None:
        out.mkdir(parents=True, exist_ok=True)
        first = len(list(out.glob("picture-*.png"))) + 1
        for number, picture in enumerate(reply.pictures, start=first):
            picture.save(out / f"picture-{number:03}.png")
            text += f"\n[{out / f'picture-{number:03}.png'}]"
    elif reply.pictures:
        text += f"\n[{len(reply.pictures)} pictures; --out FOLDER keeps them]"
    return text.strip(), reply.history


def _item(file: str, options: Mapping[str, Any]) -> Any:
    return {"source": file, **options} if options else file


def _converse(host: Any, asked: Question, out: Path | None) -> None:
    """Questions from standard input, one a line, until it ends."""
    from vitlens.cli import console

    tell = console.remark if sys.stdin.isatty() else _silent
    tell(f"{HELP_LINES}. Inputs: {_listed(asked.streams)}")
    history: Any = ()
    for line in _lines():
        try:
            if line.startswith("/"):
                if line.split()[0] == "/quit":
                    return
                tell(_order(line, host, asked))
                history = ()
                continue
            if hasattr(host, "chat"):
                text, history = _seed_answer(host, line, asked, out, history)
                asked.streams.clear()  # said once: the history has them
            else:
                text = "\n".join(answer(host, line, asked, history=history))
                if "history" in host.own_options:
                    history = (*history, (line, text))
            console.say(text)
        except VitlensError as error:
            console.complain(str(error))


def _order(line: str, host: Any, asked: Question) -> str:
    """Carry out a line that begins with a slash; what to tell the user."""
    word, _, file = line[1:].partition(" ")
    name = word.replace("-", "_")
    if name == "clear":
        asked.streams.clear()
    elif name == "help":
        return HELP_LINES
    elif name in host.streams and file.strip():
        given = {name: [file.strip()]}
        check_files(given)
        asked.streams.setdefault(name, []).extend(given[name])
    elif name != "inputs":
        raise OptionError(f"/{word}: known are /clear, /inputs, /help, /quit, and with a file /{', /'.join(host.streams)}")
    return f"inputs: {_listed(asked.streams)}"


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _silent(text: str) -> None:
    """Nobody is at the keyboard."""


def _listed(streams: Streams) -> str:
    return ", ".join(f"{name} {file}" for name, files in streams.items() for file in files) or "none"


def _plan(
    model: str, lenses: Mapping[str, str], asked: Question, question: str | None, loading: Mapping[str, Any]
) -> Sequence[tuple[str, str]]:
    rows = [("host", model)]
    rows += [(f"{name} lens", source) for name, source in lenses.items()]
    rows += [(f"{name}", ", ".join(files)) for name, files in asked.streams.items()]
    rows += [(name, str(value)) for name, value in {**loading, **asked.options}.items()]
    return [*rows, ("question", question or "a conversation"), ("", "nothing was loaded (--dry-run)")]


def _values(flag: str, given: Sequence[str] | None) -> dict[str, Any]:
    """NAME=VALUE options with numbers and truth values as such."""
    found: dict[str, Any] = {}
    for name, text in named_values(flag, given).items():
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
