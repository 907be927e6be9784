"""What a run found, as JSON with all that is needed to know what was measured; and beside the numbers that others published."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vitlens.benchmarks.datasets import DatasetCard
from vitlens.disk import write_csv, write_text
from vitlens.errors import InputError

FORMAT = 1
PACKAGES = ("vitlens", "torch", "torchvision", "torchaudio", "timm", "open_clip_torch", "numpy", "torchmetrics", "scikit-learn")
DIGITS = 4
NUMBERS = re.compile(r"\[\n[\s\d,]+\]")
"""A list of whole numbers, which goes on one line: a confusion matrix has many."""


@dataclass
class Measurement:
    """One model on one dataset. Scores are in percent; `run` holds what differs between runs that found the same."""

    dataset: dict[str, Any]
    """name, title, version, split, task, modality, licence, items, expected_items (of a complete copy), limit."""
    model: dict[str, Any]
    """name, space, dim, weights: modality of each tower that was used -> hash of its weights."""
    task: str
    """"zero-shot", "linear-probe" or "few-shot"."""
    protocol: str
    settings: dict[str, Any]
    """seed, shots, training splits, prompt templates and where they are from, dtype."""
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: dict[str, Any] | None
    """classes and counts [c][c]; rows are the true classes."""
    skipped: list[dict[str, str]]
    notes: list[str]
    published: list[dict[str, Any]]
    """model, metric, value, delta (ours minus theirs), source, protocol."""
    environment: dict[str, Any]
    """device and versions."""
    run: dict[str, Any] = field(default_factory=dict)
    """seconds, embeddings computed, processes."""
    format: int = FORMAT

    @property
    def differs(self) -> list[str]:
        """What makes this run another than the one that others report; empty where it is comparable."""
        found = []
        dataset, expected = self.dataset, self.dataset["expected_items"]
        if dataset["limit"]:
            found.append(f"{dataset['items']} items only (--limit)")
        elif expected and dataset["items"] != expected:
            found.append(f"{dataset['items']} of {expected} items")
        if self.skipped:
            found.append(f"{len(self.skipped)} items skipped")
        if self.settings.get("prompts", {}).get("from", "the dataset") != "the dataset":
            found.append("own prompts")
        return found

    @property
    def slug(self) -> str:
        """A name for files: other settings give another."""
        dataset, settings = self.dataset, self.settings
        parts = [dataset["name"], dataset["split"], self.model["name"], self.task, self.protocol]
        parts += [f"{settings['shots']}shots"] if settings.get("shots") else []
        parts += [f"limit{dataset['limit']}"] if dataset["limit"] else []
        own = settings.get("prompts", {})
        parts += [f"prompts-{own['hash'][:8]}"] if own.get("from", "the dataset") != "the dataset" else []
        return "_".join(re.sub(r"[^\w.-]+", "-", str(part)).strip("-.") for part in parts)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types, values rounded to four digits."""
        values = asdict(self)
        for key in ("metrics", "per_class", "published"):
            values[key] = _rounded(values[key])
        return {"format": values.pop("format"), **values, "differs": self.differs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """The inverse of `to_dict`, for results of this format."""
        return cls(**{key: value for key, value in values.items() if key != "differs"})

    def write(self, output: Path) -> Path:
        """Write `output`/<slug>/: result.json, per_class.csv, skipped.csv, confusion.png; returns the folder."""
        from vitlens.benchmarks.evaluation.confusion import draw_confusion

        folder = output / self.slug
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        write_text(folder / "result.json", NUMBERS.sub(lambda row: " ".join(row[0].split()), text) + "\n")
        columns = list(dict.fromkeys(key for row in self.per_class.values() for key in row))
        rows = [{"class": name, **_rounded(values)} for name, values in self.per_class.items()]
        write_csv(folder / "per_class.csv", rows, ["class", *columns])
        write_csv(folder / "skipped.csv", self.skipped, ["item", "file", "reason"])
        picture = folder / "confusion.png"
        if self.confusion:
            draw_confusion(self.confusion["classes"], self.confusion["counts"], picture, title=self.title)
        else:
            picture.unlink(missing_ok=True)
        return folder

    @property
    def task_name(self) -> str:
        """The task, few-shot with its number."""
        return f"{self.settings['shots']}-shot" if self.settings.get("shots") else self.task

    @property
    def title(self) -> str:
        """A line for people."""
        return f"{self.dataset['title']} ({self.dataset['split']}), {self.model['name']}, {self.task_name}"


def read_results(output: Path) -> list[Measurement]:
    """All results under `output`, by folder name.

    Raises:
        InputError: a result.json that is not one of ours.
    """
    return [_read(path) for path in sorted(output.glob("*/result.json"))]


def _read(path: Path) -> Measurement:
    accepted = f"a result.json of format {FORMAT} written by `vitlens eval`"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise InputError(str(path), f"format {values['format']}", accepted)
        return Measurement.from_dict(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(path), f"{type(error).__name__}: {error}", accepted) from error


def beside_published(card: DatasetCard, split: str, metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """The published scores of a split and of metrics that were measured, each with the difference of ours to it."""
    return [
        {
            "model": own.model,
            "metric": own.metric,
            "value": own.value,
            "delta": metrics[own.metric] - own.value,
            "source": own.source,
            "protocol": own.protocol,
        }
        for own in card.published
        if own.split == split and own.metric in metrics
    ]


def versions() -> dict[str, str]:
    """Python, and the packages that have a say in the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(own) for key, own in value.items()}
    return [_rounded(own) for own in value] if isinstance(value, list) else value
