"""File names are bytes: what no text encoding holds is read like any other name, whatever library reads the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitlens.modality import get_modality, list_modalities

NAMES = ("caf\udce9", "\udcff\udcfe", "büro 猫", "a:b", "[1]", "-x", "new\nline", "100%")


def sound(kind: str, **options: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import soundfile

        sample = get_modality("audio").example()
        path = folder / f"a.{kind}"
        soundfile.write(path, np.atleast_2d(sample.data).T, 48000 if kind == "opus" else 16000, **options)
        return path

    return write


def exr(folder: Path) -> Path:
    OpenEXR = pytest.importorskip("OpenEXR")
    depth = np.linspace(1, 9, 64 * 48, dtype=np.float32).reshape(48, 64)
    with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, {"Z": depth}) as file:
        file.write(str(folder / "a.exr"))
    return folder / "a.exr"


def example(modality: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        sensor = get_modality(modality)
        return sensor.write(sensor.example(), folder, "a")

    return write


FILES = {name: (name, example(name)) for name in list_modalities()}
FILES |= {kind: ("audio", sound(kind)) for kind in ("flac", "ogg", "mp3", "aiff")} | {"exr": ("depth", exr)}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_read_whatever_its_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    modality, write = FILES[kind]
    sensor, file = get_modality(modality), write(tmp_path)
    expected = sensor.transform(sensor.load(file))
    for name in NAMES:
        odd = Path(f"{name}{file.suffix}")
        shutil.copy(file, odd)
        sample = sensor.load(odd)
        assert sample.source == str(odd)
        assert sensor.transform(sample).equal(expected), ascii(name)
