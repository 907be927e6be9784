"""The field's metrics, from scores to numbers in percent: top-k, mean average precision, retrieval both ways.

`protocol` is "default", or "paper" for what the evaluation code that ViT-Lens released does otherwise (docs/benchmarks.md):

    mean average precision   default: over the classes that have a positive; paper: a class without one counts as 0
    retrieval                default: cosine; paper: the texts are not normalised, which changes what a query by sensor finds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens import checks
from vitlens.errors import MissingDependencyError

Protocol = Literal["default", "paper"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
CHUNK = 2048
"""Rows of scores that torchmetrics gets at once: it makes several one-hot tables of them."""
INSTALL = "pip install 'vitlens[eval]'"


@dataclass
class Scores:
    """What an evaluator found. All values are in percent."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: Tensor | None = None
    """Counts [c, c], rows are the true classes; in the order of `confusion_classes`."""
    confusion_classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def needed(module: str) -> Any:
    """An optional module of the `eval` extra.

    Raises:
        MissingDependencyError: not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"benchmarks need {module.partition('.')[0]}: {INSTALL}") from error


def checked_protocol(name: str) -> Protocol:
    """`name`, if it is a protocol.

    Raises:
        OptionError: it is not.
    """
    return cast(Protocol, checks.one_of("protocol", name, PROTOCOLS))


def class_vectors_of(prompts: Tensor) -> Tensor:
    """Prompt embeddings [c, t, E], normalised or not -> class vectors [c, E]: each normalised, averaged, normalised again."""
    return F.normalize(F.normalize(prompts, dim=-1).mean(dim=1), dim=-1)


def top_k(scores: Tensor, targets: Tensor, k: int) -> float:
    """Share in percent of the rows of scores [n, c] whose target [n] is among the k highest."""
    metric = needed("torchmetrics.classification").MulticlassAccuracy(
        num_classes=scores.shape[1],
        top_k=min(k, scores.shape[1]),
        average="micro",
        validate_args=False,
        sync_on_compute=False,  # of several processes only the first computes: it must not wait for the others
    )
    for at in range(0, len(scores), CHUNK):
        metric.update(scores[at : at + CHUNK], targets[at : at + CHUNK])
    return 100 * float(metric.compute())


def top_k_merged(scores: Tensor, targets: Tensor, k: int, merged: Tensor) -> float:
    """`top_k` where classes count as one only after ranking: `merged` [c] is the number that stands for each class.

    The k best are taken among all classes; several of them may then be the same merged class, and one hit is enough.
    """
    best = scores.topk(min(k, scores.shape[1]), dim=-1).indices
    return 100 * float((merged[best] == merged[targets][:, None]).any(dim=-1).float().mean())


def merging(classes: Sequence[str], merged: Mapping[str, str]) -> tuple[Tensor, tuple[str, ...]]:
    """Number of each class after merging [c], and the names by that number.

    Raises:
        OptionError: a class to merge that is not in the list.
    """
    checks.known("classes to merge that are not in the class list:", merged, classes)
    names = tuple(dict.fromkeys(merged.get(name, name) for name in classes))
    return torch.tensor([names.index(merged.get(name, name)) for name in classes]), names


def classification(scores: Tensor, targets: Tensor, classes: Sequence[str], merged: Mapping[str, str] | None = None) -> Scores:
    """Top-1, top-5 and mean per-class accuracy of scores [n, c] against targets [n]; per-class numbers; confusions."""
    number, names = merging(classes, merged or {})
    ks = (1, 5) if len(classes) > 5 else (1,)
    if merged:
        metrics = {f"top{k}": top_k_merged(scores, targets, k, number) for k in ks}
    else:
        metrics = {f"top{k}": top_k(scores, targets, k) for k in ks}
    true, predicted = number[targets], number[scores.argmax(dim=-1)]
    confusion = needed("torchmetrics.functional.classification").multiclass_confusion_matrix(
        predicted, true, num_classes=len(names), validate_args=False
    )
    counts, hits = confusion.sum(dim=1), confusion.diagonal()
    present = counts > 0
    metrics["mean_per_class"] = 100 * float((hits[present] / counts[present]).double().mean())
    per_class: dict[str, dict[str, float]] = {}
    for place, name in enumerate(names):
        own = true == place
        per_class[name] = {"items": int(counts[place])}
        if own.any():
            rows = scores[own], targets[own]
            per_class[name] |= {f"top{k}": top_k_merged(*rows, k, number) for k in ks}
    notes = [] if bool(present.all()) else [f"{int((~present).sum())} of {len(names)} classes have no item"]
    return Scores(metrics, per_class, confusion, names, notes)


def multi_label(scores: Tensor, targets: Tensor, classes: Sequence[str], protocol: Protocol = "default") -> Scores:
    """Mean average precision of scores [n, c] against multi-hot targets [n, c], and how often the best class is a right one."""
    average_precision = needed("sklearn.metrics").average_precision_score
    per_class: dict[str, dict[str, float]] = {}
    for place, name in enumerate(classes):
        own = targets[:, place]
        per_class[name] = {"items": int(own.sum())}
        if own.any():
            per_class[name]["AP"] = 100 * float(average_precision(own.numpy(), scores[:, place].double().numpy()))
    values = [row["AP"] for row in per_class.values() if "AP" in row]
    without = len(classes) - len(values)
    divisor = len(classes) if protocol == "paper" else len(values)
    best = targets.gather(1, scores.argmax(dim=-1, keepdim=True))
    metrics = {"mAP": sum(values) / max(divisor, 1), "top1": 100 * float(best.float().mean())}
    treated = "count as 0" if protocol == "paper" else "are left out of the mean"
    return Scores(
        metrics, per_class, notes=[f"{without} of {len(classes)} classes have no positive and {treated}"] if without else []
    )


def retrieval(
    queries: Tensor,
    gallery: Tensor,
    owners: Tensor,
    *,
    names: tuple[str, str],
    ks: Sequence[int] = (1, 5, 10),
    protocol: Protocol = "default",
) -> Scores:
    """R@k both ways between queries [n, E] and a gallery [m, E]; gallery row j belongs to query `owners[j]`.

    A query is answered when any of its rows is among the k best; a gallery row when its query is. Neither needs to come
    normalised: the queries are, and the gallery is unless the protocol is "paper" (which ranks queries' answers by a dot product
    and leaves the other way as it is).
    """
    hit_rate = needed("torchmetrics.functional.retrieval").retrieval_hit_rate
    gallery = gallery if protocol == "paper" else F.normalize(gallery, dim=-1)
    scores = F.normalize(queries, dim=-1) @ gallery.T
    belongs = torch.arange(len(queries))[:, None] == owners
    notes = []
    metrics: dict[str, float] = {}
    for (asked, searched), table, truth in (((0, 1), scores, belongs), ((1, 0), scores.T, belongs.T)):
        for k in ks:
            if k > table.shape[1]:
                notes.append(f"R@{k} {names[asked]} to {names[searched]} left out: only {table.shape[1]} to choose from")
                continue
            hits = sum(float(hit_rate(row, right, top_k=k)) for row, right in zip(table, truth, strict=True))
            metrics[f"{names[asked]}_to_{names[searched]}_r@{k}"] = 100 * hits / max(len(table), 1)
    return Scores(metrics, notes=notes)
