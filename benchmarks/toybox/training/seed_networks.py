"""The Toybox's SEED: a tiny SEED-2 tokenizer around the ViT of its CLIP, and a tiny LLaMA over words and codes.

Both have the layout that `vitlens.adapters.seed` opens, and run in its `SeedLlamaAdapter` as it is. They learn from pictures and
captions alone: first the tokenizer (`seed_quantizer_task.py`), then the LLaMA (`seed_language_task.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vitlens.adapters.seed.grammar import add_image_tokens
from vitlens.adapters.seed.modules import Block, EvaViT
from vitlens.adapters.seed.quantizer import SeedQuantizer
from vitlens.adapters.splice import HostTower
from vitlens.benchmarks.toybox.training.clip import MEAN, STD
from vitlens.benchmarks.toybox.training.host import SPECIAL, spoken_words, word_tokenizer
from vitlens.benchmarks.toybox.training.huggingface import vision_numbers
from vitlens.benchmarks.toybox.training.picture_task import pacing
from vitlens.checkpoint import save_tensors
from vitlens.encoder import LensEncoder
from vitlens.modalities.image import Image
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.train.options import RunOptions
from vitlens.vit import FrozenViT

TEMPLATE = "vicuna"
"""The prompts that the LLaMA is taught: those of SEED-LLaMA-8B."""
QUANTIZER = "quantizer.safetensors"
HEADS = 4
"""Of every attention but the ViT's own."""
EPS = 1e-5
"""Of CLIP's norms; EVA's have 1e-6."""
_EYE = "visual_encoder."
_PARTS = {"norm1": "ln_1", "norm2": "ln_2", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_BLOCK = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in _PARTS.items() for kind in ("weight", "bias")}
_BLOCK |= {f"attn.qkv.{kind}": f"attn.in_proj_{kind}" for kind in ("weight", "bias")}
"""SEED's names inside a block -> open_clip's."""


def composing(epochs: int = 16) -> RunOptions:
    """How fast the tiny LLaMA learns."""
    return pacing(epochs, 64, lr=2e-3, weight_decay=0.05, precision="fp32")


@dataclass(frozen=True)
class SeedRecipe:
    """Numbers of the tiny SEED and of its trainings, each with its own pace."""

    quantizer: RunOptions = field(default_factory=lambda: pacing(8, 128, lr=2e-3, weight_decay=0.01, precision="fp32"))
    language: RunOptions = field(default_factory=composing)
    queries: int = 16
    """Codes of a picture."""
    codes: int = 512
    code_width: int = 16
    hidden: int = 96
    """Width of the tokenizer's Q-Former and decoder."""
    layers: int = 2
    width: int = 160
    """Of the LLaMA."""
    language_layers: int = 4
    captions: float = 0.2
    """Weight of the contrast between what codes decode to and the captions."""
    known: int = 2000
    """Training objects that can be looked up."""
    neighbours: int = 2
    """Of them that stand before a prompt."""
    looked_up: float = 0.25
    """Share of the LLaMA's batches whose prompts have neighbours before them."""
    seed: int = 0


class ClipEye(EvaViT):
    """SEED's ViT with what CLIP's has and EVA's lacks: a norm before the blocks, and biases of keys."""

    def __init__(self, *, width: int, depth: int, heads: int, mlp: int, **geometry: Any) -> None:
        super().__init__(width=width, depth=0, heads=heads, mlp=mlp, **geometry)
        self.norm_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads, mlp, key_bias=True) for _ in range(depth))
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = EPS

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.convolution(pixels).flatten(2).transpose(1, 2)
        x = self.norm_pre(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return x


class ClipQuantizer(SeedQuantizer):
    """SEED's tokenizer around a CLIP's ViT; its codes decode to image embeddings of that CLIP."""

    visual_encoder: ClipEye
    clip_space: EmbeddingSpace

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        names = {"width": "vit_width", "depth": "vit_depth", "heads": "vit_heads", "mlp": "vit_mlp"}
        vit = {name: sizes[ours] for name, ours in names.items()}
        self.visual_encoder = ClipEye(image_size=self.image_size, patch_size=self.patch_size, **vit)
        self.eval().requires_grad_(False)

    @property
    def space(self) -> EmbeddingSpace:
        return self.clip_space

    def vit(self) -> FrozenViT:
        found = super().vit()
        found.norm_pre = self.visual_encoder.norm_pre
        return found

    def tower(self, *, positions: Literal["strict", "interpolate"] = "strict") -> HostTower:
        return HostTower(lambda: self, as_vit=ClipQuantizer.vit, name="the Toybox's SEED tokenizer", positions=positions)

    def learned(self) -> list[nn.Parameter]:
        """What a training changes: all but the ViT, and the blocks that no published tokenizer uses either."""
        idle = (_EYE, "pos_embed", "blocks.")
        return [p for name, p in self.named_parameters() if not name.startswith(idle) or name == "pos_embed_image"]

    def vectors(self, hidden: Tensor) -> Tensor:
        """`encode_hidden` with gradients, before the nearest codes are looked up: [b, n, D] -> [b, q, c]."""
        states = self.ln_vision(hidden)
        return self.encode_task_layer(self.Qformer(self.query_tokens.expand(len(states), -1, -1), states))

    def embedding(self, vectors: Tensor) -> Tensor:
        """`decode` with gradients, behind the codebook: [b, q, c] -> [b, E]."""
        x = self.decode_task_layer(vectors) + self.pos_embed_image
        for block in cast(nn.ModuleList, self.blocks_image):
            x = block(x)
        return self.distill_image_proj(self.image_down(x).flatten(1))


def build_quantizer(recipe: SeedRecipe, model: ViTLens) -> ClipQuantizer:
    """The tokenizer around the image tower of `model`, all but the tower with new random weights."""
    numbers = vision_numbers(seed_vit(model))
    sizes = {
        "image_size": numbers["image_size"],
        "patch_size": numbers["patch_size"],
        "vit_width": numbers["hidden_size"],
        "vit_depth": numbers["num_hidden_layers"],
        "vit_heads": numbers["num_attention_heads"],
        "vit_mlp": numbers["intermediate_size"],
    }
    torch.manual_seed(recipe.seed)
    found = ClipQuantizer(
        **sizes,
        hidden=recipe.hidden,
        layers=recipe.layers,
        heads=HEADS,
        intermediate=2 * recipe.hidden,
        cross_every=1,
        queries=recipe.queries,
        codes=recipe.codes,
        code_width=recipe.code_width,
        decode_depth=1,
        decode_heads=HEADS,
        embed_dim=model.space.dim,
        text_positions=recipe.queries,
    )
    nn.init.normal_(found.query_tokens)
    nn.init.normal_(cast(nn.Parameter, found.pos_embed_image), std=0.02)
    found.ln_vision.load_state_dict(seed_vit(model).norm_post.state_dict())
    for part in (found.pos_embed, *cast(nn.Module, found.blocks).parameters()):  # in no use
        nn.init.zeros_(cast(nn.Parameter, part))
    found.visual_encoder.load_state_dict({key.removeprefix(_EYE): value for key, value in eye_state(model).items()})
    found.clip_space = model.space
    return found


def build_language(recipe: SeedRecipe) -> tuple[Any, Any]:
    """A LLaMA over words and codes with new random weights, and its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = seed_tokenizer(recipe.codes)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=recipe.width,
        intermediate_size=2 * recipe.width,
        num_hidden_layers=recipe.language_layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(config), words


def seed_tokenizer(codes: int) -> Any:
    """Whole words of questions, answers and instructions, then the image tokens."""
    from transformers import PreTrainedTokenizerFast

    from vitlens.benchmarks.toybox.training.seed_tasks import WORDS

    plain = word_tokenizer([*SPECIAL.values(), *sorted(spoken_words(*WORDS))], unknown="<unk>", template="<s> $A")
    found = PreTrainedTokenizerFast(tokenizer_object=plain, **SPECIAL, padding_side="left", truncation_side="left")
    add_image_tokens(found, codes=codes)
    return found


def save_seed(folder: str | os.PathLike[str], quantizer: ClipQuantizer, language: Any, tokenizer: Any) -> Path:
    """Write both in float16, and the tokenizer, to `folder`; the ViT is left out, it is the Toybox model's."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    state = {key: value.half() for key, value in quantizer.state_dict().items() if value.is_floating_point()}
    state = {key: value for key, value in state.items() if not key.startswith(_EYE)}
    save_tensors(home / QUANTIZER, state)
    tokenizer.save_pretrained(home)
    language.half().save_pretrained(home)  # last: with its configuration the folder is whole
    language.float()
    return home


def load_quantizer(folder: str | os.PathLike[str], model: ViTLens) -> ClipQuantizer:
    """The tokenizer from `folder`, with the image tower of `model` as its ViT.

    Raises:
        InputError, CheckpointError: as `SeedQuantizer.from_state_dict`.
    """
    from safetensors.torch import load_file

    path = Path(folder) / QUANTIZER
    state = {key: value.float() for key, value in load_file(path).items()} | eye_state(model)
    vit_heads = vision_numbers(seed_vit(model))["num_attention_heads"]
    found = ClipQuantizer.from_state_dict(state, source=str(path), heads=HEADS, decode_heads=HEADS, vit_heads=vit_heads)
    assert isinstance(found, ClipQuantizer)
    found.clip_space = model.space
    return found


def eye_state(model: ViTLens) -> dict[str, Tensor]:
    """The image tower of `model` under SEED's names.

    Its patch convolution is made to take pictures in the normalisation of SEED's tokenizer, whatever the tower's own is.
    """
    tower, vit = cast(LensEncoder, model.tower("image")), seed_vit(model)
    seed = Image()
    weight = cast(Any, tower.embed).conv1.weight.detach().cpu()
    theirs, ours = (torch.tensor(values).view(1, 3, 1, 1) for values in (seed.options()["std"], STD))
    shift = (torch.tensor(seed.options()["mean"]) - torch.tensor(MEAN)).view(1, 3, 1, 1) / ours
    state: dict[str, Tensor] = {
        "cls_token": cast(Tensor, vit.class_token).view(1, 1, -1),
        "pos_embed": cast(Tensor, vit.positions).unsqueeze(0),
        "patch_embed.proj.weight": weight * theirs / ours,
        "patch_embed.proj.bias": (weight * shift).sum(dim=(1, 2, 3)),
        **{f"norm_pre.{name}": value for name, value in vit.norm_pre.state_dict().items()},
    }
    for index, block in enumerate(vit.blocks):
        for name, theirs_name in _BLOCK.items():
            state[f"blocks.{index}.{name}"] = block.get_parameter(theirs_name)
    return {f"{_EYE}{name}": value.detach().float().cpu() for name, value in state.items()}


def seed_vit(model: ViTLens) -> FrozenViT:
    """The ViT of the image tower."""
    return cast(FrozenViT, cast(LensEncoder, model.tower("image")).vit)
