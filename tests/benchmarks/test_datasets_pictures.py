"""ImageNet, CIFAR, MSR-VTT and THINGS-EEG2 on miniature trees in their official layouts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vitlens.benchmarks.datasets import get_dataset
from vitlens.errors import InputError
from vitlens.modalities.eeg import EEG
from vitlens.modality import get_modality


def picture(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((20, 30, 3), shade, np.uint8)).save(path)


def test_imagenet(tmp_path: Path) -> None:
    dataset = get_dataset("imagenet")
    assert dataset.check(tmp_path)[0].path.endswith("val")
    picture(tmp_path / "val" / "n02012849" / "ILSVRC2012_val_00000293.JPEG")
    picture(tmp_path / "val" / "n01440764" / "ILSVRC2012_val_00000007.JPEG")
    items = dataset.items(tmp_path, "val")
    assert [(item.id, item.labels[0]) for item in items] == [
        ("ILSVRC2012_val_00000007", "tench"),
        ("ILSVRC2012_val_00000293", "crane (bird)"),
    ]
    assert get_modality("image").load(items[0].inputs["image"]).data.shape == (20, 30, 3)
    problems = dataset.check(tmp_path)
    assert problems[0].path.endswith("n01443537") and problems[-1].expected == "1,000 folders of classes, found 2"
    picture(tmp_path / "val" / "goldfish" / "1.JPEG")
    with pytest.raises(InputError, match=r"val/goldfish: the label 'goldfish', which is not in the class list"):
        dataset.items(tmp_path, "val")


def test_imagenet_prompts_tell_all_classes_apart() -> None:
    dataset = get_dataset("imagenet")
    names = dataset.prompt_names("val")
    written = [names.get(name, name) for name in dataset.classes("val")]
    assert len(set(written)) == 1000
    assert names["crane (bird)"] == "crane bird"


def cifar10(root: Path, labels: list[Any], names: list[str] | None = None) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.zeros((len(labels), 3072), np.uint8)
    rows[:, :1024] = 200  # red comes first, then green and blue
    files = [f"picture_{i}.png" for i in range(len(labels))]
    batch = {"batch_label": "testing batch 1 of 1", "labels": labels, "data": rows, "filenames": files}
    (folder / "test_batch").write_bytes(as_python2(batch))
    names = names or ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(as_python2({"label_names": names, "num_vis": 3072}))
    return root


def as_python2(content: Any) -> bytes:
    return pickle.dumps(content, protocol=2)


def test_cifar10(tmp_path: Path) -> None:
    dataset = get_dataset("cifar10")
    assert {Path(p.path).name for p in dataset.check(tmp_path)} == {"test_batch", "batches.meta"}
    items = dataset.items(cifar10(tmp_path, [3, 9]), "test")
    assert [(item.id, item.labels[0]) for item in items] == [("picture_0.png", "cat"), ("picture_1.png", "truck")]
    pixels = get_modality("image").load(items[0].inputs["image"]).data
    assert pixels.shape == (32, 32, 3) and pixels[5, 5].tolist() == [200, 0, 0]
    (problem,) = dataset.check(tmp_path)  # not the published file
    assert "MD5 is 40351d587109b95175f43aff81a1287e" in problem.expected


def test_cifar_names_labels_that_are_not_in_the_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test_batch\[1\]: the label 10, which is not in the class list. Accepted: 0 to 9"):
        get_dataset("cifar10").items(cifar10(tmp_path, [3, 10]), "test")
    (tmp_path / "other").mkdir()
    root = cifar10(tmp_path / "other", [3], ["dog"] * 10)
    with pytest.raises(InputError, match=r"batches\.meta: label_names.*labels/cifar10\.txt"):
        get_dataset("cifar10").items(root, "test")


def test_cifar100(tmp_path: Path) -> None:
    folder, dataset = tmp_path / "cifar-100-python", get_dataset("cifar100")
    folder.mkdir()
    names = [name.replace(" ", "_") for name in dataset.classes("test")]
    (folder / "meta").write_bytes(as_python2({"fine_label_names": names, "coarse_label_names": []}))
    content = {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [1], "coarse_labels": [0], "filenames": ["a.png"]}
    (folder / "test").write_bytes(as_python2(content))
    (item,) = dataset.items(tmp_path, "test")
    assert item.labels == ("aquarium fish",)


def test_msrvtt(tmp_path: Path) -> None:
    dataset, video = get_dataset("msrvtt"), get_modality("video")
    assert [Path(p.path).name for p in dataset.check(tmp_path)] == ["MSRVTT_JSFUSION_test.csv", "MSRVTT_Videos"]
    rows = 'ret0,msr7020,video7020,a woman creating a fondant baby\nret1,msr9773,video9773,"two boys, running"\n'
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\n" + rows)
    (tmp_path / "MSRVTT_Videos").mkdir()
    write_mp4(tmp_path / "MSRVTT_Videos" / "video7020.mp4")
    items = dataset.items(tmp_path, "test")
    assert [(item.id, item.captions[0]) for item in items][1] == ("video9773", "two boys, running")
    assert video.load(items[0].inputs["video"]).data.shape[0] == 8
    problems = dataset.check(tmp_path)
    assert problems[0].expected == "1,000 rows, found 2" and problems[1].path.endswith("video9773.mp4")


def write_mp4(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


CHANNELS = ["Fp1", "Oz", "O1"]


def things(root: Path, pictures: int = 3) -> Path:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3, 80, len(CHANNELS), 250))
    content = {"preprocessed_eeg_data": data, "ch_names": CHANNELS, "times": np.arange(-0.2, 1.0, 0.004)}
    path = root / "Preprocessed_data_250Hz" / "sub-03" / "preprocessed_eeg_test.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(content, protocol=4))  # a plain pickle, whatever its name says
    for number, name in enumerate(["aircraft_carrier", "antelope", "backscratcher"][:pictures], start=1):
        picture(root / "Image_set" / "test_images" / f"{number:05d}_{name}" / f"{name}_06s.jpg", 30 * number)
    return root


def test_things_eeg_averages_repetitions_and_pairs_them_with_the_pictures(tmp_path: Path) -> None:
    dataset = get_dataset("things_eeg")
    assert dataset.check(tmp_path)[0].path.endswith("test_images")
    items = dataset.items(things(tmp_path), "sub-03")
    assert [item.id for item in items] == ["00001_aircraft_carrier", "00002_antelope", "00003_backscratcher"]
    eeg = EEG(channels=2, names=["Oz", "Fp1"], rate=250, window=(0, 1), samples=250)
    sample = eeg.load(items[1].inputs["eeg"])
    data = np.random.default_rng(0).standard_normal((3, 80, len(CHANNELS), 250))
    np.testing.assert_allclose(sample.data, data[1].mean(axis=0)[[1, 0]], atol=1e-6)
    assert eeg.transform(sample).shape == (2, 250)
    assert get_modality("image").load(items[1].inputs["image"]).data[0, 0, 0] == pytest.approx(60, abs=2)
    assert [p.expected for p in dataset.check(tmp_path)] == ["200 folders, found 3"]


def test_things_eeg_with_another_number_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test_images: 2 folders. Accepted: 3, as many as preprocessed_eeg_test\.npy"):
        get_dataset("things_eeg").items(things(tmp_path, pictures=2), "sub-03")
    with pytest.raises(InputError, match=r"sub-01/preprocessed_eeg_test\.npy: no such file"):
        get_dataset("things_eeg").items(tmp_path, "sub-01")
