"""Which channels of an EEG recording a model takes: by name, whatever order and spelling the recording has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from vitlens.sources import Source

ACCEPTED = (
    "an EEG recording (edf, bdf, fif, set, cnt, BrainVision by its vhdr), or an npy/npz file, array or tensor "
    "[channels, samples] with rate= in hertz and unit= 'V', 'mV', 'uV' or 'standardized'"
)

NOT_EEG = re.compile(
    r".*(eog|ecg|ekg|emg)|[hv]eo|[lr]oc(?![a-z\d])|e[12]-[am][12]|exg\d|plet|temp|erg\d|aux|sti|status|trig|misc|mark|event|annot"
    r"|photic|resp|flow|airflow|thor|abd|snor|chin|leg|gsr|pulse|spo2|sao2|acc"
)
"""Plain names of channels that lie beside the EEG, whatever kind their file says they are (BioSemi's EXG1, Plet, Temp, Erg1)."""
OLD_NAMES = {"t7": "t3", "t8": "t4", "p7": "t5", "p8": "t6", "t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
"""The same places in the 10-20 system of 1958 and in today's."""


class Montage(NamedTuple):
    """The channels a model takes: how many, and which in which order (None: whatever the recording has)."""

    channels: int | None
    """None: any number of them."""
    names: Sequence[str] | None

    def places(self, names: list[str], source: Source) -> list[int]:
        """Where this montage's channels are among `names`.

        Raises:
            InputError: some are missing (close matches are listed) or not unique; without names of its own: another number.
        """
        if self.names is None:
            found = [i for i, name in enumerate(names) if not NOT_EEG.match(plain(name))]
            if not found or self.channels not in (None, len(found)):
                listed = ", ".join(names[i] for i in found[:8]) + (", ..." if len(found) > 8 else "")
                advice = f"{self.channels or 'some'} channels, or say which with the option names=[...]"
                raise source.refuse(f"{len(found)} EEG channels ({listed or 'none'})", advice)
            return found
        known: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            known.setdefault(plain(name), []).append(i)
        found_by_name = [(name, known.get(plain(name), [])) for name in self.names]
        missing = [_with_close_matches(name, names) for name, found in found_by_name if not found]
        if missing:
            listed = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
            raise source.refuse(f"no channel {listed}", f"all {self.channels} channels of the model")
        doubled = [name for name, found in found_by_name if len(found) > 1]
        if doubled:
            raise source.refuse(f"more than one channel {', '.join(doubled[:8])}")
        return [found[0] for _, found in found_by_name]


def plain(name: str) -> str:
    """A channel's name without case, dots, blanks, and what EDF writers add to it ("EEG Fp1.-REF")."""
    name = re.sub(r"[.\s]", "", re.sub(r"^\s*eeg[\s_]+", "", name.lower()))
    return re.sub(r"-(ref|le)$", "", name)


def _with_close_matches(name: str, names: list[str]) -> str:
    by_plain = {plain(other): other for other in names}
    old = OLD_NAMES.get(plain(name), "")
    close = [old] if old in by_plain else difflib.get_close_matches(plain(name), by_plain, n=2)
    return f"{name} (close: {', '.join(by_plain[match] for match in close)})" if close else name
