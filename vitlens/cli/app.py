"""The command line: `vitlens embed`, `classify`, `similarity`, `models`, `modalities`, `info`, `doctor`,
`demo`, `chat`, `imagine`, `train`, `eval`, `datasets`, `toybox`.

Each command checks its options and hands over to the module that does the work. Nothing heavy is imported before a command runs.
Exit codes: 0 fine, 1 some inputs failed or a check did, 2 wrong usage or bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vitlens.errors import VitlensError

if TYPE_CHECKING:
    from vitlens.model import ViTLens


class Commands(TyperGroup):
    """Turns what a command raises into one line and an exit code; VITLENS_DEBUG=1 shows the traceback instead."""

    def invoke(self, ctx: Any) -> Any:
        try:
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
        return 130
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    if "DataLoader worker process" in text:  # torch puts the worker's traceback before the message
        text = text.strip().rpartition("\n")[2].partition(": ")[2]
    complain(text)
    return 2


class GreedyWith(TyperCommand):
    """Lets `--with` take all that follows up to the next option, as a shell expands `--with *.wav`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        taking = False
        for place, arg in enumerate(args):
            if arg == "--":
                spread += args[place:]
                break
            if arg.startswith("-") and len(arg) > 1:
                taking = arg == "--with"
                if not taking:
                    spread.append(arg)
            else:
                spread += ["--with", arg] if taking else [arg]
        return super().parse_args(ctx, spread)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
BatchOption = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Items that go through the model at once.")]
WorkersOption = Annotated[int, typer.Option("--num-workers", "-j", min=0, help="Processes that read and preprocess files.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps ...; by default the best there is.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The entry point of the `vitlens` command."""
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
    """One frozen ViT, any sensor: image, text, video, point cloud, depth, audio, tactile and EEG in one CLIP space."""


def _open_model(name: str, modalities: list[str] | None, device: str | None) -> ViTLens:
    from vitlens.cli.console import waiting

    with waiting(f"loading {name}"):
        from vitlens.model import load

        return load(name, modalities=modalities, device=device)


@app.command(no_args_is_help=True)
def embed(
    inputs: Annotated[list[str] | None, typer.Argument(help="Files, folders, or quoted patterns: 'sounds/**/*.flac'.")] = None,
    model: ModelOption = MODEL,
    modality: Annotated[
        list[str] | None,
        typer.Option("--as", help="Modality of the files (default: guessed); with --manifest the columns to take, repeated."),
    ] = None,
    text: TextOption = None,
    manifest: Annotated[
        Path | None, typer.Option(help="A .csv, .tsv, .jsonl or .parquet with a column per modality; see vitlens embed --help.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="An .npz, .parquet or .safetensors file.")] = None,
    read_option: ReadOption = None,
    batch_size: BatchOption = 32,
    num_workers: WorkersOption = 0,
    dtype: Annotated[str, typer.Option(help="Arithmetic: fp32, bf16 or fp16. Stored embeddings are float32.")] = "fp32",
    device: DeviceOption = None,
    save_every: Annotated[int, typer.Option(min=1, help="Keep what is done after so many items (and every minute).")] = 1000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be embedded; load no model.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Embed files, texts or a manifest into one file. Stop it at any moment: the same command goes on from there.

    Results are kept in OUTPUT.partial/ until all is done. Inputs that cannot be read are listed in OUTPUT.errors.csv, the rest
    goes on, and the exit code is 1.

    A manifest has a column per modality with paths relative to it (or texts) and may have columns such as depth.scale or
    audio.rate with read options for that row's item; empty cells are left out.

    **Examples**

    vitlens embed 'sounds/**/*.flac' -o sounds.npz

    vitlens embed kitchen.png --as depth -r depth.scale=0.001 -o depth.parquet

    vitlens embed --manifest items.csv -o items.parquet -b 64 -j 4 --dtype bf16
    """
    from vitlens.cli.console import progress, remark, say_json, say_plan, say_result
    from vitlens.cli.inputs import gather, parse_read_options
    from vitlens.errors import OptionError
    from vitlens.store.job import Job, Settings

    found = gather(inputs or (), texts=text or (), manifest=manifest, modalities=modality or ())
    options = parse_read_options(read_option or (), modality[0] if modality and len(modality) == 1 else None)
    settings = Settings(dtype, options, batch_size, num_workers, save_every, overwrite=overwrite)
    for note in found.notes:
        remark(note)
    if output is None and not dry_run:
        raise OptionError("say where to write the embeddings with -o FILE.npz, .parquet or .safetensors")
    job = Job(found, output or Path("-"), model, settings)
    if output is not None:
        job.check()
    if dry_run:
        say_json(found.to_dict()) if as_json else say_plan(found)
        raise typer.Exit(1 if found.failures else 0)
    with progress() as (started, advance):
        result = job.run(lambda needed: _open_model(model, needed, device), started=started, advance=advance)
    say_json(result.to_dict()) if as_json else say_result(result)
    if result.failures:
        raise typer.Exit(1)


@app.command(no_args_is_help=True)
def classify(
    files: Annotated[list[str] | None, typer.Argument(help="Files, folders, or quoted patterns.")] = None,
    labels: Annotated[str | None, typer.Option(help="Class names, separated by commas.")] = None,
    labels_file: Annotated[Path | None, typer.Option(help="A file with one class name per line.")] = None,
    model: ModelOption = MODEL,
    modality: AsOption = None,
    text: TextOption = None,
    template: Annotated[
        list[str] | None, typer.Option(help="A prompt with {} in the place of the class name; repeated ones are averaged.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels shown per input.")] = 5,
    read_option: ReadOption = None,
    batch_size: BatchOption = 32,
    num_workers: WorkersOption = 0,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which of your own class names fits each file best (zero-shot).

    **Examples**

    vitlens classify dog.flac rain.flac --labels "dog,rain,sea waves"

    vitlens classify 'scans/*.ply' --labels-file modelnet40.txt --template "a point cloud of a {}."
    """
    from vitlens.cli import compare
    from vitlens.cli.console import remark, say_classes, say_failures, say_json
    from vitlens.cli.inputs import gather, parse_read_options

    names = compare.parse_labels(labels, labels_file)
    found = gather(files or (), texts=text or (), modalities=[modality] if modality else ())
    options = parse_read_options(read_option or (), modality)
    for note in found.notes:
        remark(note)
    built = _open_model(model, [*found.by_modality(), "text"], device)
    rows, failures = compare.classify(
        built,
        found,
        names,
        templates=template or (),
        top=top,
        batch_size=batch_size,
        num_workers=num_workers,
        read_options=options,
    )
    if as_json:
        say_json({"model": model, "labels": names, "results": rows, "errors": [failure.to_dict() for failure in failures]})
    elif rows:
        say_classes(rows)
    say_failures(failures)
    if failures:
        raise typer.Exit(1)


@app.command(cls=GreedyWith, no_args_is_help=True)
def similarity(
    first: Annotated[list[str] | None, typer.Argument(metavar="A...", help="Files, patterns, or files of embeddings.")] = None,
    second: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="B...", help="What to compare A with; without it, A itself."),
    ] = None,
    text: TextOption = None,
    with_text: Annotated[list[str] | None, typer.Option(help="A text on the other side; may be repeated.")] = None,
    model: ModelOption = MODEL,
    modality: AsOption = None,
    with_modality: Annotated[str | None, typer.Option("--with-as", help="Modality of the files after --with.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write a heatmap: similarity.png")] = None,
    read_option: ReadOption = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two sides by the cosine of their embeddings: files, texts, or what vitlens embed stored.

    **Examples**

    vitlens similarity dog.flac rain.flac --with dog.jpg street.jpg -o similarity.png

    vitlens similarity 'sounds/*.flac' --with-text "a dog barks" --with-text "rain"

    vitlens similarity sounds.npz --with images.parquet
    """
    from vitlens.cli import compare
    from vitlens.cli.console import say, say_json, say_similarity
    from vitlens.cli.inputs import parse_read_options
    from vitlens.display.pictures import check_picture, heatmap

    if output is not None:
        check_picture(output, [*(first or ()), *(second or ())])
    left = compare.wanted(first or (), text or (), modality)
    right = compare.wanted(second or (), with_text or (), with_modality or modality) if second or with_text else None
    options = parse_read_options(read_option or (), modality)
    a, b, cosines, space = compare.compare(
        left, right, lambda needed: _open_model(model, needed, device), batch_size=batch_size, read_options=options
    )
    matrix = cosines.numpy()
    if as_json:
        say_json({"space": space.name, "rows": a.names, "columns": b.names, "cosines": matrix.round(6).tolist()})
    else:
        say_similarity(a.labels(), b.labels(), matrix, itself=right is None)
    if output is not None:
        heatmap(matrix, a.labels(), b.labels(), output, title=f"cosine similarity in {space.name}")
        if not as_json:
            say(f"{output}: heatmap of {len(a.names)} x {len(b.names)}")


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="One model: its whole card.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", "--license", help="Only licences that contain this.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Only models with this modality; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models by name, or show one card: scores, licence, weights, source, and whether it is on this machine.

    **Examples**

    vitlens models --modality audio --licence apache

    vitlens models vitlens-l
    """
    from vitlens.cli.about import about_model
    from vitlens.cli.console import say, say_card, say_cards, say_json
    from vitlens.cli.doctor import weights_here
    from vitlens.modality import modality_class
    from vitlens.zoo import card, list_models

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
        say_cards(cards)
    else:
        say("no model fits")


@app.command()
def modalities(
    name: Annotated[str | None, typer.Argument(help="One modality: what it takes, its options and its preprocessing.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the sensors that are installed, with their unit, file types, and the package each comes from.

    **Example**

    vitlens modalities depth
    """
    from vitlens.cli import console
    from vitlens.cli.about import about_modality
    from vitlens.modality import list_modalities, modality_class

    if name is not None:
        modality_class(name)
    found = [about_modality(known) for known in ([name] if name else list_modalities())]
    if as_json:
        console.say_json(found[0] if name else found)
    elif name:
        console.say_modality(found[0])
    else:
        console.say_modalities(found)


@app.command(no_args_is_help=True)
def info(
    file: Annotated[str, typer.Argument(help="A sensor file.")],
    modality: AsOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Read and preprocess as this model does; needs no weights."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write a picture: info.png")] = None,
    read_option: ReadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a file is, how it will be preprocessed, and show both in a picture.

    **Examples**

    vitlens info dog.flac -o dog.png

    vitlens info kitchen.png --as depth -r scale=0.001 --model vitlens-l
    """
    from vitlens.cli import console
    from vitlens.cli.about import read_one
    from vitlens.cli.inputs import parse_read_options
    from vitlens.display.pictures import check_picture, info_picture
    from vitlens.modality import guess_modality

    if output is not None:
        check_picture(output, [file])
    modality = modality or (None if Path(file).is_dir() else guess_modality(file))
    options = parse_read_options(read_option or (), modality)
    chosen, sample = read_one(file, modality, options, model)
    tensor = chosen.transform(sample)
    facts = {
        "file": file,
        "modality": chosen.name,
        **chosen.describe(sample),
    }
    result = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    if as_json:
        console.say_json({**facts, "unit": chosen.unit, "steps": chosen.steps(), "tensor": result})
    else:
        console.say_info(facts, chosen, result)
    if output is not None:
        info_picture(chosen, sample, tensor, output)
        if not as_json:
            console.say(f"{output}: left the file, right what the model gets of it")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: packages, devices, every sensor with a real file, the Hub, the weights; say what repairs it."""
    from dataclasses import asdict

    from vitlens.cli.console import say_checks, say_json
    from vitlens.cli.doctor import broken, examine

    checks = say_checks(examine(), quiet=as_json)
    if as_json:
        say_json({"broken": broken(checks), "checks": [asdict(check) for check in checks]})
    if broken(checks):
        raise typer.Exit(1)


LATER = {
    "demo": (
        "vitlens.benchmarks.toybox.demo.run:demo_command",
        "Every sensor understood in one space, without a download; writes a report to look at.",
    ),
    "chat": (
        "vitlens.cli.chat:chat_command",
        "Ask a multimodal language model about files of any sensor.",
    ),
    "imagine": (
        "vitlens.cli.imagine:imagine_command",
        "Make pictures, sounds, videos, 3D shapes or texts from files of any sensors.",
    ),
    "train": (
        "vitlens.cli.train:train_command",
        "Train a lens by a recipe; the same command goes on with a stopped run.",
    ),
    "eval": (
        "vitlens.cli.eval:eval_command",
        "Measure a model on datasets: zero-shot, linear probe, few-shot; beside the published numbers.",
    ),
    "datasets": (
        "vitlens.cli.datasets:datasets_command",
        "The datasets of the field: what they are, and what is on this machine.",
    ),
    "toybox": (
        "vitlens.cli.toybox:app",
        "A procedural world for every sensor: make it, train on it, measure a model on it.",
    ),
}
"""Commands that live elsewhere: name -> function and help. Each is imported when it is called, so that --help stays quick."""


def _mount(name: str, target: str, summary: str) -> None:
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(name, help=summary, add_help_option=False, context_settings=settings)
    def later(ctx: typer.Context) -> None:
        module, _, function = target.partition(":")
        found = getattr(import_module(module), function)
        own = found if isinstance(found, typer.Typer) else typer.Typer(rich_markup_mode="markdown")
        if own is not found:
            own.command(name)(found)
        own._add_completion = False
        own.info.context_settings = app.info.context_settings
        code = typer.main.get_command(own).main(ctx.args, prog_name=f"vitlens {name}", standalone_mode=False)
        if code:
            raise typer.Exit(code)


for _name, (_target, _summary) in LATER.items():
    _mount(_name, _target, _summary)
