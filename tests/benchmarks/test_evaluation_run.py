"""One model on one dataset: what comes out, which protocol counts how, what is wrong with the data, and what it costs again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.evaluation_world import TEMPLATES, TEST, Captions, Merged, Shapes, Tags, Twins, variant
from tests.train.tiny import SHAPES, tiny_clip
from vitlens.benchmarks.datasets import Dataset, DatasetItem, get_dataset
from vitlens.benchmarks.evaluation import Measurement, Settings, evaluate, find, read_results, write_report
from vitlens.benchmarks.evaluation.run import root_of, spread
from vitlens.errors import InputError, ModalityError, OptionError
from vitlens.model import ViTLens


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def settings(cache: Path) -> Settings:
    return Settings(cache=cache, batch_size=5)


def test_classification_is_the_model_s_own(model: ViTLens, root: Path, settings: Settings) -> None:
    result = evaluate(model, Shapes(), root, settings)
    items = Shapes().items(root, "test")
    told = model.classify("image", [item.inputs["image"] for item in items], SHAPES, templates=TEMPLATES).top(1)
    hits = [row[0][0] == item.labels[0] for row, item in zip(told, items, strict=True)]
    assert 0 < sum(hits) < TEST, "a score of all or nothing proves little"
    assert result.metrics["top1"] == pytest.approx(100 * sum(hits) / TEST, abs=1e-3)
    assert result.dataset["items"] == result.dataset["expected_items"] == TEST
    assert result.model["weights"].keys() == {"image", "text"}
    assert result.settings["prompts"]["count"] == len(TEMPLATES)
    assert not result.skipped and not result.differs
    best = max(result.published, key=lambda p: p["value"])
    assert best["model"] == "Another" and best["delta"] == pytest.approx(result.metrics["top1"] - 60.0)


def test_the_environment_is_in_the_result(model: ViTLens, root: Path, settings: Settings) -> None:
    values = evaluate(model, Shapes(), root, settings).to_dict()
    assert values["environment"]["device"] == "cpu"
    assert {"python", "torch", "vitlens"} <= values["environment"]["versions"].keys()
    assert values["dataset"]["version"] == "1" and values["protocol"] == "default" and values["settings"]["seed"] == 0


def test_merged_classes_count_as_one(model: ViTLens, root: Path, settings: Settings) -> None:
    alone, merged = (evaluate(model, dataset, root, settings) for dataset in (Shapes(), Merged()))
    assert list(merged.per_class) == ["disc", "square", "others"]
    assert merged.metrics["top1"] >= alone.metrics["top1"]


@pytest.mark.parametrize("dataset", [Tags(), Captions()])
def test_a_second_metric_costs_nothing(dataset: Dataset, model: ViTLens, root: Path, tmp_path: Path) -> None:
    own = Settings(cache=tmp_path)
    first, paper = evaluate(model, dataset, root, own), evaluate(model, dataset, root, replace(own, protocol="paper"))
    assert first.run["embedded_by_this_process"] > TEST
    assert paper.run["embedded_by_this_process"] == 0
    assert first.metrics != paper.metrics, "the protocols differ on this data"


def test_classes_that_the_model_cannot_tell_apart_are_said(model: ViTLens, root: Path, settings: Settings) -> None:
    class Alike(Shapes):
        def prompt_names(self, split: str) -> dict[str, str]:
            return {"square": "thing", "bar": "Thing"}

    with pytest.warns(UserWarning, match=r"tiny-shapes/test: classes that the model cannot tell apart: 'square' and 'bar'"):
        result = evaluate(model, Alike(), root, settings)
    assert any("'square' and 'bar'; their tokens are the same" in note for note in result.notes)
    assert not any("apart" in note for note in evaluate(model, Shapes(), root, settings).notes)


def test_multi_label_counts_classes_without_positives_by_protocol(model: ViTLens, root: Path, settings: Settings) -> None:
    ours, paper = (evaluate(model, Tags(), root, replace(settings, protocol=p)) for p in ("default", "paper"))
    assert paper.metrics["mAP"] == pytest.approx(ours.metrics["mAP"] * 5 / 6)
    assert "AP" not in ours.per_class["never there"] and ours.per_class["straight"]["items"] == 9


def test_retrieval_takes_every_caption(model: ViTLens, root: Path, settings: Settings) -> None:
    result = evaluate(model, Captions(), root, settings)
    items = Captions().items(root, "test")
    pictures = model.encode({"image": [item.inputs["image"] for item in items]})["image"]
    texts = model.encode({"text": [caption for item in items for caption in item.captions]})["text"]
    cosines = pictures @ texts.T
    found = sum(int(cosines[:, j].argmax()) == j // 2 for j in range(2 * TEST))
    assert result.metrics["text_to_image_r@1"] == pytest.approx(100 * found / (2 * TEST), abs=1e-3)
    hits = sum(i in (cosines[i].topk(5).indices // 2).tolist() for i in range(TEST))
    assert result.metrics["image_to_text_r@5"] == pytest.approx(100 * hits / TEST, abs=1e-3)


def test_retrieval_of_another_modality(model: ViTLens, root: Path, settings: Settings) -> None:
    """A video of one picture shares the picture's tower, so that everything is found."""
    result = evaluate(model, Twins(), root, settings)
    assert result.metrics["image_to_video_r@1"] == result.metrics["video_to_image_r@1"] == 100.0


def test_a_limit_takes_items_from_everywhere(model: ViTLens, root: Path, settings: Settings) -> None:
    items = [DatasetItem(str(i), {}) for i in range(100)]
    assert [int(item.id) for item in spread(items, 4)] == [12, 37, 62, 87]
    assert spread(items, 100) == spread(items, None) == items
    result = evaluate(model, Shapes(), root, replace(settings, limit=7))
    assert result.dataset["items"] == 7 and result.differs == ["7 items only (--limit)"]


def test_own_prompts_are_said(model: ViTLens, root: Path, settings: Settings) -> None:
    own = replace(settings, templates=("the {} of all things",), templates_from="mine.txt")
    result = evaluate(model, Shapes(), root, own)
    assert result.settings["prompts"]["from"] == "mine.txt" and result.differs == ["own prompts"]
    assert result.slug != evaluate(model, Shapes(), root, settings).slug


def broken(root: Path, folder: Path, **contents: bytes) -> Path:
    """A copy of the world in which some pictures hold something else."""
    shutil.copytree(root, folder)
    for name, content in contents.items():
        (folder / "pictures" / f"{name}.png").write_bytes(content)
    return folder


def test_an_item_that_does_not_decode(model: ViTLens, root: Path, settings: Settings, tmp_path: Path) -> None:
    folder = broken(root, tmp_path / "copy", **{"003": b"no picture"})
    with pytest.raises(InputError, match=r"003\.png"):
        evaluate(model, Shapes(), folder, settings)
    result = evaluate(model, Shapes(), folder, replace(settings, on_error="skip"))
    assert [item["item"] for item in result.skipped] == ["003"]
    assert result.skipped[0]["file"].endswith("003.png") and "Accepted" in result.skipped[0]["reason"]
    assert result.differs == ["1 items skipped"] and "1 items were skipped" in result.notes[-1]
    assert sum(row["items"] for row in result.per_class.values()) == TEST - 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are always text: run it on Linux")
def test_an_item_in_a_folder_whose_name_is_no_utf8_is_reported(
    model: ViTLens, root: Path, settings: Settings, tmp_path: Path
) -> None:
    folder = broken(root, tmp_path / os.fsdecode(b"caf\xe9"), **{"003": b"no picture"})
    result = evaluate(model, Shapes(), folder, replace(settings, on_error="skip"))
    written = result.write(tmp_path / "out")
    assert read_results(tmp_path / "out")[0].skipped == result.skipped
    assert b"caf\xe9" in (written / "skipped.csv").read_bytes()
    pages = write_report(tmp_path / "out", [result])
    assert all("003.png" in page.read_text(encoding="utf-8") for page in pages)


def test_no_item_that_decodes(model: ViTLens, root: Path, settings: Settings, tmp_path: Path) -> None:
    folder = broken(root, tmp_path / "copy", **{f"{i:03}": b"no" for i in range(TEST)})
    with pytest.raises(InputError, match="none of 12 items"):
        evaluate(model, Shapes(), folder, replace(settings, on_error="skip"))


def test_a_label_that_is_not_in_the_class_list(model: ViTLens, root: Path, settings: Settings, tmp_path: Path) -> None:
    folder = broken(root, tmp_path / "copy")
    table = (folder / "list.csv").read_text().replace("000.png,disc", "000.png,dics")
    (folder / "list.csv").write_text(table)
    with pytest.raises(InputError, match=r"000\.png.*'dics'.*4 classes \(disc, square, bar, cross\).*'disc'"):
        evaluate(model, Shapes(), folder, settings)


def test_a_half_copied_dataset(model: ViTLens, root: Path, settings: Settings, tmp_path: Path) -> None:
    folder = broken(root, tmp_path / "copy")
    lines = (folder / "list.csv").read_text().splitlines(keepends=True)
    (folder / "list.csv").write_text("".join(lines[:9]))
    with pytest.raises(InputError, match=r"8 items.*all 12 items"):
        evaluate(model, Shapes(), folder, settings)
    result = evaluate(model, Shapes(), folder, replace(settings, on_error="skip"))
    assert result.differs == ["8 of 12 items"] and "incomplete copy: 8 of 12" in result.notes[0]
    (folder / "list.csv").unlink()
    with pytest.raises(InputError, match=r"list\.csv.*the list of pictures"):
        evaluate(model, Shapes(), folder, settings)


def test_where_the_data_is(root: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITLENS_DATA", raising=False)
    with pytest.raises(OptionError, match="VITLENS_DATA"):
        find(Shapes(), None, settings)
    with pytest.raises(InputError, match="no such folder"):
        find(Shapes(), tmp_path / "nowhere", settings)
    with pytest.raises(InputError, match=r"list\.csv"):
        find(Shapes(), tmp_path, settings)
    assert find(Shapes(), root, settings).root == find(Shapes(), root.parent, settings).root == root
    (tmp_path / "Tiny_Shapes").symlink_to(root)
    monkeypatch.setenv("VITLENS_DATA", str(tmp_path))
    assert find(Shapes(), None, settings).root == tmp_path / "Tiny_Shapes"


def test_data_is_found_under_the_name_that_the_card_shows(root: Path, settings: Settings, tmp_path: Path) -> None:
    packed = variant(Shapes, layout="tiny_files/          <- root\n  list.csv\n  pictures/*.png")()
    shutil.copytree(root, tmp_path / "tiny-files")
    assert find(packed, tmp_path, settings).root == tmp_path / "tiny-files"
    assert find(packed, tmp_path / "tiny-files", settings).root == tmp_path / "tiny-files"
    (tmp_path / "tiny_shapes").mkdir()
    (tmp_path / "tiny-files").rename(tmp_path / "tiny_shapes" / "tiny_files")
    assert find(packed, tmp_path, settings).root == tmp_path / "tiny_shapes" / "tiny_files", "unpacked in a folder of its name"
    other = tmp_path / "other"
    (other / "tiny_files").mkdir(parents=True)
    assert root_of(packed, other) == other, "a folder of that name with something else in it"
    assert get_dataset("modelnet40").card.folder == "modelnet40_normal_resampled"
    assert get_dataset("imagenet").card.folder == ""


def test_a_model_without_the_modality(root: Path, settings: Settings) -> None:
    with pytest.raises(ModalityError, match="audio"):
        evaluate(tiny_clip(), variant(Shapes, modality="audio")(), root, settings)
    with pytest.raises(ModalityError, match="text"):
        evaluate(tiny_clip(text=False), Shapes(), root, settings)


@pytest.mark.parametrize(
    "wrong", [{"task": "guess"}, {"protocol": "mine"}, {"on_error": "hide"}, {"limit": 0}, {"dtype": "int4"}, {"split": "valid"}]
)
def test_wrong_options_are_named(wrong: dict[str, Any], root: Path) -> None:
    with pytest.raises(OptionError, match=str(next(iter(wrong.values())))):
        find(Shapes(), root, Settings(**wrong))


def test_results_come_back_and_the_report_shows_them(model: ViTLens, root: Path, settings: Settings, tmp_path: Path) -> None:
    full = evaluate(model, Shapes(), root, settings)
    part = evaluate(model, Captions(), root, replace(settings, limit=11))
    folder = full.write(tmp_path)
    part.write(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"result.json", "per_class.csv", "confusion.png"}
    found = {result.dataset["name"]: result for result in read_results(tmp_path)}
    assert found["tiny-shapes"].to_dict() == json.loads((folder / "result.json").read_text()) == full.to_dict()
    markdown, page = (path.read_text() for path in write_report(tmp_path, list(found.values())))
    top1 = full.metrics["top1"]
    for text in ("Another 60.0", f"{top1:.2f}", f"{top1 - 60:+.1f}", "11 items only"):
        assert text in markdown and text in page
    assert page.count("data:image/png;base64") == 1 and "<script" not in page and "http" not in page
    (folder / "result.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        read_results(tmp_path)


def test_names_cannot_break_the_report(model: ViTLens, root: Path, settings: Settings, tmp_path: Path) -> None:
    name = "<b>$x^2$ | ../evil</b>"
    result = evaluate(model, Shapes(), root, settings, model_name=name)
    assert result.write(tmp_path).parent == tmp_path
    page = write_report(tmp_path, [result])[1].read_text()
    assert "<b>$x" not in page and "&lt;b&gt;$x" in page
    assert isinstance(result, Measurement) and "../" not in result.slug
