"""Any to any with the shipped Toybox model: what is composed, which bridge is taken, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
import torch.nn.functional as F

import vitlens
from tests.adapters.generate import tiny_diffusers as tiny
from vitlens.adapters.generate.any_to_any import CANDIDATE, AnyToAny, Request
from vitlens.adapters.generate.bridges import fit_bridge
from vitlens.adapters.generate.conditioning import Condition
from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_card
from vitlens.adapters.generate.decoders import Decoder
from vitlens.adapters.generate.mixture import Mixture
from vitlens.adapters.generate.outputs import TriangleMesh, Waveform
from vitlens.adapters.generate.retrieval import EmbeddingIndex, TextBank
from vitlens.benchmarks.toybox import World, as_items, observe
from vitlens.errors import HostError, InputError, ModalityError, OptionError, SpaceError
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace

OPENAI_L = EmbeddingSpace("open_clip/ViT-L-14/openai", 768)
LAION_H = EmbeddingSpace("open_clip/ViT-H-14/laion2b_s32b_b79k", 1024)
TEXTS = ["a wooden mug", "a metal chair", "a glass bottle", "a rubber ball"]


@cache
def model() -> ViTLens:
    return vitlens.load("vitlens-toybox", device="cpu")


@cache
def thing(number: int = 0) -> dict[str, Any]:
    """What some sensors measure of a Toybox object, and its caption."""
    made = World().object("test", number)
    return {**as_items(observe(made, ["image", "audio", "depth"])), "text": made.caption}


def embed(name: str, *items: Any) -> torch.Tensor:
    return model().encode({name: list(items)})[name]


class Recorder:
    """A pipeline that remembers how it was called and draws, sounds or builds something plain."""

    def __init__(self, *, text: bool = True) -> None:
        self.calls: list[dict[str, Any]] = []
        self.text_encoder = object() if text else None

    def __call__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        mesh = SimpleNamespace(verts=torch.eye(3), faces=torch.tensor([[0, 1, 2]]), vertex_channels=None)
        picture = PIL.Image.new("RGB", (8, 8), "blue")
        kind = arguments["output_type"]
        return SimpleNamespace(images=[mesh if kind == "mesh" else picture], audios=np.zeros((1, 160)), frames=[[picture] * 3])


class Untouchable:
    """A pipeline that must not be called."""

    def __call__(self, **_: Any) -> Any:
        raise AssertionError("the pipeline was called")


def recorded(name: str, *, space: EmbeddingSpace | None = None, text: bool = True, **changes: Any) -> Decoder:
    """A decoder by the card `name` with a recording pipeline; `space` in the place of the card's."""
    card = decoder_card(name)
    card = replace(card, space=(space or card.space) if card.space else None, norm=2.0 if card.space else None, **changes)
    return Decoder(card, Recorder(text=text))


def ours(name: str = "unclip-h", **options: Any) -> Decoder:
    """A decoder that listens in the Toybox's own space."""
    return recorded(name, space=model().space, **options)


def calls(imagine: AnyToAny, name: str) -> list[dict[str, Any]]:
    return imagine.decoder(name).pipeline.calls


# ---- composing


def test_inputs_are_composed_by_normalised_weights_in_any_order() -> None:
    one, two = thing(0), thing(1)
    inputs = {"audio": [one["audio"], two["audio"]], "image": one["image"], "text": "a wooden mug"}
    mixture = Mixture(model(), inputs, {"audio": [1, 3], "image": 2})
    assert mixture.shares == pytest.approx([1 / 7, 3 / 7, 2 / 7, 1 / 7])
    rows = torch.cat([embed("audio", one["audio"], two["audio"]), embed("image", one["image"]), embed("text", "a wooden mug")])
    by_hand = F.normalize((torch.tensor([1.0, 3, 2, 1])[:, None] * rows).sum(0), dim=-1)
    torch.testing.assert_close(mixture.pooled, by_hand, atol=1e-5, rtol=1e-5)
    turned = {"text": "a wooden mug", "image": one["image"], "audio": [two["audio"], one["audio"]]}
    other = Mixture(model(), turned, {"image": np.float32(4), "audio": [6, 2], "text": 2})
    torch.testing.assert_close(other.pooled, mixture.pooled, atol=1e-6, rtol=0)
    torch.testing.assert_close(Mixture(model(), {"image": one["image"]}).pooled, rows[2], atol=1e-6, rtol=0)
    nearly = Mixture(model(), {"image": one["image"], "audio": one["audio"]}, {"image": 1.0, "audio": 1e-9}).pooled
    torch.testing.assert_close(nearly, rows[2], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "weights", "error", "says"),
    [
        ({"image": 1}, {"image": 0}, OptionError, "weights of image: must be positive numbers, found 0"),
        ({"image": 1}, {"image": -1.0}, OptionError, "weights of image"),
        ({"image": 1}, {"image": float("nan")}, OptionError, "found nan"),
        ({"image": 1}, {"image": "much"}, OptionError, "found 'much'"),
        ({"image": 1}, {"audio": 1.0}, OptionError, "weights for audio, but the inputs are image"),
        ({"image": [1, 2]}, {"image": [1.0]}, OptionError, "weights of image: 1 for 2 items"),
        ({"smell": 1}, {}, ModalityError, "no modality 'smell'; it has image"),
        ({}, {}, OptionError, "no input"),
        ({"image": []}, {}, OptionError, "no input"),
        (["a.png"], {}, OptionError, "inputs must be a mapping"),
    ],
)
def test_inputs_and_weights_that_cannot_be_used_are_named(inputs: Any, weights: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        AnyToAny(model(), decoders=[ours()]).generate(inputs, ["image"], weights=weights)


# ---- by embedding


def test_a_mixture_drives_the_pipeline_as_its_embedding_would_by_hand() -> None:
    pipe = tiny.unclip(model().space.dim, text=False)
    decoder = Decoder(tiny.tiny_card("unclip-h", space=model().space), pipe)
    imagine = AnyToAny(model(), decoders=[decoder])
    inputs = {"audio": thing()["audio"], "depth": thing(1)["depth"]}
    first, second = imagine.generate(inputs, ["image", "image"], weights={"audio": 3}, seed=5)
    pooled = model().compose([embed("audio", thing()["audio"])[0], embed("depth", thing(1)["depth"])[0]], weights=[3, 1])
    zeros = torch.zeros(1, 1, 32)
    by_hand = pipe(
        image_embeds=decoder.norm * pooled[None], prompt_embeds=zeros, negative_prompt_embeds=zeros, num_inference_steps=2,
        generator=torch.Generator().manual_seed(5),
    ).images[0]  # fmt: skip
    assert np.abs(np.asarray(first.value, float) - np.asarray(by_hand, float)).max() <= 1
    assert (first.kind, first.bridge, first.decoder, first.prompt) == ("image", "embedding", decoder.name, None)
    assert first.embedding is not None and float(first.embedding.norm()) == pytest.approx(decoder.norm, rel=1e-5)
    assert (first.seed, second.seed) == (5, 6) and (np.asarray(first.value) != np.asarray(second.value)).any()
    turned = dict(reversed(list(inputs.items())))
    again, _ = imagine.generate(turned, ["image", "image"], weights={"audio": 0.75, "depth": 0.25}, seed=5)
    assert np.abs(np.asarray(again.value, float) - np.asarray(first.value, float)).max() <= 1


def test_of_several_pictures_the_one_nearest_to_the_inputs_is_kept() -> None:
    card = tiny.tiny_card("unclip-h", space=model().space)
    imagine = AnyToAny(model(), decoders=[Decoder(card, tiny.unclip(model().space.dim, text=False))])
    inputs = {"audio": thing()["audio"]}
    kept, next_one = imagine.generate(inputs, [Request("image", candidates=3), Request("image", candidates=3)], seed=5)
    seeds = [5 + number * CANDIDATE for number in range(3)]
    alone = [imagine.generate(inputs, ["image"], seed=seed)[0].value for seed in seeds]
    near = embed("image", *alone) @ embed("audio", thing()["audio"])[0]
    assert kept.seed == seeds[int(near.argmax())] and len(set(near.tolist())) == 3
    assert np.array_equal(np.asarray(kept.value), np.asarray(alone[int(near.argmax())]))
    assert next_one.seed not in seeds


def test_candidates_are_pictures_and_need_a_model_that_sees() -> None:
    with pytest.raises(OptionError, match="output audio: candidates are pictures"):
        Request("audio", candidates=2)
    with pytest.raises(OptionError, match="candidates must be a whole number"):
        Request("image", candidates=0)
    blind = vitlens.load("vitlens-toybox", modalities=["audio"], device="cpu")
    with pytest.raises(OptionError, match="vitlens-toybox has no image encoder to look at pictures"):
        AnyToAny(blind, decoders=[ours()]).generate({"audio": thing()["audio"]}, [Request("image", candidates=2)])


def test_the_models_image_tower_stands_in_for_a_decoders_image_encoder() -> None:
    card = tiny.tiny_card("kandinsky-2.2", space=model().space, defaults={"height": 32, "width": 32})
    decoder = Decoder(card, tiny.kandinsky(model().space.dim))
    (made,) = AnyToAny(model(), decoders=[decoder]).generate({"audio": thing()["audio"]}, ["image"])
    image = model().modality("image")
    pixels = torch.stack([image.transform(image.example(seed)) for seed in range(8)])
    with torch.no_grad():
        raw = model().tower("image")(pixels)
        blank = model().tower("image")(torch.zeros_like(pixels[:1]))
    length = float(raw.norm(dim=-1).mean())
    assert made.embedding is not None and float(made.embedding.norm()) == pytest.approx(length, rel=1e-4)
    torch.testing.assert_close(decoder.reference.blank(), blank)
    assert made.value.size == (32, 32)


@pytest.mark.parametrize("lenient", [False, True])
def test_another_space_is_refused_before_anything_runs(lenient: bool) -> None:
    decoder = Decoder(replace(decoder_card("unclip-l"), norm=1.0), Untouchable())
    imagine = AnyToAny(model(), decoders=[decoder])
    with pytest.raises(
        SpaceError, match=r"unclip-l takes embeddings of open_clip/ViT-L-14/openai \(768\), the model gives vitlens-toybox"
    ):
        imagine.generate({"image": "no such file.png"}, ["image"], allow_other_space=lenient)


def test_the_same_width_is_not_the_same_space() -> None:
    datacomp = vitlens.card("vitlens-l").spec.space
    assert datacomp.dim == OPENAI_L.dim and datacomp != OPENAI_L
    other = EmbeddingSpace("of the same width", model().space.dim)
    imagine = AnyToAny(model(), decoders=[recorded("unclip-h", space=other)])
    with pytest.raises(SpaceError, match=r"same width, another space.*fit_bridge.*allow_other_space"):
        imagine.generate({"image": thing()["image"]}, ["image"])
    assert not calls(imagine, "unclip-h")
    (made,) = imagine.generate({"image": thing()["image"]}, ["image"], allow_other_space=True)
    torch.testing.assert_close(made.embedding, 2 * embed("image", thing()["image"])[0], atol=1e-5, rtol=1e-5)


def test_a_fitted_bridge_leads_to_another_space() -> None:
    sounds = F.normalize(torch.randn(60, model().space.dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    to = torch.randn(model().space.dim, LAION_H.dim, generator=torch.Generator().manual_seed(1))
    bridge = fit_bridge((sounds, sounds @ to), source=model().space, target=LAION_H)
    imagine = AnyToAny(model(), decoders=[Decoder(decoder_card("unclip-h"), Recorder())], bridges=[bridge])
    (made,) = imagine.generate({"audio": thing()["audio"]}, ["image"])
    mapped = bridge(embed("audio", thing()["audio"])[0])
    torch.testing.assert_close(made.embedding, bridge.norm * F.normalize(mapped, dim=-1), atol=1e-4, rtol=1e-4)
    assert made.bridge == "embedding"
    flat = fit_bridge((sounds, F.normalize(sounds @ to, dim=-1)), source=model().space, target=LAION_H)
    known = Decoder(replace(decoder_card("unclip-h"), norm=9.0), Recorder())
    (other,) = AnyToAny(model(), decoders=[known], bridges=[flat]).generate({"audio": thing()["audio"]}, ["image"])
    assert other.embedding is not None and float(other.embedding.norm()) == pytest.approx(9.0, rel=1e-5)
    unknown = AnyToAny(model(), decoders=[Decoder(decoder_card("unclip-h"), Recorder())], bridges=[flat])
    with pytest.raises(HostError, match="image encoder of open_clip/ViT-H-14"):  # normalised pairs do not tell the length
        unknown.generate({"audio": thing()["audio"]}, ["image"])
    assert torch.equal(calls(imagine, "unclip-h")[0]["image_embeds"][0], made.embedding)


def test_a_prompt_goes_beside_the_embedding_where_there_is_a_text_encoder() -> None:
    imagine = AnyToAny(model(), decoders=[ours()])
    (made,) = imagine.generate({"audio": thing()["audio"]}, [Request("image", prompt="in oil", negative_prompt="blur")])
    assert made.prompt == "in oil"
    assert calls(imagine, "unclip-h")[0]["prompt"] == "in oil" and calls(imagine, "unclip-h")[0]["negative_prompt"] == "blur"
    blind = AnyToAny(model(), decoders=[ours("kandinsky-2.2")])
    with pytest.raises(OptionError, match="takes no text, found prompt 'in oil'"):
        blind.generate({"audio": thing()["audio"]}, [Request("image", prompt="in oil")])
    tiny_unclip = Decoder(tiny.tiny_card("unclip-h", space=model().space), tiny.unclip(model().space.dim, text=False))
    for said in ({"prompt": "in oil"}, {"negative_prompt": "blur"}):
        with pytest.raises(OptionError, match="no text encoder"):
            AnyToAny(model(), decoders=[tiny_unclip]).generate({"text": "a mug"}, [Request("image", **said)])


def test_words_that_would_be_lost_are_refused_before_anything_runs() -> None:
    shap_e = Decoder(replace(decoder_card("shap-e"), defaults={}), tiny.shap_e())
    imagine = AnyToAny(model(), decoders=[shap_e], describer=describer)
    with pytest.raises(OptionError, match="shap-e takes no negative prompt, found 'blur'"):
        imagine.generate({"text": "a mug"}, [Request("3d", negative_prompt="blur")])
    for lost in ({"prompt": "in oil"}, {"steps": 3}, {"bridge": "picture"}, {"decoder": "shap-e"}):
        with pytest.raises(OptionError, match=f"a text has no {next(iter(lost))}"):
            imagine.generate({"text": "a mug"}, [Request("text", **lost)])  # type: ignore[arg-type]


def test_a_pipeline_without_a_bar_shows_none() -> None:
    (made,) = AnyToAny(model(), decoders=[ours()]).generate({"text": "a mug"}, ["image"], progress=True)
    assert made.value.size == (8, 8)


# ---- by text


def describer(inputs: Mapping[str, Sequence[Any]]) -> list[str]:
    ((name, items),) = inputs.items()
    return [f"the {name}  number {number}" for number in range(len(items))]


def test_inputs_are_described_for_decoders_that_take_texts() -> None:
    imagine = AnyToAny(model(), decoders=[recorded("shap-e"), recorded("audioldm2", mixes=())], describer=describer)
    inputs = {"image": ["never read", "nor this"], "text": "a storm"}
    shape, sound = imagine.generate(inputs, ["3d", Request("audio", prompt="far away")], weights={"text": 5, "image": [1, 2]})
    assert shape.prompt == "a storm, the image number 1, the image number 0" and shape.bridge == "text"
    assert isinstance(shape.value, TriangleMesh) and isinstance(sound.value, Waveform) and sound.value.rate == 16000
    assert sound.prompt == f"{shape.prompt}, far away" and sound.embedding is None
    (words,) = imagine.generate(inputs, ["text"])
    assert words.value == "the image number 0, the image number 1, a storm" and words.decoder is None


def test_the_describer_reads_as_the_model_does() -> None:
    heard: list[Any] = []

    def listener(inputs: Mapping[str, Sequence[Any]]) -> list[str]:
        heard.extend(inputs["depth"])
        return ["a room"] * len(inputs["depth"])

    imagine = AnyToAny(model(), describer=listener)
    imagine.generate(
        {"depth": ["a.png", {"source": "b.png", "scale": 1.0}]}, ["text"], read_options={"depth": {"scale": 0.001, "focal": 500}}
    )
    assert heard == [{"source": "a.png", "scale": 0.001, "focal": 500}, {"source": "b.png", "scale": 1.0, "focal": 500}]


def test_the_nearest_texts_of_a_bank_are_those_of_brute_force() -> None:
    bank = TextBank(model(), TEXTS, templates=("{}",), top=2)
    texts, query = embed("text", *TEXTS), embed("image", thing()["image"])
    scores = (texts @ query[0]).tolist()
    order = sorted(range(len(TEXTS)), key=lambda i: -scores[i])
    found = bank.nearest(query, 3)[0]
    assert [match.row for match in found] == order[:3]
    assert [match.cosine for match in found] == pytest.approx([scores[i] for i in order[:3]], abs=1e-5)
    assert bank.describe(query) == [f"{TEXTS[order[0]]}, {TEXTS[order[1]]}"]
    imagine = AnyToAny(model(), decoders=[recorded("shap-e")], bank=bank)
    (made,) = imagine.generate({"image": thing()["image"]}, ["3d"])
    assert made.prompt == bank.describe(query)[0]
    (words,) = imagine.generate({"image": thing(0)["image"], "audio": thing(1)["audio"]}, ["text"])
    mixed = model().compose([query[0], embed("audio", thing(1)["audio"])[0]])
    assert words.value == bank.describe(mixed)[0]


def test_texts_alone_need_neither_a_describer_nor_a_text_tower() -> None:
    blind = vitlens.load("vitlens-toybox", modalities=["audio"], device="cpu")
    imagine = AnyToAny(blind, decoders=[recorded("shap-e")])
    (made,) = imagine.generate({"text": "a mug"}, ["3d"])
    assert made.prompt == "a mug"
    with pytest.raises(OptionError, match="shap-e goes by text, and audio must be described first"):
        imagine.generate({"text": "a mug", "audio": thing()["audio"]}, ["3d"])
    with pytest.raises(OptionError, match="give AnyToAny a describer"):
        imagine.generate({"audio": thing()["audio"]}, ["text"])


def test_a_describer_must_give_one_sentence_for_each_item() -> None:
    for wrong in (lambda _: "one text", lambda _: ["one"], lambda _: [1, 2]):
        imagine = AnyToAny(model(), decoders=[recorded("shap-e")], describer=wrong)  # type: ignore[arg-type]
        with pytest.raises(HostError, match="one sentence for each of 2 image items"):
            imagine.generate({"image": ["a", "b"]}, ["3d"])


def test_the_decoder_that_listens_in_the_models_space_goes_first_then_texts() -> None:
    decoders = [recorded("unclip-l"), recorded("stable-diffusion-1.5"), ours("unclip-h")]
    imagine = AnyToAny(model(), decoders=decoders, describer=describer)
    sound = {"audio": thing()["audio"]}
    assert [made.decoder for made in imagine.generate(sound, ["image"])] == ["unclip-h"]
    assert [made.decoder for made in imagine.generate(sound, [Request("image", bridge="text")])] == ["stable-diffusion-1.5"]
    assert [made.decoder for made in imagine.generate(sound, [Request("image", "stable-diffusion-1.5")])] == [
        "stable-diffusion-1.5"
    ]
    foreign = AnyToAny(model(), decoders=decoders[:2], describer=describer)
    assert [made.bridge for made in foreign.generate(sound, ["image"])] == ["text"]
    with pytest.raises(SpaceError, match="unclip-l"):
        foreign.generate(sound, [Request("image", "unclip-l")])
    with pytest.raises(OptionError, match=r"stable-diffusion-1\.5 is driven by text, not by embedding"):
        foreign.generate(sound, [Request("image", "stable-diffusion-1.5", bridge="embedding")])
    with pytest.raises(SpaceError, match="unclip-l"):
        foreign.generate(sound, [Request("image", bridge="embedding")])
    with pytest.raises(OptionError, match=r"no decoder for video; there are: unclip-l .* cards for video: animatediff"):
        foreign.generate(sound, ["video"])


# ---- by picture


def test_a_picture_is_made_first_for_decoders_that_start_from_one() -> None:
    imagine = AnyToAny(model(), decoders=[ours(), recorded("shap-e-img2img"), recorded("stable-video-diffusion")])
    shape, video = imagine.generate({"audio": thing()["audio"]}, [Request("3d", prompt="in oil"), "video"], seed=4)
    assert shape.bridge == video.bridge == "picture" and len(video.value.frames) == 3
    blue = np.asarray(PIL.Image.new("RGB", (8, 8), "blue"))
    np.testing.assert_array_equal(np.asarray(calls(imagine, "shap-e-img2img")[0]["image"]), blue)
    assert [call["prompt"] for call in calls(imagine, "unclip-h")] == ["in oil", ""]
    assert calls(imagine, "unclip-h")[0]["generator"].initial_seed() == 4
    imagine.generate({"image": thing()["image"]}, ["3d"])
    np.testing.assert_array_equal(np.asarray(calls(imagine, "shap-e-img2img")[1]["image"]), thing()["image"]["source"])
    assert len(calls(imagine, "unclip-h")) == 2  # the picture itself was there
    with pytest.raises(OptionError, match="shap-e-img2img takes no text"):
        imagine.generate({"image": thing()["image"]}, [Request("3d", prompt="in oil")])
    with pytest.raises(OptionError, match="no decoder for image"):
        AnyToAny(model(), decoders=[recorded("shap-e-img2img")]).generate({"audio": thing()["audio"]}, ["3d"])


# ---- retrieval


def test_the_captions_of_the_nearest_items_go_before_the_prompt(tmp_path: Path) -> None:
    pictures = [thing(number)["image"] for number in range(4)]
    index = EmbeddingIndex.from_items(model(), {"image": pictures}, TEXTS)
    scores = embed("image", *pictures) @ embed("audio", thing(2)["audio"])[0]
    best = [TEXTS[i] for i in scores.argsort(descending=True)[:2]]
    imagine = AnyToAny(model(), decoders=[recorded("shap-e"), ours(), ours("kandinsky-2.2")], index=index, describer=describer)
    wanted = ["3d", Request("image", "unclip-h"), Request("image", "kandinsky-2.2")]
    shape, drawn, blind = imagine.generate({"audio": thing(2)["audio"]}, wanted)
    assert shape.retrieved == drawn.retrieved == tuple(best) and blind.retrieved == ()
    assert shape.prompt == ", ".join([*best, "the audio number 0"]) and drawn.prompt == ", ".join(best)
    (one,) = imagine.generate({"audio": thing(2)["audio"]}, ["3d"], retrieve=1)
    assert one.retrieved == (best[0],)


def test_an_index_is_checked_and_read_from_what_embed_wrote(tmp_path: Path) -> None:
    from vitlens.store.files import Column, Content, write_embeddings

    rows = embed("text", *TEXTS)
    column = Column(TEXTS, [0, 1, 2, 3], lambda: iter([rows.numpy()]))
    write_embeddings(tmp_path / "a.npz", Content(model().space, "vitlens-toybox", {"text": column}))
    index = EmbeddingIndex.from_file(tmp_path / "a.npz")
    assert [index.nearest(row)[0][0].caption for row in rows] == TEXTS and len(index) == 4
    renamed = EmbeddingIndex.from_file(tmp_path / "a.npz", dict.fromkeys(TEXTS, "same"))
    assert renamed.captions == ["same"] * 4
    with pytest.raises(OptionError, match="no caption for a metal chair"):
        EmbeddingIndex.from_file(tmp_path / "a.npz", {TEXTS[0]: "x", TEXTS[2]: "y", TEXTS[3]: "z"})
    with pytest.raises(OptionError, match="4 vectors need as many captions, found 3"):
        EmbeddingIndex(rows, TEXTS[:3], model().space)
    with pytest.raises(SpaceError, match=r"of space vitlens-toybox"):
        EmbeddingIndex(rows, TEXTS, OPENAI_L)
    with pytest.raises(OptionError, match="zero or holds"):
        EmbeddingIndex(torch.zeros(4, 128), TEXTS, model().space)
    with pytest.raises(OptionError, match="k must be"):
        index.nearest(rows, 0)
    elsewhere = EmbeddingIndex(torch.randn(4, 768), TEXTS, OPENAI_L)
    with pytest.raises(SpaceError, match=r"the index is in space open_clip/ViT-L-14/openai \(768\), the model in vitlens-toybox"):
        AnyToAny(model(), index=elsewhere)


# ---- outputs


def test_outputs_are_written_where_they_are_named(tmp_path: Path) -> None:
    imagine = AnyToAny(
        model(), decoders=[ours(), recorded("audioldm2"), recorded("modelscope"), recorded("shap-e")], describer=describer
    )
    names = ["a.png", "a.wav", "a.gif", "a.ply", "a.txt"]
    made = imagine.generate({"image": thing()["image"]}, [tmp_path / "out" / name for name in names])
    assert [result.kind for result in made] == ["image", "audio", "video", "3d", "text"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert soundfile.info(str(tmp_path / "out" / "a.wav")).duration == pytest.approx(0.01)
    with pytest.raises(OptionError, match=r"the type must be .wav, .flac, found .mp3"):
        Request("audio", path="a.mp3")
    for inputs, wanted in (
        ({"image": "b.png"}, ["b.png"]),
        ({"image": {"source": "b.png"}}, ["./b.png"]),
        ({"text": "a mug"}, ["b.ply", Request("3d", path="b.ply")]),
    ):
        with pytest.raises(OptionError, match=r"output b\.\w+: this is one of the inputs, or another output"):
            imagine.generate(inputs, wanted)
    with pytest.raises(OptionError, match=r"output image .*the type must be"):
        made[0].save(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("smell", "output 'smell': known are text, image"),
        ("a.xyz", "no output has the suffix .xyz"),
        (Request("image", steps=0), "steps must be"),
        (Request("image", options={"hight": 3}), "does not take hight"),
        (Request("text", decoder="shap-e"), "a text has no decoder"),
    ],
)
def test_outputs_that_cannot_be_made_are_refused_before_the_first_runs(wanted: Any, says: str) -> None:
    real = Decoder(tiny.tiny_card("unclip-h", space=model().space), tiny.unclip(model().space.dim, text=False))
    imagine = AnyToAny(model(), decoders=[real, Decoder(decoder_card("shap-e"), Untouchable())], describer=describer)
    with pytest.raises(OptionError, match=says):
        imagine.generate({"image": thing()["image"]}, ["3d", wanted])


def test_an_unreadable_input_is_named_before_the_first_runs() -> None:
    decoders = [Decoder(decoder_card("shap-e"), Untouchable()), ours(), recorded("stable-video-diffusion")]
    imagine = AnyToAny(model(), decoders=decoders, describer=describer)
    for second in ("image", "video"):
        with pytest.raises(InputError, match=r"missing\.png: no such file"):
            imagine.generate({"image": "missing.png"}, ["3d", second])


def test_a_requests_own_fields_are_no_options_of_the_pipeline() -> None:
    with pytest.raises(OptionError, match=r"steps is none of the pipeline's own options; give Request\(steps=\.\.\.\)"):
        Request("image", options={"steps": 3})


def test_inputs_are_described_once_for_all_outputs() -> None:
    asked: list[str] = []

    def counting(inputs: Mapping[str, Sequence[Any]]) -> list[str]:
        asked.extend(inputs)
        return describer(inputs)

    imagine = AnyToAny(model(), decoders=[recorded("shap-e"), recorded("modelscope", mixes=())], describer=counting)
    imagine.generate({"image": "a.png", "audio": "a.wav"}, ["3d", "video", "text", "3d"])
    assert asked == ["image", "audio"]


def test_decoders_are_named_loaded_when_needed_and_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def load(card: DecoderCard, **options: Any) -> Decoder:
        asked.append((card.name, options))
        return recorded(card.name)

    monkeypatch.setattr("vitlens.adapters.generate.any_to_any.load_decoder", load)
    imagine = AnyToAny(model(), decoders=["shap-e", "audioldm2"], load_options={"offload": "model"})
    imagine.generate({"text": "a mug"}, ["3d", "3d"])
    assert asked == [("shap-e", {"offload": "model"})]
    with pytest.raises(OptionError, match="no decoder 'nothing'"):
        AnyToAny(model(), decoders=["nothing"])
    with pytest.raises(OptionError, match="shap-e is given twice"):
        AnyToAny(model(), decoders=["shap-e", recorded("shap-e")])


def test_conditions_count_their_weights() -> None:
    with pytest.raises(OptionError, match="2 prompts and 1 weights"):
        Condition(prompts=("a", "b"), weights=(1.0,))
