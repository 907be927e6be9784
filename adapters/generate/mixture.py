"""Any number of inputs of any modalities as one thing: a weighted embedding, weighted sentences, or the picture among them.

Weights are CoDi's (arXiv 2305.11846): normalised to sum 1, equal by default; one pooled vector per input, their weighted sum.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import PIL.Image
from torch import Tensor

from vitlens.adapters.generate.retrieval import TextBank
from vitlens.errors import HostError, ModalityError, OptionError
from vitlens.modality import Sample
from vitlens.model import ViTLens
from vitlens.sources import is_path

Describer = Callable[[Mapping[str, Sequence[Any]]], Sequence[str]]
"""{modality: items}, one modality at a time -> a sentence for every item."""
Weights = Mapping[str, "float | Sequence[float]"]


class Mixture:
    """Inputs {modality: item or list of items} with weights {modality: number for each of its items, or a list of numbers}.

    Raises:
        OptionError: no input, or weights that are not positive numbers, of inputs that are not there, or of another number.
        ModalityError: a modality the model does not have (a text is always taken; it can go by itself).
    """

    def __init__(
        self,
        model: ViTLens,
        inputs: Mapping[str, Any],
        weights: Weights | None = None,
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.model = model
        self.inputs = _listed(inputs)
        self.read_options = read_options or {}
        for name in self.inputs:
            if name != "text" and not model.supports(name):
                raise ModalityError(f"model {model.spec.name} has no modality {name!r}; it has {', '.join(model.modalities)}")
        self.shares = _shares(self.inputs, weights or {})

    @cached_property
    def rows(self) -> list[Tensor]:
        """Embedding [E] of every input, normalised.

        Raises:
            InputError: an input that cannot be read.
            ModalityError: a text, and the model has no text tower.
        """
        encoded = self.model.encode(self.inputs, read_options=self.read_options)
        return [row for name in self.inputs for row in encoded[name]]

    @cached_property
    def pooled(self) -> Tensor:
        """The weighted sum [E] of all embeddings, normalised."""
        # sorted, so that the order of the inputs changes nothing, not even by rounding
        pairs = sorted(zip(self.rows, self.shares, strict=True), key=lambda pair: (pair[1], pair[0].tolist()))
        return self.model.compose([row for row, _ in pairs], weights=[share for _, share in pairs])

    def sentences(self, describer: Describer | None, bank: TextBank | None) -> list[tuple[str, float]]:
        """Each input as a sentence, with its share: texts are their own, others by the describer, else by the bank.

        Inputs with the same sentence become one, with the sum of their shares.

        Raises:
            HostError: a describer that does not give one sentence per item.
        """
        found: dict[str, float] = {}
        place = 0
        for name, items in self.inputs.items():
            rows = range(place, place + len(items))
            place += len(items)
            if name == "text":
                made = [str(item) for item in items]
            elif describer is not None:
                made = _described(describer, name, [_with_options(item, self.read_options.get(name)) for item in items])
            elif bank is not None:
                made = [bank.describe(self.rows[row])[0] for row in rows]
            else:
                raise OptionError(f"{name} becomes a text through a describer or a bank of texts; neither was given")
            for sentence, row in zip(made, rows, strict=True):
                found[sentence] = found.get(sentence, 0.0) + self.shares[row]
        return list(found.items())

    @property
    def needs_describing(self) -> list[str]:
        """Modalities of the inputs that are not texts."""
        return [name for name in self.inputs if name != "text"]

    @property
    def paths(self) -> list[Path]:
        """The files among the inputs."""
        items = [item for name in self.needs_describing for item in self.inputs[name]]
        sources: list[Any] = [item.get("source") if isinstance(item, Mapping) else item for item in items]
        return [Path(source) for source in sources if is_path(source) and "\0" not in os.fspath(source)]

    @property
    def only_picture(self) -> bool:
        """Whether a single picture is all there is."""
        return list(self.inputs) == ["image"] and len(self.inputs["image"]) == 1

    @cached_property
    def picture(self) -> PIL.Image.Image:
        """The single picture, as it was read.

        Raises:
            InputError: it cannot be read.
        """
        modality = self.model.modality("image")
        return PIL.Image.fromarray(modality.load(self.inputs["image"][0], **self.read_options.get("image", {})).data)


def _listed(inputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    if not isinstance(inputs, Mapping):
        raise OptionError(f'inputs must be a mapping such as {{"audio": "waves.wav"}}, found {type(inputs).__name__}')
    listed = {name: list(given) if isinstance(given, list | tuple) else [given] for name, given in inputs.items()}
    listed = {name: items for name, items in listed.items() if items}
    if not listed:
        raise OptionError('no input; give at least one, such as {"audio": "waves.wav"}')
    return listed


def _shares(inputs: Mapping[str, list[Any]], weights: Weights) -> list[float]:
    unknown = [name for name in weights if name not in inputs]
    if unknown:
        raise OptionError(f"weights for {', '.join(unknown)}, but the inputs are {', '.join(inputs)}")
    found: list[float] = []
    for name, items in inputs.items():
        given = weights.get(name, 1.0)
        numbers = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * len(items)
        if len(numbers) != len(items):
            raise OptionError(f"weights of {name}: {len(numbers)} for {len(items)} items")
        for number in numbers:
            if not isinstance(number, Real) or not math.isfinite(number) or number <= 0:
                raise OptionError(f"weights of {name}: must be positive numbers, found {number!r}; leave out what is not wanted")
            found.append(float(number))
    return [number / math.fsum(found) for number in found]


def _with_options(item: Any, options: Mapping[str, Any] | None) -> Any:
    """An item that brings its read options along, as the describer reads it by itself."""
    if not options or isinstance(item, Sample):
        return item
    return {**options, **(item if isinstance(item, Mapping) else {"source": item})}


def _described(describer: Describer, name: str, items: list[Any]) -> list[str]:
    made = describer({name: items})
    if isinstance(made, str) or len(made) != len(items) or not all(isinstance(text, str) for text in made):
        raise HostError(f"the describer must give one sentence for each of {len(items)} {name} items, found {made!r:.200}")
    return [" ".join(text.split()) for text in made]
