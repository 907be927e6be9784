"""The SEED-2 tokenizer: pictures, and whatever a lens turns into tokens of its ViT, to 32 codes; codes to an image embedding.

    quantizer = SeedQuantizer.from_pretrained("seed_quantizer.pt", vit="eva_vit_g.pth")
    codes = quantizer.encode_image(quantizer.preprocess(["cat.jpg"]))      # [1, 32]
    embedding = quantizer.decode(codes)                                    # [1, 1024], for Stable unCLIP 2.1

Written anew after arXiv 2310.01218; the state-dict keys are the published ones, with either of the two published heads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from vitlens.adapters.seed.modules import Block, EvaViT, QFormer
from vitlens.adapters.seed.weights import heads_of, sizes_of, with_vit, without
from vitlens.adapters.splice import HostTower, LensTokens
from vitlens.checkpoint import fill_model
from vitlens.checks import one_of
from vitlens.embed import PatchEmbed
from vitlens.errors import HostError, InputError, OptionError
from vitlens.hub import HubFile, hub_file
from vitlens.modalities.image import Image
from vitlens.sources import name_of
from vitlens.space import EmbeddingSpace
from vitlens.vit import FrozenViT
from vitlens.weights_files import read_state_dict

Head = Literal["image_down", "reverse_qformer"]
SeedFuse = Literal["qformer", "vit"]

SPACE = "open_clip/ViT-H-14/laion2b_s32b_b79k"
"""The space `decode` was trained to reach: image embeddings of laion's CLIP ViT-H-14, not normalised."""
FILE = "seed_quantizer.pt"
"""Name of the weights file in the published repositories."""


class SeedQuantizer(nn.Module):
    """Pictures [b, 3, s, s] -> codes [b, 32] -> image embeddings [b, 1024]; the sizes are those of the published tokenizer.

    `head` says how codes become the embedding: "image_down" narrows and joins all positions, "reverse_qformer" asks with one
    more query. Frozen at birth: nothing of it trains.

    Raises:
        OptionError: an unknown head, or widths that their numbers of heads do not divide.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 14,
        vit_width: int = 1408,
        vit_depth: int = 39,
        vit_heads: int = 16,
        vit_mlp: int = 6144,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        intermediate: int = 3072,
        cross_every: int = 2,
        queries: int = 32,
        codes: int = 8192,
        code_width: int = 32,
        decode_depth: int = 4,
        decode_heads: int = 12,
        embed_dim: int = 1024,
        head: Head = "image_down",
        text_positions: int = 512,
    ) -> None:
        super().__init__()
        one_of("SEED tokenizer: head", head, get_args(Head))
        for what, width, count in (("ViT", vit_width, vit_heads), ("Q-Former", hidden, heads), ("decoder", hidden, decode_heads)):
            if count < 1 or width % count:
                raise OptionError(f"SEED tokenizer: the {what}'s width {width} is not divisible by {count} heads")
        self.image_size, self.patch_size, self.head = image_size, patch_size, head
        self.visual_encoder = EvaViT(
            image_size=image_size, patch_size=patch_size, width=vit_width, depth=vit_depth, heads=vit_heads, mlp=vit_mlp
        )
        self.ln_vision = nn.LayerNorm(vit_width)
        common = {"hidden": hidden, "layers": layers, "heads": heads, "intermediate": intermediate, "positions": text_positions}
        # The published Q-Former is causal when there are 32 queries and not otherwise.
        self.Qformer = QFormer(context=vit_width, cross_every=cross_every, causal=queries == 32, **common)
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, hidden))
        self.encode_task_layer = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, code_width))
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(codes, code_width)})
        self.decode_task_layer = nn.Sequential(nn.Linear(code_width, code_width), nn.Tanh(), nn.Linear(code_width, hidden))
        # `pos_embed` and `blocks` gave the Q-Former's output back in training; the files hold them, nothing here calls them.
        for name in ("", "_image"):
            self.register_parameter(f"pos_embed{name}", nn.Parameter(torch.zeros(1, queries, hidden)))
            blocks = nn.ModuleList(Block(hidden, decode_heads, 4 * hidden, key_bias=True) for _ in range(decode_depth))
            self.add_module(f"blocks{name}", blocks)
        if head == "image_down":
            steps = ((hidden, 256), (256, 128), (128, 32))
            down = [layer for a, b in steps for layer in (nn.Linear(a, b, bias=False), nn.ReLU())]
            self.image_down = nn.Sequential(*down[:-1])
            self.distill_image_proj = nn.Linear(queries * 32, embed_dim)
        else:
            self.Reverse_Qformer = QFormer(context=hidden, cross_every=cross_every, causal=False, **common)
            self.reverse_tokens = nn.Parameter(torch.zeros(1, 1, hidden))
            self.distill_image_proj = nn.Linear(hidden, embed_dim)
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        vit: str | os.PathLike[str] | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> SeedQuantizer:
        """Load a weights file, a folder with `seed_quantizer.pt`, or a Hub repository ("AILab-CVC/seed-tokenizer-2").

        `vit` is the file of EVA-g's weights where `source` has none of its own: the published one is said to hold all but the
        ViT. `options` are those of `from_state_dict`.

        Raises:
            InputError, CheckpointError: as `read_state_dict` and `from_state_dict`.
            ModelError: a Hub repository that cannot be reached.
        """
        path = _file_of(source)
        state = read_state_dict(path)
        if vit is not None:
            state = with_vit(state, read_state_dict(vit), source=str(path), vit_source=os.fspath(vit))
        return cls.from_state_dict(state, source=str(path), dtype=dtype, **options)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Tensor],
        *,
        source: str = "<state dict>",
        dtype: torch.dtype = torch.float32,
        vit_heads: int | None = None,
        heads: int | None = None,
        decode_heads: int = 12,
        leave_out: Sequence[str] = (),
    ) -> SeedQuantizer:
        """Build the tokenizer whose sizes and head the state dict shows, and fill it, every key used.

        Numbers of heads do not show; by default they are 88 (ViT) and 64 channels wide as published. Keys of the Q-Formers' text
        branch are passed over; those that start with a prefix in `leave_out` too.

        Raises:
            CheckpointError: keys that are missing, left over or of another shape, each named; no ViT or no head among them.
            OptionError: a prefix in `leave_out` that no key has; numbers of heads that do not fit.
        """
        state = without(state, leave_out, source)
        sizes = sizes_of(state, source)
        sizes["vit_heads"] = vit_heads or heads_of("vit_heads", sizes["vit_width"], 88)
        sizes["heads"] = heads or heads_of("heads", sizes["hidden"], 64)
        with torch.device("meta"):
            model = cls(**sizes, decode_heads=decode_heads)
        for name in ("Qformer", "Reverse_Qformer"):  # files saved by newer transformers leave this buffer out
            if hasattr(model, name):
                key = f"{name}.bert.embeddings.position_ids"
                state.setdefault(key, torch.arange(sizes["text_positions"]).unsqueeze(0))
        fill_model(model, state, source=source, dtype=dtype)
        return model

    @property
    def space(self) -> EmbeddingSpace:
        """The space of `decode`'s embeddings."""
        return EmbeddingSpace(SPACE, self.distill_image_proj.out_features)

    @property
    def codes(self) -> int:
        """Number of codes in the codebook."""
        return self._codebook.num_embeddings

    @property
    def queries(self) -> int:
        """Number of codes per picture."""
        return self.query_tokens.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.query_tokens.device

    @property
    def _codebook(self) -> nn.Embedding:
        return cast(nn.Embedding, self.quantize["embedding"])

    def vit(self) -> FrozenViT:
        """The tokenizer's ViT as a FrozenViT that shares its tensors; `ln_vision` is the norm after its blocks."""
        tower, convolution = self.visual_encoder, self.visual_encoder.convolution
        width = convolution.out_channels
        with torch.device("meta"):
            patch = PatchEmbed(channels=3, width=width, patch=self.patch_size, bias=True)
        patch.conv1 = convolution
        return FrozenViT(
            blocks=tower.blocks,
            width=width,
            head_width=width // cast(Block, tower.blocks[0]).attn.heads,
            patch_size=self.patch_size,
            image_size=self.image_size,
            class_token=tower.cls_token,
            positions=tower.pos_embed,
            norm_post=self.ln_vision,
            patch=patch,
        )

    def tower(self, *, positions: Literal["strict", "interpolate"] = "strict") -> HostTower:
        """The place where lenses are spliced in."""
        return HostTower(lambda: self, as_vit=SeedQuantizer.vit, name="the SEED tokenizer", positions=positions)

    def preprocess(self, items: Iterable[Any], read_options: Mapping[str, Any] | None = None) -> Tensor:
        """Pictures -> [b, 3, s, s]: resized to the square whatever their shape (bicubic), normalised with CLIP's mean and std.

        Raises:
            InputError: an item that is no picture.
        """
        image = Image(size=self.image_size)
        side = (self.image_size, self.image_size)
        squares = []
        for item in items:
            picture = PIL.Image.fromarray(image.load(item, **(read_options or {})).data)
            pixels = torch.from_numpy(np.array(picture.resize(side, PIL.Image.Resampling.BICUBIC)))
            squares.append(image.normalise(pixels.permute(2, 0, 1).float() / 255))
        return torch.stack(squares) if squares else torch.empty(0, 3, *side)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Preprocessed pictures [b, 3, s, s] -> codes [b, 32], int64.

        Raises:
            InputError: another shape.
        """
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, self.image_size, self.image_size):
            raise InputError(
                name_of(pixels),
                f"a batch of shape {list(pixels.shape)}",
                f"pixels [b, 3, {self.image_size}, {self.image_size}], as preprocess() gives them",
            )
        return self.encode_hidden(self.visual_encoder(pixels.to(self.device, self.query_tokens.dtype)))

    @torch.no_grad()
    def encode_hidden(self, hidden: Tensor) -> Tensor:
        """Hidden states of the ViT's last block [b, n, D], before any norm -> codes [b, 32], int64.

        Raises:
            HostError: another width than the ViT's.
        """
        width = self.ln_vision.normalized_shape[0]
        if hidden.ndim != 3 or hidden.shape[-1] != width:
            raise HostError(f"the SEED tokenizer: hidden states [b, n, {width}] are needed, found {list(hidden.shape)}")
        states = self.ln_vision(hidden.to(self.device, self.query_tokens.dtype))
        queries = self.Qformer(self.query_tokens.expand(len(states), -1, -1), states)
        return self.nearest(self.encode_task_layer(queries))

    def nearest(self, vectors: Tensor) -> Tensor:
        """[b, q, c] -> the codes [b, q] of the nearest codebook entries, in float32 whatever the weights are."""
        table, x = self._codebook.weight.float(), vectors.float()
        return (table.square().sum(dim=-1) - 2 * (x @ table.T)).argmin(dim=-1)

    @torch.no_grad()
    def encode_streams(
        self,
        streams: Mapping[str, Tensor | LensTokens],
        *,
        fuse: SeedFuse = "qformer",
        positions: Literal["strict", "interpolate"] = "strict",
    ) -> Tensor:
        """Lens tokens [b, m, D] of one or several sensors that see the same thing -> codes [b, 32].

        Several streams are joined before the Q-Former (a pass through the ViT each) or before the ViT (one pass), in the order
        of the mapping.

        Raises:
            HostError: no streams, batches of different sizes, tokens that the ViT cannot take.
            OptionError: an unknown `fuse`.
        """
        one_of("SEED tokenizer: fuse", fuse, get_args(SeedFuse))
        tokens = {name: x if isinstance(x, LensTokens) else LensTokens(x) for name, x in streams.items()}
        sizes = {name: len(t.x) for name, t in tokens.items()}
        if len(set(sizes.values())) != 1:
            raise HostError(f"the SEED tokenizer: streams with as many items as each other are needed, found {sizes or 'none'}")
        tower = self.tower(positions=positions)
        if fuse == "vit":
            return self.encode_hidden(tower.hidden_together(list(tokens.values())))
        return self.encode_hidden(torch.cat([tower.hidden(t) for t in tokens.values()], dim=1))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [b, 32] -> image embeddings [b, 1024] of `space`, not normalised.

        Raises:
            InputError: another shape or type, or a code outside the codebook.
        """
        x = self.decode_task_layer(self._codebook(self.checked(codes)))
        x = x + self.pos_embed_image
        for block in cast(nn.ModuleList, self.blocks_image):
            x = block(x)
        if self.head == "image_down":
            return self.distill_image_proj(self.image_down(x).flatten(1))
        return self.distill_image_proj(self.Reverse_Qformer(self.reverse_tokens.expand(len(x), -1, -1), x)[:, 0])

    def checked(self, codes: Tensor) -> Tensor:
        """`codes` on this device, if they are codes [b, 32].

        Raises:
            InputError: another shape or type, or a code outside the codebook.
        """
        accepted = f"whole numbers [b, {self.queries}] from 0 to {self.codes - 1}"
        if codes.ndim != 2 or codes.shape[1] != self.queries or codes.dtype.is_floating_point or codes.dtype == torch.bool:
            raise InputError(name_of(codes), f"codes of shape {list(codes.shape)} and type {codes.dtype}", accepted)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codes:
            raise InputError(name_of(codes), f"codes from {int(codes.min())} to {int(codes.max())}", accepted)
        return codes.to(self.device, torch.int64)


def _file_of(source: str | os.PathLike[str]) -> Path:
    path = Path(source)
    if path.is_dir():
        return path / FILE
    name = os.fspath(source)
    if path.suffix or name.count("/") != 1 or path.exists():
        return path
    wanted = HubFile(name, (FILE,))
    return hub_file(
        wanted, f"{name} is neither a file nor a folder here", f"Download {wanted} where there is network, and give the file"
    )
