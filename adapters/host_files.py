"""Finding and loading a host model of transformers - a folder or a Hub repository - with its tokenizer and image processor."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitlens.errors import HostError, MissingDependencyError, ModelError
from vitlens.zoo import chosen_device, hub_reachable

MLLM = "pip install 'vitlens[mllm]'"


@dataclass(frozen=True)
class HostFiles:
    """Where a host's files are: a folder, or a repository that may or may not be asked over the network."""

    name: str
    model_type: str
    """Of transformers' configuration: "instructblip", "llava" ..."""
    local: bool
    """Only this machine is asked: a folder, no network, or HF_HUB_OFFLINE."""
    revision: str | None = None

    @property
    def where(self) -> dict[str, Any]:
        """Keyword arguments of every `from_pretrained`."""
        return {"local_files_only": self.local, "revision": self.revision or "main"}

    def load(self, cls: Any, **options: Any) -> Any:
        """`cls.from_pretrained` of these files.

        Raises:
            ModelError: files that are neither on this machine nor to be had, or that cannot be read.
        """
        try:
            return cls.from_pretrained(self.name, **self.where, **options)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{self.name}: {cls.__name__} cannot be loaded ({reason}); {self.advice}") from error

    @property
    def advice(self) -> str:
        if Path(self.name).is_dir():
            return "the folder must hold what save_pretrained of the model and of its processor writes"
        return (
            "download the repository where there is network (huggingface-cli download) and give its folder"
            if self.local
            else "is it a repository of the Hub, and may you read it?"
        )


def host_type(name: str | os.PathLike[str], *, revision: str | None = None) -> str:
    """The kind of model ("instructblip", "llava" ...) that a Hub repository or a folder holds; raises as `find_host`."""
    return find_host(name, revision=revision).model_type


def find_host(name: str | os.PathLike[str], model_type: str | None = None, *, revision: str | None = None) -> HostFiles:
    """A host by its Hub name "owner/name" or its folder; its configuration must be of `model_type`, if one is given.

    Raises:
        MissingDependencyError: no transformers.
        ModelError: neither a folder nor a repository that can be had.
        HostError: a model of another type.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise MissingDependencyError(f"multimodal hosts need transformers: {MLLM}") from error
    text = os.fspath(name)
    folder = Path(text).expanduser()
    if not folder.is_dir() and (text.count("/") != 1 or text.startswith((".", "~", "/"))):
        raise ModelError(f"{text}: no such folder, and not the name of a Hub repository 'owner/name'")
    from huggingface_hub import constants

    local = folder.is_dir() or constants.HF_HUB_OFFLINE or not hub_reachable()
    files = HostFiles(str(folder) if folder.is_dir() else text, model_type or "", local, revision)
    found = str(files.load(AutoConfig).model_type)
    if model_type not in (None, found):
        raise HostError(f"{text} is a {found} model, this adapter takes {model_type}")
    return replace(files, model_type=found)


def load_host(
    files: HostFiles,
    cls: Any,
    *,
    dtype: torch.dtype | None = None,
    device_map: Any = None,
    load_in_8bit: bool = False,
    plain: tuple[str, ...] = (),
) -> Any:
    """The host model in evaluation mode, on the best device (or as `device_map` says).

    `dtype` None is bfloat16 on CUDA and float32 elsewhere. With `load_in_8bit` all but the modules in `plain` is quantised.

    Raises:
        ModelError: weights that cannot be had or read.
        HostError: not enough memory.
        MissingDependencyError: `load_in_8bit` without bitsandbytes, `device_map` without accelerate.
    """
    device = chosen_device()
    options: dict[str, Any] = {"dtype": dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)}
    if load_in_8bit:
        options["quantization_config"] = _eight_bit(plain)
        device_map = device_map or {"": device}
    if device_map is not None:
        if importlib.util.find_spec("accelerate") is None:
            raise MissingDependencyError(f"device_map and 8-bit weights need accelerate: {MLLM}")
        options["device_map"] = device_map
    try:
        model = files.load(cls, **options).eval()
        return model if device_map is not None else model.to(device)
    except torch.OutOfMemoryError as error:
        raise HostError(
            f"{files.name} does not fit into the memory of {device}: load it with load_in_8bit=True, with device_map='auto' "
            "(parts on the CPU), or on the CPU with device_map='cpu'"
        ) from error


def _eight_bit(plain: tuple[str, ...]) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError("8-bit weights need bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head", *plain])
