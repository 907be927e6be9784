"""Which model the loaders prepare for, and which model a tensor was prepared for.

ImageBind's loaders know nothing of the model, because there is only one. Here models differ in size, mean, clips and words, so
that the loaders follow the model made last in this process; before one is made, VITLENS_IMAGEBIND_MODEL or else vitlens-l.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vitlens.errors import ModalityError, OptionError
from vitlens.imagebind.alias import ENV
from vitlens.modality import Modality
from vitlens.zoo import find_modality

DEFAULT = "vitlens-l"


class Target:
    """A model as the loaders know it: its name, and each modality with the options it preprocesses with. It holds no weights."""

    def __init__(self, name: str, modalities: Mapping[str, Modality] | None = None) -> None:
        self.name = name
        self._complete = modalities is not None
        self._modalities = dict(modalities or {})

    def modality(self, name: str) -> Modality:
        """The modality `name` as this model preprocesses it.

        Raises:
            ModelError: no such model.
            ModalityError: the model has no such modality.
        """
        if name not in self._modalities:
            if self._complete:
                raise ModalityError(
                    f"model {self.name}, as it was made, has no modality {name!r}; it has {', '.join(self._modalities)}"
                )
            self._modalities[name] = find_modality(name, self.name)
        return self._modalities[name]


class Made(Protocol):
    """A model of the drop-in (ImageBindModel): it says what the loaders prepare for."""

    target: Target


_latest: list[Target] = []
"""The target of the model made last, if any."""
_made_for: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Loaded tensor -> (name of the model, modality). Kept beside the tensors, so that saving one saves nothing of ours."""
_shapes: dict[tuple[str, tuple[int, ...]], str] = {}
"""(modality, shape of an item) -> the model it was loaded for; for messages about tensors that were copied since."""


def default_model() -> str:
    """The model that is meant when none is named: VITLENS_IMAGEBIND_MODEL, else vitlens-l."""
    return os.environ.get(ENV) or DEFAULT


def follow(target: Target) -> None:
    """Let the loaders prepare for this model from now on."""
    _latest[:] = [target]


def current(model: str | os.PathLike[str] | Made | None = None) -> Target:
    """What to prepare for: `model` (a name, a folder or a model), else the model made last, else the default.

    Raises:
        OptionError: `model` is none of these.
    """
    if model is None:
        return _latest[0] if _latest else _named(default_model())
    if isinstance(model, str | os.PathLike):
        return _named(os.fspath(model))
    target = getattr(model, "target", None)
    if not isinstance(target, Target):
        raise OptionError(f"model must be a zoo name, a folder or an ImageBindModel, found {type(model).__name__}")
    return target


@cache
def _named(name: str) -> Target:
    return Target(name)


def stamp(tensor: Tensor, target: Target, modality: Modality) -> Tensor:
    """Note that `tensor`, a batch, was prepared for `target` by `modality` (with the model's own options)."""
    _made_for[tensor] = (target.name, modality)
    _shapes[modality.name, tuple(tensor.shape[1:])] = target.name
    return tensor


def check_stamp(tensor: Tensor, key: str, model: str, modality: Modality) -> None:
    """Refuse a tensor that is known to be prepared for a model that preprocesses otherwise. Unknown tensors pass.

    Raises:
        OptionError: naming both models.
    """
    name, made_by = _made_for.get(tensor, (model, modality))
    if _facts(made_by) != _facts(modality):
        raise OptionError(
            f"{key}: this tensor was made for the model {name}, which prepares it otherwise than {model}: {advice(model)}"
        )


def made_here(tensor: Tensor, modality: Modality) -> bool:
    """Whether a loader gave this tensor, or another of its shape (of which it may be a copy)."""
    return tensor in _made_for or maker_of(tensor, modality) is not None


def maker_of(tensor: Tensor, modality: Modality) -> str | None:
    """The model for which tensors of this shape were loaded here, if any were."""
    return _shapes.get((modality.name, tuple(tensor.shape[1:])))


def advice(model: str) -> str:
    """How tensors come to fit a model."""
    return f"load it after the model is made, or with load_and_transform_...(..., model={model!r})"


def _facts(modality: Modality) -> tuple[Any, ...]:
    return type(modality), modality.options()
