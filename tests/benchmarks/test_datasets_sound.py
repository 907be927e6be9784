"""ESC-50, AudioSet, VGGSound, Clotho and AudioCaps on miniature trees in their official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from vitlens.benchmarks.datasets import DatasetItem, get_dataset
from vitlens.errors import InputError
from vitlens.modalities.audio import Audio


def write_sound(path: Path, rate: int = 44100, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(int(rate * seconds)) / 9), rate)


def load_rate(item: DatasetItem) -> float:
    return float(Audio().load(item.inputs["audio"]).info["rate"])


ESC_HEAD = "filename,fold,target,category,esc10,src_file,take\n"


def esc50(root: Path) -> Path:
    rows = [("1-100032-A-0.wav", 1, 0, "dog"), ("1-1-A-11.wav", 1, 11, "sea_waves"), ("5-2-B-49.wav", 5, 49, "hand_saw")]
    (root / "meta").mkdir(parents=True)
    lines = [f"{file},{fold},{target},{name},False,1,A\n" for file, fold, target, name in rows]
    (root / "meta" / "esc50.csv").write_text(ESC_HEAD + "".join(lines))
    for file, *_ in rows:
        write_sound(root / "audio" / file)
    return root


def test_esc50_all_and_by_fold(tmp_path: Path) -> None:
    dataset, root = get_dataset("esc50"), esc50(tmp_path)
    items = dataset.items(root, "all")
    assert [item.labels for item in items] == [("dog",), ("sea waves",), ("hand saw",)]
    assert [item.id for item in dataset.items(root, "fold5")] == ["5-2-B-49"]
    assert [item.id for item in dataset.items(root, "fold1")] == ["1-100032-A-0", "1-1-A-11"]
    assert load_rate(items[1]) == 44100
    with pytest.raises(InputError, match=r"esc50\.csv: nothing of this split\. Accepted: clips of fold3"):
        dataset.items(root, "fold3")


def test_esc50_check(tmp_path: Path) -> None:
    dataset = get_dataset("esc50")
    assert "no-such" in dataset.check(tmp_path / "no-such")[0].path
    assert [Path(p.path).name for p in dataset.check(tmp_path)] == ["esc50.csv", "audio"]
    root = esc50(tmp_path)
    (root / "audio" / "1-1-A-11.wav").unlink()
    problems = dataset.check(root)
    assert problems[0].expected == "2,000 rows, found 3"
    assert problems[1].path.endswith("1-1-A-11.wav") and len(problems) == 2


def test_esc50_whole_copy_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    files = [f"{1 + i // 400}-{i}-A-0.wav" for i in range(2000)]
    (tmp_path / "meta" / "esc50.csv").write_text(ESC_HEAD + "".join(f"{f},{f[0]},0,dog,True,1,A\n" for f in files))
    for file in files:
        (tmp_path / "audio" / file).touch()
    assert get_dataset("esc50").check(tmp_path) == []
    assert len(get_dataset("esc50").items(tmp_path, "fold4")) == 400


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1-1-A-50.wav,1,50,dog,True,1,A", r"line 2: the label '50', which is not in the class list. Accepted: 0 to 49"),
        ("1-1-A-1.wav,1,1,dog,True,1,A", r"line 2: target 1 called 'dog'. Accepted: 'rooster'"),
        ("1-1-A-1.wav,1", r"line 2: 2 values. Accepted: a list with the columns filename, fold, target, category"),
    ],
)
def test_esc50_names_the_bad_line(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(f"{ESC_HEAD}{row}\n")
    with pytest.raises(InputError, match=message):
        get_dataset("esc50").items(tmp_path, "all")


def test_a_clip_that_does_not_decode_names_the_file(tmp_path: Path) -> None:
    root = esc50(tmp_path)
    (root / "audio" / "1-1-A-11.wav").write_bytes(b"RIFF0000 no sound")
    items = get_dataset("esc50").items(root, "all")
    with pytest.raises(InputError, match=r"1-1-A-11\.wav"):
        load_rate(items[1])


def vggsound(root: Path, rows: list[str]) -> Path:
    (root / "vggsound.csv").write_text("\n".join(rows) + "\n")
    return root


VGG_ROWS = [
    '---g-f_I2yQ,1,"bird chirping, tweeting",test',
    "-0BIyqJj9ZU,30,playing piano,test",
    "xgone,40,air horn,test",
    "trainclip00,5,air horn,train",
]


def test_vggsound_takes_the_clips_that_are_there_under_any_name(tmp_path: Path) -> None:
    root, dataset = vggsound(tmp_path, VGG_ROWS), get_dataset("vggsound")
    write_sound(root / "audio" / "test" / "---g-f_I2yQ_000001.flac", 16000)
    write_sound(root / "audio" / "test" / "-0BIyqJj9ZU_30.wav", 16000)
    items = dataset.items(root, "test")
    assert [(item.id, item.labels[0]) for item in items] == [
        ("---g-f_I2yQ_000001", "bird chirping, tweeting"),
        ("-0BIyqJj9ZU_000030", "playing piano"),
    ]
    assert load_rate(items[1]) == 16000
    (problem,) = dataset.check(root)
    assert "3 clips: 1 are missing" in problem.expected
    with pytest.raises(InputError, match=r"nothing of this split. Accepted: clips of the split train that are in audio/train"):
        dataset.items(root, "train")


def test_vggsound_names_an_unknown_label_and_a_wrong_root(tmp_path: Path) -> None:
    dataset = get_dataset("vggsound")
    assert dataset.check(tmp_path)[0].path.endswith("vggsound.csv")
    root = vggsound(tmp_path, ["abc,1,moon howling,test"])
    assert dataset.check(root)[0].path.endswith("audio/test")
    write_sound(root / "audio" / "test" / "abc_000001.flac", 16000)
    with pytest.raises(InputError, match=r"vggsound\.csv, line 1: the label 'moon howling'.*309 classes"):
        dataset.items(root, "test")


AUDIOSET_HEAD = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=20371\n# YTID, start_seconds, end_seconds, positive_labels\n"
)


def audioset(root: Path, rows: str) -> Path:
    (root / "eval_segments.csv").write_text(AUDIOSET_HEAD + rows)
    return root


def test_audioset_gives_all_labels_of_a_clip(tmp_path: Path) -> None:
    rows = [
        '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/09x0r"',
        '--BfvyPmVMo, 20.000, 30.000, "/m/03l9g"',
        'gone, 1.000, 11.000, "/m/09x0r"',
    ]
    root, dataset = audioset(tmp_path, "\n".join(rows)), get_dataset("audioset")
    write_sound(root / "audio" / "eval" / "Y--4gqARaEJE.wav", 32000)
    write_sound(root / "audio" / "eval" / "--BfvyPmVMo_20000_30000.flac", 32000)
    items = dataset.items(root, "eval")
    assert [item.labels for item in items] == [("Domestic animals, pets", "Speech"), ("Hammer",)]
    assert load_rate(items[0]) == 32000
    assert dataset.prompt_names("eval")["Speech"] == "speech"
    assert "1 are missing" in dataset.check(root)[0].expected


def test_audioset_names_an_unknown_class_with_its_line(tmp_path: Path) -> None:
    root = audioset(tmp_path, 'a, 0.000, 10.000, "/m/09x0r"\nb, 0.000, 10.000, "/m/nothing"\n')
    write_sound(root / "audio" / "eval" / "a.wav", 16000)
    with pytest.raises(InputError, match=r"eval_segments\.csv, line 5: the label '/m/nothing'"):
        get_dataset("audioset").items(root, "eval")


def test_clotho(tmp_path: Path) -> None:
    dataset = get_dataset("clotho")
    assert dataset.check(tmp_path)[0].path.endswith("clotho_captions_evaluation.csv")
    head = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    rows = 'Santa Motor.wav,"A machine whines, squeals",b,c,d,e\nRadio.wav,f,g,h,i,j\n'
    (tmp_path / "clotho_captions_evaluation.csv").write_text(head + rows)
    write_sound(tmp_path / "evaluation" / "Santa Motor.wav")
    items = dataset.items(tmp_path, "evaluation")
    assert items[0].id == "Santa Motor" and items[0].captions == ("A machine whines, squeals", "b", "c", "d", "e")
    assert load_rate(items[0]) == 44100
    problems = dataset.check(tmp_path)
    assert problems[0].expected == "1,045 rows, found 2" and problems[1].path.endswith("Radio.wav")
    with pytest.raises(InputError, match=r"Radio\.wav: no such file"):
        load_rate(items[1])
    (tmp_path / "clotho_captions_validation.csv").write_text("file_name,caption_1\nRadio.wav,f\n")
    with pytest.raises(InputError, match=r"clotho_captions_validation\.csv: no column caption_2, caption_3"):
        dataset.items(tmp_path, "validation")


def test_audiocaps_by_the_official_table(tmp_path: Path) -> None:
    dataset = get_dataset("audiocaps")
    assert dataset.check(tmp_path)[0].path.endswith("test.csv")
    rows = [f"{i},vfY_TJq7n_U,130,caption {i}\n" for i in range(5)] + ["9,gone,20,another\n"]
    (tmp_path / "test.csv").write_text("audiocap_id,youtube_id,start_time,caption\n" + "".join(rows))
    write_sound(tmp_path / "audio" / "test" / "vfY_TJq7n_U.wav", 32000)
    (item,) = dataset.items(tmp_path, "test")
    assert item.id == "vfY_TJq7n_U_000130" and item.captions == tuple(f"caption {i}" for i in range(5))
    assert load_rate(item) == 32000
    assert "2 clips: 1 are missing" in dataset.check(tmp_path)[0].expected


def test_audiocaps_by_the_lists_of_vitlens(tmp_path: Path) -> None:
    (tmp_path / "audiocaps_test_ib_texts.json").write_text('{"17": ["a dog", "a hound"], "18": ["rain"]}')
    write_sound(tmp_path / "audio" / "test" / "17.flac", 16000)
    dataset = get_dataset("audiocaps")
    assert "1 are missing" in dataset.check(tmp_path)[0].expected
    with pytest.raises(InputError, match=r"audio/test/18: no such sound. Accepted: as audiocaps_test_ib_texts\.json lists it"):
        dataset.items(tmp_path, "test_813")
    write_sound(tmp_path / "audio" / "test" / "18.flac", 16000)
    assert [(item.id, item.captions) for item in dataset.items(tmp_path, "test_813")] == [
        ("17", ("a dog", "a hound")),
        ("18", ("rain",)),
    ]
    assert dataset.check(tmp_path) == []
