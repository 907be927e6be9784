"""The electrodes of one recording: what each is called in the 10-05 system or on its cap, and where it sits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitlens.modalities import eeg_places as places
from vitlens.modalities.eeg_places import EARS, modern, parted, plain, ten_five

NOT_EEG = re.compile(
    r".*(eog|ecg|ekg|emg)|[hv]eo|[lr]oc(?![a-z\d])|e[12]-[am][12]|exg\d|plet|temp|erg|aux|sti|status|trig|misc|mark|event|annot"
    r"|photic|resp|flow|airflow|thor|abd|snor|chin|leg|gsr|pulse|spo2|sao2|acc"
)
"""Plain names of channels that lie beside the EEG, whatever kind their file says they are (BioSemi's EXG1, Plet, Temp, Erg1)."""
MISPLACED = 0.04
"""Metres from where its name says after which a position of a file is told of."""
_SHARED = 4
"""So many channels against one electrode have that as their reference."""


Where = str | Mapping[str, Any] | None
"""A standard montage of MNE, or positions by name in metres; None: what a recording says itself."""


class Electrode(NamedTuple):
    """A channel that a recording has."""

    name: str
    scalp: bool = True
    """Whether it measures the scalp's potential, by its file; one that is found by name may be of another kind."""
    bad: bool = False
    """Marked so in its file: it counts as missing."""
    position: np.ndarray | None = None
    """Metres [3] in head coordinates, of a file that says where it was."""


class Head(NamedTuple):
    """Of each electrode who it is and where, as far as known."""

    identities: list[str | None]
    places: list[np.ndarray | None]
    """Directions, see `eeg_places`."""
    beside: list[int]
    """Channels beside the EEG, and those on the ears."""
    bipolar: list[int]
    """Differences of two electrodes of the scalp."""
    remarks: list[str]

    @classmethod
    def of(cls, electrodes: Sequence[Electrode], own: Mapping[str, np.ndarray], montage: str | Mapping[str, Any] | None) -> Head:
        """Who the electrodes are, and where: as `montage` says, else their file, else their name.

        `own` are places of a model's own names.

        Raises:
            OptionError: no such `montage`.
        """
        names = [plain(one.name) for one in electrodes]
        beside = [i for i, name in enumerate(names) if NOT_EEG.match(name) or name in EARS[2:]]
        counted = [i for i, one in enumerate(electrodes) if one.scalp and i not in beside]
        known, cap = identified([names[i] for i in counted], own)
        if cap is None and not places.numbered([names[i] for i in counted]):
            beside += [i for i, name in enumerate(names) if name in EARS[:2]]
        who: list[tuple[str | None, np.ndarray | None]] = [_named(name, own) for name in names]
        for i, found in zip(counted, known, strict=True):
            who[i] = found
        remarks = [f"the channels' numbers are taken as those of the cap {cap} (MNE's montage)"] if cap else []
        identities, by_name = [one[0] for one in who], [one[1] for one in who]
        bipolar = [i for i in counted if identities[i] is None and _is_pair(names[i])]
        where, more = _placed(electrodes, names, identities, by_name, montage)
        return cls(identities, where, beside, bipolar, remarks + more)


def identified(
    names: Sequence[str], own: Mapping[str, np.ndarray]
) -> tuple[list[tuple[str | None, np.ndarray | None]], str | None]:
    """Identity and place of channels by their plain names, and the numbered cap that they are of.

    The identity is the 10-05 name, one of the cap's, or the plain name itself; None of a bipolar channel.
    """
    if all(name in own for name in names):
        return [(name, own[name]) for name in names], None
    if (cap := places.cap_of(names)) is not None:
        return [(None, None) if one is None else one for one in cap.electrodes], cap.name
    if places.numbered(names):  # of a cap that is not known: C3 is no place of the 10-20 system there
        return [(f"cap:{name}", None) for name in names], None
    shared = _shared_reference(names)
    return [_named(parted(name)[0] if shared and parted(name)[2] == shared else name, own) for name in names], None


def _named(name: str, own: Mapping[str, np.ndarray]) -> tuple[str | None, np.ndarray | None]:
    if name in own:
        return name, own[name]
    known = ten_five()
    head, dash, tail = parted(name)
    if (
        name not in known and dash == "-" and head in known and tail.isdigit()
    ):  # MNE's number of a second channel of the same name
        name = head
    name = modern(name)
    return (None, None) if _is_pair(name) else (name, known.get(name))


def _is_pair(name: str) -> bool:
    head, dash, tail = parted(name)
    return bool(dash) and head in ten_five() and tail in ten_five()


def _shared_reference(names: Sequence[str]) -> str | None:
    """What stands behind the dash of all names that have one before it which is an electrode."""
    tails = [tail for head, dash, tail in map(parted, names) if dash and head in ten_five() and not tail.isdigit()]
    return tails[0] if len(tails) >= _SHARED and len(set(tails)) == 1 else None


def _placed(
    electrodes: Sequence[Electrode],
    names: Sequence[str],
    identities: Sequence[str | None],
    by_name: Sequence[np.ndarray | None],
    montage: Where,
) -> tuple[list[np.ndarray | None], list[str]]:
    """The place of each electrode, and what is to be said of places."""
    where = list(by_name)
    if montage is not None:
        given = places.of_montage(montage)
        own = {i: given[name] for i, name in enumerate(names) if name in given}
    else:
        there = [i for i, one in enumerate(electrodes) if one.position is not None]
        metres = np.array([electrodes[i].position for i in there], float).reshape(-1, 3)
        own = dict(zip(there, places.directions_of(metres), strict=True)) if there else {}
    both = {identities[i] or "": place for i, place in own.items() if by_name[i] is not None}
    turn = places.aligned(both, {identities[i] or "": place for i, place in enumerate(by_name) if place is not None})
    if turn is None and montage is None:
        return where, ["its positions of electrodes do not fit their names; those of the names are taken"]
    for i, place in own.items():
        where[i] = place if turn is None else turn @ place
    off = [i for i in own if _apart(where[i], by_name[i]) > MISPLACED]
    if not off:
        return where, []
    listed = ", ".join(electrodes[i].name for i in off[:8]) + (f" and {len(off) - 8} more" if len(off) > 8 else "")
    return where, [f"{listed}: positioned more than {100 * MISPLACED:g} cm from where the name says"]


def _apart(place: np.ndarray | None, other: np.ndarray | None) -> float:
    """Metres; none where one of the two is not known."""
    return 0.0 if place is None or other is None else float(places.metres_between(place, other))
