"""An index behind an object-store address: the same rows, the same refusals, no folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vitlens.errors import InputError, OptionError
from vitlens.index import Index, Term
from vitlens.space import EmbeddingSpace

pytest.importorskip("lancedb", reason="pip install 'vitlens[index]' runs it")
SPACE = EmbeddingSpace("clip-a", 32)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="pip install 'vitlens[test]' runs it")
    boto3 = pytest.importorskip("boto3", reason="pip install 'vitlens[test]' runs it")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    given = {"ENDPOINT": f"http://{host}:{port}", "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y"}
    for name, value in {**given, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    try:
        client = boto3.client("s3", endpoint_url=given["ENDPOINT"], region_name="us-east-1")
        client.create_bucket(Bucket="things")
        yield "s3://things/index"
    finally:
        running.stop()


def test_an_index_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 32)).astype(np.float32)
    names = [f"p{place}" for place in range(20)]
    with pytest.raises(InputError, match="no index there"):
        Index.open(bucket)
    index = Index.create(bucket, SPACE)
    assert index.add(vectors, SPACE, modality="image", sources=names).added == 20
    assert index.add(vectors[:3], SPACE, modality="image", sources=names[:3]).known == 3
    other = Index.open(bucket)
    assert other.search(Term(vectors[3], "image"), SPACE, k=1).hits[0].source == "p3"
    assert other.delete(sources=["p3"]) == 1
    index.compact()
    assert (len(index), index.info().disk) == (19, None)
    with pytest.raises(OptionError, match="an index already"):
        Index.create(bucket, SPACE)
