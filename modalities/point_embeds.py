"""The two point cloud ModEmbeds of ViT-Lens-2 (arXiv 2311.16081): Point-BERT's groups for ViT-L, OpenShape's balls for ViT-bigG.

Parameter names are those of the released weights (what follows `visual_adapter.`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitlens.embed import ModEmbed
from vitlens.modalities.point_sampling import ball_query, farthest_point_sample, gather_points, knn_groups


class PointEmbed(ModEmbed):
    """Base of both: clouds `[b, n, channels]` of any number of points, the same for a batch."""

    input_ndim = 3
    any_length = 1

    def onnx_operators(self) -> Mapping[Any, Callable[..., Any]]:
        """Farthest point sampling as one loop."""
        from vitlens.modalities.point_onnx import farthest_point_sample

        return {torch.ops.vitlens.farthest_point_sample.default: farthest_point_sample}


class PointBertEmbed(PointEmbed):
    """Clouds `[b, n, channels]` (xyz first) -> tokens `[b, groups, width]`: a small PointNet over groups of neighbours.

    Groups are the `group_size` nearest neighbours of points chosen by farthest point sampling from the first, relative to
    that centre; positions come from the centres (Point-BERT, arXiv 2111.14819). Coordinates stay float32 until they are grouped.
    """

    def __init__(
        self, *, width: int = 384, encoder_width: int = 256, groups: int = 512, group_size: int = 32, channels: int = 3
    ) -> None:
        super().__init__()
        self.groups, self.group_size = groups, group_size
        self.encoder = MiniPointNet(channels, encoder_width)
        self.reduce_dim = nn.Linear(encoder_width, width)
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.float()
        xyz = x[..., :3].contiguous()
        centres = gather_points(xyz, farthest_point_sample(xyz, self.groups))
        grouped = gather_points(x, knn_groups(xyz, centres, self.group_size))
        grouped = torch.cat([grouped[..., :3] - centres[:, :, None], grouped[..., 3:]], dim=-1)
        dtype = self.reduce_dim.weight.dtype
        return self.reduce_dim(self.encoder(grouped.to(dtype))), self.pos_embed(centres.to(dtype))


class MiniPointNet(nn.Module):
    """Groups `[b, g, k, channels]` -> features `[b, g, width]`: two shared perceptrons, each followed by the maximum over k."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(nn.Conv1d(channels, 128, 1), nn.BatchNorm1d(128), nn.ReLU(), nn.Conv1d(128, 256, 1))
        self.second_conv = nn.Sequential(nn.Conv1d(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(), nn.Conv1d(512, width, 1))

    def forward(self, groups: Tensor) -> Tensor:
        size = groups.shape[1:3]
        local = self.first_conv(groups.flatten(1, 2).mT).unflatten(2, size)
        whole = local.amax(dim=3, keepdim=True).expand_as(local)
        return self.second_conv(torch.cat([whole, local], dim=1).flatten(2)).unflatten(2, size).amax(dim=3).mT


class PointNetEmbed(PointEmbed):
    """Clouds `[b, n, channels]` (xyz first) -> tokens `[b, groups, width]`: one PointNet++ set abstraction, then a projection.

    Each token sees the first `group_size` points within `radius` of its centre; no positions are added, the centre's coordinates
    are part of the features (OpenShape, arXiv 2305.10764). Coordinates stay float32 until they are grouped.
    """

    def __init__(
        self,
        *,
        width: int = 256,
        encoder_width: int = 256,
        groups: int = 512,
        group_size: int = 64,
        radius: float = 0.2,
        channels: int = 6,
    ) -> None:
        super().__init__()
        self.groups, self.group_size, self.radius = groups, group_size, radius
        self.sa = SetAbstraction(3 + channels, (64, 64, encoder_width))
        self.lift = nn.Sequential(nn.Conv1d(3 + encoder_width, width, 1), Transpose(), nn.LayerNorm(width))

    def split(self, x: Tensor) -> tuple[Tensor, None]:
        x = x.float()
        xyz = x[..., :3].contiguous()
        centres = gather_points(xyz, farthest_point_sample(xyz, self.groups))
        grouped = gather_points(x, ball_query(xyz, centres, self.radius, self.group_size))
        grouped = torch.cat([grouped[..., :3] - centres[:, :, None], grouped], dim=-1)
        features = self.sa(grouped.to(next(self.parameters()).dtype))
        return self.lift(torch.cat([centres.mT.to(features.dtype), features], dim=1)), None


class SetAbstraction(nn.Module):
    """Groups `[b, g, k, channels]` -> features `[b, width, g]`: a shared perceptron, then the maximum over k (PointNet++)."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.mlp_convs = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip((channels, *widths), widths, strict=False))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b) for b in widths)

    def forward(self, groups: Tensor) -> Tensor:
        x = groups.permute(0, 3, 1, 2)
        for conv, norm in zip(self.mlp_convs, self.mlp_bns, strict=True):
            x = torch.relu(norm(conv(x)))
        return x.amax(dim=-1)


class Transpose(nn.Module):
    """[b, c, n] -> [b, n, c]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT
