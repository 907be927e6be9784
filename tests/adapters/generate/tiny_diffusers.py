"""Tiny random diffusers pipelines, made in process: no downloads. Every weight is drawn anew, for fresh ones hide faults.

Each comes with a card: that of the real decoder, for a space of its own (`SPACE`, 32 values) and as few steps as show anything.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_card
from vitlens.space import EmbeddingSpace

DIM = 32
SPACE = EmbeddingSpace("tiny", DIM)
DDIM = {"clip_sample": False, "set_alpha_to_one": False}


def tiny_card(name: str, *, space: EmbeddingSpace = SPACE, **changes: Any) -> DecoderCard:
    """The card of a real decoder, small: its name, how it is driven, two steps."""
    card = decoder_card(name)
    changes = {"name": f"tiny-{name}", "repo": "", "adapter": {}, "parts": {}, **changes}
    defaults = {**card.defaults, "num_inference_steps": 2, **changes.pop("defaults", {})}
    return replace(card, space=space if card.space else None, defaults=defaults, **changes)


def redraw(pipeline: Any, seed: int = 0) -> Any:
    """Draw all matrices from N(0, 1 / fan-in), all vectors near 1 (weights) or 0 (biases); quiet, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in pipeline.components.values():
        if not isinstance(part, nn.Module):
            continue
        for name, weight in part.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.data = noise / weight[0].numel() ** 0.5
            else:
                weight.data = (1.0 if name.endswith("weight") else 0.0) + 0.15 * noise
        part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def letters_tokenizer() -> Any:
    """CLIP's tokenizer with the letters as its vocabulary."""
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>"] + [c + end for c in "abcdefghijklmnopqrstuvwxyz,." for end in ("", "</w>")]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def text_encoder(tokenizer: Any, kind: str = "CLIPTextModel") -> Any:
    """CLIP's text encoder, 32 wide."""
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=DIM,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def image_encoder(dim: int = DIM, kind: str = "CLIPVisionModelWithProjection") -> Any:
    """CLIP's image encoder for pictures of 32 pixels."""
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=32, projection_dim=dim, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        intermediate_size=37,
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


def _vae(channels: int = 3) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=8, in_channels=channels, out_channels=channels,
    )  # fmt: skip


def _unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    values: dict[str, Any] = {
        "sample_size": 8, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "block_out_channels": (16, 32),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": (2, 4), "cross_attention_dim": 32,
        "layers_per_block": 1, "norm_num_groups": 8,
    }  # fmt: skip
    return UNet2DConditionModel(**{**values, **changes})


def unclip(dim: int = DIM, *, text: bool = True, fitted: bool = True) -> Any:
    """Stable unCLIP, with or without its text encoder, its image normalizer fitted to something or as it is made."""
    from diffusers import DDIMScheduler, DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPImageProcessor

    tokenizer = letters_tokenizer() if text else None
    made = StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(crop_size={"height": 32, "width": 32}, size={"shortest_edge": 32}),
        image_encoder=image_encoder(dim),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=dim),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer,
        text_encoder=text_encoder(tokenizer) if text else None,
        unet=_unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * dim, use_linear_projection=True),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction", steps_offset=1, **DDIM),
        vae=_vae(),
    )
    redraw(made)
    made.image_normalizer.mean.data = torch.full((1, dim), 0.5) if fitted else torch.zeros(1, dim)
    made.image_normalizer.std.data = torch.full((1, dim), 2.0) if fitted else torch.ones(1, dim)
    return made


def kandinsky(dim: int = DIM) -> Any:
    """The decoder of Kandinsky 2.2."""
    from diffusers import DDIMScheduler, KandinskyV22Pipeline, VQModel

    unet = _unet(
        out_channels=8, addition_embed_type="image", down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=dim, encoder_hid_dim_type="image_proj", cross_attention_dim=dim, attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )  # fmt: skip
    movq = VQModel(
        block_out_channels=[32, 64], down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], latent_channels=4,
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"], norm_num_groups=8, norm_type="spatial", num_vq_embeddings=12,
        vq_embed_dim=4, layers_per_block=1,
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, **DDIM)
    return redraw(KandinskyV22Pipeline(unet=unet, movq=movq, scheduler=scheduler))


def stable_diffusion(*, adapter_dim: int | None = None) -> Any:
    """Stable Diffusion 1.5, with an IP-Adapter for embeddings of `adapter_dim` values."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    tokenizer = letters_tokenizer()
    made = StableDiffusionPipeline(
        vae=_vae(), text_encoder=text_encoder(tokenizer), tokenizer=tokenizer, unet=_unet(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", **DDIM), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    redraw(made)
    if adapter_dim is not None:
        made.unet._load_ip_adapter_weights([ip_adapter_weights(made.unet, adapter_dim)])
        made.register_modules(image_encoder=image_encoder(adapter_dim))
    return redraw(made)


def ip_adapter_weights(unet: Any, dim: int) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of an IP-Adapter with four tokens, in its own layout."""
    width = unet.config.cross_attention_dim
    attentions: dict[str, torch.Tensor] = {}
    for number, module in enumerate(m for name, m in unet.named_modules() if name.endswith("attn2")):
        for part in ("to_k_ip", "to_v_ip"):
            attentions[f"{2 * number + 1}.{part}.weight"] = torch.randn(module.inner_dim, width)
    project = {
        "proj.weight": torch.randn(4 * width, dim),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": project, "ip_adapter": attentions}


def audioldm2() -> Any:
    """AudioLDM2: CLAP, T5 and GPT-2 in front of it, a vocoder behind."""
    import transformers as tf
    from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, DDIMScheduler

    letters = "abcdefghijklmnopqrstuvwxyz,."
    roberta = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, **{c: 5 + i for i, c in enumerate(letters + "Ġ")}}
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(c, -2.0) for c in "▁" + letters]
    small = {"intermediate_size": 37, "projection_dim": 16}
    clap = tf.ClapConfig(
        text_config=tf.ClapTextConfig(
            vocab_size=50, hidden_size=8, num_attention_heads=1, num_hidden_layers=1, pad_token_id=1, max_position_embeddings=90,
            **small,
        ).to_dict(),
        audio_config=tf.ClapAudioConfig(
            spec_size=8, window_size=4, num_mel_bins=8, depths=[1, 1], num_attention_heads=[1, 1], hidden_size=192, patch_size=2,
            patch_stride=2, patch_embed_input_channels=4, num_hidden_layers=2, patch_embeds_hidden_size=8, **small,
        ).to_dict(),
        projection_dim=16,
    )  # fmt: skip
    gpt = tf.GPT2LMHeadModel(tf.GPT2Config(n_embd=16, n_head=2, n_layer=2, n_positions=99, vocab_size=100))
    gpt.config.max_new_tokens = 8
    vocoder = tf.SpeechT5HifiGanConfig(
        model_in_dim=8, sampling_rate=16000, upsample_initial_channel=16, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3, 5]] * 2, normalize_before=False,
    )  # fmt: skip
    unet = AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, sample_size=32, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(8, 16),
    )  # fmt: skip
    made = AudioLDM2Pipeline(
        unet=unet,
        vae=_vae(channels=1),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", **DDIM),
        text_encoder=tf.ClapModel(clap),
        text_encoder_2=tf.T5EncoderModel(tf.T5Config(vocab_size=60, d_model=32, d_ff=37, d_kv=8, num_heads=1, num_layers=1)),
        tokenizer=tf.RobertaTokenizer(vocab=roberta, merges=[], model_max_length=77),
        tokenizer_2=tf.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=77),
        feature_extractor=tf.ClapFeatureExtractor(feature_size=8, sampling_rate=16000),
        language_model=gpt,
        projection_model=AudioLDM2ProjectionModel(text_encoder_dim=16, text_encoder_1_dim=32, langauge_model_dim=16),
        vocoder=tf.SpeechT5HifiGan(vocoder),
    )
    return redraw(made)


def text_to_video() -> Any:
    """ModelScope's text to video."""
    from diffusers import DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel

    unet = UNet3DConditionModel(
        block_out_channels=(8, 8), layers_per_block=1, sample_size=8, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), cross_attention_dim=32, attention_head_dim=4, norm_num_groups=2,
    )  # fmt: skip
    tokenizer = letters_tokenizer()
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", **DDIM)
    parts = {"vae": _vae(), "text_encoder": text_encoder(tokenizer), "tokenizer": tokenizer, "unet": unet}
    return redraw(TextToVideoSDPipeline(**parts, scheduler=scheduler))


def shap_e(*, picture: bool = False) -> Any:
    """Shap-E from a text or from a picture, its mesh read from a coarse grid."""
    from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEImg2ImgPipeline, ShapEPipeline
    from diffusers.pipelines.shap_e import ShapERenderer
    from transformers import CLIPImageProcessor

    tokenizer = letters_tokenizer()
    shapes = ((8, 93), (8, 8), (8, 8), (8, 8))
    renderer = ShapERenderer(param_shapes=shapes, d_latent=8, d_hidden=8, n_output=12)
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, embedding_dim=8, num_embeddings=32,
        embedding_proj_dim=32 if picture else DIM, time_embed_dim=64, num_layers=1, clip_embed_dim=16, additional_embeddings=0,
        time_embed_act_fn="gelu", norm_in_type="layer", encoder_hid_proj_type=None, added_emb_type=None,
        embedding_proj_norm_type="layer" if picture else None,
    )  # fmt: skip
    scheduler = HeunDiscreteScheduler(
        beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True, clip_sample=True,
        clip_sample_range=1.0,
    )  # fmt: skip
    shared = {"prior": prior, "scheduler": scheduler, "shap_e_renderer": renderer}
    if picture:
        processor = CLIPImageProcessor(crop_size={"height": 32, "width": 32}, size={"shortest_edge": 32})
        made = ShapEImg2ImgPipeline(image_encoder=image_encoder(kind="CLIPVisionModel"), image_processor=processor, **shared)
    else:
        made = ShapEPipeline(text_encoder=text_encoder(tokenizer, "CLIPTextModelWithProjection"), tokenizer=tokenizer, **shared)
    redraw(made)
    renderer.mlp.mlp[-1].bias.data[0] = 0.3  # mostly inside: there is a surface
    _fill_marching_cubes(renderer.mesh_decoder)
    renderer.decode_to_mesh = partial(renderer.decode_to_mesh, grid_size=8)
    return made


def _fill_marching_cubes(decoder: Any) -> None:
    """A triangle over three of the edges that the surface crosses, for every way in which a cube's corners lie: Shap-E's own
    table comes with its weights, fresh ones have zeros."""
    sides = ((0, 0), (1, 0), (0, 1), (1, 1))
    corner = lambda x, y, z: x + 2 * y + 4 * z  # noqa: E731
    edges = [(corner(0, y, z), corner(1, y, z)) for y, z in sides]
    edges += [(corner(x, 0, z), corner(x, 1, z)) for x, z in sides]
    edges += [(corner(x, y, 0), corner(x, y, 1)) for x, y in sides]
    for case in range(1, 255):
        crossed = [number for number, (a, b) in enumerate(edges) if (case >> a & 1) != (case >> b & 1)]
        decoder.cases[case, 0] = torch.tensor(crossed[:3])
        decoder.masks[case, 0] = True
