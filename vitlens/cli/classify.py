"""`vitlens classify`: which of the user's own class names fits each input best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.cli.inputs import gather
from vitlens.cli.options import (
    MODEL,
    AsOption,
    BatchOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ReadersOption,
    ReadOption,
    SoundOption,
    TextOption,
    new_app,
    open_model,
    with_sound,
)
from vitlens.display.table import Table
from vitlens.errors import OptionError
from vitlens.read_options import parse_read_options
from vitlens.sources import check_file, decoding
from vitlens.store.items import Failure, Inputs

if TYPE_CHECKING:
    from vitlens.batches import Workers
    from vitlens.model import ViTLens

app = new_app()


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
    sound: SoundOption = None,
    cache: Annotated[Path | None, typer.Option(help="Folder in which prompts are kept (default: the user's cache).")] = None,
    batch_size: BatchOption = 32,
    num_workers: ReadersOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which of your own class names fits each file best (zero-shot).

    **Examples**

    vitlens classify dog.flac rain.flac --labels "dog,rain,sea waves"

    vitlens classify 'scans/*.ply' --labels-file modelnet40.txt --template "a point cloud of a {}."
    """
    from vitlens.cli.console import remark, say_failures, say_json, say_table

    names = parse_labels(labels, labels_file)
    found = gather(files or (), texts=text or (), modalities=[modality] if modality else ())
    options = parse_read_options(read_option or (), modality)
    for note in found.notes:
        remark(note)
    built = open_model(model, [*with_sound(found.by_modality(), sound), "text"], device)
    rows, failures = classify_inputs(
        built,
        found,
        names,
        templates=template or (),
        top=top,
        batch_size=batch_size,
        num_workers=num_workers,
        read_options=options,
        sound=sound,
        cache=cache,
    )
    if as_json:
        say_json({"model": model, "labels": names, "results": rows, "errors": [failure.to_dict() for failure in failures]})
    elif rows:
        say_table(class_table(rows))
    say_failures(failures)
    if failures:
        raise typer.Exit(1)


def classify_inputs(
    model: ViTLens,
    inputs: Inputs,
    labels: Sequence[str],
    *,
    templates: Sequence[str] = (),
    top: int = 5,
    batch_size: int = 32,
    num_workers: Workers = "auto",
    read_options: Mapping[str, Mapping[str, Any]] | None = None,
    sound: float | None = None,
    cache: Path | None = None,
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """The `top` best labels of every input, in input order, and the inputs that could not be read.

    Raises:
        OptionError: labels or templates that cannot be used.
    """
    from vitlens.store.prompts import stored_prompts
    from vitlens.zeroshot import DEFAULT_TEMPLATES, classify_embeddings

    prompts = stored_prompts(model, cache)
    vectors = model.class_vectors(labels, templates=tuple(templates) or DEFAULT_TEMPLATES, embed=prompts)
    found: dict[int, dict[str, Any]] = {}
    failures = list(inputs.failures)
    for modality, items in inputs.by_modality().items():
        out = model.encode(
            {modality: [item.value for item in items]},
            batch_size=batch_size,
            num_workers=num_workers,
            on_error="skip",
            read_options={name: (read_options or {}).get(name, {}) for name in with_sound([modality], sound)},
            sound=sound if modality == "video" else None,
        )
        failures += [Failure.of(items[i].row, items[i].name, modality, error) for i, error in out.errors[modality]]
        classes = classify_embeddings(out[modality], labels, vectors, logit_scale=model.logit_scale)
        for place, scores, probabilities in zip(out.kept[modality], classes.scores, classes.probabilities, strict=True):
            order = probabilities.argsort(descending=True)[:top].tolist()
            best = [{"label": labels[i], "probability": float(probabilities[i]), "cosine": float(scores[i])} for i in order]
            found[items[place].row] = {"item": items[place].name, "modality": modality, "top": best}
    return [found[row] for row in sorted(found)], sorted(failures, key=lambda failure: failure.row)


def parse_labels(listed: str | None, file: Path | None) -> list[str]:
    """Class names from "dog,cat" or from a file with one per line.

    Raises:
        OptionError: neither or both given, or no name in it.
        InputError: a file that cannot be read.
    """
    if (listed is None) == (file is None):
        raise OptionError("give the class names with --labels 'dog,cat' or --labels-file FILE (one per line)")
    if file is None:
        parts = (listed or "").split(",")
    else:
        accepted = "a UTF-8 text file with one class name per line"
        check_file(file, accepted=accepted)
        with decoding(file, accepted):
            parts = file.read_text(encoding="utf-8-sig").split("\n")
    labels = [part.strip() for part in parts if part.strip()]
    if not labels:
        raise OptionError(f"no class name in {file or '--labels'}")
    return list(dict.fromkeys(labels))


def class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line per item and label: probability and cosine."""
    lines = []
    for row in rows:
        for place, best in enumerate(row["top"]):
            head = (row["item"], row["modality"]) if place == 0 else ("", "")
            lines.append((*head, best["label"], f"{100 * best['probability']:.1f} %", f"{best['cosine']:.3f}"))
    numbers = ("probability", "cosine")
    return Table(("item", "modality", "label", *numbers), lines, numbers=numbers)
