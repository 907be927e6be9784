"""The forward goldens: small official-layout checkpoints filled by the weight recipe, and the specs that must load them."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from vitlens.encoder import EncoderSpec
from vitlens.lens_config import IdentityConfig, LensConfig, PerceiverConfig
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.vit import ViTSpec

REFERENCE = Path(__file__).parent / "reference" / "vitlens"
CONFIG = json.loads((REFERENCE / "golden_forward" / "config.json").read_text())
CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "patch_size": 14, "width": 128, "layers": 3, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 2},
}
POINT_BERT = {"groups": 128, "group_size": 32, "encoder_width": 64, "points": 2048}
POINT_NET = {
    "tokenizer": "pnsa",
    "color": True,
    "groups": 128,
    "group_size": 64,
    "radius": 0.2,
    "encoder_width": 48,
    "points": 2048,
}


@cache
def module(name: str) -> ModuleType:
    """A python file of the reference folder, such as "fill" or "golden_forward/inputs"."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), REFERENCE / f"{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def arrays(case: str) -> dict[str, np.ndarray]:
    """The golden arrays of a case; token arrays hold every 16th token."""
    with np.load(REFERENCE / "golden_forward_lite" / f"{case}.npz") as archive:
        return dict(archive)


def official_state(case: str) -> dict[str, torch.Tensor]:
    """The small checkpoint of a case in its official layout."""
    keys = json.loads((REFERENCE / "golden_forward" / f"keys_tiny_{case}.json").read_text())
    keys = keys.get("keys", keys)
    tied = CONFIG["manifest"][case]["tied_groups"]
    return {k: torch.from_numpy(v) for k, v in module("fill").fill({k: tuple(v) for k, v in keys.items()}, tied).items()}


def _sensor(case: str) -> tuple[str, dict[str, Any], LensConfig, int | None, int]:
    """Modality, its options, lens, token width, skipped blocks."""
    return {
        "tactile": ("tactile", {}, IdentityConfig(), None, 0),
        "depth": ("depth", {}, IdentityConfig(), None, 0),
        "audio": ("audio", {}, PerceiverConfig(depth=2, self_per_cross=3), None, 0),
        "eeg": ("eeg", {}, PerceiverConfig(depth=1), None, 0),
        "pc": ("point_cloud", POINT_BERT, PerceiverConfig(depth=4), 96, 0),
        "pc_tied": ("point_cloud", POINT_BERT, PerceiverConfig(depth=3, tied=True), 96, 0),
        "pc_pnsa": ("point_cloud", POINT_NET, PerceiverConfig(depth=2), 64, 0),
        "pc_pnsa_skip1": ("point_cloud", POINT_NET, PerceiverConfig(depth=2), 64, 1),
    }[case]


CASES = ("tactile", "depth", "audio", "eeg", "pc", "pc_tied", "pc_pnsa", "pc_pnsa_skip1")


def model_spec(case: str) -> ModelSpec:
    """The model a case's checkpoint describes."""
    modality, options, lens, width, skip = _sensor(case)
    vit = ViTSpec("golden", config=CLIP)
    sensor = EncoderSpec(
        modality, ViTSpec("golden", config=CLIP, skip_blocks=skip), options=options, lens=lens, token_width=width
    )
    alone = case.startswith("pc_pnsa")  # the OpenShape files hold the sensor's tower only
    encoders = (sensor,) if alone else (EncoderSpec("image", vit), sensor)
    return ModelSpec(name=f"golden-{case}", space=EmbeddingSpace("golden", 64), encoders=encoders, text=None if alone else vit)


def batch(case: str) -> torch.Tensor:
    """The input batch of a case."""
    inputs = module("golden_forward/inputs")
    if case.startswith("pc_pnsa"):
        return torch.from_numpy(np.concatenate([inputs.points(seed=31), inputs.rgb()], axis=-1))
    name = {"pc": "points", "pc_tied": "points"}.get(case, case)
    return torch.from_numpy(getattr(inputs, name)())
