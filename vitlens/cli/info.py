"""`vitlens info`: what a file is, and what a model gets of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vitlens.cli.inputs import gather
from vitlens.cli.options import AsOption, JsonOption, ReadOption, new_app
from vitlens.errors import InputError
from vitlens.modality import Modality, Sample
from vitlens.read_options import parse_read_options

app = new_app()


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
    from vitlens.cli.console import say, say_json, say_pairs
    from vitlens.disk import output_file
    from vitlens.display.pictures import FORMATS, info_picture

    if output is not None:
        output_file("picture", output, FORMATS, inputs=[file])
    chosen, sample = read_one(file, modality, read_option or (), model)
    try:
        tensor = chosen.transform(sample)
        result = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    except InputError as error:  # the file is what it is; only a model would want more of it
        if model is not None or output is not None:
            raise
        tensor, result = None, {"none": error.found}
    facts = {
        "file": file,
        "modality": chosen.name,
        **chosen.describe(sample),
    }
    if as_json:
        say_json({**facts, "unit": chosen.unit, "steps": chosen.steps(), "tensor": result})
    else:
        steps = [(f"step {number}", step) for number, step in enumerate(chosen.steps(), start=1)]
        made = f"{result['dtype']} {result['shape']}" if tensor is not None else f"none: {result['none']}"
        say_pairs([*facts.items(), ("unit", chosen.unit), *steps, ("tensor", made)])
    if output is not None and tensor is not None:
        info_picture(chosen, sample, tensor, output)
        if not as_json:
            say(f"{output}: left the file, right what the model gets of it")


def read_one(file: str, modality: str | None, read_option: Sequence[str], model: str | None = None) -> tuple[Modality, Sample]:
    """One file's modality, with the options of `model` (see `find_modality`), and the Sample it reads.

    Raises:
        InputError: no such file, a folder, several files, one of no clear modality, or one that cannot be read.
        OptionError: a read option that its reader does not have.
        ModelError, ModalityError: as `find_modality`.
    """
    if Path(file).is_dir():
        raise InputError(file, "a folder", "one file")
    found = gather([file], modalities=[modality] if modality else [])
    if found.failures:
        raise found.failures[0].to_error("a file of a known modality")
    if len(found.items) != 1:
        raise InputError(file, f"{len(found.items)} files", "one file")
    item = found.items[0]
    options = parse_read_options(read_option, item.modality)
    from vitlens.zoo import find_modality

    chosen = find_modality(item.modality, model)
    read = chosen.inspect if model is None else chosen.load
    return chosen, read(item.source, **options.get(item.modality, {}))
