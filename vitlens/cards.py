"""Model cards: what every named model is, where its weights lie, under which licence, and its published scores.

Scores are the ones the authors publish (ViT-Lens model zoo page; top-1 in percent unless said); none was re-measured here,
because weights cannot be downloaded where this is built. What was checked here is that every layout loads key by key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vitlens.checkpoint import Layout
from vitlens.encoder import EncoderSpec
from vitlens.lens import IdentityConfig, PerceiverConfig
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.vit import Trainable, ViTSpec

VITLENS_REPO = "TencentARC/ViT-Lens"
VITLENS_LICENCE = "Apache-2.0 (licence of the public repository; the licence shown beside the weights was not checked here)"
ZOO_PAGE = "ViT-Lens MODEL_ZOO.md, arXiv 2311.16081"


@dataclass(frozen=True)
class Weights:
    """One source of weights: a file on the Hub, an open_clip pretrained tag, our own fixed formula, a file the user gives, or a
    native folder that is part of this package."""

    kind: Literal["hub", "open_clip", "formula", "given", "shipped"]
    towers: tuple[str, ...]
    """The modalities whose towers are taken from it."""
    file: str = ""
    """File name on the Hub, or the open_clip tag."""
    repo: str = VITLENS_REPO
    layout: Layout | None = None
    sha256: str | None = None
    """None: not known here."""


@dataclass(frozen=True)
class Score:
    """A published score."""

    dataset: str
    metric: str
    value: float
    source: str = ZOO_PAGE


@dataclass(frozen=True)
class ModelCard:
    """What a user wants to know before choosing a model."""

    spec: ModelSpec
    summary: str
    weights: tuple[Weights, ...]
    source: str
    training_data: str = "unknown"
    scores: tuple[Score, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name `load` takes."""
        return self.spec.name

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return self.spec.licence


VIT_L = ViTSpec("ViT-L-14")
VIT_B = ViTSpec("ViT-B-16")
VIT_G = ViTSpec("ViT-bigG-14")
DATACOMP_L = EmbeddingSpace("open_clip/ViT-L-14/datacomp_xl_s13b_b90k", 768)
DATACOMP_B = EmbeddingSpace("open_clip/ViT-B-16/datacomp_xl_s13b_b90k", 512)
LAION_G = EmbeddingSpace("open_clip/ViT-bigG-14/laion2b_s39b_b160k", 1280)
FIRST_FOUR = Trainable(first_blocks=4)
TACTILE_PLAN = Trainable(class_token=True, positions=True, norm_pre=True, first_blocks=4)
CLASS_TOKEN = Trainable(class_token=True)
DEPTH_OPTIONS = {"metres_factor": 8.0}


def _l_encoders(point_lens: PerceiverConfig) -> dict[str, EncoderSpec]:
    encoders = [
        EncoderSpec("image", VIT_L),
        EncoderSpec("point_cloud", VIT_L, lens=point_lens, token_width=384, options={"up": "y"}),
        EncoderSpec("depth", VIT_L, lens=IdentityConfig(), trains=FIRST_FOUR, options=DEPTH_OPTIONS),
        EncoderSpec("audio", VIT_L, lens=PerceiverConfig(depth=2, self_per_cross=3), trains=CLASS_TOKEN),
        EncoderSpec("tactile", VIT_L, lens=IdentityConfig(), trains=TACTILE_PLAN),
        EncoderSpec("eeg", VIT_L, lens=PerceiverConfig(depth=1), trains=CLASS_TOKEN),
    ]
    return {encoder.modality: encoder for encoder in encoders}


def _training_card(
    name: str, sensor: EncoderSpec, file: str, *, text: ViTSpec = VIT_L, space: EmbeddingSpace = DATACOMP_L, **card: Any
) -> ModelCard:
    """A card for one of the per-modality training files: the sensor beside its CLIP anchors."""
    spec = ModelSpec(name=name, space=space, encoders=(EncoderSpec("image", text), sensor), text=text, licence=VITLENS_LICENCE)
    weights = Weights("hub", (sensor.modality, "image", "text"), file, layout="tri_tower")
    return ModelCard(spec=spec, weights=(weights,), source=f"{VITLENS_REPO} on the Hub, file {file}", **card)


def _openshape_card(name: str, file: str, *, depth: int, skip: int, **card: Any) -> ModelCard:
    """A card for a bigG OpenShape file: the point cloud tower alone; the anchors come from open_clip."""
    vit = replace(VIT_G, skip_blocks=skip)
    options = {"points": 10000, "color": True, "up": "z", "mirror": "y", "tokenizer": "pnsa", "group_size": 64, "radius": 0.2}
    lens = PerceiverConfig(depth=depth)
    sensor = EncoderSpec(
        "point_cloud", vit, options=options, lens=lens, token_width=256, trains=Trainable(class_token=True, positions=True)
    )
    spec = ModelSpec(
        name=name, space=LAION_G, encoders=(EncoderSpec("image", VIT_G), sensor), text=VIT_G, licence=VITLENS_LICENCE
    )
    anchors = Weights("open_clip", ("image", "text"), "laion2b_s39b_b160k", layout="open_clip")
    weights = (Weights("hub", ("point_cloud",), file, layout="openshape"), anchors)
    return ModelCard(spec=spec, weights=weights, source=f"{VITLENS_REPO} on the Hub, file {file}", **card)


def _scores(*rows: tuple[str, str, float]) -> tuple[Score, ...]:
    return tuple(Score(*row) for row in rows)


@cache
def all_cards() -> dict[str, ModelCard]:
    """Name -> card, in the order they are listed to users."""
    return {made.name: made for made in _make_cards()}


def _make_cards() -> list[ModelCard]:
    sensors = _l_encoders(PerceiverConfig(depth=4))
    return [
        _one_stop(sensors),
        *_l_training_cards(sensors),
        _b_audio(),
        *_g_cards(),
        _evag_point_cloud(),
        *_toybox(),
        _tiny_random(),
    ]


def _one_stop(sensors: dict[str, EncoderSpec]) -> ModelCard:
    spec = ModelSpec(name="vitlens-l", space=DATACOMP_L, encoders=tuple(sensors.values()), text=VIT_L, licence=VITLENS_LICENCE)
    return ModelCard(
        spec=spec,
        summary="ViT-Lens-L, all modalities in one file",
        weights=(Weights("hub", (*sensors, "text"), "vitlensL.pt", layout="one_stop"),),
        source=f"{VITLENS_REPO} on the Hub, file vitlensL.pt",
        training_data="one training run per modality, see the cards vitlens-l-*",
        scores=_scores(
            ("ModelNet40", "top-1", 80.6),
            ("SUN RGB-D (depth)", "top-1", 52.2),
            ("NYUv2 (depth)", "top-1", 68.5),
            ("AudioSet", "mAP", 26.7),
            ("VGGSound", "top-1", 31.7),
            ("ESC-50", "top-1", 75.9),
            ("Clotho", "R@1", 8.1),
            ("Clotho", "R@10", 31.2),
            ("AudioCaps", "R@1", 14.4),
            ("AudioCaps", "R@10", 54.9),
            ("Touch-and-Go material", "top-1", 65.8),
            ("ImageNet-EEG test", "top-1", 42.7),
        ),
        notes=(
            "The file repeats the ViT for every modality (2185 tensors, 2.22e9 values); equal ones are held once after loading.",
            "Depth: trained on depths 8 times too large (SUN RGB-D's bit rotation was not undone, inferred): metres_factor is 8.",
        ),
    )


def _l_training_cards(sensors: dict[str, EncoderSpec]) -> list[ModelCard]:
    point = sensors["point_cloud"]
    cloud = "8192 points, xyz without colour, y up, unit sphere"
    return [
        _training_card(
            "vitlens-l-pc-shapenet",
            replace(point, lens=PerceiverConfig(depth=4, tied=True), trains=Trainable(everything=True)),
            "Datacomp_L14_ShapeNet.pt",
            summary=f"ViT-Lens-L point cloud, weight-tied lens ({cloud})",
            training_data="ULIP-ShapeNet triplets",
            scores=_scores(("ModelNet40", "top-1", 70.6), ("ModelNet40", "top-5", 94.4)),
        ),
        _training_card(
            "vitlens-l-pc-objaverse",
            replace(point, trains=Trainable(everything=True)),
            "Datacomp_L14_objaverse.pt",
            summary=f"ViT-Lens-L point cloud ({cloud})",
            training_data="ULIP2-Objaverse triplets",
            scores=_scores(("ModelNet40", "top-1", 80.6), ("ModelNet40", "top-5", 95.8)),
        ),
        _training_card(
            "vitlens-l-depth",
            sensors["depth"],
            "vitlensL_depth.pt",
            summary="ViT-Lens-L depth (disparity from metres, focal length and baseline)",
            training_data="SUN RGB-D train (image and text anchors)",
            scores=_scores(("SUN RGB-D (depth)", "top-1", 52.2), ("NYUv2 (depth)", "top-1", 68.5)),
        ),
        _training_card(
            "vitlens-l-audio",
            sensors["audio"],
            "vitlensL_audio.pt",
            summary="ViT-Lens-L audio (16 kHz, three 5-second clips)",
            training_data="AudioSet train, 5-second clips (video and text anchors)",
            scores=_scores(
                ("AudioSet", "mAP", 26.7),
                ("VGGSound", "top-1", 31.7),
                ("ESC-50", "top-1", 75.9),
                ("Clotho", "R@1", 8.1),
                ("Clotho", "R@10", 31.2),
                ("AudioCaps", "R@1", 14.4),
                ("AudioCaps", "R@10", 54.9),
            ),
        ),
        _training_card(
            "vitlens-l-tactile",
            sensors["tactile"],
            "vitlensL_tactile.pt",
            summary="ViT-Lens-L tactile (GelSight pictures)",
            training_data="Touch-and-Go",
            scores=_scores(
                ("Touch-and-Go material", "top-1", 65.8),
                ("Touch-and-Go hard/soft", "top-1", 74.7),
                ("Touch-and-Go rough/smooth", "top-1", 63.8),
            ),
        ),
        _training_card(
            "vitlens-l-eeg",
            sensors["eeg"],
            "vitlensL_eeg.pt",
            summary="ViT-Lens-L EEG (128 channels, 1 kHz, 20 to 460 ms after the picture)",
            training_data="ImageNet-EEG, 5-95 Hz, standardised",
            scores=_scores(("ImageNet-EEG val", "top-1", 41.8), ("ImageNet-EEG test", "top-1", 42.7)),
            notes=(
                "ImageNet-EEG has a block design (all pictures of a class in one run): scores are not decoding of vision alone.",
            ),
        ),
    ]


def _b_audio() -> ModelCard:
    sensor = EncoderSpec("audio", VIT_B, lens=PerceiverConfig(depth=2, self_per_cross=3), trains=CLASS_TOKEN)
    return _training_card(
        "vitlens-b-audio",
        sensor,
        "vitlensB_audio_dur5.pt",
        text=VIT_B,
        space=DATACOMP_B,
        summary="ViT-Lens-B audio (16 kHz, three 5-second clips)",
        training_data="AudioSet train, 5-second clips (video and text anchors)",
        scores=_scores(
            ("AudioSet", "mAP", 26.3),
            ("VGGSound", "top-1", 29.9),
            ("ESC-50", "top-1", 72.9),
            ("Clotho", "R@1", 7.5),
            ("Clotho", "R@10", 29.5),
            ("AudioCaps", "R@1", 13.5),
            ("AudioCaps", "R@10", 54.1),
        ),
        notes=(
            "Configuration (196 latents, 12 heads) and CLIP weights are inferred from the public code, not verified on the file.",
        ),
    )


def _g_cards() -> list[ModelCard]:
    notes = (
        "10,000 points with colour (grey 0.4 where a file has none), z up: OpenShape's convention.",
        "OpenShape's swap of y and z mirrors objects; mirror='y' does the same.",
    )
    return [
        _openshape_card(
            "vitlens-g-openshape",
            "bigG14_sk16_openshape_all.pt",
            depth=4,
            skip=16,
            summary="ViT-Lens-G point cloud on CLIP bigG, first 16 of 48 blocks skipped",
            training_data="OpenShape triplets (ShapeNet, 3D-FUTURE, ABO, Objaverse)",
            scores=_scores(
                ("ModelNet40", "top-1", 87.6),
                ("ModelNet40", "top-5", 98.4),
                ("Objaverse-LVIS", "top-1", 52.0),
                ("Objaverse-LVIS", "top-5", 79.9),
                ("ScanObjectNN", "top-1", 60.1),
                ("ScanObjectNN", "top-5", 90.3),
            ),
            notes=notes,
        ),
        _openshape_card(
            "vitlens-g-openshape-nolvis",
            "bigG14_openshape_nolvis.pt",
            depth=2,
            skip=0,
            summary="ViT-Lens-G point cloud on CLIP bigG, trained without the LVIS shapes",
            training_data="OpenShape triplets without Objaverse-LVIS",
            scores=_scores(
                ("ModelNet40", "top-1", 86.8),
                ("ModelNet40", "top-5", 97.8),
                ("Objaverse-LVIS", "top-1", 50.1),
                ("Objaverse-LVIS", "top-5", 78.1),
                ("ScanObjectNN", "top-1", 59.8),
                ("ScanObjectNN", "top-5", 87.7),
            ),
            notes=notes,
        ),
    ]


def _evag_point_cloud() -> ModelCard:
    host = ViTSpec(
        "EVA-ViT-g (InstructBLIP, SEED)",
        library="host",
        config={"width": 1408, "head_width": 88, "patches": 256, "patch_size": 14},
    )
    sensor = EncoderSpec("point_cloud", host, lens=PerceiverConfig(depth=6), token_width=384, options={"up": "y"})
    space = EmbeddingSpace("tokens of EVA-ViT-g, no embedding", 1408)
    return ModelCard(
        spec=ModelSpec(name="vitlens-evag-point-cloud", space=space, encoders=(sensor,), licence=VITLENS_LICENCE),
        summary="Point cloud lens for the EVA-g ViT of InstructBLIP and SEED: gives tokens, the host does the rest",
        weights=(Weights("given", ("point_cloud",), "the EVA-g point cloud lens", layout="lens"),),
        source="no released file is known here; load(..., weights=FILE) takes one in the layout visual_adapter.*, perceiver.*",
        training_data="ULIP2-Objaverse triplets (by the public description)",
        notes=("Only model.tokens(...) works: embeddings need the host's ViT (see the adapters).",),
    )


TINY_CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "patch_size": 28, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


TOYBOX = Path(__file__).parent / "benchmarks" / "toybox" / "weights"
"""The shipped Toybox model: a native folder, with the table that was measured on it."""


def _toybox() -> list[ModelCard]:
    """The model of our own procedural world, trained by `vitlens toybox train`."""
    spec = ModelSpec.from_dict(json.loads((TOYBOX / "config.json").read_text(encoding="utf-8")))
    measured = json.loads((TOYBOX / "results.json").read_text(encoding="utf-8"))["accuracies"]
    largest = {(a["sensor"], a["label"], a["split"]): a for a in sorted(measured, key=lambda a: a["classes"])}
    names = {"test": "seen shapes", "unseen_pairs": "unseen pairs", "unseen_shapes": "never-seen shapes"}
    scores = [
        Score(f"Toybox {names[split]}, {sensor}: {label} of {a['classes']}", "top-1", round(100 * a["top1"], 1), "measured here")
        for (sensor, label, split), a in largest.items()
    ]
    made = ModelCard(
        spec=spec,
        summary="Small model of the Toybox, our procedural world: every sensor works offline, but it knows 33 toy shapes only",
        weights=(Weights("shipped", (*(e.modality for e in spec.encoders), "text"), "benchmarks/toybox/weights"),),
        source="part of this package; made by `vitlens toybox train`",
        training_data="28,000 pictures and captions of the Toybox (seed 0), and what the sensors measure of 12,000 of them",
        scores=tuple(scores),
        notes=("Of the real world it knows nothing: it shows that the method works, and how.",),
    )
    return [made]


def _tiny_random() -> ModelCard:
    vit = ViTSpec("vitlens-tiny", config=TINY_CLIP)
    small = PerceiverConfig(depth=1, latents=16)
    encoders = (
        EncoderSpec("image", vit),
        EncoderSpec("point_cloud", vit, lens=small, token_width=48, options={"points": 2048, "groups": 64, "encoder_width": 32}),
        EncoderSpec("depth", vit, lens=IdentityConfig()),
        EncoderSpec("audio", vit, lens=small),
        EncoderSpec("tactile", vit, lens=IdentityConfig()),
        EncoderSpec("eeg", vit, lens=small),
    )
    towers = (*(encoder.modality for encoder in encoders), "text")
    return ModelCard(
        spec=ModelSpec(
            name="vitlens-tiny-random",
            space=EmbeddingSpace("vitlens-tiny-random", 64),
            encoders=encoders,
            text=vit,
            licence="Apache-2.0",
        ),
        summary="Tiny model with fixed random weights, for trying out the machinery offline; its numbers mean nothing",
        weights=(Weights("formula", towers),),
        source="made from a formula when it is loaded, nothing is downloaded",
        training_data="none",
    )
