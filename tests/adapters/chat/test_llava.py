"""LLaVA with lenses: the host's own numbers for pictures, streams where the prompt says, batches, and refusals by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from tests.adapters import tiny_hosts
from vitlens.adapters.chat.llava import LlavaAdapter
from vitlens.errors import HostError, ModalityError, ModelError, OptionError
from vitlens.lens_config import PerceiverConfig
from vitlens.modality import get_modality
from vitlens.vit import Trainable

ASK = "what is this object ?"
FEW = {"max_new_tokens": 8, "min_new_tokens": 4}
N = tiny_hosts.TOKENS


def build(model: Any = None, parts: Any = None, **options: Any) -> LlavaAdapter:
    if model is None:
        model, parts = tiny_hosts.llava()
    tower = model.model.vision_tower
    lenses = {
        "depth": tiny_hosts.lens_model(tower, "depth"),
        "point_cloud": tiny_hosts.lens_model(tower, "point_cloud", token_width=24, lens=PerceiverConfig(depth=1)),
    }
    return LlavaAdapter(model, **{"lenses": lenses, **parts, **options})


@pytest.fixture(scope="module")
def host() -> LlavaAdapter:
    return build()


def pixels(host: LlavaAdapter, picture: np.ndarray) -> Tensor:
    return host.image_processor(images=PIL.Image.fromarray(picture), return_tensors="pt")["pixel_values"]


def own_ids(host: LlavaAdapter, text: str, images: int = 1) -> Tensor:
    """Ids of a text as transformers' processor makes them: every image token as often as an image has patches."""
    ids = host.tokenizer(text)["input_ids"]
    assert ids.count(host.image_token_id) == images
    return torch.tensor([[one for token in ids for one in [token] * (N if token == host.image_token_id else 1)]])


# ---- the host's own way with pictures


@torch.no_grad()
@pytest.mark.parametrize(
    "more", [{}, {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}, {"vision_feature_layer": [1, -2]}]
)
def test_a_picture_goes_the_hosts_own_way_bit_by_bit(more: dict[str, Any]) -> None:
    model, parts = tiny_hosts.llava(**more)
    adapter = LlavaAdapter(model, **parts)
    picture = tiny_hosts.pictures(1)[0]
    theirs = model.get_image_features(pixels(adapter, picture)).pooler_output[0]
    assert torch.equal(adapter.soft_tokens({"image": picture})["image"][0], theirs)


@torch.no_grad()
def test_logits_and_answers_are_the_hosts_own(host: LlavaAdapter) -> None:
    picture = tiny_hosts.pictures(1)[0]
    ids = own_ids(host, f"USER: <image>\n{ASK} ASSISTANT:")
    theirs = host.model(input_ids=ids, pixel_values=pixels(host, picture)).logits
    for prompt in (ASK, f"<image>\n{ASK}"):
        embeds, mask = host.embeds(prompt, {"image": picture})
        ours = host.model(inputs_embeds=embeds, attention_mask=mask).logits
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-5)
    made = host.model.generate(input_ids=ids, pixel_values=pixels(host, picture), do_sample=False, **FEW)[:, ids.shape[1] :]
    answer = host.tokenizer.batch_decode(made, skip_special_tokens=True)[0].strip()
    assert answer and host.generate(ASK, {"image": picture}, **FEW) == [answer]


@torch.no_grad()
def test_a_lens_stands_where_the_patches_stand(host: LlavaAdapter) -> None:
    maps = tiny_hosts.depths(2)
    stream = host.lenses["depth"]
    [given] = stream(stream.read(maps))
    tower = host.model.model.vision_tower
    embeddings = tower.embeddings
    x = torch.cat([embeddings.class_embedding.expand(2, 1, -1), given.x], dim=1) + embeddings.position_embedding.weight
    x = tower.pre_layrnorm(x)
    for block in tower.encoder.layers[:-1]:  # the penultimate layer
        x = block(x, attention_mask=None)
    soft = host.soft_tokens({"depth": maps})["depth"]
    assert torch.allclose(soft, host.model.model.multi_modal_projector(x[:, 1:]), atol=1e-5)
    assert not torch.allclose(soft[0], soft[1], atol=1e-3)


# ---- where the streams stand


@torch.no_grad()
def test_streams_stand_where_the_prompt_says(host: LlavaAdapter) -> None:
    inputs = {"depth": tiny_hosts.depths(1)[0], "image": tiny_hosts.pictures(1)[0]}
    soft = host.soft_tokens(inputs)
    prompt = "is <image> the sound of <depth> a dog"
    embeds, _ = host.embeds(prompt, inputs)
    ids = own_ids(host, "USER: is <image> the sound of <image> a dog ASSISTANT:", images=2)[0]
    places = (ids == host.image_token_id).nonzero().flatten()
    assert embeds.shape[1] == len(ids) and len(places) == 2 * N
    assert torch.allclose(embeds[0, places[:N]], soft["image"][0], atol=1e-6)
    assert torch.allclose(embeds[0, places[N:]], soft["depth"][0], atol=1e-6)
    words = ids != host.image_token_id
    assert torch.equal(embeds[0, words], host.model.get_input_embeddings()(ids[words]))


@torch.no_grad()
def test_streams_without_a_place_come_first_in_their_order(host: LlavaAdapter) -> None:
    depth, image, cloud = tiny_hosts.depths(1)[0], tiny_hosts.pictures(1)[0], tiny_hosts.clouds(1)[0]
    free, _ = host.embeds(ASK, {"depth": depth, "image": image})
    told, _ = host.embeds(f"<depth>\n<image>\n{ASK}", {"image": image, "depth": depth})
    other, _ = host.embeds(ASK, {"image": image, "depth": depth})
    assert torch.allclose(free, told, atol=1e-6)
    assert free.shape == other.shape and not torch.allclose(free, other, atol=1e-3)
    mixed, _ = host.embeds(f"{ASK} <depth>", {"depth": depth, "point_cloud": cloud})
    told, _ = host.embeds(f"<point_cloud>\n{ASK} <depth>", {"depth": depth, "point_cloud": cloud})
    assert torch.allclose(mixed, told, atol=1e-6)


@torch.no_grad()
def test_frames_of_a_video_follow_each_other() -> None:
    adapter = build(video_frames=2)
    frames = tiny_hosts.pictures(1, seed=1) + tiny_hosts.pictures(1, seed=2)
    film = adapter.soft_tokens({"video": [frames]})["video"]
    alone = [adapter.soft_tokens({"image": frame})["image"] for frame in frames]
    assert torch.allclose(film, torch.cat(alone, dim=1), atol=1e-5)
    embeds, _ = adapter.embeds("<video> " + ASK, {"video": [frames]})
    text = adapter.embeds("<image> " + ASK, {"image": frames[0]})[0]
    assert embeds.shape[1] == text.shape[1] + N


# ---- the conversation


@torch.no_grad()
def test_the_conversation_is_written_in_the_hosts_format(host: LlavaAdapter) -> None:
    image = tiny_hosts.pictures(1)[0]
    table = host.model.get_input_embeddings()

    def words(adapter: LlavaAdapter, **more: Any) -> Tensor:
        return adapter.embeds(ASK, {"image": image}, **more)[0]

    def expected(text: str) -> Tensor:
        ids = own_ids(host, text)
        embeds = table(ids)
        embeds[ids == host.image_token_id] = host.soft_tokens({"image": image})["image"][0]
        return embeds

    assert torch.allclose(words(host), expected(f"USER: <image>\n{ASK} ASSISTANT:"), atol=1e-6)
    past = [("<image> is it soft", "it is hard")]
    assert torch.allclose(
        words(host, history=past),
        expected(f"USER: <image> is it soft ASSISTANT: it is hard</s>USER: {ASK} ASSISTANT:"),
        atol=1e-6,
    )
    raw = build(host.model, {"tokenizer": host.tokenizer, "image_processor": host.image_processor}, chat_format="none")
    assert torch.allclose(words(raw), expected(f"<image>\n{ASK}"), atol=1e-6)


TEXT_TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}[assistant]"
PARTS_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {% for c in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ c['text'] }} {% endfor %}{% endfor %}[assistant]"
)


@torch.no_grad()
@pytest.mark.parametrize("template", [TEXT_TEMPLATE, PARTS_TEMPLATE])
def test_the_tokenizers_chat_template_is_used(template: str) -> None:
    model, parts = tiny_hosts.llava()
    parts["tokenizer"].chat_template = template
    adapter = LlavaAdapter(model, **parts)
    image = tiny_hosts.pictures(1)[0]
    ours, _ = adapter.embeds(ASK, {"image": image}, history=[("is it soft", "it is")])
    ids = own_ids(adapter, f"[user] <image>\nis it soft [assistant] it is [user] {ASK} [assistant]")
    embeds = model.get_input_embeddings()(ids)
    embeds[ids == adapter.image_token_id] = adapter.soft_tokens({"image": image})["image"][0]
    assert torch.allclose(ours, embeds, atol=1e-6)
    assert (ours[0] == model.get_input_embeddings()(torch.tensor(adapter.tokenizer.bos_token_id))).all(-1).sum() == 1, "one BOS"
    plain = LlavaAdapter(model, **parts, chat_format="llava-1.5").embeds(ASK, {"image": image})[0]
    assert plain.shape[1] == own_ids(adapter, f"USER: <image>\n{ASK} ASSISTANT:").shape[1]


def test_a_template_that_loses_the_question_is_refused() -> None:
    model, parts = tiny_hosts.llava()
    parts["tokenizer"].chat_template = "hello"
    with pytest.raises(HostError, match="leaves out what the user says"):
        LlavaAdapter(model, **parts).generate(ASK, {"image": tiny_hosts.pictures(1)})


# ---- batches, streaming, training


@torch.no_grad()
def test_a_batch_is_its_samples(host: LlavaAdapter) -> None:
    prompts = [ASK, "is <depth> a point cloud of a chair and a table , or <image> ?", "a"]
    inputs = {"depth": tiny_hosts.depths(3), "image": tiny_hosts.pictures(3)}
    embeds, mask = host.embeds(prompts, inputs)
    options = {**FEW, "repetition_penalty": 1.3, "num_beams": 2}
    answers = host.generate(prompts, inputs, **options)
    for i, prompt in enumerate(prompts):
        one = {name: items[i] for name, items in inputs.items()}
        single, _ = host.embeds(prompt, one)
        assert torch.allclose(embeds[i, mask[i].bool()], single[0], atol=1e-5)
        assert host.generate(prompt, one, **options) == [answers[i]]
    assert mask[2, 0] == 0 and mask[:, -1].all(), "padded on the left"


def test_a_stream_of_text_is_the_same_text(host: LlavaAdapter) -> None:
    inputs = {"depth": tiny_hosts.depths(1)}
    pieces = list(host.stream(ASK, inputs, **FEW))
    assert "".join(pieces).strip() == host.generate(ASK, inputs, **FEW)[0] != ""


def test_words_alone_are_a_conversation_too(host: LlavaAdapter) -> None:
    ids = torch.tensor([host.tokenizer(f"USER: {ASK} ASSISTANT:")["input_ids"]])
    made = host.model.generate(input_ids=ids, do_sample=False, **FEW)[:, ids.shape[1] :]
    assert host.generate(ASK, {}, **FEW) == [host.tokenizer.batch_decode(made, skip_special_tokens=True)[0].strip()]


def test_the_loss_is_of_the_answer_alone_and_reaches_the_lens(host: LlavaAdapter) -> None:
    prompts, targets = [ASK, "is it soft or hard"], ["a chair", "the sound of a dog"]
    maps = tiny_hosts.depths(2)
    loss = host.loss(prompts, {"depth": maps}, targets)
    total, count = 0.0, 0
    for i in range(2):
        ids = torch.tensor(host.tokenizer(targets[i], add_special_tokens=False)["input_ids"] + [host.tokenizer.eos_token_id])
        row, _ = host.embeds(prompts[i], {"depth": maps[i]})
        whole = torch.cat([row, host.model.get_input_embeddings()(ids[None, :-1])], dim=1)
        scores = host.model(inputs_embeds=whole).logits[0, row.shape[1] - 1 :]
        total += torch.nn.functional.cross_entropy(scores, ids, reduction="sum").item()
        count += len(ids)
    assert loss.item() == pytest.approx(total / count, abs=1e-5)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in host.lenses["depth"].embed.parameters())
    assert bool(host.model.model.multi_modal_projector.linear_1.weight.grad.any())
    host.model.zero_grad()
    host.lenses["depth"].zero_grad()


# ---- refusals


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: a.generate(ASK, {"eeg": None}), ModalityError, "no stream 'eeg': there is image, video, depth, point_cloud"),
        (
            lambda a: a.generate("<image> or <depth>", {"depth": tiny_hosts.depths(1)}),
            OptionError,
            "names <image>, but the inputs hold depth",
        ),
        (
            lambda a: a.generate("<depth> or <depth>", {"depth": tiny_hosts.depths(1)}),
            OptionError,
            "names <depth> 2 times",
        ),
        (lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, max_new_tokens=600), HostError, "512 positions"),
        (lambda a: a.generate(ASK, {"depth": tiny_hosts.depths(1)}, fuse="vit"), OptionError, "unknown generation option 'fuse'"),
    ],
)
def test_bad_calls_are_refused_by_name(
    host: LlavaAdapter, call: Callable[[LlavaAdapter], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(host)


def test_misfits_are_refused_by_name() -> None:
    model, parts = tiny_hosts.llava()
    stranger = tiny_hosts.lens_model(tiny_hosts.llava(seed=9)[0].model.vision_tower)
    with pytest.raises(HostError, match=r"depth of tiny-depth was trained against another ViT .* allow_other_vit=True"):
        LlavaAdapter(model, lenses={"depth": stranger}, **parts)
    assert LlavaAdapter(model, lenses={"depth": stranger}, allow_other_vit=True, **parts).generate(
        ASK, {"depth": tiny_hosts.depths(1)}, **FEW
    )
    wide = tiny_hosts.lens_model(
        model.model.vision_tower, "point_cloud", token_width=24, lens=PerceiverConfig(depth=1, latents=20)
    )
    adapter = LlavaAdapter(model, lenses={"point_cloud": wide}, **parts)
    with pytest.raises(HostError, match=r"stream 'point_cloud': 20 tokens, .* positions for 16"):
        adapter.generate(ASK, {"point_cloud": tiny_hosts.clouds(1)})
    lenient = LlavaAdapter(model, lenses={"point_cloud": wide}, positions="interpolate", **parts)
    with torch.no_grad():
        assert lenient.soft_tokens({"point_cloud": tiny_hosts.clouds(1)})["point_cloud"].shape == (1, 20, 32)
    with pytest.raises(HostError, match="no image token"):
        LlavaAdapter(model, **{**parts, "tokenizer": tiny_hosts.subword_tokenizer()})
    with pytest.raises(OptionError, match=r"auto, llava-1\.5 or none, found 'chatml'"):
        LlavaAdapter(model, **parts, chat_format="chatml")  # type: ignore[arg-type]
    with pytest.raises(HostError, match=r"found InstructBlipForConditionalGeneration \(instructblip\)"):
        LlavaAdapter(tiny_hosts.instructblip()[0], **parts)


@torch.no_grad()
def test_a_lens_with_a_first_block_of_its_own() -> None:
    model, parts = tiny_hosts.llava()
    lens = tiny_hosts.lens_model(model.model.vision_tower, trains=Trainable(class_token=True, first_blocks=1))
    encoder: Any = lens.encoders["depth"]
    for parameter in encoder.vit.blocks[0].parameters():
        parameter.mul_(1.2)
    adapter = LlavaAdapter(model, lenses={"depth": lens}, **parts)
    x = encoder.vit.prepare(lens.tokens("depth", tiny_hosts.depths(1)))
    for block in list(encoder.vit.blocks)[:-1]:
        x = block(x, attention_mask=None)
    soft = adapter.soft_tokens({"depth": tiny_hosts.depths(1)})["depth"]
    assert torch.allclose(soft, model.model.multi_modal_projector(x[:, 1:]), atol=1e-5)


# ---- files


def test_a_saved_host_is_loaded_with_all_its_parts(tmp_path: Path, host: LlavaAdapter) -> None:
    from transformers import LlavaProcessor

    model, parts = tiny_hosts.llava()
    model.save_pretrained(tmp_path)
    LlavaProcessor(**parts, patch_size=tiny_hosts.PATCH, vision_feature_select_strategy="default").save_pretrained(tmp_path)
    lens = tiny_hosts.lens_model(model.model.vision_tower)
    adapter = LlavaAdapter.from_pretrained(tmp_path, lenses={"depth": lens}, dtype=torch.float32, device_map="cpu")
    inputs = {"depth": tiny_hosts.depths(2), "image": tiny_hosts.pictures(2)}
    assert adapter.generate(ASK, inputs, **FEW) == host.generate(ASK, inputs, **FEW)
    with pytest.raises(ModelError, match=r"llava-hf/llava-1\.5-7b-hf: .*download the repository where there is network"):
        LlavaAdapter.from_pretrained("llava-hf/llava-1.5-7b-hf")


def test_files_that_cannot_be_read_are_said(tmp_path: Path, host: LlavaAdapter) -> None:
    model, parts = tiny_hosts.llava()
    save_host(model, parts, tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ModelError, match=r"LlavaForConditionalGeneration cannot be loaded .*; the folder must hold"):
        LlavaAdapter.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    config.write_text(config.read_text().replace('"intermediate_size": 64', '"intermediate_size": 48'))
    with pytest.raises(ModelError, match="LlavaForConditionalGeneration cannot be loaded"):
        LlavaAdapter.from_pretrained(tmp_path)


def save_host(model: Any, parts: dict[str, Any], folder: Path) -> None:
    for part in (model, *parts.values()):
        part.save_pretrained(folder)


def test_weight_files_may_lack_what_is_never_run(tmp_path: Path) -> None:
    """As conversions of LLaVA that left out the last block and the norm behind the feature layer."""
    from safetensors.torch import load_file, save_file

    model, parts = tiny_hosts.llava()
    assert model.config.vision_feature_layer == -2
    save_host(model, parts, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    behind = [key for key in state if "post_layernorm" in key or (".layers.2." in key and "vision_tower" in key)]
    assert len(behind) > 2
    save_file({k: v for k, v in state.items() if k not in behind}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    lens = tiny_hosts.lens_model(model.model.vision_tower)
    host = LlavaAdapter.from_pretrained(tmp_path, lenses={"depth": lens}, dtype=torch.float32, device_map="cpu")
    inputs = {"depth": tiny_hosts.depths(1), "image": tiny_hosts.pictures(1)}
    with torch.no_grad():
        ours, theirs = host.embeds(ASK, inputs)[0], LlavaAdapter(model, lenses={"depth": lens}, **parts).embeds(ASK, inputs)[0]
    assert torch.equal(ours, theirs)
    used = next(key for key in state if ".layers.1." in key and "vision_tower" in key)
    save_file({k: v for k, v in state.items() if k != used}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\..*which would be random"):
        LlavaAdapter.from_pretrained(tmp_path, dtype=torch.float32, device_map="cpu")


@pytest.mark.parametrize("layers", [-1, [-2, -1], [1, 3]])
def test_what_a_later_feature_layer_needs_is_still_asked_for(tmp_path: Path, layers: Any) -> None:
    from safetensors.torch import load_file, save_file

    model, parts = tiny_hosts.llava(vision_feature_layer=layers)
    save_host(model, parts, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    last = next(key for key in state if ".layers.2." in key and "vision_tower" in key)
    save_file({k: v for k, v in state.items() if k != last}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.2\..*which would be random"):
        LlavaAdapter.from_pretrained(tmp_path, dtype=torch.float32, device_map="cpu")


def test_lack_of_memory_for_a_loss_is_said_too(host: LlavaAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(host.tower, "hidden", fail)
    with pytest.raises(HostError, match=r"out of memory; give fewer samples .*20 GiB"):
        host.loss("what?", {"image": tiny_hosts.pictures(1)}, "a chair")


def test_without_defaults_answers_still_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model, parts = tiny_hosts.llava()
    host = LlavaAdapter(model, **parts)
    host.defaults = {"num_beams": 2}
    asked: dict[str, Any] = {}
    monkeypatch.setattr(model, "generate", lambda **given: asked.update(given) or torch.zeros(1, 1, dtype=torch.long))
    host.generate("what?", {"image": tiny_hosts.pictures(1)})
    assert (asked["max_new_tokens"], asked["num_beams"]) == (256, 2)


def test_eight_bits_are_for_the_language_model_alone(host: LlavaAdapter) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    linear = [name for name, module in host.model.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [name for name in linear if should_convert_module(name, ["lm_head", *LlavaAdapter.never_quantised])]
    heads = {name for name in linear if "language_model." in name and not name.endswith("lm_head")}
    assert heads and set(chosen) == heads


# ---- what needs more than this machine


@pytest.mark.gpu
@torch.no_grad()
def test_on_a_gpu_in_half_precision(host: LlavaAdapter) -> None:
    inputs = {"depth": tiny_hosts.depths(2), "image": tiny_hosts.pictures(2)}
    adapter = build()
    adapter.model.to("cuda")
    here, there = (a.soft_tokens(inputs)["depth"].cpu() for a in (host, adapter))
    assert torch.allclose(here, there, atol=1e-3)
    adapter.model.bfloat16()
    assert torch.allclose(here, adapter.soft_tokens(inputs)["depth"].cpu().float(), atol=0.1)
    assert len(adapter.generate(ASK, inputs, **FEW)) == 2


@pytest.mark.network
def test_the_published_host_describes_a_picture() -> None:
    """Downloads 14 GB; needs 14 GB of GPU memory, or 28 GB of memory."""
    adapter = LlavaAdapter.from_pretrained("llava-hf/llava-1.5-7b-hf")
    picture = get_modality("image").example()
    answer = adapter.generate("Is this a landscape or a kitchen?", {"image": picture}, max_new_tokens=20)[0]
    assert "landscape" in answer.lower()
    assert adapter.tower.view().patches == 576
