"""The bulk job on an S3 store (moto's server): pictures and shards there, a folder of parts there, by the command itself."""

from __future__ import annotations

import io
import json
import tarfile
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vitlens.cli.app import app
from vitlens.store.files import load_embeddings
from vitlens.store.places import filesystem

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")
NAME = "vitlens-tiny-random"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system of a store that knows the bucket `bkt`."""
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    filesystem.cache_clear()
    system = filesystem("s3")
    type(system).clear_instance_cache()
    filesystem.cache_clear()
    system = filesystem("s3")
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    system.mkdir("bkt")
    yield system
    filesystem.cache_clear()
    type(system).clear_instance_cache()
    moto.stop()


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()


def embed(*arguments: str) -> tuple[int, str]:
    options = ["-m", NAME, "--as", "image", "--part-items", "2", "-b", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, ["embed", *arguments, *options])
    return done.exit_code, done.output


def test_pictures_and_shards_of_a_bucket_become_parts_in_it(s3: Any) -> None:
    for place in range(3):
        s3.pipe_file(f"bkt/in/deep/{place}.png", png(place))
    s3.pipe_file("bkt/in/3.png", b"not a picture")
    code, said = embed("s3://bkt/in/", "-o", "s3://bkt/out/")
    assert (code, "3 image embeddings in 2 parts" in said) == (1, True), said
    summary = json.loads(s3.cat_file("bkt/out/_SUCCESS"))
    assert (summary["embeddings"], summary["errors"], summary["parts"]) == ({"image": 3}, 1, 2)
    stored = load_embeddings("s3://bkt/out")
    assert stored.names["image"] == [f"s3://bkt/in/deep/{place}.png" for place in range(3)]
    assert "(2 from an earlier run)" in embed("s3://bkt/in/", "-o", "s3://bkt/out/")[1]
    s3.pipe_file("bkt/in/deep/2.png", png(7))
    assert "(1 from an earlier run)" in embed("s3://bkt/in/", "-o", "s3://bkt/out/")[1], "a changed object makes its part anew"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as shard:
        for place, content in enumerate((png(0), png(1), png(7))):
            entry = tarfile.TarInfo(f"{place}.png")
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    s3.pipe_file("bkt/shards/0007.tar", stream.getvalue())
    code, said = embed("s3://bkt/shards/{0007..0007}.tar", "-o", "s3://bkt/shards-out/")
    assert code == 0, said
    again = load_embeddings("s3://bkt/out")["image"]
    np.testing.assert_allclose(load_embeddings("s3://bkt/shards-out")["image"], again, atol=1e-6)


def test_what_is_not_there_is_said(s3: Any) -> None:
    assert embed("s3://none/in/", "-o", "s3://bkt/out/")[0] == 2
    code, said = embed("s3://bkt/in/*.png", "-o", "s3://bkt/out/")
    assert code == 2 and "s3://bkt/in/*.png: no files there" in said
    s3.pipe_file("bkt/in/0.png", png(0))
    code, said = embed("s3://bkt/in/", "-o", "s3://none/out/")
    assert code == 2 and "bucket" in said.lower()
