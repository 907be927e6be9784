"""The embedding job: formats, order, stopping at any moment and going on, errors among good inputs, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vitlens
from vitlens.cli.app import app
from vitlens.cli.inputs import gather, parse_read_options
from vitlens.errors import InputError, OptionError
from vitlens.model import ViTLens
from vitlens.store.files import holds_embeddings, load_embeddings
from vitlens.store.job import Job, Settings, Stopped, fingerprint
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
def test_every_format_gives_back_what_was_put_in(kind: str, pictures: Path, tmp_path: Path, model: ViTLens) -> None:
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
    """Raises Ctrl-C when so many items are done."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2, 5, 11, 13])
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_job_stopped_by_ctrl_c_gives_the_same_file_in_the_end(
    after: int, kind: str, pictures: Path, tmp_path: Path, model: ViTLens
) -> None:
    texts = ("one", "two")
    whole, halves = tmp_path / f"whole.{kind}", tmp_path / f"halves.{kind}"
    job(pictures, whole, texts).run(lambda modalities: model)
    with pytest.raises(Stopped) as stopped:
        job(pictures, halves, texts).run(lambda modalities: model, advance=Interrupt(after))
    assert not halves.exists()
    encoded = 0

    def count() -> None:
        nonlocal encoded
        encoded += 1

    result = job(pictures, halves, texts).run(lambda modalities: model, advance=count)
    done = result.resumed
    assert done == {1: 0, 2: 0, 5: 4, 11: 10, 13: 11}[after], "whole batches of 2 that were finished before"
    assert encoded == 13 - done, "no item is embedded twice"
    assert (f"{done} of 13 items are kept" if done else "no item was embedded yet") in str(stopped.value)
    assert halves.read_bytes() == whole.read_bytes()
    assert (tmp_path / f"halves.{kind}.errors.csv").read_text() == (tmp_path / f"whole.{kind}.errors.csv").read_text()


def test_a_killed_job_goes_on_where_it_was(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.getcwd()
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save("in/s00.jpg")  # slow to decode, so that the job is still busy when it is killed
    for place in range(1, 16):
        os.link("in/s00.jpg", f"in/s{place:02d}.jpg")
    for place in (0, 1, 2, 4):
        shutil.copy(pictures / f"p{place:02d}.png", f"in/p{place:02d}.png")
    command = ["embed", "in", "--model", NAME, "--device", "cpu", "-b", "1", "--save-every", "1", "-o"]
    partial = Path("killed.npz.partial")
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen([sys.executable, "-m", "vitlens", *command, "killed.npz"], env=environment)
    deadline = time.monotonic() + 120
    while len(list(partial.glob("image-*.npz"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the job was still running"
    before = len(list(partial.glob("image-*.npz")))
    assert 2 <= before < 20

    runner = CliRunner()
    killed, whole = (runner.invoke(app, [*command, out, "--json"]) for out in ("killed.npz", "whole.npz"))
    assert (killed.exit_code, whole.exit_code) == (1, 1), "one picture is broken"
    assert json.loads(killed.stdout)["resumed"] == before
    assert json.loads(killed.stdout)["counts"] == json.loads(whole.stdout)["counts"] == {"image": 19}
    assert not partial.exists()
    first, second = load_embeddings("killed.npz"), load_embeddings("whole.npz")
    assert first.names == second.names
    torch.testing.assert_close(first["image"], second["image"], atol=1e-6, rtol=0)
    assert Path("killed.npz.errors.csv").read_text() == Path("whole.npz.errors.csv").read_text()


def stopped_job(pictures: Path, out: Path, model: ViTLens) -> None:
    with pytest.raises(Stopped):
        job(pictures, out).run(lambda modalities: model, advance=Interrupt(7))


def test_another_job_on_the_same_work_folder_is_refused(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out.npz"
    stopped_job(pictures, out, model)
    others = [
        Job(gather([str(pictures / "p0*.png")]), out, NAME, Settings(batch_size=2)),
        Job(gather([str(pictures / "*.png")]), out, "vitlens-l", Settings(batch_size=2)),
        job(pictures, out, dtype="bf16"),
        job(pictures, out, read_options={"image": {"exif": False}}),
    ]
    for other in others:
        with pytest.raises(OptionError, match="another job") as refused:
            other.run(lambda modalities: model)
        assert "delete the folder" in str(refused.value)
    assert job(pictures, out).run(lambda modalities: model).resumed == 6, "and nothing was lost by trying"


def test_other_weights_under_the_same_name_are_noticed(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out = tmp_path / "out.npz"
    stopped_job(pictures, out, model)
    other = vitlens.load(NAME, modalities=["image", "text"], device="cpu")
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    with pytest.raises(OptionError, match="weights"):
        job(pictures, out).run(lambda modalities: other)


def test_a_damaged_shard_is_done_again(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    out, whole = tmp_path / "out.npz", tmp_path / "whole.npz"
    stopped_job(pictures, out, model)
    first, *_ = sorted((tmp_path / "out.npz.partial").glob("image-*.npz"))
    first.write_bytes(first.read_bytes()[:100])
    (tmp_path / "out.npz.partial" / ".image-000000000008.npz.1.part").write_bytes(b"unfinished")
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
    first.open({"model": NAME})
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


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """Two point clouds, a truncated and an empty one, and a file that no modality reads."""
    folder = tmp_path / "clouds"
    folder.mkdir()
    for place in range(2):
        np.save(folder / f"good{place}.npy", np.random.default_rng(place).normal(size=(100, 3)).astype(np.float32))
    (folder / "bad.npy").write_bytes((folder / "good0.npy").read_bytes()[:60])
    (folder / "empty.npy").write_bytes(b"")
    (folder / "notes.md").write_text("no sensor")
    return folder


def outcome(inputs: list[Path], modality: str | None = None) -> tuple[list[str], dict[str, str]]:
    found = gather([str(path) for path in inputs], modalities=[modality] if modality else [])
    return [Path(item.name).name for item in found.items], {Path(bad.name).name: bad.error for bad in found.failures}


def test_files_whose_modality_cannot_be_guessed_fail_alone(clouds: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a dog barks", encoding="utf-16")
    for inputs in ([clouds], [clouds / "*.npy"], [clouds / name for name in ("bad.npy", "empty.npy", "good0.npy", "good1.npy")]):
        taken, failed = outcome(inputs)
        assert taken == ["good0.npy", "good1.npy"]
        assert list(failed) == ["bad.npy", "empty.npy"]
        assert all("may be depth or eeg" in error and "--as MODALITY" in error for error in failed.values())
    taken, failed = outcome([words, clouds / "good0.npy", clouds / "notes.md"])
    assert taken == ["good0.npy"] and list(failed) == ["words.txt", "notes.md"]
    assert "not that of a .txt file of point_cloud or text" in failed["words.txt"]
    assert "1 other files passed over" in gather([str(clouds)]).notes[0]
    with pytest.raises(InputError, match=r"bad\.npy: may be depth or eeg \(2 files .*--as MODALITY"):
        outcome([clouds / "bad.npy", clouds / "empty.npy"])


def test_a_modality_that_is_said_takes_damaged_files_too(clouds: Path, tmp_path: Path) -> None:
    assert outcome([clouds], "point_cloud") == (["bad.npy", "empty.npy", "good0.npy", "good1.npy"], {})
    command = ["embed", str(clouds), "--as", "point_cloud", "-o", str(tmp_path / "o.npz"), "--model", NAME, "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, result.output
    assert len(load_embeddings(tmp_path / "o.npz")["point_cloud"]) == 2
    lines = (tmp_path / "o.npz.errors.csv").read_text().splitlines()[1:]
    assert ["cannot be decoded" in lines[0], "an empty file" in lines[1], len(lines)] == [True, True, 2]


def test_values_in_a_manifest_that_cannot_be_used_fail_alone(pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 50), 2000, np.uint16)).save(tmp_path / "d.png")
    shutil.copy(pictures / "p00.png", tmp_path / "p.png")
    rows = [
        {"depth": "d.png", "depth.scale": "abc", "image": "p.png"},
        {"depth": "d.png", "depth.scale": 0.001, "image": "p.png", "image.exif": "maybe"},
        {"image": 3, "image.exif": "no"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "o.npz"
    command = ["embed", "--manifest", str(tmp_path / "m.jsonl"), "-o", str(out), "--model", NAME, "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, result.output
    assert load_embeddings(out).rows == {"depth": [1], "image": [0]}
    lines = (tmp_path / "o.npz.errors.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in lines] == [["d.png", "depth"], ["p.png", "image"], ["3", "image"]]
    for line, message in zip(lines, ("scale must be", "image.exif must be true or false", "a int in column"), strict=True):
        assert message in line
    (tmp_path / "m.csv").write_text("image,image.exif\np.png,maybe\n")
    with pytest.raises(InputError, match=r"m\.csv, row 0: read option image\.exif"):
        gather(manifest=tmp_path / "m.csv")


def test_the_fingerprint_needs_no_float64_off_the_cpu(model: ViTLens, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fingerprint(model)
    moved: list[int] = []
    to_cpu, to_double = torch.Tensor.cpu, torch.Tensor.double

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tensor.numel())
        return to_cpu(tensor)

    def double(tensor: torch.Tensor) -> torch.Tensor:
        assert moved and moved.pop() == tensor.numel(), "float64 before the move to the CPU: Apple's MPS has none"
        return to_double(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch.Tensor, "double", double)
    assert fingerprint(model) == expected


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


def test_a_manifest_names_items_of_several_modalities_and_their_read_options(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,image,text,depth,depth.scale\n1,a.png,a dog,,\n2,,NA,sub/d.png,0.001\n")
    found = gather(manifest=tmp_path / "items.csv")
    assert [(item.row, item.modality, item.name) for item in found.items] == [
        (0, "image", "a.png"),
        (0, "text", "a dog"),
        (1, "text", "NA"),
        (1, "depth", "sub/d.png"),
    ]
    assert found.items[0].value == tmp_path / "a.png"
    assert found.items[3].value == {"source": tmp_path / "sub/d.png", "scale": 0.001}
    assert found.notes == ("columns not used: id",)
    assert [item.modality for item in gather(manifest=tmp_path / "items.csv", modalities=["depth"]).items] == ["depth"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_all_kinds_of_manifests_say_the_same(kind: str, tmp_path: Path) -> None:
    rows = [{"audio": "a.wav", "audio.rate": None, "text": "x, y"}, {"audio": None, "audio.rate": None, "text": "z"}]
    path = tmp_path / f"items.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(rows)
        frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    found = gather(manifest=path)
    assert [(item.modality, item.value) for item in found.items] == [
        ("audio", tmp_path / "a.wav"),
        ("text", "x, y"),
        ("text", "z"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "no column of a modality"),
        ("a.csv", "image,depth.scal\na.png,1\n", "no read option 'scal'"),
        ("a.csv", "image,image\na,b\n", "column twice"),
        ("a.csv", "image,text\na.png\n", "1 values in line 2"),
        ("a.csv", "image\n", "no rows"),
        ("a.csv", "image,text\n,\n", "empty"),
        ("a.csv", b"image\n\xff\xfe\n", "cannot be decoded"),
        ("a.jsonl", '{"image": "a.png"}\n{"image": \n', "cannot be decoded"),
        ("a.jsonl", "[1]\n", "a list"),
        ("a.jsonl", '{"image": 3}\n', "a int in column image"),
        ("a.parquet", "rubbish", "cannot be decoded"),
        ("a.txt", "image\na.png\n", "type .txt"),
        ("a.csv", "", "an empty file"),
    ],
)
def test_manifests_that_cannot_be_used_say_why(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    content = content.encode() if isinstance(content, str) else content
    if "depth.scal" in content.decode(errors="replace"):
        content = content.replace(b"image,", b"depth,")
    (tmp_path / name).write_bytes(content)
    with pytest.raises((InputError, OptionError), match=message):
        gather(manifest=tmp_path / name)


def test_folders_and_patterns_are_sorted_and_take_what_is_meant(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("deep/b.png", "deep/er/a.png", ".hidden/c.png", "[1].png"):
        (tmp_path / name).write_bytes((pictures / "p00.png").read_bytes())
    (tmp_path / "notes.md").write_text("no sensor")
    inside = [str(tmp_path / name) for name in ("[1].png", "deep/b.png", "deep/er/a.png")]
    found = gather([str(tmp_path)])
    assert [item.name for item in found.items] == inside
    assert "1 other files passed over" in found.notes[0]
    assert [item.name for item in gather([str(tmp_path / "**" / "*.png")]).items] == inside
    assert [item.name for item in gather([inside[0]]).items] == inside[:1], "a name with brackets is a name if it exists"
    assert len(gather([inside[0], str(tmp_path)]).items) == 3, "overlapping inputs name a file once"
    with pytest.raises(InputError, match="no modality reads"):
        gather([str(tmp_path / "notes.md")])
    with pytest.raises(InputError, match="no files there"):
        gather([str(tmp_path / "*.flac")])


def test_earlier_outputs_in_the_same_folder_are_no_inputs(pictures: Path, tmp_path: Path, model: ViTLens) -> None:
    (tmp_path / "a.png").write_bytes((pictures / "p00.png").read_bytes())
    for kind in ("npz", "parquet", "safetensors"):
        out = tmp_path / f"out.{kind}"
        result = Job(gather([str(tmp_path)]), out, NAME, Settings()).run(lambda modalities: model)
        assert result.counts == {"image": 1}
    (tmp_path / "x.npz.partial").mkdir()
    np.savez(tmp_path / "x.npz.partial" / "image-000000000000.npz", kept=np.arange(3))
    assert [Path(item.name).name for item in gather([str(tmp_path)]).items] == ["a.png"]


def test_read_options_are_parsed_and_checked() -> None:
    parsed = parse_read_options(["depth.scale=0.001", "image.exif=false", "depth.encoding=sunrgbd"])
    assert parsed == {"depth": {"scale": 0.001, "encoding": "sunrgbd"}, "image": {"exif": False}}
    assert parse_read_options(["scale=2"], "depth") == {"depth": {"scale": 2}}
    assert parse_read_options(["image.exif=yes", "image.format=3"]) == {"image": {"exif": True, "format": "3"}}
    for wrong in ("depth.scale", "scale=2", "=3", "depth.size=3", "image.exif=maybe"):
        with pytest.raises(OptionError):
            parse_read_options([wrong])


def test_files_that_are_not_ours_are_no_embeddings(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", depth=np.ones(3))
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "c.safetensors").write_bytes(b"\0" * 20)
    for name in ("a.npz", "b.parquet", "c.safetensors", "none.npz"):
        assert not holds_embeddings(tmp_path / name)
        with pytest.raises(InputError):
            load_embeddings(tmp_path / name)
