"""Two replicas under Ray Serve: one is killed under load, and every request has its answer all the same."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import vitlens
from tests.local_ray import LINUX, kill_one, local_ray
from vitlens.serve import cluster
from vitlens.serve.client import Client
from vitlens.serve.settings import Settings

pytest.importorskip("ray.serve")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LINUX, reason="finds Ray's processes in /proc: run it on Linux")]
NAME = "vitlens-tiny-random"
REPLICA = "ray::ServeReplica"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A deployment of two replicas."""
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with local_ray():
        cluster.start(Settings(model=NAME, device="cpu", readers=1), "127.0.0.1", port, 2, least=2)
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()


def running() -> int:
    """Replicas that take requests."""
    from ray import serve

    [state] = serve.status().applications[cluster.NAME].deployments.values()
    return state.replica_states.get("RUNNING", 0)


def wait_for_two() -> None:
    for _ in range(1200):
        if running() == 2:
            return
        time.sleep(0.1)
    raise AssertionError("there are not two replicas")


def test_every_request_is_answered_though_a_replica_is_killed(address: str) -> None:
    texts = [f"thing number {place}" for place in range(16)]
    expected = vitlens.load(NAME, modalities=["text"], device="cpu").encode({"text": texts})["text"].numpy()
    wait_for_two()
    killed, answered = threading.Event(), threading.Semaphore(0)

    def ask(place: int) -> float:
        with Client(address, retries=8) as client:
            row = client.embed([texts[place % 16]])[0]
        answered.release()
        return float(np.abs(row - expected[place % 16]).max())

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, place) for place in range(400)]
        for _ in range(100):
            answered.acquire()
        killer = threading.Thread(target=kill_one, args=(REPLICA, killed))
        killer.start()
        assert max(one.result() for one in asked) < 1e-4
        killer.join(60)
    assert killed.is_set()
    wait_for_two()
