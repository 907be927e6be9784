"""Which items a command line names: files, folders, patterns, texts, manifests; and their read options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import vitlens
from vitlens.cli.app import app
from vitlens.cli.inputs import gather
from vitlens.errors import InputError, OptionError
from vitlens.model import ViTLens
from vitlens.read_options import parse_read_options
from vitlens.store.files import load_embeddings
from vitlens.store.job import Job, Settings

NAME = "vitlens-tiny-random"


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load(NAME, modalities=["image", "text"], device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / "p00.png")
    return folder


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
    assert "not that of a .txt file of imu or point_cloud or pressure or text" in failed["words.txt"]
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
        ("a.csv", b"image,caf\xe9\na.png,1\n", "line 1: cannot be decoded"),
        ("a.csv", 'image\n"a.png\n', r"line 2: cannot be decoded"),
        ("a.csv", "image\na.png\n".encode("utf-16"), "line 1: cannot be decoded"),
        ("a.jsonl", '{"image": "a.png"}\n\n{"image": \n', "line 3: cannot be decoded"),
        ("a.jsonl", b'{"image": "a.png"}\n{"image": "\xff"}\n', "line 2: cannot be decoded"),
        ("a.jsonl", '{"image": "a.png"}\n{"text": "\\ud83d"}\n', "line 2: cannot be decoded"),
        ("a.jsonl", '{"image": "a.png"}\n[' + "[" * 100_000, "line 2: cannot be decoded"),
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


def test_names_that_are_no_utf8_come_out_of_every_kind_of_table(tmp_path: Path) -> None:
    name = "caf\udce9.png"
    (tmp_path / "a.csv").write_bytes(b"image,text\ncaf\xe9.png,a dog\n")
    (tmp_path / "a.tsv").write_bytes(b"image\ttext\ncaf\xe9.png\ta dog\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": name, "text": "a dog"}))
    for kind in ("csv", "tsv", "jsonl"):
        image, text = gather(manifest=tmp_path / f"a.{kind}").items
        assert (image.name, image.source, text.name) == (name, tmp_path / name, "a dog")
