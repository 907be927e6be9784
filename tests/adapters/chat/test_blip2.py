"""BLIP-2 with lenses: the host's own numbers for pictures, InstructBLIP's lenses, the prompt that its Q-Former does not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from tests.adapters import tiny_hosts
from vitlens.adapters.chat.blip2 import Blip2Adapter
from vitlens.adapters.chat.instructblip import InstructBlipAdapter
from vitlens.errors import HostError, OptionError
from vitlens.lens_config import PerceiverConfig

ASK = "what is this object ?"
SHORT = {"max_new_tokens": 8, "num_beams": 2}


@pytest.fixture(scope="module", params=["opt", "t5"])
def host(request: pytest.FixtureRequest) -> Blip2Adapter:
    model, parts = tiny_hosts.blip2(request.param)
    lenses = {
        "depth": tiny_hosts.lens_model(model.vision_model, "depth"),
        "point_cloud": tiny_hosts.lens_model(model.vision_model, "point_cloud", token_width=24, lens=PerceiverConfig(depth=1)),
    }
    return Blip2Adapter(model, lenses=lenses, **parts)


def own_inputs(host: Blip2Adapter, picture: np.ndarray, prompt: str) -> dict[str, Tensor]:
    """What transformers' processor makes of one picture and one prompt."""
    text = host.tokenizer(prompt, return_tensors="pt")["input_ids"]
    ids = torch.cat([torch.full((1, tiny_hosts.QUERIES), host.model.config.image_token_index), text], dim=1)
    pixels = host.image_processor(images=PIL.Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def test_a_picture_goes_the_hosts_own_way(host: Blip2Adapter) -> None:
    picture = tiny_hosts.pictures(1)[0]
    own = own_inputs(host, picture, ASK)
    features = host.model.get_image_features(own["pixel_values"], return_dict=True).pooler_output
    for fuse in ("vit", "qformer", "llm"):
        assert torch.equal(host.soft_tokens(ASK, {"image": picture}, fuse=fuse), features), fuse
    more = {"decoder_input_ids": torch.tensor([[3, 5, 6]])} if host.language.is_encoder_decoder else {}
    theirs = host.model(**own, **more).logits
    embeds, mask = host.embeds(ASK, {"image": picture})
    assert torch.allclose(host.model.language_model(inputs_embeds=embeds, attention_mask=mask, **more).logits, theirs, atol=1e-5)
    greedy: dict[str, Any] = {"max_new_tokens": 10, "min_new_tokens": 6, "num_beams": 1, "do_sample": False}
    ids = host.model.generate(**own, **greedy)
    ids = ids if host.language.is_encoder_decoder else ids[:, own["input_ids"].shape[1] :]
    answer = host.tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert answer and host.generate(ASK, {"image": picture}, **greedy) == [answer]


@torch.no_grad()
def test_a_lens_stands_where_the_patches_stand_and_the_prompt_changes_no_soft_token(host: Blip2Adapter) -> None:
    maps = tiny_hosts.depths(2)
    vision = host.model.vision_model
    [tokens] = host.lenses["depth"](host.lenses["depth"].read(maps))
    positions = vision.embeddings.position_embedding
    x = torch.cat([vision.embeddings.class_embedding.expand(2, 1, -1), tokens.x], dim=1) + positions
    seen = vision.post_layernorm(vision.encoder(inputs_embeds=x).last_hidden_state)
    out = host.model.qformer(query_embeds=host.model.query_tokens.expand(2, -1, -1), encoder_hidden_states=seen)
    soft = host.soft_tokens(ASK, {"depth": maps})
    assert torch.allclose(soft, host.model.language_projection(out.last_hidden_state), atol=1e-5)
    assert torch.equal(soft, host.soft_tokens("a", {"depth": maps}))
    three = host.soft_tokens(
        ASK, {"depth": maps, "image": tiny_hosts.pictures(2), "point_cloud": tiny_hosts.clouds(2)}, fuse="llm"
    )
    assert three.shape[1] == 3 * tiny_hosts.QUERIES and torch.allclose(three[:, : tiny_hosts.QUERIES], soft, atol=1e-5)


def test_batches_streams_captions_and_losses(host: Blip2Adapter) -> None:
    inputs = {"depth": tiny_hosts.depths(2), "image": tiny_hosts.pictures(2)}
    answers = host.generate([ASK, "a"], inputs, **SHORT)
    single = [host.generate(p, {k: v[i] for k, v in inputs.items()}, **SHORT)[0] for i, p in enumerate([ASK, "a"])]
    assert answers == single
    one = {"depth": tiny_hosts.depths(1)}
    pieces = "".join(host.stream(ASK, one, max_new_tokens=8, min_new_tokens=4)).strip()
    assert pieces == host.generate(ASK, one, num_beams=1, max_new_tokens=8, min_new_tokens=4)[0]
    assert host.describe(one, **SHORT) == host.generate("a photo of", one, **SHORT)
    host.loss(ASK, one, "a chair", fuse="llm").backward()
    assert all(bool(p.grad.any()) for p in host.lenses["depth"].embed.parameters() if p.grad is not None)
    host.lenses["depth"].zero_grad()


def test_lenses_of_instructblip_fit_where_the_vit_is_the_same() -> None:
    model, parts = tiny_hosts.blip2()
    other, _ = tiny_hosts.instructblip()
    other.vision_model.load_state_dict(model.vision_model.state_dict())
    lens = tiny_hosts.lens_model(other.vision_model)
    assert Blip2Adapter(model, lenses={"depth": lens}, **parts).generate(ASK, {"depth": tiny_hosts.depths(1)}, **SHORT)
    with pytest.raises(HostError, match="was trained against another ViT"):
        Blip2Adapter(model, lenses={"depth": tiny_hosts.lens_model(tiny_hosts.instructblip(seed=9)[0].vision_model)}, **parts)


@torch.no_grad()
def test_in_half_precision_with_the_qformer_in_float32_as_transformers_keeps_it(tmp_path: Path) -> None:
    from transformers import Blip2Processor

    model, parts = tiny_hosts.blip2()
    lens = tiny_hosts.lens_model(model.vision_model)
    model.save_pretrained(tmp_path)
    Blip2Processor(**parts, num_query_tokens=tiny_hosts.QUERIES).save_pretrained(tmp_path)
    inputs = {"depth": tiny_hosts.depths(1)}
    whole = Blip2Adapter(model, lenses={"depth": lens}, **parts)
    same = Blip2Adapter.from_pretrained(tmp_path, lenses={"depth": lens}, dtype=torch.float32, look="all")
    assert same.generate(ASK, inputs, **SHORT) == whole.generate(ASK, inputs, **SHORT)
    half = Blip2Adapter.from_pretrained(tmp_path, lenses={"depth": lens}, dtype=torch.float16)
    assert half.model.qformer.layernorm.weight.dtype == torch.float32
    soft = half.soft_tokens(ASK, inputs)
    assert soft.dtype == torch.float16 and torch.allclose(soft.float(), whole.soft_tokens(ASK, inputs), atol=0.02)
    assert len(half.generate(ASK, inputs, **SHORT)) == 1
    with pytest.raises(OptionError, match=r"Blip2Adapter: unknown option 'fuze'; known: allow_other_vit, .*, look"):
        Blip2Adapter.from_pretrained("Salesforce/blip2-opt-2.7b", fuze="vit")


def test_another_host_is_refused() -> None:
    _, parts = tiny_hosts.blip2()
    with pytest.raises(HostError, match=r"Blip2ForConditionalGeneration is needed, found InstructBlip\w+ \(instructblip\)"):
        Blip2Adapter(tiny_hosts.instructblip()[0], **parts)
    model, own = tiny_hosts.instructblip()
    with pytest.raises(HostError, match=r"InstructBlipForConditionalGeneration is needed, found Blip2\w+ \(blip-2\)"):
        InstructBlipAdapter(tiny_hosts.blip2()[0], **own)
    with pytest.raises(OptionError, match="unknown option 'history'; known: fuse"):
        InstructBlipAdapter(model, **own).embeds(ASK, {"image": tiny_hosts.pictures(1)}, history=[])
