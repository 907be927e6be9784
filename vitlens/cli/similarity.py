"""`vitlens similarity`: two sides - files, texts, stored embeddings - compared by the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vitlens.cli.inputs import gather
from vitlens.cli.options import (
    MODEL,
    AsOption,
    BatchOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ReadOption,
    SoundOption,
    TextOption,
    new_app,
    open_model,
    with_sound,
)
from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.errors import SpaceError
from vitlens.modality import modality_class
from vitlens.read_options import parse_read_options
from vitlens.sources import suffix_of
from vitlens.space import EmbeddingSpace
from vitlens.store.files import StoredEmbeddings, holds_embeddings, load_embeddings
from vitlens.store.items import Inputs

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vitlens.model import ViTLens

app = new_app()
NEIGHBOURS = 3
"""Shown for every row where the whole table does not fit."""


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
    with_modality: Annotated[
        str | None,
        typer.Option(
            "--with-as", help="Modality of the files after --with (default: --as if it reads such files, else guessed)."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write a heatmap: similarity.png")] = None,
    read_option: ReadOption = None,
    sound: SoundOption = None,
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
    from vitlens.cli.console import say, say_json, say_table
    from vitlens.disk import output_file
    from vitlens.display.pictures import FORMATS, heatmap

    if output is not None:
        output_file("picture", output, FORMATS, inputs=[*(first or ()), *(second or ())])
    left = wanted(first or (), text or (), modality)
    other = with_modality or (modality if modality and any(_reads(modality, name) for name in second or ()) else None)
    right = wanted(second or (), with_text or (), other) if second or with_text else None
    options = parse_read_options(read_option or (), modality)
    a, b, cosines, space = compare(
        left,
        right,
        lambda needed: open_model(model, with_sound(needed, sound), device),
        batch_size=batch_size,
        read_options=options,
        sound=sound,
    )
    matrix = cosines.numpy()
    if as_json:
        say_json({"space": space.name, "rows": a.names, "columns": b.names, "cosines": matrix.round(6).tolist()})
    else:
        say_table(cosine_table(a.labels(), b.labels(), matrix, itself=right is None, width=console().width))
    if output is not None:
        heatmap(matrix, a.labels(), b.labels(), output, title=f"cosine similarity in {space.name}")
        if not as_json:
            say(f"{output}: heatmap of {len(a.names)} x {len(b.names)}")


def _reads(modality: str, name: str) -> bool:
    """Whether `name` is of a file type of `modality`, or (a folder, a pattern) may be anything."""
    return suffix_of(name) in ("", "*", *modality_class(modality).extensions)


@dataclass(frozen=True)
class Side:
    """Named embeddings: `names` and `modalities` of the rows of `vectors` [n, E]."""

    names: list[str]
    modalities: list[str]
    vectors: Tensor

    def labels(self) -> list[str]:
        """Names for a table: of files without their folders, as long as they stay apart."""
        pairs = zip(self.names, self.modalities, strict=True)
        short = [name if modality_class(modality).tower == "text" else Path(name).name for name, modality in pairs]
        return short if len(set(short)) == len(set(self.names)) else self.names


@dataclass(frozen=True)
class Wanted:
    """One side before it is embedded."""

    stored: list[tuple[str, StoredEmbeddings]]
    inputs: Inputs | None

    @property
    def modalities(self) -> list[str]:
        """What the model must be able to embed."""
        return list(self.inputs.by_modality()) if self.inputs else []


def wanted(given: Sequence[str], texts: Sequence[str], modality: str | None) -> Wanted:
    """Sort what a command line names into stored embeddings and things to embed.

    Raises:
        InputError: a file that does not exist or cannot be read.
    """
    files = [name for name in given if holds_embeddings(name)]
    others = [name for name in given if name not in files]
    inputs = gather(others, texts=texts, modalities=[modality] if modality else []) if others or texts or not files else None
    if inputs is not None and inputs.failures:
        raise inputs.failures[0].to_error("files, folders, quoted patterns or embedding files")
    return Wanted([(name, load_embeddings(name)) for name in files], inputs)


def compare(
    left: Wanted,
    right: Wanted | None,
    load: Callable[[list[str]], ViTLens],
    *,
    batch_size: int = 32,
    read_options: Mapping[str, Mapping[str, Any]] | None = None,
    sound: float | None = None,
) -> tuple[Side, Side, Tensor, EmbeddingSpace]:
    """Both sides embedded and their cosines [n, m]; without `right` the left one is compared with itself.

    The model is loaded only when something has to be embedded.

    Raises:
        SpaceError: embeddings of different spaces.
        InputError: an item that cannot be read.
    """
    sides = [left] if right is None else [left, right]
    stored = [entry for side in sides for entry in side.stored]
    for name, embeddings in stored[1:]:
        _same_space(stored[0][0], stored[0][1].space, name, embeddings.space)
    needed = list(dict.fromkeys(modality for side in sides for modality in side.modalities))
    model = load(needed) if needed else None
    if model is not None and stored:
        _same_space(stored[0][0], stored[0][1].space, f"model {model.spec.name}", model.space)
    made = [_embedded(side, model, batch_size, read_options or {}, sound) for side in sides]
    space = model.space if model is not None else stored[0][1].space
    return made[0], made[-1], made[0].vectors @ made[-1].vectors.T, space


def _same_space(name: str, space: EmbeddingSpace, other: str, other_space: EmbeddingSpace) -> None:
    if space != other_space:
        raise SpaceError(
            f"{name} is in space {space.name} ({space.dim} values), {other} in {other_space.name} ({other_space.dim} values): "
            f"their embeddings cannot be compared; embed both with one model"
        )


def _embedded(
    side: Wanted, model: ViTLens | None, batch_size: int, read_options: Mapping[str, Mapping[str, Any]], sound: float | None
) -> Side:
    import torch
    import torch.nn.functional as F

    names: list[str] = []
    modalities: list[str] = []
    vectors: list[Tensor] = []
    for _, stored in side.stored:
        for modality, rows in stored.items():
            names += stored.names[modality]
            modalities += [modality] * len(rows)
            vectors.append(rows)
    if side.inputs is not None and model is not None:
        rows_of: dict[int, Tensor] = {}
        for modality, items in side.inputs.by_modality().items():
            values = [item.value for item in items]
            share = sound if modality == "video" else None
            options = {name: read_options.get(name, {}) for name in with_sound([modality], sound)}
            out = model.encode({modality: values}, batch_size=batch_size, read_options=options, sound=share)[modality]
            rows_of |= {item.row: row for item, row in zip(items, out, strict=True)}
        names += [item.name for item in side.inputs.items]
        modalities += [item.modality for item in side.inputs.items]
        vectors.append(torch.stack([rows_of[item.row] for item in side.inputs.items]))
    return Side(names, modalities, F.normalize(torch.cat(vectors).float(), dim=-1))


def cosine_table(rows: Sequence[str], columns: Sequence[str], cosines: np.ndarray, *, itself: bool, width: int) -> Table:
    """The whole table of cosines where it fits `width`, else the nearest of every row.

    `itself` says that rows and columns are the same items: none is its own neighbour.
    """
    if max(map(len, rows)) + sum(max(len(name), 6) + 4 for name in columns) <= width:
        names = [_distinct(name, place, columns) for place, name in enumerate(columns)]
        whole = [(name, *(f"{value:.3f}" for value in values)) for name, values in zip(rows, cosines, strict=True)]
        return Table(("", *names), whole, numbers=names)
    lines = []
    for row, (name, values) in enumerate(zip(rows, cosines, strict=True)):
        nearest = [column for column in values.argsort()[::-1] if not itself or column != row]
        for place, column in enumerate(nearest[:NEIGHBOURS]):
            lines.append((name if place == 0 else "", columns[column], f"{values[column]:.3f}"))
    return Table(("item", "nearest", "cosine"), lines, numbers=("cosine",))


def _distinct(name: str, place: int, names: Sequence[str]) -> str:
    return name if names.count(name) == 1 else f"{name} ({place + 1})"
