"""The bulk job by actors of Ray: the same bytes as one process, though actors are killed while they start and while they work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitlens
from tests.local_ray import LINUX, kill_one, local_ray
from vitlens.errors import ModelError
from vitlens.store.bulk.job import BulkJob, Local
from vitlens.store.bulk.ray_pool import RayPool
from vitlens.store.job import Settings
from vitlens.store.listing import Listing
from vitlens.store.places import Folder

NAME = "vitlens-tiny-random"
pytestmark = pytest.mark.skipif(not LINUX, reason="finds Ray's processes in /proc: run it on Linux")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, once for all tests."""
    with local_ray():
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    generator = np.random.default_rng(0)
    for place in range(24):
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"p{place:02d}.png")
    (folder / "p05.png").write_bytes(b"not a picture")
    return folder


def job(pictures: Path, out: Path, model: str = NAME) -> BulkJob:
    return BulkJob(Listing([str(pictures)], modalities=["image"]), Folder(out), model, Settings(batch_size=2), part_items=4)


@pytest.mark.parametrize("title", ["ray::Worker.ready", "ray::Worker.make"])
def test_actors_give_the_bytes_of_one_process_though_one_is_killed(
    title: str, pictures: Path, tmp_path: Path, cluster: None
) -> None:
    model = vitlens.load(NAME, modalities=["image"], device="cpu")
    alone = job(pictures, tmp_path / "alone")
    alone.run(Local(alone.maker(lambda _: model)))
    bulk, done = job(pictures, tmp_path / "out"), threading.Event()
    killer = threading.Thread(target=kill_one, args=(title, done))
    killer.start()
    try:
        result = bulk.run(RayPool(bulk.maker(lambda _: model), workers=2, device="cpu"))
    finally:
        killed = done.is_set()
        done.set()
        killer.join()
    assert killed and result.complete and (result.counts, result.errors) == ({"image": 23}, 1)
    parts = [
        {str(f.relative_to(at)): f.read_bytes() for f in at.rglob("*.parquet")} for at in (tmp_path / "alone", tmp_path / "out")
    ]
    assert parts[0] == parts[1] and len(parts[0]) == 7


def test_what_no_other_attempt_changes_ends_the_job_with_its_sentence(pictures: Path, tmp_path: Path, cluster: None) -> None:
    bulk = job(pictures, tmp_path / "out", model="vitlens-xxl")
    with pytest.raises(ModelError, match="unknown model 'vitlens-xxl'"):
        bulk.run(RayPool(bulk.maker(lambda _: None), workers=1, device="cpu"))  # type: ignore[arg-type,return-value]
