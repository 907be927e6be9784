"""Which channels of an EEG recording become those of a model: by name and place, and spherical splines for those it lacks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from vitlens.modalities.eeg_head import NOT_EEG, Electrode, Head, Where, identified
from vitlens.modalities.eeg_places import metres_between, numbered, plain
from vitlens.modalities.eeg_splines import spline_weights
from vitlens.sources import Source

ACCEPTED = (
    "an EEG recording (edf, bdf, fif, set, cnt, BrainVision by its vhdr), or an npy/npz file, array or tensor "
    "[channels, samples] with rate= in hertz and unit= 'V', 'mV', 'uV' or 'standardized'"
)
MODELS_ORDER = "model"
"""What `channels` of a reading is where they are the model's channels in its order."""
LEAST, FARTHEST = 8, 0.06
"""Electrodes that others are made of, and metres from the nearest of them: less is refused unless somebody insists."""
SAME = 0.005
"""Metres within which an electrode of another name, or of none, sits at a model's place."""


class Picked(NamedTuple):
    """What a recording's channels become: the `weights` of its channels `rows`, or these as they are."""

    rows: list[int]
    names: list[str]
    """Of the rows."""
    weights: np.ndarray | None = None
    """[model's channels, rows]."""
    made: Sequence[str] = ()
    """The model's channels that were not measured."""
    farthest: tuple[str, float] = ("", 0.0)
    """Of them the one that is farthest from an electrode, and how far: metres along the scalp."""
    remarks: Sequence[str] = ()

    def apply(self, data: np.ndarray) -> np.ndarray:
        """The model's channels, float32 [channels, samples], of what the rows hold."""
        return data if self.weights is None else np.matmul(self.weights.astype(np.float32), data)

    def facts(self) -> dict[str, Any]:
        """What was measured and what made, as JSON types; empty where nothing was made."""
        if self.weights is None:
            return {}
        (name, far), measured = self.farthest, len(self.weights) - len(self.made)
        facts = {"measured": measured, "made": list(self.made), "electrodes": len(self.rows)}
        return {**facts, "farthest": name, "farthest_cm": round(100 * far, 1)}


def in_words(facts: Mapping[str, Any]) -> str:
    """The `facts` of what was picked."""
    made, total = len(facts["made"]), len(facts["made"]) + facts["measured"]
    found = (
        f"{facts['measured']} of {total} channels measured, {made} made of {facts['electrodes']} electrodes by spherical splines"
    )
    return f"{found}; the farthest, {facts['farthest']}, is {facts['farthest_cm']:g} cm from one"


class Montage(NamedTuple):
    """The channels a model takes: how many, and which in which order (None: whatever the recording has)."""

    channels: int | None
    """None: any number of them."""
    names: Sequence[str] | None
    places: tuple[tuple[float, ...], ...] | None = None
    """Directions of the electrodes from the head's centre, of names that no system knows."""

    def pick(self, electrodes: Sequence[Electrode], source: Source, where: Where, *, sparse: bool) -> Picked:
        """Where this montage's channels are among `electrodes`, or of which and how they are made.

        `where` says where the electrodes are, see `Head`. With `sparse` few or far ones will do.

        Raises:
            InputError: some are missing and cannot be made, or not unique; without names of its own: another number.
            OptionError: an unknown montage in `where`.
        """
        if self.names is None:
            rows = self._in_order([one.name for one in electrodes], source)
            return Picked(rows, [electrodes[row].name for row in rows])
        there = self._all_there(electrodes) if where is None else None
        if there is not None:
            return Picked(there, [electrodes[row].name for row in there])
        own, targets = _targets(tuple(self.names), self.places)
        return _Matching(self.names, targets, electrodes, Head.of(electrodes, own, where), source).picked(sparse)

    def _all_there(self, electrodes: Sequence[Electrode]) -> list[int] | None:
        """The rows of a recording that has all channels under their names: no place need be known."""
        known = {plain(one.name): i for i, one in enumerate(electrodes) if not one.bad}
        wanted = list(map(plain, self.names or ()))
        alone = len(known) == len(electrodes) and all(name in known for name in wanted)
        return [known[name] for name in wanted] if alone and numbered(list(known)) == numbered(wanted) else None

    def _in_order(self, names: Sequence[str], source: Source) -> list[int]:
        """The EEG's channels in the file's order."""
        found = [i for i, name in enumerate(names) if not NOT_EEG.match(plain(name))]
        if not found or self.channels not in (None, len(found)):
            advice = f"{self.channels or 'some'} channels, or say which with the option names=[...]"
            raise source.refuse(f"{len(found)} EEG channels ({listed([names[i] for i in found], 8) or 'none'})", advice)
        return found


class Picking(NamedTuple):
    """What a reading wants of a recording's channels, and what it is told of them."""

    montage: Montage
    channels: Sequence[str] | str | None = None
    """What the channels are called; MODELS_ORDER: as the model's."""
    bads: Sequence[str] = ()
    """Channels that count as missing."""
    where: Where = None
    sparse: bool = False

    def called(self, rows: int, source: Source) -> list[str] | None:
        """Names of as many `rows`, if the reading was told any.

        Raises:
            InputError: another number of names.
        """
        names = self.channels
        if names is None:
            return None
        if names == MODELS_ORDER:
            names, takes = self.montage.names, self.montage.channels
            if takes is not None and rows != takes:
                raise source.refuse(f"{rows} channels, but channels='{MODELS_ORDER}' and a model that takes {takes} channels")
            if names is None:
                return None
        if isinstance(names, str) or len(names) != rows or not all(isinstance(name, str) for name in names):
            raise source.refuse(f"{rows} rows, but channels={names!r:.80}", "one name per row")
        return list(names)

    def __call__(self, electrodes: Sequence[Electrode], source: Source) -> Picked:
        bads = set(map(plain, self.bads))
        electrodes = [one._replace(bad=one.bad or plain(one.name) in bads) for one in electrodes]
        found = self.montage.pick(electrodes, source, self.where, sparse=self.sparse)
        if strange := bads - {plain(one.name) for one in electrodes}:
            found = found._replace(remarks=[*found.remarks, f"no channel is called as bads= says: {listed(sorted(strange), 8)}"])
        return found


@dataclass
class _Matching:
    """A model's channels and a recording's."""

    names: Sequence[str]
    targets: Sequence[tuple[str | None, np.ndarray | None]]
    electrodes: Sequence[Electrode]
    head: Head
    source: Source

    def picked(self, sparse: bool) -> Picked:
        rows = self._by_name()
        self._by_place(rows)
        missing = [i for i, row in enumerate(rows) if row is None]
        if not missing:
            return self._result([row for row in rows if row is not None])
        usable = self._usable()
        if unplaced := [i for i in missing if self.targets[i][1] is None]:
            raise self._lacks(unplaced)
        return self._made(rows, missing, usable, sparse)

    def _by_name(self) -> list[int | None]:
        """Of each channel of the model the one of the same identity.

        Raises:
            InputError: there are several.
        """
        known: dict[str, list[int]] = {}
        for i, identity in enumerate(self.head.identities):
            if identity is not None and not self.electrodes[i].bad:
                known.setdefault(identity, []).append(i)
        found = [known.get(identity, []) if identity is not None else [] for identity, _ in self.targets]
        if doubled := [self.names[i] for i, some in enumerate(found) if len(some) > 1]:
            raise self.source.refuse(f"more than one channel {listed(doubled, 8)}")
        return [some[0] if some else None for some in found]

    def _by_place(self, rows: list[int | None]) -> None:
        """Fill in the electrodes that sit where a channel of the model does, each once."""
        missing = [i for i, row in enumerate(rows) if row is None and self.targets[i][1] is not None]
        free = [i for i in self._usable() if i not in rows]
        if not missing or not free:
            return
        apart = self._apart(missing, free)
        for _ in range(min(apart.shape)):
            target, electrode = np.unravel_index(apart.argmin(), apart.shape)
            if apart[target, electrode] > SAME:
                return
            rows[missing[target]] = free[electrode]
            apart[target], apart[:, electrode] = np.inf, np.inf

    def _usable(self) -> list[int]:
        """Electrodes that others can be made of."""
        without = {*self.head.beside, *self.head.bipolar}
        placed = [i for i, place in enumerate(self.head.places) if place is not None and i not in without]
        return [i for i in placed if self.electrodes[i].scalp and not self.electrodes[i].bad]

    def _apart(self, targets: Sequence[int], electrodes: Sequence[int]) -> np.ndarray:
        """Metres [targets, electrodes]."""
        wanted = np.array([self.targets[i][1] for i in targets])
        given = np.array([self.head.places[i] for i in electrodes])
        return metres_between(wanted[:, None], given[None])

    def _made(self, rows: Sequence[int | None], missing: Sequence[int], usable: list[int], sparse: bool) -> Picked:
        """The channels of the model that were measured, and splines for the others.

        Raises:
            InputError: electrodes too few, or too far away.
        """
        if not usable or (len(usable) < LEAST and not sparse):
            raise self._too_few(usable, len(missing))
        nearest = self._apart(missing, usable).min(axis=1)
        far = int(nearest.argmax())
        farthest = self.names[missing[far]], float(nearest[far])
        if farthest[1] > FARTHEST and not sparse:
            count, most = int((nearest > FARTHEST).sum()), f"{100 * FARTHEST:g} cm"
            found = f"{len(usable)} electrodes, and {count} of the model's channels farther than {most} from any of them"
            raise self.source.refuse(f"{found} (the farthest, {farthest[0]}: {100 * farthest[1]:.1f} cm)", INSIST)
        used = [*usable, *sorted({row for row in rows if row is not None} - set(usable))]
        weights = np.zeros((len(rows), len(used)))
        wanted = np.array([self.targets[i][1] for i in missing])
        weights[missing, : len(usable)] = spline_weights(np.array([self.head.places[i] for i in usable]), wanted)
        for target, row in enumerate(rows):
            if row is not None:
                weights[target, used.index(row)] = 1.0
        made = [self.names[i] for i in missing]
        return self._result(used)._replace(weights=weights, made=made, farthest=farthest, remarks=self._remarks(used))

    def _result(self, rows: list[int]) -> Picked:
        return Picked(rows, [self.electrodes[row].name for row in rows])

    def _remarks(self, used: Sequence[int]) -> list[str]:
        """What is to be said of channels that were left out, and of places."""
        left = [i for i, one in enumerate(self.electrodes) if one.scalp and i not in used and i not in self.head.beside]
        kinds = {
            "bad": [i for i in left if self.electrodes[i].bad],
            "differences of two electrodes": [i for i in left if i in self.head.bipolar],
            "at no known place": [i for i in left if self.head.places[i] is None and i not in self.head.bipolar],
        }
        said = [f"left out, {why}: {self._listed(some)}" for why, some in kinds.items() if some]
        return [*self.head.remarks, *said]

    def _listed(self, places: Sequence[int]) -> str:
        return listed([self.electrodes[i].name for i in places], 8)

    def _too_few(self, usable: Sequence[int], missing: int) -> Exception:
        head = self.head
        counted = {*usable, *head.bipolar, *head.beside}
        others = [i for i, one in enumerate(self.electrodes) if one.scalp and i not in counted]
        parts = [
            f"{len(usable)} electrodes at known places" + (f" ({self._listed(usable)})" if usable else ""),
            *([f"{len(head.bipolar)} differences of two electrodes ({self._listed(head.bipolar)})"] if head.bipolar else []),
            *([f"{len(others)} channels bad or at no known place ({self._listed(others)})"] if others else []),
        ]
        found = f"{', '.join(parts)}: too few to make {missing} channels of the model"
        return self.source.refuse(found, INSIST if usable else WHERE)

    def _lacks(self, missing: Sequence[int]) -> Exception:
        names = [one.name for one in self.electrodes]
        lacking = listed([_with_close_matches(self.names[i], names) for i in missing], 12)
        return self.source.refuse(f"no channel {lacking}", "a place on the head that is not known cannot be interpolated")


@lru_cache(maxsize=8)
def _targets(
    names: tuple[str, ...], places: tuple[tuple[float, ...], ...] | None
) -> tuple[dict[str, np.ndarray], list[tuple[str | None, np.ndarray | None]]]:
    """The places of a model's own names, and identity and place of each of its channels."""
    called = list(map(plain, names))
    own = {} if places is None else dict(zip(called, np.array(places), strict=True))
    return own, identified(called, own)[0]


INSIST = (
    f"{LEAST} electrodes or more, none of the model's channels farther than {100 * FARTHEST:g} cm from one; sparse=True insists"
)
WHERE = (
    "names of the 10-05 system, BioSemi's A1 ... D32, EGI's E1 ... E128, positions in the file, montage= (one of MNE's, or "
    "positions by name), or channels= (what they are called)"
)


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _with_close_matches(name: str, names: Sequence[str]) -> str:
    by_plain = {plain(other): other for other in names}
    close = difflib.get_close_matches(plain(name), by_plain, n=2)
    return f"{name} (close: {', '.join(by_plain[match] for match in close)})" if close else name
