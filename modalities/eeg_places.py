"""Where on the head electrodes sit: directions from the centre of a sphere through the scalp, in MNE's head coordinates.

x points to the right ear, y to the nose, z up. Places come from MNE's standard montages: the 10-05 system by its names, BioSemi's
and EGI's numbered caps by theirs; or from positions that a file brings along.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError

RADIUS = 0.0986
"""Metres from the centre to the scalp of the head whose 10-05 places are taken."""
APART = 0.025
"""Metres by which positions of a file may differ from what its names say, on the median, before they are not believed."""
_CENTRE = np.array([0.0, 0.015, 0.039])
"""Metres: the sphere's centre in head coordinates, where positions are too few to find their own."""
_BIOSEMI = {1: ("biosemi16", "biosemi32"), 2: ("biosemi64",), 4: ("biosemi128",), 5: ("biosemi160",), 8: ("biosemi256",)}
"""Caps by the number of their connectors A, B, C ...; of the first, that of 16 electrodes and that of 32."""
_EGI = {32: "32", 64: "64_1.0", 65: "65_1.0", 128: "128", 129: "129", 256: "256", 257: "257"}


class Cap(NamedTuple):
    """A cap whose electrodes have numbers: its name, and for each channel what it is (None: not one of the cap)."""

    name: str
    electrodes: list[tuple[str, np.ndarray] | None]
    """Identity - the 10-05 name where the cap has one, else one of its own - and place."""


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A channel's name without case, dots, blanks, and what recorders add to it ("EEG Fp1.-REF", "POL C3-A1A2")."""
    name = re.sub(r"[.\s]", "", re.sub(r"^\s*(eeg|pol)[\s_:]+", "", name.lower()))
    head, _, tail = parted(name)
    return head if head and _REFERENCE.fullmatch(re.sub(r"[^a-z\d]", "", tail)) else name


def parted(name: str) -> tuple[str, str, str]:
    """A plain name's parts before and behind its dash."""
    found = re.fullmatch(r"(.+?)([-_/\u2013])(.+)", name)
    return (found[1], found[2], found[3]) if found else (name, "", "")


_REFERENCE = re.compile(r"ref\w*|le|lm|linked\w*|([am][12]){1,2}2?|av|avg|aver\w*|ar|car|org|gnd|common\w*")
"""What stands behind a dash and is a reference on the ears, of all electrodes, or of no name; no other electrode of the scalp."""


@cache
def ten_five() -> Mapping[str, np.ndarray]:
    """Directions of the 10-05 system by plain name, the names of 1958 among them."""
    return {name: place for name, place in zip(*_standard(_colin()), strict=True) if name not in EARS}


EARS = ("a1", "a2", "m1", "m2")
"""No places on the scalp's sphere."""
_MODERN = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
"""The same places in the 10-20 system of 1958 and in today's."""


def modern(name: str) -> str:
    """The plain name of an electrode as it is called today."""
    return _MODERN.get(name, name)


@cache
def positions() -> dict[str, np.ndarray]:
    """Metres [3] of the 10-05 system, by name as it is written, in the coordinates of the head it was measured on."""
    return dict(_montage(_colin()).get_positions()["ch_pos"])


@cache
def _colin() -> str:
    """What MNE calls the 10-05 system: it is renaming it."""
    import mne

    return "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"


def numbered(names: Sequence[str]) -> bool:
    """Whether plain names are of the kind A1 ... A32, B1 ... : "C3" is a number then, and no place of the 10-05 system."""
    found = [match for match in map(_CONNECTOR.fullmatch, names) if match]
    beyond = any(int(match[2]) > 10 or (match[1] == "a" and int(match[2]) > 2) for match in found)
    return beyond and 2 * len(found) >= len(names)


_CONNECTOR = re.compile(r"([a-i])0*([1-9]|[12]\d|3[0-2])")


def cap_of(names: Sequence[str]) -> Cap | None:
    """The numbered cap that plain names are of: BioSemi's A1 ... H32, EGI's E1 ... E257; None for others, and unknown ones."""
    return _egi(names) or (_biosemi(names) if numbered(names) else None)


def _biosemi(names: Sequence[str]) -> Cap | None:
    places = [match and (ord(match[1]) - ord("a"), int(match[2])) for match in map(_CONNECTOR.fullmatch, names)]
    given = [place for place in places if place]
    letters, most = {letter for letter, _ in given}, max(number for _, number in given)
    caps = _BIOSEMI.get(len(letters), ())
    if not caps or max(letters) >= len(letters) or (len(letters) > 1 and most <= 16):
        return None
    cap = caps[0] if most <= 16 else caps[-1]
    known, where = _standard(cap)
    rows = [32 * place[0] + place[1] - 1 if place else None for place in places]
    if 2 * len(given) < len(known) or max(row or 0 for row in rows) >= len(known):
        return None
    if cap in ("biosemi16", "biosemi32", "biosemi64"):  # their numbers stand for places of the 10-20 system
        return Cap(cap, [None if row is None else (known[row], ten_five()[known[row]]) for row in rows])
    return Cap(cap, [None if row is None else (f"{cap}:{known[row]}", where[row]) for row in rows])


def _egi(names: Sequence[str]) -> Cap | None:
    numbers = [int(match[1]) if (match := re.fullmatch(r"e0*(\d{1,3})", name)) else None for name in names]
    given = [number for number in numbers if number]
    size = next((size for size in _EGI if given and max(given) <= size), None)
    others = {name for name, number in zip(names, numbers, strict=True) if number is None}
    if size is None or len(given) < max(8, size / 2) or others - {"cz", "vref", "vertexreference"}:
        return None
    net = f"GSN-HydroCel-{_EGI[size]}"
    known = dict(zip(*_standard(net), strict=True))
    if size in (129, 257):
        known[f"e{size}"] = known["cz"]  # the reference at the vertex
    return Cap(net, [(f"{net}:e{number}", known[f"e{number}"]) if number else ("cz", ten_five()["cz"]) for number in numbers])


def _montage(name: str) -> Any:
    import mne

    with warnings.catch_warnings(), mne.use_log_level("ERROR"):
        warnings.simplefilter("ignore")
        return mne.channels.make_standard_montage(name)


@cache
def _standard(name: str) -> tuple[list[str], np.ndarray]:
    """Plain names and directions [n, 3] of a standard montage, turned so that its 10-05 places are those of the head."""
    names, directions = _in_head(_montage(name))
    if name == _colin():
        return names, directions
    tens = "biosemi64" if name.startswith("biosemi") else name
    theirs = (names, directions) if tens == name else _in_head(_montage(tens))
    turn = _turn(dict(zip(*theirs, strict=True)))
    return names, directions if turn is None else directions @ turn.T


def of_montage(montage: str | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Directions by plain name, of a standard montage of MNE or of positions by name in metres (head coordinates).

    Raises:
        OptionError: no such montage, or positions that are none.
    """
    import mne

    if isinstance(montage, str):
        checks.one_of("eeg: montage", montage, mne.channels.get_builtin_montages())
        return dict(zip(*_standard(montage), strict=True))
    given = checks.mapping("eeg: montage (a standard montage of MNE, or positions by name)", montage)
    metres = [checks.numbers(f"eeg: montage, {name} (x, y, z in metres)", place, 3) for name, place in given.items()]
    if not metres:
        raise OptionError("eeg: montage holds no electrode")
    return dict(zip(map(plain, given), directions_of(np.array(metres)), strict=True))


def _in_head(montage: Any) -> tuple[list[str], np.ndarray]:
    import mne

    with mne.use_log_level("ERROR"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without fiducials it is taken as it lies
        trans = mne.channels.compute_native_head_t(montage)["trans"]
    found = montage.get_positions()["ch_pos"]
    metres = np.array(list(found.values()), float) @ trans[:3, :3].T + trans[:3, 3]
    return [plain(name) for name in found], directions_of(metres)


def directions_of(metres: np.ndarray) -> np.ndarray:
    """Positions [n, 3] in head coordinates as directions from the centre of the sphere that fits them best."""
    distance = np.linalg.norm(metres, axis=1)
    if not 0.05 < distance.mean() < 0.2:  # of another unit
        metres = metres * (0.1 / max(float(distance.mean()), 1e-12))
        distance = np.linalg.norm(metres, axis=1)
    centre = _CENTRE
    if distance.std() < 0.02 * distance.mean():
        centre = np.zeros(3)  # they lie on a sphere already
    elif len(metres) >= 8:
        found, *_ = np.linalg.lstsq(np.c_[2 * metres, np.ones(len(metres))], distance**2, rcond=None)
        if 0.06 < np.sqrt(max(0.0, found[3] + found[:3] @ found[:3])) < 0.13:
            centre = found[:3]
    away = metres - centre
    return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)


def aligned(directions: Mapping[str, np.ndarray], names: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The rotation [3, 3] that brings directions to where `names` has them; one that changes nothing where too few are in both.

    None where they do not fit: positions of another head, unit or order.
    """
    turn = _turn(directions, names)
    if turn is None:
        return np.eye(3)
    off = [metres_between(turn @ place, names[name]) for name, place in directions.items() if name in names]
    return turn if np.median(off) < APART else None


def _turn(directions: Mapping[str, np.ndarray], onto: Mapping[str, np.ndarray] | None = None) -> np.ndarray | None:
    """The rotation that brings directions closest to those of the same name; None for fewer than four."""
    onto = ten_five() if onto is None else onto
    common = [name for name in directions if name in onto]
    if len(common) < 4:
        return None
    ours, theirs = (np.array([places[name] for name in common]) for places in (directions, onto))
    left, _, right = np.linalg.svd(theirs.T @ ours)
    return left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right


def metres_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far directions [..., 3] lie apart along the scalp, in metres."""
    return RADIUS * np.arccos((one * other).sum(-1).clip(-1, 1))
