"""A folder in which pages run: what `vitlens demo` writes of a few objects, and files by the names that pages give them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pybv
import soundfile
from PIL import Image

from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
from vitlens.benchmarks.toybox.sensors.make import make_toybox
from vitlens.modalities.eeg import EEG
from vitlens.zoo import find_spec

FILES = {
    "audio": ["blow.wav", "a.wav", "b.wav", "dog.wav", "knock.wav", "sounds/dog.flac", "sounds/sea/wave.flac"],
    "image": ["chair.png", "pictures/dog.jpg", "pictures/beach.jpg"],
    "point_cloud": ["scan.ply", "chair.ply"],
    "depth": ["depth.png", "scan.png", "kitchen.png", "range.npy", "scans/kitchen_depth.png"],
}
"""Sensor -> files by the names that pages give them; the Toybox measures them."""


def write_world(folder: Path) -> None:
    """Write all of it; a BrainVision recording and a broken file too."""
    sensors = [name for name in SENSORS if name in find_spec("vitlens-toybox").modalities]  # as the demo does
    make_toybox(folder / "demo", objects={"test": 2}, sensors=sensors, workers=0, progress=False)
    for sensor, names in FILES.items():
        found = sorted((folder / "demo" / "test" / sensor).iterdir())
        for place, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy(found[place % len(found)], folder / name)
    (folder / "sounds" / "broken.flac").write_bytes(b"this is no sound")
    [recording, *_] = sorted((folder / "demo" / "test" / "eeg").iterdir())
    write_brainvision(recording, folder)


def copy(path: Path, to: Path) -> None:
    """Copy a file, or write it anew in the form that another ending stands for; depth in a .npy is in metres."""
    if to.suffix == ".flac":
        soundfile.write(to, *soundfile.read(path))
    elif to.suffix == ".jpg":
        Image.open(path).save(to)
    elif to.suffix == ".npy":
        np.save(to, np.asarray(Image.open(path), np.float32) / 1000)
    else:
        shutil.copy(path, to)


def write_brainvision(path: Path, folder: Path) -> None:
    """Some seconds of the channels of a recording, as s1.vhdr, s1.eeg and s1.vmrk."""
    sample = EEG().inspect(path)
    signals = np.tile(sample.data, 10).astype(float)
    rate, names = sample.info["rate"], sample.info["channels"]
    pybv.write_brainvision(data=signals, sfreq=rate, ch_names=names, fname_base="s1", folder_out=folder)
