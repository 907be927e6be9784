"""What the headers of EEG files say and MNE does not look at: how long a file is, where it pauses, which files it names."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitlens.modalities.companions import beside, inside
from vitlens.sources import Source, suffix_of

_NO_MARKERS = "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nDataFile=recording.eeg\n[Marker Infos]\n"


def check_complete(path: Path, source: Source) -> None:
    """Refuse what MNE would read silently as far as it goes: EDF, BDF and BrainVision files shorter than their headers say.

    Raises:
        InputError: also a Neuroscan file that is none, by its first bytes.
    """
    kind = suffix_of(path)
    if kind == "cnt":
        with path.open("rb") as file:
            first = file.read(4)
        if first in (b"RIFF", b"RF64"):
            raise source.refuse("an ANT Neuro (eeprobe) recording, not one of Neuroscan", "export it as edf or BrainVision")
        if first != b"Vers":  # "Version 3.0"
            raise source.refuse("no Neuroscan recording, by its first bytes", "export it as edf or BrainVision")
    if kind == "vhdr":
        there, stated = BrainVision(path, source).samples()
        found = f"a truncated recording: {there:g} samples of {stated:g} or more"
    else:
        header = EDFHeader.of(path)
        there, stated = (path.stat().st_size, header.total) if header else (0, 0)
        found = f"a truncated file: {there} of {stated} bytes"
    if there < stated:
        raise source.refuse(found)


class EDFHeader(NamedTuple):
    """The plan of an EDF or BDF file, as far as its sizes go: bytes, records of `seconds` each, samples a record by signal."""

    size: int
    records: int
    seconds: float
    labels: list[str]
    samples: list[int]
    width: int
    """Bytes a sample: 2 in EDF, 3 in BDF."""
    discontinuous: bool

    @classmethod
    def of(cls, path: Path) -> EDFHeader | None:
        """The header of a file; None for other files, and for one that is still being written (-1 records)."""
        width = {"edf": 2, "bdf": 3}.get(suffix_of(path))
        with path.open("rb") as file:
            head = file.read(256)
            fields = [head[184:192], head[236:244], head[252:256]]
            if width is None or not all(field.strip().isdigit() for field in fields):
                return None
            size, records, signals = map(int, fields)
            rest = file.read(256 * signals)
        counts = [rest[216 * signals + 8 * i : 216 * signals + 8 * i + 8].strip() for i in range(signals)]
        if not all(count.isdigit() for count in counts):
            return cls(size, 0, 0.0, [], [], width, False)
        labels = [rest[16 * i : 16 * i + 16].decode("latin-1").strip() for i in range(signals)]
        try:
            seconds = float(head[244:252])
        except ValueError:
            seconds = 0.0
        return cls(size, records, seconds, labels, list(map(int, counts)), width, head[192:197] in (b"EDF+D", b"BDF+D"))

    @property
    def record(self) -> int:
        """Bytes of one record."""
        return sum(self.samples) * self.width

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return self.size + self.records * self.record

    def onsets(self, path: Path) -> np.ndarray | None:
        """When each record begins, in seconds after the first (EDF+, 2.2.4); None where the file has no times in it."""
        places = [i for i, label in enumerate(self.labels) if label in ("EDF Annotations", "BDF Annotations")]
        if not places:
            return None
        start = self.size + sum(self.samples[: places[0]]) * self.width
        length, found = self.samples[places[0]] * self.width, []
        with path.open("rb") as file:
            for record in range(self.records):
                file.seek(start + record * self.record)
                stamp = re.match(rb"([+-]\d+(?:\.\d*)?)[\x14\x15]", file.read(length))
                if stamp is None:
                    return None
                found.append(float(stamp[1]))
        return np.array(found) - found[0] if found else None


class BrainVision:
    """A BrainVision header, and the two files that it names, which lie beside it."""

    def __init__(self, path: Path, source: Source) -> None:
        """Read the header.

        Raises:
            InputError: no header, or it names a file outside its folder, or data that are not there.
        """
        self.path, self.source = path, source
        self.text = _text(path)
        self.entries = self._entries()
        self.data, self.markers = self._beside("datafile"), self._beside("markerfile")
        if self.data is not None and not self.data.is_file():
            raise source.refuse(f"its data file {self.data.name} is not beside it")

    def _entries(self) -> dict[str, str]:
        """Keys, in small letters, of the two sections that plan the file: comments and whatever else may look like anything."""
        found: dict[str, str] = {}
        section = ""
        for line in self.text.splitlines():
            section = line.strip().lower() if line.lstrip("\ufeff").startswith("[") else section
            key, equals, value = line.partition("=")
            if equals and section.lstrip("\ufeff") in ("[common infos]", "[binary infos]"):
                found.setdefault(key.strip().lower(), value.strip())
        return found

    def _beside(self, key: str) -> Path | None:
        """The file that an entry names, whatever the case of its letters on this disk."""
        name = self.entries.get(key, "").replace("$b", self.path.stem).replace("\\", "/")
        if not name:
            return None
        folder = self.path.parent
        if not inside(folder, folder / name):
            raise self.source.refuse(
                f"a header that names {name[:80]!r}, outside its folder", "data and markers beside the header"
            )
        return beside(folder, name)

    def samples(self) -> tuple[float, float]:
        """How many samples the data file has, and how many header and markers speak of."""
        channels = self.entries.get("numberofchannels", "")
        width = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}.get(self.entries.get("binaryformat", "").upper())
        if self.data is None or width is None or not channels.isdigit() or int(channels) == 0:
            return 0, 0
        there = self.data.stat().st_size / (width * int(channels))
        has_marks = self.markers is not None and self.markers.is_file()
        marks = re.findall(r"^Mk\d+=[^,]*,[^,]*,(\d+)", _text(self.markers), re.MULTILINE) if has_marks and self.markers else []
        points = self.entries.get("datapoints", "0")
        # markers count from 1, and the one behind the last sample ends a recording
        return there, max(math.ceil(there), int(points) if points.isdigit() else 0, *(int(mark) - 1 for mark in marks))

    def lay_out(self, folder: Path) -> Path:
        """This recording in `folder` by names that MNE takes: a header without its comments, and links to the files."""
        lines, section = [], ""
        for line in self.path.read_bytes().splitlines():
            text = line.decode("latin-1").strip()
            section = text.lower() if text.startswith("[") else section
            if section == "[comment]":
                break
            key = text.partition("=")[0].strip().lower()
            if section == "[common infos]" and key == "datafile":
                line = b"DataFile=recording.eeg\r\nMarkerFile=recording.vmrk"
            if section != "[common infos]" or key != "markerfile":
                lines.append(line)
        header = folder / "recording.vhdr"
        header.write_bytes(b"\r\n".join(lines) + b"\r\n")
        for file, name in ((self.data, "recording.eeg"), (self.markers, "recording.vmrk")):
            if file is not None and file.is_file():
                (folder / name).symlink_to(file.absolute())
        if not (folder / "recording.vmrk").exists():  # before 1.13, MNE reads nothing without markers
            (folder / "recording.vmrk").write_text(_NO_MARKERS)
            if self.markers is not None:
                found = f"its marker file {self.markers.name} is not beside it"
                warnings.warn(f"{found}: events and pauses are not known", stacklevel=2)
        return header


def _text(path: Path) -> str:
    content = path.read_bytes()
    return content.decode("utf-8" if b"UTF-8" in content else "latin-1", errors="replace")
