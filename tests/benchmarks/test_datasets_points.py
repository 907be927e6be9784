"""ModelNet40, ScanObjectNN and Objaverse-LVIS on miniature trees in their official layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitlens.benchmarks.datasets import DatasetItem, get_dataset
from vitlens.errors import InputError, OptionError
from vitlens.modalities.point_cloud import PointCloud
from vitlens.modality import Sample
from vitlens.store.digests import Contents


def cloud(seed: int, columns: int = 3, points: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (points, columns)).astype(np.float32)


def load(item: DatasetItem) -> Sample:
    return PointCloud().load(item.inputs["point_cloud"])


def resampled(root: Path, names: tuple[str, ...] = ("airplane_0627", "flower_pot_0150", "xbox_0104")) -> Path:
    for split in ("train", "test"):
        (root / f"modelnet40_{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for seed, name in enumerate(names):
        folder = root / name.rpartition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / f"{name}.txt", cloud(seed, 6), delimiter=",", fmt="%.6f")
    return root


def test_modelnet40_from_text_files(tmp_path: Path) -> None:
    items = get_dataset("modelnet40").items(resampled(tmp_path), "test")
    assert [item.id for item in items] == ["airplane_0627", "flower_pot_0150", "xbox_0104"]
    assert [item.labels for item in items] == [("airplane",), ("flower pot",), ("xbox",)]
    sample = load(items[1])
    np.testing.assert_allclose(sample.data, cloud(1, 6)[:, :3], atol=1e-6)  # normals are dropped, never taken for colours
    assert sample.info["up"] == "y"


def cached(root: Path, labels: tuple[int, ...] = (0, 15, 39)) -> Path:
    resampled(root)
    pack = [[cloud(seed + 10, 6) for seed in range(len(labels))], [np.array([n], np.int32) for n in labels]]
    (root / "modelnet40_test_8192pts_fps.dat").write_bytes(pickle.dumps(pack))
    return root


def test_modelnet40_from_the_cache(tmp_path: Path) -> None:
    items = get_dataset("modelnet40").items(cached(tmp_path), "test")
    np.testing.assert_array_equal(load(items[2]).data, cloud(12, 6)[:, :3])
    assert load(items[2]).source.endswith("modelnet40_test_8192pts_fps.dat[2]")


def test_a_cache_that_contradicts_the_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fps\.dat\[1\].*16.*15 \(flower pot\)"):
        get_dataset("modelnet40").items(cached(tmp_path, (0, 16, 39)), "test")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_a_cache_with_code_in_it_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = resampled(tmp_path)
    (root / "modelnet40_test_8192pts_fps.dat").write_bytes(pickle.dumps([[Evil()], [0]]))
    with pytest.raises(InputError, match=r"builtins\.print, which is not data"):
        get_dataset("modelnet40").items(root, "test")
    assert capsys.readouterr().out == ""


def test_modelnet40_names_an_unknown_class_and_an_unknown_split(tmp_path: Path) -> None:
    root = resampled(tmp_path)
    (root / "modelnet40_test.txt").write_text("airplane_0627\nzeppelin_0001\n")
    with pytest.raises(InputError, match=r"modelnet40_test\.txt, line 2.*'zeppelin'.*40 classes"):
        get_dataset("modelnet40").items(root, "test")
    with pytest.raises(OptionError, match="no split 'val'; known: test, train"):
        get_dataset("modelnet40").items(root, "val")


def test_modelnet40_check_tells_a_wrong_root_a_short_list_and_a_missing_shape(tmp_path: Path) -> None:
    modelnet = get_dataset("modelnet40")
    (wrong,) = modelnet.check(tmp_path / "nowhere")
    assert "nowhere" in wrong.path and "modelnet40_test.txt" in wrong.expected
    assert {Path(p.path).name for p in modelnet.check(tmp_path)} == {"modelnet40_test.txt"}
    root = resampled(tmp_path)
    (root / "xbox" / "xbox_0104.txt").unlink()
    problems = modelnet.check(root)
    assert any(p.path.endswith("modelnet40_test.txt") and p.expected == "2,468 names, found 3" for p in problems)
    assert any(p.path.endswith("xbox_0104.txt") and "x,y,z" in p.expected for p in problems)


def packed(root: Path, categories: tuple[str, ...] = ("night_stand", "sofa"), records: Any = None) -> Path:
    folder = root / "meta_data" / "modelnet40"
    folder.mkdir(parents=True)
    (folder / "test_split.json").write_text(json.dumps([{"name": f"{c}_{i}", "category": c} for i, c in enumerate(categories)]))
    if records is None:
        records = np.empty(len(categories), object)
        records[:] = [{"xyz": cloud(i), "rgb": np.full((40, 3), 100)} for i in range(len(categories))]
    np.save(folder / "test_pc.npy", records, allow_pickle=True)
    return root


def test_modelnet40_in_openshapes_pack(tmp_path: Path) -> None:
    items = get_dataset("modelnet40-openshape").items(packed(tmp_path), "test")
    assert [(item.id, item.labels) for item in items] == [("night_stand_0", ("night stand",)), ("sofa_1", ("sofa",))]
    sample = load(items[1])
    np.testing.assert_array_equal(sample.data[:, :3], cloud(1))
    np.testing.assert_allclose(sample.data[:, 3:], 100 / 255, rtol=1e-6)


def test_a_pack_that_is_cut_short_or_of_another_length_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path) / "meta_data" / "modelnet40" / "test_pc.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"test_pc\.npy: cannot be decoded"):
        get_dataset("modelnet40-openshape").items(tmp_path, "test")
    path.write_bytes(whole)
    (path.parent / "test_split.json").write_text(json.dumps([{"name": "sofa_1", "category": "sofa"}]))
    with pytest.raises(InputError, match=r"2 records\. Accepted: 1 records, as many as test_split\.json"):
        get_dataset("modelnet40-openshape").items(tmp_path, "test")


def test_an_item_of_a_pack_that_does_not_decode_names_its_place(tmp_path: Path) -> None:
    records = np.empty(2, object)
    records[:] = [{"xyz": cloud(0)}, {"xyz": np.full((40, 3), np.nan)}]
    items = get_dataset("modelnet40-openshape").items(packed(tmp_path, records=records), "test")
    with pytest.raises(InputError, match=r"test_pc\.npy\[1\]: 120 of 120 values are NaN"):
        load(items[1])


def official(root: Path, file: str, labels: tuple[int, ...]) -> Path:
    h5py = pytest.importorskip("h5py")
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / file, "w") as stream:
        stream["data"] = np.stack([cloud(seed) for seed in range(len(labels))])
        stream["label"] = np.array(labels)
    return root


def test_scanobjectnn_official_files(tmp_path: Path) -> None:
    scans = get_dataset("scanobjectnn")
    assert scans.check(tmp_path)[0].path.endswith("main_split_nobg/test_objectdataset.h5")
    official(tmp_path, "main_split_nobg/test_objectdataset.h5", (0, 10, 14))
    official(tmp_path, "main_split_nobg/training_objectdataset.h5", (4,))
    assert scans.check(tmp_path) == []
    items = scans.items(tmp_path, "obj_only")
    assert [item.labels[0] for item in items] == ["bag", "bed", "toilet"]  # not in alphabetical order
    np.testing.assert_array_equal(load(items[1]).data, cloud(1))
    both = scans.items(tmp_path, "obj_only_all")
    assert [item.labels[0] for item in both] == ["chair", "bag", "bed", "toilet"]
    assert len({item.id for item in both}) == 4
    assert [item.labels[0] for item in scans.items(tmp_path, "obj_only_train")] == ["chair"]
    with pytest.raises(InputError, match=r"augmentedrot_scale75\.h5: no such file"):
        scans.items(tmp_path, "pb_t50_rs")


def test_scanobjectnn_names_a_label_that_is_not_in_the_list(tmp_path: Path) -> None:
    official(tmp_path, "main_split_nobg/test_objectdataset.h5", (3, 15))
    with pytest.raises(InputError, match=r"test_objectdataset\.h5\[1\]: the label 15.*0 to 14"):
        get_dataset("scanobjectnn").items(tmp_path, "obj_only")


def test_scanobjectnn_in_openshapes_pack(tmp_path: Path) -> None:
    folder = tmp_path / "meta_data" / "scanobjectnn"
    folder.mkdir(parents=True)
    pack = {"xyz": [cloud(0), cloud(1, points=50)], "label": np.array([[11], [1]])}
    np.save(folder / "xyz_label.npy", np.array(pack, dtype=object), allow_pickle=True)
    items = get_dataset("scanobjectnn-openshape").items(tmp_path, "all")
    assert [item.labels[0] for item in items] == ["pillow", "bin"]
    np.testing.assert_array_equal(load(items[1]).data, cloud(1, points=50))
    assert PointCloud(color=True, points=600).transform(load(items[0]))[:, 3:].unique().tolist() == pytest.approx([0.4])
    np.save(folder / "xyz_label.npy", np.array({"xyz": [cloud(0)]}, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"xyz_label\.npy: a dict with xyz\. Accepted: .*label"):
        get_dataset("scanobjectnn-openshape").items(tmp_path, "all")


def objaverse(root: Path, categories: tuple[str, ...] = ("Band_Aid", "bow_(weapon)")) -> Path:
    (root / "meta_data" / "split").mkdir(parents=True)
    records = [
        {"uid": f"{i:032x}", "category": c, "group": "000-017", "data_path": f"/mnt/data/objaverse-processed/{i}.npy"}
        for i, c in enumerate(categories)
    ]
    (root / "meta_data" / "split" / "lvis.json").write_text(json.dumps(records))
    folder = root / "Objaverse" / "000-017"
    folder.mkdir(parents=True)
    for i, record in enumerate(records):
        shape = {"dataset": "Objaverse", "group": "000-017", "id": record["uid"], "xyz": cloud(i), "rgb": np.full((40, 3), 0.25)}
        np.save(folder / f"{record['uid']}.npy", np.array(shape, dtype=object), allow_pickle=True)
    return root


def test_objaverse_lvis(tmp_path: Path) -> None:
    dataset = get_dataset("objaverse_lvis")
    items = dataset.items(objaverse(tmp_path), "all")
    assert [item.labels[0] for item in items] == ["Band_Aid", "bow_(weapon)"]
    assert dataset.prompt_names("all")["bow_(weapon)"] == "bow (weapon)"
    sample = load(items[1])
    np.testing.assert_array_equal(sample.data[:, :3], cloud(1))
    np.testing.assert_allclose(sample.data[:, 3:], 0.25)
    assert [p.expected for p in dataset.check(tmp_path)] == ["46,205 records, found 2"]


def test_objaverse_lvis_opens_a_shape_when_it_is_read_and_names_it(tmp_path: Path) -> None:
    dataset = get_dataset("objaverse_lvis")
    file = objaverse(tmp_path) / "Objaverse" / "000-017" / f"{1:032x}.npy"
    file.write_bytes(pickle.dumps(Evil()))
    items = dataset.items(tmp_path, "all")
    with pytest.raises(InputError, match=rf"{1:032x}\.npy.*not data"):
        load(items[1])
    file.unlink()
    assert any(p.path == str(file) for p in dataset.check(tmp_path))
    with pytest.raises(InputError, match=rf"{1:032x}\.npy: no such file"):
        load(items[1])


def test_objaverse_lvis_names_an_unknown_category(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lvis\.json, record 0: the label 'unobtainium'.*1156 classes"):
        get_dataset("objaverse_lvis").items(objaverse(tmp_path, ("unobtainium",)), "all")


def test_items_of_packs_have_a_content_that_caches_can_know(tmp_path: Path) -> None:
    items = get_dataset("modelnet40-openshape").items(packed(tmp_path / "data"), "test")
    sources = [item.inputs["point_cloud"]["source"] for item in items]
    contents = Contents(tmp_path / "cache")
    first, second = (contents.digest(source) for source in sources)
    assert first != second and contents.digest(sources[0]) == first
    again = Contents(tmp_path / "other")  # another machine, the same content
    assert (
        again.digest(get_dataset("modelnet40-openshape").items(tmp_path / "data", "test")[1].inputs["point_cloud"]["source"])
        == second
    )
    (tmp_path / "data" / "meta_data" / "modelnet40" / "test_pc.npy").unlink()
    with pytest.raises(InputError, match=r"test_pc\.npy: cannot be opened"):
        contents.digest(sources[0])


def test_items_of_packs_survive_the_way_to_a_loader_worker(tmp_path: Path) -> None:
    (item,) = get_dataset("objaverse_lvis").items(objaverse(tmp_path, ("Bible",)), "all")
    np.testing.assert_array_equal(load(pickle.loads(pickle.dumps(item))).data[:, :3], cloud(0))
