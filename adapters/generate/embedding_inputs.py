"""How a diffusers pipeline takes an image embedding: Stable unCLIP, Kandinsky 2.2, IP-Adapter, each in arguments of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitlens.errors import HostError


class EmbeddingInput(ABC):
    """One way; a card names it."""

    needs_blank: ClassVar[bool] = False
    """Whether it takes the embedding of an empty picture beside the embedding."""

    @abstractmethod
    def width(self, pipeline: Any) -> int | None:
        """How many values the pipeline's UNet takes; None where it cannot be read.

        Raises:
            HostError: a pipeline that takes no embeddings this way.
        """

    @abstractmethod
    def arguments(self, embedding: Tensor, blank: Callable[[], Tensor], *, guided: bool) -> dict[str, Any]:
        """Arguments of the pipeline's call for an embedding [1, E].

        `blank` gives the embedding [1, E] of an empty picture, `guided` says whether the pipeline also runs unconditionally.
        """


class UnclipInput(EmbeddingInput):
    """Stable unCLIP (StableUnCLIPImg2ImgPipeline): the embedding, which the pipeline noises by itself."""

    def width(self, pipeline: Any) -> int | None:
        """Half of the UNet's class embedding; the other half is the noise level."""
        if getattr(pipeline, "image_encoder", 0) is None:
            raise HostError("diffusers needs the image_encoder in this pipeline; load it with one")
        unet = getattr(pipeline, "unet", None)
        width = None if unet is None else unet.config.projection_class_embeddings_input_dim
        return None if unet is None else width // 2 if width else 0

    def arguments(self, embedding: Tensor, blank: Callable[[], Tensor], *, guided: bool) -> dict[str, Any]:
        """The embedding as it is."""
        return {"image_embeds": embedding}


class KandinskyInput(EmbeddingInput):
    """Kandinsky 2.2 (KandinskyV22Pipeline): the embedding, and that of an empty picture as its unconditional one."""

    needs_blank = True

    def width(self, pipeline: Any) -> int | None:
        """What the UNet projects to its own width."""
        unet = getattr(pipeline, "unet", None)
        return None if unet is None else unet.config.encoder_hid_dim or 0

    def arguments(self, embedding: Tensor, blank: Callable[[], Tensor], *, guided: bool) -> dict[str, Any]:
        """The embedding and the empty picture's."""
        return {"image_embeds": embedding, "negative_image_embeds": blank()}


class IPAdapterInput(EmbeddingInput):
    """IP-Adapter (arXiv 2308.06721) in any pipeline that has loaded one."""

    def width(self, pipeline: Any) -> int | None:
        """What the adapter's first projection takes."""
        unet = getattr(pipeline, "unet", None)
        if unet is None:
            return None
        layers = getattr(unet.encoder_hid_proj, "image_projection_layers", None)
        if not layers:
            raise HostError("no IP-Adapter in this pipeline; call its load_ip_adapter first")
        return layers[0].image_embeds.in_features

    def arguments(self, embedding: Tensor, blank: Callable[[], Tensor], *, guided: bool) -> dict[str, Any]:
        """The first half of the rows is the unconditional one, which IP-Adapter was trained on as zeros."""
        rows = torch.cat([torch.zeros_like(embedding), embedding]) if guided else embedding
        return {"ip_adapter_image_embeds": [rows[:, None]]}


EMBEDDING_INPUTS: dict[str, EmbeddingInput] = {
    "unclip": UnclipInput(),
    "kandinsky": KandinskyInput(),
    "ip_adapter": IPAdapterInput(),
}
"""The ways by the names that cards give them."""
