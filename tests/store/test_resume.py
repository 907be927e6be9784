"""The contract of all who embed lists: stopped at any moment, also by kill -9, they end as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.store.users import BROKEN, COUNT, USERS, Outcome, pictures, run
from tests.train.tiny import item

FORK = multiprocessing.get_context("fork")


def parts_in(folder: Path) -> set[str]:
    return {part.name for part in folder.rglob("*.safetensors")}


def killed(user: str, files: list[Path], folder: Path, parts: int, pause: float = 0.0) -> None:
    """Run a user in a process of its own and kill it when it has written so many parts more."""
    before = len(parts_in(folder))
    slowly = lambda *_: time.sleep(0.1)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking is safe here: the child only embeds and dies
        child = FORK.Process(target=run, args=(USERS[user], files, folder, slowly))
        child.start()
    assert child.pid is not None
    while child.is_alive() and len(parts_in(folder)) < before + parts:
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it was still at work"


def same(found: Outcome, expected: Outcome, atol: float = 1e-6) -> None:
    assert list(found.vectors) == list(expected.vectors)
    for name, vector in expected.vectors.items():
        np.testing.assert_allclose(found.vectors[name], vector, atol=atol, err_msg=name)


@pytest.mark.parametrize("user", USERS)
def test_killed_and_started_again_it_gives_the_same_bytes(user: str, tmp_path: Path) -> None:
    files = pictures(tmp_path / "in")
    whole = run(USERS[user], files, tmp_path / "whole")
    assert len(whole.vectors) == COUNT - 1 and list(whole.failed) == [f"{BROKEN:03}.png"]
    broken = tmp_path / "broken"
    for parts, pause in ((1, 0.0), (2, 0.03), (1, 0.07)):
        killed(user, files, broken, parts, pause)
    kept = parts_in(broken)
    assert len(kept) >= 4
    again = run(USERS[user], files, broken)
    assert again.output == whole.output and again.failed == whole.failed
    assert again.computed <= COUNT - 2 * len(kept) + 2, "what was on disk is not embedded again"


@pytest.mark.parametrize("user", USERS)
def test_a_file_that_changed_meanwhile_is_embedded_anew(user: str, tmp_path: Path) -> None:
    files = pictures(tmp_path / "in")
    killed(user, files, tmp_path / "broken", 3)
    size, times = files[0].stat().st_size, files[0].stat()
    before = files[0].read_bytes()
    for seed in range(50, 500):  # the most treacherous change: size and time of writing stay what they were
        PIL.Image.fromarray(item(seed)["image"]).save(files[0])
        if files[0].stat().st_size <= size:
            break
    files[0].write_bytes(files[0].read_bytes().ljust(size, b"\0"))
    os.utime(files[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files[0].read_bytes() != before and files[0].stat().st_mtime_ns == times.st_mtime_ns
    found = run(USERS[user], files, tmp_path / "broken")
    same(found, run(USERS[user], files, tmp_path / "fresh"))
    assert found.failed.keys() == {f"{BROKEN:03}.png"}


@pytest.mark.parametrize("user", USERS)
def test_a_file_that_is_gone_is_a_line_of_the_report(user: str, tmp_path: Path) -> None:
    files = pictures(tmp_path / "in")
    whole = run(USERS[user], files, tmp_path / "whole")
    killed(user, files, tmp_path / "broken", 3)
    for index in (2, COUNT - 1):  # one that was done, and one that was not
        files[index].unlink()
    found = run(USERS[user], files, tmp_path / "broken")
    assert found.failed.keys() == {"002.png", f"{BROKEN:03}.png", f"{COUNT - 1:03}.png"}
    assert all("no such file" in found.failed[name] for name in ("002.png", f"{COUNT - 1:03}.png"))
    rest = {name: vector for name, vector in whole.vectors.items() if name not in found.failed}
    same(found, Outcome(rest, {}, b"", 0))


@pytest.mark.parametrize("user", USERS)
def test_a_file_that_changes_while_it_is_read_is_not_kept_under_its_old_content(user: str, tmp_path: Path) -> None:
    files = pictures(tmp_path / "in")
    old, new = files[6].read_bytes(), files[9].read_bytes()
    files[8].write_bytes(old)

    def rewrite(what: str, done: int, total: int) -> None:
        if done in (4, 5):
            files[6].write_bytes(new)

    found = run(USERS[user], files, tmp_path / "store", rewrite)
    assert "changed while it was read" in found.failed["006.png"]
    assert "008.png" in found.vectors, "it holds what the other one did, and has not changed"
    files[6].write_bytes(old)
    again, fresh = run(USERS[user], files, tmp_path / "store"), run(USERS[user], files, tmp_path / "fresh")
    assert "006.png" not in again.failed
    same(again, fresh)


@pytest.mark.parametrize("user", USERS)
def test_renamed_files_are_known_by_their_content(user: str, tmp_path: Path) -> None:
    files = pictures(tmp_path / "in")
    killed(user, files, tmp_path / "broken", 4)
    assert len(parts_in(tmp_path / "broken")) >= 4
    moved = [file.rename(file.with_name(f"{COUNT + index:03}.png")) for index, file in enumerate(files[:3])]
    found = run(USERS[user], [*moved, *files[3:]], tmp_path / "broken")
    assert {file.name for file in moved} <= found.vectors.keys()
    assert found.computed <= COUNT - 6
