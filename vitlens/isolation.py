"""Native readers in a process of their own: a file on which one crashes, hangs or takes all memory is an InputError like others.

    xyz, rgb = isolated(read_las, path, source)
    xyz, rgb = isolated_within(Limits(seconds=5), read_las, path, source)

A worker is a Python process that is started once and kept, so that good files pay for it only by the way of their arrays through
a pipe. It is no child of multiprocessing: it starts in threads, in a loader's (daemonic) processes and in scripts without a main
guard. It ends when its pipe is closed, that is with the process that started it, however that one ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from vitlens.errors import VitlensError
from vitlens.sources import GIB, Source, memory_budget

P = ParamSpec("P")
T = TypeVar("T")

SECONDS = 30.0
"""After so many seconds of computing, and one more per megabyte, a file counts as damaged."""
PATIENCE = 10
"""So many times as long a worker may take by the clock: others may need the processor, or the disk may be slow."""
STARTING = 300.0
"""For what a worker does before its first file."""
KEPT = 4
"""Idle workers that are kept; more run only while more threads read at once. `keep_idle` raises it."""

_START = "import sys; sys.path[:] = sys.argv[1:]; from vitlens.isolation import _serve; _serve()"
_READY = "ready"


@dataclass(frozen=True)
class Limits:
    """What one reading may take: seconds (and one more per megabyte of the file), and bytes (None: `memory_budget()`)."""

    seconds: float
    memory: int | None = None
    prepare: Callable[[], object] | None = None
    """Called once in every worker before it reads within these limits: imports take time that is no file's fault."""


def isolated(
    function: Callable[Concatenate[Path, Source, P], T], path: Path, source: Source, *args: P.args, **options: P.kwargs
) -> T:
    """`function(path, source, *args, **options)`, run by a worker; the function of a module, arguments and result picklable.

    What it raises and warns of comes as if it ran here; what libraries print is dropped.

    Raises:
        InputError: the worker crashed, took too long or more than `memory_budget()` bytes.
        VitlensError: no worker can be started.
    """
    return isolated_within(Limits(SECONDS), function, path, source, *args, **options)


def isolated_within(
    limits: Limits,
    function: Callable[Concatenate[Path, Source, P], T],
    path: Path,
    source: Source,
    *args: P.args,
    **options: P.kwargs,
) -> T:
    """`isolated` with limits of one's own. What a worker itself wants isolated runs right there: its limits are set."""
    if _working:
        return function(path.absolute(), source, *args, **options)
    seconds = limits.seconds + path.stat().st_size / 1e6
    worker = _take()
    try:
        worker.be_prepared(limits.prepare)
        answer = worker.ask((function, (path.absolute(), source, *args), options, seconds, limits.memory), seconds)
    except BaseException:  # an interrupt: nobody waits for the answer any more
        worker.end()
        raise
    if answer is None:
        status = worker.end()
        if worker.late:
            raise source.refuse(f"reading it takes more than {seconds:.0f} s: damaged")
        raise source.refuse(f"its reader crashes ({_in_words(status)}): damaged")
    _give_back(worker)
    result, error, told = answer
    for category, text in told:
        warnings.warn(text, category, stacklevel=2)
    if error is not None:
        raise error
    return result


def _in_words(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


# --- in the process that asks ---


class _Worker:
    """A process that reads for this one, and the two pipes to it."""

    def __init__(self) -> None:
        self.late = False
        self.prepared: set[Callable[[], object]] = set()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, *(entry or os.curdir for entry in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        _all.add(self)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.asks, self.answers = self.process.stdin.fileno(), self.process.stdout.fileno()
        if _received(self.answers) != _READY:
            raise VitlensError(f"the process that reads files does not start: {sys.executable}, {_in_words(self.end())}")

    def ask(self, task: tuple[Any, ...], seconds: float) -> Any:
        """The answer to `task`; None when the worker ended, or was ended after `seconds`."""
        done = threading.Event()
        threading.Thread(target=self._watch, args=(done, seconds), daemon=True).start()
        try:
            _send(self.asks, task)
            return _received(self.answers)
        except BrokenPipeError:
            return None
        finally:
            done.set()

    def be_prepared(self, prepare: Callable[[], object] | None) -> None:
        """Let it call `prepare`, unless it has."""
        if prepare is not None and prepare not in self.prepared:
            self.ask((prepare, (), {}, STARTING, None), STARTING)
            self.prepared.add(prepare)

    def _watch(self, done: threading.Event, seconds: float) -> None:
        """End the worker once it computed for `seconds`, or waited for long, and is not `done`."""
        begin, clock = _computed(self.process.pid), time.monotonic()
        left = seconds
        while left > 0 and time.monotonic() - clock < PATIENCE * seconds:
            if done.wait(max(left, 0.05)):
                return
            left = seconds - (_computed(self.process.pid) - begin)
        if not done.is_set():
            self.late = True
            self.process.kill()

    def end(self) -> int:
        """End it, unless it did so itself, and return its exit status."""
        self.let_go()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout=1)
        self.process.kill()
        return self.process.wait()

    def let_go(self) -> None:
        """Close this process's ends of its pipes."""
        _all.discard(self)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _computed(process: int) -> float:
    """Seconds that a process has computed; by the clock where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic()


_lock = threading.Lock()
_idle: list[_Worker] = []
_all: set[_Worker] = set()


def _take() -> _Worker:
    """An idle worker, or a new one."""
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.process.poll() is None:
                return worker
            worker.end()
    return _Worker()


def keep_idle(count: int) -> None:
    """Keep at least so many idle workers, for who reads in so many threads all the time."""
    global KEPT
    KEPT = max(KEPT, count)


def _give_back(worker: _Worker) -> None:
    with _lock:
        if len(_idle) < KEPT:
            _idle.append(worker)
            return
    worker.end()


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget() -> None:
    """In a forked child: the workers are the parent's."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    for worker in list(_all):
        worker.let_go()
        worker.process.returncode = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# --- both ---


def _send(pipe: int, message: Any) -> None:
    """Write a message: its pickle, and its arrays behind it as they are."""
    arrays: list[pickle.PickleBuffer] = []
    text = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    parts = [memoryview(text), *(array.raw() for array in arrays)]
    sizes = struct.pack(f"<{len(parts)}Q", *(part.nbytes for part in parts))
    for part in (memoryview(struct.pack("<Q", len(parts))), memoryview(sizes), *parts):
        while part.nbytes:
            part = part[os.write(pipe, part[: 1 << 20]) :]


def _received(pipe: int) -> Any:
    """The next message; None where the other side has ended."""
    try:
        (count,) = struct.unpack("<Q", _exactly(pipe, 8))
        text, *arrays = (_exactly(pipe, size) for size in struct.unpack(f"<{count}Q", _exactly(pipe, 8 * count)))
    except EOFError:
        return None
    return pickle.loads(text, buffers=arrays)


def _exactly(pipe: int, size: int) -> bytearray:
    content = bytearray(size)
    left = memoryview(content)
    while left.nbytes:
        got = os.read(pipe, min(left.nbytes, 1 << 20))
        if not got:
            raise EOFError
        left[: len(got)] = got
        left = left[len(got) :]
    return content


# --- in the worker ---

_working = False
"""Whether this process is a worker."""


@contextlib.contextmanager
def with_workers() -> Iterator[None]:
    """Let readers have workers of their own for a while, as everywhere else, though this process is a worker itself."""
    global _working
    before, _working = _working, False
    try:
        yield
    finally:
        _working = before


def _serve() -> None:
    """Answer tasks until the pipe is closed; what libraries print goes nowhere."""
    global _working
    _working = True
    asks, answers, nowhere = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of a terminal; this one ends with its pipe
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asks, tasks), daemon=True).start()
    _send(answers, _READY)
    while True:
        _send(answers, _answer(*tasks.get()))


def _listen(asks: int, tasks: queue.SimpleQueue[Any]) -> None:
    """Hand tasks on. It waits while they are worked on, so as to end this process as soon as nobody wants them."""
    while (task := _received(asks)) is not None:
        tasks.put(task)
    os._exit(0)


def _answer(
    function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], seconds: float, memory: int | None
) -> tuple[Any, BaseException | None, list[tuple[type[Warning], str]]]:
    """What `function` returns or raises, and what it warned of."""
    result, error = None, None
    with _budget(memory), _limits(seconds), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result = function(*args, **options)
        except BaseException as raised:
            error = _sendable(raised)
    return result, error, [(UserWarning, str(one.message)) for one in told]


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(" ".join(str(error).split()) or type(error).__name__)
    return error


@contextlib.contextmanager
def _budget(memory: int | None) -> Iterator[None]:
    """`memory` bytes, where they are given, as what `memory_budget` says for a while."""
    before = os.environ.get("VITLENS_READ_GIB")
    if memory is not None:
        os.environ["VITLENS_READ_GIB"] = str(memory / GIB)
    try:
        yield
    finally:
        os.environ.pop("VITLENS_READ_GIB", None)
        if before is not None:
            os.environ["VITLENS_READ_GIB"] = before


@contextlib.contextmanager
def _limits(seconds: float) -> Iterator[None]:
    """Where the system can: the memory budget above what is taken now, and an end after `seconds` if nobody else sees to it."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_budget(), hard))
    except (ImportError, OSError, ValueError):  # Windows; macOS; a lower limit that somebody else set
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, seconds + 5)  # of computing, as its asker counts
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
