"""`vitlens export`: one sensor's tower as ONNX or OpenVINO, with its preprocessing described beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitlens.cli.classify import parse_labels
from vitlens.cli.inputs import gather
from vitlens.cli.options import MODEL, JsonOption, ModelOption, ReadOption, new_app, open_model
from vitlens.errors import OptionError
from vitlens.read_options import parse_read_options
from vitlens.store.items import Inputs

app = new_app()


@app.command(no_args_is_help=True)
def export(
    files: Annotated[list[str] | None, typer.Argument(help="Files of this sensor to measure the drift on.")] = None,
    model: ModelOption = MODEL,
    modality: Annotated[str, typer.Option("--modality", "--as", help="Which sensor's tower: audio, depth ... or text.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="FILE.onnx, or FILE.xml for OpenVINO.")] = None,
    format: Annotated[str | None, typer.Option(help="onnx or openvino; by default what the output's type says.")] = None,
    read_option: ReadOption = None,
    labels: Annotated[str | None, typer.Option(help="Class names, separated by commas: their vectors are written too.")] = None,
    labels_file: Annotated[Path | None, typer.Option(help="A file with one class name per line.")] = None,
    template: Annotated[list[str] | None, typer.Option(help="Prompt template with {} for the label; may be repeated.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one sensor's tower as a graph that runs without torch: preprocessed items in, embeddings of length 1 out.

    OUTPUT.json beside it describes the input and the preprocessing. The graph is run on real items - your files, or else the
    sensor's own examples - and refused where an embedding's cosine to torch's is below 0.9999.

    **Examples**

    vitlens export --model vitlens-toybox --modality audio -o audio.onnx

    vitlens export 'sounds/*.flac' --model vitlens-l --modality audio -o audio.xml --labels "dog,rain,sea waves"
    """
    from vitlens.cli.console import say, say_json, say_pairs, waiting
    from vitlens.export.job import check_export, export_tower
    from vitlens.zeroshot import DEFAULT_TEMPLATES

    if not modality:
        raise OptionError("say which sensor's tower with --modality audio (text for the text tower)")
    if output is None:
        raise OptionError("say where to write the graph with -o FILE.onnx, or -o FILE.xml for OpenVINO")
    check_export(output, format, overwrite=overwrite)
    names = parse_labels(labels, labels_file) if labels is not None or labels_file is not None else []
    found = gather(files, modalities=[modality]) if files else Inputs((), ())
    if found.failures:
        raise found.failures[0].to_error("files of the sensor that is exported")
    built = open_model(model, [modality, *(["text"] if names else [])], "cpu")
    with waiting(f"exporting {modality}"):
        made = export_tower(
            built,
            modality,
            output,
            format=format,
            items=[item.value for item in found.items],
            read_options=parse_read_options(read_option or (), modality).get(modality),
            labels=names,
            templates=tuple(template or ()) or DEFAULT_TEMPLATES,
            overwrite=overwrite,
        )
    if as_json:
        say_json(made.description)
        return
    told = made.description
    say_pairs(
        [
            ("written", ", ".join(map(str, made.files))),
            ("input", f"{told['input']['name']}: {told['input']['dtype']} {_sizes(told['input']['shape'])}"),
            ("output", f"{told['output']['name']}: {told['output']['dtype']} {_sizes(told['output']['shape'])}, of length 1"),
            (
                "drift",
                f"least cosine {made.drift.cosine:.7f}, largest difference {made.drift.difference:.2g}, {told['drift']['on']}",
            ),
        ]
    )
    say(f"{made.files[-1]} describes the preprocessing")


def _sizes(shape: list[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
