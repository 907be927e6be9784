"""`imagebind_huge` and the model it gives: ImageBind's forward and habits around a ViTLens."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitlens.errors import CheckpointError, ModalityError, OptionError
from vitlens.imagebind.absent import LAYERS, answer
from vitlens.imagebind.alias import installed
from vitlens.imagebind.chosen import Target, default_model, follow
from vitlens.imagebind.layout import item_shape, to_encoder
from vitlens.imagebind.names import ModalityType as ModalityType
from vitlens.imagebind.names import encoder_name, imagebind_name, our_name, where_else
from vitlens.imagebind.postprocessors import postprocessors
from vitlens.model import ViTLens, load
from vitlens.zoo import card

PARTS = ("modality_preprocessors", "modality_trunks", "modality_heads")
"""Parts of ImageBind's model that ours does not have."""


WIDTH = 1024
"""Of ImageBind's embeddings."""


class ImageBindModel(nn.Module):
    """A ViTLens that is called as ImageBind is: {modality: tensor} in, {modality: embeddings} out.

    Made by `imagebind_huge`, or around a ViTLens of one's own: `ImageBindModel(vitlens.load(...))`. From then on the loaders of
    `vitlens.imagebind.data` prepare tensors for it. The ViTLens is `self.vitlens`.
    """

    def __init__(self, vitlens: ViTLens | None = None, **dimensions: Any) -> None:
        super().__init__()
        if not isinstance(vitlens, ViTLens) or dimensions:
            raise OptionError(
                "ImageBindModel is made around a ViTLens: ImageBindModel(vitlens.load(...)), or call imagebind_huge(model=...); "
                "the dimensions of ImageBind's own layers mean nothing here"
            )
        self.vitlens = vitlens
        keys = dict.fromkeys(imagebind_name(name) for name in vitlens.modalities)
        self.modality_postprocessors = postprocessors(keys, vitlens.logit_scale)
        self.target = Target(vitlens.spec.name, {name: vitlens.modality(name) for name in vitlens.modalities})
        self._item_shapes: dict[str, tuple[int, ...]] = {}
        follow(self.target)

    def forward(self, inputs: Mapping[str, Tensor | None], normalize: bool = True) -> dict[str, Tensor]:
        """Tensors of the loaders -> embeddings [b, E], with gradients; clips and frames are averaged. None is left out.

        Vision embeddings have length 1; text and sensors are multiplied by their factor (see docs/imagebind.md). Without
        `normalize`, which copies of ImageBind in other projects have, embeddings are as the towers give them.

        Raises:
            ModalityError: a modality the model does not have.
            OptionError: a tensor of another shape than the model's, or made for another model.
        """
        return {key: self._embed(key, x, normalize) for key, x in inputs.items() if x is not None}

    def _embed(self, key: str, x: Tensor, normalize: bool) -> Tensor:
        name = encoder_name(key)
        if not self.vitlens.supports(name):
            known = ", ".join(self.modality_postprocessors)
            raise ModalityError(f"model {self.target.name} has no modality {key!r}; it has {known}{where_else(key)}")
        modality = self.vitlens.modality(name)
        if key not in self._item_shapes:
            self._item_shapes[key] = item_shape(key, modality)
        views = to_encoder(key, x, modality, self._item_shapes[key], self.target.name)
        embeddings = self.vitlens({name: views})[name]
        return self.modality_postprocessors[imagebind_name(name)](embeddings) if normalize else embeddings

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings: 768 for ViT-Lens-L, where ImageBind's is 1024."""
        return self.vitlens.space.dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vitlens.device

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """As every module's; a state dict of ImageBind itself is refused.

        Raises:
            CheckpointError: the weights are ImageBind's.
        """
        if any(key.removeprefix("module.").startswith(PARTS) for key in state_dict):
            raise CheckpointError(
                "these are ImageBind's own weights (modality_trunks. ...), of another architecture: this is the drop-in of "
                f"vitlens with the model {self.target.name}; leave load_state_dict out and call imagebind_huge(pretrained=True)"
            )
        return super().load_state_dict(state_dict, *args, **options)

    def __getattr__(self, name: str) -> Any:
        if name in PARTS:
            raise AttributeError(
                f"{name} is a layer of ImageBind; this is the drop-in of vitlens with the model {self.target.name}, whose parts "
                "are model.vitlens.encoders['audio'].embed, .lens and .vit, and model.vitlens.text"
            )
        return super().__getattr__(name)


def imagebind_huge(
    pretrained: bool = False,
    *,
    model: str | os.PathLike[str] | None = None,
    modalities: Iterable[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    download_dir: str | os.PathLike[str] | None = None,
) -> ImageBindModel:
    """The model behind the drop-in, on the CPU, in evaluation mode.

    `model` is a zoo name ("vitlens-l", "vitlens-toybox"), a native folder or a Hub repository; by default the one that the
    environment variable VITLENS_IMAGEBIND_MODEL names, else ViT-Lens-L. `modalities` (ImageBind's names or ours) keeps the rest
    from being loaded; `weights` as in `vitlens.load`. With `pretrained=False` a zoo model has random weights, as in ImageBind.
    `download_dir` is where some copies of ImageBind put its weights: nothing is downloaded to it.

    Where `import imagebind` means this drop-in, a warning tells the width of the embeddings unless it is ImageBind's.

    Raises:
        ModelError: no such model, or its weights are not on this machine; says what to put where.
        ModalityError: a modality the model does not have.
    """
    name = default_model() if model is None else os.fspath(model)
    names = [modalities] if isinstance(modalities, str) else modalities
    wanted = None if names is None else [our_name(key) for key in names]
    if weights is not None and not pretrained:
        raise OptionError("weights= is for pretrained=True")
    if pretrained:
        made = ImageBindModel(load(name, modalities=wanted, device="cpu", weights=weights))
    else:
        made = ImageBindModel(ViTLens.from_spec(card(name).spec.restricted(wanted)))
    if installed() and made.embed_dim != WIDTH:
        warnings.warn(
            f"embeddings of {made.target.name} have {made.embed_dim} numbers, ImageBind's {WIDTH}: where a program fixes the "
            "width, in a database's schema or a decoder, it must be changed there (docs/imagebind.md)",
            stacklevel=2,
        )
    return made


class ImageBindEmbedder(nn.Module):
    """A frozen model that is called as the model itself, as BindDiffusion's configuration files name it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = imagebind_huge(pretrained=True).eval().requires_grad_(False)

    def forward(self, *args: Any, **options: Any) -> dict[str, Tensor]:
        return self.model(*args, **options)


__getattr__ = answer(
    __name__,
    f"imagebind_huge, ImageBindModel, ImageBindEmbedder and ModalityType are here; {LAYERS}",
    {"imagebind_huge_pth": "weights of ImageBind do not load here: imagebind_huge(pretrained=True, model=NAME_OR_FOLDER)"},
)
