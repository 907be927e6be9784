"""SUN RGB-D: scenes seen by four depth cameras, 19 kinds of rooms (Song et al., CVPR 2015)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from vitlens.benchmarks.datasets.card import DatasetCard, dataset_card
from vitlens.benchmarks.datasets.dataset import Dataset, DatasetItem, Problem, read_lines, register_dataset
from vitlens.benchmarks.datasets.listing import absent, checked_label, json_records, some, text_lines, wrong_count
from vitlens.errors import InputError
from vitlens.sources import check_file, decoding

TOOLBOX = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
LISTS = {"test": "SUN-RGBD_val.json", "train": "SUN-RGBD_train.json"}
SPLIT_FILE = f"the toolbox's split (alltrain, alltest), or the lists of ViT-Lens in its place ({LISTS['test']})"
BASELINES = {"kv1": 0.075, "kv2": 0.075, "realsense": 0.095, "xtion": 0.095}
"""Metres between the two eyes of a sensor, as ViT-Lens and Omnivore take them; xtion's is a guess of theirs."""


@register_dataset
class SUNRGBD(Dataset):
    """Folders of images, split by the toolbox's list or by ViT-Lens's."""

    card: ClassVar[DatasetCard] = dataset_card("sun_rgbd")
    prompt_file: ClassVar[str | None] = "scenes"

    def classes(self, split: str) -> tuple[str, ...]:
        return read_lines("labels", "sun_rgbd")

    def check(self, root: Path) -> list[Problem]:
        if problems := absent(root, parts_of(root, LISTS)):
            return problems
        entries = list(entries_of(root, "test", LISTS))
        problems += absent_folders(root, [folder for _, folder, _ in entries])
        if (root / LISTS["test"]).is_file():
            problems += wrong_count(root / LISTS["test"], len(entries), self.card.splits["test"], "records")
        return problems

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        listed, names, items = (root / LISTS[self.checked(split)]).is_file(), self.classes(split), []
        for where, folder, label in entries_of(root, split, LISTS):
            name = label_of(root, folder, label)
            if name not in names and (split == "train" or not listed):
                continue  # the toolbox and the training list also have the smaller classes
            items.append(DatasetItem(folder, {"depth": depth_of(root, folder)}, (checked_label(name, names, where),)))
        return some(items, root / "SUNRGBD", f"images of the split {split}")


def parts_of(root: Path, lists: dict[str, str]) -> dict[str, str]:
    """What must be there: the images, and one of the two ways to split them."""
    parts = {"SUNRGBD/": "folders kv1, kv2, realsense, xtion"}
    return parts if (root / lists["test"]).is_file() else {**parts, TOOLBOX: SPLIT_FILE}


def entries_of(root: Path, split: str, lists: dict[str, str]) -> Iterator[tuple[str, str, str | None]]:
    """Place in the list, folder seen from SUNRGBD/, and label (None: to be read from scene.txt) of every image of a split."""
    if (root / lists[split]).is_file():
        for where, record in json_records(root / lists[split], ("image_path", "label")):
            # The lists' own depth paths are no help: many of them name the disparity file beside the map.
            yield where, PurePosixPath(str(record["image_path"])).parent.parent.as_posix(), str(record["label"])
        return
    for place, entry in enumerate(_toolbox_split(root / TOOLBOX, f"all{split}")):
        yield f"{root / TOOLBOX}, {place}", entry, None


def _toolbox_split(path: Path, name: str) -> list[str]:
    """Folders of the toolbox's list, whose entries begin with a path of its authors' machine."""
    check_file(path, accepted=SPLIT_FILE)
    import scipy.io

    with decoding(path, SPLIT_FILE):
        found = scipy.io.loadmat(path, squeeze_me=True)
        if name not in found:
            raise InputError(str(path), f"no {name}", SPLIT_FILE)
        entries = [str(entry) for entry in found[name].reshape(-1)]
        if wrong := [entry for entry in entries if "SUNRGBD/" not in entry]:
            raise InputError(str(path), f"an entry {wrong[0]!r}", "paths with SUNRGBD/ in them")
    return [entry.partition("SUNRGBD/")[2].strip("/") for entry in entries]


def label_of(root: Path, folder: str, label: str | None) -> str:
    """The label of an image with spaces for underscores, from the list or else from its scene.txt."""
    if label is None:
        label = text_lines(root / "SUNRGBD" / folder / "scene.txt", "the scene's label")[0][1]
    return label.replace("_", " ")


def depth_of(root: Path, folder: str) -> dict[str, Any]:
    """The depth item of an image: its map, how it is stored, and its camera.

    Raises:
        InputError: no map, no or broken intrinsics, or a folder of no known sensor.
    """
    place = root / "SUNRGBD" / folder
    maps = sorted((place / "depth_bfx").glob("*.png"))
    if not maps:
        raise InputError(str(place / "depth_bfx"), "no depth map", "one 16-bit png")
    where, line = text_lines(place / "intrinsics.txt", "nine numbers, of which the first is the focal length in pixels")[0]
    try:
        focal_length = float(line.split()[0])
    except ValueError as error:
        raise InputError(where, repr(line[:40]), "the focal length in pixels") from error
    sensor = folder.partition("/")[0]
    if sensor not in BASELINES:
        raise InputError(str(place), f"a folder of the sensor {sensor!r}", f"one of {', '.join(BASELINES)}")
    return {"source": maps[0], "encoding": "sunrgbd", "focal_length": focal_length, "baseline": BASELINES[sensor]}


def absent_folders(root: Path, folders: Sequence[str]) -> list[Problem]:
    """Problems of the first images that have no depth map, and their number."""
    missing = [folder for folder in folders if not (root / "SUNRGBD" / folder / "depth_bfx").is_dir()]
    problems = [Problem(str(root / "SUNRGBD" / folder / "depth_bfx"), "a depth map") for folder in missing[:3]]
    if len(missing) > 3:
        problems.append(Problem(str(root / "SUNRGBD"), f"{len(folders)} images: {len(missing)} of them have no depth map"))
    return problems
