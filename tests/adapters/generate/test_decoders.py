"""Decoders: what our path gives is what the pipeline gives when it is called by hand; cards tell the truth; files read back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from tests.adapters.generate import tiny_diffusers as tiny
from vitlens.adapters.generate.clip_reference import ClipReference
from vitlens.adapters.generate.conditioning import Condition
from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_card, decoder_cards, register_decoder
from vitlens.adapters.generate.decoders import Decoder, load_decoder
from vitlens.adapters.generate.outputs import Generated, TriangleMesh, VideoClip, Waveform, check_path, kind_of
from vitlens.errors import HostError, MissingDependencyError, ModelError, OptionError
from vitlens.modalities.image import Image
from vitlens.space import EmbeddingSpace

VECTOR = torch.randn(tiny.DIM, generator=torch.Generator().manual_seed(7))
SHORT = {"audio_length_in_s": 0.032}
SMALL = {"height": 16, "width": 16, "num_frames": 3}


@cache
def pipeline(name: str, **options: Any) -> Any:
    """Each tiny pipeline once."""
    return getattr(tiny, name)(**options)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_picture(a: PIL.Image.Image, b: PIL.Image.Image) -> bool:
    return a.size == b.size and bool((np.asarray(a) == np.asarray(b)).all())


def unclip_decoder(**options: Any) -> Decoder:
    return Decoder(tiny.tiny_card("unclip-h"), pipeline("unclip", **options))


def test_unclip_is_the_pipeline_called_by_hand() -> None:
    pipe, decoder = pipeline("unclip"), unclip_decoder()
    by_hand = pipe(
        image_embeds=VECTOR[None], prompt="a dog", guidance_scale=10, num_inference_steps=2, noise_level=0, generator=noise(3)
    ).images[0]
    ours = decoder.generate(Condition(embedding=VECTOR, prompts=("a dog",)), seed=3)
    assert same_picture(ours, by_hand)
    assert same_picture(decoder.generate(Condition(embedding=VECTOR, prompts=("a dog",)), seed=3), ours)
    assert not same_picture(decoder.generate(Condition(embedding=VECTOR, prompts=("a dog",)), seed=4), ours)
    assert not same_picture(decoder.generate(Condition(embedding=-VECTOR, prompts=("a dog",)), seed=3), ours)
    assert not same_picture(decoder.generate(Condition(embedding=VECTOR), seed=3), ours)
    stronger = decoder.generate(Condition(embedding=VECTOR, prompts=("a dog",)), seed=3, guidance=2.0, steps=3)
    assert not same_picture(stronger, ours)


def test_unclip_without_a_text_encoder_gets_zeros_of_any_length() -> None:
    pipe, decoder = pipeline("unclip", text=False), unclip_decoder(text=False)
    zeros = torch.zeros(1, 77, 32)
    by_hand = pipe(
        image_embeds=VECTOR[None], prompt_embeds=zeros, negative_prompt_embeds=zeros, num_inference_steps=2, generator=noise()
    ).images[0]
    found = np.asarray(decoder.generate(Condition(embedding=VECTOR)), dtype=float)
    assert np.abs(found - np.asarray(by_hand, dtype=float)).max() <= 1  # sums over 77 equal tokens or one: rounding only
    with pytest.raises(HostError, match="no text encoder"):
        decoder.generate(Condition(embedding=VECTOR, prompts=("a dog",)))


def test_kandinsky_is_the_pipeline_called_by_hand() -> None:
    pipe, encoder = pipeline("kandinsky"), tiny.image_encoder()
    card = tiny.tiny_card("kandinsky-2.2", defaults={"height": 32, "width": 32})
    decoder = Decoder(card, pipe, image_encoder=encoder)
    with torch.no_grad():
        negative = encoder(torch.zeros(1, 3, 32, 32)).image_embeds
    by_hand = pipe(
        image_embeds=VECTOR[None], negative_image_embeds=negative, height=32, width=32, guidance_scale=4.0, num_inference_steps=2,
        generator=noise(),
    ).images[0]  # fmt: skip
    assert same_picture(decoder.generate(Condition(embedding=VECTOR)), by_hand)
    with pytest.raises(HostError, match="image encoder of tiny is needed"):
        Decoder(card, pipe).generate(Condition(embedding=VECTOR))


@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_ip_adapter_is_the_pipeline_called_by_hand(guidance: float) -> None:
    pipe = pipeline("stable_diffusion", adapter_dim=tiny.DIM)
    decoder = Decoder(tiny.tiny_card("ip-adapter-sd15"), pipe)
    rows = torch.stack([torch.zeros(1, tiny.DIM), VECTOR[None]])[1 if guidance == 1 else 0 :]
    by_hand = pipe(
        prompt="a cat", ip_adapter_image_embeds=[rows], num_inference_steps=2, guidance_scale=guidance, generator=noise()
    ).images[0]
    ours = decoder.generate(Condition(embedding=VECTOR, prompts=("a cat",)), guidance=guidance)
    assert same_picture(ours, by_hand)
    assert not same_picture(decoder.generate(Condition(embedding=-VECTOR, prompts=("a cat",)), guidance=guidance), ours)


@pytest.fixture
def audioldm() -> None:
    """Skips where diffusers is too old for AudioLDM 2: on Python 3.10."""
    pytest.importorskip("diffusers", minversion=decoder_card("audioldm2").diffusers)


def test_an_old_diffusers_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.__version__", "0.35.2")
    with pytest.raises(
        MissingDependencyError, match=r"audioldm2 needs diffusers 0\.37 or newer, 0\.35\.2 is installed: pip install"
    ):
        load_decoder("audioldm2")


@pytest.mark.usefixtures("audioldm")
def test_audio_is_the_pipeline_called_by_hand() -> None:
    pipe = pipeline("audioldm2")
    sound = Decoder(tiny.tiny_card("audioldm2", defaults=SHORT), pipe).generate(Condition(prompts=("a dog",)), seed=1)
    by_hand = pipe("a dog", guidance_scale=3.5, num_inference_steps=2, generator=noise(1), **SHORT).audios[0]
    np.testing.assert_array_equal(sound.samples, by_hand)
    assert sound.rate == 16000 and sound.seconds == pytest.approx(0.032)


def test_video_and_mesh_are_the_pipelines_called_by_hand() -> None:
    pipe = pipeline("text_to_video")
    video = Decoder(tiny.tiny_card("modelscope", defaults=SMALL), pipe).generate(Condition(prompts=("a dog",)))
    frames = pipe("a dog", guidance_scale=9.0, num_inference_steps=2, generator=noise(), output_type="pil", **SMALL).frames[0]
    assert len(video.frames) == 3 and all(same_picture(a, b) for a, b in zip(video.frames, frames, strict=True))

    pipe = pipeline("shap_e")
    decoder = Decoder(tiny.tiny_card("shap-e"), pipe)
    mesh = decoder.generate(Condition(prompts=("a dog",)))
    made = pipe("a dog", guidance_scale=15.0, num_inference_steps=2, generator=noise(), output_type="mesh").images[0]
    np.testing.assert_array_equal(mesh.vertices, made.verts.numpy())
    assert mesh.colors is not None and mesh.colors.shape == mesh.vertices.shape and mesh.faces.max() < len(mesh.vertices)
    assert not np.array_equal(decoder.generate(Condition(prompts=("cat",)), seed=1).vertices, mesh.vertices)


def test_shap_e_starts_from_a_picture_and_says_when_nothing_solid_came_out() -> None:
    pipe = pipeline("shap_e", picture=True)
    decoder = Decoder(tiny.tiny_card("shap-e-img2img"), pipe)
    red = PIL.Image.new("RGB", (40, 50), "red")
    made = pipe(red, guidance_scale=3.0, num_inference_steps=2, generator=noise(), output_type="mesh").images[0]
    np.testing.assert_array_equal(decoder.generate(Condition(picture=red)).vertices, made.verts.numpy())
    bias = pipe.shap_e_renderer.mlp.mlp[-1].bias.data
    try:
        bias[0] -= 50
        with pytest.raises(HostError, match="nothing solid"):
            decoder.generate(Condition(picture=red))
    finally:
        bias[0] += 50


def test_prompts_are_mixed_by_the_weighted_sum_of_their_contexts() -> None:
    pipe = pipeline("stable_diffusion")
    decoder = Decoder(tiny.tiny_card("stable-diffusion-1.5"), pipe)
    dog, none = pipe.encode_prompt("a dog", "cpu", 1, True)
    cat, _ = pipe.encode_prompt("cats", "cpu", 1, True)
    by_hand = pipe(
        prompt_embeds=0.25 * dog + 0.75 * cat,
        negative_prompt_embeds=none,
        num_inference_steps=2,
        generator=noise(),
        output_type="np",
    ).images[0]
    ours = decoder.generate(Condition(prompts=("a dog", "cats"), weights=(1, 3)))
    assert np.abs(np.asarray(ours) / 255 - by_hand).max() < 0.005
    assert same_picture(decoder.generate(Condition(prompts=("cats", "a dog"), weights=(9, 3))), ours)
    almost = decoder.generate(Condition(prompts=("a dog", "cats"), weights=(1e9, 1)))
    alone = decoder.generate(Condition(prompts=("a dog",)))
    assert np.abs(np.asarray(almost, float) - np.asarray(alone, float)).max() <= 1
    assert not same_picture(alone, ours)


@pytest.mark.usefixtures("audioldm")
def test_sounds_are_mixed_too_and_padding_counts_as_nothing() -> None:
    decoder = Decoder(tiny.tiny_card("audioldm2", defaults=SHORT), pipeline("audioldm2"))
    alone = decoder.generate(Condition(prompts=("a dog",))).samples
    twice = decoder.generate(Condition(prompts=("a dog", "a dog"), weights=(1, 5))).samples
    np.testing.assert_allclose(twice, alone, atol=1e-4 * np.abs(alone).max())
    mixed = decoder.generate(Condition(prompts=("a dog", "a much larger cat"), weights=(1, 1))).samples
    assert mixed.shape == alone.shape and np.isfinite(mixed).all() and not np.allclose(mixed, alone)


def test_a_pipeline_without_contexts_gets_one_sentence_the_heaviest_first() -> None:
    condition = Condition(prompts=("rain", "a dog"), weights=(1, 2), before="near: a cat", after="in oil")
    assert condition.sentence == "near: a cat, a dog, rain, in oil"
    assert condition.contexts == ["near: a cat, rain, in oil", "near: a cat, a dog, in oil"]
    assert condition.shares == pytest.approx([1 / 3, 2 / 3])
    pipe = Recorder()
    Decoder(replace(decoder_card("shap-e"), defaults={}), pipe).generate(condition)
    assert pipe.calls[0]["prompt"] == condition.sentence


class Recorder:
    """A pipeline that is called like one, and gives a triangle."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error = error

    def __call__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        if self.error:
            raise self.error
        mesh = SimpleNamespace(verts=torch.eye(3), faces=torch.tensor([[0, 1, 2]]), vertex_channels=None)
        return SimpleNamespace(images=[mesh])


def test_the_length_of_embeddings_is_known_measured_or_given() -> None:
    fitted = unclip_decoder()
    assert fitted.norm == pytest.approx(math.sqrt(tiny.DIM * (0.5**2 + 2.0**2)))
    assert fitted.norm_and_source()[1] == "the pipeline's image normalizer"
    unfitted = unclip_decoder(fitted=False)
    image, encoder = Image(size=32), unfitted.pipeline.image_encoder
    with torch.no_grad():
        pixels = torch.stack([image.transform(image.example(seed)) for seed in range(8)])
        expected = float(encoder(pixels).image_embeds.norm(dim=-1).mean())
    assert unfitted.norm == pytest.approx(expected, rel=1e-5)
    assert "measured" in unfitted.norm_and_source()[1]
    own = np.zeros((40, 40, 3), np.uint8)
    with torch.no_grad():
        black = float(encoder(image.transform(image.load(own))[None]).image_embeds.norm())
    assert ClipReference.from_huggingface(encoder).norm([own]) == pytest.approx(black, rel=1e-5)
    assert Decoder(tiny.tiny_card("unclip-h", norm=3.0), pipeline("unclip")).norm == 3.0
    assert Decoder(tiny.tiny_card("unclip-h", norm=3.0), pipeline("unclip"), norm=4.0).norm == 4.0
    with pytest.raises(OptionError, match="norm must be"):
        Decoder(tiny.tiny_card("unclip-h"), pipeline("unclip"), norm=0.0)


def test_the_length_is_measured_on_an_encoder_that_is_offloaded_layer_by_layer() -> None:
    accelerate = pytest.importorskip("accelerate")
    encoder = unclip_decoder(fitted=False).pipeline.image_encoder
    encoder = copy.deepcopy(encoder)
    expected = ClipReference.from_huggingface(encoder).norm()
    accelerate.cpu_offload(encoder, torch.device("cpu"))
    assert encoder.device.type == "meta"
    assert ClipReference.from_huggingface(encoder).norm() == pytest.approx(expected, rel=1e-5)


def wrong_width() -> Decoder:
    return Decoder(tiny.tiny_card("unclip-h", space=EmbeddingSpace("another", 48)), pipeline("unclip"))


def no_adapter() -> Decoder:
    return Decoder(tiny.tiny_card("ip-adapter-sd15"), pipeline("stable_diffusion"))


def strange_default() -> Decoder:
    return Decoder(tiny.tiny_card("unclip-h", defaults={"noise": 1}), pipeline("unclip"))


def no_rate() -> Decoder:
    return Decoder(replace(decoder_card("audioldm2"), rate=None), Recorder())


def no_fps() -> Decoder:
    return Decoder(replace(decoder_card("modelscope"), fps=None), Recorder())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (wrong_width, r"48 values \(another\), the UNet of this pipeline takes 32"),
        (no_adapter, "no IP-Adapter in this pipeline"),
        (strange_default, "sets noise, which StableUnCLIPImg2ImgPipeline does not take"),
        (no_rate, "no sampling rate"),
        (no_fps, "frames a second"),
    ],
)
def test_a_pipeline_that_is_not_what_its_card_says_is_refused(make: Callable[[], Decoder], says: str) -> None:
    with pytest.raises(HostError, match=says):
        make()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be"),
        ({"guidance": float("nan")}, "guidance must be"),
        ({"hight": 64}, "does not take hight; it takes .*height"),
        ({"generator": None}, "does not take generator"),
        ({"image_embeds": None}, "does not take image_embeds"),
    ],
)
def test_options_are_checked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        unclip_decoder().options(**options)


def test_too_little_memory_is_said_with_advice() -> None:
    decoder = Decoder(replace(decoder_card("shap-e"), defaults={}), Recorder(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(HostError, match=r"out of memory.*offload='model'"):
        decoder.generate(Condition(prompts=("a dog",)))


def test_a_picture_that_the_safety_checker_blackened_is_not_passed_on() -> None:
    blackened = SimpleNamespace(images=[PIL.Image.new("RGB", (8, 8))], nsfw_content_detected=[True])
    decoder = Decoder(replace(decoder_card("sdxl"), defaults={}), lambda **_: blackened)
    with pytest.raises(HostError, match="safety checker"):
        decoder.generate(Condition(prompts=("a dog",)))


@pytest.mark.parametrize("card", decoder_cards(), ids=lambda card: card.name)
def test_every_card_is_about_a_pipeline_that_exists(card: DecoderCard) -> None:
    import inspect

    import diffusers

    pipe = getattr(diffusers, card.pipeline)
    accepted = inspect.signature(pipe.__call__).parameters
    assert set(card.defaults) <= set(accepted)
    taken = {"unclip": "image_embeds", "kandinsky": "image_embeds", "ip_adapter": "ip_adapter_image_embeds", None: "generator"}
    assert taken[card.embedding] in accepted
    assert ("prompt" in accepted) == (card.text is not None) or card.embedding == "kandinsky"
    assert ("image" in accepted) == card.picture or card.embedding == "unclip"
    assert all(name in accepted for name in card.mixes)
    assert card.licence != "unknown" and card.licence_source and card.repo.count("/") == 1
    assert all(hasattr(diffusers, kind) for kind, _ in card.parts.values())


def test_cards_of_ones_own_are_registered_once() -> None:
    card = DecoderCard("test-own", "image", "StableDiffusionPipeline", text="alone")
    assert register_decoder(card) is register_decoder(card) is decoder_card("test-own")
    with pytest.raises(OptionError, match="registered already"):
        register_decoder(replace(card, fps=3))
    with pytest.raises(OptionError, match="no decoder 'nothing'; known: unclip-h"):
        decoder_card("nothing")
    for wrong in ({"output": "smell", "text": "alone"}, {"output": "image"}, {"output": "image", "embedding": "unclip"}):
        with pytest.raises(OptionError):
            DecoderCard("wrong", pipeline="P", **wrong)  # type: ignore[arg-type]


def test_a_saved_pipeline_is_loaded_by_its_folder(tmp_path: Path) -> None:
    pipe = pipeline("unclip")
    pipe.save_pretrained(tmp_path / "pipe")
    decoder = load_decoder(tiny.tiny_card("unclip-h"), tmp_path / "pipe", device="cpu")
    decoder.pipeline.set_progress_bar_config(disable=True)
    assert same_picture(
        decoder.generate(Condition(embedding=VECTOR), progress=False), unclip_decoder().generate(Condition(embedding=VECTOR))
    )
    with pytest.raises(ModelError, match=r"no model_index.json"):
        load_decoder("unclip-h", tmp_path)
    with pytest.raises(OptionError, match="there is none here"):
        load_decoder("unclip-h", tmp_path / "pipe", device="cpu", offload="model")
    with pytest.raises(OptionError, match="offload must be"):
        load_decoder("unclip-h", tmp_path / "pipe", device="cpu", offload="disk")  # type: ignore[arg-type]


def test_files_read_back(tmp_path: Path) -> None:
    import av
    import soundfile
    import trimesh

    picture = PIL.Image.fromarray(np.arange(15 * 21 * 3, dtype=np.uint8).reshape(15, 21, 3))
    for suffix in ("png", "jpg", "webp"):
        with PIL.Image.open(Generated("image", picture, "text").save(tmp_path / "new" / f"a.{suffix}")) as read:
            assert read.size == (21, 15)
    assert same_picture(PIL.Image.open(tmp_path / "new" / "a.png"), picture)

    wave = np.sin(np.arange(8000) / 10).astype(np.float32)
    for samples in (wave, np.stack([wave, 2 * wave], axis=1)):  # too loud is clipped, not wrapped
        for suffix in ("wav", "flac"):
            read, rate = soundfile.read(Generated("audio", Waveform(samples, 16000), "text").save(tmp_path / f"a.{suffix}"))
            assert rate == 16000 and np.abs(read - samples.clip(-1, 1)).max() < 1e-3

    frames = [PIL.Image.new("RGB", (33, 17), (50 * i, 0, 0)) for i in range(5)]
    video = Generated("video", VideoClip(frames, 8.0), "text")
    with av.open(str(video.save(tmp_path / "a.mp4"))) as container:
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate or 0) == 8
    assert len(read) == 5 and read[0].shape == (18, 34, 3)
    assert [round(frame[..., 0].mean() / 50) for frame in read] == [0, 1, 2, 3, 4]
    with PIL.Image.open(video.save(tmp_path / "a.gif")) as read_gif:
        assert read_gif.n_frames == 5 and read_gif.info["duration"] == pytest.approx(125, abs=5)

    triangle = TriangleMesh(
        np.eye(3, dtype=np.float32), np.array([[0, 1, 2]]), np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    )
    for suffix in ("ply", "glb"):
        mesh = trimesh.load(Generated("3d", triangle, "text").save(tmp_path / f"a.{suffix}"), force="mesh")
        np.testing.assert_allclose(np.sort(mesh.vertices, axis=0), np.sort(triangle.vertices, axis=0), atol=1e-6)
        assert len(mesh.faces) == 1
    assert Generated("text", "a dog", "text").save(tmp_path / "a.txt").read_text() == "a dog\n"


def test_file_names_say_what_is_wanted() -> None:
    assert [kind_of(name) for name in ("a.PNG", "b.wav", "c.gif", "d.glb", "e.txt")] == ["image", "audio", "video", "3d", "text"]
    with pytest.raises(OptionError, match=r"suffix \.xyz; known are text: \.txt; image: \.png"):
        kind_of("a.xyz")
    with pytest.raises(OptionError, match=r"the type must be .wav, .flac, found .png"):
        check_path("a.png", "audio")


@pytest.mark.network
@pytest.mark.gpu
def test_the_real_small_unclip_draws_its_own_embedding() -> None:
    """Needs the Hub (about 6 GB) and a CUDA device: a picture's own embedding gives a picture near it in CLIP."""
    decoder = load_decoder("unclip-l")
    reference, image = decoder.reference, Image(size=224)
    embed = lambda sample: reference.embed(image.transform(sample)[None])[0]  # noqa: E731
    first, other = (embed(image.example(seed)) for seed in (0, 1))
    drawn = embed(image.load(decoder.generate(Condition(embedding=first * decoder.norm / first.norm()))))
    assert F.cosine_similarity(drawn, first, dim=0) > 0.7
    assert decoder.norm == pytest.approx(float((first.norm() + other.norm()) / 2), rel=0.3)
