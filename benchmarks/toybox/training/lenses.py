"""The recipes of the Toybox: a lens for each sensor in front of its frozen ViT, and the ablations of the method.

They are ordinary recipes of `vitlens.train`, sized for 64 x 64 pictures and patches of 8. Depth and touch have the kinds of
ModEmbed and lens of ViT-Lens-2 (arXiv 2311.16081); sound and EEG, which have perceivers there, learn faster as depth does, and
scans, which have one too, are drawn as pictures: that way the lens knows shapes it was never trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from vitlens.benchmarks.toybox.sensors import brain
from vitlens.benchmarks.toybox.sensors.drawn import LABELS
from vitlens.train import Recipe
from vitlens.train.options import CheckpointOptions, LogOptions, OptimizerOptions, ScheduleOptions
from vitlens.train.recipe import (
    AnchorOptions,
    ClassStateOptions,
    DataOptions,
    EvaluationOptions,
    LossOptions,
    ModelOptions,
    PatchOptions,
    SpreadOptions,
    TokenOptions,
)
from vitlens.vit import Trainable

LENSES: dict[str, ModelOptions] = {
    "point_cloud": ModelOptions(
        modality="point_cloud",
        options={
            "points": 2048,
            "color": True,
            "tokenizer": "projection",
            "size": 64,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        lens={"kind": "identity"},
        trains=Trainable(class_token=True, first_blocks=1),
        patches="image",
    ),
    "depth": ModelOptions(
        modality="depth",
        options={"size": 64, "mean": 0.0499, "std": 0.0264},
        lens={"kind": "identity"},
        trains=Trainable(first_blocks=1),
        patches="image",
    ),
    "tactile": ModelOptions(
        modality="tactile",
        options={"size": 64, "resize": 64, "mean": [0.478] * 3, "std": [0.12] * 3},
        lens={"kind": "identity"},
        trains=Trainable(class_token=True, positions=True, norm_pre=True, first_blocks=2),
        patches="image",
    ),
    "audio": ModelOptions(
        modality="audio",
        options={"clip_seconds": 1.0, "clips": 1, "frames": 96, "mel_bins": 64, "stride": 8},
        lens={"kind": "identity"},
        trains=Trainable(class_token=True, first_blocks=2),
    ),
    "eeg": ModelOptions(
        modality="eeg",
        options={
            "names": list(brain.NAMES),
            "places": brain.electrodes().round(4).tolist(),
            "window_size": 8,
            "stride": 8,
        },
        lens={"kind": "identity"},
        trains=Trainable(class_token=True, first_blocks=2),
    ),
    "thermal": ModelOptions(
        modality="thermal",
        options={"size": 64, "low": 283.15, "high": 323.15, "mean": 0.374, "std": 0.133},
        lens={"kind": "identity"},
        trains=Trainable(class_token=True, first_blocks=1),
        patches="image",
    ),
    "imu": ModelOptions(
        modality="imu",
        options={"seconds": 4.0, "samples": 2560, "compress": True, "window_size": 160, "stride": 160},
        lens={"kind": "identity"},
        trains=Trainable(class_token=True, first_blocks=2),
    ),
    "pressure": ModelOptions(
        modality="pressure",
        options={"size": 48, "moments": 12, "patch": 12, "knee": 0.5},
        lens={"kind": "identity"},
        trains=Trainable(class_token=True, first_blocks=2),
    ),
}
"""What trains for each sensor: new tokens, and the ViT's first blocks as their lens."""

EPOCHS = {"point_cloud": 10, "depth": 6, "tactile": 10, "audio": 6, "eeg": 10, "thermal": 12, "imu": 12, "pressure": 12}
"""Of each lens."""
OBJECTS = {**dict.fromkeys(LENSES, 12_000), "eeg": 24_000, "thermal": 24_000, "pressure": 24_000}
"""Training objects that each lens looks at, the first of those that the CLIP saw: more where a sensor tells less."""
AUGMENTED = ("tactile", "thermal", "imu", "pressure")
"""Sensors whose training items are augmented. The masks and shifts of sound and EEG are made for long recordings: they hide the
first moment of a blow, or of a glance. A depth map is compared with its picture patch by patch, which another crop is not; a scan
that is turned shows another side than its picture.
"""
SPEAKING = TokenOptions(
    class_state=ClassStateOptions(weight=1.0), patches=PatchOptions(kind="readers"), spread=SpreadOptions(weight=4.0)
)
"""The terms on tokens of docs/tokens.md: the class token as a Q-Former reads it, patch tokens where a LLaVA reads them."""
ALIGNED = replace(SPEAKING, patches=PatchOptions(kind="per_token"), spread=SpreadOptions())
"""For a sensor that looks at a thing as its picture does, patch by patch."""
TOKENS = {**dict.fromkeys(LENSES, SPEAKING), "depth": ALIGNED}
TEMPLATES = {"shape": ["a {}", "a photo of a {}", "this is a {}"], "material": ["something made of {}", "this is made of {}"]}
ABLATED = "depth"
"""The sensor on which the method is taken apart."""
ABLATIONS: dict[str, str] = {
    "shipped": "as shipped: patches that begin as the picture's, the ViT's first block as the lens, the rest frozen, picture and "
    "text anchors",
    "new-patches": "patches that begin at random",
    "scratch": "all of the ViT trained, from random weights",
    "text-anchors": "text anchors only",
    "image-anchors": "picture anchors only",
    "no-lens": "patches only; all of the ViT frozen",
    "perceiver": "a perceiver as the lens; all of the ViT frozen",
    "self-attention": "two new blocks as the lens; all of the ViT frozen",
}


def lens_recipe(
    sensor: str,
    *,
    width: int,
    epochs: int,
    seed: int = 0,
    output: str,
    cache: str | None = None,
    batch_size: int = 128,
    precision: Literal["bf16", "fp32"] = "bf16",
    tokens: bool = True,
    num_workers: int = 0,
) -> Recipe:
    """The recipe of one sensor's lens in front of a ViT of `width` channels; `tokens`: with the terms on its tokens."""
    label = LABELS[sensor]
    return Recipe(
        name=f"toybox-{sensor}",
        model=replace(LENSES[sensor], token_width=width),
        anchors=AnchorOptions(modalities=["image", "text"], cache_folder=cache, batch_size=250),
        data=DataOptions(augment=sensor in AUGMENTED, num_workers=num_workers),
        tokens=TOKENS[sensor] if tokens else TokenOptions(),
        evaluation=EvaluationOptions(templates=TEMPLATES[label], every_epochs=1, batch_size=128),
        loss=LossOptions(ignore_duplicates=True, initial_scale=15.0),
        optimizer=OptimizerOptions(lr=1e-3, weight_decay=0.05, clip_norm=1.0),
        schedule=ScheduleOptions(warmup_steps=50, epochs=epochs),
        checkpoints=CheckpointOptions(every_steps=50, keep=1),
        logs=LogOptions(tensorboard=False),
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        output=output,
    )


def ablation_recipe(name: str, base: Recipe, *, epochs: int, output: str) -> Recipe:
    """`base` for so many epochs, by the embedding alone, with the one thing changed that the ablation is about."""
    model, anchors = base.model, base.anchors
    frozen = {"trains": Trainable()}
    changes: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
        "shipped": ({}, anchors.modalities),
        "new-patches": ({"patches": "new"}, anchors.modalities),
        "scratch": ({"vit_weights": "random", "trains": Trainable(everything=True), "patches": "new"}, anchors.modalities),
        "text-anchors": ({}, ["text"]),
        "image-anchors": ({}, ["image"]),
        "no-lens": ({**frozen, "lens": {"kind": "identity"}}, anchors.modalities),
        "perceiver": ({**frozen, "lens": {"kind": "perceiver", "depth": 2}}, anchors.modalities),
        "self-attention": ({**frozen, "lens": {"kind": "self_attention", "depth": 2}}, anchors.modalities),
    }
    changed, modalities = changes[name]
    return replace(
        base,
        name=f"{base.name}-{name}",
        tokens=TokenOptions(),
        model=replace(model, **changed),
        anchors=replace(anchors, modalities=list(modalities)),
        schedule=replace(base.schedule, epochs=epochs),
        output=output,
    )
