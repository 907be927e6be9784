"""Weights files as people send them: torch's pickles, of which only harmless types are read, and safetensors."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlens.errors import CheckpointError
from vitlens.sources import check_file


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a .pt/.pth/.bin/.safetensors file: `state_dict` unwrapped, `module.` stripped, only tensors unpickled.

    Raises:
        InputError: missing or empty file.
        CheckpointError: not a weights file, truncated, or one that needs unpickling of other objects.
    """
    return unwrap(read_content(path), os.fspath(path))


def read_content(path: str | os.PathLike[str]) -> Any:
    """What a weights file holds, nested as it came; raises as `read_state_dict`."""
    file = check_file(path, accepted="a weights file: .pt .pth .bin .ckpt .safetensors", max_bytes=1 << 40)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            with torch.serialization.safe_globals(_harmless_globals()):
                content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{file}: not a readable weights file ({_unpickling_reason(str(error))})") from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{file}: not a readable weights file ({' '.join(str(error).split())[:300]})") from error
    except Exception as error:  # safetensors' own error type is not importable by a stable name
        raise CheckpointError(f"{file}: not a readable weights file ({type(error).__name__}: {error})") from error
    return content


def _harmless_globals() -> list[Any]:
    """What the public trainers leave in their files beside tensors: numpy numbers and arrays, arguments, dictionaries.

    Each only holds values. Numpy's makers stand under two names, before and since numpy 2; a defaultdict becomes a plain one.
    """
    import argparse
    import codecs
    from collections import OrderedDict

    import numpy as np
    from numpy._core import multiarray

    makers = {"scalar": multiarray.scalar, "_reconstruct": multiarray._reconstruct}
    numpy = [(made, f"numpy.{core}.multiarray.{name}") for name, made in makers.items() for core in ("core", "_core")]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefdSUO"}
    builtin = [(kind, f"builtins.{kind.__name__}") for kind in (float, int, str, bool, list, dict, set, tuple)]
    plain = [argparse.Namespace, OrderedDict, np.ndarray, np.dtype, codecs.encode, *kinds]
    return [*plain, *numpy, *builtin, (_plain_dict, "collections.defaultdict")]


def _plain_dict(*_factory: Any) -> dict[Any, Any]:
    return {}


def _unpickling_reason(text: str) -> str:
    """The one fact in torch's page of advice: the type that is not allowed, or what is wrong with the file."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if found:
        return f"it holds a {found[1]}, which is not among the harmless types that are read; save its state_dict alone"
    return text.partition("WeightsUnpickler error: ")[2].partition(" Check the documentation")[0][:300] or text[:300]


def unwrap(content: Any, name: str) -> dict[str, Tensor]:
    """The flat state dict inside a checkpoint's nesting; `module.` stripped when every key has it.

    OpenShape's files keep the temperature in a state dict of its own beside the tower's: it comes back as `logit_scale`.
    """
    scale: Tensor | None = None
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        heads = [key for key in ("text_proj", "image_proj") if content.get(key)]
        if heads:
            raise CheckpointError(f"{name}: projection heads beside the tower ({', '.join(heads)}) are not supported")
        if isinstance(content.get("logit_scale"), Mapping):
            scale = next((value for value in content["logit_scale"].values() if isinstance(value, Tensor)), None)
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name}: holds a {type(content).__name__}, not a state dict")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others or not state:
        raise CheckpointError(f"{name}: not a state dict: no tensor under {some(others) or 'any key'}")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state if scale is None else {**state, "logit_scale": scale}


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def some(names: Iterable[str], limit: int = 8) -> str:
    """The first names of many, and how many more there are."""
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
