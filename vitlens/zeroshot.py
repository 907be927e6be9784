"""Zero-shot: class names and prompt templates become class vectors, sensors' embeddings are compared with them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.errors import OptionError

DEFAULT_TEMPLATES = ("{}", "a photo of a {}.", "this is a {}.")


@dataclass(frozen=True)
class Classification:
    """n items against c labels: `scores` [n, c] are cosines, `probabilities` [n, c] their softmax at the CLIP temperature."""

    labels: tuple[str, ...]
    scores: Tensor
    probabilities: Tensor

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k best labels of every item with their probabilities, best first."""
        values, indices = self.probabilities.topk(min(k, len(self.labels)), dim=-1)
        pairs = zip(values.tolist(), indices.tolist(), strict=True)
        return [[(self.labels[i], v) for v, i in zip(row, where, strict=True)] for row, where in pairs]


def fill_templates(label: str, templates: Sequence[str]) -> list[str]:
    """Every template with `label` in the place of its braces.

    Raises:
        OptionError: a template without `{}`, or no template.
    """
    if isinstance(templates, str) or not templates:
        raise OptionError("templates: a list of at least one prompt template is needed")
    for template in templates:
        if template.count("{}") != 1:
            raise OptionError(f"prompt template {template!r} must contain {{}} once, in the place of the label")
    return [template.replace("{}", label) for template in templates]


def class_prompts(labels: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> dict[str, list[str]]:
    """The prompts of every class, a line for each template.

    Raises:
        OptionError: no labels, an empty or repeated one, or a template without its braces.
    """
    if isinstance(labels, str) or not len(labels):
        raise OptionError("labels: a list of at least one class name is needed")
    labels = list(labels)
    if not all(isinstance(label, str) and label.strip() for label in labels) or len(set(labels)) != len(labels):
        raise OptionError("labels: class names must be different, non-empty strings")
    return {label: fill_templates(label, templates) for label in labels}


def class_vectors(
    embed: Callable[[list[str]], Tensor], labels: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES
) -> Tensor:
    """One vector per class [c, E]: the mean over its prompts' embeddings, normalised. `embed` gives normalised ones [n, E].

    Raises:
        OptionError: as `class_prompts`.
    """
    prompts = [prompt for lines in class_prompts(labels, templates).values() for prompt in lines]
    return F.normalize(embed(prompts).unflatten(0, (len(labels), -1)).mean(dim=1), dim=-1)


class LatelyAsked:
    """Class vectors that were asked for lately: a loop that classifies one item after the other embeds its prompts once."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._found: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, tower: nn.Module, asked: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gave for `asked` when the tower's weights were what they are; else what it gives now. A copy."""
        weights = tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in tower.parameters())
        key = (asked, weights)
        if key not in self._found:
            self._found[key] = make()
        self._found.move_to_end(key)
        while len(self._found) > self._most:
            self._found.popitem(last=False)
        return self._found[key].clone()


def classify_embeddings(embeddings: Tensor, labels: Sequence[str], vectors: Tensor, *, logit_scale: float) -> Classification:
    """Compare normalised embeddings [n, E] with class vectors [c, E]."""
    scores = embeddings.float() @ vectors.float().T
    return Classification(tuple(labels), scores, torch.softmax(logit_scale * scores, dim=-1))
