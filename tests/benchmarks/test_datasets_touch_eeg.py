"""Touch-and-Go, ImageNet-EEG, THINGS-EEG2 and the Toybox on miniature trees in their official layouts."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from vitlens.benchmarks.datasets import DatasetItem, get_dataset
from vitlens.benchmarks.toybox.sensors.catalogue import Detail
from vitlens.benchmarks.toybox.sensors.make import make_toybox
from vitlens.benchmarks.toybox.world.captions import shape_prompts
from vitlens.errors import InputError
from vitlens.modalities.eeg import EEG
from vitlens.modality import Sample, get_modality


def touch_and_go(root: Path, lines: dict[str, list[str]]) -> Path:
    for name in ("test.txt", "test_rough.txt", "train.txt", "train_rough.txt"):
        own = lines.get(name, ["20220318_014426/0000033833.jpg,0"])
        (root / name).write_text("\n".join(own))
        for line in own:
            video, _, frame = line.partition(",")[0].partition("/")
            folder = root / video / "gelsight_frame"
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(folder / frame)
    return root


MATERIALS = [f"20220318_014426/{frame:010d}.jpg,{label}" for frame, label in ((1, 3), (2, 8), (3, 19), (4, 7))]


def test_touch_and_go_asks_three_questions_of_two_lists(tmp_path: Path) -> None:
    dataset = get_dataset("touch_and_go")
    rough = ["20220410_1/0000000007.jpg,1", "20220410_1/0000000008.jpg,0"]
    touch_and_go(tmp_path, {"test.txt": MATERIALS, "test_rough.txt": rough})
    found = {split: [item.labels[0] for item in dataset.items(tmp_path, split)] for split in dataset.card.splits}
    assert found["material"] == ["wood", "synthetic fabric", "others", "leather"]
    assert found["material_no_others"] == ["wood", "synthetic fabric", "leather"]
    assert found["hard_soft"] == ["hard", "soft", "hard", "soft"]
    assert found["rough_smooth"] == ["rough", "smooth"]
    assert found["train_material"] == ["concrete"] and found["train_rough_smooth"] == ["smooth"]
    assert [len(dataset.classes(split)) for split in ("material", "material_no_others", "hard_soft")] == [20, 19, 2]
    assert dataset.prompts("material") != dataset.prompts("rough_smooth")
    items = dataset.items(tmp_path, "material")
    assert items[1].id == "20220318_014426/0000000002"
    assert get_modality("tactile").load(items[1].inputs["tactile"]).data.shape == (24, 32, 3)


def test_touch_and_go_names_what_is_wrong(tmp_path: Path) -> None:
    dataset = get_dataset("touch_and_go")
    assert {Path(p.path).name for p in dataset.check(tmp_path)} == {"test.txt", "test_rough.txt"}
    touch_and_go(tmp_path, {"test.txt": MATERIALS})
    (tmp_path / "20220318_014426/gelsight_frame/0000000002.jpg").unlink()
    problems = dataset.check(tmp_path)
    assert any(p.expected == "29,879 frames, found 4" for p in problems)
    assert any(p.path.endswith("gelsight_frame/0000000002.jpg") for p in problems)
    for line, message in (("20220318_014426/1.jpg,20", "the label '20'"), ("20220318_014426 1.jpg", "lines such as")):
        (tmp_path / "test.txt").write_text(f"{MATERIALS[0]}\n{line}\n")
        with pytest.raises(InputError, match=rf"test\.txt, line 2: .*{message}"):
            dataset.items(tmp_path, "material")


SYNSETS = (Path(__file__).parents[2] / "benchmarks/datasets/labels/imagenet_eeg_synsets.txt").read_text().split()


def trial(seed: int, label: int, samples: int = 500) -> dict[str, Any]:
    signal = torch.from_numpy(np.random.default_rng(seed).standard_normal((128, samples)).astype(np.float32))
    return {"eeg": signal, "image": seed, "label": label, "subject": 1 + seed % 6}


def imagenet_eeg(root: Path, **changes: Any) -> Path:
    trials = [trial(0, 0), trial(1, 39), trial(2, 12, samples=430), trial(3, 12)]
    images = [f"{SYNSETS[t['label']]}_{i}" for i, t in enumerate(trials)]
    signals = {"dataset": trials, "labels": list(SYNSETS), "images": images} | changes
    torch.save(signals, root / "eeg_5_95_std.pth", _use_new_zipfile_serialization=False)  # as old as the published files
    parts = [{"train": [0], "val": [1], "test": [2, 3]} for _ in range(6)]
    torch.save({"splits": parts}, root / "block_splits_by_image_all.pth")
    return root


def test_imagenet_eeg(tmp_path: Path) -> None:
    dataset = get_dataset("imagenet_eeg")
    assert [Path(p.path).name for p in dataset.check(tmp_path)] == ["eeg_5_95_std.pth", "block_splits_by_image_all.pth"]
    imagenet_eeg(tmp_path)
    assert dataset.check(tmp_path) == []
    (test,) = dataset.items(tmp_path, "test")  # the trial of 430 samples is too short
    assert test.labels == ("German shepherd",)
    assert test.id == "00003-subject4-n02106662_3"
    sample = EEG().load(test.inputs["eeg"])
    np.testing.assert_array_equal(sample.data, trial(3, 12)["eeg"].numpy())
    assert sample.source.endswith("eeg_5_95_std.pth[3]")
    window = EEG().transform(sample)  # samples 20 to 459, as they are
    np.testing.assert_allclose(window[:, [0, -1]], sample.data[:, [20, 459]], rtol=1e-5)
    assert [item.labels[0] for item in dataset.items(tmp_path, "val")] == ["Egyptian cat"]


def test_imagenet_eeg_with_another_class_order_is_refused(tmp_path: Path) -> None:
    imagenet_eeg(tmp_path, labels=sorted(SYNSETS))
    with pytest.raises(InputError, match=r"eeg_5_95_std\.pth: label 12 is n03063599. Accepted: n02106662"):
        get_dataset("imagenet_eeg").items(tmp_path, "test")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_imagenet_eeg_never_runs_code_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imagenet_eeg(tmp_path, extra=Evil())
    with pytest.raises(InputError, match=r"eeg_5_95_std\.pth: cannot be decoded"):
        get_dataset("imagenet_eeg").items(tmp_path, "test")
    assert capsys.readouterr().out == ""


def test_imagenet_eeg_names_a_place_beyond_the_trials(tmp_path: Path) -> None:
    imagenet_eeg(tmp_path, dataset=[trial(0, 0)])
    with pytest.raises(InputError, match=r"block_splits.*the place 2. Accepted: 0 to 0"):
        get_dataset("imagenet_eeg").items(tmp_path, "test")


@pytest.fixture(scope="module")
def toybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toybox")
    sizes = {"test": 3, "unseen_pairs": 2, "unseen_shapes": 2}
    make_toybox(root, objects=sizes, detail=Detail(picture=16, depth=16, touch=16, thermal=16, points=64), progress=False)
    return root


@pytest.mark.parametrize("sensor", ["point_cloud", "depth", "eeg", "image", "tactile", "audio", "thermal", "pressure"])
def test_toybox_by_each_sensor(toybox: Path, sensor: str) -> None:
    dataset = get_dataset(f"toybox-{sensor}")
    assert dataset.check(toybox) == []
    with (toybox / "test.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    items = dataset.items(toybox, "test")
    label = "material" if sensor in ("tactile", "audio") else "shape"
    assert [(item.id, item.labels[0]) for item in items] == [(row["id"], row[label]) for row in rows]
    assert len(dataset.classes("test")) == {"shape": 33, "material": 8}[label]
    assert len(dataset.items(toybox, "unseen_shapes")) == 2
    sample = loaded(items[0], sensor)
    if sensor == "depth":
        assert 0.1 < float(np.median(sample.data[sample.data > 0])) < 10  # metres
        assert sample.info["focal_length"] == pytest.approx(float(rows[0]["depth.focal_length"]))


def loaded(item: DatasetItem, sensor: str) -> Sample:
    modality = get_modality(sensor)
    sample = modality.load(item.inputs[sensor])
    assert torch.isfinite(modality.transform(sample)).all()
    return sample


def test_toybox_prompts_are_those_of_its_own_report() -> None:
    dataset = get_dataset("toybox-image")
    names = dataset.prompt_names("test")
    for shape in ("cube", "arch"):
        assert [prompt.replace("{}", names[shape]) for prompt in dataset.prompts("test")] == shape_prompts(shape)


def test_toybox_names_what_is_missing(toybox: Path, tmp_path: Path) -> None:
    dataset = get_dataset("toybox-depth")
    assert [Path(p.path).name for p in dataset.check(tmp_path)] == ["test.csv"]
    copy = shutil.copytree(toybox, tmp_path / "copy")
    next((copy / "test" / "depth").iterdir()).unlink()
    (problem,) = dataset.check(copy)
    assert "/test/depth/" in problem.path and "test.csv" in problem.expected
    text = (copy / "test.csv").read_text().replace(dataset.items(copy, "test")[1].labels[0], "sphinx")
    (copy / "test.csv").write_text(text)
    with pytest.raises(InputError, match=r"test\.csv, row 1: the label 'sphinx'.*33 classes"):
        dataset.items(copy, "test")
