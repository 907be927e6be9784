"""SEED-LLaMA with lenses: prompts, the image grammar, conversations, batches, streams and pictures, on tiny random hosts."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

from tests.adapters.seed import tiny_seed
from tests.adapters.seed.tiny_seed import CODES, adapter, golden, llama, plain_tokenizer, randomised, tokenizer
from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_card
from vitlens.adapters.generate.decoders import Decoder
from vitlens.adapters.host_files import HostFiles
from vitlens.adapters.seed.conversation import TEMPLATES, Generation, Reply, template_named
from vitlens.adapters.seed.grammar import ImageGrammar, ImageVocabulary, add_image_tokens
from vitlens.adapters.seed.llama import SeedLlamaAdapter, _tokenizer
from vitlens.adapters.seed.pixels import unclip_decoder
from vitlens.adapters.splice import LensStream
from vitlens.encoder import EncoderSpec, build_encoder
from vitlens.errors import HostError, InputError, MissingDependencyError, ModalityError, OptionError
from vitlens.modality import get_modality
from vitlens.space import EmbeddingSpace
from vitlens.vit import ViTSpec

GREEDY: dict[str, Any] = {"temperature": 0}


@pytest.fixture(scope="module")
def host() -> SeedLlamaAdapter:
    return adapter(lenses={"point_cloud": tiny_seed.lens()})


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def written(codes: torch.Tensor) -> str:
    return "<img>" + "".join(f"<img_{int(code):05d}>" for code in codes) + "</img>"


# ---- vocabulary


def test_ids_are_read_from_the_tokenizer() -> None:
    words = tokenizer()
    found = ImageVocabulary.from_tokenizer(words, codes=CODES)
    codes = torch.randint(0, CODES, (32,))
    ids = words(found.text(codes), add_special_tokens=False)["input_ids"]
    assert ids == found.ids(codes) and found.first == words.convert_tokens_to_ids("<img_00000>")
    (back,) = found.split(ids)
    assert isinstance(back, torch.Tensor) and torch.equal(back, codes)
    other = plain_tokenizer()
    other.add_tokens(["</img>", "<img>"])  # another order than SEED's
    add_image_tokens(other, codes=CODES)
    swapped = ImageVocabulary.from_tokenizer(other, codes=CODES)
    assert (swapped.end, swapped.begin, swapped.first) == (swapped.begin - 1, swapped.first - 1, found.first + 2)


def test_a_tokenizer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(HostError, match=r"no image tokens \(<img>, </img>, <img_00000> missing\).*add_image_tokens"):
        adapter(tokenizer=plain_tokenizer())
    with pytest.raises(HostError, match=r"the quantizer has 64 codes, the tokenizer .* image tokens for 60 only"):
        adapter(tokenizer=tokenizer(60))
    gap = plain_tokenizer()
    gap.add_tokens(["<img_00000>", "between"])
    add_image_tokens(gap, codes=CODES)
    with pytest.raises(HostError, match="<img_00001> the id"):
        adapter(tokenizer=gap)
    words = tokenizer()
    with pytest.raises(HostError, match=r"tokenizer has 186 tokens, the embedding table of LlamaForCausalLM 185 rows"):
        adapter(model=llama(len(words) - 1), tokenizer=words)


def test_a_plain_llama_can_be_given_image_tokens() -> None:
    words = plain_tokenizer()
    before = len(words)
    model = llama(before)
    assert add_image_tokens(words, model, codes=CODES) == CODES + 2
    assert model.get_input_embeddings().num_embeddings == model.get_output_embeddings().weight.shape[0] == before + CODES + 2
    assert words.pad_token == words.unk_token
    assert adapter(model=model, tokenizer=words).chat("what is this animal?", max_new_tokens=3, **GREEDY).prompt


@pytest.mark.parametrize(
    "broken", [[0] * 5, list(range(33)), "end", "code"], ids=["short", "no codes", "end alone", "code alone"]
)
def test_broken_images_are_never_passed_on(host: SeedLlamaAdapter, broken: Any) -> None:
    words = host.vocabulary
    ids = {"end": [words.end], "code": [words.first]}.get(broken) if isinstance(broken, str) else [words.begin, *broken]
    with pytest.raises(HostError, match="image"):
        words.split(ids or [])


# ---- prompts


def test_prompts_are_those_of_the_model(host: SeedLlamaAdapter, picture: np.ndarray, cloud: np.ndarray) -> None:
    image, points = (written(host.senses.codes(thing)[0]) for thing in ({"image": picture}, {"point_cloud": cloud}))
    message = [{"image": picture}, "what is this animal?"]
    assert host.prompt(message) == f"<s>USER: {image}what is this animal?\nASSISTANT:"
    assert adapter(template="llama2").prompt(message) == f"<s>[INST] {image}what is this animal? [/INST]\n"
    mixed = ["compare ", {"image": picture}, " with ", {"point_cloud": cloud}, "!"]
    assert host.prompt(mixed, force_image=True) == f"<s>USER: compare {image} with {points}!\nASSISTANT:<img>"
    edited = host.edit({"point_cloud": cloud}, "add a Halloween atmosphere", seed=0)
    assert edited.prompt == f"<s>USER: {points}add a Halloween atmosphere\nASSISTANT:<img>"
    combined = host.combine([{"image": picture}, {"point_cloud": cloud}], seed=0)
    assert combined.prompt == f"<s>USER: {image}{points}Show both of them in one picture.\nASSISTANT:<img>"
    for reply in (edited, combined):
        assert len(reply.codes) == len(reply.embeddings) == len(reply.parts) == 1 and reply.text == ""
        assert torch.allclose(reply.embeddings[0], host.quantizer.decode(reply.codes[0][None])[0], atol=1e-5)
        assert reply.embeddings[0].space == host.quantizer.space  # type: ignore[attr-defined]


def test_prompt_ids_come_back_as_what_was_said(host: SeedLlamaAdapter, picture: np.ndarray) -> None:
    codes = host.senses.codes({"image": picture})[0]
    ids = host.language.ids(host.prompt([codes, "what is this animal?"]))
    assert ids[0] == 1 and ids.count(1) == 1 and 2 not in ids
    before, image, after = host.vocabulary.split(ids)
    assert torch.equal(image, codes)  # type: ignore[arg-type]
    assert [host.tokenizer.decode(ids).strip() for ids in (before, after)] == ["<s> USER:", "what is this animal?\nASSISTANT:"]


def test_ids_are_those_the_model_was_taught() -> None:
    """SEED pins transformers 4.30.2; the golden ids are its LlamaTokenizer's, of prompts with images, spaces and history."""
    pytest.importorskip("sentencepiece", reason="runs after: pip install sentencepiece protobuf")
    words = _tokenizer(HostFiles("unused", "llama", True), str(tiny_seed.REFERENCE / "llama_tokenizer"))
    told = json.loads((tiny_seed.REFERENCE / "golden_llama_tokenizer.json").read_text())
    language = adapter(tokenizer=words).language
    assert [language.ids(prompt) for prompt in told["prompts"]] == told["ids"] and len(told["ids"]) == 12


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="sentencepiece is installed; uninstall it")
def test_a_sentencepiece_tokenizer_without_its_package_names_it() -> None:
    with pytest.raises(MissingDependencyError, match="pip install sentencepiece"):
        _tokenizer(HostFiles("unused", "llama", True), str(tiny_seed.REFERENCE / "llama_tokenizer"))


def test_whitespace_beside_an_image_is_nothing(host: SeedLlamaAdapter) -> None:
    codes, plain = torch.arange(32), host.tokenizer
    ids = host.language.ids(host.prompt(["a ", codes, "  cat", codes]))
    texts = [plain(text, add_special_tokens=False)["input_ids"] for text in ("USER: a", "cat", "ASSISTANT:")]
    image = host.vocabulary.ids(codes)
    assert ids == [1, *texts[0], *image, *texts[1], *image, *texts[2]]


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_history_is_the_conversation_written_again(template: str, picture: np.ndarray) -> None:
    host = adapter(template=template)
    first = host.chat([{"image": picture}, "what is this animal?"], seed=1, max_new_tokens=60, force_image=True)
    second = host.chat("add a Halloween atmosphere", history=first.history, seed=2, max_new_tokens=9, max_images=0)
    third = host.prompt("a cat", history=second.history)
    image = written(host.senses.codes({"image": picture})[0])
    start, end = ("USER: ", "\nASSISTANT:") if template == "vicuna" else ("[INST] ", " [/INST]\n")
    gap = " " if template == "vicuna" else ""
    replies = ["".join(p if isinstance(p, str) else written(p) for p in reply.parts) for reply in (first, second)]
    assert isinstance(first.parts[0], torch.Tensor) and isinstance(second.parts[0], str)
    told = f"<s>{start}{image}what is this animal?{end}{replies[0]}\n{start}add a Halloween atmosphere{end}"
    assert second.prompt == told
    assert third == f"{told}{gap}{replies[1]}\n{start}a cat{end}"
    ids = host.language.ids(third)
    joined = re.sub(r"\s*(</?img>)\s*", r"\1", third)
    assert ids == host.tokenizer(joined, add_special_tokens=False)["input_ids"] and 2 not in ids[1:]
    assert [len(turn.user) for turn in second.history] == [2, 1] and first.history[0].reply == first.parts


def test_the_template_follows_the_name() -> None:
    names = {"AILab-CVC/seed-llama-8b-sft": "vicuna", "lmsys/vicuna-7b-v1.5": "vicuna", "AILab-CVC/seed-llama-14b-sft": "llama2"}
    names |= {"meta-llama/Llama-2-13b-chat-hf": "llama2"}
    assert all(template_named(None, name) is TEMPLATES[template] for name, template in names.items())
    with pytest.raises(OptionError, match=r"'my/model' does not tell .* template= one of vicuna, llama2"):
        template_named(None, "my/model")
    with pytest.raises(OptionError, match="unknown template 'chatml'"):
        adapter(template="chatml")


# ---- sensing


def test_the_host_s_own_patches_as_a_stream_give_the_image_s_codes(host: SeedLlamaAdapter, picture: np.ndarray) -> None:
    """A stream whose "lens" is the tokenizer's own patch convolution is the image path."""
    quantizer = host.quantizer
    spec = EncoderSpec("image", ViTSpec("tiny EVA", library="host"), options={"size": 56})
    encoder = build_encoder(spec, vit=quantizer.vit())
    stream = LensStream(encoder, spec, modality=get_modality("image", size=56), name="own")
    own = adapter(quantizer=quantizer, lenses={"camera": stream})
    square = picture[:50, :50]  # the image modality crops, SEED squeezes: of a square both are the same
    assert torch.equal(own.senses.codes({"camera": square})[0], own.senses.codes({"image": square})[0])
    both = own.senses.codes({"image": square, "camera": square})[0]
    pixels = quantizer.preprocess([square])
    hidden = quantizer.visual_encoder(pixels)
    assert torch.equal(both, quantizer.encode_hidden(torch.cat([hidden, hidden], dim=1))[0])


def test_a_lens_for_another_vit_is_refused() -> None:
    other = tiny_seed.quantizer()
    randomised(other, 5)
    spec = EncoderSpec("image", ViTSpec("tiny EVA", library="host"), options={"size": 56})
    stream = LensStream(build_encoder(spec, vit=other.vit()), spec, modality=get_modality("image", size=56), name="other")
    with pytest.raises(HostError, match="image of other was trained against another ViT than that of the SEED tokenizer"):
        adapter(lenses={"camera": stream})
    assert "camera" in adapter(lenses={"camera": stream}, allow_other_vit=True).streams
    with pytest.raises(HostError, match="tokens of width 64"):
        adapter(lenses={"point_cloud": tiny_seed.lens(width=64)})
    with pytest.raises(OptionError, match="lens 'codes'"):
        adapter(lenses={"codes": stream})
    with pytest.raises(OptionError, match="fuse must be"):
        adapter(fuse="llm")


def test_streams_join_and_stand_alone(host: SeedLlamaAdapter, picture: np.ndarray, cloud: np.ndarray) -> None:
    quantizer, senses = host.quantizer, host.senses
    image, points = senses.tower.image_tokens(quantizer.preprocess([picture])), None
    stream = senses.lenses["point_cloud"]
    with torch.no_grad():
        (points,) = stream(stream.read([cloud]))
    assert torch.equal(senses.codes({"point_cloud": cloud})[0], quantizer.encode_streams({"p": points})[0])
    together = quantizer.encode_streams({"p": points, "i": image})[0]
    assert torch.equal(senses.codes({"point_cloud": cloud, "image": picture})[0], together)
    other = adapter(lenses={"point_cloud": tiny_seed.lens()}, fuse="vit")
    joined = quantizer.encode_streams({"p": points, "i": image}, fuse="vit")[0]
    assert torch.equal(other.senses.codes({"point_cloud": cloud, "image": picture})[0], joined)
    frames = np.stack([picture] * 5 + [255 - picture] * 3)
    first, *_, last = senses.codes({"video": frames})
    assert torch.equal(first, senses.codes({"image": picture})[0]) and torch.equal(
        last, senses.codes({"image": 255 - picture})[0]
    )


def test_codes_may_be_those_of_a_reply(host: SeedLlamaAdapter, picture: np.ndarray, cloud: np.ndarray) -> None:
    one, other = (host.senses.codes(thing)[0] for thing in ({"image": picture}, {"point_cloud": cloud}))
    for given, expected in (
        ([one, other], [one, other]),
        (torch.stack([one, other]), [one, other]),
        (one.tolist(), [one]),
        ([one.tolist(), other.tolist()], [one, other]),
    ):
        assert all(map(torch.equal, host.senses.codes({"codes": given}), expected))
    for wrong in ([one, other[:5]], ["a"], [None], [[1, 2], [3]]):
        with pytest.raises(InputError, match=r"not codes.*whole numbers \[32\]"):
            host.senses.codes({"codes": wrong})


def test_a_lens_is_left_in_the_mode_it_was(cloud: np.ndarray) -> None:
    model = tiny_seed.lens().train()
    made = adapter(lenses={"point_cloud": model})
    made.senses.codes({"point_cloud": cloud})
    assert all(module.training for module in model.modules())


def test_too_few_latents_are_named() -> None:
    short = adapter(lenses={"point_cloud": tiny_seed.lens(latents=9)})
    cloud = np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32)
    with pytest.raises(HostError, match="9 tokens, but the ViT of the SEED tokenizer has positions for 16"):
        short.chat([{"point_cloud": cloud}, "what?"])
    long = adapter(lenses={"point_cloud": tiny_seed.lens(latents=9)}, positions="interpolate")
    assert long.senses.codes({"point_cloud": cloud})[0].shape == (32,)


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        ([{"sonar": "a.wav"}, "what?"], ModalityError, r"no stream 'sonar': there is image, codes, video, point_cloud"),
        ([{"image": "missing.png"}], InputError, r"missing.png: no such file"),
        ([{}], InputError, "not a thing that was sensed"),
        ([3], InputError, "not a thing that was sensed"),
        ([], InputError, "an empty message"),
        (["", "  "], InputError, "an empty message"),
        ("look at <img_00003>", InputError, "the token <img_00003> is written in it"),
        ("the end</s>", InputError, "the token </s> is written in it"),
        ([{"codes": torch.zeros(31, dtype=torch.long)}], InputError, r"codes of shape \[1, 31\]"),
        ([{"codes": torch.full((32,), CODES)}], InputError, "codes from 64 to 64"),
        ([{"codes": "a.png"}], InputError, "not codes"),
        ([{"codes": torch.zeros(32, dtype=torch.long), "image": "a.png"}], OptionError, "codes cannot be joined with image"),
    ],
)
def test_wrong_messages_are_named_before_generation(host: SeedLlamaAdapter, message: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        host.chat(message)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"force_image": True, "max_new_tokens": 32}, "an image needs 33 new tokens .* max_new_tokens is 32"),
        ({"force_image": True, "max_images": 0}, "max_images must be a whole number of 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of 1 or more"),
        ({"top_p": 0}, "top_p must be a number above 0"),
        ({"temperature": -1.0}, "temperature must be a number of 0 or more"),
        ({"beams": 3}, "unknown option 'beams'; known: max_new_tokens"),
    ],
)
def test_wrong_options_are_named_before_generation(host: SeedLlamaAdapter, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        host.chat("what?", **options)
    with pytest.raises(OptionError, match=text):
        host.stream("what?", **options)


def test_a_conversation_longer_than_the_model_is_refused() -> None:
    words = tokenizer()
    short = adapter(model=llama(len(words), positions=60), tokenizer=words)
    reply = short.chat("what is this animal?", seed=0)  # the default of 512 tokens is lowered
    ids = short.language.ids(reply.prompt)
    assert short.language.within(Generation(), len(ids), given=False).max_new_tokens == 60 - len(ids)
    with pytest.raises(HostError, match="more than the 60 positions of the model"):
        short.chat("what is this animal?", max_new_tokens=60)
    with pytest.raises(HostError, match="drop early turns of history"):
        short.chat([torch.zeros(32, dtype=torch.long)] * 2)
    with pytest.raises(HostError, match="and 33 new ones"):
        short.chat("what is this animal? " * 4, force_image=True)


# ---- the grammar


def follows(vocabulary: ImageVocabulary, new: list[int], forced: bool = False) -> int:
    """Number of images in new ids; split raises where one is broken."""
    parts = vocabulary.split([vocabulary.begin, *new] if forced else new)
    return sum(isinstance(part, torch.Tensor) for part in parts)


def test_the_grammar_holds_over_random_logits() -> None:
    words = tokenizer()
    vocabulary = ImageVocabulary.from_tokenizer(words, codes=CODES)
    size, whole = len(words) + 6, 0
    prompt = torch.tensor([[1, 40, *vocabulary.ids(range(32)), 41], [0] * 35 + [1, 42]])
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        budget, forced = int(torch.randint(34, 90, (), generator=generator)), seed % 3 == 0
        ids = torch.cat([prompt, torch.full((2, 1), vocabulary.begin)], dim=1) if forced else prompt
        start = ids.shape[1]
        images = [None, 1, 2][seed % 3 if seed % 2 else 0]
        grammar = ImageGrammar(vocabulary, prompt=start, max_new_tokens=budget, images=images, forced=forced)
        for _ in range(budget):
            scores = 4 * torch.randn(2, size, generator=generator)
            scores[:, vocabulary.begin] += 9  # images again and again
            allowed = grammar(ids, scores)
            ids = torch.cat([ids, torch.multinomial(allowed.softmax(-1), 1, generator=generator)], dim=1)
        for row in ids[:, start:].tolist():
            count = follows(vocabulary, row, forced)
            whole += count
            assert max(row) < vocabulary.size and (images is None or count <= images)
    assert whole > 200


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "temperature": 0}, {"force_image": True}])
def test_the_grammar_holds_in_generation(options: dict[str, Any]) -> None:
    """A model that loves images and codes: sampled, with beams, in batches, with images in the prompt."""
    words = tokenizer()
    model = llama(len(words))
    with torch.no_grad():
        model.get_output_embeddings().weight[words.convert_tokens_to_ids("<img>")] *= 4
    host = adapter(model=model, tokenizer=words)
    codes = torch.arange(32)
    messages = ["what is this?", [codes, "add a dog"], [codes, codes, "a cat"]]
    images = 0
    for seed in range(4):
        replies = host.chat_batch(messages, seed=seed, **{"max_new_tokens": 70, "temperature": 1.5, "top_p": 1.0, **options})
        assert all(len(code) == 32 and code.min() >= 0 and code.max() < CODES for r in replies for code in r.codes)
        images += sum(len(reply.codes) for reply in replies)
        assert all(not options.get("force_image") or isinstance(reply.parts[0], torch.Tensor) for reply in replies)
    assert images > 0


def test_without_the_grammar_images_break(host: SeedLlamaAdapter) -> None:
    """What the grammar is for: the same random model without it writes image tokens that are no image."""
    ids = torch.tensor([host.language.ids(host.prompt("a dog", force_image=True))])
    out = host.language.model.generate(ids, do_sample=False, max_new_tokens=40, logits_processor=LogitsProcessorList())
    with pytest.raises(HostError, match="image"):
        follows(host.vocabulary, out[0, ids.shape[1] :].tolist(), forced=True)


def test_no_image_is_begun_without_room_for_it(host: SeedLlamaAdapter) -> None:
    words = host.vocabulary
    scores = torch.zeros(1, words.size)
    for left, open_ in ((34, True), (33, False)):
        grammar = ImageGrammar(words, prompt=2, max_new_tokens=left)
        assert bool(grammar(torch.tensor([[1, 5]]), scores)[0, words.begin].isfinite()) is open_
    described = host.describe(torch.zeros(32, dtype=torch.long), seed=0, top_p=1.0, max_new_tokens=80)
    assert described.codes == [] and described.prompt.endswith("</img>What is this?\nASSISTANT:")
    with pytest.raises(OptionError, match="two things or more"):
        host.combine([torch.zeros(32, dtype=torch.long)])


# ---- batches, seeds, streams


@pytest.mark.parametrize("options", [GREEDY, {"temperature": 0, "num_beams": 3}, {"temperature": 0, "force_image": True}])
def test_batched_equals_single(host: SeedLlamaAdapter, options: dict[str, Any]) -> None:
    codes = torch.arange(32)
    messages = ["what?", [codes, "what is this animal?"], "can you generate an image of a dog on the green grass?"]
    together = host.chat_batch(messages, max_new_tokens=40, **options)
    alone = [host.chat(message, max_new_tokens=40, **options) for message in messages]
    assert [written_parts(reply) for reply in together] == [written_parts(reply) for reply in alone]
    assert len({written_parts(reply) for reply in alone}) > 1
    assert host.chat_batch([]) == []
    with pytest.raises(OptionError, match="one history per message"):
        host.chat_batch(["a"], histories=[(), ()])


def written_parts(reply: Reply) -> str:
    return "|".join(part if isinstance(part, str) else written(part) for part in reply.parts)


def test_a_seed_repeats_a_reply_and_leaves_the_generator_alone(host: SeedLlamaAdapter) -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    replies = [host.chat("a dog", seed=seed, top_p=1.0, max_new_tokens=30) for seed in (1, 1, 2)]
    assert written_parts(replies[0]) == written_parts(replies[1]) != written_parts(replies[2])
    assert torch.equal(before, torch.get_rng_state())


def test_the_defaults_are_seed_s() -> None:
    made = Generation().config(eos=2, pad=0)
    assert (made.do_sample, made.temperature, made.top_p, made.max_new_tokens, made.num_beams) == (True, 1.0, 0.5, 512, 1)
    assert (made.eos_token_id, made.pad_token_id) == (2, 0)
    assert Generation(temperature=0).config(eos=2, pad=0).do_sample is False


@pytest.mark.parametrize("forced", [False, True])
def test_a_stream_says_what_chat_says(host: SeedLlamaAdapter, forced: bool) -> None:
    options: dict[str, Any] = {"seed": 5, "max_new_tokens": 80, "force_image": forced, "top_p": 0.9}
    whole = host.chat("what is this animal?", **options)
    *pieces, reply = host.stream("what is this animal?", **options)
    assert isinstance(reply, Reply) and written_parts(reply) == written_parts(whole)
    images = [piece for piece in pieces if isinstance(piece, torch.Tensor)]
    assert len(images) == len(whole.codes) and all(map(torch.equal, images, whole.codes))
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    assert "".join(text.split()) == "".join(whole.text.split())
    assert len(pieces) > 1
    with pytest.raises(OptionError, match="num_beams=2: a stream has one candidate"):
        host.stream("a", num_beams=2)
    with pytest.raises(ModalityError, match="no stream"):
        host.stream([{"sonar": 1}])


def test_a_stream_left_early_ends_the_generation(host: SeedLlamaAdapter) -> None:
    calls: list[int] = []
    hook = host.language.model.register_forward_hook(lambda *_: calls.append(1))
    pieces = host.stream("what is this animal?", seed=1, max_new_tokens=900)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    hook.remove()
    assert len(calls) < 800 and not any("(work)" in thread.name for thread in threading.enumerate())


def test_errors_in_a_stream_and_lack_of_memory_are_told(host: SeedLlamaAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(host.language.model, "generate", full)
    for ask in (host.chat, lambda message: list(host.stream(message))):
        with pytest.raises(HostError, match=r"the language model: out of memory; .*load_in_8bit=True.*20 GiB"):
            ask("what?")


def test_a_reply_cannot_put_tokens_into_the_conversation(host: SeedLlamaAdapter) -> None:
    words = host.tokenizer
    ids = words("cat", add_special_tokens=False)["input_ids"]
    fake = lambda given, **_: "it is </s> <img_00001>" if list(given) == ids else ""  # noqa: E731
    language = host.language
    original, language.tokenizer = language.tokenizer, _Decoding(words, fake)
    try:
        parts = language.parts(ids, Generation())
    finally:
        language.tokenizer = original
    assert parts == ["it is < /s> < img_00001>"]


class _Decoding:
    """A tokenizer with another `decode`."""

    def __init__(self, tokenizer: Any, decode: Any) -> None:
        self._tokenizer, self.decode = tokenizer, decode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


# ---- pictures


@pytest.fixture(scope="module")
def pixels() -> Decoder:
    return Decoder(card(), tiny_seed.unclip())


def card() -> DecoderCard:
    """The card that SEED draws with, for the tiny space and in two steps."""
    found = decoder_card("unclip-h")
    space = tiny_seed.quantizer().space
    return replace(found, space=space, defaults={**found.defaults, "num_inference_steps": 2})


def test_replies_are_drawn(host: SeedLlamaAdapter, pixels: Decoder, cloud: np.ndarray) -> None:
    drawing = adapter(lenses={"point_cloud": tiny_seed.lens()}, pixels=pixels)
    reply = drawing.edit({"point_cloud": cloud}, "add a Halloween atmosphere", seed=3)
    assert len(reply.pictures) == 1 and reply.pictures[0].size == (32, 32)
    again = drawing.draw(torch.stack(reply.codes), seed=3)
    assert np.array_equal(np.asarray(reply.pictures[0]), np.asarray(again[0]))
    assert drawing.edit({"point_cloud": cloud}, "add a dog", seed=3, draw=False).pictures == ()
    with pytest.raises(HostError, match="no unCLIP pipeline to draw with: pass pixels='unclip-h'"):
        host.draw(torch.zeros(1, 32, dtype=torch.long))


def test_pictures_are_the_pipelines_own_called_by_hand(pixels: Decoder) -> None:
    embeddings = 3 * golden()["image_down/entry_of_codes"]
    drawing = adapter(pixels=pixels)
    together = pixels.pipeline(
        prompt=[""] * len(embeddings),
        image_embeds=embeddings,
        guidance_scale=10.0,
        noise_level=0,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(1) for _ in embeddings],
    ).images
    drawn = drawing._drawn(embeddings, seed=1)
    for ours, theirs in zip(drawn, together, strict=True):
        assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
    assert np.abs(np.asarray(drawn[0], int) - np.asarray(drawn[1], int)).max() > 1
    other = drawing._drawn(embeddings[:1], seed=2)[0]
    assert np.abs(np.asarray(drawn[0], int) - np.asarray(other, int)).max() > 1


def test_a_pipeline_for_another_space_is_refused() -> None:
    with pytest.raises(HostError, match=r"decoder unclip-h: its card says embeddings of 40 values .* takes 24"):
        adapter(pixels=tiny_seed.unclip(24))
    with pytest.raises(HostError, match="a StableUnCLIPImg2ImgPipeline is needed, found function"):
        adapter(pixels=lambda prompt: None)
    stranger = replace(card(), space=EmbeddingSpace("another", 40))
    with pytest.raises(HostError, match=r"listens in another \(40\), the quantizer gives open_clip/ViT-H-14"):
        adapter(pixels=Decoder(stranger, tiny_seed.unclip()))


# ---- loading


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SEED-LLaMA as its parts lie on disk."""
    place = tmp_path_factory.mktemp("parts")
    words = tokenizer()
    llama(len(words)).save_pretrained(place / "vicuna-tiny")
    words.save_pretrained(place / "tokenizer")
    torch.save(tiny_seed.state(), place / "tokenizer" / "seed_quantizer.pt")
    return place


def test_loading_from_disk(folder: Path, picture: np.ndarray) -> None:
    quantizer = tiny_seed.quantizer()
    host = SeedLlamaAdapter.from_pretrained(
        str(folder / "vicuna-tiny"),
        tokenizer=str(folder / "tokenizer"),
        quantizer=quantizer,
        lenses={"point_cloud": tiny_seed.lens()},
    )
    message = [{"image": picture}, "what is this animal?"]
    expected = adapter().chat(message, max_new_tokens=20, **GREEDY)
    assert written_parts(host.chat(message, max_new_tokens=20, **GREEDY)) == written_parts(expected)
    assert host.template is TEMPLATES["vicuna"] and "point_cloud" in host.streams
    with pytest.raises(OptionError, match="does not tell which prompts"):
        SeedLlamaAdapter.from_pretrained(str(folder), quantizer=quantizer, template=None)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed; uninstall it")
def test_8_bit_without_bitsandbytes_names_the_package(folder: Path) -> None:
    with pytest.raises(MissingDependencyError, match="pip install bitsandbytes"):
        SeedLlamaAdapter.from_pretrained(
            str(folder / "vicuna-tiny"),
            tokenizer=str(folder / "tokenizer"),
            quantizer=tiny_seed.quantizer(),
            load_in_8bit=True,
        )


def test_the_pipeline_is_read_from_a_folder(tmp_path: Path) -> None:
    tiny_seed.unclip().save_pretrained(tmp_path / "unclip")
    space = tiny_seed.quantizer().space
    made = unclip_decoder(str(tmp_path / "unclip"), space)
    assert made.card.space == space and made.options() == decoder_card("unclip-h").defaults
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="there is none here"):
            unclip_decoder(str(tmp_path / "unclip"), space, offload=True)


@pytest.mark.gpu
@pytest.mark.network
def test_the_published_weights(cloud: np.ndarray) -> None:
    """Needs 30 GB of GPU memory (or load_in_8bit), the SEED-LLaMA-8B files, and EVA-g's at $EVA_VIT_G."""
    import os

    host = SeedLlamaAdapter.from_pretrained(
        "AILab-CVC/seed-llama-8b-sft",
        tokenizer="AILab-CVC/seed-tokenizer-2",
        quantizer="AILab-CVC/seed-tokenizer-2",
        vit=os.environ["EVA_VIT_G"],
        pixels="unclip-h",
    )
    picture = get_modality("image").example().data
    assert host.quantizer.codes == 8192 and host.vocabulary.first == 32000
    assert len(host.describe({"image": picture}, "What is shown in this picture?", seed=0).text) > 3
    assert host.edit({"image": picture}, "Make it winter.", seed=0).pictures[0].size == (768, 768)
