"""SUN RGB-D and NYUv2 on miniature trees in their official layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.io

from vitlens.benchmarks.datasets import DatasetItem, get_dataset
from vitlens.errors import InputError
from vitlens.modalities.depth import Depth
from vitlens.modality import Sample

FOCAL = {"kv1": 518.857901, "kv2": 529.5, "realsense": 691.5843, "xtion": 570.342205}
IMAGES = {
    "kv1/NYUdata/NYU0001": "kitchen",
    "kv1/NYUdata/NYU0002": "study",
    "kv2/kinect2data/000002_2014-05-26-resize": "office",
    "realsense/sa/2014_10_21-13_46_11": "idk",
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/000001-000000023000": "rest_space",
}


def image(root: Path, folder: str, label: str, millimetres: int = 2500) -> None:
    """One image's folder as SUN RGB-D has it: millimetres rotated left by three bits."""
    place = root / "SUNRGBD" / folder
    (place / "depth_bfx").mkdir(parents=True)
    depth = np.full((30, 40), millimetres, np.uint16)
    PIL.Image.fromarray((depth << 3) | (depth >> 13)).save(place / "depth_bfx" / f"{place.name}.png")
    focal = FOCAL[folder.split("/")[0]]
    (place / "intrinsics.txt").write_text(f"{focal} 0.000000 320.000000 0.000000 {focal} 240.000000 0.0 0.0 1.0\n")
    (place / "scene.txt").write_text(label)


def tree(root: Path) -> Path:
    for folder, label in IMAGES.items():
        image(root, folder, label)
    toolbox = root / "SUNRGBDtoolbox" / "traintestSUNRGBD"
    toolbox.mkdir(parents=True)
    cells = np.array([f"/n/fs/sun3d/data/SUNRGBD/{folder}/" for folder in IMAGES], dtype=object)
    scipy.io.savemat(toolbox / "allsplit.mat", {"alltest": cells, "alltrain": cells[2:]})
    return root


def load(item: DatasetItem) -> Sample:
    return Depth().load(item.inputs["depth"])


def test_sun_rgbd_by_the_toolbox(tmp_path: Path) -> None:
    items = get_dataset("sun_rgbd").items(tree(tmp_path), "test")
    found = {item.id: item.labels for item in items}
    assert list(found.values()) == [("kitchen",), ("office",), ("rest space",)]  # study and idk are none of the 19
    assert [item.labels[0] for item in get_dataset("sun_rgbd").items(tmp_path, "train")] == ["office", "rest space"]


def test_sun_rgbd_depth_is_in_metres_with_its_own_camera(tmp_path: Path) -> None:
    items = get_dataset("sun_rgbd").items(tree(tmp_path), "test")
    kinect, xtion = load(items[0]), load(items[2])
    np.testing.assert_allclose(kinect.data, 2.5)
    assert (kinect.info["focal_length"], kinect.info["baseline"]) == (518.857901, 0.075)
    assert (xtion.info["focal_length"], xtion.info["baseline"]) == (570.342205, 0.095)


def records(folders: list[str], labels: list[str]) -> str:
    """Records of a ViT-Lens list, whose depth paths are wrong as in the published one."""
    names = [Path(folder).name for folder in folders]
    rows = zip(folders, names, labels, strict=True)
    return json.dumps(
        [
            {
                "image_path": f"{folder}/image/{name}.jpg",
                "depth_path": f"{folder}/depth_bfx/{name}_disparity.pt",
                "disparity_path": f"{folder}/depth_bfx/{name}_disparity.pt",
                "label": label,
                "cleaned_label": label.replace("_", " "),
            }
            for folder, name, label in rows
        ]
    )


def test_sun_rgbd_by_the_lists_of_vitlens(tmp_path: Path) -> None:
    folders = ["kv2/kinect2data/000002_2014-05-26-resize", "kv1/NYUdata/NYU0001"]
    (tree(tmp_path) / "SUN-RGBD_val.json").write_text(records(folders, ["dining_area", "kitchen"]))
    items = get_dataset("sun_rgbd").items(tmp_path, "test")
    assert [(item.id, item.labels[0]) for item in items] == list(zip(folders, ["dining area", "kitchen"], strict=True))
    np.testing.assert_allclose(load(items[0]).data, 2.5)
    (tmp_path / "SUN-RGBD_val.json").write_text(records(folders, ["dining_area", "idk"]))
    with pytest.raises(InputError, match=r"SUN-RGBD_val\.json, record 1: the label 'idk'.*19 classes"):
        get_dataset("sun_rgbd").items(tmp_path, "test")


def test_sun_rgbd_check_and_half_copies(tmp_path: Path) -> None:
    dataset = get_dataset("sun_rgbd")
    assert "SUNRGBD" in dataset.check(tmp_path / "nowhere")[0].expected
    assert [Path(p.path).name for p in dataset.check(tmp_path)] == ["SUNRGBD", "allsplit.mat"]
    assert dataset.check(tree(tmp_path)) == []
    (tmp_path / "SUNRGBD/kv1/NYUdata/NYU0001/depth_bfx/NYU0001.png").unlink()
    with pytest.raises(InputError, match=r"NYU0001/depth_bfx: no depth map. Accepted: one 16-bit png"):
        dataset.items(tmp_path, "test")
    (tmp_path / "SUNRGBD/kv1/NYUdata/NYU0001/depth_bfx").rmdir()
    assert [Path(p.path).parent.name for p in dataset.check(tmp_path)] == ["NYU0001"]


def test_broken_intrinsics_are_named(tmp_path: Path) -> None:
    (tree(tmp_path) / "SUNRGBD/kv1/NYUdata/NYU0001/intrinsics.txt").write_text("fx=518\n")
    with pytest.raises(InputError, match=r"NYU0001/intrinsics\.txt, line 1: 'fx=518'"):
        get_dataset("sun_rgbd").items(tmp_path, "test")


def test_a_map_that_does_not_decode_is_named(tmp_path: Path) -> None:
    (tree(tmp_path) / "SUNRGBD/kv1/NYUdata/NYU0001/depth_bfx/NYU0001.png").write_bytes(b"\x89PNG cut")
    items = get_dataset("nyuv2").items(tmp_path, "test")
    with pytest.raises(InputError, match=r"NYU0001\.png"):
        load(items[0])


def test_nyuv2_is_the_part_of_its_own_and_merges_others(tmp_path: Path) -> None:
    dataset = get_dataset("nyuv2")
    items = dataset.items(tree(tmp_path), "test")
    assert [(item.id, item.labels[0]) for item in items] == [("kv1/NYUdata/NYU0001", "kitchen"), ("kv1/NYUdata/NYU0002", "study")]
    merged = dataset.merged("test")
    assert set(merged) == {"computer room", "lobby", "office kitchen", "playroom", "reception room", "study", "study space"}
    assert set(merged.values()) == {"others"}
    assert len({merged.get(name, name) for name in dataset.classes("test")}) == 10
    assert len(dataset.classes("train")) == 27
    assert len({dataset.merged("train").get(name, name) for name in dataset.classes("train")}) == 10
    assert [p.expected for p in dataset.check(tmp_path)] == ["654 test images, found 2"]


def test_nyuv2_names_a_label_outside_the_protocol(tmp_path: Path) -> None:
    image(tmp_path, "kv1/NYUdata/NYU0001", "kitchen")
    (tmp_path / "NYU-Depth-v2_val.json").write_text(records(["kv1/NYUdata/NYU0001"], ["swimming_pool"]))
    with pytest.raises(InputError, match=r"NYU-Depth-v2_val\.json, record 0: the label 'swimming pool'.*16 classes"):
        get_dataset("nyuv2").items(tmp_path, "test")
