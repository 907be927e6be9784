"""The anchor cache: computed once, keyed by model, preprocessing and content, shared by processes, whole after a kill."""

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

from tests.train.tiny import DIM, tiny_clip, world
from vitlens.errors import InputError
from vitlens.model import ViTLens
from vitlens.store.cache import AnchorCache, Contents, model_hash, stack_digests, text_digest
from vitlens.train.anchors import AnchorTable
from vitlens.train.records import Captions, Reader, open_table


def table_of(model: ViTLens, rows: Any, *, modalities: tuple[str, ...] = ("image",), **options: Any) -> AnchorTable:
    table = open_table(rows)
    captions = Captions(table, columns=["text"], separator=None, label="label", templates=[]) if "text" in modalities else None
    readers = {"image": Reader(table, model.modality("image"))} if "image" in modalities else {}
    return AnchorTable(model, table, modalities, readers=readers, captions=captions, batch_size=4, **options)


def test_anchors_are_what_the_model_gives_and_are_computed_once(tmp_path: Path) -> None:
    model, rows = tiny_clip(), world(10)
    anchors = table_of(model, rows, modalities=("image", "text"))
    assert anchors.fill(tmp_path) == 10 + 4, "ten pictures, four different captions"
    everything = np.arange(10)
    found = anchors.lookup(everything, np.zeros(10, np.int64))
    assert torch.allclose(found["image"], model.encode({"image": [r["image"] for r in rows]})["image"], atol=1e-6)
    assert torch.allclose(found["text"], model.encode({"text": [r["text"] for r in rows]})["text"], atol=1e-6)
    again = table_of(tiny_clip(), world(10), modalities=("image", "text"))
    assert again.fill(tmp_path) == 0
    assert torch.equal(again.lookup(everything, np.zeros(10, np.int64))["image"], found["image"])
    assert table_of(model, world(12)).fill(tmp_path) == 2, "only what is new"


def test_other_weights_preprocessing_or_precision_have_a_cache_of_their_own(tmp_path: Path) -> None:
    assert table_of(tiny_clip(), world(4)).fill(tmp_path) == 4
    changed = tiny_clip()
    with torch.no_grad():
        changed.encoders["image"].vit.proj[0, 0] += 1e-6
    assert table_of(changed, world(4)).fill(tmp_path) == 4
    assert table_of(tiny_clip(), world(4), dtype=torch.bfloat16).fill(tmp_path) == 4
    other = tiny_clip()
    spec = other.modality("image")
    other._modalities["image"] = type(spec)(**{**spec.options(), "interpolation": "nearest"})
    assert table_of(other, world(4)).fill(tmp_path) == 4
    assert table_of(tiny_clip(), world(4)).fill(tmp_path) == 0


def test_the_model_hash_sees_every_value_and_name() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert model_hash(one) == model_hash(other)
    assert model_hash(one) != model_hash(torch.nn.Sequential(one))
    with torch.no_grad():
        other.bias[1] += 1e-7
    assert model_hash(one) != model_hash(other)


def test_a_file_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        PIL.Image.fromarray(world(1)[0]["image"]).save(file)
    contents = Contents(tmp_path / "cache")
    first, second = (contents.digest(file) for file in files)
    assert first == second == contents.digest(files[0].read_bytes())
    contents.close()
    again = Contents(tmp_path / "cache")
    stat = files[0].stat()
    files[0].write_bytes(b"x" * stat.st_size)
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert again.digest(files[0]) == first, "size and time unchanged: not read again"
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert again.digest(files[0]) != first
    assert contents_differ(again)
    with pytest.raises(InputError, match="gone"):
        again.digest(tmp_path / "gone.png")


def contents_differ(contents: Contents) -> bool:
    """Whether things that look alike but are not have different digests."""
    zeros = np.zeros((2, 3), np.float32)
    things = [zeros, zeros.reshape(3, 2), zeros.astype(np.float64), [zeros], [zeros, zeros], zeros.tobytes()]
    digests = [contents.digest(thing) for thing in things] + [contents.digest(zeros, {"scale": 2}), text_digest("")]
    return len(set(digests)) == len(digests)


def test_a_picture_that_cannot_be_read_has_no_anchor_and_is_tried_again(tmp_path: Path) -> None:
    rows = world(6)
    rows[2]["image"] = np.zeros((4, 4, 7), np.uint8)
    rows[5]["image"] = None
    for _ in range(2):
        anchors = table_of(tiny_clip(), rows)
        anchors.fill(tmp_path)
        assert anchors.usable().tolist() == [0, 1, 3, 4]
        assert "shape [4, 4, 7]" in anchors.unusable[2]


def test_files_that_were_not_finished_do_not_count(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path, {"model": "m"}, dim=2)
    digests = stack_digests(text_digest(t) for t in "abc")
    cache.add(digests[:2], np.ones((2, 2)))
    cache.add(digests[2:], np.ones((1, 2)))
    whole, broken = sorted(cache.path.glob("*.items.npy"))
    broken.with_name(broken.name.replace("items", "vectors")).write_bytes(b"cut")
    (cache.path / "orphan.vectors.npy").write_bytes(b"")
    (cache.path / ".x.part").write_bytes(b"")
    again = AnchorCache(tmp_path, {"model": "m"}, dim=2)
    assert len(again) == len(np.load(whole))
    assert (again.rows(digests) < 0).sum() == 3 - len(again)


WRITER = """
import sys
import numpy as np
from pathlib import Path
from vitlens.store.cache import AnchorCache, stack_digests, text_digest
cache = AnchorCache(Path(sys.argv[1]), {"model": "m"}, dim=4)
print("go", flush=True)
for number in range(10**9):
    texts = [f"{number}/{i}" for i in range(8)]
    cache.add(stack_digests(map(text_digest, texts)), np.array([[number, i, 0, 1] for i in range(8)], np.float32))
"""


def test_several_writers_killed_at_any_moment_leave_whole_entries(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    time.sleep(0.5)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    cache = AnchorCache(tmp_path, {"model": "m"}, dim=4)
    assert len(cache) >= 8
    texts = [(n, i) for n in range(len(cache) // 8) for i in range(8)]
    rows = cache.rows(stack_digests(text_digest(f"{n}/{i}") for n, i in texts))
    assert (rows >= 0).all()
    assert np.array_equal(cache.vectors(rows)[:, :2], np.array(texts, np.float32))


def test_the_vectors_are_mapped_not_read(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path, {"model": "m"}, dim=DIM)
    cache.add(stack_digests([text_digest("a")]), np.ones((1, DIM)))
    cache.reload()
    assert all(isinstance(found, np.memmap) for found in cache._maps)
