"""What the tests of evaluation share: a tiny CLIP, and a dataset on disk that it can be measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.evaluation_world import write_world
from tests.train.tiny import tiny_clip
from vitlens.model import ViTLens


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return tiny_clip()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "tiny-shapes")
