"""One model on one dataset: find the data, say what is wrong with it, embed, score, and put it all into a Measurement.

result = evaluate(vitlens.load("vitlens-l"), "esc50", "/data", Settings(protocol="paper"))
result.metrics["top1"]
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from vitlens import checks
from vitlens.batches import Workers
from vitlens.benchmarks.datasets import Dataset, DatasetItem, get_dataset
from vitlens.benchmarks.evaluation import probe
from vitlens.benchmarks.evaluation.metrics import Scores, checked_protocol
from vitlens.benchmarks.evaluation.results import Measurement, beside_published, versions
from vitlens.benchmarks.evaluation.tasks import Scorer, Work, evaluator
from vitlens.errors import InputError, OptionError
from vitlens.model import ViTLens
from vitlens.precision import AUTO, PRECISIONS
from vitlens.processes import from_main, world
from vitlens.store.engine import Engine, Progress
from vitlens.store.store import EmbeddingStore, OnError, default_folder

Task = Literal["zero-shot", "linear-probe", "few-shot"]
TASKS: tuple[str, ...] = get_args(Task)


@dataclass(frozen=True)
class Settings:
    """How to evaluate."""

    task: str = "zero-shot"
    protocol: str = "default"
    split: str | None = None
    """Default: the dataset's own."""
    templates: tuple[str, ...] | None = None
    """Prompt templates instead of the dataset's, each with one `{}`."""
    templates_from: str = "the caller"
    train_splits: tuple[str, ...] = ()
    """Of a probe; default: "train", or the other folds."""
    shots: int = 16
    draws: int = 5
    """How often few-shot draws its training items."""
    seed: int = 0
    """Of what a probe draws; zero-shot is not random."""
    limit: int | None = None
    """Only so many items, evenly from the whole split."""
    on_error: str = "raise"
    """"skip" goes on without items that cannot be read and with an incomplete dataset, and says so in the result."""
    batch_size: int = 32
    num_workers: Workers = "auto"
    dtype: str = "fp32"
    cache: Path | None = None
    """Folder of embeddings; default: `vitlens/embeddings` in the user's cache folder, or in VITLENS_CACHE."""

    def __post_init__(self) -> None:
        checked_protocol(self.protocol)
        for name, allowed in (("task", TASKS), ("on_error", ("raise", "skip")), ("dtype", (*PRECISIONS, AUTO))):
            checks.one_of(name, getattr(self, name), allowed)
        for name in ("shots", "draws", "limit", "batch_size"):
            if name != "limit" or self.limit is not None:
                checks.whole(name, getattr(self, name), least=1)


@dataclass(frozen=True)
class Found:
    """A dataset on this machine."""

    dataset: Dataset
    root: Path
    split: str
    items: list[DatasetItem]
    """What is to be evaluated."""
    there: int
    """Items of the split before `limit`."""
    notes: list[str]

    @property
    def expected(self) -> int | None:
        """Items that a complete copy of the split has."""
        return self.dataset.card.splits[self.split]


def root_of(dataset: Dataset, data_root: str | os.PathLike[str] | None) -> Path:
    """The dataset's folder: in `data_root` the one of its name (ESC-50 is esc50), or of the name that its layout shows, if the
    data is there; else `data_root` itself.

    Raises:
        InputError: no such folder.
        OptionError: none given, and VITLENS_DATA is not set.
    """
    card = dataset.card
    chosen = data_root or os.environ.get("VITLENS_DATA")
    if not chosen:
        raise OptionError(f"{card.name}: say where the data is with --data-root FOLDER or the environment variable VITLENS_DATA")
    root = Path(chosen).expanduser()
    if root.is_dir():
        own = _inside(root, card.name) or root
        shown = _inside(own, card.folder) if card.folder else None
        return shown if shown and _problems(dataset, shown) < _problems(dataset, own) else own
    found = "a file" if root.exists() else "no such folder"
    raise InputError(str(root), found, f"a folder with the folder {card.name} in it, or {card.title} itself ({card.source})")


def _inside(folder: Path, name: str) -> Path | None:
    """The folder in `folder` that is called so, whatever its case and signs."""
    found = sorted(path for path in folder.iterdir() if _plain(path.name) == _plain(name) and path.is_dir())
    return found[0] if found else None


def _problems(dataset: Dataset, root: Path) -> int:
    """How much of a dataset is missing there; damaged files are there."""
    try:
        return len(dataset.check(root))
    except InputError:
        return 0


def _plain(name: str) -> str:
    """A name without its case and signs: ESC-50 is esc50."""
    return "".join(sign for sign in name.lower() if sign.isalnum())


def find(dataset: Dataset, data_root: str | os.PathLike[str] | None, settings: Settings) -> Found:
    """Look at a dataset on this machine and list the items to evaluate; nothing is decoded.

    Raises:
        InputError: a wrong folder, an incomplete copy (unless errors are skipped), a damaged list.
        OptionError: no such split.
    """
    card, split = dataset.card, dataset.checked(settings.split or dataset.card.default_split)
    root = root_of(dataset, data_root)
    problems, notes = dataset.check(root), []
    if problems:
        first = problems[0]
        more = f"; {len(problems) - 1} more, see vitlens datasets {card.name} --data-root {root}" if problems[1:] else ""
        if settings.on_error == "raise":
            raise InputError(first.path, f"not there, or not as in a complete copy of {card.title}{more}", first.expected)
        notes.append(f"incomplete copy: {first.path}: expected {first.expected}{more}")
    items = list(dataset.items(root, split))
    expected = card.splits[split]
    if not items or (expected and len(items) < expected):
        if settings.on_error == "raise" or not items:
            accepted = f"all {expected or ''} items of {card.name}/{split}".replace("  ", " ")
            raise InputError(str(root), f"{len(items)} items", f"{accepted}; --on-error skip evaluates what is there and says so")
        notes.append(f"incomplete copy: {len(items)} of {expected} items")
    return Found(dataset, root, split, spread(items, settings.limit), len(items), notes)


def spread(items: Sequence[DatasetItem], limit: int | None) -> list[DatasetItem]:
    """`limit` items, evenly from all: lists are often in the order of classes."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[(2 * place + 1) * len(items) // (2 * limit)] for place in range(limit)]


def evaluate(
    model: ViTLens,
    dataset: Dataset | str,
    data_root: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    *,
    model_name: str | None = None,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Measurement:
    """Evaluate a model on a dataset, in all processes that torchrun started.

    Raises:
        InputError: a wrong or incomplete folder, a label that is not in the class list, an item that cannot be read.
        OptionError: an option or a split that does not fit.
        ModalityError: the model does not have the dataset's modality, or no text tower.
        MissingDependencyError: torchmetrics or scikit-learn are not installed.
    """
    settings = settings or Settings()
    dataset = get_dataset(dataset) if isinstance(dataset, str) else dataset
    begun = time.monotonic()
    found = found or find(dataset, data_root, settings)
    check_model(model, dataset, settings)
    work = Work(
        dataset,
        found.split,
        found.items,
        EmbeddingStore(settings.cache or default_folder()),
        Engine(model, settings.batch_size, settings.num_workers, settings.dtype),
        templates_of(dataset, found.split, settings),
        checked_protocol(settings.protocol),
        cast(OnError, settings.on_error),
        progress if world()[0] == 0 else None,
    )
    scorer, own = _prepared(work, found, settings)
    scores = from_main(scorer() if world()[0] == 0 else Scores({}))
    for note in work.notes if world()[0] == 0 else ():
        warnings.warn(f"{work.where}: {note}", stacklevel=2)
    run = {
        "seconds": round(time.monotonic() - begun, 2),
        "embedded_by_this_process": work.store.computed,
        "processes": world()[1],
    }
    return _result(model, model_name or model.spec.name, found, settings, work, scores, own, run)


def check_model(model: ViTLens, dataset: Dataset, settings: Settings) -> None:
    """Whether the model has what a dataset needs.

    Raises:
        ModalityError: it has not.
    """
    card = dataset.card
    other = card.other_modality or "text"
    for modality in (card.modality, *((other,) if settings.task == "zero-shot" else ())):
        model.modality(modality)


def templates_of(dataset: Dataset, split: str, settings: Settings) -> tuple[str, ...]:
    """Prompt templates of a zero-shot classification; empty where no prompt is used."""
    if settings.task != "zero-shot" or dataset.card.task == "retrieval":
        return ()
    return settings.templates or dataset.prompts(split)


def _prepared(work: Work, found: Found, settings: Settings) -> tuple[Scorer, dict[str, Any]]:
    """The scorer, and the settings that had a part in it."""
    if settings.task == "zero-shot":
        own: dict[str, Any] = {}
        if work.templates:
            source = settings.templates_from if settings.templates else "the dataset"
            own = {"prompts": {"from": source, "count": len(work.templates), "hash": _hash(work.templates)}}
        return evaluator(work.dataset.card.task)(work), own
    work.collapsed = True
    parts = probe.parts_of(work.dataset, found.root, found.split, found.items, settings.train_splits)
    own = {"seed": settings.seed, "train_items": [len(train) for train, _ in parts]}
    if settings.task == "linear-probe":
        return probe.linear_probe(work, parts, seed=settings.seed), own
    scorer = probe.few_shot(work, parts, shots=settings.shots, draws=settings.draws, seed=settings.seed)
    return scorer, own | {"shots": settings.shots, "draws": settings.draws}


def _hash(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _result(
    model: ViTLens,
    name: str,
    found: Found,
    settings: Settings,
    work: Work,
    scores: Scores,
    own: Mapping[str, Any],
    run: dict[str, Any],
) -> Measurement:
    card = found.dataset.card
    described = {key: getattr(card, key) for key in ("name", "title", "version", "task", "modality", "licence")}
    confusion = None if scores.confusion is None else scores.confusion.tolist()
    notes = [*found.notes, *work.notes, *scores.notes]
    notes += [f"{len(work.skipped)} items were skipped, see skipped.csv"] if work.skipped else []
    return Measurement(
        dataset={
            **described,
            "split": found.split,
            "items": len(found.items),
            "expected_items": found.expected,
            "limit": settings.limit if len(found.items) < found.there else None,
        },
        model={
            "name": name,
            "space": model.space.name,
            "dim": model.space.dim,
            "weights": dict(sorted(work.engine.hashes.items())),
        },
        task=settings.task,
        protocol=settings.protocol,
        settings={"seed": settings.seed, "dtype": settings.dtype, "batch_size": settings.batch_size, **own},
        metrics=scores.metrics,
        per_class=scores.per_class,
        confusion=None if confusion is None else {"classes": list(scores.confusion_classes), "counts": confusion},
        skipped=[asdict(item) for item in work.skipped],
        notes=notes,
        published=beside_published(card, found.split, scores.metrics) if settings.task == "zero-shot" else [],
        environment={"device": _device(model.device), "versions": versions()},
        run={"root": str(found.root), **run},
    )


def _device(device: torch.device) -> str:
    return f"{device.type} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


@contextmanager
def torchrun() -> Iterator[None]:
    """Join the processes that torchrun started, and leave them at the end; alone it does nothing."""
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("gloo")  # what is exchanged are errors and scores, on the CPU
    try:
        yield
        dist.barrier()  # nobody takes the group down while another still speaks in it
    finally:
        dist.destroy_process_group()
