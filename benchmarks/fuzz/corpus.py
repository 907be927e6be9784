"""Whole files of every format that a sensor reads, made from the sensors' own examples."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.modality import importable_modalities


@dataclass(frozen=True)
class Whole:
    """A file that is read without an error: its sensor, its read options, and the files beside it that belong to it."""

    modality: str
    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    beside: tuple[Path, ...] = ()

    @property
    def format(self) -> str:
        """Sensor and type, as the table names them."""
        return f"{self.modality} {self.path.suffix.lstrip('.')}"


def write_corpus(folder: Path) -> list[Whole]:
    """Write a file of every sensor's usual format, and those below, to `folder`; one whose writer is missing is left out."""
    made: list[Whole] = []
    for name, cls in sorted(importable_modalities().items()):
        modality = cls()
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            sample = modality.example()
            path = modality.write(sample, own, "example")
            if path.is_file() and modality.extensions:
                made.append(Whole(name, path))
            for write in WRITERS.get(name, ()):
                with contextlib.suppress(ImportError):
                    made += list(write(sample, own))
    return made


def _pictures(sample: Any, folder: Path) -> Iterator[Whole]:
    import PIL.Image

    image = PIL.Image.fromarray(sample.data).resize((64, 48))
    kinds: list[tuple[str, Any, dict[str, Any]]] = [
        ("jpg", image, {}),
        ("webp", image, {}),
        ("bmp", image, {}),
        ("gif", image.quantize(16), {}),
        ("tiff", image, {"compression": "tiff_lzw"}),
        ("ppm", image, {}),
        ("png", image.convert("RGBA"), {}),
    ]
    for kind, picture, options in kinds:
        picture.save(folder / f"small.{kind}", **options)
        yield Whole("image", folder / f"small.{kind}")


def _clouds(sample: Any, folder: Path) -> Iterator[Whole]:
    from vitlens.modalities.point_pieces import load_trimesh

    mesh = load_trimesh().creation.icosphere(subdivisions=1)
    mesh.visual.vertex_colors = np.c_[(mesh.vertices + 1) * 127.5, np.full(len(mesh.vertices), 255)].astype(np.uint8)
    for kind in ("obj", "off", "stl", "glb", "ply"):
        mesh.export(folder / f"mesh.{kind}")
        yield Whole("point_cloud", folder / f"mesh.{kind}")
    xyz = np.asarray(sample.data, np.float32)[:200, :3]
    np.save(folder / "a.npy", xyz)
    np.savez_compressed(folder / "a.npz", points=xyz)
    np.savetxt(folder / "a.xyz", xyz)
    head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 200\nHEIGHT 1\nPOINTS 200\nDATA binary\n"
    (folder / "a.pcd").write_bytes(head.encode() + xyz.tobytes())
    yield from (Whole("point_cloud", folder / f"a.{kind}") for kind in ("npy", "npz", "xyz", "pcd"))
    yield from _scans(xyz, folder)


def _scans(xyz: np.ndarray, folder: Path) -> Iterator[Whole]:
    import laspy

    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales = np.full(3, 1e-4)
    cells = laspy.LasData(header)
    cells.x, cells.y, cells.z = xyz.T.astype(float)
    for kind in ("las", "laz"):
        cells.write(folder / f"scan.{kind}")
        yield Whole("point_cloud", folder / f"scan.{kind}")


def _depths(sample: Any, folder: Path) -> Iterator[Whole]:
    import PIL.Image
    import tifffile

    metres = np.asarray(sample.data, np.float32)[::8, ::8]
    millimetres = (metres * 1000).astype(np.uint16)
    PIL.Image.fromarray(millimetres).save(folder / "mm.png")
    tifffile.imwrite(folder / "packed.tif", metres, compression="zlib", predictor=True)
    np.save(folder / "a.npy", metres)
    (folder / "a.pfm").write_bytes(b"Pf\n%d %d\n-1\n" % metres.shape[::-1] + metres[::-1].astype("<f4").tobytes())
    (folder / "a.pgm").write_bytes(b"P5\n%d %d\n65535\n" % metres.shape[::-1] + millimetres.astype(">u2").tobytes())
    yield from (Whole("depth", folder / name) for name in ("packed.tif", "a.npy", "a.pfm"))
    yield from (Whole("depth", folder / name, {"scale": 0.001}) for name in ("mm.png", "a.pgm"))
    import OpenEXR

    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, {"Z": metres}).write(
        str(folder / "a.exr")
    )
    yield Whole("depth", folder / "a.exr")


def _sounds(sample: Any, folder: Path) -> Iterator[Whole]:
    import soundfile

    wave, rate = np.asarray(sample.data)[0][:8000], int(sample.info["rate"])
    for kind, subtype in (("wav", "PCM_24"), ("flac", None), ("ogg", None), ("mp3", None)):
        soundfile.write(folder / f"short.{kind}", wave, rate, subtype=subtype)
        yield Whole("audio", folder / f"short.{kind}")
    soundfile.write(folder / "adpcm.wav", wave, rate, subtype="IMA_ADPCM")
    yield Whole("audio", folder / "adpcm.wav")
    import av

    with av.open(str(folder / "track.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=rate)
        frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    yield Whole("audio", folder / "track.m4a")


def _recordings(sample: Any, folder: Path) -> Iterator[Whole]:
    import mne

    info = mne.create_info(list(sample.info["channels"]), float(sample.info["rate"]), "eeg", verbose="error")
    raw = mne.io.RawArray(np.asarray(sample.data, np.float64), info, verbose="error")
    for kind in ("edf", "vhdr", "set"):
        mne.export.export_raw(folder / f"exported.{kind}", raw, overwrite=True, verbose="error")
        beside = tuple(folder / f"exported.{other}" for other in ("vmrk", "eeg")) if kind == "vhdr" else ()
        yield Whole("eeg", folder / f"exported.{kind}", beside=beside)


WRITERS: dict[str, tuple[Callable[[Any, Path], Iterator[Whole]], ...]] = {
    "image": (_pictures,),
    "point_cloud": (_clouds,),
    "depth": (_depths,),
    "audio": (_sounds,),
    "eeg": (_recordings,),
}
"""Sensor -> what writes its other formats. A sensor of somebody else is tried with what its own `write` makes."""
