"""The registry and the items of a user's list: names, clashes, options, guesses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitlens.errors import InputError, ModalityError, OptionError
from vitlens.modality import Modality, Sample, get_modality, guess_modality, list_modalities, modality_class, register_modality


def test_the_eight_sensors_are_there() -> None:
    assert {"image", "text", "video", "point_cloud", "depth", "audio", "tactile", "eeg"} <= set(list_modalities())


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ModalityError, match=r"unknown modality 'smell'; known: .*audio.*video"):
        get_modality("smell")


def test_a_name_belongs_to_one_class() -> None:
    class Impostor(modality_class("audio")):  # type: ignore[misc]
        pass

    with pytest.raises(
        ModalityError, match=r"'audio' is registered twice: by vitlens\.modalities\.audio\.Audio and by .*Impostor"
    ):
        register_modality(Impostor)
    assert register_modality(modality_class("audio")) is modality_class("audio")


@pytest.mark.parametrize("name", ["", "Two Words", "Upper", None])
def test_names_are_identifiers(name: Any) -> None:
    nameless = type("Nameless", (Modality,), {"name": name})
    with pytest.raises(ModalityError, match="lower-case identifier"):
        register_modality(nameless)


def test_items_are_samples_sources_or_mappings() -> None:
    audio = get_modality("audio")
    wave = np.zeros(16000, np.float32)
    wave[::50] = 0.5
    direct = audio.load(wave, rate=16000)
    assert audio.load(direct) is direct
    mapped = audio.load({"source": wave, "rate": 8000}, rate=16000)
    assert mapped.info["rate"] == 8000, "the item's own option wins"
    with pytest.raises(InputError, match="no 'source' in it"):
        audio.load({"rate": 16000})
    with pytest.raises(OptionError, match=r"unknown read option 'loudness'; known: rate"):
        audio.load(wave, loudness=3)
    with pytest.raises(InputError, match="nothing to read"):
        audio.load(None)


def test_errors_cross_process_borders_whole() -> None:
    error = InputError("a.wav", "an empty file", "audio")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.source, again.found) == (str(error), "a.wav", "an empty file")


@pytest.mark.parametrize("name", ["image", "video", "point_cloud", "audio", "eeg", "depth"])
def test_a_file_is_recognised(name: str, tmp_path: Path) -> None:
    modality = get_modality(name)
    assert guess_modality(modality.write(modality.example(), tmp_path, "x")) == name


def test_files_of_no_or_many_modalities(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no modality reads \.docx"):
        guess_modality(tmp_path / "a.docx")
    np.save(tmp_path / "a.npy", np.zeros((30, 40)))
    with pytest.raises(InputError, match=r"may be .* or "):
        guess_modality(tmp_path / "a.npy")
    with pytest.raises(InputError, match="no such file"):
        guess_modality(tmp_path / "gone.wav")


def test_a_sample_keeps_its_source_and_facts() -> None:
    sample = Sample(np.zeros(3), "here", {"rate": 5})
    assert (sample.source, sample.info["rate"]) == ("here", 5)
