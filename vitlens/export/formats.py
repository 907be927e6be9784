"""The two formats: how a graph is written in each, and run again from its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.export.graph import Graph, to_onnx
from vitlens.libraries import pip_line

Run = Callable[[np.ndarray], np.ndarray]
"""Preprocessed items [b, ...] -> embeddings float32 [b, E]."""


@dataclass(frozen=True)
class Format:
    """One format: the type of its file, and what writes and runs it."""

    suffix: str
    beside: str
    """End of the name of the file with the weights, where they do not lie in the file itself; for ONNX above 2 GB."""
    write: Callable[[Graph, Path, Mapping[str, str]], None]
    """Writes the graph and, inside it, what there is to know of it."""
    open: Callable[[Path], Run]


@pip_line()
def write_onnx(graph: Graph, path: Path, about: Mapping[str, str]) -> None:
    """Write .onnx, and above 2 GB .onnx.data beside it."""
    program = to_onnx(graph)
    program.model.metadata_props.update(about)
    program.save(path)


@pip_line()
def open_onnx(path: Path) -> Run:
    """An .onnx file on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    return lambda items: np.asarray(session.run(None, {given.name: items})[0])


@pip_line()
def write_openvino(graph: Graph, path: Path, about: Mapping[str, str]) -> None:
    """Write .xml and .bin, by way of ONNX; weights stay float32."""
    import openvino

    onnx = path.with_name(f"{path.stem}.way.onnx")
    write_onnx(graph, onnx, about)
    made = openvino.convert_model(onnx)
    for name, value in about.items():
        made.set_rt_info(value, ["vitlens", name])
    openvino.save_model(made, path, compress_to_fp16=False)
    for left in path.parent.glob(f"{onnx.name}*"):
        left.unlink()


@pip_line()
def open_openvino(path: Path) -> Run:
    """An .xml file on the CPU, in float32: left to itself OpenVINO takes bfloat16 where the processor has it."""
    import openvino

    made: Any = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda items: np.array(made(items)[0])


FORMATS = {
    "onnx": Format("onnx", ".onnx.data", write_onnx, open_onnx),
    "openvino": Format("xml", ".bin", write_openvino, open_openvino),
}
