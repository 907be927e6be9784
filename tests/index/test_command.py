"""`vitlens index` as a user meets it: built of files and of embeddings, asked by mixtures, shown, exported, refused in a line."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests import command_line
from vitlens.cli.streams import Mixture
from vitlens.errors import InputError, OptionError
from vitlens.index import Index

pytest.importorskip("lancedb", reason="pip install 'vitlens[index]' runs it")
MODEL = ["--model", "vitlens-tiny-random", "--device", "cpu"]


def run(*arguments: object, code: int = 0, command: str = "index") -> Any:
    return command_line.run(command, *arguments, code=code)


def refused(*arguments: object) -> str:
    return command_line.refused("index", *arguments)


def picture(path: Path, seed: int) -> Path:
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITLENS_CACHE", str(tmp_path_factory.getbasetemp() / "index-cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, one of them broken, and a manifest of them with texts."""
    folder = tmp_path_factory.mktemp("pictures")
    for place in range(6):
        picture(folder / f"p{place}.png", place)
    (folder / "p5.png").write_bytes(b"not a picture")
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "text", "licence", "year", "shelf"])
        writer.writerows([f"p{place}.png", f"thing {place}", ("CC0", "MIT")[place % 2], 2000 + place, "a7"] for place in range(5))
    return folder


@pytest.fixture(scope="module")
def things(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the manifest."""
    path = tmp_path_factory.mktemp("built") / "things.index"
    cache = tmp_path_factory.getbasetemp() / "index-cache"
    run("build", "--manifest", folder / "items.csv", *MODEL, "-o", path, "--cache", cache)
    return path


def test_a_build_goes_through_bad_files_and_adding_again_does_nothing(folder: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(folder, tmp_path / "mine")
    (mine / "items.csv").unlink()
    index = tmp_path / "i"
    said = run("build", mine, *MODEL, "-o", index, "--as", "image", "--licence", "CC0", code=1)
    assert "5 added, 1 failed; 5 rows" in said.stdout
    assert "p5.png" in said.stderr
    picture(mine / "p5.png", 50)
    picture(mine / "p1.png", 51)
    again = json.loads(run("add", index, mine, "--as", "image", "--device", "cpu", "--json").stdout)
    assert (again["added"], again["known"], again["replaced"], again["rows"]) == (2, 4, 1, 6)
    assert "an index already" in refused("build", mine, *MODEL, "-o", index, "--as", "image")


def test_nothing_known_is_embedded_or_loaded(things: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitlens.cli.index_inputs.open_model", lambda *_: pytest.fail("the model was loaded"))
    said = json.loads(run("add", things, "--manifest", folder / "items.csv", "--json").stdout)
    assert (said["added"], said["known"], said["rows"]) == (0, 10, 10)


@pytest.mark.parametrize("kind", ["npz", "parquet", "safetensors"])
def test_what_embed_wrote_goes_in_without_a_model(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    out = tmp_path / f"out.{kind}"
    run("p0.png", "p1.png", "-t", "a text", *MODEL, "-o", out, command="embed")
    monkeypatch.setattr("vitlens.cli.index_inputs.open_model", lambda *_: pytest.fail("the model was loaded"))
    index = tmp_path / "i"
    assert "3 added" in run("build", out, "-o", index).stdout
    said = json.loads(run("add", index, out, "p0.png", "-t", "a text", "--json").stdout)
    assert (said["added"], said["known"], said["rows"]) == (0, 5, 3)
    opened = Index.open(index)
    assert opened.card["model"] == "vitlens-tiny-random"
    rows = [row for batch in opened.batches(["file", "weights"], 10) for row in batch.to_pylist()]
    assert {row["file"] for row in rows} == {str(folder / "p0.png"), str(folder / "p1.png"), None}
    assert all(row["weights"] for row in rows)


def test_a_query_finds_what_it_is_and_filters(things: Path, folder: Path) -> None:
    said = json.loads(run("query", things, "--image", folder / "p3.png", "--in", "image", "--device", "cpu", "--json").stdout)
    best = said["hits"][0]
    assert (best["source"], best["licence"], best["columns"]) == ("p3.png", "MIT", {"year": 2003, "shelf": "a7"})
    assert len(said["hits"]) == 5
    filtered = ["--where", "licence = 'CC0' AND year > 2001", "--device", "cpu", "--json"]
    hits = json.loads(run("query", things, "--text", "thing 4", *filtered).stdout)["hits"]
    assert {hit["source"] for hit in hits} == {"p2.png", "p4.png", "thing 2", "thing 4"}
    assert hits[0]["source"] == "thing 4"


def test_a_mixture_as_a_table_and_a_page(things: Path, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    mixture = ["--image", f"{folder / 'p1.png'}=2", "--minus-text", "thing 0", "-k", 4, "--page", page, "--device", "cpu"]
    said = run("query", things, *mixture).stdout
    assert "centred by the mean of each modality in the index: image (5 rows), text (5 rows)" in said
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 1 + len(re.findall(r"^ *\d.* image ", said, re.M))
    assert "2 of image p1.png - “thing 0”" in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_a_file_that_is_gone_is_said_on_the_page(folder: Path, tmp_path: Path) -> None:
    mine = picture(tmp_path / "mine.png", 9)
    run("build", mine, *MODEL, "-o", tmp_path / "i")
    query = shutil.copy(mine, tmp_path / "query.png")
    mine.unlink()
    run("query", tmp_path / "i", "--image", query, "--page", tmp_path / "p.html", "--device", "cpu")
    assert "no picture: no such file" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize(
    ("given", "weights", "expected", "label"),
    [
        ({"image": ["a.png=0.5"], "text": ["dog"]}, [], {"image": [0.5], "text": [1.0]}, "0.5 of image a.png + “dog”"),
        ({"minus_text": ["rain"], "image": ["a.png"]}, [], {"text": [-1.0], "image": [1.0]}, "- “rain” + image a.png"),
        ({"minus_image": ["a.png=2"]}, [], {"image": [-2.0]}, "- 2 of image a.png"),
        ({"image": ["a.png", "a=1.png=3"]}, ["image=4"], {"image": [4.0, 3.0]}, "4 of image a.png + 3 of image a=1.png"),
        ({"image": ["b=2.png"]}, [], {"image": [1.0]}, "image b=2.png"),
        ({"text": ["e=mc2"]}, [], {"text": [1.0]}, "“e=mc2”"),
        ({"text": ["dog"]}, ["text=-0.5"], {"text": [-0.5]}, "- 0.5 of “dog”"),
    ],
)
def test_weights_of_a_mixture(
    given: dict[str, list[str]],
    weights: list[str],
    expected: dict[str, list[float]],
    label: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a=1.png", "b=2.png"):
        Path(name).write_text("x")
    found = Mixture.of(given, weights)
    assert found.weights == expected
    assert found.label == label


@pytest.mark.parametrize(
    ("given", "weights", "said"),
    [
        ({}, [], "nothing to look for"),
        ({"text": ["a"]}, ["audio=2"], "no input 'audio'"),
        ({"text": ["a"]}, ["text=much"], "a number is needed"),
        ({"text": ["a=nan"]}, [], "finite|number"),
        ({"image": ["gone.png=2"]}, [], "gone.png: no such file"),
    ],
)
def test_mixtures_that_are_none(given: dict[str, list[str]], weights: list[str], said: str) -> None:
    with pytest.raises((OptionError, InputError), match=said):
        Mixture.of(given, weights)


def test_info_measures_and_export_gives_the_vectors_back(things: Path, tmp_path: Path) -> None:
    said = json.loads(run("info", things, "--check", "--json").stdout)
    assert said["rows"] == {"image": 5, "text": 5}
    assert said["recall"]["recall_at_10"] == 1.0
    assert "recall@10 1.000" in run("info", things, "--check").stdout
    run("export", things, "-o", tmp_path / "out.parquet")
    again = tmp_path / "again"
    assert "10 added" in run("build", tmp_path / "out.parquet", "-o", again).stdout
    faiss = pytest.importorskip("faiss", reason="pip install 'vitlens[index]' runs it")
    run("export", things, "-o", tmp_path / "out.faiss", "--where", "modality = 'image'")
    made = faiss.read_index(str(tmp_path / "out.faiss"))
    ids = list(csv.DictReader((tmp_path / "out.faiss.ids.csv").open()))
    assert [row["source"] for row in ids] == [f"p{place}.png" for place in range(5)]
    scores, found = made.search(made.reconstruct(2)[None], 1)
    assert found[0, 0] == 2
    assert scores[0, 0] == pytest.approx(1, abs=1e-5)
    assert "exists" in refused("export", things, "-o", tmp_path / "out.faiss")


def test_reduced_vectors_say_what_they_cost(folder: Path, tmp_path: Path) -> None:
    said = run("build", "--manifest", folder / "items.csv", *MODEL, "-o", tmp_path / "i", "--store", "binary").stdout
    assert re.search(r"kept as binary, \d+ of \d+ values: recall@10 [01]\.\d{3} of what whole float32", said)
    assert "measured when it was built" in run("info", tmp_path / "i").stdout


def test_delete(folder: Path, tmp_path: Path) -> None:
    run("build", "--manifest", folder / "items.csv", *MODEL, "-o", tmp_path / "i")
    assert "5 rows would be deleted; 10 rows" in run("delete", tmp_path / "i", "--where", "modality = 'text'", "--dry-run").stdout
    assert "1 rows deleted; 9 rows" in run("delete", tmp_path / "i", "--source", folder / "p0.png").stdout
    assert run("compact", tmp_path / "i").stdout.startswith(f"{tmp_path / 'i'}: 9 rows in 1 fragments")


def test_a_dry_run_makes_nothing(folder: Path, tmp_path: Path) -> None:
    said = run("build", "--manifest", folder / "items.csv", "-o", tmp_path / "i", "--dry-run").stdout
    assert "5 image, 5 text to embed; nothing was done" in said
    assert not (tmp_path / "i").exists()


def test_what_cannot_be_is_said_in_a_line(things: Path, folder: Path, tmp_path: Path) -> None:
    assert "no such folder" in refused("info", tmp_path / "nothing")
    assert "say where the index goes" in refused("build", folder)
    assert "columns: key, modality" in refused("query", things, "--text", "x", "--where", "colour = 1", "--device", "cpu")
    assert "nothing to look for" in refused("query", things)
    assert "center or none" in refused("query", things, "--text", "x", "--calibrate", "much", "--device", "cpu")
    assert "unknown modality 'smell'" in refused("query", things, "--text", "x", "--in", "smell")
    assert "float32, float16, int8 or binary" in refused(
        "build", folder / "p0.png", *MODEL, "-o", tmp_path / "i", "--store", "int4"
    )
    assert not (tmp_path / "i").exists()
    other = refused("query", things, "--text", "x", "-m", "vitlens-toybox", "--device", "cpu")
    assert re.search("vitlens-toybox.*in space .*vitlens-tiny", other)


def test_without_the_extra_the_pip_line_is_said(things: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    assert "pip install 'vitlens[index]'" in refused("info", things)


def test_files_are_read_by_spawned_processes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    from vitlens.store.store import EmbeddingStore

    seen: list[str | None] = []
    embed = EmbeddingStore.embed

    def watched(self: EmbeddingStore, *given: Any, **options: Any) -> Any:
        seen.append(multiprocessing.get_start_method(allow_none=True))
        return embed(self, *given, **options)

    monkeypatch.setattr(EmbeddingStore, "embed", watched)
    before = multiprocessing.get_start_method(allow_none=True)
    run("build", folder / "p0.png", *MODEL, "-o", tmp_path / "i")
    assert seen == ["spawn"]
    assert multiprocessing.get_start_method(allow_none=True) == before


def test_a_long_recording_is_kept_as_windows_that_are_found_one_by_one(tmp_path: Path) -> None:
    night = np.random.default_rng(0).normal(0, 20, (128, 2600)).astype(np.float32)
    np.save(tmp_path / "night.npy", night)
    np.save(tmp_path / "piece.npy", night[:, 1000:2000])
    how = ["-r", "eeg.rate=1000", "-r", "eeg.unit=uV", "-r", "eeg.channels=model"]
    night_index, cut = tmp_path / "nights", ["--as", "eeg", "-r", "eeg.windows=1", *how, "--json"]
    made = json.loads(run("build", tmp_path / "night.npy", *cut, "-o", night_index, *MODEL).stdout)
    assert (made["added"], made["errors"]) == (3, [])
    again = json.loads(run("add", night_index, tmp_path / "night.npy", *cut).stdout)
    assert (again["added"], again["known"], again["rows"]) == (0, 3, 3)
    found = json.loads(run("query", night_index, "--eeg", tmp_path / "piece.npy", *how, "--json").stdout)
    assert found["hits"][0]["source"].endswith("night.npy#t=1")
