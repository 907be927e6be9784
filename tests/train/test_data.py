"""Items from manifests, shards and memory; their order; what happens to those that cannot be read."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.train.tiny import SIZE, world
from vitlens.errors import InputError, OptionError
from vitlens.modality import get_modality
from vitlens.store.shards import expand_shards
from vitlens.train.anchors import CaptionList
from vitlens.train.examples import BadItems, Example, Order, StepSampler, collate
from vitlens.train.items import TrainItems, tries_for
from vitlens.train.records import Captions, Reader, open_records

DEPTH = get_modality("depth", size=SIZE)


def write_things(folder: Path, count: int) -> list[dict[str, Any]]:
    """Depth maps in millimetres and their captions, as files and rows of a manifest."""
    rows = []
    for index, thing in enumerate(world(count)):
        np.save(folder / f"{index}.npy", (thing["depth"] * 1000).astype(np.uint16))
        rows.append(
            {"depth": f"{index}.npy", "depth.scale": "0.001", "caption": f"{thing['text']}|one of {count}", "label": "x y"}
        )
    return rows


def write_manifest(folder: Path, rows: list[dict[str, Any]], kind: str) -> Path:
    import pandas as pd

    path = folder / f"train.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_manifest_gives_items_with_their_own_read_options(kind: str, tmp_path: Path) -> None:
    table = open_records(str(write_manifest(tmp_path, write_things(tmp_path, 3), kind)))
    reader = Reader(table, DEPTH)
    sample = reader.load(2)
    assert np.allclose(sample.data, world(3)[2]["depth"], atol=1e-3), "the column depth.scale makes metres of millimetres"
    assert "2.npy" in reader.name(2)
    assert "row 2" in reader.name(2)


def test_read_options_of_the_recipe_hold_where_a_row_has_none(tmp_path: Path) -> None:
    rows = [{**row, "depth.scale": ""} for row in write_things(tmp_path, 1)]
    table = open_records(write_manifest(tmp_path, rows, "csv"))
    with pytest.raises(InputError, match="scale="):
        Reader(table, DEPTH).load(0)
    assert Reader(table, DEPTH, read_options={"scale": 0.002}).load(0).data.max() > 17
    with pytest.raises(OptionError, match="no_such"):
        Reader(table, DEPTH, read_options={"no_such": 1})


def test_a_column_that_is_missing_is_named_with_those_there_are(tmp_path: Path) -> None:
    table = open_records(write_manifest(tmp_path, write_things(tmp_path, 1), "csv"))
    with pytest.raises(OptionError, match=r"no column 'image'.*depth, depth.scale, caption, label.* data\.columns\.image=COLUMN"):
        Reader(table, get_modality("image"))
    assert Reader(table, DEPTH, column="depth").column == "depth"


def captions(table: Any, **changes: Any) -> Captions:
    options = {"columns": ["text", "caption"], "separator": None, "label": "label", "templates": []}
    return Captions(table, **{**options, **changes})


def test_captions_come_from_columns_lists_and_labels(tmp_path: Path) -> None:
    table = open_records(write_manifest(tmp_path, write_things(tmp_path, 2), "csv"))
    assert captions(table).of(1) == ["a square|one of 2"]
    assert captions(table, separator="|").of(1) == ["a square", "one of 2"]
    both = captions(table, separator="|", templates=["a photo of {}."])
    assert both.of(0) == ["a disc", "one of 2", "a photo of x y."]
    assert captions(open_records([{"text": ["one", "two"]}])).of(0) == ["one", "two"]
    with pytest.raises(OptionError, match=r"data\.captions"):
        captions(open_records([{"depth": 1}]))
    with pytest.raises(InputError, match="row 1"):
        captions(open_records([{"text": "a"}, {"text": ""}])).of(1)


@pytest.mark.parametrize("bad", [[], [3], {"a": 1}, 7, "gone.csv", "data.txt"])
def test_what_is_no_table_is_refused(bad: Any) -> None:
    with pytest.raises((OptionError, InputError)):
        open_records(bad)


# --- WebDataset ------------------------------------------------------------------------------------------------------


def write_shards(folder: Path, counts: tuple[int, ...]) -> str:
    """Shards as the webdataset library writes them, made with tarfile: key.depth.npy, key.txt, key.json."""
    number = 0
    for shard, count in enumerate(counts):
        with tarfile.open(folder / f"part-{shard:03d}.tar", "w") as archive:
            for thing in world(count, number):
                stream = io.BytesIO()
                np.save(stream, (thing["depth"] * 1000).astype(np.uint16))
                meta = json.dumps({"label": thing["label"], "depth.scale": 0.001}).encode()
                for name, data in (("depth.npy", stream.getvalue()), ("txt", thing["text"].encode()), ("json", meta)):
                    entry = tarfile.TarInfo(f"things/{number:05d}.{name}")
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
                number += 1
    return str(folder / f"part-{{000..{len(counts) - 1:03d}}}.tar")


def test_shards_are_a_table(tmp_path: Path) -> None:
    table = open_records(write_shards(tmp_path, (3, 2)))
    assert len(table) == 5
    assert table.groups.tolist() == [0, 0, 0, 1, 1]
    reader = Reader(table, DEPTH)
    assert np.allclose(reader.load(4).data, world(5)[4]["depth"], atol=1e-3)
    assert reader.name(4).endswith("part-001.tar/things/00004.depth.npy")
    assert captions(table).of(3) == ["a cross"]
    assert table.rows[2]["label"] == "bar"


def test_a_broken_description_in_a_shard_costs_one_item(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for key, text in (("a", b'{"text": "one"}'), ("b", b'{"text": '), ("c", b"[1]")):
            entry = tarfile.TarInfo(f"{key}.json")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    table = open_records(tmp_path / "a.tar")
    found = CaptionList(table, captions(table))
    assert found.texts == ["one"]
    assert sorted(found.unusable) == [1, 2]
    assert "b.json" in found.unusable[1]
    reader = Reader(table, DEPTH, column="text")
    assert "b.json" in reader.name(1)
    with pytest.raises(InputError, match=r"b\.json"):
        reader.load(1)


def test_shards_of_the_webdataset_library_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for index, thing in enumerate(world(3)):
            writer.write({"__key__": f"k{index}", "npy": thing["depth"], "txt": thing["text"], "json": {"label": thing["label"]}})
    table = open_records(tmp_path / "a.tar")
    assert np.allclose(Reader(table, DEPTH).load(1).data, world(3)[1]["depth"])
    assert captions(table, templates=["{}!"]).of(1) == ["a square", "square!"]


def test_shard_patterns(tmp_path: Path) -> None:
    for name in ("a-08", "a-09", "a-10", "b-09"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo("k.txt"))
    names = lambda pattern: [path.stem for path in expand_shards(str(tmp_path / pattern))]  # noqa: E731
    assert names("a-{08..10}.tar") == ["a-08", "a-09", "a-10"]
    assert names("{b,a}-09.tar") == ["b-09", "a-09"]
    assert names("a-*.tar") == ["a-08", "a-09", "a-10"]
    with pytest.raises(InputError, match="no shards"):
        names("c-*.tar")
    with pytest.raises(InputError, match="no such file"):
        names("c-{0..1}.tar")


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(InputError, match=r"bad\.tar"):
        open_records(tmp_path / "bad.tar")


# --- order -----------------------------------------------------------------------------------------------------------


def test_an_epoch_holds_every_item_at_most_once_and_epochs_differ() -> None:
    order = Order(np.arange(50), batch_size=8, seed=3)
    first, second = order.epoch(0), order.epoch(1)
    assert first.shape == (6, 8)
    assert max(Counter(first.ravel().tolist()).values()) == 1
    assert not np.array_equal(first, second)
    assert np.array_equal(first, Order(np.arange(50), batch_size=8, seed=3).epoch(0))
    assert not np.array_equal(first, Order(np.arange(50), batch_size=8, seed=4).epoch(0))
    with pytest.raises(OptionError, match="50 usable"):
        Order(np.arange(50), batch_size=51, seed=0)


def test_an_epoch_can_go_through_the_items_several_times() -> None:
    order = Order(np.arange(10), batch_size=5, seed=3, repeat=4)
    epoch = order.epoch(0)
    assert order.steps == len(epoch) == 8
    assert set(Counter(epoch.ravel().tolist()).values()) == {4}
    assert all(len(set(batch)) == 5 for batch in epoch.tolist()), "one pass after the other: no item meets itself"


def test_processes_share_the_batches_of_one() -> None:
    order = Order(np.arange(40), batch_size=8, seed=1)
    alone = list(StepSampler(order, 0, 12))
    parts = [list(StepSampler(order, 0, 12, rank, 4)) for rank in range(4)]
    assert [[key for part in parts for key in part[step]] for step in range(12)] == alone


def test_a_sampler_that_starts_late_goes_on_with_the_same_batches() -> None:
    order = Order(np.arange(40), batch_size=8, seed=1)
    assert list(StepSampler(order, 7, 12)) == list(StepSampler(order, 0, 12))[7:]


def test_shards_are_shuffled_by_windows() -> None:
    groups = np.repeat(np.arange(6), 10)
    order = Order(np.arange(60), batch_size=20, seed=2, groups=groups, window=2).epoch(0)
    shards = [set(groups[batch]) for batch in order]
    assert all(len(found) == 2 for found in shards), "a window of two shards of ten items is one batch of twenty here"
    assert set.union(*shards) == set(range(6))
    assert not np.array_equal(np.sort(order[0]), order[0]), "items of a window are shuffled"


# --- reading ---------------------------------------------------------------------------------------------------------


def items(rows: list[dict[str, Any]], **options: Any) -> TrainItems:
    table = open_records(rows)
    return TrainItems(Reader(table, DEPTH), np.arange(len(rows)), seed=5, **options)


def loaded(found: Any) -> Example:
    assert isinstance(found, Example)
    return found


def x_of(found: Any) -> torch.Tensor:
    return loaded(found).inputs["x"]


def test_augmentation_follows_from_seed_epoch_and_item_alone() -> None:
    source = items(world(4))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = source[0, 2]
    assert torch.equal(torch.get_rng_state(), before), "reading must not touch the generator of the network"
    x_of(source[0, 3])
    assert torch.equal(x_of(source[0, 2]), x_of(first))
    assert not torch.equal(x_of(source[1, 2]), x_of(first))
    plain = items(world(4), augment=False)
    assert torch.equal(x_of(plain[0, 2]), x_of(plain[1, 2]))


def test_a_broken_item_is_replaced_always_by_the_same_one_and_named() -> None:
    rows = world(6)
    rows[3]["depth"] = np.full((SIZE, SIZE), np.nan, np.float32)
    source = items(rows)
    found = loaded(source[0, 3])
    assert found.row != 3
    assert [name for name, _ in found.bad] == [source.reader.name(3)]
    assert "NaN" in found.bad[0][1]
    assert torch.equal(x_of(source[0, 3]), x_of(found))
    batch = collate([source[0, row] for row in range(6)])
    assert batch.inputs["x"].shape == (6, 1, SIZE, SIZE)
    assert len(batch.bad) == 1


def test_nothing_but_broken_items_ends_in_one_error() -> None:
    source = items([{"depth": np.zeros((0, 4), np.float32)}] * 3)
    failure = collate([source[0, 0]]).failure
    assert isinstance(failure, InputError)
    assert "substitutes" in str(failure)


def test_too_many_broken_items_stop_the_run() -> None:
    bad = BadItems(limit=0.02, total=100)
    bad.add([("a", "cut"), ("b", "cut")])
    bad.check()
    assert bad.add([("a", "cut")]) == [], "an item counts once"
    bad.add([("c", "empty")])
    with pytest.raises(OptionError, match=r"3 of 100 items.*a: cut"):
        bad.check()


class Block:
    """A reader of rows of which a block is missing; what it loads is nothing but a number."""

    class modality:
        @staticmethod
        def transform(sample: int, *, train: bool) -> torch.Tensor:
            return torch.tensor([float(sample)])

    def __init__(self, missing: range) -> None:
        self.missing = missing

    def name(self, row: int) -> str:
        return f"row {row}"

    def load(self, row: int) -> int:
        if row in self.missing:
            raise InputError(self.name(row), "no such file", "a file")
        return row


def test_a_block_of_missing_rows_below_the_allowed_share_stops_nothing() -> None:
    count, missing = 20_000, range(500, 680)
    source = TrainItems(cast(Any, Block(missing)), np.arange(count), seed=0, tries=tries_for(0.01))
    bad, chosen = BadItems(0.01, count), set()
    for epoch in range(3):
        for row in missing:
            example = loaded(source[epoch, row])
            assert example.row not in missing
            chosen.add(example.row)
            bad.add(example.bad)
            bad.check()
    assert len(bad.reasons) == 180 and len(chosen) > 500, "substitutes come from everywhere"
    assert loaded(source[2, 600]).row == loaded(source[2, 600]).row, "always the same one"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_as_many_substitutes_are_tried_as_the_allowed_share_needs(share: float) -> None:
    tries, count = tries_for(share), 5000
    assert tries is None or (tries >= 16 and share**tries < 2e-12)
    missing = range(1, 1 + int(share * (count - 1)))
    source = TrainItems(cast(Any, Block(missing)), np.arange(count), seed=3, tries=tries)
    assert all(loaded(source[0, row]).row not in missing for row in [*missing][::97])


def test_items_of_different_shapes_are_named() -> None:
    one, other = (Example(0, 0, f"item {size}", {"x": torch.zeros(size)}) for size in (3, 4))
    with pytest.raises(OptionError, match="item 3 gives"):
        collate([one, other])
