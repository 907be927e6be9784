"""Finding and loading a host model of transformers - a folder or a Hub repository - with its tokenizer and image processor."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitlens.adapters.running import memory
from vitlens.devices import chosen_device
from vitlens.errors import HostError, MissingDependencyError, ModelError, VitlensError
from vitlens.hub import ailing, hub_reachable, refusal

MLLM = "pip install 'vitlens[mllm]'"


@contextmanager
def reading(what: str, advice: str, repo: str = "") -> Iterator[None]:
    """Turn what transformers and diffusers raise about files into a ModelError: absent, cut off, or of another shape.

    What the Hub answered about the repository `repo` is told as such: gated, not there, without a file.
    """
    from huggingface_hub.errors import EntryNotFoundError
    from safetensors import SafetensorError

    try:
        yield
    except (torch.OutOfMemoryError, VitlensError):
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError, EntryNotFoundError) as error:
        answer = refusal(error, repo) if repo else None
        if answer is not None:
            raise ModelError(f"{what} cannot be loaded: {answer}") from error
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{what} cannot be loaded ({reason}); {advice}") from error


@dataclass(frozen=True)
class HostFiles:
    """Where a host's files are: a folder, or a repository that may or may not be asked over the network."""

    name: str
    model_type: str
    """Of transformers' configuration: "instructblip", "llava" ...; empty for what has none."""
    local: bool
    """Only this machine is asked: a folder, no network, or HF_HUB_OFFLINE."""
    revision: str | None = None
    trouble: str = ""
    """Why the Hub gives nothing just now, though it can be reached; then only this machine is asked."""

    @classmethod
    def at(cls, name: str, model_type: str = "", revision: str | None = None, *, local: bool | None = None) -> HostFiles:
        """Of a folder or a repository, which is asked over the network only if it answers; `local` says so where it is known."""
        folder = Path(name).expanduser()
        if folder.is_dir():
            return cls(str(folder), model_type, True, revision)
        return cls(name, model_type, offline() if local is None else local, revision)

    def asked(self) -> HostFiles:
        """These files, of this machine alone where the Hub is ill or silent about them."""
        if self.local:
            return self
        trouble = ailing(self.name, ("config.json", "model_index.json"), self.revision)
        return self if trouble is None else replace(self, local=True, trouble=trouble)

    @property
    def where(self) -> dict[str, Any]:
        """Keyword arguments of every `from_pretrained`."""
        return {"local_files_only": self.local, "revision": self.revision or "main"}

    def load(self, cls: Any, **options: Any) -> Any:
        """`cls.from_pretrained` of these files, a class of transformers or diffusers.

        Raises:
            ModelError: files that are neither on this machine nor to be had, or that cannot be read.
        """
        with self.reading(cls.__name__):
            return cls.from_pretrained(self.name, **self.where, **options)

    def reading(self, what: str) -> AbstractContextManager[None]:
        """Around what reads these files some other way; raises as `load`."""
        return reading(f"{self.name}: {what}", self.advice, "" if Path(self.name).is_dir() else self.name)

    @property
    def advice(self) -> str:
        """What to do where the files cannot be had, or are not what they should be."""
        if Path(self.name).is_dir():
            return "the folder must hold what save_pretrained of the model and of its processor writes"
        if self.trouble:
            return self.trouble
        if self.local:
            return f"download the repository where there is network (hf download {self.name}) and give its folder"
        return "the repository must hold what save_pretrained of the model and of its processor writes"


def offline() -> bool:
    """Whether nothing may be asked of the network (HF_HUB_OFFLINE), or it does not answer."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or not hub_reachable()


def import_diffusers(what: str) -> Any:
    """The diffusers package; raises MissingDependencyError without it, saying `what` it is needed for."""
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependencyError(f"{what} need diffusers: {MLLM}") from error
    return diffusers


def dtype_argument(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """`dtype` as an argument of diffusers' `from_pretrained`, whose name changed in 0.42."""
    import diffusers
    from packaging.version import Version

    return {"dtype" if Version(diffusers.__version__) >= Version("0.42") else "torch_dtype": dtype}


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
    files = HostFiles.at(text, model_type or "", revision).asked()
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
    unused: Callable[[Any], Iterable[nn.Parameter]] | None = None,
) -> Any:
    """The host model in evaluation mode, on the best device (or as `device_map` says).

    `dtype` None is bfloat16 on CUDA and float32 elsewhere. With `load_in_8bit` all but the modules in `plain` is quantised.
    `unused` gives those parameters of a model that the adapter never runs: files may lack them.

    Raises:
        ModelError: weights that cannot be had or read, or that lack parameters of the model.
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
    advice = "load it with load_in_8bit=True, with device_map='auto' (parts on the CPU), or on the CPU with device_map='cpu'"
    with memory(f"{files.name} on {device}", advice):
        model, told = files.load(cls, output_loading_info=True, **options)
        _check_complete(files.name, model, told["missing_keys"], unused(model) if unused else ())
        return model.eval() if device_map is not None else model.eval().to(device)


def _check_complete(name: str, model: Any, missing: Iterable[str], unused: Iterable[nn.Parameter]) -> None:
    """Raises ModelError for parameters that no file had and that are run: transformers would leave them random."""
    idle = {id(parameter) for parameter in unused}
    lost = sorted(set(missing) & {key for key, parameter in model.named_parameters() if id(parameter) not in idle})
    if lost:
        some = ", ".join(lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
        raise ModelError(f"{name}: its weights lack {some}, which would be random: is the download complete?")


def _eight_bit(plain: tuple[str, ...]) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError("8-bit weights need bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head", *plain])
