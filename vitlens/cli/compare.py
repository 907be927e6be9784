"""What the commands compare: inputs with class names, or two sides - files, texts, stored embeddings - with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.cli.inputs import Failure, Inputs, gather, reason_of
from vitlens.errors import OptionError, SpaceError
from vitlens.modality import modality_class
from vitlens.sources import check_file, decoding
from vitlens.space import EmbeddingSpace
from vitlens.store.files import StoredEmbeddings, holds_embeddings, load_embeddings
from vitlens.zeroshot import DEFAULT_TEMPLATES, classify_embeddings

if TYPE_CHECKING:
    from vitlens.model import ViTLens


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
    made = [_embedded(side, model, batch_size, read_options or {}) for side in sides]
    space = model.space if model is not None else stored[0][1].space
    return made[0], made[-1], made[0].vectors @ made[-1].vectors.T, space


def _same_space(name: str, space: EmbeddingSpace, other: str, other_space: EmbeddingSpace) -> None:
    if space != other_space:
        raise SpaceError(
            f"{name} is in space {space.name} ({space.dim} values), {other} in {other_space.name} ({other_space.dim} values): "
            f"their embeddings cannot be compared; embed both with one model"
        )


def _embedded(side: Wanted, model: ViTLens | None, batch_size: int, read_options: Mapping[str, Mapping[str, Any]]) -> Side:
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
            options = {modality: read_options.get(modality, {})}
            out = model.encode({modality: values}, batch_size=batch_size, read_options=options)[modality]
            rows_of |= {item.row: row for item, row in zip(items, out, strict=True)}
        names += [item.name for item in side.inputs.items]
        modalities += [item.modality for item in side.inputs.items]
        vectors.append(torch.stack([rows_of[item.row] for item in side.inputs.items]))
    return Side(names, modalities, F.normalize(torch.cat(vectors).float(), dim=-1))


def classify(
    model: ViTLens,
    inputs: Inputs,
    labels: Sequence[str],
    *,
    templates: Sequence[str] = (),
    top: int = 5,
    batch_size: int = 32,
    num_workers: int = 0,
    read_options: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """The `top` best labels of every input, in input order, and the inputs that could not be read.

    Raises:
        OptionError: labels or templates that cannot be used.
    """
    vectors = model.class_vectors(labels, templates=tuple(templates) or DEFAULT_TEMPLATES)
    found: dict[int, dict[str, Any]] = {}
    failures = list(inputs.failures)
    for modality, items in inputs.by_modality().items():
        out = model.encode(
            {modality: [item.value for item in items]},
            batch_size=batch_size,
            num_workers=num_workers,
            on_error="skip",
            read_options={modality: (read_options or {}).get(modality, {})},
        )
        failures += [Failure(items[i].row, items[i].name, modality, reason_of(error)) for i, error in out.errors[modality]]
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
