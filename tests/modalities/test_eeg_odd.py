"""EEG recordings as they are met: with gaps, with channels of another unit or kind, damaged so that a reader dies of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import mne
import numpy as np
import pytest
from typer.testing import CliRunner

from vitlens.cli.app import app
from vitlens.errors import InputError
from vitlens.modalities.eeg import EEG

NAMES = ("Fp1", "Fp2", "C3", "C4")
eeg = EEG(channels=4, names=NAMES)


def edf(path: Path, *, labels: Sequence[str] = NAMES, units: Sequence[str] = ("uV",) * 4, onsets: Sequence[float] = ()) -> Path:
    """Records of 1 s of four sines of 20 units at 1 kHz; `onsets`, their true times, make it an EDF+D."""
    signals, records = 5 if onsets else 4, len(onsets) or 3
    head = [(8, 0), (80, "X X X X"), (80, "Startdate X X X X"), (8, "01.01.20"), (8, "00.00.00"), (8, 256 * (signals + 1))]
    head += [(44, "EDF+D" if onsets else ""), (8, records), (8, 1), (4, signals)]
    columns = [(16, [*labels, "EDF Annotations"]), (80, [""] * 5), (8, [*units, ""]), (8, [-25] * 4 + [-1]), (8, [25] * 4 + [1])]
    columns += [(8, [-32768] * 5), (8, [32767] * 5), (80, [""] * 5), (8, [1000] * 4 + [15]), (32, [""] * 5)]
    head += [(width, value) for width, values in columns for value in values[:signals]]
    waves = 20 * np.sin(2 * np.pi * np.outer([5, 7, 11, 13], np.arange(1000 * records) / 1000))
    stored = np.rint((waves + 25) / 50 * 65535 - 32768).astype("<i2")
    content = b"".join(str(value).encode().ljust(width) for width, value in head)
    for record in range(records):
        content += stored[:, 1000 * record : 1000 * record + 1000].tobytes()
        content += (b"+%g\x14\x14" % onsets[record]).ljust(30, b"\0") if onsets else b""
    path.write_bytes(content)
    return path


def test_times_of_a_recording_with_gaps_are_real_times(tmp_path: Path) -> None:
    whole, gap = edf(tmp_path / "whole.edf"), edf(tmp_path / "gap.edf", onsets=(0, 101, 102))
    true = eeg.transform(eeg.read(whole, start=1.2)).numpy()
    np.testing.assert_allclose(eeg.transform(eeg.read(gap, start=101.2)).numpy(), true, atol=0.15)
    with pytest.raises(InputError, match=r"1.2 s lies in a gap.*0 to 1 s, 101 to 103 s"):
        eeg.read(gap, start=1.2)
    with pytest.raises(InputError, match="after its start"):
        eeg.transform(eeg.read(gap, start=0.8))  # the window reaches across the gap


def test_an_edf_plus_d_without_gaps_is_whole(tmp_path: Path) -> None:
    for onsets in ((0, 1, 2), (0.5, 1.5, 2.5)):
        sample = eeg.read(edf(tmp_path / "whole.edf", onsets=onsets))
        assert sample.data.shape == (4, 3000)


@pytest.mark.parametrize("odd", range(4))
def test_one_channel_of_another_unit_is_named(odd: int, tmp_path: Path) -> None:
    units = ["uV"] * 4
    units[odd] = ""
    with pytest.raises(InputError, match=rf"{NAMES[odd]} \(14 V\)"):
        eeg.read(edf(tmp_path / "a.edf", units=units))


@pytest.mark.parametrize("beside", ["EXG1", "Plet", "Temp", "Erg1", "GSR1", "Status", "EOG L", "ECG", "EMG1", "aux 3"])
def test_what_lies_beside_the_eeg_is_not_counted(beside: str, tmp_path: Path) -> None:
    path = edf(tmp_path / "a.edf", labels=("Fp1", "Fp2", "C3", beside))
    with pytest.raises(InputError, match="3 EEG channels"):
        EEG(channels=4).read(path)
    assert EEG(channels=3).read(path).info["channels"] == ["Fp1", "Fp2", "C3"]


def test_eeglab_files_with_any_bit_flipped_leave_the_process_alive(tmp_path: Path) -> None:
    info = mne.create_info(list(NAMES), 1000.0, "eeg")
    raw = mne.io.RawArray(np.random.default_rng(0).normal(size=(4, 2000)) * 2e-5, info, verbose="error")
    path = tmp_path / "a.set"
    mne.export.export_raw(path, raw, verbose="error")
    assert eeg.read(path).data.shape == (4, 2000)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(content)
        damaged[int(rng.integers(128, 3000))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with suppress(InputError):
            eeg.read(path)


def test_a_brainvision_header_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    info = mne.create_info(list(NAMES), 1000.0, "eeg")
    raw = mne.io.RawArray(np.random.default_rng(0).normal(size=(4, 2000)) * 2e-5, info, verbose="error")
    path = tmp_path / "in" / "a.vhdr"
    mne.export.export_raw(path, raw, verbose="error")
    (tmp_path / "in" / "a.eeg").rename(tmp_path / "a.eeg")
    path.write_text(path.read_text().replace("DataFile=a.eeg", "DataFile=../a.eeg"))
    with pytest.raises(InputError, match="outside its folder"):
        eeg.read(path)


def test_info_shows_any_recording(tmp_path: Path) -> None:
    path = edf(tmp_path / "four.edf")
    shown = CliRunner().invoke(app, ["info", str(path)], prog_name="vitlens")
    assert shown.exit_code == 0, shown.output
    assert "1000 Hz" in shown.output
    assert "Fp1" in shown.output
    with pytest.raises(InputError, match="4 EEG channels"):
        EEG().read(path)
