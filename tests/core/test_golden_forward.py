"""Every stage of every encoder against numbers measured on the public reference, weights loaded through the importer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import golden
from vitlens import checkpoint
from vitlens.model import ViTLens

TOKENS = slice(None, None, 16)


def load(case: str) -> ViTLens:
    spec = golden.model_spec(case)
    with torch.device("meta"):
        model = ViTLens.from_spec(spec)
    imported = checkpoint.import_official(golden.official_state(case), sensor=spec.encoders[-1].modality)
    checkpoint.fill_model(model, imported.state, source=case)
    return model


def close(found: torch.Tensor, expected: np.ndarray, *, relative: float = 1e-4) -> None:
    scale = float(np.abs(expected).max())
    assert found.shape == expected.shape
    assert float((found - torch.from_numpy(expected)).abs().max()) <= relative * scale


@pytest.mark.parametrize("case", golden.CASES)
@torch.no_grad()
def test_every_stage_of_an_encoder(case: str) -> None:
    model, expected = load(case), golden.arrays(case)
    encoder = model.tower(golden.model_spec(case).encoders[-1].modality)
    x = golden.batch(case)
    tokens, positions = encoder.embed.split(x)
    close(tokens[:, TOKENS], expected["tok_x"])
    if positions is not None:
        close(positions[..., TOKENS, :], expected["tok_pos"])
    lens_out = encoder.lens(encoder.embed(x))
    if "lens_out" in expected:
        close(lens_out[:, TOKENS], expected["lens_out"])
    prepared = encoder.vit.prepare(lens_out)
    close(prepared[:, TOKENS], expected["pre_blocks"])
    last = encoder.vit.run_blocks(prepared)
    close(last[:, TOKENS], expected["last_block"])
    embedding = encoder.vit.finish(last)
    close(embedding, expected["emb"])
    assert np.abs(F.normalize(encoder(x), dim=-1).numpy() - expected["emb_norm"]).max() < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("case", golden.CASES)
@torch.no_grad()
def test_an_encoder_on_a_gpu(case: str) -> None:
    encoder = load(case).tower(golden.model_spec(case).encoders[-1].modality).to("cuda")
    found = F.normalize(encoder(golden.batch(case).to("cuda")), dim=-1).cpu().numpy()
    assert np.abs(found - golden.arrays(case)["emb_norm"]).max() < 1e-4


@torch.no_grad()
def test_image_anchor() -> None:
    encoder, expected = load("audio").tower("image"), golden.arrays("image")
    x = golden.batch("image")
    close(encoder.embed(x)[:, TOKENS], expected["tok_x"])
    close(encoder.vit.prepare(encoder.embed(x))[:, TOKENS], expected["pre_blocks"])
    assert np.abs(F.normalize(encoder(x), dim=-1).numpy() - expected["emb_norm"]).max() < 1e-5


@torch.no_grad()
def test_text_anchor() -> None:
    tower, expected = load("audio").tower("text"), golden.arrays("text")
    ids = golden.batch("text")
    prepared = tower.prepare(ids)
    last = tower.run_blocks(prepared)
    close(prepared[:, TOKENS], expected["pre_blocks"])
    close(last[:, TOKENS], expected["last_block"])
    close(tower.norm_final(last)[:, TOKENS], expected["ln_final"])
    assert np.abs(F.normalize(tower(ids), dim=-1).numpy() - expected["emb_norm"]).max() < 1e-5


@torch.no_grad()
def test_clips_are_averaged_before_normalising() -> None:
    encoder, expected = load("audio").tower("audio"), golden.arrays("audio_clips")
    one = golden.batch("audio")
    clips = torch.stack([one, 0.7 * one, -0.5 * one], dim=1)
    assert np.abs(F.normalize(encoder(clips), dim=-1).numpy() - expected["emb_norm"]).max() < 1e-5


@torch.no_grad()
def test_the_three_towers_together() -> None:
    model, expected = load("audio"), golden.arrays("triclip_forward")
    out = model({name: golden.batch(name) for name in ("image", "text", "audio")}, normalize=True)
    for name, key in (("image", "image_features"), ("text", "text_features"), ("audio", "visual_features")):
        assert np.abs(out[name].numpy() - expected[key]).max() < 1e-5


def test_the_temperature_comes_from_the_file() -> None:
    imported = checkpoint.import_official(golden.official_state("audio"), sensor="audio")
    assert imported.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert float(golden.arrays("triclip_forward")["logit_scale"]) == pytest.approx(imported.logit_scale, rel=1e-5)
