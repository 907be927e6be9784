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
    PRESSURE="pressure",
)
"""ImageBind's six, and the sensors it does not have. "image" and "video" are other words for "vision"."""

PICTURES = ("vision", "image", "video")
"""Keys whose tensors go through the image encoder."""

ELSEWHERE = ("thermal", "imu")
"""Sensors that ImageBind has weights for and ViT-Lens has not."""


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
    """What to add to an error about a modality that a model lacks: how that of ImageBind's can be had."""
    if modality not in ELSEWHERE:
        return ""
    return (
        f". ViT-Lens's authors have published no weights for {modality}: train a lens for it (docs/training.md) and choose that "
        "model; the Toybox's (vitlens-toybox) knows toys only"
    )
