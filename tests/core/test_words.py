"""Words that a model does not know are named with the nearest known ones; texts that it cannot tell apart are refused by name."""

from __future__ import annotations

import warnings

import pytest

import vitlens
from vitlens.errors import OptionError
from vitlens.modalities.text import Text
from vitlens.words import distinct, said_same, same_texts, unknown_to, unknown_words


@pytest.fixture(scope="module")
def toy() -> vitlens.ViTLens:
    return vitlens.load("vitlens-toybox", modalities=["text", "audio"], device="cpu")


@pytest.fixture(scope="module")
def words(toy: vitlens.ViTLens) -> Text:
    text = toy.modality("text")
    assert isinstance(text, Text)
    return text


def test_unknown_words_are_named_with_the_nearest_known_ones(words: Text) -> None:
    said = unknown_words(words, ["a photo of a hamer.", "the CHAIRS!", "a pinkish dumbbell", 3, "bad\0"])
    assert "'hamer' (nearest known: hammer" in said and "'chairs' (nearest known: chair" in said
    assert "pinkish" not in said and "photo" not in said
    assert unknown_words(words, ["a photo of a Goblet, standing on the floor."]) == ""
    assert unknown_words(Text(), ["xyzzy"]) == "", "a whole vocabulary makes every word of pieces"
    many = unknown_words(words, [" ".join(f"q{chr(97 + i)}z" for i in range(9))])
    assert "and 4 more" in many


def test_a_text_says_what_of_it_is_unknown(words: Text) -> None:
    assert words.describe(words.read("a sparrow on a chair"))["unknown words"] == "sparrow"
    assert "unknown words" not in words.describe(words.read("a chair"))


def test_encoding_unknown_words_warns(toy: vitlens.ViTLens) -> None:
    with pytest.warns(UserWarning, match=r"'sparrow'.*as the same one"):
        toy.encode({"text": ["a sparrow"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.encode({"text": ["a chair", "a photo of a wooden hammer."]})


@pytest.mark.filterwarnings("ignore:the model does not know")
@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["bird", "sparrow", "airliner"], "'bird' and 'sparrow'; the model does not know 'bird'"),
        (["the spoken digit zero", "the spoken digit seven"], "'the spoken digit zero' and 'the spoken digit seven'"),
        (["mug", "chair", " Chair"], "'chair' and ' Chair'; their tokens are the same"),
        ([f"q{sign}z" for sign in "abcdefg"], "and 2 more"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(labels: list[str], named: str, toy: vitlens.ViTLens) -> None:
    with pytest.raises(OptionError, match="cannot tell apart") as told:
        toy.class_vectors(labels)
    assert named in str(told.value)
    with pytest.raises(OptionError, match="cannot tell apart"):
        toy.classify("audio", [toy.modality("audio").example()], labels)


def test_what_differs_passes(toy: vitlens.ViTLens) -> None:
    assert toy.class_vectors(["chair", "stool", "goblet"]).shape == (3, 128)
    with pytest.warns(UserWarning, match="'bird'"):
        assert toy.class_vectors(["bird", "chair"]).shape == (2, 128)


def test_texts_that_differ_behind_the_last_token_are_the_same() -> None:
    long = "a chair " * 80
    text = Text()
    assert same_texts(text, {"one": [long + "red"], "two": [long + "blue"], "three": ["a chair"]}) == [["one", "two"]]
    assert distinct(text, ["Rain", "rain", "sea", "rain "]) == ["Rain", "sea"]
    assert said_same(text, {"a": ["a"], "b": ["b"]}, "captions") == ""


def test_a_language_model_s_unknown_words() -> None:
    class Words:
        unk_token_id = 0

        def get_vocab(self) -> dict[str, int]:
            return {"<unk>": 0, "hammer": 1, "is": 2}

        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [self.get_vocab().get(text, 0)]}

    said = unknown_to(Words(), ["is it a hamer? ", "HAMMER!"])
    assert "'hamer' (nearest known: hammer)" in said and "'it'" in said and "'is'" not in said
    Words.unk_token_id = None  # type: ignore[assignment]
    assert unknown_to(Words(), ["anything"]) == ""
