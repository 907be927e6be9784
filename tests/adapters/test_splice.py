"""A lens spliced into a host's ViT: the same numbers as in its own, and no other ViT by mistake."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import vitlens
from vitlens import zoo
from vitlens.adapters.lenses import lens_streams
from vitlens.adapters.splice import HostTower, LensStream, LensTokens
from vitlens.benchmarks.toybox.training.huggingface import blip_vision, clip_vision
from vitlens.encoder import EncoderSpec, build_encoder
from vitlens.errors import HostError, InputError, ModalityError, OptionError
from vitlens.lens_config import PerceiverConfig
from vitlens.modality import get_modality
from vitlens.model import ViTLens
from vitlens.towers import from_huggingface
from vitlens.train import Recipe
from vitlens.train.recipe import ModelOptions
from vitlens.train.start import with_new_encoder
from vitlens.vit import Trainable, ViTSpec, resize_positions

SENSORS = ("point_cloud", "depth", "tactile", "audio", "eeg")


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load("vitlens-toybox")


@pytest.fixture(scope="module")
def host(model: ViTLens) -> object:
    return clip_vision(model)


@pytest.fixture
def tower(host: object) -> HostTower:
    return HostTower(lambda: host, name="toy CLIP")  # type: ignore[arg-type,return-value]


def examples(model: ViTLens, sensor: str) -> list[object]:
    return [model.modality(sensor).example(seed) for seed in range(2)]


def perceiving() -> ViTLens:
    """The Toybox's ViT, frozen whole, behind a new perceiver of scans: as the published lens is built."""
    clip = vitlens.load("vitlens-toybox", modalities=["image", "text"], device="cpu")
    scans = {"points": 128, "groups": 16, "group_size": 8, "encoder_width": 16}
    options = ModelOptions(modality="point_cloud", options=scans, lens={"kind": "perceiver", "depth": 2})
    torch.manual_seed(0)
    return with_new_encoder(clip, Recipe(name="perceiving", model=options))


@pytest.mark.parametrize("sensor", SENSORS)
def test_through_the_host_comes_the_embedding_of_the_model_itself(
    model: ViTLens, tower: HostTower, host: object, sensor: str
) -> None:
    stream = LensStream.from_model(model, sensor)
    tower.check(stream)
    with torch.inference_mode():
        [tokens] = stream(stream.read(examples(model, sensor)))
        last = tower.hidden(tokens)
        found = host.visual_projection(host.vision_model.post_layernorm(last[:, 0]))  # type: ignore[attr-defined]
    expected = model.encode({sensor: examples(model, sensor)})[sensor]
    torch.testing.assert_close(F.normalize(found, dim=-1), expected, atol=2e-6, rtol=0)


def test_pictures_through_the_tower_are_the_hosts_own(model: ViTLens, tower: HostTower, host: object) -> None:
    pixels = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        own = host.vision_model(pixels, output_hidden_states=True)  # type: ignore[attr-defined]
        for blocks in (5, 6):
            assert torch.equal(tower.hidden(tower.image_tokens(pixels), blocks=blocks), own.hidden_states[blocks])


def test_a_look_through_the_tower_leaves_it_to_the_host_what_trains(model: ViTLens, host: object) -> None:
    tuned = copy.deepcopy(host).requires_grad_(True)  # type: ignore[attr-defined]
    tuned.vision_model.embeddings.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in tuned.named_parameters()}
    tower = HostTower(lambda: tuned, name="tuned")
    stream = LensStream.from_model(model, "point_cloud")
    tower.check(stream)
    [tokens] = stream(stream.read(examples(model, "point_cloud")))
    tower.hidden(tokens).square().sum().backward()
    assert {name: parameter.requires_grad for name, parameter in tuned.named_parameters()} == before
    assert bool(tuned.vision_model.encoder.layers[3].mlp.fc1.weight.grad.any())


def test_tokens_come_to_where_the_host_is(host: object) -> None:
    elsewhere = copy.deepcopy(host).to("meta", torch.bfloat16)  # type: ignore[attr-defined]
    tower = HostTower(lambda: elsewhere, name="elsewhere")
    tokens = LensTokens(torch.randn(1, 64, 192))
    for found in (tower.hidden(tokens), tower.hidden_together([tokens, tokens]), tower.hidden(LensTokens(tokens.x, block=2))):
        assert (found.device.type, found.dtype) == ("meta", torch.bfloat16)


def test_streams_share_one_pass(tower: HostTower) -> None:
    model = perceiving()
    scan = LensStream.from_model(model, "point_cloud")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        [tokens] = scan(scan.read(examples(model, "point_cloud")))
        image = tower.image_tokens(pixels)
        torch.testing.assert_close(tower.hidden_together([image]), tower.hidden(image))
        one, other = tower.hidden_together([image, tokens]), tower.hidden_together([tokens, image])
    assert one.shape == (2, 1 + 64 + 64, 192)
    # attention does not care about the order, so the class token is the same and the rest changes places
    torch.testing.assert_close(one[:, 0], other[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one[:, 1:65], other[:, 65:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(one[:, 0], tower.hidden(image)[:, 0])


def test_a_lens_with_blocks_of_its_own_cannot_share_a_pass(model: ViTLens, tower: HostTower) -> None:
    touch = LensStream.from_model(model, "tactile")
    [tokens] = touch(touch.read(examples(model, "tactile")))
    with pytest.raises(HostError, match=r"tactile of vitlens-toybox brings .*its own first 2 blocks.*\"qformer\" or \"llm\""):
        tower.hidden_together([tokens])
    with pytest.raises(HostError, match="behind block 1"):
        tower.hidden(tokens, blocks=1)


def test_another_vit_is_refused_by_name_unless_asked_for(model: ViTLens) -> None:
    other = blip_vision(model)
    with torch.no_grad():
        other.encoder.layers[4].mlp.fc1.weight.mul_(0).add_(torch.randn(768, 192) * 0.1)
    tower = HostTower(lambda: other, name="toy BLIP")
    stream = LensStream.from_model(model, "tactile")
    with pytest.raises(HostError, match=r"tactile of vitlens-toybox.*another ViT than that of toy BLIP: blocks.4 differ"):
        tower.check(stream)
    tower.check(stream, allow_other_vit=True)
    with torch.no_grad():  # what the lens brings itself may differ
        other.encoder.layers[4].load_state_dict(blip_vision(model).encoder.layers[4].state_dict())
        other.encoder.layers[1].mlp.fc1.weight.mul_(2)
    tower.check(stream)
    with pytest.raises(HostError, match=r"blocks\.1 differ"):
        tower.check(LensStream.from_model(model, "point_cloud"))


def test_a_host_may_have_dropped_its_last_blocks(model: ViTLens, host: object) -> None:
    view = from_huggingface(copy.deepcopy(host))  # type: ignore[arg-type]
    view.blocks = view.blocks[:5]
    HostTower(lambda: view, name="shorter").check(LensStream.from_model(model, "point_cloud"))


def test_width_and_number_of_tokens_are_checked(tower: HostTower) -> None:
    with pytest.raises(HostError, match=r"63 tokens.*positions for 64"):
        tower.hidden(LensTokens(torch.randn(1, 63, 192)))
    with pytest.raises(HostError, match=r"width 100.*width 192"):
        tower.hidden(LensTokens(torch.randn(1, 64, 100)))
    bent = HostTower(tower.view, name=tower.name, positions="interpolate")
    assert bent.hidden(LensTokens(torch.randn(1, 49, 192))).shape == (1, 50, 192)
    with pytest.raises(OptionError, match="strict or interpolate"):
        HostTower(tower.view, name="x", positions="stretch")  # type: ignore[arg-type]


def test_a_lens_with_positions_for_its_own_number_of_tokens_brings_them(host: object, tower: HostTower) -> None:
    whole, head = perceiving(), "encoders.point_cloud."
    known = whole.spec.restricted(["point_cloud"])
    spec = replace(known, encoders=(replace(known.encoders[0], lens=PerceiverConfig(depth=2, latents=50)),))
    state = {key: value for key, value in whole.state_dict().items() if key.startswith(head)}
    latents, positions = state[head + "lens.latents"][:50], resize_positions(state[head + "vit.positions"], 50, prefix=1)
    state |= {head + "lens.latents": latents, head + "vit.positions": positions + 0.1 * torch.randn_like(positions)}
    small = ViTLens.from_state(zoo.Pretrained(spec, state, "made up"))
    stream = LensStream.from_model(small, "point_cloud")
    tower.check(stream)
    with torch.inference_mode():
        [tokens] = stream(stream.read(examples(small, "point_cloud")))
        last = tower.hidden(tokens)
        out = host.visual_projection(host.vision_model.post_layernorm(last[:, 0]))  # type: ignore[attr-defined]
    expected = small.encode({"point_cloud": examples(small, "point_cloud")})["point_cloud"]
    torch.testing.assert_close(F.normalize(out, dim=-1), expected, atol=2e-6, rtol=0)
    with pytest.raises(HostError, match="brings positions for its 50 tokens: it cannot share one pass"):
        tower.hidden_together([tokens])
    state = {key: value * 2 if key.endswith("blocks.0.mlp.c_fc.weight") else value for key, value in state.items()}
    with pytest.raises(HostError, match=r"blocks\.0 differ"):
        tower.check(LensStream.from_model(ViTLens.from_state(zoo.Pretrained(spec, state, "bent")), "point_cloud"))


def test_a_lens_that_skips_blocks_enters_behind_them(host: object, tower: HostTower) -> None:
    torch.manual_seed(0)
    spec = EncoderSpec(
        "depth",
        ViTSpec("toy", library="open_clip", config=vitlens.load("vitlens-toybox").spec.encoders[0].vit.config, skip_blocks=2),
        options={"size": 64},
        lens=PerceiverConfig(depth=1),
    )
    encoder = build_encoder(spec)
    full = vitlens.load("vitlens-toybox", modalities=["image"]).tower("image").vit
    encoder.vit.load_state_dict({**encoder.vit.state_dict(), **_skipping(full.state_dict(), 2)})
    stream = LensStream(encoder, spec, modality=get_modality("depth", size=64), name="skipping")
    tower.check(stream)
    x = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        [tokens] = stream(x)
        torch.testing.assert_close(tower.hidden(tokens), encoder.vit.forward_tokens(encoder.lens(encoder.embed(x))))
    assert tokens.block == 2


def _skipping(state: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    found = {key: value for key, value in state.items() if not key.startswith("blocks.")}
    for key, value in state.items():
        if key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            if int(number) >= count:
                found[f"blocks.{int(number) - count}.{rest}"] = value
    return found


def test_views_are_streams_of_their_own(model: ViTLens, tower: HostTower) -> None:
    stream = LensStream.from_model(model, "depth")
    x = torch.randn(2, 3, 1, 64, 64)
    found = stream(x)
    assert len(found) == 3
    torch.testing.assert_close(found[1].x, stream(x[:, 1])[0].x)


def test_lenses_are_named_and_checked(model: ViTLens) -> None:
    assert list(lens_streams({"depth": "vitlens-toybox", "eeg": model})) == ["depth", "eeg"]
    with pytest.raises(ModalityError, match="no lens for 'smell'"):
        lens_streams({"smell": model})
    with pytest.raises(OptionError, match=r"lenses\['depth'\]"):
        lens_streams({"depth": 3})  # type: ignore[dict-item]
    spec = next(e for e in model.spec.encoders if e.modality == "depth")
    with pytest.raises(HostError, match="last blocks"):
        LensStream(
            model.encoders["depth"],  # type: ignore[arg-type]
            replace(spec, trains=Trainable(last_blocks=1)),
            modality=model.modality("depth"),
            name="x",
        )


def test_items_that_cannot_be_read_are_named(model: ViTLens) -> None:
    stream = LensStream.from_model(model, "depth")
    with pytest.raises(InputError, match=r"nowhere\.png"):
        stream.read(["nowhere.png"])


def test_items_that_become_other_shapes_are_named(model: ViTLens, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = LensStream.from_model(model, "audio")
    sounds = examples(model, "audio")
    shapes = iter([(3, 8, 8), (2, 8, 8)])
    odd = SimpleNamespace(load=lambda item: item, transform=lambda sample: torch.zeros(next(shapes)))
    monkeypatch.setattr(stream, "modality", odd)
    with pytest.raises(InputError, match=r"becomes \[2, 8, 8\], the first item of the batch \[3, 8, 8\]"):
        stream.read(sounds)
