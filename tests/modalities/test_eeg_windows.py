"""Windows of long recordings: every n seconds or at events, each an item with its time, the same as if it were read alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vitlens.cli.app import app
from vitlens.errors import InputError, OptionError
from vitlens.modalities.eeg import EEG
from vitlens.modalities.eeg_kept import PREPARED, RECORDING
from vitlens.store.files import load_embeddings
from vitlens.store.items import Failure
from vitlens.store.listing import Listing
from vitlens.store.windows import Cutting

NAMES = ["Fp1", "Fp2", "C3", "C4", "T7", "T8", "O1", "O2"]
RATE = 250.0
eeg = EEG(channels=8, names=NAMES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ten seconds with marks, as one recording, one that pauses, and epochs."""
    folder, rng = tmp_path_factory.mktemp("windows"), np.random.default_rng(0)
    with mne.use_log_level("ERROR"):
        info = mne.create_info([*NAMES, "STI"], RATE, ["eeg"] * 8 + ["stim"])
        data = np.concatenate([1e-5 * rng.standard_normal((8, 2500)), np.zeros((1, 2500))])
        data[8, 1000:1010] = 12
        raw = mne.io.RawArray(data, info)
        marks = mne.Annotations([1.0, 3.5, 6.0, 9.9], 0.0, ["face/old", "house", "face/new", "face/old"])
        raw.set_annotations(marks).save(folder / "whole_raw.fif")
        raw.set_annotations(marks + mne.Annotations([4.2], 0.0, ["BAD boundary"])).save(folder / "paused_raw.fif")
        raw.set_annotations(None)
        events = np.array([[500, 0, 1], [1000, 0, 2], [1500, 0, 1]])
        mne.Epochs(raw, events, {"face": 1, "house": 2}, -0.1, 0.6, baseline=None, preload=True).save(folder / "some-epo.fif")
    np.save(folder / "rows.npy", data[:8])
    return {path.name.partition("_")[0].partition("-")[0].removesuffix(".npy"): path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "how", "expected"),
    [
        ("whole", 2.5, ["t=0", "t=2.5", "t=5", "t=7.5"]),
        ("paused", 2, ["t=0", "t=2", "t=4.2", "t=6.2", "t=8.2"]),
        ("whole", "face/*", ["t=1 face/old", "t=6 face/new"]),  # the last is too near the end
        ("whole", "House", ["t=3.5 house"]),
        ("whole", "event 12", ["t=4 12"]),
        ("some", "face", ["epoch=0 face", "epoch=2 face"]),
        ("rows", 5.0, ["t=0", "t=5"]),
    ],
)
def test_windows_every_so_many_seconds_or_at_events(files: dict[str, Path], name: str, how: Any, expected: list[str]) -> None:
    options = {"rate": RATE, "channels": NAMES} if name == "rows" else {}
    found = eeg.windows(files[name], how, **options)
    assert list(found) == expected
    assert all(eeg.transform(eeg.read(files[name], **options, **own)).shape == (8, 512) for own in found.values())


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("whole", "fac", r"no event 'fac'; it has 'face/old' \(2 times\), 'house' \(1 times\)"),
        ("some", 1.0, "3 epochs, and windows every 1 s"),
        ("rows", "face", "an array, and windows at events 'face'"),
    ],
)
def test_windows_that_are_not_there_are_refused(files: dict[str, Path], name: str, how: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        eeg.windows(files[name], how)
    with pytest.raises(OptionError, match="eeg: windows"):
        eeg.windows(files[name], "")
    with pytest.raises(OptionError, match=r"several items of one: EEG\.windows"):
        eeg.read(files[name], windows=how)


@pytest.mark.parametrize("name", ["whole", "paused"])
def test_a_window_is_what_its_time_gives_and_a_recording_is_read_once(files: dict[str, Path], name: str) -> None:
    found = eeg.windows(files[name], 2.0)
    samples = [eeg.read(files[name], **own) for own in found.values()]
    assert len({id(sample.data) for sample in samples}) == (1 if name == "whole" else 2)  # one of each piece
    for own, sample in zip(found.values(), samples, strict=True):
        alone = eeg.read(files[name], start=own["start"])
        np.testing.assert_array_equal(sample.data, alone.data)
        assert sample.info["start"] == pytest.approx(alone.info["start"])
        torch.testing.assert_close(eeg.transform(sample), eeg.transform(alone), atol=1e-5, rtol=1e-5)
    assert RECORDING._value is not None and PREPARED._value[0] is samples[-1].data


def test_a_listing_cuts_recordings(files: dict[str, Path], tmp_path: Path) -> None:
    given = [str(files["whole"]), str(files["some"])]
    listing = Listing(given, modalities=["eeg"], cutting=Cutting({"eeg": {"windows": 5.0, "unit": "V"}}, lambda name: eeg))
    items = list(listing)
    assert [(one.name.partition("#")[2], one.row) for one in items] == [("t=0", 0), ("t=5", 0), ("", 1)]
    assert isinstance(items[2], Failure) and listing.cutting.reads() == {"eeg": {"unit": "V"}}
    table = tmp_path / "items.csv"
    table.write_text(f"eeg,eeg.windows\n{files['whole']},face/*\n{files['some']},\n", encoding="utf-8")
    names = [one.name.rpartition("#")[2] for one in Listing(manifest=table, cutting=Cutting(reading=lambda name: eeg))]
    assert names == ["t=1 face/old", "t=6 face/new", str(files["some"])]


def test_embed_makes_an_embedding_of_every_window(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    command = ["embed", str(files["whole"]), "--as", "eeg", "-o", str(out), "--device", "cpu", "--model", "vitlens-tiny-random"]
    done = CliRunner().invoke(app, [*command, "-r", "eeg.windows=4", "-r", "eeg.sparse=true", "--json"], prog_name="vitlens")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"] == {"eeg": 3}
    stored = load_embeddings(out)
    assert [name.partition("#")[2] for name in stored.names["eeg"]] == ["t=0", "t=4", "t=8"]
    assert not torch.allclose(stored["eeg"][0], stored["eeg"][1])
