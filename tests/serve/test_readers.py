"""What files may do to the service: crash, hang, eat memory, point elsewhere - each costs its own request alone.

The sensor that does so is somebody else's, installed beside vitlens, so that these tests also hold what a third party's sensor
gets: its own parts, uploads and schema.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vitlens
from tests.serve.conftest import MODEL, Running, tiny
from tests.serve.test_embeddings import data_uri, message, rows
from tests.test_third_party import RADAR, install
from vitlens import isolation
from vitlens import modality as registry
from vitlens.encoder import EncoderSpec, build_encoder
from vitlens.lens_config import IdentityConfig
from vitlens.serve.service import Service
from vitlens.serve.settings import MB, Limits, Settings

WILD = RADAR.replace(
    "    def read(self, source, *, format=None):\n        given = Source(source, self.accepts)\n",
    """    def read(self, source, *, unit="dB", format=None):
        import os
        import time
        given = Source(source, self.accepts)
        if not given.is_array:
            order = open(source, "rb").read(8)
            if order.startswith(b"abort"):
                os.abort()
            if order.startswith(b"exit"):
                os._exit(3)
            while order.startswith(b"hang"):
                pass
            if order.startswith(b"eat"):
                held = bytearray(4_000_000_000)
            if order.startswith(b"raise"):
                raise RuntimeError(f"no idea about {source}")
""",
)


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose model has a lens for the radar."""
    folder = tmp_path_factory.mktemp("plugin")
    install(folder, "my_radar", WILD, "radar = my_radar:Radar")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(isolation, "_idle", [])  # workers of earlier tests do not know the folder
        registry._entry_points.cache_clear()
        try:
            limits = Limits(read_seconds=1.0, read_bytes=1000 * MB)
            running = Running(Service(Settings(model=MODEL, readers=2, limits=limits), load=with_radar))
            yield running
            running.close()
        finally:
            registry._registered.pop("radar", None)
            registry._entry_points.cache_clear()


def with_radar() -> vitlens.ViTLens:
    model = tiny("image", "depth", "eeg", "point_cloud", "text")
    [seen] = [encoder for encoder in model.spec.encoders if encoder.modality == "image"]
    vit = model.encoders["image"].vit
    spec = EncoderSpec("radar", seen.vit, options={"size": 2 * vit.patch_size}, lens=IdentityConfig())
    torch.manual_seed(0)
    encoders = {**model.encoders, "radar": build_encoder(spec, vit=vit)}
    return vitlens.ViTLens(
        spec=replace(model.spec, encoders=(*model.spec.encoders, spec)), encoders=encoders, text=model.text
    ).eval()


@pytest.fixture(scope="module")
def good(wild: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sensor = wild.service.model.modality("radar")
    return sensor.write(sensor.example(), tmp_path_factory.mktemp("good"), "map")


def test_a_third_party_s_sensor_has_everything_that_ours_have(wild: Running, good: Path) -> None:
    expected = wild.service.model.encode({"radar": [good]})["radar"].numpy()
    part = {"type": "radar_url", "radar_url": {"url": data_uri(good), "unit": "dB"}}
    for form in ({"input": [part]}, {"input": data_uri(good), "modality": "radar"}, {"input": {"radar": data_uri(good)}}):
        assert np.allclose(rows(wild.post("/v1/embeddings", json=form)), expected, atol=1e-4)
    sent = {"radar": (good.name, good.read_bytes())}
    assert np.allclose(rows(wild.post("/v1/embeddings", files=sent, data={"radar.unit": "dB"})), expected, atol=1e-4)
    content = base64.b64encode(good.read_bytes()).decode()
    assert np.allclose(wild.post("/vectorize", json={"radar": [content]}).json()["radarVectors"], expected, atol=1e-4)
    card = wild.get("/v1/models").json()["data"][0]["modalities"]["radar"]
    assert card["extensions"] == ["npy"] and card["read_options"] == ["unit"]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (b"abort", "its reader crashes (SIGABRT)"),
        (b"exit", "its reader crashes (exit status 3)"),
        (b"hang", "takes more than 1 s"),
        (b"eat", "asks for more memory than there is"),
        (b"raise", "cannot be decoded"),
        (b"nonsense", "Accepted: a .npy file"),
    ],
)
def test_a_file_that_breaks_its_reader_costs_its_request_alone(wild: Running, good: Path, order: bytes, said: str) -> None:
    async def together() -> Any:
        bad = wild.client.post("/v1/embeddings", files={"radar": ("holiday.npy", order)})
        others = [wild.client.post("/v1/embeddings", files={"radar": ("map.npy", good.read_bytes())}) for _ in range(4)]
        return await asyncio.gather(bad, *others)

    refused, *answered = wild.run(together())
    words = message(refused)
    assert said in words and "input[0] (holiday.npy)" in words
    assert "vitlens-serve" not in words and "Traceback" not in refused.text
    assert [reply.status_code for reply in answered] == [200] * 4


def png(width: int, height: int) -> bytes:
    """A picture of so many black pixels, in few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(min(height, 50))) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_before_they_unfold(wild: Running, tmp_path: Path) -> None:
    assert "of 1,600,000,000 pixels" in message(wild.post("/v1/embeddings", files={"image": ("bomb.png", png(40_000, 40_000))}))
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros((20_000, 20_000), np.float32))
    content = (tmp_path / "bomb.npz").read_bytes()
    assert len(content) < 10 * MB
    assert "memory" in message(wild.post("/v1/embeddings", files={"depth": ("bomb.npz", content)}))


NAMES = ["../../map.npy", "/etc/map.npy", "..\\..\\map.npy", "a/b/../map.npy", "\x00map.npy", "x" * 300 + ".npy"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_s_name_leads_nowhere(wild: Running, good: Path, name: str) -> None:
    escaped = name.replace("\x00", "%00")
    assert wild.post("/v1/embeddings", files={"radar": (escaped, good.read_bytes())}).status_code == 200
    uri = data_uri(good).replace(";base64", f";name={escaped};base64")
    assert wild.post("/v1/embeddings", json={"input": {"radar": uri}}).status_code == 200


def test_headers_do_not_reach_out_of_their_folder(wild: Running, tmp_path: Path) -> None:
    """A recording's header, a mesh and a scene that name files of the server."""
    secret = tmp_path / "secret.eeg"
    secret.write_bytes(bytes(128 * 2 * 2000))
    header = "\n".join(
        (
            "Brain Vision Data Exchange Header File Version 1.0",
            *("[Common Infos]", f"DataFile={secret}", "DataFormat=BINARY", "DataOrientation=MULTIPLEXED"),
            *("NumberOfChannels=1", "SamplingInterval=1000", "[Binary Infos]", "BinaryFormat=INT_16"),
            *("[Channel Infos]", "Ch1=Fz,,0.5,µV", ""),
        )
    )
    said = message(wild.post("/v1/embeddings", files={"eeg": ("a.vhdr", header.encode())}))
    assert "folder" in said or "no such file" in said, said
    outside = {"uri": "../../../../../../etc/passwd", "byteLength": 10}
    scene = json.dumps({"asset": {"version": "2.0"}, "buffers": [outside], "scenes": [{"nodes": []}]})
    assert message(wild.post("/v1/embeddings", files={"point_cloud": ("a.gltf", scene.encode())}))


def test_nothing_of_a_request_is_left_on_the_disk(wild: Running, good: Path) -> None:
    wild.post("/v1/embeddings", files={"radar": ("map.npy", good.read_bytes())})
    wild.post("/v1/embeddings", files={"radar": ("map.npy", b"nonsense")})
    assert list(wild.service.readers._folder.iterdir()) == []
