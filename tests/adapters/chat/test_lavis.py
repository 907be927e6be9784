"""LAVIS' InstructBLIP checkpoints: renamed without loss, used whole or refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.adapters import tiny_hosts
from vitlens.adapters.chat.lavis import convert_lavis
from vitlens.errors import CheckpointError, HostError, InputError

BACK = (
    (r"vision_model\.embeddings\.class_embedding", "visual_encoder.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", "visual_encoder.pos_embed"),
    (r"vision_model\.embeddings\.patch_embedding", "visual_encoder.patch_embed.proj"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm", r"visual_encoder.blocks.\1.norm"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection", r"visual_encoder.blocks.\1.attn.proj"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn", r"visual_encoder.blocks.\1.attn"),
    (r"vision_model\.encoder\.layers", "visual_encoder.blocks"),
    (r"vision_model\.post_layernorm", "ln_vision"),
    (r"qformer\.embeddings\.layernorm", "Qformer.bert.embeddings.LayerNorm"),
    (r"qformer\.(.*attention)\.attention\.", r"Qformer.bert.\1.self."),
    (r"qformer\.", "Qformer.bert."),
)


def as_lavis(model: Any, *, language: str = "llm", frozen: bool = True) -> dict[str, Tensor]:
    """The state dict of a transformers model as LAVIS would name it; `frozen` keeps the ViT and the language model in."""
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        kept_out = key.startswith(("vision_model.emb", "vision_model.enc", "language_model."))
        if kept_out and not frozen:
            continue
        new = re.sub(r"^language_(model|projection)", lambda m: f"{language}_{m[1].replace('ection', '')}", key)
        for old, replacement in BACK:
            new, found = re.subn(rf"^{old}", replacement, new)
            if found:
                break
        if new.endswith("attn.qkv.bias"):
            query, _, values = value.chunk(3)
            state |= {new.replace("qkv.bias", "q_bias"): query, new.replace("qkv.bias", "v_bias"): values}
        else:
            state[new] = value
    head = {"Qformer.cls.predictions.bias": torch.zeros(3), "Qformer.bert.embeddings.position_ids": torch.arange(8)[None]}
    return state | head


def without_key_bias(model: Any) -> Any:
    """EVA's ViT has no bias on its keys, and LAVIS no place for one."""
    with torch.no_grad():
        for layer in model.vision_model.encoder.layers:
            layer.self_attn.qkv.bias.chunk(3)[1].zero_()
    return model


def logits(model: Any) -> Tensor:
    """Of fixed inputs, through every part of the host."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(1, 3, tiny_hosts.SIZE, tiny_hosts.SIZE, generator=generator)
    image = [model.config.image_token_index] * tiny_hosts.QUERIES
    ids = torch.tensor([[*image, 1, 7, 9, 11]])
    more = {"decoder_input_ids": torch.tensor([[3, 6]])} if model.config.text_config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(
            pixel_values=pixels,
            qformer_input_ids=torch.tensor([[2, 5, 3]]),
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **more,
        ).logits


@pytest.mark.parametrize("language", ["llama", "t5"])
def test_a_whole_checkpoint_comes_through_unchanged(language: str, tmp_path: Path) -> None:
    source = without_key_bias(tiny_hosts.instructblip(language, seed=1)[0])
    target = tiny_hosts.instructblip(language, seed=2)[0]
    named = as_lavis(source, language="llm" if language == "llama" else "t5")
    assert not any(key in source.state_dict() for key in named if key != "query_tokens"), "LAVIS' names are other names"
    file = tmp_path / "checkpoint.pth"
    torch.save({"model": named, "config": {"model": {"arch": "x"}}, "epoch": 3, "scaler": {}}, file)
    weights = convert_lavis(file, target.config)
    assert weights.parts == ("vision", "vision_norm", "qformer", "projection", "language")
    assert weights.missing == ()
    assert set(weights.dropped) == {"Qformer.cls.predictions.bias", "Qformer.bert.embeddings.position_ids"}
    assert set(weights.state) == set(source.state_dict())
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in weights.state.items())
    assert not torch.allclose(logits(source), logits(target), atol=1e-3)
    weights.load_into(target)
    assert torch.equal(logits(source), logits(target))


def test_what_lavis_leaves_out_the_host_keeps() -> None:
    source, target = (without_key_bias(tiny_hosts.instructblip(seed=seed)[0]) for seed in (1, 2))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    weights = convert_lavis(as_lavis(source, frozen=False), target)
    assert weights.parts == ("vision_norm", "qformer", "projection")
    assert weights.missing == ("vision", "language")
    weights.load_into(target)
    for key, value in target.state_dict().items():
        frozen = key.startswith(("vision_model.emb", "vision_model.enc", "language_model."))
        assert torch.equal(value, before[key] if frozen else source.state_dict()[key]), key


def test_weights_take_the_dtype_of_the_host() -> None:
    source, target = (tiny_hosts.instructblip(seed=seed)[0] for seed in (1, 2))
    convert_lavis(as_lavis(source, frozen=False), target).load_into(target.bfloat16())
    assert target.query_tokens.dtype == torch.bfloat16
    assert torch.equal(target.query_tokens, source.query_tokens.bfloat16())


def test_every_misfit_is_named() -> None:
    model = tiny_hosts.instructblip()[0]
    state = as_lavis(model)
    with pytest.raises(CheckpointError, match=r"1 keys that this InstructBLIP does not have: itm_head\.weight"):
        convert_lavis({**state, "itm_head.weight": torch.zeros(2)}, model)
    with pytest.raises(CheckpointError, match=r"does not have: .*layers\.7"):
        convert_lavis({**state, "visual_encoder.blocks.7.norm1.weight": torch.zeros(32)}, model)
    with pytest.raises(CheckpointError, match=r"qformer.*1 keys of them are missing: query_tokens"):
        convert_lavis({key: value for key, value in state.items() if key != "query_tokens"}, model)
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.q_bias without .*v_bias"):
        convert_lavis({key: value for key, value in state.items() if key != "visual_encoder.blocks.1.attn.v_bias"}, model)
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.v_bias without .*q_bias"):
        convert_lavis({key: value for key, value in state.items() if key != "visual_encoder.blocks.1.attn.q_bias"}, model)
    with pytest.raises(CheckpointError, match=r"query_tokens \[1, 3, 24\] \(needed \[1, 8, 24\]\)"):
        convert_lavis({**state, "query_tokens": torch.zeros(1, 3, 24)}, model)
    with pytest.raises(CheckpointError, match="holds no part of an InstructBLIP"):
        convert_lavis({"Qformer.cls.predictions.bias": torch.zeros(3)}, model)
    with pytest.raises(HostError, match="found dict"):
        convert_lavis(state, {})


def test_bad_files(tmp_path: Path) -> None:
    model = tiny_hosts.instructblip()[0]
    with pytest.raises(InputError, match="no such file"):
        convert_lavis(tmp_path / "gone.pth", model)
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"noise\.pth"):
        convert_lavis(tmp_path / "noise.pth", model)
    torch.save({"model": {"query_tokens": "text"}}, tmp_path / "text.pth")
    with pytest.raises(CheckpointError, match="no tensor under query_tokens"):
        convert_lavis(tmp_path / "text.pth", model)
