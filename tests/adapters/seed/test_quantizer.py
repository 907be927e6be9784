"""The SEED-2 tokenizer against golden numbers, both published layouts, and lens tokens in the place of patches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image

from tests.adapters.seed import tiny_seed
from tests.adapters.seed.tiny_seed import HEADS, REFERENCE, golden
from vitlens.adapters.seed.quantizer import SPACE, SeedQuantizer
from vitlens.adapters.splice import HostTower, LensTokens
from vitlens.errors import CheckpointError, HostError, InputError, ModelError, OptionError
from vitlens.modalities.pixels import CLIP_MEAN, CLIP_STD
from vitlens.space import EmbeddingSpace

BOTH = ("image_down", "reverse_qformer")
TOLERANCE = {"atol": 2e-5, "rtol": 0}


@pytest.fixture(scope="module")
def tiny() -> SeedQuantizer:
    return tiny_seed.quantizer()


@pytest.mark.parametrize("head", BOTH)
def test_goldens(head: str) -> None:
    model, image = tiny_seed.quantizer(head), golden()["image"]
    want = {name.removeprefix(f"{head}/"): value for name, value in golden().items() if name.startswith(head)}
    states = model.ln_vision(model.visual_encoder(image))
    queries = model.Qformer(model.query_tokens.expand(2, -1, -1), states)
    codes = model.encode_image(image)
    got = {
        "image_embeds": states,
        "query_output": queries,
        "encode_down": model.encode_task_layer(queries),
        "query_output_up": model.decode_task_layer(model.quantize["embedding"](codes)),
        "entry_of_codes": model.decode(codes),
        "entry_of_arange64": model.decode(torch.arange(64).view(2, 32)),
    }
    for name, value in got.items():
        torch.testing.assert_close(value, want[name], **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(codes, want["codes"])
    assert set(got) | {"codes"} == set(want)


def test_without_the_causal_mask_the_golden_is_missed(tiny: SeedQuantizer) -> None:
    states = tiny.ln_vision(tiny.visual_encoder(golden()["image"]))
    tiny.Qformer.causal = False
    try:
        queries = tiny.Qformer(tiny.query_tokens.expand(2, -1, -1), states)
    finally:
        tiny.Qformer.causal = True
    assert (queries - golden()["image_down/query_output"]).abs().max() > 0.5


@pytest.mark.parametrize(
    ("head", "manifest"),
    [("image_down", "keys_seed_quantizer.json"), ("reverse_qformer", "keys_seed_quantizer_reverse_qformer.json")],
)
def test_the_defaults_are_the_published_layouts(head: str, manifest: str) -> None:
    with torch.device("meta"):
        model = SeedQuantizer(head=head)  # type: ignore[arg-type]
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == json.loads((REFERENCE / manifest).read_text())
    assert (model.codes, model.queries, model.space) == (8192, 32, EmbeddingSpace(SPACE, 1024))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("head", BOTH)
def test_files_with_and_without_the_vit(head: str, tmp_path: Path) -> None:
    """As published: one file without the ViT, and EVA-g's own, with 40 blocks and a classifier."""
    state = tiny_seed.state(head)
    vit = {k.removeprefix("visual_encoder."): v for k, v in state.items() if k.startswith("visual_encoder.")}
    rest = {k: v for k, v in state.items() if not k.startswith("visual_encoder.")}
    rest |= {"Qformer.bert.embeddings.word_embeddings.weight": torch.zeros(3, 48), "Qformer.cls.predictions.bias": torch.zeros(3)}
    rest.pop("Qformer.bert.embeddings.position_ids")
    torch.save(rest, tmp_path / "seed_quantizer.pt")
    torch.save({**vit, "norm.weight": torch.zeros(32), "head.bias": torch.zeros(9)}, tmp_path / "eva.pth")
    model = SeedQuantizer.from_pretrained(tmp_path, vit=tmp_path / "eva.pth", **HEADS)
    assert torch.equal(model.encode_image(golden()["image"]), golden()[f"{head}/codes"])
    with pytest.raises(CheckpointError, match=r"no ViT in it.*vit='eva_vit_g.pth'"):
        SeedQuantizer.from_pretrained(tmp_path, **HEADS)
    torch.save(state, tmp_path / "whole.pt")
    whole = SeedQuantizer.from_pretrained(tmp_path / "whole.pt", dtype=torch.float64, **HEADS)
    assert torch.equal(whole.encode_image(golden()["image"]), golden()[f"{head}/codes"])
    with pytest.raises(CheckpointError, match="holds a ViT of its own"):
        SeedQuantizer.from_pretrained(tmp_path / "whole.pt", vit=tmp_path / "eva.pth", **HEADS)
    with pytest.raises(CheckpointError, match="not the weights of an EVA ViT"):
        SeedQuantizer.from_pretrained(tmp_path, vit=tmp_path / "whole.pt", **HEADS)


def test_of_eva_g_the_last_block_is_left_out() -> None:
    state = tiny_seed.state()
    block = {k.removeprefix("visual_encoder.blocks.0."): v for k, v in state.items() if k.startswith("visual_encoder.blocks.0.")}
    vit = {
        k.removeprefix("visual_encoder."): v for k, v in state.items() if k.startswith("visual_encoder.") and ".blocks." not in k
    }
    vit |= {f"blocks.{i}.{name}": value for i in range(40) for name, value in block.items()}
    from vitlens.adapters.seed.weights import with_vit

    rest = {k: v for k, v in state.items() if not k.startswith("visual_encoder.")}
    model = SeedQuantizer.from_state_dict(with_vit(rest, vit, source="a", vit_source="b"), **HEADS)
    assert len(model.visual_encoder.blocks) == 39


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.mlp.fc1.bias"), r"1 keys missing: blocks\.1\.mlp\.fc1\.bias"),
        (lambda s: s.update({"stray.weight": torch.zeros(1)}), r"1 keys left over: stray\.weight"),
        (lambda s: s.update({"pos_embed": torch.zeros(1, 3, 48)}), r"pos_embed \[1, 3, 48\] \(needed \[1, 32, 48\]\)"),
        (lambda s: s.update({"Reverse_Qformer.x": torch.zeros(1)}), "both heads in it"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("image_down")], "no head in it"),
        (lambda s: s.pop("quantize.embedding.weight"), r"key quantize\.embedding\.weight is missing"),
    ],
)
def test_every_key_is_used_or_named(change, message: str) -> None:
    state = tiny_seed.state()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        SeedQuantizer.from_state_dict(state, source="file.pt", **HEADS)


def test_keys_can_be_left_out_by_name_only() -> None:
    state = {**tiny_seed.state(), "Reverse_Qformer_text.a": torch.zeros(1)}
    assert SeedQuantizer.from_state_dict(state, leave_out=["Reverse_Qformer_text."], **HEADS).codes == 64
    with pytest.raises(OptionError, match="no key that starts with 'nothing'"):
        SeedQuantizer.from_state_dict(state, leave_out=["nothing"], **HEADS)


def test_what_the_shapes_do_not_show_must_be_said() -> None:
    with pytest.raises(OptionError, match="vit_heads must be given"):
        SeedQuantizer.from_state_dict(tiny_seed.state())
    with pytest.raises(OptionError, match="head must be image_down or reverse_qformer, found 'both'"):
        SeedQuantizer(head="both")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="not divisible by 5 heads"):
        SeedQuantizer(heads=5)
    with pytest.raises(ModelError, match=r"seed_quantizer\.pt of the Hub repository nobody/nothing"):
        SeedQuantizer.from_pretrained("nobody/nothing")


def test_pictures_are_squeezed_to_the_square(tiny: SeedQuantizer) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    reference = T.Compose(
        [T.Resize((56, 56), interpolation=T.InterpolationMode.BICUBIC), T.ToTensor(), T.Normalize(CLIP_MEAN, CLIP_STD)]
    )
    torch.testing.assert_close(tiny.preprocess([pixels])[0], reference(Image.fromarray(pixels)), atol=1e-6, rtol=0)
    assert tiny.preprocess([]).shape == (0, 3, 56, 56)
    with pytest.raises(InputError, match="no such file"):
        tiny.preprocess(["missing.png"])


def test_the_image_path_and_the_stream_path_give_the_same_codes(tiny: SeedQuantizer) -> None:
    """The host's own patches, handed in as a stream, alone and among others."""
    image = golden()["image"]
    tower = tiny.tower()
    patches = tower.image_tokens(image)
    hidden = tower.hidden(patches)
    assert torch.equal(hidden, tiny.visual_encoder(image))
    codes = tiny.encode_image(image)
    assert torch.equal(tiny.encode_hidden(hidden), codes)
    for fuse in ("qformer", "vit"):
        assert torch.equal(tiny.encode_streams({"image": patches}, fuse=fuse), codes)  # type: ignore[arg-type]
        assert torch.equal(tiny.encode_streams({"image": patches.x}, fuse=fuse), codes)  # type: ignore[arg-type]
    for block in (0, 1, 2):
        part = LensTokens(tower.hidden(patches, blocks=block), block) if block else patches
        assert torch.equal(tiny.encode_streams({"image": part}), codes)


def test_streams_are_fused_where_asked(tiny: SeedQuantizer) -> None:
    image = golden()["image"]
    tower, other = tiny.tower(), image.flip(-1)
    a, b = tower.image_tokens(image), tower.image_tokens(other)
    before_qformer = tiny.encode_hidden(torch.cat([tiny.visual_encoder(image), tiny.visual_encoder(other)], dim=1))
    assert torch.equal(tiny.encode_streams({"a": a, "b": b}), before_qformer)
    eva = tiny.visual_encoder
    x = torch.cat([t.x + eva.pos_embed[:, 1:] for t in (a, b)], dim=1)
    x = torch.cat([(eva.cls_token + eva.pos_embed[:, :1]).expand(2, -1, -1), x], dim=1)
    for block in eva.blocks:
        x = block(x)
    assert torch.equal(tiny.encode_streams({"a": a, "b": b}, fuse="vit"), tiny.encode_hidden(x))
    assert not torch.equal(before_qformer, tiny.encode_image(image))


def test_wrong_tokens_are_named_before_anything_runs(tiny: SeedQuantizer) -> None:
    with pytest.raises(HostError, match="9 tokens, but the ViT of the SEED tokenizer has positions for 16"):
        tiny.encode_streams({"points": torch.zeros(1, 9, 32)})
    assert tiny.encode_streams({"points": torch.zeros(1, 9, 32)}, positions="interpolate").shape == (1, 32)
    with pytest.raises(HostError, match="tokens of width 31"):
        tiny.encode_streams({"points": torch.zeros(1, 16, 31)})
    with pytest.raises(HostError, match=r"as many items as each other are needed, found \{'a': 1, 'b': 2\}"):
        tiny.encode_streams({"a": torch.zeros(1, 16, 32), "b": torch.zeros(2, 16, 32)})
    with pytest.raises(HostError, match="found none"):
        tiny.encode_streams({})
    with pytest.raises(OptionError, match="fuse must be qformer or vit"):
        tiny.encode_streams({"a": torch.zeros(1, 16, 32)}, fuse="llm")  # type: ignore[arg-type]
    with pytest.raises(HostError, match=r"hidden states \[b, n, 32\] are needed, found \[1, 17, 8\]"):
        tiny.encode_hidden(torch.zeros(1, 17, 8))
    with pytest.raises(InputError, match=r"pixels \[b, 3, 56, 56\]"):
        tiny.encode_image(torch.zeros(1, 3, 224, 224))


@pytest.mark.parametrize(
    ("codes", "found"),
    [
        (torch.zeros(1, 31, dtype=torch.long), r"shape \[1, 31\]"),
        (torch.zeros(32, dtype=torch.long), r"shape \[32\]"),
        (torch.zeros(1, 32), "float32"),
        (torch.full((1, 32), 64), "codes from 64 to 64"),
        (torch.full((1, 32), -1), "codes from -1 to -1"),
    ],
)
def test_wrong_codes_are_refused(tiny: SeedQuantizer, codes: torch.Tensor, found: str) -> None:
    with pytest.raises(InputError, match=found):
        tiny.decode(codes)


def test_batches_equal_single_pictures_and_small_types_agree(tiny: SeedQuantizer) -> None:
    image = torch.cat([golden()["image"], golden()["image"].flip(-2)])
    codes = tiny.encode_image(image)
    assert torch.equal(codes, torch.cat([tiny.encode_image(row[None]) for row in image]))
    torch.testing.assert_close(tiny.decode(codes)[2:3], tiny.decode(codes[2:3]), **TOLERANCE)
    half = tiny_seed.quantizer().to(torch.bfloat16)
    assert (half.encode_image(image) == codes).float().mean() > 0.5
    assert half.decode(codes).dtype == torch.bfloat16


def test_the_view_of_the_vit_shares_its_weights(tiny: SeedQuantizer) -> None:
    vit = tiny.vit()
    assert (vit.width, vit.patches, vit.prefix, vit.head_width) == (32, 16, 1, 8)
    assert vit.blocks[0].attn.qkv.weight is tiny.visual_encoder.blocks[0].attn.qkv.weight
    assert vit.class_token is not None and vit.class_token.data_ptr() == tiny.visual_encoder.cls_token.data_ptr()
    assert isinstance(tiny.tower(), HostTower)
