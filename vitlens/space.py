"""The space embeddings live in, and embeddings that know it. No torch here: what names, stores or compares spaces stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitlens import checks
from vitlens.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EmbeddingSpace:
    """The space embeddings live in: the CLIP checkpoint of its anchors, and the width E. Same width is not same space."""

    name: str
    dim: int

    def __post_init__(self) -> None:
        checks.text("space: name", self.name)
        checks.whole("space: dim", self.dim, least=1, most=1 << 20)


class Embeddings(dict[str, "Tensor"]):
    """Modality -> embeddings [n, E] on the CPU, with the space they live in; each tensor has it too, as its attribute `space`.

    After `on_error="skip"`: `errors[modality]` lists (position, InputError) of the items left out, and `kept[modality]` the
    input position of every row; without errors rows and inputs correspond one to one. `remarks[modality]` lists (position, text)
    of what readers have to say of items that they read.
    """

    def __init__(self, space: EmbeddingSpace) -> None:
        super().__init__()
        self.space = space
        self.errors: dict[str, list[tuple[int, InputError]]] = {}
        self.kept: dict[str, list[int]] = {}
        self.remarks: dict[str, list[tuple[int, str]]] = {}
