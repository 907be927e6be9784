"""Folders of parts: each item once, whatever is killed, changed or moved; inputs and outputs of every kind; flat memory."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vitlens
from vitlens.cli.app import app
from vitlens.cli.inputs import gather
from vitlens.errors import InputError, OptionError
from vitlens.model import ViTLens
from vitlens.store.bulk.job import BulkJob, BulkResult, Local
from vitlens.store.bulk.maker import Maker, Told
from vitlens.store.bulk.pieces import Piece, Receipt, Spool, cut
from vitlens.store.files import StoredEmbeddings, holds_embeddings, load_embeddings, stored_parts
from vitlens.store.items import Failure, Item
from vitlens.store.job import Job, Settings
from vitlens.store.listing import Listing
from vitlens.store.places import Folder

NAME = "vitlens-tiny-random"
COUNT, BAD, PART = 11, 4, 4


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load(NAME, modalities=["image", "text", "depth"], device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eleven pictures; one is broken, one is there twice."""
    folder = tmp_path / "in"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for place in range(COUNT):
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"p{place:02d}.png")
    (folder / f"p{BAD:02d}.png").write_bytes(b"not a picture")
    shutil.copy(folder / "p01.png", folder / "p07.png")
    return folder


def job(out: Path | str, *inputs: object, manifest: object = None, modality: str | None = "image", **settings: object) -> BulkJob:
    named = tuple(map(str, inputs)) or (str(manifest),)
    listing = Listing(
        [*map(str, inputs)], manifest=str(manifest) if manifest else None, modalities=[modality] if modality else []
    )
    return BulkJob(listing, Folder(str(out)), NAME, Settings(batch_size=2, **settings), PART, named)  # type: ignore[arg-type]


def run(bulk: BulkJob, model: ViTLens) -> BulkResult:
    return bulk.run(Local(bulk.maker(lambda _: model)))


def files_in(folder: Path) -> dict[str, bytes]:
    """The parts and tables of errors: what must not differ."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


def test_every_item_is_in_one_part_or_in_the_errors(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out"
    result = run(job(out, pictures), model)
    good = [path for path in sorted(pictures.iterdir()) if path.name != f"p{BAD:02d}.png"]
    assert result.complete and (result.pieces, result.counts, result.errors) == (3, {"image": COUNT - 1}, 1)
    tables = [pq.read_table(out / f"part-{number:05d}.parquet") for number in range(3)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["item"] for row in rows] == list(map(str, good))
    assert [row["row"] for row in rows] == [place for place in range(COUNT) if place != BAD]
    assert len({row["digest"] for row in rows}) == COUNT - 2, "the same content has the same digest"
    direct = model.encode({"image": good}, batch_size=1)["image"]
    torch.testing.assert_close(torch.tensor([row["embedding"] for row in rows]), direct, atol=1e-6, rtol=0)
    [bad] = pq.read_table(out / "errors" / "part-00001.parquet").to_pylist()
    assert (bad["row"], bad["modality"]) == (BAD, "image") and "not a picture" in bad["error"]
    summary = json.loads((out / "_SUCCESS").read_text())
    assert (summary["embeddings"], summary["errors"], summary["parts"]) == ({"image": COUNT - 1}, 1, 3)
    assert (summary["space"], summary["dim"], summary["model"]) == (model.space.name, model.space.dim, NAME)
    assert tables[0].schema.metadata[b"vitlens.weights"] == json.dumps(summary["weights"]).encode()


def test_the_folder_opens_like_a_file_of_embeddings(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out, one = tmp_path / "out", tmp_path / "one.parquet"
    run(job(out, pictures), model)
    Job(gather([str(pictures)]), one, NAME, Settings(batch_size=2)).run(lambda _: model)
    stored, whole = load_embeddings(out), load_embeddings(one)
    assert holds_embeddings(out) and [len(part.names["image"]) for part in stored_parts(out)] == [4, 3, 3]
    assert (stored.names, stored.rows, stored.space, stored.model) == (whole.names, whole.rows, whole.space, whole.model)
    torch.testing.assert_close(stored["image"], whole["image"], atol=1e-6, rtol=0)
    (out / "_SUCCESS").unlink()
    with pytest.raises(InputError, match="not all there"):
        load_embeddings(out)
    assert gather([str(tmp_path)]).by_modality().keys() == {"image"}, "what was written is no input"


def killed(bulk: BulkJob, model: ViTLens, out: Path, pause: float) -> None:
    """Run a job in a process of its own, and kill it some time after its next receipt."""
    before = len(list(out.glob("_pieces/*.json")))

    def slowly(told: str, done: int, total: int) -> None:
        time.sleep(0.05)

    def work() -> None:
        bulk.run(Local(bulk.maker(lambda _: model)), progress=slowly)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking is safe here: the child only embeds and dies
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
    while child.is_alive() and len(list(out.glob("_pieces/*.json"))) <= before:
        time.sleep(0.001)
    time.sleep(pause)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it was still at work"


def test_killed_and_started_again_it_gives_the_same_bytes(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    run(job(tmp_path / "whole", pictures), model)
    out = tmp_path / "out"
    for pause in (0.0, 0.02):
        killed(job(out, pictures), model, out, pause)
        assert not (out / "_SUCCESS").exists()
    result = run(job(out, pictures), model)
    assert result.resumed == 2 and files_in(out) == files_in(tmp_path / "whole")
    assert not list(out.rglob("*.part")), "what a killed writer left is gone"


def test_only_what_changed_is_made_again(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out"
    run(job(out, pictures), model)
    before = {name: os.stat(out / name).st_mtime_ns for name in files_in(out)}
    os.utime(pictures / "p00.png")  # touched, not changed
    shutil.copy(pictures / "p00.png", pictures / "p05.png")
    result = run(job(out, pictures), model)
    after = {name: os.stat(out / name).st_mtime_ns for name in files_in(out)}
    assert result.resumed == 2 and {name for name in before if before[name] != after[name]} == {
        "part-00001.parquet",
        "errors/part-00001.parquet",
    }
    run(job(tmp_path / "fresh", pictures), model)
    assert files_in(out) == files_in(tmp_path / "fresh")


def test_a_shorter_listing_leaves_no_part_of_the_longer_one(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out"
    run(job(out, pictures), model)
    for name in ("p08.png", "p09.png", "p10.png"):
        (pictures / name).unlink()
    (pictures / f"p{BAD:02d}.png").unlink()
    run(job(out, pictures), model)
    assert list(files_in(out)) == ["part-00000.parquet", "part-00001.parquet"]
    assert len(load_embeddings(out).names["image"]) == 7


def test_a_damaged_or_missing_part_is_made_again(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out"
    run(job(out, pictures), model)
    whole = files_in(out)
    (out / "part-00000.parquet").unlink()
    (out / "part-00002.parquet").write_bytes(b"cut short")
    assert run(job(out, pictures), model).resumed == 1
    assert files_in(out) == whole


def test_processes_of_torchrun_share_the_pieces(
    pictures: Path, tmp_path: Path, model: ViTLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job(tmp_path / "whole", pictures), model)
    out = tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = run(job(out, pictures), model)
    assert not first.complete and first.elsewhere == 2 and not (out / "_SUCCESS").exists()
    monkeypatch.setenv("RANK", "0")
    assert run(job(out, pictures), model).complete
    assert files_in(out) == files_in(tmp_path / "whole")
    assert json.loads((out / "_SUCCESS").read_text())["embeddings"] == {"image": COUNT - 1}


def test_what_fails_for_no_fault_of_an_item_is_tried_again_then_reported(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    failing = {0: 2, 1: 99}  # piece -> how often

    class Failing(Maker):
        def __call__(self, piece: Piece, told: Told = lambda *_: None) -> tuple[Receipt, bool]:
            if failing.get(piece.number, 0) > 0:
                failing[piece.number] -= 1
                raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
            return super().__call__(piece, told)

    bulk = job(tmp_path / "out", pictures)
    result = bulk.run(Local(Failing(bulk.out, NAME, bulk.settings, lambda _: model)))
    assert list(result.lost) == ["part-00001"] and "killed by signal" in result.lost["part-00001"]
    assert sorted(files_in(tmp_path / "out")) == ["part-00000.parquet", "part-00002.parquet"]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run(job(tmp_path / "out", pictures), model).complete


def test_folders_of_others_and_other_jobs_are_refused(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(OptionError, match=r"other files are in it \(thesis.tex"):
        run(job(out, pictures), model)
    (out / "thesis.tex").unlink()
    with pytest.raises(OptionError, match="--dtype auto is chosen on one machine"):
        run(job(out, pictures, dtype="auto"), model)
    run(job(out, pictures), model)
    with pytest.raises(OptionError, match="dtype: fp32 then, bf16 now"):
        run(job(out, pictures, dtype="bf16"), model)
    assert run(job(out, pictures, dtype="bf16", overwrite=True), model).resumed == 0, "other embeddings are made anew"


# --- inputs and outputs of every kind ---------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[str]:
    """An object store of its own in memory."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    yield "memory://bucket"
    for path in list(system.store):
        del system.store[path]


def vectors(stored: StoredEmbeddings) -> np.ndarray:
    return stored["image"].numpy()


def test_shards_tables_of_bytes_and_object_stores_give_what_files_give(
    pictures: Path, tmp_path: Path, model: ViTLens, memory: str
) -> None:
    import fsspec

    run(job(tmp_path / "files", pictures), model)
    expected = load_embeddings(tmp_path / "files")
    digests = pq.read_table(tmp_path / "files" / "part-00000.parquet")["digest"]
    files = sorted(pictures.iterdir())
    for number, some in enumerate((files[:5], files[5:])):
        with tarfile.open(tmp_path / f"s-{number:04d}.tar", "w") as shard:
            for file in some:
                shard.add(file, f"k{file.stem}.png")
                for kind, content in (("cls", b"7"), ("json", b'{"image.exif": true}')):
                    entry = tarfile.TarInfo(f"k{file.stem}.{kind}")
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
        fsspec.filesystem("memory").pipe_file(f"/bucket/s-{number:04d}.tar", (tmp_path / f"s-{number:04d}.tar").read_bytes())
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": cells}), tmp_path / "named.parquet", row_group_size=3)
    pq.write_table(pa.table({"image": [cell["bytes"] for cell in cells], "id": range(COUNT)}), tmp_path / "bytes.parquet")
    for file in files:
        fsspec.filesystem("memory").pipe_file(f"/bucket/pictures/{file.name}", file.read_bytes())
    lines = "\n".join(json.dumps({"image": f"pictures/{file.name}"}) for file in files)
    fsspec.filesystem("memory").pipe_file("/bucket/items.jsonl", lines.encode())
    ways = {
        "shards": job(tmp_path / "shards", tmp_path / "s-{0000..0001}.tar"),
        "remote shards": job(f"{memory}/out1", f"{memory}/s-*.tar"),
        "named bytes": job(tmp_path / "named", manifest=tmp_path / "named.parquet"),
        "bytes": job(tmp_path / "bytes", manifest=tmp_path / "bytes.parquet"),
        "remote folder": job(f"{memory}/out2", f"{memory}/pictures/"),
        "remote manifest": job(f"{memory}/out3", manifest=f"{memory}/items.jsonl"),
    }
    for way, bulk in ways.items():
        result = run(bulk, model)
        assert result.complete and result.errors == 1, way
        stored = load_embeddings(bulk.out.name)
        assert stored.rows == expected.rows, way
        np.testing.assert_allclose(vectors(stored), vectors(expected), atol=1e-6, err_msg=way)
        if way == "bytes":
            assert pq.read_table(tmp_path / "bytes" / "part-00000.parquet")["digest"] == digests, "the content, not its place"
        assert run(bulk, model).resumed == 3, way


def test_an_object_that_is_gone_is_a_row_of_the_errors(tmp_path: Path, model: ViTLens, memory: str) -> None:
    [missing] = list(Listing([f"{memory}/none.png"]))
    assert isinstance(missing, Failure) and missing.error == "no such file"
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({"image": f"{memory}/{n}.png"}) for n in (1, 2)))
    result = run(job(tmp_path / "out", manifest=tmp_path / "m.jsonl"), model)
    assert result.errors == 2 and not result.counts


def test_a_shard_that_is_cut_costs_what_lies_behind_the_cut(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        for place in range(3):
            entry = tarfile.TarInfo(f"{place}.png")
            entry.size = 1000
            shard.addfile(entry, io.BytesIO(bytes(1000)))
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:2600])
    first, rest = Listing([str(tmp_path / "0.tar")], modalities=["image"])
    assert isinstance(first, Item) and first.name == f"{tmp_path}/0.tar/0.png"
    assert isinstance(rest, Failure) and rest.row == 1 and "unexpected end of data" in rest.error


def test_a_listing_of_any_length_takes_the_same_memory() -> None:
    def peak(count: int) -> int:
        entries = (Item(row, f"a picture of thing {row}", "text", f"a picture of thing {row}") for row in range(count))
        tracemalloc.start()
        spool = Spool()
        for piece in cut(entries, 500):
            spool.add(piece)
        assert spool.counts.total == count and sum(len(piece.entries) for piece in spool) == count
        spool.close()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(500)
    assert peak(20_000) < 1.3 * peak(2_000)


def test_the_command_says_what_it_will_do_and_what_it_did(pictures: Path, tmp_path: Path) -> None:
    cli = CliRunner()
    options = ["embed", str(pictures), "-m", NAME, "-o", f"{tmp_path}/out/", "--part-items", "4", "-b", "2", "--device", "cpu"]
    planned = cli.invoke(app, [*options, "--dry-run"])
    assert planned.exit_code == 0 and "11 image to embed into 3 parts of up to 4 items" in planned.stdout
    assert not (tmp_path / "out").exists()
    done = cli.invoke(app, options)
    assert done.exit_code == 1 and "10 image embeddings in 3 parts" in done.stdout
    assert "1 of 11 inputs failed" in done.stderr and f"p{BAD:02d}.png" in done.stderr
    cells = pa.table({"image": [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(pictures.iterdir())]})
    pq.write_table(cells, tmp_path / "cells.parquet")
    one = [
        "--manifest",
        str(tmp_path / "cells.parquet"),
        "-m",
        NAME,
        "-o",
        str(tmp_path / "one.npz"),
        "-b",
        "2",
        "--device",
        "cpu",
    ]
    whole = cli.invoke(app, ["embed", *one])
    assert whole.exit_code == 1 and "one.npz: 10 image embeddings of 64 values" in whole.stdout, (
        "and one file of bytes in a table"
    )
    np.testing.assert_allclose(
        vectors(load_embeddings(tmp_path / "one.npz")), vectors(load_embeddings(tmp_path / "out")), atol=1e-6
    )
    assert "cells.parquet/4/image" in (tmp_path / "one.npz.errors.csv").read_text() and not list(tmp_path.glob("*.partial"))
    for wrong, message in (
        (["--workers", "2"], "belong to --engine ray"),
        (["--engine", "spark"], "--engine"),
        (["-o", "s3://bucket/x.npz"], "one file goes to a local disk"),
        (["-o", f"{tmp_path}/x.npz", "--engine", "ray"], "for a folder of parts"),
    ):
        refused = cli.invoke(app, [*options, *wrong])
        assert refused.exit_code == 2 and message in refused.stderr
