"""Text: the reference's tokens and cleaning, whole end tokens, and no text that is none."""

from __future__ import annotations

import io
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.errors import InputError, OptionError
from vitlens.modalities.text import Text, clean_caption

REFERENCE = Path(__file__).parents[1] / "reference" / "vitlens"
CAPTIONS = runpy.run_path(str(REFERENCE / "golden_preproc_formula" / "inputs.py"))["CAPTIONS"]
START, END = 49406, 49407
text = Text()


@pytest.mark.parametrize(("clean", "golden"), [(True, "tokens_text_processor"), (False, "tokens_plain_tokenizer")])
def test_tokens_equal_the_reference(clean, golden):
    modality = Text(clean=clean)
    tokens = torch.stack([modality.transform(modality.read(caption)) for caption in CAPTIONS])
    assert tokens.dtype == torch.int64
    np.testing.assert_array_equal(tokens, np.load(REFERENCE / "golden_preproc_formula" / "text.npz")[golden])


def test_cleaned_captions_equal_the_reference():
    report = json.loads((REFERENCE / "golden_preproc_report.json").read_text())
    assert [clean_caption(c) for c in CAPTIONS] == report["golden_preproc_formula/text"]["pre_caption"]
    assert clean_caption("Is it, really? (YES!)") == "is it, really? yes"
    assert len(clean_caption("word " * 100).split()) == 70


@pytest.mark.parametrize("long", ["word " * 500, "a" * 100_000, "!?" * 300, "猫" * 400, " ".join(map(str, range(1000)))])
def test_long_text_keeps_its_end_token(long):
    tokens = text.transform(text.read(long))
    assert tokens.shape == (77,)
    assert tokens[0] == START
    assert tokens[-1] == END
    assert Text(context_length=12).transform(text.read(long))[-1] == END


def test_short_and_empty_text_is_filled_with_zeros():
    assert text.transform(text.read("")).tolist() == [START, END] + [0] * 75
    tokens = text.transform(text.read("a dog"))
    assert tokens[3] == END
    assert not tokens[4:].any()


def test_a_string_is_the_text_and_a_path_is_a_file(tmp_path):
    path = tmp_path / "caption.txt"
    path.write_bytes("\ufeffa café\n".encode())
    assert text.read(str(path)).data == str(path)
    assert text.read(path).data == "a café\n"
    assert text.read(path.open("rb")).data == "a café\n"
    assert text.read(b"a dog", format="txt").data == "a dog"


def test_what_is_no_text_is_refused(tmp_path):
    for name, content in {
        "latin.txt": "café".encode("latin-1"),
        "binary.txt": b"ab\0cd",
        "empty.txt": b"",
        "words.doc": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            text.read(tmp_path / name)
    bad = {
        "a int": 3,
        "a NoneType": None,
        "not a text": ["a", "b"],
        "null": "a\0b",
        "surrogate": "a\ud800",
        "at most 1048576": "x" * (1 << 20) + "x",
        "type is not known": b"a dog",
        "text mode": io.StringIO("a dog"),
    }
    for reason, source in bad.items():
        with pytest.raises(InputError, match=reason):
            text.read(source, format="txt" if reason == "text mode" else None)
    (tmp_path / "long.txt").write_bytes(b"x" * ((4 << 20) + 1))
    with pytest.raises(InputError, match="4194305 bytes"):
        text.read(tmp_path / "long.txt")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=60) | st.none() | st.floats())
def test_wild_inputs_are_read_or_refused(source):
    try:
        sample = text.read(source, format="txt")
    except InputError:
        return
    for modality in (text, Text(clean=True, context_length=9)):
        tokens = modality.transform(sample)
        assert tokens.shape == (modality.context_length,)
        assert tokens[0] == START
        assert tokens.max() == END


def test_options_are_checked_and_survive_json():
    other = Text(clean=True, context_length=32)
    assert Text(**json.loads(json.dumps(other.options()))) == other
    for wrong in ({"clean": 1}, {"context_length": 2}, {"context_length": True}, {"tokenizer": ""}, {"tokenizer": None}):
        with pytest.raises(OptionError, match=f"text: {next(iter(wrong))}"):
            Text(**wrong)
    with pytest.raises(OptionError, match="unknown tokenizer 'ViT-X'"):
        Text(tokenizer="ViT-X").transform(text.read("a"))
    other = Text(tokenizer="ViT-B-32")  # an open_clip model with CLIP's vocabulary
    assert torch.equal(other.transform(other.read("a dog")), text.transform(text.read("a dog")))


def test_example_survives_writing_and_can_be_looked_at(tmp_path):
    sample = text.example(2)
    path = text.write(sample, tmp_path, "caption")
    assert text.read(path).data == sample.data
    assert text.claims(path) == 1
    assert text.describe(text.read("a dog barks"))["length"] == "3 words, 11 characters"
    cloud = tmp_path / "cloud.txt"
    cloud.write_text("0.1,-0.2,1e-3,0,0,nan\n" * 9)
    assert text.claims(cloud) == 0
    assert text.claims(tmp_path / "a.png") == 0
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    text.draw(sample, axes)
    assert axes.texts[0].get_text().replace("\n", " ") == sample.data


def test_a_small_vocabulary_keeps_the_order_of_its_tokens() -> None:
    whole = Text().transform(Text().load("a red dog"))
    start, a, dog, end = (int(whole[i]) for i in (0, 1, 3, 4))
    small = Text(vocabulary=sorted([start, a, dog, end]), context_length=8)
    ids = small.transform(small.load("a red dog")).tolist()
    places = {token: place + 2 for place, token in enumerate(sorted([start, a, dog, end]))}
    assert ids == [places[start], places[a], 1, places[dog], places[end], 0, 0, 0]
    assert max(ids) == places[end], "the text tower finds the end token by its largest id"
    with pytest.raises(OptionError, match="rising token ids"):
        Text(vocabulary=[5, 3])
