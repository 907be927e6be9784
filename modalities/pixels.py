"""Pixels to tensors: crop, resize and normalise, for every sensor that looks like a picture; depth maps share the geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import PIL.ImageOps

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.modality import Modality

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vitlens.vit import ViT

MOST_SIZE = 4096
"""Pixels a side that a ViT's square input may have."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Statistics of the pictures OpenAI's CLIP was trained on (arXiv 2103.00020), for RGB in 0..1."""

TRAIN_AREA = (0.5, 1.0)
TRAIN_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Crop:
    """A part of a map, in pixels, and whether it is mirrored left to right; the same for every frame of a sample."""

    top: int
    left: int
    height: int
    width: int
    flip: bool

    @classmethod
    def draw(cls, height: int, width: int) -> Crop:
        """A random part: `TRAIN_AREA` of the area, sides in `TRAIN_RATIO`, mirrored half of the time (torch's generator)."""
        import torch

        area = TRAIN_AREA[0] + (TRAIN_AREA[1] - TRAIN_AREA[0]) * torch.rand(()).item()
        low, high = (math.log(r) for r in TRAIN_RATIO)
        ratio = math.exp(low + (high - low) * torch.rand(()).item())
        h = min(height, max(1, round(math.sqrt(area * height * width / ratio))))
        w = min(width, max(1, round(math.sqrt(area * height * width * ratio))))
        top, left, flip = torch.rand(3).tolist()
        return cls(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w, flip < 0.5)

    def of(self, x: Tensor) -> Tensor:
        """The part of `x [..., h, w]`."""
        x = x[..., self.top : self.top + self.height, self.left : self.left + self.width]
        return x.flip(-1) if self.flip else x


def crop_to_square(
    pixels: np.ndarray, size: int, interpolation: str, crop: Crop | None = None, *, squash: bool = False
) -> np.ndarray:
    """Resize uint8 `[h, w, 3]` with Pillow to a short side of `size` and cut the centre out; or resize `crop` to the square,
    or with `squash` the whole."""
    image, resample = PIL.Image.fromarray(pixels), PIL.Image.Resampling[interpolation.upper()]
    if crop is not None:
        box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        square = image.crop(box).resize((size, size), resample)
        return np.array(PIL.ImageOps.mirror(square) if crop.flip else square)
    if squash:
        return np.array(image.resize((size, size), resample))
    scaled = image.resize(_short_side(image.width, image.height, size), resample)
    left, top = (round((side - size) / 2.0) for side in scaled.size)
    return np.array(scaled.crop((left, top, left + size, top + size)))


def resize_map(x: Tensor, size: int | tuple[int, int], antialias: bool) -> Tensor:
    """Resize float maps `[..., c, h, w]` bicubically, to a short side of `size` or to `size` = (height, width)."""
    import torch.nn.functional as F

    if isinstance(size, int):
        width, height = _short_side(x.shape[-1], x.shape[-2], size)
        size = (height, width)
    if tuple(x.shape[-2:]) == size:
        return x
    batch = x.reshape(-1, *x.shape[-3:])
    return F.interpolate(batch, size=size, mode="bicubic", antialias=antialias).reshape(*x.shape[:-2], *size)


def centre_crop(x: Tensor, size: int) -> Tensor:
    """The central `[..., size, size]` of `x [..., h, w]`."""
    top, left = (round((side - size) / 2.0) for side in x.shape[-2:])
    return x[..., top : top + size, left : left + size]


def _short_side(width: int, height: int, size: int) -> tuple[int, int]:
    return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)


def check_patches(modality: str, size: int, vit: ViT) -> None:
    """Raises OptionError when maps of `size` are not cut into whole patches of `vit`, unless it is the ViT's own size."""
    if size % vit.patch_size and size != vit.image_size:
        raise OptionError(f"{modality}: size {size} is not a multiple of the ViT's patch size {vit.patch_size}")


def check_colours(modality: Modality) -> None:
    """Let the options `mean` and `std` of an RGB picture be tuples of three numbers, those of `std` above 0.

    Raises:
        OptionError: they are not.
    """
    for option in ("mean", "std"):
        object.__setattr__(modality, option, checks.numbers(f"{modality.name}: {option}", getattr(modality, option), 3))
    if min(std := modality.options()["std"]) <= 0:
        raise OptionError(f"{modality.name}: std must be above 0, found {std}")


@dataclass(frozen=True, kw_only=True)
class RGBModality(Modality):
    """What sensors with RGB pictures share: square input of `size` pixels, mean and std per channel, the ViT's own patches."""

    size: int = 224
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        checks.whole(f"{self.name}: size", self.size, least=1, most=MOST_SIZE)
        check_colours(self)

    def normalise(self, x: Tensor) -> Tensor:
        """RGB in 0..1, `[..., 3, h, w]`, less the mean, by the standard deviation."""
        import torch

        return (x - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """The ViT's own patch embedding: `[b, 3, h, w]` -> `[b, n, width]`.

        Raises:
            OptionError: `width` is not the ViT's, or `size` does not fit its patches.
        """
        if width != vit.width:
            raise OptionError(f"{self.name}: the ViT's own patches are {vit.width} wide, found a token width of {width}")
        check_patches(self.name, self.size, vit)
        return vit.patch_embedding()


@dataclass(frozen=True, kw_only=True)
class PillowModality(RGBModality):
    """RGB sensors resized as 8-bit pictures by Pillow (with antialiasing), as CLIP's own preprocessing does."""

    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    """"shortest": the short side to `size`, then the centre; "squash": all of the picture, whatever its shape, to the square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(f"{self.name}: resize_mode", self.resize_mode, ("shortest", "squash"))
        checks.one_of(f"{self.name}: interpolation", self.interpolation, ("nearest", "bilinear", "bicubic", "lanczos"))

    def to_tensor(self, pixels: np.ndarray, crop: Crop | None = None) -> Tensor:
        """Pixels uint8 `[h, w, 3]` -> normalised float32 `[3, size, size]`."""
        import torch

        square = crop_to_square(pixels, self.size, self.interpolation, crop, squash=self.resize_mode == "squash")
        return self.normalise(torch.from_numpy(square).permute(2, 0, 1).float() / 255)

    def steps(self) -> list[str]:
        how = f"({self.interpolation}, antialiased)"
        shortest = [
            f"resize the short side to {self.size} pixels {how}",
            f"cut out the central {self.size} x {self.size} pixels",
        ]
        return [
            *(shortest if self.resize_mode == "shortest" else [f"squash to {self.size} x {self.size} pixels {how}"]),
            f"scale to 0..1, subtract the mean {in_words(self.mean)}, divide by the standard deviation {in_words(self.std)}",
        ]


def in_words(values: tuple[float, ...]) -> str:
    """Numbers rounded for `steps`."""
    return "(" + ", ".join(f"{v:.3f}" for v in values) + ")"
