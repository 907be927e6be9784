"""The index as a program meets it: what is added is found, once, by any sense; what does not fit is refused by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitlens.errors import InputError, OptionError, SpaceError
from vitlens.index import Index, Rows, Term
from vitlens.index.query import Cone
from vitlens.space import EmbeddingSpace

pytest.importorskip("lancedb", reason="pip install 'vitlens[index]' runs it")
SPACE = EmbeddingSpace("clip-a", 32)
OTHER = EmbeddingSpace("clip-b", 32)


def cloud(count: int, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    """Unit vectors [n, 32], in a cone around a direction where there is an offset."""
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, 32)) + offset * np.eye(32)[seed]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def names(count: int, stem: str = "p") -> list[str]:
    return [f"{stem}{place:03}.png" for place in range(count)]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Forty pictures and thirty sounds."""
    made = Index.create(tmp_path / "things", SPACE, model="tiny")
    made.add(cloud(40), SPACE, modality="image", sources=names(40), licences="CC0", columns={"year": range(1990, 2030)})
    made.add(cloud(30, 1), SPACE, modality="audio", sources=names(30, "s"))
    return made


def found(index: Index, vector: np.ndarray, modality: str = "image", **options: Any) -> list[str]:
    return [hit.source for hit in index.search(Term(vector, modality), index.space, **options).hits]


@pytest.mark.parametrize("calibrate", ["center", "none"])
def test_the_order_is_that_of_the_scores(index: Index, calibrate: str) -> None:
    query = cloud(1, 5)[0]
    answer = index.search(Term(query, "text"), SPACE, k=70, calibrate=calibrate)
    vectors = {"image": cloud(40), "audio": cloud(30, 1)}
    sources = names(40) + names(30, "s")
    if calibrate == "center":
        cones = {name: Cone.of(len(rows), rows).mean for name, rows in vectors.items()}
        vectors = {name: rows - cones[name] for name, rows in vectors.items()}
    rows = np.concatenate([vectors["image"], vectors["audio"]])
    expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ query
    assert [hit.source for hit in answer.hits] == [sources[place] for place in np.argsort(-expected)]
    assert np.allclose([hit.score for hit in answer.hits], np.sort(expected)[::-1], atol=1e-4)
    assert answer.exact
    assert ("text not centred" in answer.calibration) == (calibrate == "center")


def test_centring_puts_modalities_on_one_scale(tmp_path: Path) -> None:
    """Pictures lie in a narrow cone near the query; plainly they hide the sound that fits."""
    index = Index.create(tmp_path / "i", SPACE)
    things = cloud(20, 3)
    cones = {"image": 2.0 * np.eye(32)[0], "audio": 2.0 * np.eye(32)[1], "text": 2.0 * np.eye(32)[0]}
    for name, cone in cones.items():
        index.add(things + cone, SPACE, modality=name, sources=names(20, name))
    query = Term(things[4] + cones["text"], "text")
    plain = index.search(query, SPACE, k=20, calibrate="none", modalities=["image", "audio"])
    centred = index.search(query, SPACE, k=2, modalities=["image", "audio"])
    assert {hit.modality for hit in plain.hits} == {"image"}
    assert {hit.source for hit in centred.hits} == {"image004.png", "audio004.png"}


def test_the_same_content_is_kept_once_and_a_changed_file_replaces_its_row(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", SPACE)
    given: dict[str, Any] = {"modality": "image", "sources": ["a.png", "b.png"], "files": ["/d/a.png", "/d/b.png"]}
    assert index.add(cloud(2), SPACE, digests=[b"1" * 16, b"2" * 16], **given).added == 2
    again = index.add(cloud(2), SPACE, digests=[b"1" * 16, b"2" * 16], **given)
    assert (again.added, again.known, len(index)) == (0, 2, 2)
    changed = index.add(cloud(2, 9), SPACE, digests=[b"1" * 16, b"3" * 16], **given)
    assert (changed.added, changed.known, changed.replaced, len(index)) == (1, 1, 1, 2)
    assert found(index, cloud(2, 9)[1], calibrate="none")[0] == "b.png"
    copy = {"modality": "image", "sources": ["copy.png"], "files": ["/d/copy.png"], "digests": [b"1" * 16]}
    assert index.add(cloud(1), SPACE, **copy).known == 1
    assert index.add(cloud(1), SPACE, twins=True, **copy).added == 1


def test_columns_are_written_anew_only_when_asked(index: Index) -> None:
    index.add(cloud(40), SPACE, modality="image", sources=names(40), licences="MIT", columns={"year": [1] * 40})
    assert len(found(index, cloud(1)[0], where="licence = 'CC0'", k=50)) == 40
    index.add(cloud(40), SPACE, modality="image", sources=names(40), licences="MIT", columns={"year": [1] * 40}, replace=True)
    assert found(index, cloud(1)[0], where="licence = 'CC0'", k=50) == []
    assert len(index) == 70


def test_filters(index: Index) -> None:
    assert set(found(index, cloud(1)[0], where="year >= 2028", k=50)) == {"p038.png", "p039.png"}
    assert set(found(index, cloud(1)[0], modalities=["audio"], k=50)) == set(names(30, "s"))
    for filter_ in ("colour = 'red'", "year = = 1", "year >"):
        with pytest.raises(OptionError, match=r"columns: key, modality, source.*licence.*year"):
            found(index, cloud(1)[0], where=filter_)


def test_mixtures_lead_toward_and_away(index: Index) -> None:
    a, b = cloud(40)[3], cloud(40)[7]
    both = [Term(a, "image"), Term(b, "image", 0.9)]
    assert [h.source for h in index.search(both, SPACE, k=2, calibrate="none").hits] == ["p003.png", "p007.png"]
    away = [Term(a, "image"), Term(b, "image", -0.5)]
    assert "p007.png" not in [h.source for h in index.search(away, SPACE, k=30).hits]
    with pytest.raises(OptionError, match="cancel out"):
        index.search([Term(a, "image"), Term(a, "image", -1)], SPACE, calibrate="none")


def test_another_space_is_refused_by_name(index: Index) -> None:
    for refused in (
        lambda: index.search(Term(cloud(1)[0], "image"), OTHER),
        lambda: index.add(cloud(1), OTHER, modality="image", sources=["x"]),
    ):
        with pytest.raises(SpaceError, match=r"clip-b.*clip-a"):
            refused()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vectors": np.full((1, 32), np.nan)}, "not finite"),
        ({"vectors": np.zeros((1, 32))}, "length 0"),
        ({"sources": ["a", "b"]}, "sources: 2 values for 1"),
        ({"columns": {"source": ["x"]}}, "'source': the index has one of its own"),
        ({"columns": {"a b": ["x"]}}, "letters, digits"),
        ({"columns": {"year": ["nineteen"]}}, "another type"),
        ({"columns": {"thing": [[1, 2]]}}, "texts, numbers or truth values"),
    ],
)
def test_what_cannot_be_added_is_named(index: Index, given: dict[str, Any], said: str) -> None:
    values = {"vectors": cloud(1), "modality": "image", "sources": ["a"], **given}
    with pytest.raises(OptionError, match=said):
        index.add(values.pop("vectors"), SPACE, **values)
    assert len(index) == 70


def test_what_is_no_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.png").write_text("x")
    for name, said in (("nothing", "no such folder"), ("file", "a file"), ("folder", "without an index")):
        with pytest.raises(InputError, match=said):
            Index.open(tmp_path / name)
    with pytest.raises(OptionError, match="other things in it"):
        Index.create(tmp_path / "folder", SPACE)
    Index.create(tmp_path / "i", SPACE)
    with pytest.raises(OptionError, match="an index already"):
        Index.create(tmp_path / "i", SPACE)


def test_rows_are_deleted_by_key_source_and_filter(index: Index) -> None:
    key = index.search(Term(cloud(40)[0], "image"), SPACE, k=1).hits[0].key
    assert index.delete(keys=[key]) == 1
    assert index.delete(sources=["p001.png", "s003.png"]) == 2
    assert index.delete(where="year < 2000", dry_run=True) == 8
    assert index.delete(where="year < 2000") == 8
    assert len(index) == 59
    with pytest.raises(OptionError, match="say which"):
        index.delete()


def test_a_reader_sees_what_a_writer_did(index: Index) -> None:
    reader = Index.open(index.path)
    assert len(reader) == 70
    index.add(cloud(5, 8), SPACE, modality="tactile", sources=names(5, "t"))
    assert found(reader, cloud(5, 8)[2], "tactile", calibrate="none")[0] == "t002.png"
    index.delete(where="modality = 'tactile'")
    index.compact()
    assert len(found(reader, cloud(5, 8)[2], "tactile", k=100)) == 70


@pytest.mark.parametrize("store", ["float16", "int8", "binary"])
@pytest.mark.parametrize("width", [32, 16])
def test_reduced_vectors_still_find_themselves(tmp_path: Path, store: str, width: int) -> None:
    index = Index.create(tmp_path / "i", SPACE, store=store, width=width)
    rows = cloud(60)
    index.add(rows, SPACE, modality="image", sources=names(60))
    first = [found(index, row, k=1, calibrate="none")[0] for row in rows[:12]]
    assert np.mean([one == name for one, name in zip(first, names(12), strict=True)]) >= (0.9 if store == "binary" else 1.0)


def test_full_vectors_score_what_bits_found(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", SPACE, store="binary", width=16, keep_full=True)
    rows, query = cloud(60), cloud(1, 2)[0]
    index.add(rows, SPACE, modality="image", sources=names(60))
    best = index.search(Term(query, "image"), SPACE, calibrate="none").hits[0]
    assert best.score == pytest.approx(float((rows @ query).max()), abs=1e-5)


def test_twins_within_one_call_are_one_row(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", SPACE)
    rows = Rows(SPACE, cloud(3), ["text"] * 3, ["dog", "cat", "dog"])
    assert (index.add_rows(rows).added, len(index)) == (2, 2)


WRITER = """
import sys, numpy as np
from vitlens.index import Index
from vitlens.space import EmbeddingSpace
index = Index.open(sys.argv[1])
generator = np.random.default_rng(0)
for place in range(100000):
    index.add(generator.standard_normal((1, 32)), EmbeddingSpace("clip-a", 32), modality="image", sources=[f"w{place}"])
    print(place, flush=True)
"""


def test_kill_9_keeps_every_acknowledged_row(index: Index) -> None:
    acknowledged = 0
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, index.path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(5):
            acknowledged = max(acknowledged, int(writer.stdout.readline()))
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        acknowledged = max([acknowledged, *map(int, rest)])
        there = set(found(Index.open(index.path), cloud(1)[0], k=10_000))
        assert {f"w{place}" for place in range(acknowledged + 1)} <= there
    index.add(cloud(1, 7), SPACE, modality="image", sources=["after"])
    assert found(index, cloud(1, 7)[0], calibrate="none")[0] == "after"


def test_single_adds_with_deletes_between_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    monkeypatch.setattr("vitlens.index.maintenance.FRAGMENTS", 16)
    monkeypatch.setattr("vitlens.index.maintenance.KEPT_FOR", timedelta(0))
    index = Index.create(tmp_path / "i", SPACE)
    rows = cloud(120)
    for place, row in enumerate(rows):
        index.add(row[None], SPACE, modality="image", sources=[f"p{place}"])
        if place % 4 == 3:
            assert index.delete(sources=[f"p{place - 1}"]) == 1
    assert len(index) == 90
    info = index.info()
    assert info.fragments <= 20
    assert info.versions <= 40
    assert json.loads(json.dumps(info.to_dict()))["rows"] == {"image": 90}
