"""vitlens: one frozen ViT, any sensor.

    import vitlens
    model = vitlens.load("vitlens-l", modalities=["audio", "text"])
    out = model.encode({"audio": ["dog.flac"], "text": ["a dog", "a cat"]})
    model.similarity(out["audio"], out["text"])

Public names are imported when they are first used: `import vitlens` itself loads neither torch nor any sensor's library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlens.encoder import EncoderSpec as EncoderSpec
    from vitlens.encoder import LensEncoder as LensEncoder
    from vitlens.encoder import build_encoder as build_encoder
    from vitlens.errors import InputError as InputError
    from vitlens.errors import VitlensError as VitlensError
    from vitlens.lens_config import IdentityConfig as IdentityConfig
    from vitlens.lens_config import PerceiverConfig as PerceiverConfig
    from vitlens.lens_config import SelfAttentionConfig as SelfAttentionConfig
    from vitlens.modality import Modality as Modality
    from vitlens.modality import Sample as Sample
    from vitlens.modality import get_modality as get_modality
    from vitlens.modality import list_modalities as list_modalities
    from vitlens.modality import register_modality as register_modality
    from vitlens.model import ViTLens as ViTLens
    from vitlens.model import load as load
    from vitlens.space import Embeddings as Embeddings
    from vitlens.space import EmbeddingSpace as EmbeddingSpace
    from vitlens.spec import ModelSpec as ModelSpec
    from vitlens.vit import FrozenViT as FrozenViT
    from vitlens.vit import Trainable as Trainable
    from vitlens.vit import ViTSpec as ViTSpec
    from vitlens.zoo import card as card
    from vitlens.zoo import list_models as list_models

_HOMES = {
    "EncoderSpec": "encoder",
    "LensEncoder": "encoder",
    "build_encoder": "encoder",
    "InputError": "errors",
    "VitlensError": "errors",
    "IdentityConfig": "lens_config",
    "PerceiverConfig": "lens_config",
    "SelfAttentionConfig": "lens_config",
    "Modality": "modality",
    "Sample": "modality",
    "get_modality": "modality",
    "list_modalities": "modality",
    "register_modality": "modality",
    "EmbeddingSpace": "space",
    "Embeddings": "space",
    "ModelSpec": "spec",
    "ViTLens": "model",
    "FrozenViT": "vit",
    "Trainable": "vit",
    "ViTSpec": "vit",
    "card": "zoo",
    "list_models": "zoo",
    "load": "model",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vitlens")
    if name not in _HOMES:
        raise AttributeError(f"module 'vitlens' has no attribute {name!r}")
    value = getattr(import_module(f"vitlens.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
