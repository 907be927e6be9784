"""ViTLens as a user meets it: encode, stream, classify, similarity, compose, tokens - order, subsets, types, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vitlens
from tests.modalities.test_audio_odd import contained
from vitlens.errors import InputError, ModalityError, OptionError, SpaceError
from vitlens.model import ViTLens
from vitlens.space import Embeddings, EmbeddingSpace

NAME = "vitlens-tiny-random"


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load(NAME, modalities=["image", "text", "audio", "video"], device="cpu")


def pictures(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(count)]


def tone(hertz: float, seconds: float = 2.0) -> dict[str, object]:
    t = np.arange(int(16000 * seconds)) / 16000
    return {"source": (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32), "rate": 16000}


def test_embeddings_are_normalised_and_in_input_order(model: ViTLens) -> None:
    items = pictures(5)
    out = model.encode({"image": items, "text": ["a dog", "a cat"]}, batch_size=2)
    assert out["image"].shape == (5, 64)
    assert out["text"].shape == (2, 64)
    assert torch.allclose(out["image"].norm(dim=-1), torch.ones(5), atol=1e-5)
    backwards = model.encode({"image": items[::-1]}, batch_size=3)["image"]
    assert torch.allclose(backwards.flip(0), out["image"], atol=1e-5)


def test_workers_give_the_same_numbers(model: ViTLens) -> None:
    items = pictures(3)
    alone = model.encode({"image": items})["image"]
    assert torch.equal(model.encode({"image": items}, num_workers=2)["image"], alone)


def test_progress_leaves_standard_output_alone(model: ViTLens, capsys: pytest.CaptureFixture[str]) -> None:
    model.encode({"image": pictures(2)}, progress=True)
    assert capsys.readouterr().out == ""


def test_the_same_item_always_gives_the_same_embedding(model: ViTLens) -> None:
    first, second = (model.encode({"audio": [tone(440)]})["audio"] for _ in range(2))
    assert torch.equal(first, second)


def test_normalisation_can_be_left_out(model: ViTLens) -> None:
    raw = model.encode({"image": pictures(2)}, normalize=False)["image"]
    assert not torch.allclose(raw.norm(dim=-1), torch.ones(2), atol=1e-2)
    assert torch.allclose(F.normalize(raw, dim=-1), model.encode({"image": pictures(2)})["image"], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close_and_comes_back_as_float32(model: ViTLens, dtype: torch.dtype) -> None:
    exact = model.encode({"image": pictures(2), "audio": [tone(300)]})
    low = model.encode({"image": pictures(2), "audio": [tone(300)]}, dtype=dtype)
    for name in exact:
        assert low[name].dtype == torch.float32
        assert float((exact[name] * low[name]).sum(dim=-1).min()) > 0.99


def test_only_the_towers_asked_for_are_built(model: ViTLens) -> None:
    assert sorted(model.encoders) == ["audio", "image"]
    text = vitlens.load(NAME, modalities=["text"], device="cpu")
    assert (list(text.encoders), text.modalities) == ([], ["text"])
    video = vitlens.load(NAME, modalities="video", device="cpu")
    assert list(video.encoders) == ["image"]
    assert video.supports("video", "image")
    assert not video.supports("video", "text")


def test_a_subset_gives_the_numbers_of_the_whole(model: ViTLens) -> None:
    alone = vitlens.load(NAME, modalities=["image"], device="cpu")
    assert torch.equal(alone.encode({"image": pictures(2)})["image"], model.encode({"image": pictures(2)})["image"])


def test_weights_in_half_precision() -> None:
    half = vitlens.load(NAME, modalities=["image", "audio", "text"], device="cpu", dtype=torch.bfloat16)
    exact = vitlens.load(NAME, modalities=["image", "audio", "text"], device="cpu")
    inputs = {"image": pictures(1), "audio": [tone(500)], "text": ["a dog"]}
    for name, low in half.encode(inputs).items():
        assert float((low * exact.encode(inputs)[name]).sum()) > 0.99


def test_a_missing_modality_is_named(model: ViTLens) -> None:
    with pytest.raises(ModalityError, match="has no modality 'eeg'; it has image, audio, text, video"):
        model.encode({"eeg": []})
    with pytest.raises(ModalityError, match="has no modality 'smell'"):
        vitlens.load(NAME, modalities=["smell"])


def test_a_bad_item_is_raised_or_skipped_and_reported(model: ViTLens, tmp_path: Path) -> None:
    Image.fromarray(pictures(1)[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    items = [tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "good.png", tmp_path / "gone.png"]
    with pytest.raises(InputError, match=r"bad\.png"):
        model.encode({"image": items}, batch_size=2)
    out = model.encode({"image": items}, batch_size=2, on_error="skip")
    assert out["image"].shape == (2, 64)
    assert out.kept["image"] == [0, 2]
    assert [index for index, _ in out.errors["image"]] == [1, 3]
    assert "gone.png" in str(out.errors["image"][1][1])
    assert [e.index for e in model.stream("image", items, batch_size=3)] == [0, 1, 2, 3]


def test_nothing_in_nothing_out(model: ViTLens) -> None:
    assert model.encode({"image": []})["image"].shape == (0, 64)
    assert model.encode({}) == {}


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"image": "dog.jpg"}, "must be a list of items, found dog.jpg"),
        (["dog.jpg"], "must be a dict"),
        ({"image": iter([])}, "must be a list"),
    ],
)
def test_inputs_of_the_wrong_kind(model: ViTLens, inputs: object, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        model.encode(inputs)  # type: ignore[arg-type]


def test_options_that_make_no_sense(model: ViTLens) -> None:
    with pytest.raises(OptionError, match="batch_size must be a whole number of 1 or more"):
        model.encode({"image": pictures(1)}, batch_size=0)
    with pytest.raises(OptionError, match="on_error"):
        model.encode({"image": []}, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unknown read option 'rat'"):
        model.encode({"audio": [tone(1)["source"]]}, read_options={"audio": {"rat": 16000}})


def test_read_options_reach_every_item(model: ViTLens) -> None:
    given = model.encode({"audio": [tone(440)["source"]]}, read_options={"audio": {"rate": 16000}})["audio"]
    assert torch.equal(given, model.encode({"audio": [tone(440)]})["audio"])


def test_equal_views_are_computed_once(model: ViTLens) -> None:
    short, long = tone(440, 1.0), tone(440, 30.0)
    reading, tower = model.modality("audio"), model.tower("audio")
    clips = [reading.transform(reading.load(item)) for item in (short, long)]
    assert torch.equal(clips[0][0], clips[0][2])
    assert not torch.equal(clips[1][0], clips[1][2])
    seen: list[int] = []
    handle = tower.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    try:
        rows = model.encode({"audio": [short, long]}, normalize=False)["audio"]
    finally:
        handle.remove()
    assert sorted(seen) == [1, 3]
    with torch.inference_mode():
        whole = torch.cat([tower.eval()(clip[None]) for clip in clips])
    assert torch.allclose(rows, whole, atol=1e-5)


def test_video_is_the_mean_of_its_frames(model: ViTLens) -> None:
    frames = np.stack(pictures(8))
    video = model.encode({"video": [frames]}, normalize=False)["video"]
    images = model.encode({"image": list(frames)}, normalize=False)["image"]
    assert torch.allclose(video[0], images.mean(dim=0), atol=1e-5)


def test_similarity_is_the_cosine_and_knows_the_space(model: ViTLens) -> None:
    out = model.encode({"image": pictures(2), "text": ["x", "y", "z"]})
    assert torch.allclose(model.similarity(out["image"], out["text"]), out["image"] @ out["text"].T, atol=1e-6)
    assert torch.allclose(model.similarity(3 * out["image"], out["image"]).diagonal(), torch.ones(2), atol=1e-5)
    with pytest.raises(SpaceError, match="width 64"):
        model.similarity(out["image"], torch.zeros(3, 32))
    foreign = Embeddings(EmbeddingSpace("another", 64))
    foreign["image"] = out["image"]
    with pytest.raises(SpaceError, match="space another"):
        model.similarity(foreign, out["text"])


def test_classification_follows_the_published_protocol(model: ViTLens) -> None:
    labels, templates = ["dog", "cat", "tree"], ["a {}.", "the {} here"]
    result = model.classify("image", pictures(4), labels, templates=templates)
    prompts = [[t.replace("{}", label) for t in templates] for label in labels]
    vectors = torch.stack([F.normalize(model.encode({"text": p})["text"].mean(0), dim=-1) for p in prompts])
    images = model.encode({"image": pictures(4)})["image"]
    assert torch.allclose(result.scores, images @ vectors.T, atol=1e-5)
    assert torch.allclose(result.probabilities.sum(-1), torch.ones(4), atol=1e-5)
    best = result.top(2)
    assert len(best) == 4
    assert all(a[1] >= b[1] for a, b in best)
    assert best[0][0][0] == labels[int(result.scores[0].argmax())]


def test_prompts_are_embedded_once_and_anew_when_weights_change(model: ViTLens, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda given, **options: asked.append(len(given["text"])) or encode(given, **options))
    labels = ["fish", "bird"]
    first = model.class_vectors(labels)
    expected = first.clone()
    first.zero_()
    assert torch.equal(model.class_vectors(labels), expected) and asked == [6]
    model.class_vectors(labels, templates=["a {}"])
    assert asked == [6, 2]
    model.class_vectors(["a", "b"])
    for wrong in ("ab", [["a"], "b"]):
        with pytest.raises(OptionError, match="labels"):
            model.class_vectors(wrong)  # type: ignore[arg-type]
    asked.pop()
    weight = next(model.tower("text").parameters())
    with torch.no_grad():
        weight.mul_(1.5)
    try:
        assert not torch.allclose(model.class_vectors(labels), expected) and asked == [6, 2, 6]
    finally:
        with torch.no_grad():
            weight.div_(1.5)


@pytest.mark.parametrize(
    ("labels", "templates", "named"),
    [([], ["{}"], "labels"), (["a", "a"], ["{}"], "different"), (["a"], ["no braces"], "no braces"), (["a"], [], "template")],
)
def test_labels_that_cannot_be_used(model: ViTLens, labels: list[str], templates: list[str], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        model.classify("image", pictures(1), labels, templates=templates)


def test_composition_adds_normalised_embeddings(model: ViTLens) -> None:
    out = model.encode({"image": pictures(2), "text": ["snow"]})
    one = model.compose([5 * out["image"][0], out["text"][0]], weights=[2, 1])
    assert torch.allclose(one, F.normalize(2 * out["image"][0] + out["text"][0], dim=-1), atol=1e-6)
    assert model.compose([out["image"], out["text"]]).shape == (2, 64)
    with pytest.raises(OptionError, match="cancel out"):
        model.compose([one, one], weights=[1, -1])
    with pytest.raises(OptionError, match="weights"):
        model.compose([one], weights=[1, 2])
    with pytest.raises(OptionError, match="at least one"):
        model.compose([])


def test_a_video_is_composed_with_its_own_sound(model: ViTLens, tmp_path: Path) -> None:
    heard = contained(tmp_path / "heard.mp4", "aac", pictures=True)
    silent = contained(tmp_path / "silent.mp4", "aac", pictures=True, sound=False)
    alone, sound = model.encode({"video": [heard]})["video"][0], model.encode({"audio": [heard]})["audio"][0]
    frames = np.full((2, 32, 32, 3), 99, np.uint8)
    out = model.encode({"video": [heard, silent, frames]}, sound=0.25)
    torch.testing.assert_close(out["video"][0], model.compose([alone, sound], weights=[0.75, 0.25]))
    torch.testing.assert_close(out["video"][1], alone)
    assert [(place, text[:20]) for place, text in out.remarks["video"] if "alone" in text] == [
        (1, "its pictures alone: "),
        (2, "its pictures alone: "),
    ]
    with heard.open("rb") as file:
        torch.testing.assert_close(model.encode({"video": [file]}, sound=1.0)["video"][0], sound)
    for wrong, named in (({"sound": 1.5}, "from 0 to 1"), ({"sound": 0.5, "normalize": False}, "normalize")):
        with pytest.raises(OptionError, match=named):
            model.encode({"video": [heard]}, **wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="sound is for videos, and the inputs are image"):
        model.encode({"image": pictures(1)}, sound=0.5)


def test_tokens_are_what_the_vit_turns_into_the_embedding(model: ViTLens) -> None:
    tokens = model.tokens("image", pictures(3), batch_size=2)
    assert tokens.shape == (3, 64, 64)
    with torch.no_grad():
        embedding = model.encoders["image"].vit(tokens)
    assert torch.allclose(F.normalize(embedding, dim=-1), model.encode({"image": pictures(3)})["image"], atol=1e-5)
    assert model.tokens("audio", [tone(440)]).shape == (1, 3 * 16, 64)
    with pytest.raises(ModalityError, match="text has no lens tokens"):
        model.tokens("text", ["a dog"])


def test_preprocessed_batches_keep_their_gradient(model: ViTLens) -> None:
    x = torch.randn(2, 3, 224, 224, requires_grad=True)
    model({"image": x}, normalize=True)["image"].sum().backward()
    assert x.grad is not None


def test_a_batch_of_the_wrong_shape_is_named(model: ViTLens) -> None:
    with pytest.raises(OptionError, match=r"found shape \[224, 224\]"):
        model({"image": torch.zeros(224, 224)})


def test_items_are_taken_in_their_order_not_by_label(model: ViTLens) -> None:
    pandas = pytest.importorskip("pandas")
    texts = ["a dog", "a cat", "a tree"]
    series = pandas.Series(texts, index=[2, 1, 0])
    assert torch.equal(model.encode({"text": series})["text"], model.encode({"text": texts})["text"])
    assert torch.equal(model.encode({"text": series[[1, 0]]})["text"], model.encode({"text": ["a cat", "a tree"]})["text"])


def test_an_items_own_bad_option_costs_that_item_only(model: ViTLens) -> None:
    wave = tone(440)["source"]
    good, bad = {"source": wave, "rate": 16000}, {"source": wave, "rat": 16000}
    out = model.encode({"audio": [good, bad, good]}, on_error="skip")
    assert out.kept["audio"] == [0, 2]
    assert "rat" in str(out.errors["audio"][0][1])


def test_embeddings_of_another_model_are_refused_though_the_width_agrees(model: ViTLens) -> None:
    from dataclasses import replace

    other = ViTLens.from_spec(replace(model.spec.restricted(["text"]), space=EmbeddingSpace("another", 64)))
    foreign = other.encode({"text": ["a dog"]})["text"]
    mine = model.encode({"text": ["a dog"]})["text"]
    with pytest.raises(SpaceError, match="space another"):
        model.similarity(mine, foreign)
    with pytest.raises(SpaceError, match="space another"):
        model.compose([mine, foreign])


def test_encoding_in_train_mode_is_still_evaluation() -> None:
    whole = vitlens.load(NAME, modalities=["point_cloud"], device="cpu")
    clouds = [whole.modality("point_cloud").example(seed) for seed in range(3)]
    expected = whole.encode({"point_cloud": clouds})["point_cloud"]
    whole.train()
    before = {k: v.clone() for k, v in whole.state_dict().items()}
    assert torch.allclose(whole.encode({"point_cloud": clouds}, batch_size=2)["point_cloud"], expected, atol=1e-5)
    whole.tokens("point_cloud", clouds[:1])
    assert all(torch.equal(v, before[k]) for k, v in whole.state_dict().items())
    assert whole.encoders["point_cloud"].training


@pytest.mark.parametrize("dtype", ["bf16", torch.int8, torch.float64])
def test_arithmetic_that_is_not_offered_is_named(model: ViTLens, dtype: object) -> None:
    with pytest.raises(OptionError, match="dtype must be"):
        model.encode({"image": pictures(1)}, dtype=dtype)  # type: ignore[arg-type]


def test_a_readme_of_the_users_own_is_kept(model: ViTLens, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_new_encoder_gets_the_loaded_patch_embedding(model: ViTLens) -> None:
    vit = model.encoders["image"].vit
    spec = vitlens.EncoderSpec("tactile", vitlens.card(NAME).spec.encoders[0].vit)
    touch = vitlens.build_encoder(spec, vit=vit)
    assert torch.equal(touch.embed.conv1.weight, model.encoders["image"].embed.conv1.weight)
    assert touch.embed.conv1.weight is not model.encoders["image"].embed.conv1.weight


def test_a_space_of_another_width_than_the_towers_is_refused(model: ViTLens) -> None:
    from dataclasses import replace

    with pytest.raises(OptionError, match="width 65, but towers give"):
        ViTLens.from_spec(replace(model.spec, space=EmbeddingSpace("wrong", 65)))
