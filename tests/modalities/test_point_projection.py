"""Scans drawn as pictures: what is seen is where and as light as it should be; a frozen ViT sees what it sees of the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vitlens
from tests.train.tiny import tiny_clip
from vitlens.errors import OptionError
from vitlens.modalities.point_cloud import PointCloud
from vitlens.modalities.point_projection import AMBIENT, BACKGROUND, DIFFUSE, ELEVATION, EXTENT, LIGHT, ProjectionEmbed
from vitlens.train.start import see_as_picture

RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)


def made(size: int = 64, points: int = 4096, up: int = 1) -> ProjectionEmbed:
    torch.manual_seed(0)
    return ProjectionEmbed(width=8, size=size, patch=8, points=points, mean=(0.5,) * 3, std=(0.25,) * 3, up=up).eval()


def square(side: float, *, near: float = 0.0, colour: tuple[float, ...] = RED, at: tuple[float, float] = (0, 0)) -> Tensor:
    """A square [n, 6] that faces the camera, its middle `at` right and up of the picture's, `near` nearer than it."""
    along = torch.linspace(-side / 2, side / 2, 64)
    right, up = (values.flatten() for values in torch.meshgrid(along + at[0], along + at[1], indexing="xy"))
    y, z = up * np.cos(ELEVATION) + near * np.sin(ELEVATION), near * np.cos(ELEVATION) - up * np.sin(ELEVATION)
    return torch.cat([torch.stack([right, y, z], 1).float(), torch.tensor(colour).expand(len(right), 3)], dim=1)


def drawn(*parts: Tensor, **options: Any) -> np.ndarray:
    """The picture [size, size, 3] of clouds laid together."""
    return made(**options).picture(torch.cat(parts)[None])[0].permute(1, 2, 0).numpy()


def test_a_surface_that_faces_the_camera_is_where_it_is_and_lit_by_the_lamp() -> None:
    picture = drawn(square(0.6, at=(0.5, 0.4)))
    seen = np.abs(picture - BACKGROUND).max(axis=2) > 0.01
    rows, columns = np.nonzero(seen)
    pixel = 2 * EXTENT / 64
    for found, want in zip((columns.mean(), rows.mean()), (0.5, -0.4), strict=True):
        assert abs((found + 0.5) * pixel - EXTENT - want) < pixel / 2
    assert abs(np.sqrt(seen.sum()) * pixel - 0.6) < 1.5 * pixel, "the outline is not widened"
    middle = picture[int(rows.mean()), int(columns.mean())]
    np.testing.assert_allclose(middle, np.array(RED) * (AMBIENT + DIFFUSE * LIGHT[2] / np.linalg.norm(LIGHT)), atol=0.01)


def test_the_nearest_surface_is_seen() -> None:
    both = drawn(square(1.0, colour=BLUE), square(0.4, near=0.3, colour=RED))
    assert both[32, 32, 0] > 2 * both[32, 32, 2]
    assert both[32, 22, 2] > 2 * both[32, 22, 0]


def test_slopes_that_look_at_the_lamp_are_lighter() -> None:
    ball = torch.nn.functional.normalize(torch.randn(20_000, 3, generator=torch.manual_seed(0)), dim=1)
    picture = drawn(torch.cat([ball, torch.full_like(ball, 0.6)], dim=1))[..., 0]
    rows, columns = np.mgrid[:64, :64]
    inside = np.hypot(rows - 31.5, columns - 31.5) < 21
    right, up = (columns[inside] - 31.5) / 24.6, (31.5 - rows[inside]) / 24.6
    toward = np.sqrt(1 - right**2 - up**2)
    light = np.stack([right, up, toward], axis=1) @ LIGHT
    want = 0.6 * (AMBIENT + DIFFUSE * light.clip(min=0))
    assert np.corrcoef(picture[inside], want)[0, 1] > 0.97
    assert np.abs(picture[inside] - want).mean() < 0.03


def test_clouds_without_colours_are_grey_and_those_with_another_up_axis_look_alike() -> None:
    cloud = square(0.8)
    plain = drawn(cloud[:, :3])
    assert np.ptp(plain, axis=2).max() < 1e-6 < np.abs(plain - BACKGROUND).max()
    z_up = torch.cat([cloud[:, [2, 0, 1]], cloud[:, 3:]], dim=1)  # x toward the camera, y right
    np.testing.assert_allclose(drawn(z_up, up=2), drawn(cloud), atol=1e-5)


def test_what_lies_beside_the_picture_is_left_out() -> None:
    inside = drawn(square(0.6))
    np.testing.assert_array_equal(drawn(square(0.6), square(0.2, at=(2.0, 0)), square(0.2, at=(0, -5.0))), inside)


@pytest.mark.parametrize(("points", "size"), [(2048, 64), (8192, 224)])
def test_as_many_points_as_are_asked_for_leave_no_gaps(points: int, size: int) -> None:
    ball = torch.nn.functional.normalize(torch.randn(4 * points, 3, generator=torch.manual_seed(1)), dim=1)
    scans = PointCloud(points=points)
    picture = drawn(scans.transform(scans.read(ball.numpy())), points=points, size=size)[..., 0]
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    inside = np.hypot(rows, columns) < 0.7 / EXTENT * size / 2
    assert not (np.abs(picture[inside] - BACKGROUND) < 1e-6).any()


def test_a_frozen_vit_sees_what_it_sees_of_the_picture() -> None:
    clip = tiny_clip()
    image: Any = clip.encoders["image"]
    reading = clip.modality("image").options()
    same = {name: reading[name] for name in ("size", "mean", "std")}
    scans = PointCloud(tokenizer="projection", points=512, color=True, **same)
    embed: Any = scans.build_embed(image.vit.width, image.vit)
    see_as_picture(embed, image.embed)
    clouds = torch.stack([scans.transform(scans.example(seed)) for seed in range(3)])
    pictures = embed.picture(clouds)
    mean, std = (torch.tensor(reading[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        assert torch.allclose(image.vit(embed(clouds)), image((pictures - mean) / std), atol=1e-5)


def test_a_scan_is_named_before_anything_is_trained() -> None:
    from vitlens.benchmarks.toybox import World, observe
    from vitlens.benchmarks.toybox.demo.evaluate import class_embeddings
    from vitlens.benchmarks.toybox.training.lenses import LENSES
    from vitlens.train import Recipe
    from vitlens.train.start import with_new_encoder

    clip = vitlens.load("vitlens-toybox", modalities=["image", "text"], device="cpu")
    model = with_new_encoder(clip, Recipe(name="untrained", model=replace(LENSES["point_cloud"], lens=None)))
    things = World(0).objects("unseen_shapes", 40)
    scans = [observe(thing, ["point_cloud"])["point_cloud"] for thing in things]
    names, rows = class_embeddings(clip, "shape")
    found = (model.encode({"point_cloud": scans})["point_cloud"] @ rows.T).argmax(dim=1)
    right = [names[place] == thing.shape for place, thing in zip(found.tolist(), things, strict=True)]
    assert np.mean(right) > 0.75  # chance 0.03; 0.94 of 200 others


def test_low_precision_weights_still_draw_in_float32() -> None:
    embed, cloud = made(), square(0.9)[None] + torch.tensor([0.001, 0, 0, 0, 0, 0])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embed.picture(cloud), made().picture(cloud))
    with torch.no_grad():
        assert embed.to(torch.bfloat16)(cloud).dtype == torch.bfloat16


def test_groups_do_not_matter_and_sizes_and_colours_are_checked() -> None:
    assert PointCloud(tokenizer="projection", points=64).points == 64
    vit: Any = tiny_clip().encoders["image"].vit  # type: ignore[union-attr]
    with pytest.raises(OptionError, match=r"size 70 is not a multiple of the ViT's patch size"):
        PointCloud(tokenizer="projection", size=70).build_embed(32, vit)
    with pytest.raises(OptionError, match="std must be above 0"):
        PointCloud(std=(0.0, 1.0, 1.0))
    with pytest.raises(OptionError, match="point_cloud: size"):
        PointCloud(size=0)
