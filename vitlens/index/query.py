"""What an index is asked, and what it answers: weighted terms of any modality, calibrated scores, hits.

Embeddings of one modality crowd in a cone of their own, so that plain cosines of a sound to pictures and of the same sound to
point clouds are not on one scale. Calibration by centring takes from every embedding, of the query and of the index, the mean of
its modality's rows in the index; scores are cosines of what is left. Means of few rows are shrunk towards nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError, SpaceError
from vitlens.index.storage import Storage
from vitlens.vectors import unit

CALIBRATIONS = ("center", "none")


@dataclass(frozen=True)
class Term:
    """A part of a query: an embedding [E] of a modality and its weight; below 0 it leads away."""

    vector: np.ndarray
    modality: str
    weight: float = 1.0
    label: str = ""


@dataclass(frozen=True)
class Hit:
    """A row that was found. `score` is what it is ranked by, `cosine` the plain one."""

    rank: int
    score: float
    cosine: float
    modality: str
    source: str
    file: str | None
    licence: str | None
    key: str
    options: str
    columns: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "score": round(self.score, 6), "cosine": round(self.cosine, 6)}


@dataclass(frozen=True)
class Answer:
    """Hits, best first; how their scores were calibrated, in words; whether every row was looked at."""

    hits: tuple[Hit, ...]
    calibration: str
    exact: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        hits = [hit.to_dict() for hit in self.hits]
        return {"hits": hits, "calibration": self.calibration, "exact": self.exact, "seconds": round(self.seconds, 4)}


@dataclass(frozen=True)
class Cone:
    """Where the embeddings of a modality crowd: their mean [w], as far as `rows` of them tell."""

    rows: int
    mean: np.ndarray

    @classmethod
    def of(cls, rows: int, vectors: np.ndarray) -> Cone:
        """The cone of `rows` rows, by the unit vectors [n, w] of some of them.

        The mean is shrunk by how much of its length is chance: of n unit vectors without a common direction it has length
        n ** -0.5.
        """
        mean, count = vectors.mean(axis=0), len(vectors)
        squared = float(mean @ mean)
        common = max((count * squared - 1) / (count - 1), 0.0) if count > 1 else 0.0
        return cls(rows, mean * (common / squared if squared > 1e-12 else 0.0))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"rows": self.rows, "mean": [round(float(value), 7) for value in self.mean]}


Cones = Mapping[str, Cone]
"""Modality -> where its embeddings crowd."""


@dataclass(frozen=True)
class Query:
    """Terms in the values that rows are scored by: composed plainly, and composed of centred terms."""

    plain: np.ndarray
    centred: np.ndarray

    @classmethod
    def of(cls, terms: Sequence[Term], storage: Storage, cones: Cones) -> Query:
        """The terms made one query.

        Raises:
            OptionError: no terms, or terms that cancel out; weights that are none.
            SpaceError: vectors of another width.
        """
        if not terms:
            raise OptionError("nothing to look for: a query needs at least one term")
        vectors = np.stack([_vector(term, storage) for term in terms])
        weights = np.array([checks.number("weight", term.weight) for term in terms], np.float32)
        scored = storage.to_scored(vectors)
        means = np.stack([cones[t.modality].mean if t.modality in cones else np.zeros(scored.shape[1]) for t in terms])
        return cls(_mixed(scored, weights), _mixed(unit(scored - means), weights))


def _vector(term: Term, storage: Storage) -> np.ndarray:
    vector = np.asarray(term.vector, np.float32)
    if vector.shape != (storage.dim,):
        raise SpaceError(f"a query of shape {list(vector.shape)}: the index has embeddings [{storage.dim}]")
    if not np.isfinite(vector).all() or not float(np.linalg.norm(vector)) > 1e-12:
        raise OptionError("a query with values that are not finite, or of length 0, finds nothing")
    return vector


def _mixed(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights @ vectors
    if not math.isfinite(float(np.linalg.norm(total))) or float(np.linalg.norm(total)) < 1e-6:
        raise OptionError("the terms of the query cancel out")
    return unit(total)


def calibration_in_words(calibrate: str, terms: Sequence[Term], cones: Cones) -> str:
    """What scores mean."""
    if calibrate == "none":
        return "plain cosines, not calibrated: those of different modalities are not on one scale"
    found = ", ".join(f"{name} ({cone.rows} rows)" for name, cone in cones.items())
    strange = sorted({term.modality for term in terms} - set(cones))
    more = f"; the query's {', '.join(strange)} not centred: the index has no rows of it" if strange else ""
    return f"cosines centred by the mean of each modality in the index: {found}{more}"
