"""What becomes of pieces when actors fail: in their start, at work, or blind to our files; with a Ray that fails on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vitlens.errors import ModelError, OptionError
from vitlens.store.bulk import ray_pool
from vitlens.store.bulk.job import ATTEMPTS, Outcome
from vitlens.store.bulk.maker import Maker
from vitlens.store.bulk.pieces import Piece, Receipt
from vitlens.store.bulk.ray_pool import STARTS, RayPool
from vitlens.store.items import Item
from vitlens.store.job import Settings
from vitlens.store.places import Folder


class RayError(Exception):
    def __init__(self, cause: BaseException | None = None) -> None:
        super().__init__(str(cause))
        self.cause = cause


class RayActorError(RayError):
    pass


@dataclass(frozen=True, eq=False)
class Answer:
    method: str
    piece: Piece | None
    sure: bool


class Ray:
    """As much of Ray as the pool asks for. `fate(method, piece)` may raise what a call shall end with."""

    exceptions = SimpleNamespace(RayError=RayError, RayActorError=RayActorError)

    def __init__(self, folder: Folder, fate: Callable[[str, Piece | None], Any]) -> None:
        self.folder, self.fate, self.started, self.down = folder, fate, 0, False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def nodes(self) -> list[dict[str, bool]]:
        return [{"Alive": True}]

    def remote(self, **options: Any) -> Callable[[type], Any]:
        def start(*arguments: Any, **more: Any) -> Any:
            self.started += 1
            return SimpleNamespace(
                ready=SimpleNamespace(remote=lambda: Answer("ready", None, False)),
                make=SimpleNamespace(remote=lambda piece, sure: Answer("make", piece, sure)),
            )

        return lambda cls: SimpleNamespace(remote=start)

    def wait(self, answers: list[Answer], num_returns: int, timeout: float) -> tuple[list[Answer], list[Answer]]:
        return answers[:1], answers[1:]

    def get(self, answer: Answer) -> Any:
        if answer.piece is None:
            return self.fate("ready", None)
        piece = answer.piece
        found = None if answer.sure else self.fate("make", piece)
        if found is not None:
            return found
        receipt = Receipt(piece.number, piece.listing, "", {}, {}, ("s", 1), {"text": 1}, 0, (0, 0))
        receipt.write(self.folder)
        return receipt, True

    def kill(self, actor: Any) -> None:
        pass

    def shutdown(self) -> None:
        self.down = True


Run = Callable[..., list[Outcome]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def make(fate: Callable[[str, Piece | None], Any], pieces: int = 4) -> list[Outcome]:
        folder = Folder(tmp_path / "out")
        ray = Ray(folder, fate)
        monkeypatch.setattr(ray_pool, "_connect", lambda address: (ray, True))
        pool = RayPool(Maker(folder, "m", Settings(), lambda _: None), workers=2)  # type: ignore[arg-type,return-value]
        listed = (Piece(number, (Item(number, str(number), "text", str(number)),), "l") for number in range(pieces))
        try:
            return sorted(pool.make(listed, ["text"], lambda *_: None), key=lambda outcome: outcome.piece.number)
        finally:
            assert ray.down

    return make


def failing(method: str, error: Callable[[], BaseException], times: int, number: int | None = None) -> Callable[..., Any]:
    left = [times]

    def fate(called: str, piece: Piece | None) -> None:
        if called == method and left[0] and (number is None or (piece is not None and piece.number == number)):
            left[0] -= 1
            raise error()

    return fate


@pytest.mark.parametrize(
    "fate",
    [
        failing("ready", RayActorError, STARTS * 2 - 1),
        failing("make", RayActorError, ATTEMPTS - 1, 1),
        failing("make", lambda: RayError(OSError("the network is gone")), ATTEMPTS - 1, 2),
    ],
)
def test_what_fails_now_and_then_is_done_in_the_end(fate: Callable[..., Any], run: Run) -> None:
    found = run(fate)
    assert [outcome.piece.number for outcome in found] == [0, 1, 2, 3] and all(outcome.receipt for outcome in found)


def test_a_piece_that_kills_every_actor_is_reported_and_the_rest_goes_on(run: Run) -> None:
    found = run(failing("make", lambda: RayActorError(RuntimeError("it died")), 99, 1))
    assert [bool(outcome.receipt) for outcome in found] == [True, False, True, True] and "it died" in found[1].reason


def test_a_cluster_on_which_no_actor_starts_ends_the_job(run: Run) -> None:
    with pytest.raises(OptionError, match=r"no actor of Ray starts: RuntimeError: no GPU"):
        run(failing("ready", lambda: RayError(RuntimeError("no GPU")), 999))


def test_what_an_actor_says_of_the_job_itself_ends_it(run: Run) -> None:
    with pytest.raises(ModelError, match="unknown model"):
        run(failing("ready", lambda: RayError(ModelError("unknown model 'x'")), 1))


def test_files_that_only_this_machine_sees_are_told(run: Run, tmp_path: Path) -> None:
    here = tmp_path / "a.txt"
    here.write_text("a dog")
    with pytest.raises(OptionError, match="does not see it"):
        run(lambda method, piece: [str(here)] if method == "make" else None)
    gone = run(lambda method, piece: [str(tmp_path / "gone.txt")] if method == "make" else None)
    assert all(outcome.receipt for outcome in gone), "what is nowhere is a row of the errors"
