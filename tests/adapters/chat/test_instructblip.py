"""InstructBLIP with lenses: the host's own numbers for pictures, every fusion, batches, order, and refusals by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

import vitlens
from tests.adapters import tiny_hosts
from vitlens.adapters.chat.instructblip import InstructBlipAdapter
from vitlens.adapters.host_files import host_type
from vitlens.adapters.splice import LensStream
from vitlens.errors import HostError, InputError, ModalityError, ModelError, OptionError
from vitlens.lens_config import PerceiverConfig
from vitlens.vit import Trainable

ASK = "what is this object ?"
LONG = "describe this object in details ."
SHORT = {"max_new_tokens": 8, "num_beams": 2}


def build(language: str = "llama", **options: Any) -> InstructBlipAdapter:
    model, parts = tiny_hosts.instructblip(language)
    lenses = {
        "depth": tiny_hosts.lens_model(model.vision_model, "depth"),
        "point_cloud": tiny_hosts.lens_model(model.vision_model, "point_cloud", token_width=24, lens=PerceiverConfig(depth=1)),
    }
    return InstructBlipAdapter(model, lenses=lenses, **{**parts, **options})


@pytest.fixture(scope="module", params=["llama", "t5"])
def host(request: pytest.FixtureRequest) -> InstructBlipAdapter:
    return build(request.param)


@pytest.fixture(scope="module")
def llama() -> InstructBlipAdapter:
    return build()


def own_inputs(host: InstructBlipAdapter, picture: np.ndarray, prompt: str) -> dict[str, Tensor]:
    """What transformers' processor makes of one picture and one prompt."""
    text, question = host.tokenizer(prompt, return_tensors="pt"), host.qformer_tokenizer(prompt, return_tensors="pt")
    image = torch.full((1, tiny_hosts.QUERIES), host.model.config.image_token_index)
    ids = torch.cat([image, text["input_ids"]], dim=1)
    pixels = host.image_processor(images=PIL.Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    return {
        "pixel_values": pixels,
        "qformer_input_ids": question["input_ids"],
        "qformer_attention_mask": question["attention_mask"],
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }


def logits(host: InstructBlipAdapter, embeds: Tensor, mask: Tensor) -> Tensor:
    more = {"decoder_input_ids": torch.tensor([[3, 5, 6]]).expand(len(embeds), -1)} if host.language.is_encoder_decoder else {}
    with torch.no_grad():
        return host.model.language_model(inputs_embeds=embeds, attention_mask=mask, **more).logits


# ---- the host's own way with pictures


@torch.no_grad()
def test_a_picture_goes_the_hosts_own_way_bit_by_bit(host: InstructBlipAdapter) -> None:
    picture = tiny_hosts.pictures(1)[0]
    own = own_inputs(host, picture, ASK)
    features = host.model.get_image_features(
        own["pixel_values"],
        qformer_input_ids=own["qformer_input_ids"],
        qformer_attention_mask=own["qformer_attention_mask"],
        return_dict=True,
    )
    for fuse in ("vit", "qformer", "llm"):
        assert torch.equal(host.soft_tokens(ASK, {"image": picture}, fuse=fuse), features.pooler_output), fuse


@torch.no_grad()
def test_logits_and_answers_are_the_hosts_own(host: InstructBlipAdapter) -> None:
    picture = tiny_hosts.pictures(1)[0]
    own = own_inputs(host, picture, ASK)
    more = {"decoder_input_ids": torch.tensor([[3, 5, 6]])} if host.language.is_encoder_decoder else {}
    theirs = host.model(**own, **more).logits
    ours = logits(host, *host.embeds(ASK, {"image": picture}))
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-5)
    greedy = {"max_new_tokens": 10, "min_new_tokens": 6, "num_beams": 1, "do_sample": False}
    ids = host.model.generate(**own, **greedy)
    ids = ids if host.language.is_encoder_decoder else ids[:, own["input_ids"].shape[1] :]
    answer = host.tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert answer and host.generate(ASK, {"image": picture}, repetition_penalty=1.0, **greedy) == [answer]


def test_the_host_is_left_as_it_was(llama: InstructBlipAdapter) -> None:
    model, parts = tiny_hosts.instructblip()
    model.train()
    model.qformer.requires_grad_(False)
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    lens = tiny_hosts.lens_model(model.vision_model)
    adapter = InstructBlipAdapter(model, lenses={"depth": lens}, **parts)
    adapter.generate(ASK, {"depth": tiny_hosts.depths(1), "image": tiny_hosts.pictures(1)}, **SHORT)
    "".join(adapter.stream(ASK, {"depth": tiny_hosts.depths(1)}, max_new_tokens=3))
    assert all(module.training for module in model.modules()), "in training mode as before"
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0]) and value.requires_grad == before[name][1], name


# ---- sensors


def encoded(host: InstructBlipAdapter, *streams: Tensor) -> Tensor:
    """The recipe written out: one class token, every stream with the patches' positions, one pass of the ViT, its norm."""
    vision = host.model.vision_model
    positions = vision.embeddings.position_embedding
    first = vision.embeddings.class_embedding.expand(len(streams[0]), 1, -1) + positions[:, :1]
    x = torch.cat([first, *(tokens + positions[:, 1:] for tokens in streams)], dim=1)
    return vision.post_layernorm(vision.encoder(inputs_embeds=x).last_hidden_state)


def queried(host: InstructBlipAdapter, seen: Tensor) -> Tensor:
    """Q-Former and projection of what the ViT saw, for the question ASK."""
    words = host.qformer_tokenizer([ASK] * len(seen), return_tensors="pt")["input_ids"]
    queries = host.model.query_tokens.expand(len(seen), -1, -1)
    out = host.model.qformer(input_ids=words, query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
    return host.model.language_projection(out[:, : tiny_hosts.QUERIES])


@torch.no_grad()
def test_the_qformer_may_look_at_the_class_token_alone() -> None:
    model, parts = tiny_hosts.instructblip()
    lenses = {"depth": tiny_hosts.lens_model(model.vision_model)}
    host = InstructBlipAdapter(model, lenses=lenses, look={"depth": "class_token"}, **parts)
    pictures, maps = tiny_hosts.pictures(2), tiny_hosts.depths(2)
    [depth] = host.lenses["depth"](host.lenses["depth"].read(maps))
    image = host.tower.image_tokens(host._pixels(pictures)).x
    expected = {
        "qformer": queried(host, torch.cat([encoded(host, image), encoded(host, depth.x)[:, :1]], dim=1)),
        "vit": queried(host, encoded(host, image, depth.x)[:, : 1 + image.shape[1]]),
        "llm": torch.cat([queried(host, encoded(host, image)), queried(host, encoded(host, depth.x)[:, :1])], dim=1),
    }
    for fuse, soft in expected.items():
        found = host.soft_tokens(ASK, {"image": pictures, "depth": maps}, fuse=fuse)  # type: ignore[arg-type]
        assert torch.allclose(found, soft, atol=1e-5), fuse
    with pytest.raises(OptionError, match="look: no stream 'smell'"):
        InstructBlipAdapter(model, lenses=lenses, look={"smell": "all"}, **parts)
    with pytest.raises(OptionError, match="all or class_token"):
        InstructBlipAdapter(model, lenses=lenses, look="patches", **parts)  # type: ignore[arg-type]


@torch.no_grad()
def test_lens_tokens_stand_where_the_patches_stand_in_every_fusion(host: InstructBlipAdapter) -> None:
    inputs = {"depth": tiny_hosts.depths(2), "point_cloud": tiny_hosts.clouds(2)}
    depth, cloud = (host.lenses[name](host.lenses[name].read(items))[0].x for name, items in inputs.items())
    alone = host.soft_tokens(ASK, {"depth": inputs["depth"]})
    assert torch.allclose(alone, queried(host, encoded(host, depth)), atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3), "two maps are two things"
    expected = {
        "vit": queried(host, encoded(host, depth, cloud)),
        "qformer": queried(host, torch.cat([encoded(host, depth), encoded(host, cloud)], dim=1)),
        "llm": torch.cat([queried(host, encoded(host, depth)), queried(host, encoded(host, cloud))], dim=1),
    }
    for fuse, soft in expected.items():
        assert torch.allclose(host.soft_tokens(ASK, inputs, fuse=fuse), soft, atol=1e-5), fuse


@torch.no_grad()
@pytest.mark.parametrize(("fuse", "count"), [("vit", 1), ("qformer", 1), ("llm", 3)])
def test_the_three_places_to_fuse(llama: InstructBlipAdapter, fuse: Any, count: int) -> None:
    inputs = {"depth": tiny_hosts.depths(2), "image": tiny_hosts.pictures(2), "point_cloud": tiny_hosts.clouds(2)}
    soft = llama.soft_tokens(ASK, inputs, fuse=fuse)
    assert soft.shape == (2, count * tiny_hosts.QUERIES, 32)
    parts = [llama.soft_tokens(ASK, {name: items}, fuse=fuse) for name, items in inputs.items()]
    if fuse == "llm":
        assert torch.allclose(soft, torch.cat(parts, dim=1), atol=1e-5)
    else:
        assert all(not torch.allclose(soft, part, atol=1e-3) for part in parts), "every stream is heard"
    other = llama.soft_tokens(ASK, inputs, fuse="vit" if fuse == "qformer" else "qformer")
    assert soft.shape != other.shape or not torch.allclose(soft, other, atol=1e-4)


@torch.no_grad()
def test_the_order_of_streams_is_the_order_of_the_dict(llama: InstructBlipAdapter) -> None:
    depth, image = tiny_hosts.depths(1)[0], tiny_hosts.pictures(1)[0]
    one, _ = llama.embeds(ASK, {"depth": depth, "image": image}, fuse="llm")
    other, _ = llama.embeds(ASK, {"image": image, "depth": depth}, fuse="llm")
    n = tiny_hosts.QUERIES
    assert torch.allclose(one[:, :n], other[:, n : 2 * n], atol=1e-5)
    assert torch.allclose(one[:, n : 2 * n], other[:, :n], atol=1e-5)
    assert not torch.allclose(one[:, :n], other[:, :n], atol=1e-3)
    mask = torch.ones(one.shape[:2], dtype=torch.long)
    assert not torch.allclose(logits(llama, one, mask)[:, -1], logits(llama, other, mask)[:, -1], atol=1e-4)


@torch.no_grad()
def test_frames_and_clips_are_streams_of_their_own() -> None:
    adapter = build(video_frames=2)
    frames = tiny_hosts.pictures(1, seed=1) + tiny_hosts.pictures(1, seed=2)
    film = adapter.soft_tokens(ASK, {"video": [frames]}, fuse="llm")
    alone = [adapter.soft_tokens(ASK, {"image": frame}, fuse="llm") for frame in frames]
    assert torch.allclose(film, torch.cat(alone, dim=1), atol=1e-5)
    together = adapter.soft_tokens(ASK, {"video": [frames]})
    assert together.shape == (1, tiny_hosts.QUERIES, 32)
    sound_options = {"clips": 3} if "clips" in vitlens.get_modality("audio").options() else {}
    lens = tiny_hosts.lens_model(
        adapter.model.vision_model, "audio", options=sound_options, token_width=16, lens=PerceiverConfig(depth=1)
    )
    clips = len(
        LensStream.from_model(lens, "audio")(LensStream.from_model(lens, "audio").read([lens.modality("audio").example()]))
    )
    more = InstructBlipAdapter(
        adapter.model,
        tokenizer=adapter.tokenizer,
        qformer_tokenizer=adapter.qformer_tokenizer,
        image_processor=adapter.image_processor,
        lenses={"audio": lens},
    )
    soft = more.soft_tokens(ASK, {"audio": lens.modality("audio").example()}, fuse="llm")
    assert clips > 1 and soft.shape[1] == clips * tiny_hosts.QUERIES


def test_two_sensors_of_one_kind_are_two_streams(llama: InstructBlipAdapter) -> None:
    model, parts = tiny_hosts.instructblip()
    left, right = (tiny_hosts.lens_model(model.vision_model) for _ in range(2))
    adapter = InstructBlipAdapter(model, lenses={"depth_left": left, "depth_right": right}, **parts)
    assert adapter.streams == ["image", "video", "depth_left", "depth_right"]
    one, two = tiny_hosts.depths(2)
    both = adapter.soft_tokens(ASK, {"depth_left": one, "depth_right": two}, fuse="llm")
    alone = [adapter.soft_tokens(ASK, {"depth_left": item}) for item in (one, two)]
    assert torch.allclose(both, torch.cat(alone, dim=1), atol=1e-5)


# ---- batches and generation


@torch.no_grad()
@pytest.mark.parametrize("fuse", ["vit", "qformer", "llm"])
def test_a_batch_is_its_samples(host: InstructBlipAdapter, fuse: Any) -> None:
    prompts = [ASK, LONG + " " + ASK, "a"]
    inputs = {"depth": tiny_hosts.depths(3), "image": tiny_hosts.pictures(3)}
    embeds, mask = host.embeds(prompts, inputs, fuse=fuse)
    answers = host.generate(prompts, inputs, fuse=fuse, **SHORT)
    for i, prompt in enumerate(prompts):
        one = {name: items[i] for name, items in inputs.items()}
        single, _ = host.embeds(prompt, one, fuse=fuse)
        assert torch.allclose(embeds[i, mask[i].bool()], single[0], atol=1e-5)
        assert host.generate(prompt, one, fuse=fuse, **SHORT) == [answers[i]]
    assert mask.sum(1).tolist() != [mask.shape[1]] * 3, "rows are padded"
    padded = mask[2, 0 if not host.language.is_encoder_decoder else -1]
    assert padded == 0, "on the left for decoders"


def test_one_prompt_serves_all_items_and_one_item_all_prompts(llama: InstructBlipAdapter) -> None:
    maps = tiny_hosts.depths(2)
    answers = llama.generate(ASK, {"depth": maps}, **SHORT)
    assert answers == llama.generate([ASK, ASK], {"depth": maps}, **SHORT) and len(answers) == 2
    questions = llama.soft_tokens([ASK, LONG], {"depth": maps[0]})
    assert torch.allclose(questions, llama.soft_tokens([ASK, LONG], {"depth": [maps[0], maps[0]]}), atol=1e-6)
    assert not torch.allclose(questions[0], questions[1], atol=1e-3), "the Q-Former reads the question"


def test_the_generation_defaults_are_instructblips(llama: InstructBlipAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def catch(**options: Any) -> Tensor:
        seen.update(options)
        return torch.ones(1, 1, dtype=torch.long)

    monkeypatch.setattr(llama.model.language_model, "generate", catch)
    llama.generate(ASK, {"depth": tiny_hosts.depths(1)})
    assert (seen["num_beams"], seen["do_sample"], seen["max_new_tokens"], seen["min_new_tokens"]) == (5, False, 256, 1)
    assert (seen["length_penalty"], seen["logits_processor"][0].penalty) == (1.0, 1.5)
    assert "top_p" not in seen, "of no use without sampling"
    assert llama.tokenizer.eos_token_id in seen["eos_token_id"]
    monkeypatch.setattr(llama.model.language_model.generation_config, "eos_token_id", 1)  # as some conversions have it
    llama.generate(ASK, {"depth": tiny_hosts.depths(1)}, num_beams=3)
    assert seen["eos_token_id"] == [1, llama.tokenizer.eos_token_id] and seen["num_beams"] == 3
    llama.generate(ASK, {"depth": tiny_hosts.depths(1)}, do_sample=True, num_beams=1, repetition_penalty=1.0)
    assert (seen["do_sample"], seen["top_p"], seen["num_beams"]) == (True, 0.9, 1)


def test_describe_asks_for_a_description(llama: InstructBlipAdapter) -> None:
    inputs = {"depth": tiny_hosts.depths(2)}
    asked = llama.generate("Describe this object in details.", inputs, **SHORT)
    assert llama.describe(inputs, **SHORT) == asked and len(asked) == 2


def test_a_stream_of_text_is_the_same_text(host: InstructBlipAdapter) -> None:
    inputs = {"depth": tiny_hosts.depths(1), "image": tiny_hosts.pictures(1)}
    options = {"max_new_tokens": 12, "min_new_tokens": 6}
    pieces = list(host.stream(LONG, inputs, **options))
    whole = host.generate(LONG, inputs, num_beams=1, **options)[0]
    assert whole and "".join(pieces).strip() == whole
    started = host.stream(LONG, inputs, **options)
    next(started)
    started.close()  # generation ends with the interest in it


def test_what_goes_wrong_while_streaming_is_raised_where_the_text_is_read(
    llama: InstructBlipAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(llama.model.language_model, "generate", fail)
    pieces = llama.stream(ASK, {"depth": tiny_hosts.depths(1)})
    with pytest.raises(HostError, match=r"out of memory; .* fewer samples .* load_in_8bit=True"):
        next(pieces)
    with pytest.raises(HostError, match="on cpu: out of memory"):
        llama.generate(ASK, {"depth": tiny_hosts.depths(2)})


# ---- training


def test_the_loss_is_of_the_answer_alone_and_trains_what_is_left_free(host: InstructBlipAdapter) -> None:
    prompts, targets = [ASK, LONG], ["a chair", "the sound of a dog"]
    inputs = {"depth": tiny_hosts.depths(2)}
    loss = host.loss(prompts, inputs, targets)
    total, count = 0.0, 0
    for i in range(2):
        ids = host.tokenizer(targets[i], add_special_tokens=False)["input_ids"] + [host.tokenizer.eos_token_id]
        row, mask = host.embeds(prompts[i], {"depth": inputs["depth"][i]})
        if host.language.is_encoder_decoder:
            out = host.model.language_model(inputs_embeds=row, attention_mask=mask, labels=torch.tensor([ids]))
            scores = out.logits[0]
        else:
            words = host.model.get_input_embeddings()(torch.tensor([ids[:-1]]))
            whole = torch.cat([row, words], dim=1)
            scores = host.model.language_model(inputs_embeds=whole).logits[0, row.shape[1] - 1 :]
        total += torch.nn.functional.cross_entropy(scores, torch.tensor(ids), reduction="sum").item()
        count += len(ids)
    assert loss.item() == pytest.approx(total / count, abs=1e-5)
    loss.backward()
    lens = host.lenses["depth"]
    assert all(p.grad is not None and bool(p.grad.any()) for p in lens.embed.parameters())
    assert host.model.query_tokens.grad is not None and bool(host.model.query_tokens.grad.any())
    assert host.model.language_projection.weight.grad is not None
    host.model.zero_grad()
    lens.zero_grad()


# ---- refusals


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: a.generate(ASK, {"eeg": None}), ModalityError, r"no stream 'eeg': there is image, video, depth, point_cloud"),
        (lambda a: a.generate(ASK, {}), OptionError, "at least one of image, video, depth, point_cloud"),
        (lambda a: a.generate(ASK, {"image": []}), OptionError, "image: 0"),
        (lambda a: a.generate([ASK] * 3, {"depth": tiny_hosts.depths(2)}), OptionError, "prompts: 3, depth: 2"),
        (lambda a: a.generate(ASK, [1]), OptionError, "inputs must be a dict"),
        (lambda a: a.generate([7], {"image": "x.png"}), OptionError, "prompts must be texts, found <int>"),
        (lambda a: a.generate(ASK, {"image": "gone.png"}), InputError, r"gone\.png: no such file"),
        (lambda a: a.generate(ASK, {"depth": "gone.tiff"}), InputError, r"gone\.tiff: no such file"),
        (
            lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, fuse="text"),
            OptionError,
            "vit, qformer or llm, found 'text'",
        ),
        (
            lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, beams=3),
            OptionError,
            "option 'beams'; did you mean num_beams",
        ),
        (lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, max_length=9), OptionError, "give max_new_tokens"),
        (lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, max_new_tokens=0), OptionError, "1 or more, found 0"),
        (lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, max_new_tokens=600), HostError, "512 positions"),
        (lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, read_options={"eeg": {}}), ModalityError, "'eeg'"),
        (lambda a: a.stream(ASK, {"depth": tiny_hosts.depths(1)}, num_beams=3), OptionError, "one candidate"),
        (lambda a: a.stream(ASK, {"depth": tiny_hosts.depths(2)}), OptionError, "one sample at a time can be streamed, found 2"),
        (lambda a: a.loss(ASK, {"depth": tiny_hosts.depths(2)}, ["x"]), OptionError, "2 samples, 1 targets"),
    ],
)
def test_bad_calls_are_refused_by_name(
    llama: InstructBlipAdapter, call: Callable[[InstructBlipAdapter], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(llama)


def test_a_lens_for_another_vit_is_refused_unless_asked_for() -> None:
    model, parts = tiny_hosts.instructblip(seed=0)
    other, _ = tiny_hosts.instructblip(seed=9)
    stranger = tiny_hosts.lens_model(other.vision_model)
    with pytest.raises(HostError, match=r"depth of tiny-depth was trained against another ViT .* allow_other_vit=True"):
        InstructBlipAdapter(model, lenses={"depth": stranger}, **parts)
    adapter = InstructBlipAdapter(model, lenses={"depth": stranger}, allow_other_vit=True, **parts)
    assert adapter.generate(ASK, {"depth": tiny_hosts.depths(1)}, **SHORT)


def test_the_fingerprint_survives_half_precision() -> None:
    model, parts = tiny_hosts.instructblip()
    lens = tiny_hosts.lens_model(tiny_hosts.instructblip()[0].vision_model)
    adapter = InstructBlipAdapter(model.bfloat16(), lenses={"depth": lens}, **parts)
    assert adapter.soft_tokens(ASK, {"depth": tiny_hosts.depths(1)}).dtype == torch.bfloat16


def test_the_number_of_tokens_is_checked_or_interpolated() -> None:
    model, parts = tiny_hosts.instructblip()
    wide = tiny_hosts.lens_model(model.vision_model, "point_cloud", token_width=24, lens=PerceiverConfig(depth=1, latents=20))
    strict = InstructBlipAdapter(model, lenses={"point_cloud": wide}, **parts)
    for fuse in ("vit", "qformer"):
        with pytest.raises(HostError, match=r"stream 'point_cloud': 20 tokens, .* positions for 16"):
            strict.generate(ASK, {"point_cloud": tiny_hosts.clouds(1)}, fuse=fuse)
    lenient = InstructBlipAdapter(model, lenses={"point_cloud": wide}, positions="interpolate", **parts)
    assert lenient.soft_tokens(ASK, {"point_cloud": tiny_hosts.clouds(1)}).shape == (1, tiny_hosts.QUERIES, 32)
    with pytest.raises(OptionError, match="positions must be strict or interpolate"):
        InstructBlipAdapter(model, positions="loose", **parts)  # type: ignore[arg-type]


def test_a_lens_of_another_width_is_refused() -> None:
    model, parts = tiny_hosts.instructblip()
    narrow = vitlens.load("vitlens-tiny-random", modalities=["depth"], device="cpu")
    with pytest.raises(HostError, match=r"tokens of width 64, but .* has width 32"):
        InstructBlipAdapter(model, lenses={"depth": narrow}, allow_other_vit=True, **parts)


@torch.no_grad()
def test_a_lens_with_parts_of_its_own() -> None:
    """Its own first block runs before the host's ViT takes over, so it cannot share a pass with others."""
    model, parts = tiny_hosts.instructblip()
    lens = tiny_hosts.lens_model(model.vision_model, trains=Trainable(class_token=True, positions=True, first_blocks=1))
    encoder: Any = lens.encoders["depth"]
    encoder.vit.class_token.add_(0.5)
    for parameter in encoder.vit.blocks[0].parameters():
        parameter.mul_(1.2)
    adapter = InstructBlipAdapter(model, lenses={"depth": lens}, **parts)
    maps = tiny_hosts.depths(2)
    [given] = adapter.lenses["depth"](adapter.lenses["depth"].read(maps))
    assert given.block == 1
    x = encoder.vit.prepare(lens.tokens("depth", maps))
    whole = model.vision_model.post_layernorm(encoder.vit.run_blocks(x))
    assert torch.allclose(adapter._alone("depth", given), whole, atol=1e-5)
    for fuse in ("qformer", "llm"):
        adapter.soft_tokens(ASK, {"depth": maps, "image": tiny_hosts.pictures(2)}, fuse=fuse)
    with pytest.raises(HostError, match=r"depth of tiny-depth brings .*qformer.*llm"):
        adapter.generate(ASK, {"image": tiny_hosts.pictures(1), "depth": maps[0]}, fuse="vit")


def test_tokenizers_are_checked() -> None:
    model, parts = tiny_hosts.instructblip()
    larger = tiny_hosts.subword_tokenizer(extra=("<image>",))
    larger.add_tokens(["<point_cloud>", "<depth>"])
    with pytest.raises(HostError, match=r"2 tokens beyond the \d+ embeddings of InstructBlip.*'<point_cloud>', '<depth>'"):
        InstructBlipAdapter(model, **{**parts, "tokenizer": larger})
    with pytest.raises(HostError, match="Q-Former reads the prompt too"):
        InstructBlipAdapter(model, **{**parts, "qformer_tokenizer": None})
    with pytest.raises(HostError, match=r"beyond the .* Q-Former"):
        InstructBlipAdapter(model, **{**parts, "qformer_tokenizer": parts["tokenizer"]})


def test_a_tokenizer_without_pad_or_bos_serves_as_well() -> None:
    model, parts = tiny_hosts.instructblip()
    usual = InstructBlipAdapter(model, **parts)
    bare = tiny_hosts.subword_tokenizer(extra=("<image>",))
    bare.pad_token = None
    bare._tokenizer.post_processor = tiny_hosts.subword_tokenizer(bos=False, extra=("<image>",))._tokenizer.post_processor
    assert bare(ASK)["input_ids"][-1] == bare.eos_token_id, "as a tokenizer that was set up for an encoder"
    adapter = InstructBlipAdapter(model, **{**parts, "tokenizer": bare})
    inputs = {"image": tiny_hosts.pictures(2)}
    with torch.no_grad():
        ours, theirs = adapter.embeds([ASK, LONG], inputs)[0], usual.embeds([ASK, LONG], inputs)[0]
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert adapter.generate([ASK, LONG], inputs, **SHORT) == usual.generate([ASK, LONG], inputs, **SHORT)


@torch.no_grad()
def test_what_the_tokenizer_writes_first_is_taken() -> None:
    """As Vicuna's InstructBLIP has it: named BOS is the end token, but the template writes <s>."""
    model, parts = tiny_hosts.instructblip()
    usual, image = InstructBlipAdapter(model, **parts), tiny_hosts.pictures(1)[0]
    odd = tiny_hosts.subword_tokenizer(extra=("<image>",))
    odd.bos_token = "</s>"
    adapter = InstructBlipAdapter(model, **{**parts, "tokenizer": odd})
    assert torch.equal(adapter.embeds(ASK, {"image": image})[0], usual.embeds(ASK, {"image": image})[0])
    assert torch.equal(adapter.embeds("", {"image": image})[0], usual.embeds("", {"image": image})[0])


@torch.no_grad()
def test_of_a_long_prompt_the_qformer_reads_the_end(llama: InstructBlipAdapter) -> None:
    long = "what is this object a point cloud of a chair and a table " * 25
    image = tiny_hosts.pictures(1)[0]
    soft = llama.soft_tokens(long, {"image": image})
    assert torch.equal(soft, llama.soft_tokens("dog " + long, {"image": image}))
    assert not torch.allclose(soft, llama.soft_tokens(long + " dog", {"image": image}), atol=1e-4)


def test_other_misuses() -> None:
    model, parts = tiny_hosts.instructblip()
    lens = tiny_hosts.lens_model(model.vision_model)
    with pytest.raises(OptionError, match="lens 'image': InstructBlipForConditionalGeneration takes image itself"):
        InstructBlipAdapter(model, lenses={"image": lens}, **parts)
    with pytest.raises(OptionError, match=r"lenses\['depth'\] must be"):
        InstructBlipAdapter(model, lenses={"depth": 7}, **parts)  # type: ignore[dict-item]
    with pytest.raises(HostError, match=r"found LlavaForConditionalGeneration \(llava\)"):
        InstructBlipAdapter(tiny_hosts.llava()[0], **parts)


# ---- files


def test_a_saved_host_is_loaded_with_all_its_parts(tmp_path: Path, llama: InstructBlipAdapter) -> None:
    from transformers import InstructBlipProcessor

    model, parts = tiny_hosts.instructblip()
    model.save_pretrained(tmp_path)
    InstructBlipProcessor(**parts, num_query_tokens=tiny_hosts.QUERIES).save_pretrained(tmp_path)
    lens = tiny_hosts.lens_model(model.vision_model)
    lens.save_pretrained(tmp_path / "lens")
    adapter = InstructBlipAdapter.from_pretrained(
        tmp_path, lenses={"depth": str(tmp_path / "lens")}, dtype=torch.float32, device_map="cpu"
    )
    assert adapter.streams == ["image", "video", "depth"]
    inputs = {"depth": tiny_hosts.depths(2), "image": tiny_hosts.pictures(2)}
    assert adapter.generate(ASK, inputs, **SHORT) == llama.generate(ASK, inputs, **SHORT)
    with torch.no_grad():
        ours, theirs = adapter.embeds([ASK, LONG], inputs)[0], llama.embeds([ASK, LONG], inputs)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_host_with_weights_missing_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import InstructBlipProcessor

    model, parts = tiny_hosts.instructblip()
    model.save_pretrained(tmp_path)
    InstructBlipProcessor(**parts, num_query_tokens=tiny_hosts.QUERIES).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in state if key.endswith("post_layernorm.weight"))
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack .*post_layernorm\.weight, which would be random"):
        InstructBlipAdapter.from_pretrained(tmp_path, dtype=torch.float32, device_map="cpu")


def test_eight_bits_are_for_the_language_model_alone(host: InstructBlipAdapter) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    linear = [name for name, module in host.model.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [name for name in linear if should_convert_module(name, ["lm_head", *InstructBlipAdapter.never_quantised])]
    heads = {name for name in linear if "language_model." in name and not name.endswith("lm_head")}
    assert heads and set(chosen) == heads


def test_a_host_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder, and not the name of a Hub repository"):
        InstructBlipAdapter.from_pretrained("instructblip")
    with pytest.raises(ModelError, match=r"Salesforce/instructblip-vicuna-7b: .*download the repository where there is network"):
        InstructBlipAdapter.from_pretrained("Salesforce/instructblip-vicuna-7b")
    tiny_hosts.llava()[0].config.save_pretrained(tmp_path)
    with pytest.raises(HostError, match="is a llava model, this adapter takes instructblip"):
        InstructBlipAdapter.from_pretrained(tmp_path)
    assert host_type(tmp_path) == "llava"


# ---- what needs more than this machine


@pytest.mark.gpu
@torch.no_grad()
def test_on_a_gpu_in_half_precision(host: InstructBlipAdapter) -> None:
    inputs = {"depth": tiny_hosts.depths(2), "image": tiny_hosts.pictures(2)}
    adapter = build("t5" if host.language.is_encoder_decoder else "llama")
    adapter.model.to("cuda")
    here, there = (a.soft_tokens(ASK, inputs).cpu() for a in (host, adapter))
    assert torch.allclose(here, there, atol=1e-3)
    adapter.model.bfloat16()
    assert torch.allclose(here, adapter.soft_tokens(ASK, inputs).cpu().float(), atol=0.1)
    assert len(adapter.generate(ASK, inputs, **SHORT)) == 2
    assert "".join(adapter.stream(ASK, {"depth": tiny_hosts.depths(1)}, max_new_tokens=4)) is not None


@pytest.mark.network
def test_the_published_host_describes_a_picture() -> None:
    """Downloads 16 GB; needs 8 GB of GPU memory, or 16 GB of memory."""
    adapter = InstructBlipAdapter.from_pretrained("Salesforce/instructblip-flan-t5-xl")
    picture = vitlens.get_modality("image").example()
    answer = adapter.generate("Is this a landscape or a kitchen?", {"image": picture}, num_beams=1, max_new_tokens=20)[0]
    assert "landscape" in answer.lower()
    assert (adapter.tower.view().width, adapter.tower.view().patches) == (1408, 256), "what the EVA-g lens gives"
