"""A sensor of somebody else: one file and one entry point, installed beside vitlens, passes the whole sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RADAR = '''
"""Radar: maps of range and angle in decibels, from .npy files."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vitlens import Modality, PerceiverConfig, Sample, register_modality
from vitlens.embed import PatchEmbed
from vitlens.sources import Source


@register_modality
@dataclass(frozen=True)
class Radar(Modality):
    size: int = 112

    name = "radar"
    unit = "decibels of full scale, float32 [range, angle]"
    accepts = "a .npy file or an array of decibels [range, angle]"
    extensions = ("npy",)
    default_lens = PerceiverConfig(depth=1, latents=8)

    def read(self, source, *, format=None):
        given = Source(source, self.accepts)
        if given.is_array:
            values = given.array()
        else:
            with given.local_file(extensions=self.extensions, format=format) as path:
                values = given.npy(path)
        values = given.numeric(values)
        if values.ndim != 2:
            raise given.refuse(f"{values.ndim} dimensions")
        return Sample(values.astype(np.float32), given.name)

    def transform(self, sample, *, train=False):
        x = (torch.from_numpy(np.asarray(sample.data)) + 60) / 20
        x = F.interpolate(x[None, None], size=(self.size, self.size), mode="bilinear")[0]
        return x.flip(-1) if train and torch.rand(()) < 0.5 else x

    def build_embed(self, width, vit):
        return PatchEmbed(channels=1, width=width, patch=vit.patch_size, positions=(self.size // vit.patch_size) ** 2)

    def example(self, seed=0):
        rng = np.random.default_rng(seed)
        return Sample((20 * rng.random((60, 80)) - 80).astype(np.float32), "example")

    def write(self, sample, folder, stem):
        path = Path(folder) / f"{stem}.npy"
        np.save(path, sample.data)
        return path

    def steps(self):
        return ["decibels to (dB + 60) / 20", f"resize to {self.size} x {self.size}"]
'''


def install(folder: Path, module: str, source: str, entry: str) -> None:
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vitlens.modalities]\n{entry}\n")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    root = Path(__file__).parent.parent
    return subprocess.run([sys.executable, *command], env=environment, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    install(tmp_path, "my_radar", RADAR, "radar = my_radar:Radar")
    return tmp_path


def test_a_plugin_in_one_file_passes_the_sweep(plugin: Path) -> None:
    sweep = run(plugin, "-m", "pytest", "tests/test_completeness.py", "-q", "-k", "radar", "-p", "no:cacheprovider", "-n", "0")
    assert sweep.returncode == 0, sweep.stdout[-3000:]
    assert " passed" in sweep.stdout
    assert "radar" in run(plugin, "-c", "import vitlens; print(vitlens.list_modalities())").stdout


def test_a_plugin_that_takes_a_taken_name_is_refused_with_both_owners(tmp_path: Path) -> None:
    install(tmp_path, "my_audio", RADAR.replace('"radar"', '"audio"'), "audio = my_audio:Radar")
    out = run(tmp_path, "-c", "import vitlens; vitlens.list_modalities()")
    assert out.returncode != 0
    assert "vitlens.modalities.audio:Audio" in out.stderr
    assert "my_audio:Radar" in out.stderr


def test_a_broken_plugin_does_not_keep_models_from_loading(tmp_path: Path) -> None:
    install(tmp_path, "broken_sensor", "raise RuntimeError('no driver')", "broken = broken_sensor:Broken")
    code = "import vitlens; print(vitlens.load('vitlens-tiny-random', modalities=['text'], device='cpu').modalities)"
    out = run(tmp_path, "-c", code)
    assert out.returncode == 0, out.stderr
    assert "'broken' is left out, it cannot be imported: no driver" in out.stderr


PLUGGED = """
import sys
from dataclasses import replace
from pathlib import Path
import vitlens
from vitlens.cli.app import app
from vitlens.encoder import EncoderSpec, build_encoder
from vitlens.lens import IdentityConfig

folder = Path(sys.argv[1])
toy = vitlens.load("vitlens-toybox", modalities=["image"], device="cpu")
spec = EncoderSpec("radar", toy.spec.encoders[0].vit, options={"size": 64}, lens=IdentityConfig())
lens = build_encoder(spec, vit=toy.encoders["image"].vit)
spec = replace(toy.spec, name="radar-lens", encoders=(spec,), text=None)
vitlens.ViTLens(spec=spec, encoders={"radar": lens}, text=None).save_pretrained(folder / "lens")
radar = vitlens.get_modality("radar")
file = str(radar.write(radar.example(), folder, "map"))
given = ["-m", "vitlens-toybox", "--radar", file, "--lens", f"radar={folder / 'lens'}"]
app(["chat", *given, "what is this?"], standalone_mode=False)
app(["imagine", *given, "-o", str(folder / "made.png"), "--steps", "2"], standalone_mode=False)
app(["imagine", *given, "-o", str(folder / "made.txt"), "--describer", "vitlens-toybox"], standalone_mode=False)
"""


def test_a_plugin_s_lens_comes_beside_those_that_a_host_brings(plugin: Path) -> None:
    pytest.importorskip("diffusers")
    out = run(plugin, "-c", PLUGGED, str(plugin))
    assert out.returncode == 0, out.stderr
    said, painted, written = out.stdout.strip().splitlines()
    assert said and painted.endswith("by embedding, vitlens-toybox") and (plugin / "made.png").stat().st_size > 100
    assert written.partition(": ")[2] and (plugin / "made.txt").read_text().strip()
