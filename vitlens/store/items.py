"""What a job works on: items with their read options, and the inputs that gave no embedding.

Names may be file names that are no UTF-8; they stand in strings as Python has them (surrogateescape) and leave as the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitlens.errors import InputError, OptionError
from vitlens.sources import name_of
from vitlens.store.blobs import Blob


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to embed: its name as the user wrote it, where it is, and the read options of its own."""

    row: int
    """Position among the inputs; of a manifest, its row. Both count from 0."""
    name: str
    modality: str
    source: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else a manifest says of it, where that was asked for."""

    @property
    def value(self) -> Any:
        """The item as `Modality.load` takes it; what is no local file is opened."""
        source = self.source.open() if isinstance(self.source, Blob) else self.source
        return {"source": source, **self.options} if self.options else source


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that gave no embedding: what was found, and what is accepted instead (empty where `found` says all)."""

    row: int
    name: str
    modality: str
    found: str
    accepted: str = ""

    @classmethod
    def of(cls, row: int, name: str, modality: str, error: InputError | OptionError) -> Failure:
        """What `error` says of an input, in one line and without its name."""
        parts = (error.found, error.accepted) if isinstance(error, InputError) else (str(error),)
        return cls(row, name, modality, *(" ".join(part.split()) for part in parts))

    @property
    def error(self) -> str:
        """Why there is no embedding."""
        return f"{self.found}. Accepted: {self.accepted}" if self.accepted else self.found

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON types."""
        return {"row": self.row, "item": self.name, "modality": self.modality, "error": self.error}

    def to_error(self, accepted: str) -> InputError:
        """The failure for a command that cannot do without this input; `accepted` where the failure does not say it."""
        return InputError(self.name, self.found, self.accepted or accepted)


@dataclass(frozen=True)
class Inputs:
    """What a command line named: items in order, inputs known to be bad, and remarks for the user."""

    items: tuple[Item, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def by_modality(self) -> dict[str, list[Item]]:
        """Items of each modality in input order; modalities in order of their first item."""
        groups: dict[str, list[Item]] = {}
        for item in self.items:
            groups.setdefault(item.modality, []).append(item)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        items = [{"row": i.row, "item": i.name, "modality": i.modality, "read_options": dict(i.options)} for i in self.items]
        counts = {modality: len(items) for modality, items in self.by_modality().items()}
        return {"counts": counts, "items": items, "errors": [failure.to_dict() for failure in self.failures]}


def source_name(item: Any) -> str:
    """The file (or what else) an item is, as `Modality.load` takes it."""
    return name_of(item["source"] if isinstance(item, Mapping) and "source" in item else item)
