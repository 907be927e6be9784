"""Pickles read as data only, and list files whose messages name the line."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitlens.benchmarks.datasets.listing import csv_rows, json_records, label_at, text_lines
from vitlens.benchmarks.datasets.safe_pickle import load_data
from vitlens.errors import InputError

CONTENT: dict[str, Any] = {
    "xyz": np.arange(6, dtype=np.float32).reshape(2, 3),
    "labels": [np.int64(3), 1],
    "name": "chair",
    "raw": b"\x00\xff",
}


def same(found: Any) -> bool:
    return bool((found["xyz"] == CONTENT["xyz"]).all()) and found["labels"] == [3, 1] and found["name"] == "chair"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_and_containers_are_read_from_pickles_of_all_protocols(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "pack.dat"
    path.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    assert same(load_data(path, "a pack")) and load_data(path, "a pack")["raw"] == b"\x00\xff"


def test_what_np_save_makes_of_objects_is_read_and_plain_arrays_stay_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array(CONTENT, dtype=object), allow_pickle=True)
    assert same(load_data(tmp_path / "object.npy", "a pack"))
    np.save(tmp_path / "plain.npy", CONTENT["xyz"])
    plain = load_data(tmp_path / "plain.npy", "a pack")
    assert isinstance(plain, np.memmap) and (plain == CONTENT["xyz"]).all()


class Runs:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("evil", [Runs(os.mkdir, "made"), Runs(eval, "1"), Runs(getattr, "a", "upper"), Runs(np.load, "x")])
def test_a_pickle_that_calls_anything_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: Runs) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pack.dat"
    for content in (evil, {"xyz": [evil]}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=r"pack\.dat: cannot be decoded \(the pickle asks for .*, which is not data"):
            load_data(path, "a pack")
    np.save(tmp_path / "pack.npy", np.array({"x": evil}, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="which is not data"):
        load_data(tmp_path / "pack.npy", "a pack")
    assert not (tmp_path / "made").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=4)), cut=st.integers(1, 400))
def test_damaged_packs_end_in_one_clear_error(tmp_path: Path, damage: tuple[int, bytes], cut: int) -> None:
    whole = pickle.dumps(CONTENT, protocol=2)
    place = damage[0] % len(whole)
    path = tmp_path / "pack.dat"
    for content in (whole[: cut % len(whole)] or b"x", whole[:place] + damage[1] + whole[place + len(damage[1]) :]):
        path.write_bytes(content)
        with contextlib.suppress(InputError):  # anything else fails the test
            load_data(path, "a pack")


def test_lists_name_the_file_the_line_and_what_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("# made today\nvideo,label\na,1\n\nb\n")
    with pytest.raises(InputError, match=r"list\.csv, line 5: 1 values. Accepted: a list with the columns video, label"):
        csv_rows(path, ("video", "label"))
    with pytest.raises(InputError, match=r"list\.csv: no column start \(it has video, label\)"):
        csv_rows(path, ("start",))
    path.write_bytes(b"video,label\n\xff\xfe,1\n")
    with pytest.raises(InputError, match=r"list\.csv: cannot be decoded"):
        csv_rows(path, ("video",))
    path.write_text("video,label\n")
    with pytest.raises(InputError, match=r"list\.csv: no rows"):
        csv_rows(path, ("video",))
    path.write_text("\n \n")
    with pytest.raises(InputError, match=r"list\.csv: no lines. Accepted: names"):
        text_lines(path, "names")
    path.write_text('[{"uid": "a"}, {"id": "b"}]')
    with pytest.raises(InputError, match=r"list\.csv, record 1: no uid"):
        json_records(path, ("uid",))
    path.write_text('{"uid": "a"}')
    with pytest.raises(InputError, match=r"list\.csv: no list of records"):
        json_records(path, ("uid",))


@pytest.mark.parametrize("number", [-1, 3, "3", "1.0", 1.5, None, "one", "", np.array([7]), np.array([1, 2])])
def test_a_label_number_that_is_none_is_refused(number: Any) -> None:
    with pytest.raises(InputError, match=r"list, line 1: the label .*, which is not in the class list. Accepted: 0 to 2"):
        label_at(number, ("a", "b", "c"), "list, line 1")


@pytest.mark.parametrize("number", [1, "1", np.int64(1), np.array([1]), np.array([[1]], np.uint8)])
def test_a_label_number_may_be_of_any_kind(number: Any) -> None:
    assert label_at(number, ("a", "b", "c"), "list, line 1") == "b"
