"""Around a host that runs: evaluation mode, lack of memory said with advice, generation in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vitlens.errors import HostError

Piece = TypeVar("Piece")
Returned = TypeVar("Returned")


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule gets its own mode back."""
    training = [module for whole in modules for module in whole.modules() if module.training]
    for whole in modules if training else ():
        whole.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def memory(what: str, advice: str) -> Iterator[None]:
    """Turn a device's lack of memory into a HostError that says what helps."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HostError(f"{what}: out of memory; {advice} ({' '.join(str(error).split())[:200]})") from error


def in_background(
    generate: Callable[[Any], Returned], pieces: Iterable[Piece], *, end: Callable[[], None]
) -> Generator[Piece, None, Returned]:
    """The `pieces` that `generate` makes in a thread, as they come; returns what it returned, raises what it raised.

    `generate` is given a stopping criterion of transformers: it holds once nobody takes pieces any more. `end` is called when
    it is through, however that came about, and must end `pieces`.
    """
    gone = threading.Event()
    results: list[Returned] = []
    failures: list[Exception] = []

    def left(ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return torch.full((len(ids),), gone.is_set(), dtype=torch.bool, device=ids.device)

    def work() -> None:
        try:
            results.append(generate(left))
        except Exception as error:  # raised again where the pieces are taken
            failures.append(error)
        finally:
            end()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield from pieces
    finally:
        gone.set()
        thread.join()
    if failures:
        raise failures[0]
    return results[0]
