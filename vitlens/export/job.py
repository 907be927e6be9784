"""`vitlens export`: a graph, its description and perhaps label vectors beside it; all of them or, where it drifts, none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens import checks
from vitlens.disk import output_file
from vitlens.errors import OptionError
from vitlens.export.description import description_of, labelled, measured
from vitlens.export.drift import EXAMPLES, Drift, drift_of, preprocessed
from vitlens.export.formats import FORMATS, Format
from vitlens.export.graph import graph_of
from vitlens.store.digests import model_hash
from vitlens.zeroshot import DEFAULT_TEMPLATES

if TYPE_CHECKING:
    from vitlens.model import ViTLens

MADE_WITH = {"onnx": ("vitlens", "torch", "onnxscript"), "openvino": ("vitlens", "torch", "onnxscript", "openvino")}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    files: tuple[Path, ...]
    """The graph first, its description last."""
    description: Mapping[str, Any]
    drift: Drift


def format_of(path: Path, name: str | None = None) -> str:
    """The format of an output, by its type; `name` must agree.

    Raises:
        OptionError: another type of file.
    """
    if name is not None:
        checks.one_of("--format", name, FORMATS)
    formats = FORMATS if name is None else {name: FORMATS[name]}
    output_file("output", path, [made.suffix for made in formats.values()])
    return next(known for known, made in formats.items() if path.suffix.lower() == f".{made.suffix}")


def check_export(path: Path, name: str | None = None, *, overwrite: bool = False) -> str:
    """The format, once `path` can be written.

    Raises:
        OptionError: it exists (without `overwrite`), is a folder, has another type, or its folder is not there.
    """
    chosen = format_of(path, name)
    output_file("output", path, [FORMATS[chosen].suffix], overwrite=overwrite)
    if not path.parent.is_dir():
        raise OptionError(f"output {path}: no such folder {path.parent}")
    return chosen


def export_tower(
    model: ViTLens,
    modality: str,
    output: str | os.PathLike[str],
    *,
    format: str | None = None,
    items: Sequence[Any] = (),
    read_options: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    overwrite: bool = False,
) -> Exported:
    """Write the tower that encodes `modality` to `output` (.onnx, or .xml for OpenVINO) with a JSON that describes it beside it.

    The drift is measured on `items` (files, arrays; default: the modality's own examples). With `labels` their class vectors are
    written too, so that zero-shot classification needs no text tower.

    Raises:
        OptionError: an output that cannot be written, weights that are not float32, labels that cannot be used.
        ModalityError: the model has no such modality, or for labels no text tower.
        ModelError: a tower that cannot be a graph, or whose embeddings drift below a cosine of 0.9999; nothing is written then.
        InputError: an item that cannot be read.
        MissingDependencyError: the extra `export` is not installed.
    """
    path = Path(output)
    chosen = check_export(path, format, overwrite=overwrite)
    graph = graph_of(model, modality)
    tensors = preprocessed(model, modality, items, read_options)
    vectors = model.class_vectors(labels, templates=templates) if labels else None
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        kept = _named(path, chosen, labels=vectors is not None)
        made_with = {package: version(package) for package in MADE_WITH[chosen]}
        told = description_of(model, graph, weights=model_hash(model.tower(modality)), files=kept, made_with=made_with)
        drift = _write(FORMATS[chosen], folder / path.name, model, graph, told, tensors)
        told = measured(told, drift, f"{len(items)} given items" if items else f"{EXAMPLES} synthetic examples")
        if vectors is not None:
            name = kept[-2]
            np.save(folder / name, vectors.numpy().astype(np.float32))
            told = labelled(told, labels, templates, name)
        told["files"] = kept = [name for name in kept if name == kept[-1] or (folder / name).exists()]
        (folder / kept[-1]).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _move(folder, path, kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(tuple(path.with_name(name) for name in kept), told, drift)


def _write(made: Format, path: Path, model: ViTLens, graph: Any, told: Mapping[str, Any], tensors: Sequence[Any]) -> Drift:
    """Write the graph into the temporary folder and run it from there."""
    about = {
        key: json.dumps(told[key]) if not isinstance(told[key], str) else told[key]
        for key in ("model", "weights", "space", "modality")
    }
    made.write(graph, path, about)
    return drift_of(model, graph.modality, made.open(path), tensors).check(path.name)


def _named(path: Path, chosen: str, *, labels: bool) -> list[str]:
    """Names of the files that may be made, the description last."""
    weights = f"{path.stem}{FORMATS[chosen].beside}"
    return [path.name, weights, *([f"{path.name}.labels.npy"] * labels), f"{path.name}.json"]


def _move(folder: Path, path: Path, kept: Sequence[str]) -> None:
    """Put the files in their place, the graph last; what an earlier export left of others goes."""
    for name in {f"{path.stem}{made.beside}" for made in FORMATS.values() if path.suffix.lower() == f".{made.suffix}"} - set(
        kept
    ):
        path.with_name(name).unlink(missing_ok=True)
    path.with_name(f"{path.name}.labels.npy").unlink(missing_ok=True)
    for name in [*kept[1:], kept[0]]:
        os.replace(folder / name, path.with_name(name))
