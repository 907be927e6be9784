"""Filter banks and resampling without torchaudio: its numbers, whatever the rate, the bands and the sound."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.modalities import audio_features
from vitlens.modalities.audio_features import filter_bank, resample

needs_torchaudio = pytest.mark.skipif(
    not audio_features.has_torchaudio(), reason="no torchaudio for this torch: pip install 'vitlens[torchaudio]' runs this"
)
RATES = [1000, 8000, 11025, 16000, 22050, 44100, 48000, 96000]
SOUNDS = {
    "noise": lambda time, rng: 0.3 * rng.standard_normal(len(time)),
    "nearly silent": lambda time, rng: 1e-5 * rng.standard_normal(len(time)),
    "loud": lambda time, rng: 8 * np.sign(np.sin(700 * time)),
    "tone": lambda time, rng: 0.5 * np.sin(2 * np.pi * 300 * time),
    "silence": lambda time, rng: 0 * time,
    "click": lambda time, rng: np.eye(1, len(time), len(time) // 2)[0],
}


def sound(kind: str, rate: int, seconds: float) -> torch.Tensor:
    time = np.arange(round(rate * seconds)) / rate
    return torch.from_numpy(SOUNDS[kind](time, np.random.default_rng(rate)).astype(np.float32))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were no torchaudio."""
    monkeypatch.setattr(audio_features, "has_torchaudio", lambda: False)


@needs_torchaudio
@pytest.mark.parametrize("kind", SOUNDS)
@settings(max_examples=15, deadline=None)
@given(rate=st.sampled_from(RATES), bins=st.integers(4, 160), seconds=st.floats(0.03, 1.5))
def test_filter_banks_are_torchaudios(kind: str, rate: int, bins: int, seconds: float) -> None:
    wave = sound(kind, rate, seconds)
    theirs = filter_bank(wave, rate=rate, bins=bins)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio_features, "has_torchaudio", lambda: False)
        ours = filter_bank(wave, rate=rate, bins=bins)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@needs_torchaudio
@settings(max_examples=40, deadline=None)
@given(up=st.integers(1, 1000), down=st.integers(1, 1000), samples=st.integers(1, 5000))
def test_resampling_is_torchaudios(up: int, down: int, samples: int) -> None:
    shared = math.gcd(up, down)
    up, down = up // shared, down // shared
    if up == down:
        return
    wave = torch.from_numpy(np.random.default_rng(samples).standard_normal(samples).astype(np.float32))
    theirs = resample(wave, up, down)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio_features, "has_torchaudio", lambda: False)
        ours = resample(wave, up, down)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("hertz", [100, 440, 1000, 3000, 7000])
def test_a_tone_lies_in_its_mel_band(hertz: int) -> None:
    """By the mel scale: band k of n has its centre at (k + 1) / (n + 1) of the way from 20 Hz to half the rate."""
    wave = torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000)
    loudest = filter_bank(wave, rate=16000, bins=128).mean(0).argmax().item()
    lowest, highest, at = (1127 * math.log(1 + f / 700) for f in (20, 8000, hertz))
    assert loudest == pytest.approx(128 * (at - lowest) / (highest - lowest), abs=2)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("up", "down"), [(1, 3), (160, 441), (2, 1), (441, 160)])
def test_a_tone_keeps_its_pitch_and_loses_what_the_new_rate_cannot_hold(up: int, down: int) -> None:
    rate = 16000
    time = torch.arange(2 * rate) / rate
    low, high = torch.sin(2 * torch.pi * 300 * time), torch.sin(2 * torch.pi * 7000 * time)
    heard = resample(low, up, down)
    assert len(heard) == math.ceil(len(low) * up / down)
    expected = torch.sin(2 * torch.pi * 300 * torch.arange(len(heard)) * down / (up * rate))
    torch.testing.assert_close(heard[500:-500], expected[500:-500], atol=2e-3, rtol=0)
    if 0.5 * rate * up / down < 7000:
        assert resample(high, up, down)[500:-500].abs().max() < 1e-2


@pytest.mark.parametrize(
    "refusal", ["raise RuntimeError('built for CUDA 12.8')", "raise OSError('no symbol')", "import no_such_module"]
)
def test_a_torchaudio_that_refuses_this_torch_is_done_without(refusal: str, tmp_path: Path) -> None:
    (tmp_path / "torchaudio.py").write_text(refusal)
    code = (
        "from vitlens.modality import get_modality; from vitlens.modalities import audio_features;"
        "audio = get_modality('audio'); clips = audio.transform(audio.example());"
        "print(audio_features.has_torchaudio(), list(clips.shape), bool(clips.isfinite().all()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False [3, 512, 128] True", done.stderr


@needs_torchaudio
def test_torchaudio_that_another_library_loaded_on_the_meta_device_still_hears() -> None:
    """Building a tower without weights may import transformers, and that torchaudio, under `torch.device("meta")`."""
    from torchaudio.compliance import kaldi

    sound = torch.sin(torch.arange(1600) / 3)
    expected = filter_bank(sound, rate=16000, bins=20)
    with torch.device("meta"):
        importlib.reload(kaldi)
    assert kaldi.EPSILON.is_meta
    assert torch.equal(filter_bank(sound, rate=16000, bins=20), expected)
