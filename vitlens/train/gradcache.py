"""Large contrastive batches in the memory of small ones, exactly (GradCache, arXiv 2101.06983).

A contrastive loss does not split into micro-batches: every item is compared with every other. So all outputs (embeddings) are
computed first, without a graph; the loss gives the gradient of each output; then every micro-batch is run again with a graph and
handed its outputs' gradients. Random numbers inside the network (dropout) are replayed.

Exact for every network that treats items one by one. Batch normalisation does not: it sees micro-batches, as in any
accumulation; its running statistics are updated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Named = dict[str, Tensor]
"""Tensors [b, ...] of a batch, by name."""


def backward_through(
    network: Callable[[Named], Named],
    inputs: Named,
    loss_of: Callable[[Named], Tensor],
    *,
    micro_batch: int | None = None,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    no_sync: Callable[[bool], AbstractContextManager[Any]] | None = None,
    module: nn.Module | None = None,
) -> tuple[Tensor, Named]:
    """Gradients of `loss_of(network(inputs))` into the parameters; returns the loss and the network's outputs, detached.

    `micro_batch` items go through `network` at once. `backward` is called with the loss (it may scale it); `no_sync(last)` gives
    the context in which a micro-batch runs backward, so that processes talk once; `module` holds the batch norms.
    """
    if micro_batch is None or micro_batch >= _length(inputs):
        outputs = network(inputs)
        loss = loss_of(outputs)
        backward(loss)
        return loss.detach(), {name: rows.detach() for name, rows in outputs.items()}
    chunks = _split(inputs, micro_batch)
    device = next(iter(inputs.values())).device
    states = []
    parts = []
    with torch.no_grad(), _kept_statistics(module):
        for chunk in chunks:
            states.append(rng_state(device))
            parts.append(network(chunk))
    outputs = {name: torch.cat([part[name] for part in parts]).detach().requires_grad_() for name in parts[0]}
    loss = loss_of(outputs)
    backward(loss)
    given = {name: rows.grad for name, rows in outputs.items() if rows.grad is not None}
    if not given:
        raise RuntimeError("the loss does not depend on the network's outputs")
    after = rng_state(device)
    for index, (chunk, gradients, state) in enumerate(zip(chunks, _split(given, micro_batch), states, strict=True)):
        set_rng_state(state, device)
        with no_sync(index == len(chunks) - 1) if no_sync else nullcontext():
            out = network(chunk)
            torch.autograd.backward([out[name] for name in gradients], [g.to(out[name].dtype) for name, g in gradients.items()])
    set_rng_state(after, device)
    return loss.detach(), {name: rows.detach() for name, rows in outputs.items()}


def _length(batch: Named) -> int:
    return len(next(iter(batch.values())))


def _split(batch: Named, size: int) -> list[Named]:
    return [{name: rows[i : i + size] for name, rows in batch.items()} for i in range(0, _length(batch), size)]


def rng_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of torch's generators on the CPU and, for CUDA, on `device`."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_rng_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


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
