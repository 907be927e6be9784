"""The embedding job: formats, order, stopping at any moment and going on, errors among good inputs, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vitlens
from vitlens.cli.app import app
from vitlens.cli.inputs import gather
from vitlens.errors import OptionError
from vitlens.model import ViTLens
from vitlens.store.files import holds_embeddings, load_embeddings
from vitlens.store.job import Job, Settings, Stopped
from vitlens.store.work_folder import WorkFolder

NAME = "vitlens-tiny-random"


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load(NAME, modalities=["image", "text"], device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for place in range(11):
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"p{place:02d}.png")
    (folder / "p04.png").write_bytes(b"not a picture")
    return folder


def job(folder: Path, out: Path, texts: tuple[str, ...] = (), **settings: object) -> Job:
    inputs = gather([str(folder / "*.png")], texts=texts)
    return Job(inputs, out, NAME, Settings(batch_size=2, save_every=2, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["npz", "parquet", "safetensors"])
def test_the_output_holds_the_model_s_embeddings_in_input_order(
    kind: str, pictures: Path, tmp_path: Path, model: ViTLens
) -> None:
    out = tmp_path / f"out.{kind}"
    result = job(pictures, out, ("a dog", "büro 猫")).run(lambda modalities: model)
    stored = load_embeddings(out)
    good = [path for path in sorted(pictures.glob("*.png")) if path.name != "p04.png"]
    assert holds_embeddings(out)
    assert (stored.space, stored.model) == (model.space, NAME)
    assert stored.names == {"image": [str(path) for path in good], "text": ["a dog", "büro 猫"]}
    assert stored.rows == {"image": [0, 1, 2, 3, 5, 6, 7, 8, 9, 10], "text": [11, 12]}
    direct = model.encode({"image": good, "text": ["a dog", "büro 猫"]}, batch_size=1)
    for modality, vectors in direct.items():
        torch.testing.assert_close(stored[modality], vectors, atol=1e-5, rtol=0)
    assert result.counts == {"image": 10, "text": 2}
    assert result.output == out
    assert not out.with_name(out.name + ".partial").exists()


def test_a_parquet_of_several_modalities_keeps_the_order_of_the_inputs(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    pandas = pytest.importorskip("pandas")
    lines = [{"image": str(pictures / f"p{i:02d}.png"), "text": f"picture {i}"} for i in (3, 1, 2)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out.parquet"
    Job(gather(manifest=tmp_path / "m.jsonl"), out, NAME, Settings()).run(lambda modalities: model)
    table = pandas.read_parquet(out)
    assert table["row"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table["item"].tolist()[1::2] == ["picture 3", "picture 1", "picture 2"]
    assert len(table["embedding"][0]) == 64


class Interrupt:
    """Raises Ctrl-C once so many items of a modality are done."""

    def __init__(self, modality: str, after: int) -> None:
        self.modality = modality
        self.after = after

    def __call__(self, what: str, done: int, total: int) -> None:
        if what == self.modality and done >= self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("modality", "after", "done"), [("image", 0, 0), ("image", 2, 2), ("image", 8, 8), ("text", 0, 11), ("text", 2, 13)]
)
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_job_stopped_by_ctrl_c_gives_the_same_file_in_the_end(
    modality: str, after: int, done: int, kind: str, pictures: Path, tmp_path: Path, model: ViTLens
) -> None:
    texts = ("one", "two")
    whole, halves = tmp_path / f"whole.{kind}", tmp_path / f"halves.{kind}"
    job(pictures, whole, texts).run(lambda modalities: model)
    with pytest.raises(Stopped) as stopped:
        job(pictures, halves, texts).run(lambda modalities: model, progress=Interrupt(modality, after))
    assert not halves.exists()
    todo: dict[str, int] = {}
    result = job(pictures, halves, texts).run(
        lambda modalities: model, progress=lambda what, at, of: todo.setdefault(what, of - at)
    )
    assert result.resumed == done, "whole batches of 2 that were finished before"
    assert sum(todo.values()) == 13 - done, "no item is embedded twice"
    assert (f"{done} of 13 items are kept" if done else "no item was embedded yet") in str(stopped.value)
    assert halves.read_bytes() == whole.read_bytes()
    assert (tmp_path / f"halves.{kind}.errors.csv").read_text() == (tmp_path / f"whole.{kind}.errors.csv").read_text()


def test_a_command_that_is_killed_or_terminated_goes_on_where_it_was(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = os.getcwd()
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    chance = np.random.default_rng(0)
    for place in range(16):  # slow to decode, so that the job is still busy when it is killed
        noise = chance.integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(f"in/s{place:02d}.jpg")
    for place in (0, 1, 2, 4):
        shutil.copy(pictures / f"p{place:02d}.png", f"in/p{place:02d}.png")
    command = ["embed", "in", "--model", NAME, "--device", "cpu", "-b", "1", "--save-every", "1", "-o"]
    partial = Path("stopped.npz.partial")
    environment = {**os.environ, "PYTHONPATH": root}

    def parts() -> int:
        return len(list(partial.glob("*/*.safetensors")))

    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        before = parts()
        process = subprocess.Popen(
            [sys.executable, "-m", "vitlens", *command, "stopped.npz"], env=environment, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while parts() < before + 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == code, f"the job was still running; it said {said}"
        if number == signal.SIGTERM:
            assert f"stopped: {parts()} of 20 items are kept in stopped.npz.partial; the same command goes on" in said
    before = parts()
    assert 4 <= before < 20
    runner = CliRunner()
    stopped, whole = (runner.invoke(app, [*command, out, "--json"]) for out in ("stopped.npz", "whole.npz"))
    assert (stopped.exit_code, whole.exit_code) == (1, 1), "one picture is broken"
    assert json.loads(stopped.stdout)["resumed"] == before
    assert json.loads(stopped.stdout)["counts"] == json.loads(whole.stdout)["counts"] == {"image": 19}
    assert not partial.exists()
    assert Path("stopped.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert Path("stopped.npz.errors.csv").read_text() == Path("whole.npz.errors.csv").read_text()


def stopped_job(pictures: Path, out: Path, model: ViTLens) -> None:
    with pytest.raises(Stopped):
        job(pictures, out).run(lambda modalities: model, progress=Interrupt("image", 6))


def test_another_job_on_the_same_work_folder_is_refused(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out.npz"
    stopped_job(pictures, out, model)
    (tmp_path / "other.png").write_bytes((pictures / "p00.png").read_bytes())
    others = [
        Job(gather([str(tmp_path / "other.png")]), out, NAME, Settings(batch_size=2)),
        Job(gather([str(pictures / "*.png")]), out, "vitlens-l", Settings(batch_size=2)),
        job(pictures, out, dtype="bf16"),
        job(pictures, out, read_options={"image": {"exif": False}}),
    ]
    for other in others:
        with pytest.raises(OptionError, match="another job") as refused:
            other.run(lambda modalities: model)
        assert "delete the folder" in str(refused.value)
    assert job(pictures, out).run(lambda modalities: model).resumed == 6, "and nothing was lost by trying"


def test_a_job_goes_on_with_more_and_fewer_files(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    folder, out = tmp_path / "in", tmp_path / "out.npz"
    shutil.copytree(pictures, folder)
    stopped_job(folder, out, model)
    (folder / "p02.png").unlink()
    (folder / "p99.png").write_bytes((folder / "p09.png").read_bytes())
    with pytest.raises(Stopped):
        job(folder, out).run(lambda modalities: model, progress=Interrupt("image", 8))
    result = job(folder, out).run(lambda modalities: model)
    assert [Path(name).name for name in load_embeddings(out).names["image"]][-2:] == ["p10.png", "p99.png"]
    report = {Path(failure.name).name: failure.error for failure in result.failures}
    assert report.keys() == {"p02.png", "p04.png"} and "one of the items when the job began" in report["p02.png"]
    assert len((tmp_path / "out.npz.errors.csv").read_text().splitlines()) == 3
    again = Job(gather([str(folder)]), tmp_path / "again.npz", NAME, Settings()).run(lambda modalities: model)
    assert [failure.name for failure in again.failures] == [str(folder / "p04.png")], "a job of its own"


def test_other_weights_under_the_same_name_are_noticed(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out.npz"
    stopped_job(pictures, out, model)
    other = vitlens.load(NAME, modalities=["image", "text"], device="cpu")
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    with pytest.raises(OptionError, match="weights"):
        job(pictures, out).run(lambda modalities: other)


def test_a_damaged_part_is_done_again(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out, whole = tmp_path / "out.npz", tmp_path / "whole.npz"
    stopped_job(pictures, out, model)
    first, *_ = sorted((tmp_path / "out.npz.partial").glob("*/*.safetensors"))
    first.write_bytes(first.read_bytes()[:-100])
    unfinished = first.with_name(".x.safetensors.1.part")
    unfinished.write_bytes(b"unfinished")
    assert job(pictures, out).run(lambda modalities: model).resumed == 4
    job(pictures, whole).run(lambda modalities: model)
    assert out.read_bytes() == whole.read_bytes()


def test_a_job_killed_while_merging_needs_no_model_again(
    pictures: Path, tmp_path: Path, model: ViTLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    out = tmp_path / "out.npz"
    monkeypatch.setattr("vitlens.store.job.write_embeddings", die)
    with pytest.raises(OSError, match="No space"):
        job(pictures, out).run(lambda modalities: model)
    monkeypatch.undo()

    def load(modalities: list[str]) -> ViTLens:
        raise AssertionError("nothing is left to embed")

    assert job(pictures, out).run(load).resumed == 11
    assert len(load_embeddings(out).names["image"]) == 10


def test_two_processes_do_not_share_a_work_folder(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out.npz"
    first = WorkFolder(out)
    first.open({"model": NAME}, [])
    with pytest.raises(OptionError, match="in use"):
        job(pictures, out).run(lambda modalities: model)
    first.close()
    assert job(pictures, out).run(lambda modalities: model).output == out


def test_failed_inputs_are_listed_and_the_rest_goes_on(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out.npz"
    missing = str(tmp_path / "missing.png")
    inputs = gather([str(pictures / "p03.png"), missing, str(pictures / "p04.png"), str(pictures / "p05.png")])
    result = Job(inputs, out, NAME, Settings()).run(lambda modalities: model)
    lines = (tmp_path / "out.npz.errors.csv").read_text().splitlines()
    assert lines[0] == "item,modality,error"
    assert [line.split(",")[0] for line in lines[1:]] == [missing, str(pictures / "p04.png")]
    assert "no such file" in lines[1]
    assert load_embeddings(out).rows == {"image": [0, 3]}
    assert [failure.row for failure in result.failures] == [1, 2]

    again = Job(gather([str(pictures / "p03.png")]), out, NAME, Settings(overwrite=True)).run(lambda modalities: model)
    assert again.errors_file is None
    assert not (tmp_path / "out.npz.errors.csv").exists(), "a list of errors of an earlier run would mislead"


def test_nothing_readable_writes_no_output(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    result = Job(gather([str(pictures / "p04.png")]), tmp_path / "out.npz", NAME, Settings()).run(lambda modalities: model)
    assert result.output is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz.errors.csv"]


def test_outputs_that_cannot_be_are_refused_before_the_model_is_loaded(pictures: Path, tmp_path: Path) -> None:
    def load(modalities: list[str]) -> ViTLens:
        raise AssertionError("loaded")

    (tmp_path / "there.npz").write_bytes(b"x")
    for name, message in (("there.npz", "exists"), ("out.csv", "type must be"), ("", "type must be")):
        with pytest.raises(OptionError, match=message):
            job(pictures, tmp_path / name).run(load)
    inputs = gather([str(tmp_path / "there.npz")], modalities=["image"])
    with pytest.raises(OptionError, match="one of the inputs"):
        Job(inputs, tmp_path / "there.npz", NAME, Settings(overwrite=True)).run(load)
    assert (tmp_path / "there.npz").read_bytes() == b"x"


def test_a_model_that_cannot_be_loaded_leaves_no_folder(pictures: Path, tmp_path: Path) -> None:
    def load(modalities: list[str]) -> ViTLens:
        raise OptionError("no")

    with pytest.raises(OptionError):
        job(pictures, tmp_path / "out.npz").run(load)
    assert list(tmp_path.iterdir()) == []


def test_names_of_any_bytes_come_through_a_whole_job(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work must not be lost at its end, to the name of one file."""
    monkeypatch.chdir(tmp_path)
    for name in (b"good\xe9.png", b"\xff\xfe.png"):
        Path(os.fsdecode(name)).write_bytes((pictures / "p00.png").read_bytes())
    Path(os.fsdecode(b"bad\xe9.png")).write_bytes(b"no picture")
    command = ["embed", ".", "--as", "image", "--model", NAME, "--device", "cpu"]
    for kind in ("npz", "parquet", "safetensors"):
        out = os.fsdecode(b"o\xe9." + kind.encode())
        for extra in ([], ["--overwrite"], ["--overwrite", "--json"]):
            done = CliRunner().invoke(app, [*command, "-o", out, *extra])
            assert done.exit_code == 1 and "bad" in done.output, done.output
        assert json.loads(done.stdout)["errors"][0]["item"] == "./bad\udce9.png"
        assert [os.fsencode(name) for name in load_embeddings(out).names["image"]] == [b"./good\xe9.png", b"./\xff\xfe.png"]
        assert b"./bad\xe9.png,image," in Path(out + ".errors.csv").read_bytes()
    with open("m.csv", "wb") as manifest:
        manifest.write(b"image\ngood\xe9.png\nbad\xe9.png\ngone\xe9.png\n")
    done = CliRunner().invoke(app, ["embed", "--manifest", "m.csv", "--model", NAME, "--device", "cpu", "-o", "m.parquet"])
    assert done.exit_code == 1 and load_embeddings("m.parquet").names["image"] == ["good\udce9.png"]
    assert [line.split(b",")[0] for line in Path("m.parquet.errors.csv").read_bytes().splitlines()[1:]] == [
        b"bad\xe9.png",
        b"gone\xe9.png",
    ]
    assert CliRunner().invoke(app, ["embed", ".", "--as", "image", "--dry-run"]).exit_code == 0


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["npz", "parquet", "safetensors"])
@pytest.mark.parametrize("room", [0, 100, 5_000, 13_000, 30_000])
def test_a_disk_that_is_full_names_the_file(room: int, kind: str, tmp_path: Path, model: ViTLens) -> None:
    """In turn nothing can be written, the job's card, the digests, the parts; the output is what does not fit in the end."""
    out = tmp_path / f"out.{kind}"
    inputs = gather(texts=[f"text number {number}" for number in range(120)])
    made = Job(inputs, out, NAME, Settings(save_every=32))
    with room_for(room), pytest.raises(OSError, match=r"arge|full|Errno") as full:
        made.run(lambda modalities: model)
    assert str(full.value.filename).startswith(str(out)) and full.value.strerror
    assert not out.exists()
    assert (made.run(lambda modalities: model).resumed > 0) == (room >= 13_000)
    assert len(load_embeddings(out)["text"]) == 120
