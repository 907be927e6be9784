"""Large contrastive batches in the memory of small ones, exactly (GradCache, arXiv 2101.06983).

A contrastive loss does not split into micro-batches: every item is compared with every other. So all embeddings are computed
first, without a graph; the loss gives the gradient of each embedding; then every micro-batch is run again with a graph and
handed its embeddings' gradients. Random numbers inside the network (dropout) are replayed.

Exact for every network that treats items one by one. Batch normalisation does not: it sees micro-batches, as in any
accumulation; its running statistics are updated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def backward_through(
    tower: Callable[[Tensor], Tensor],
    batch: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    *,
    micro_batch: int | None = None,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    no_sync: Callable[[bool], AbstractContextManager[Any]] | None = None,
    module: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of `loss_of(tower(batch))` into the parameters; returns the loss and the embeddings, detached.

    `micro_batch` items go through `tower` at once. `backward` is called with the loss (it may scale it); `no_sync(last)` gives
    the context in which a micro-batch runs backward, so that processes talk once; `module` holds the batch norms.
    """
    if micro_batch is None or micro_batch >= batch.shape[0]:
        embeddings = tower(batch)
        loss = loss_of(embeddings)
        backward(loss)
        return loss.detach(), embeddings.detach()
    chunks = batch.split(micro_batch)
    states = []
    parts = []
    with torch.no_grad(), _kept_statistics(module):
        for chunk in chunks:
            states.append(rng_state(batch.device))
            parts.append(tower(chunk))
    embeddings = torch.cat(parts).detach().requires_grad_()
    loss = loss_of(embeddings)
    backward(loss)
    if embeddings.grad is None:
        raise RuntimeError("the loss does not depend on the embeddings")
    after = rng_state(batch.device)
    gradients = embeddings.grad.split(micro_batch)
    for index, (chunk, gradient, state) in enumerate(zip(chunks, gradients, states, strict=True)):
        set_rng_state(state, batch.device)
        with no_sync(index == len(chunks) - 1) if no_sync else _nothing():
            out = tower(chunk)
            out.backward(gradient.to(out.dtype))
    set_rng_state(after, batch.device)
    return loss.detach(), embeddings.detach()


def rng_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of torch's generators on the CPU and, for CUDA, on `device`."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_rng_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _kept_statistics(module: nn.Module | None) -> Iterator[None]:
    """Running statistics of batch norms are after the block what they were before."""
    norms = [m for m in module.modules() if isinstance(m, _NormBase)] if module is not None else []
    saved = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, saved, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
