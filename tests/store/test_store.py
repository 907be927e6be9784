"""The store: computed once, keyed by weights, preprocessing and content, whole after a kill, with errors that name the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from tests.train.tiny import tiny_clip, world
from vitlens.errors import InputError
from vitlens.modality import get_modality
from vitlens.model import ViTLens
from vitlens.store.digests import Contents, model_hash, stack_digests, text_digest
from vitlens.store.engine import Engine
from vitlens.store.items import source_name
from vitlens.store.parts import Part, Parts
from vitlens.store.store import EmbeddingStore, default_folder
from vitlens.train.anchors import AnchorTable
from vitlens.train.records import Captions, Reader, open_records

ABOUT = {"weights": "m", "dim": 4}


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return tiny_clip()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / f"{index}.png" for index in range(12)]
    for file, row in zip(files, world(12), strict=True):
        PIL.Image.fromarray(row["image"]).save(file)
    return files


def test_embeddings_are_the_model_s_and_are_computed_once(model: ViTLens, pictures: list[Path], tmp_path: Path) -> None:
    store, engine = EmbeddingStore(tmp_path), Engine(model, 4)
    found = store.embed(engine, "image", pictures)
    expected = model.encode({"image": pictures}, batch_size=4, normalize=False)["image"]
    assert torch.equal(found.vectors, expected)
    assert found.kept == list(range(12)) and not found.errors and found.missing == 0
    assert store.computed == 12 and set(engine.hashes) == {"image"}
    again = EmbeddingStore(tmp_path)
    assert torch.equal(again.embed(Engine(model, 4), "image", pictures).vectors, expected)
    assert again.computed == 0
    assert not torch.allclose(expected.norm(dim=-1), torch.ones(12)), "kept as they come, not normalised"


def test_other_weights_preprocessing_or_precision_are_kept_apart(pictures: list[Path], tmp_path: Path) -> None:
    def computed(model: ViTLens, precision: str = "fp32", **options: Any) -> int:
        store = EmbeddingStore(tmp_path)
        listed = store.listed(pictures[:4], model.modality("image"), read_options=options)
        store.embed(Engine(model, 4, precision=precision), "image", listed)
        return store.computed

    assert computed(tiny_clip()) == 4
    changed, other = tiny_clip(), tiny_clip()
    with torch.no_grad():
        changed.encoders["image"].vit.proj[0, 0] += 1e-6
    spec = other.modality("image")
    other._modalities["image"] = type(spec)(**{**spec.options(), "interpolation": "nearest"})
    assert computed(changed) == 4
    assert computed(other) == 4
    assert computed(tiny_clip(), "bf16") == 4
    assert computed(tiny_clip(), exif=False) == 4
    assert [computed(tiny_clip()), computed(tiny_clip(), "bf16"), computed(tiny_clip(), exif=False)] == [0, 0, 0]


def test_texts_are_embedded_once_and_equal_ones_together(model: ViTLens, tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    found = store.embed(Engine(model), "text", ["a disc", "a bar", "a disc"])
    assert store.computed == 2
    assert torch.equal(found.vectors[0], found.vectors[2])
    assert not torch.equal(found.vectors[0], found.vectors[1])


def test_a_text_that_is_the_name_of_a_file_is_a_text(model: ViTLens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = Engine(model)
    first = EmbeddingStore("store").embed(engine, "text", ["disc"]).vectors
    Path("disc").write_text("a bar")
    store = EmbeddingStore("store")
    assert torch.equal(store.embed(engine, "text", ["disc"]).vectors, first) and store.computed == 0


def test_a_file_that_does_not_decode_is_named_or_skipped(model: ViTLens, pictures: list[Path], tmp_path: Path) -> None:
    bad, twin, gone = tmp_path / "bad.png", tmp_path / "twin.png", tmp_path / "gone.png"
    for path in (bad, twin):
        path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    items: list[Any] = [pictures[0], bad, pictures[1], gone, {"source": twin}, pictures[2]]
    store = EmbeddingStore(tmp_path / "store")
    with pytest.raises(InputError, match=r"gone\.png"):
        store.embed(Engine(model), "image", items)
    del items[3]
    with pytest.raises(InputError, match=r"bad\.png"):
        store.embed(Engine(model, 1), "image", items)
    items.insert(3, gone)
    found = store.embed(Engine(model), "image", items, on_error="skip")
    assert found.kept == [0, 2, 5]
    assert {index: error.source for index, error in found.errors.items()} == {1: str(bad), 3: str(gone), 4: str(twin)}
    assert torch.allclose(found.vectors, model.encode({"image": pictures[:3]}, normalize=False)["image"], atol=1e-5)
    nothing = store.embed(Engine(model), "image", [bad], on_error="skip")
    assert nothing.vectors.shape == (0, model.space.dim) and nothing.kept == []


def test_what_could_not_be_read_is_tried_again_in_batches_of_its_own(
    model: ViTLens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row["image"] for row in world(6)]
    rows[1] = np.zeros((4, 4, 7), np.uint8)
    first = EmbeddingStore(tmp_path).embed(Engine(model, 2), "image", rows[:4], on_error="skip")
    assert list(first.errors) == [1]
    batches: list[int] = []
    stream = ViTLens.stream

    def watched(self: ViTLens, modality: str, items: Any, **settings: Any) -> Any:
        batches.append(len(items))
        return stream(self, modality, items, **settings)

    monkeypatch.setattr(ViTLens, "stream", watched)
    assert list(EmbeddingStore(tmp_path).embed(Engine(model, 2), "image", rows, on_error="skip").errors) == [1]
    assert batches == [2, 1], "two new ones, and then the bad one alone"
    with pytest.raises(InputError, match=r"4, 4, 7"):
        EmbeddingStore(tmp_path).embed(Engine(model, 2), "image", [*rows, world(7)[6]["image"]])
    assert batches == [2, 1, 1], "where an error ends the run, it ends it before hours of work"
    known = EmbeddingStore(tmp_path).embed(Engine(model, 2), "image", rows, on_error="skip", again=False)
    assert list(known.errors) == [1] and "7" in known.errors[1].reason and batches == [2, 1, 1]


def test_items_are_opened_when_their_batch_is_formed(model: ViTLens, tmp_path: Path) -> None:
    """A list may be larger than the memory: what opens its items is asked for one batch after the other."""
    opened: list[int] = []
    images = [row["image"] for row in world(8)]

    class Late:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            opened.append(index)
            return images[index]

    seen: list[int] = []
    store = EmbeddingStore(tmp_path)
    listed = store.listed(Late(), model.modality("image"))
    opened.clear()
    store.embed(Engine(model, 2), "image", listed, progress=lambda what, done, total: seen.append(len(set(opened))))
    assert seen == [0, 2, 4, 6, 8]


def test_the_model_hash_sees_every_value_and_name() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert model_hash(one) == model_hash(other)
    assert model_hash(one) != model_hash(torch.nn.Sequential(one))
    with torch.no_grad():
        other.bias[1] += 1e-7
    assert model_hash(one) != model_hash(other)


def test_a_file_is_known_by_its_content_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "a.png", tmp_path / "b\udce9.png"]
    for file in files:
        PIL.Image.fromarray(world(1)[0]["image"]).save(file, format="png")
    with Contents(tmp_path / "store") as contents:
        first, second = (contents.digest(file) for file in files)
        assert first == second == contents.digest(files[0].read_bytes())
    read: list[Path] = []
    monkeypatch.setattr("vitlens.store.digests._blocks", lambda path: [read.append(path) or path.read_bytes()])
    with Contents(tmp_path / "store") as again:
        assert [again.digest(file) for file in files] == [first, second] and not read, "unchanged: not read again"
        stat = files[0].stat()
        files[0].write_bytes(b"x" * stat.st_size)
        os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert again.digest(files[0]) != first, "size and time of writing are the old ones, but it was written to"
        assert contents_differ(again)
        with pytest.raises(InputError, match="gone"):
            again.digest(tmp_path / "gone.png")


def contents_differ(contents: Contents) -> bool:
    """Whether things that look alike but are not have different digests."""
    zeros, long = np.zeros((2, 3), np.float32), np.zeros(5000)
    long_too = long.copy()
    long_too[2500] = 1
    things = [zeros, zeros.reshape(3, 2), zeros.astype(np.float64), [zeros], [zeros, zeros], zeros.tobytes()]
    digests = [contents.digest(thing) for thing in things] + [text_digest("")]
    digests += [contents.digest(zeros, options) for options in ({"scale": 2}, {"scale": "2"}, {"k": long}, {"k": long_too})]
    return len(set(digests)) == len(digests)


def test_a_full_disk_names_the_file_of_digests(tmp_path: Path) -> None:
    (tmp_path / "contents.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(OSError, match="not a database") as error, Contents(tmp_path):
        pass
    assert error.value.filename == str(tmp_path / "contents.sqlite")


def test_files_that_were_not_finished_do_not_count(tmp_path: Path) -> None:
    parts = Parts(tmp_path, ABOUT)
    digests = stack_digests(text_digest(t) for t in "abc")
    parts.add(Part(digests[:2], np.ones((2, 4)), {b"d" * 16: InputError("x", "bad", "good")}))
    parts.add(Part(digests[2:], np.ones((1, 4))))
    first, _ = sorted(parts.path.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    first.write_bytes(first.read_bytes()[:-1])
    (parts.path / "empty.safetensors").write_bytes(b"")
    (parts.path / "noise.safetensors").write_bytes(b"\xff" * 100)
    (parts.path / ".x.part").write_bytes(b"")
    again = Parts(tmp_path, ABOUT)
    assert len(again) == 2 and (again.rows(digests) < 0).tolist() == [False, False, True]
    assert again.bad[b"d" * 16].found == "bad"
    parts.add(Part(digests[2:], np.ones((1, 4))))
    assert first.stat().st_size > 0 and len(list(parts.path.glob("*.safetensors"))) == 4, "the same items are the same file"
    again.reload()
    assert (again.rows(digests) >= 0).all()


WRITER = """
import sys
import numpy as np
from pathlib import Path
from vitlens.store.digests import stack_digests, text_digest
from vitlens.store.parts import Part, Parts
parts = Parts(Path(sys.argv[1]), {"weights": "m", "dim": 4})
print("go", flush=True)
for number in range(10**9):
    texts = [f"{number}/{i}" for i in range(8)]
    parts.add(Part(stack_digests(map(text_digest, texts)), np.array([[number, i, 0, 1] for i in range(8)], np.float32)))
"""


def test_several_writers_killed_at_any_moment_leave_whole_entries(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    time.sleep(0.5)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    parts = Parts(tmp_path, ABOUT)
    assert len(parts) >= 8
    texts = [(n, i) for n in range(len(parts) // 8) for i in range(8)]
    rows = parts.rows(stack_digests(text_digest(f"{n}/{i}") for n, i in texts))
    assert (rows >= 0).all()
    assert np.array_equal(parts.vectors(rows)[:, :2], np.array(texts, np.float32))
    assert all(isinstance(found, np.memmap) for found in parts._maps), "mapped, not read"


def table_of(model: ViTLens, rows: Any, *modalities: str) -> AnchorTable:
    table = open_records(rows)
    captions = Captions(table, columns=["text"], separator=None, label="label", templates=[]) if "text" in modalities else None
    readers = {"image": Reader(table, model.modality("image"))} if "image" in modalities else {}
    return AnchorTable(Engine(model, 4), table, modalities, readers=readers, captions=captions)


def test_anchors_are_the_model_s_and_share_the_store_with_everything_else(model: ViTLens, tmp_path: Path) -> None:
    rows, everything = world(10), np.arange(10)
    anchors = table_of(model, rows, "image", "text")
    assert anchors.fill(tmp_path) == 10 + 4, "ten pictures, four different captions"
    found = anchors.lookup(everything, np.zeros(10, np.int64))
    assert torch.allclose(found["image"], model.encode({"image": [r["image"] for r in rows]})["image"], atol=1e-6)
    assert torch.allclose(found["text"], model.encode({"text": [r["text"] for r in rows]})["text"], atol=1e-6)
    again = table_of(tiny_clip(), world(10), "image", "text")
    assert again.fill(tmp_path) == 0
    assert torch.equal(again.lookup(everything, np.zeros(10, np.int64))["image"], found["image"])
    assert table_of(model, world(12), "image").fill(tmp_path) == 2, "only what is new"
    store = EmbeddingStore(tmp_path)
    store.embed(Engine(model), "image", [row["image"] for row in rows])
    assert store.computed == 0


def test_a_row_whose_picture_cannot_be_read_has_no_anchor(tmp_path: Path) -> None:
    rows = world(6)
    rows[2]["image"] = np.zeros((4, 4, 7), np.uint8)
    rows[5]["image"] = None
    for _ in range(2):
        anchors = table_of(tiny_clip(), rows, "image")
        anchors.fill(tmp_path)
        assert anchors.usable().tolist() == [0, 1, 3, 4]
        assert "shape [4, 4, 7]" in anchors.unusable[2] and "nothing in column image" in anchors.unusable[5]


def test_names_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_name({"source": tmp_path / "a.png", "scale": 2}) == str(tmp_path / "a.png")
    assert source_name("b.wav") == "b.wav"
    monkeypatch.setenv("VITLENS_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "embeddings"


@pytest.mark.parametrize("name", ["../secret", "{above}/secret", "in/../../secret", "..\\secret"])
@pytest.mark.parametrize(
    ("modality", "file", "text"),
    [
        ("eeg", "a.vhdr", "DataFile={name}\n"),
        ("point_cloud", "a.obj", "mtllib {name}\n"),
        ("point_cloud", "a.gltf", '{{"uri": "{name}"}}'),
    ],
)
def test_no_file_outside_a_folder_belongs_to_one_in_it(modality: str, file: str, text: str, name: str, tmp_path: Path) -> None:
    """What belongs to a file is hashed, and served as an example: its maker may not choose."""
    (tmp_path / "secret").write_text("a key")
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "folder" / file).write_text(text.format(name=name.format(above=tmp_path)))
    assert get_modality(modality).companions(tmp_path / "folder" / file) == []


@pytest.mark.parametrize(
    ("modality", "files", "changed"),
    [
        ("eeg", {"a.vhdr": "DataFile=other.eeg\nMarkerFile=$b.vmrk\n", "a.vmrk": "Mk1=", "other.eeg": "12"}, "other.eeg"),
        ("eeg", {"a.vhdr": "DataFile=$b.eeg\r\nMarkerFile=a.vmrk\r\n", "a.vmrk": "Mk1=", "a.eeg": "12"}, "a.vmrk"),
        ("eeg", {"a.vhdr": "datafile = OTHER.EEG\n", "other.eeg": "12"}, "other.eeg"),
        ("eeg", {"a.set": "a header", "a.fdt": "values"}, "a.fdt"),
        ("eeg", {"a_raw.fif": "a header", "a_raw-1.fif": "values"}, "a_raw-1.fif"),
        ("point_cloud", {"a.obj": "mtllib the chair.mtl\n", "the chair.mtl": "map_Kd t/a.png\n", "t/a.png": "red"}, "t/a.png"),
        ("point_cloud", {"a.obj": "mtllib b.mtl\n", "b.mtl": "map_Kd -s 1 1 1 c.png\n", "c.png": "red"}, "c.png"),
        ("point_cloud", {"a.gltf": '{"buffers": [{"uri": "my%20mesh.bin"}]}', "my mesh.bin": "12"}, "my mesh.bin"),
    ],
)
def test_a_digest_covers_the_files_that_belong_to_a_file(
    modality: str, files: dict[str, str], changed: str, tmp_path: Path
) -> None:
    """A header of a recording is often the same, letter by letter, as another one's."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, newline="")
    (tmp_path / "unrelated.eeg").write_text("1")
    first, sensor = tmp_path / next(iter(files)), get_modality(modality)
    with Contents(tmp_path / "store") as contents:
        before = contents.digest(first, None, sensor)
        (tmp_path / "unrelated.eeg").write_text("2")
        assert contents.digest(first, None, sensor) == before
        (tmp_path / changed).write_text("something else")
        assert contents.digest(first, None, sensor) != before
        (tmp_path / changed).unlink()
        assert contents.digest(first, None, sensor) != before
