"""Readers in a process of their own: what a file may do to them, and what the processes do to each other."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitlens import isolation
from vitlens.errors import InputError
from vitlens.isolation import isolated
from vitlens.sources import MEMORY_BUDGET, Source


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "thing.bin"
    path.write_bytes(b"content")
    return path


def read(function: Callable[..., Any], path: Path, *args: Any) -> Any:
    return isolated(function, path, Source(path, "things"), *args)


# what readers do, each in the worker


def arrays(path: Path, source: Source, count: int) -> tuple[np.ndarray, np.ndarray, bytes]:
    return np.arange(count, dtype=np.float64), np.arange(12).reshape(3, 4)[:, ::2], path.read_bytes()


def process(path: Path, source: Source) -> int:
    return os.getpid()


def slow_process(path: Path, source: Source) -> int:
    time.sleep(0.3)
    return os.getpid()


def crash(path: Path, source: Source) -> None:
    os.abort()


def hang(path: Path, source: Source) -> None:
    time.sleep(600)


def busy(path: Path, source: Source) -> None:
    while True:
        pass


def doze(path: Path, source: Source) -> str:
    time.sleep(0.6)
    return "read"


def greedy(path: Path, source: Source) -> None:
    np.zeros(2 * MEMORY_BUDGET, np.uint8)


def refuse(path: Path, source: Source) -> None:
    raise source.refuse("a broken thing", "whole ones")


def strange(path: Path, source: Source) -> None:
    class Odd(Exception):
        pass

    raise Odd("of no module")


def talk(path: Path, source: Source) -> str:
    warnings.warn("gaps in it", RuntimeWarning, stacklevel=1)
    print("python prints")
    os.write(1, b"native prints\n")
    os.write(2, b"native complains\n")
    return "read"


def test_arrays_come_back_whole_and_may_be_written_to(file: Path) -> None:
    long, strided, content = read(arrays, file, 3_000_000)
    np.testing.assert_array_equal(long, np.arange(3_000_000))
    np.testing.assert_array_equal(strided, [[0, 2], [4, 6], [8, 10]])
    assert content == b"content"
    long[0] = 7


def test_the_same_process_reads_the_next_file(file: Path) -> None:
    first = read(process, file)
    assert first not in (os.getpid(), None)
    assert read(process, file) == first


@pytest.mark.parametrize(("function", "found"), [(crash, r"its reader crashes \(SIGABRT\)"), (refuse, "a broken thing")])
def test_a_bad_file_is_an_input_error_that_names_it_and_the_next_one_is_read(file: Path, function: Any, found: str) -> None:
    with pytest.raises(InputError, match=found) as error:
        read(function, file)
    assert error.value.source == str(file)
    assert read(arrays, file, 3)[2] == b"content"


@pytest.mark.parametrize("function", [hang, busy])
def test_a_file_that_takes_all_time_is_an_input_error(file: Path, function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read(process, file)
    monkeypatch.setattr(isolation, "SECONDS", 0.3)
    with pytest.raises(InputError, match="takes more than 0 s"):
        read(function, file)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a process computed: run it there")
def test_a_worker_that_waits_for_the_processor_is_not_late(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(process, file)
    monkeypatch.setattr(isolation, "SECONDS", 0.3)
    assert read(doze, file) == "read"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process how much memory it takes: run it there")
def test_a_file_that_takes_all_memory_is_an_input_error_and_the_worker_lives_on(file: Path) -> None:
    worker = read(process, file)
    source = Source(file, "things")
    with pytest.raises(InputError, match="more memory than there is"), source.decoding():
        isolated(greedy, file, source)
    assert read(process, file) == worker


def test_an_error_of_no_module_and_warnings_come_and_prints_do_not(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="of no module"):
        read(strange, file)
    with pytest.warns(UserWarning, match="gaps in it"):
        assert read(talk, file) == "read"
    assert capfd.readouterr() == ("", "")


def test_threads_read_at_once(file: Path) -> None:
    with ThreadPoolExecutor(3) as threads:
        workers = list(threads.map(lambda _: read(slow_process, file), range(6)))
    assert 1 < len(set(workers)) <= 3


def in_child(path: Path, worker: int, answers: Any) -> None:
    answers.put((read(process, path) != worker, read(arrays, path, 2)[2]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forked loader processes are of Unix: run it there")
def test_a_forked_daemon_reads_with_a_worker_of_its_own(file: Path) -> None:
    context, worker = multiprocessing.get_context("fork"), read(process, file)
    answers = context.SimpleQueue()
    child = context.Process(target=in_child, args=(file, worker, answers), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == (True, b"content")
    assert read(process, file) == worker


SCRIPT = """
import json, os, sys, threading
from pathlib import Path
from tests.core.test_isolation import hang, process, read
path = Path(sys.argv[1])
print(json.dumps(read(process, path)), flush=True)
read(hang, path) if sys.argv[2] == "busy" else sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc: run it on Linux")
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_ends_with_the_process_that_started_it(file: Path, state: str) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file), state], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None and parent.stdin is not None
    worker = json.loads(parent.stdout.readline())
    assert alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for pipe in (parent.stdin, parent.stdout):
        pipe.close()
    until = time.monotonic() + 20
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)
