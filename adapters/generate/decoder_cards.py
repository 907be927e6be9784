"""Decoder cards: what generates from an embedding, a text or a picture; its space, its licence, the memory it needs.

None of these weights was run where this was written: licences and sizes are what the named sources say, memory is counted from
the configurations (parameters times two bytes, half precision, weights alone) unless a published figure is quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vitlens.cards import LAION_G
from vitlens.errors import OptionError
from vitlens.space import EmbeddingSpace

Kind = Literal["text", "image", "audio", "video", "3d"]
KINDS: tuple[Kind, ...] = ("text", "image", "audio", "video", "3d")

OPENAI_L = EmbeddingSpace("open_clip/ViT-L-14/openai", 768)
LAION_H = EmbeddingSpace("open_clip/ViT-H-14/laion2b_s32b_b79k", 1024)
HALF = "of weights in half precision, counted from the configurations"
MIXED = ("prompt_embeds", "negative_prompt_embeds")


@dataclass(frozen=True)
class DecoderCard:
    """What a user wants to know before choosing a decoder, and what it takes to drive it."""

    name: str
    output: Kind
    pipeline: str
    """Class in diffusers."""
    repo: str = ""
    """On the Hub; empty for a pipeline that is always given."""
    space: EmbeddingSpace | None = None
    """The space of the embeddings it takes; None: it takes none."""
    embedding: Literal["unclip", "kandinsky", "ip_adapter"] | None = None
    """How the pipeline takes an embedding."""
    text: Literal["alone", "beside"] | None = None
    """Whether it takes a text: by itself, only beside an embedding, or not at all."""
    picture: bool = False
    """It starts from a picture."""
    mixes: tuple[str, ...] = ()
    """What the pipeline's `encode_prompt` returns, by the names its call takes them back; empty: prompts are joined."""
    norm: float | None = None
    """Length of the embeddings it was trained on; None: measured, see `Decoder.norm`."""
    rate: int | None = None
    """Hertz of the sound, where the pipeline does not say."""
    fps: float | None = None
    """Frames a second of the video."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the pipeline's call."""
    half: Literal["float16", "bfloat16"] = "float16"
    """The half precision it is meant for."""
    licence: str = "unknown"
    licence_source: str = ""
    memory: str = "unknown"
    adapter: Mapping[str, str] = field(default_factory=dict)
    """Arguments of `load_ip_adapter`."""
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Parts that come from elsewhere: argument -> class in diffusers, repository."""
    image_encoder: str = ""
    """Where the CLIP image encoder of its space is, if not in the pipeline: repository/folder."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.output not in KINDS[1:]:
            raise OptionError(f"decoder {self.name}: output {self.output!r}, known are {', '.join(KINDS[1:])}")
        if (self.space is None) != (self.embedding is None):
            raise OptionError(f"decoder {self.name}: an embedding needs both, its space and how the pipeline takes it")
        if not (self.embedding or self.text == "alone" or self.picture):
            raise OptionError(f"decoder {self.name}: takes neither an embedding, nor a text by itself, nor a picture")


def _page(repo: str) -> str:
    return f"licence shown on the model page of {repo}"


def _ip_adapter(folder: str, file: str) -> dict[str, str]:
    return {"pretrained_model_name_or_path_or_dict": "h94/IP-Adapter", "subfolder": folder, "weight_name": file}


_CARDS = (
    DecoderCard(
        name="unclip-h",
        output="image",
        pipeline="StableUnCLIPImg2ImgPipeline",
        repo="stabilityai/stable-diffusion-2-1-unclip",
        space=LAION_H,
        embedding="unclip",
        text="beside",
        mixes=MIXED,
        defaults={"num_inference_steps": 20, "guidance_scale": 10.0, "noise_level": 0},
        licence="CreativeML Open RAIL++-M",
        licence_source=_page("stabilityai/stable-diffusion-2-1-unclip"),
        memory=f"3.9 GB {HALF} (1.93e9 parameters)",
        notes=("Takes the embeddings that SEED's image tokens decode to.",),
    ),
    DecoderCard(
        name="unclip-l",
        output="image",
        pipeline="StableUnCLIPImg2ImgPipeline",
        repo="stabilityai/stable-diffusion-2-1-unclip-small",
        space=OPENAI_L,
        embedding="unclip",
        text="beside",
        mixes=MIXED,
        defaults={"num_inference_steps": 20, "guidance_scale": 10.0, "noise_level": 0},
        licence="CreativeML Open RAIL++-M",
        licence_source=_page("stabilityai/stable-diffusion-2-1-unclip-small"),
        memory=f"3.2 GB {HALF} (1.60e9 parameters)",
        notes=("OpenAI's ViT-L/14: ViT-Lens-L (DataComp) has the same width and is another space.",),
    ),
    DecoderCard(
        name="kandinsky-2.2",
        output="image",
        pipeline="KandinskyV22Pipeline",
        repo="kandinsky-community/kandinsky-2-2-decoder",
        space=LAION_G,
        embedding="kandinsky",
        defaults={"num_inference_steps": 50, "guidance_scale": 4.0, "height": 512, "width": 512},
        licence="Apache-2.0",
        licence_source=_page("kandinsky-community/kandinsky-2-2-decoder"),
        memory=f"2.6 GB {HALF} and from the size of the UNet's file (1.32e9 parameters); 3.7 GB more with its image encoder",
        image_encoder="kandinsky-community/kandinsky-2-2-prior/image_encoder",
        notes=("Takes no text. Fits ViT-Lens-G directly, whose image tower then stands in for the image encoder.",),
    ),
    DecoderCard(
        name="ip-adapter-sd15",
        output="image",
        pipeline="StableDiffusionPipeline",
        repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
        space=LAION_H,
        embedding="ip_adapter",
        text="beside",
        mixes=MIXED,
        defaults={"num_inference_steps": 50, "guidance_scale": 7.5},
        licence="CreativeML OpenRAIL-M (Stable Diffusion 1.5), Apache-2.0 (IP-Adapter)",
        licence_source=f"{_page('h94/IP-Adapter')}; that of Stable Diffusion 1.5 was not confirmed on its present repository",
        memory=f"3.4 GB {HALF} (1.72e9 parameters), without the safety checker",
        adapter=_ip_adapter("models", "ip-adapter_sd15.bin"),
    ),
    DecoderCard(
        name="ip-adapter-sdxl",
        output="image",
        pipeline="StableDiffusionXLPipeline",
        repo="stabilityai/stable-diffusion-xl-base-1.0",
        space=LAION_G,
        embedding="ip_adapter",
        text="beside",
        mixes=("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
        defaults={"num_inference_steps": 50, "guidance_scale": 5.0},
        licence="CreativeML Open RAIL++-M (SDXL), Apache-2.0 (IP-Adapter)",
        licence_source=f"{_page('stabilityai/stable-diffusion-xl-base-1.0')} and of h94/IP-Adapter",
        memory=f"11.3 GB {HALF} and from the size of the adapter's file (5.67e9 parameters)",
        adapter=_ip_adapter("sdxl_models", "ip-adapter_sdxl.bin"),
        notes=("Fits ViT-Lens-G directly.",),
    ),
    DecoderCard(
        name="stable-diffusion-1.5",
        output="image",
        pipeline="StableDiffusionPipeline",
        repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
        text="alone",
        mixes=MIXED,
        defaults={"num_inference_steps": 50, "guidance_scale": 7.5},
        licence="CreativeML OpenRAIL-M",
        licence_source="not confirmed on its present repository",
        memory=f"2.1 GB {HALF} (1.07e9 parameters), without the safety checker",
    ),
    DecoderCard(
        name="sdxl",
        output="image",
        pipeline="StableDiffusionXLPipeline",
        repo="stabilityai/stable-diffusion-xl-base-1.0",
        text="alone",
        mixes=("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
        defaults={"num_inference_steps": 50, "guidance_scale": 5.0},
        licence="CreativeML Open RAIL++-M",
        licence_source=_page("stabilityai/stable-diffusion-xl-base-1.0"),
        memory=f"6.9 GB {HALF} (3.47e9 parameters)",
    ),
    DecoderCard(
        name="audioldm2",
        output="audio",
        pipeline="AudioLDM2Pipeline",
        repo="cvssp/audioldm2",
        text="alone",
        mixes=("prompt_embeds", "attention_mask", "generated_prompt_embeds"),
        rate=16000,
        defaults={"num_inference_steps": 200, "guidance_scale": 3.5, "audio_length_in_s": 10.0},
        licence="CC-BY-NC-SA-4.0: not for commercial use",
        licence_source=_page("cvssp/audioldm2"),
        memory="2.2 GB of weights in half precision (1.1e9 parameters, published in Hugging Face's blog post on AudioLDM 2)",
    ),
    DecoderCard(
        name="stable-audio-open",
        output="audio",
        pipeline="StableAudioPipeline",
        repo="stabilityai/stable-audio-open-1.0",
        text="alone",
        rate=44100,
        defaults={"num_inference_steps": 100, "guidance_scale": 7.0, "audio_end_in_s": 10.0},
        licence="Stability AI Community License, to be accepted on its page",
        licence_source=_page("stabilityai/stable-audio-open-1.0"),
        notes=("Stereo, up to 47 s.",),
    ),
    DecoderCard(
        name="animatediff-ip-adapter",
        output="video",
        pipeline="AnimateDiffPipeline",
        repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
        space=LAION_H,
        embedding="ip_adapter",
        text="beside",
        mixes=MIXED,
        fps=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 7.5, "num_frames": 16},
        licence="CreativeML OpenRAIL-M (Stable Diffusion 1.5), Apache-2.0 (IP-Adapter), motion adapter unknown",
        licence_source=f"{_page('h94/IP-Adapter')}; the other two were not confirmed",
        memory=f"4.4 GB {HALF} (2.17e9 parameters)",
        adapter=_ip_adapter("models", "ip-adapter_sd15.bin"),
        parts={"motion_adapter": ("MotionAdapter", "guoyww/animatediff-motion-adapter-v1-5-2")},
    ),
    DecoderCard(
        name="cogvideox-2b",
        output="video",
        pipeline="CogVideoXPipeline",
        repo="THUDM/CogVideoX-2b",
        text="alone",
        mixes=MIXED,
        fps=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 6.0, "num_frames": 49},
        licence="Apache-2.0",
        licence_source=_page("THUDM/CogVideoX-2b"),
        memory=f"13.3 GB {HALF} (6.67e9 parameters, 4.76e9 of them T5); the diffusers docs say about 19 GB to decode 49 frames "
        "untiled; much less with offload='model'",
    ),
    DecoderCard(
        name="ltx-video",
        output="video",
        pipeline="LTXPipeline",
        repo="Lightricks/LTX-Video",
        text="alone",
        fps=24,
        half="bfloat16",
        defaults={"num_inference_steps": 50, "guidance_scale": 3.0, "num_frames": 97, "height": 480, "width": 704},
        licence="its own (LTX Video licence files in the repository)",
        licence_source='"license: other" on the model page of Lightricks/LTX-Video; not read here',
        memory=f"13.4 GB {HALF}, its VAE not counted (6.69e9 parameters, 4.76e9 of them T5)",
    ),
    DecoderCard(
        name="modelscope",
        output="video",
        pipeline="TextToVideoSDPipeline",
        repo="ali-vilab/text-to-video-ms-1.7b",
        text="alone",
        mixes=MIXED,
        fps=8,
        defaults={"num_inference_steps": 50, "guidance_scale": 9.0, "num_frames": 16},
        licence="CC-BY-NC-4.0: not for commercial use",
        licence_source=_page("ali-vilab/text-to-video-ms-1.7b"),
        memory=f"3.7 GB {HALF} (1.84e9 parameters)",
        notes=("diffusers no longer maintains this pipeline (last supported: 0.33.1); it still runs in 0.42.",),
    ),
    DecoderCard(
        name="stable-video-diffusion",
        output="video",
        pipeline="StableVideoDiffusionPipeline",
        repo="stabilityai/stable-video-diffusion-img2vid",
        picture=True,
        fps=7,
        defaults={"num_inference_steps": 25, "height": 576, "width": 1024, "decode_chunk_size": 2},
        licence="Stable Video Diffusion community licence",
        licence_source=_page("stabilityai/stable-video-diffusion-img2vid"),
    ),
    DecoderCard(
        name="shap-e",
        output="3d",
        pipeline="ShapEPipeline",
        repo="openai/shap-e",
        text="alone",
        defaults={"num_inference_steps": 64, "guidance_scale": 15.0},
        licence="MIT",
        licence_source=_page("openai/shap-e"),
        memory="1.3 GB of weights in half precision (sizes of its files)",
    ),
    DecoderCard(
        name="shap-e-img2img",
        output="3d",
        pipeline="ShapEImg2ImgPipeline",
        repo="openai/shap-e-img2img",
        picture=True,
        defaults={"num_inference_steps": 64, "guidance_scale": 3.0},
        licence="MIT",
        licence_source="that of openai/shap-e; not confirmed for this repository",
        notes=("Takes the pixels of a picture, no embedding.",),
    ),
)

_REGISTRY: dict[str, DecoderCard] = {card.name: card for card in _CARDS}


def decoder_cards(output: str | None = None) -> list[DecoderCard]:
    """All cards, or those of one kind of output, in the order they are listed to users."""
    return [card for card in _REGISTRY.values() if output in (None, card.output)]


def decoder_card(name: str) -> DecoderCard:
    """The card of a decoder.

    Raises:
        OptionError: no decoder of that name.
    """
    if name not in _REGISTRY:
        raise OptionError(f"no decoder {name!r}; known are {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def register_decoder(card: DecoderCard) -> DecoderCard:
    """Make a card of your own known by its name.

    Raises:
        OptionError: another card has that name.
    """
    if _REGISTRY.get(card.name, card) != card:
        raise OptionError(f"decoder {card.name!r} is registered already, for {_REGISTRY[card.name].repo or 'a given pipeline'}")
    _REGISTRY[card.name] = card
    return card
