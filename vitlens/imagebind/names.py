"""The names of modalities: ImageBind's, ours, and which of ours encodes what."""

from __future__ import annotations

from types import SimpleNamespace

ModalityType = SimpleNamespace(
    VISION="vision",
    TEXT="text",
    AUDIO="audio",
    THERMAL="thermal",
    DEPTH="depth",
    IMU="imu",
    IMAGE="image",
    VIDEO="video",
    POINT_CLOUD="point_cloud",
    TACTILE="tactile",
    EEG="eeg",
)
"""ImageBind's six, and the sensors it does not have. "image" and "video" are other words for "vision"."""

PICTURES = ("vision", "image", "video")
"""Keys whose tensors go through the image encoder."""

ELSEWHERE = ("thermal", "imu")
"""Sensors that ImageBind has and ViT-Lens has not: only a plugin brings them."""


def our_name(key: str) -> str:
    """Our modality of an ImageBind name; the names of other modalities, plugins' included, are the same."""
    return "image" if key == "vision" else key


def encoder_name(key: str) -> str:
    """The modality whose encoder embeds the tensors of `key`: a video's frames are pictures."""
    return "image" if key in PICTURES else key


def imagebind_name(modality: str) -> str:
    """The inverse of `our_name`: the key under which ImageBind knows what a modality of ours gives."""
    return "vision" if modality in PICTURES else modality


def where_else(modality: str) -> str:
    """What to add to an error about a modality that is missing: how a sensor of ImageBind's that ViT-Lens has not can be had."""
    if modality not in ELSEWHERE:
        return ""
    return (
        f". ViT-Lens has no {modality} encoder: register a Modality named {modality!r} from a package of yours "
        "(docs/adding-a-modality.md), train a model with it, and choose that model"
    )
