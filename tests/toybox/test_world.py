"""The Toybox world: objects from a seed, balanced labels, splits that keep their promises, shapes and captions."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.benchmarks.toybox import MATERIALS, SHAPES, SPLITS, World
from vitlens.benchmarks.toybox.world.captions import captions, material_prompts, shape_prompts
from vitlens.benchmarks.toybox.world.objects import SIZES
from vitlens.benchmarks.toybox.world.shapes import build
from vitlens.errors import OptionError

LENS_SPLITS = ("train", "validation", "test", "unseen_pairs")


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**40), st.sampled_from(SPLITS), st.integers(0, 10**9))
def test_an_object_is_a_pure_function_of_seed_split_and_index(seed: int, split: str, index: int) -> None:
    thing = World(seed).object(split, index)  # type: ignore[arg-type]
    assert thing == World(seed).object(split, index)  # type: ignore[arg-type]
    assert thing.rng("look").random() == thing.rng("look").random()
    low, high = SIZES[thing.size_word]
    assert low <= thing.size <= high
    assert (thing.shape, thing.material) in World(seed).pairs(split)  # type: ignore[arg-type]
    assert thing.colour in MATERIALS[thing.material].colours
    assert list(SHAPES)[thing.shape_id] == thing.shape and list(MATERIALS)[thing.material_id] == thing.material


def test_objects_do_not_depend_on_how_many_are_made_or_in_which_order() -> None:
    world = World(3)
    many = world.objects("train", 60)
    assert world.objects("train", 20) == many[:20]
    assert [World(3).object("train", i) for i in reversed(range(60))] == many[::-1]


def test_seeds_splits_and_indices_give_different_objects() -> None:
    drawn = [World(seed).object(split, i) for seed in (0, 1) for split in SPLITS for i in range(40)]
    assert len({(thing.size, thing.yaw) for thing in drawn}) == len(drawn)
    assert len({thing.id for thing in drawn if thing.world_seed == 0}) == len(drawn) // 2


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(split: str) -> None:
    world = World(0)
    shapes = len(world.shapes(split))  # type: ignore[arg-type]
    pairs = len(world.pairs(split))  # type: ignore[arg-type]
    whole = world.objects(split, 8 * pairs)  # type: ignore[arg-type]
    assert set(Counter(thing.shape for thing in whole).values()) == {8 * pairs // shapes}
    assert set(Counter((thing.shape, thing.material) for thing in whole).values()) == {8}
    materials = Counter(thing.material for thing in whole)
    assert len(materials) == 8 and max(materials.values()) <= 1.4 * min(materials.values())
    # ... and nearly so wherever one stops.
    for count in (shapes, 3 * shapes + 5):
        seen = Counter(thing.shape for thing in whole[:count])
        assert max(seen.values()) - min(seen.get(shape, 0) for shape in world.shapes(split)) <= 1  # type: ignore[arg-type]


def test_words_besides_the_labels_are_balanced_too() -> None:
    things = World(0).objects("train", 1500)
    assert min(Counter(thing.size_word for thing in things).values()) > 430
    for material in MATERIALS.values():
        colours = Counter(thing.colour for thing in things if thing.material == material.name)
        assert set(colours) == set(material.colours)


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_unseen_pairs_are_in_no_training(seed: int) -> None:
    world = World(seed)
    trained = world.pairs("train") | world.pairs("clip_only")
    assert not world.pairs("unseen_pairs") & trained
    assert world.pairs("test") == world.pairs("validation") == world.pairs("train")
    # Both halves of every unseen pair are known apart from one another.
    for shape, material in world.pairs("unseen_pairs"):
        assert any(s == shape for s, _ in trained) and any(m == material for _, m in trained)
    held = Counter(material for _, material in world.pairs("unseen_pairs"))
    assert len(held) == 8 and max(held.values()) - min(held.values()) <= 1


def test_no_lens_sees_the_clip_only_shapes() -> None:
    world = World(0)
    assert set(world.shapes("clip_only")) == set(world.shapes("unseen_shapes")) == set(world.clip_only)
    for split in LENS_SPLITS:
        assert not set(world.shapes(split)) & set(world.clip_only)  # type: ignore[arg-type]
    assert {thing.shape for thing in world.objects("unseen_shapes", 40)} == set(world.clip_only)
    assert set(world.shapes("train")) | set(world.clip_only) == set(SHAPES)


def test_more_pairs_may_be_held_out() -> None:
    world = World(0, clip_only=("mug",), held_out=3)
    assert len(world.pairs("unseen_pairs")) == 3 * (len(SHAPES) - 1)
    assert len(world.pairs("train")) == 5 * (len(SHAPES) - 1)
    assert not world.pairs("unseen_pairs") & world.pairs("train")


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": True},
        {"clip_only": ("unicorn",)},
        {"clip_only": tuple(SHAPES)},
        {"held_out": 0},
        {"held_out": 8},
    ],
)
def test_wrong_worlds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="toybox"):
        World(**wrong)  # type: ignore[arg-type]


def test_wrong_objects_are_refused() -> None:
    with pytest.raises(OptionError, match="split 'trian'"):
        World(0).object("trian", 0)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="-1"):
        World(0).object("train", -1)


def test_captions_name_shape_and_material() -> None:
    things = World(0).objects("train", 300)
    for thing in things:
        words = thing.caption.replace(",", "").split()
        assert thing.shape in words
        assert {thing.material, MATERIALS[thing.material].adjective} & set(words)
        assert not any(first == "a" and second[0] in "aeiou" for first, second in pairwise(words))
        assert "{" not in thing.caption and thing.caption in captions(thing)
    assert len({thing.caption for thing in things}) > 250
    assert any(thing.size_word in thing.caption and thing.colour in thing.caption for thing in things)


def test_every_class_has_its_own_prompts() -> None:
    prompts = [shape_prompts(shape) for shape in SHAPES] + [material_prompts(material) for material in MATERIALS]
    assert len({text for texts in prompts for text in texts}) == sum(map(len, prompts))
    assert "an umbrella" in shape_prompts("umbrella") and "a wooden thing" in material_prompts("wood")


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_a_sound_mesh_of_extent_1_on_the_ground(name: str) -> None:
    meshes = [build(name, np.random.default_rng(seed)) for seed in (1, 2, 1)]
    for mesh in meshes:
        assert np.isfinite(mesh.vertices).all() and mesh.vertices.dtype == np.float32
        assert mesh.extent().max() == pytest.approx(1, abs=1e-5)
        assert mesh.vertices[:, 1].min() == pytest.approx(0, abs=1e-5)
        assert np.allclose(mesh.vertices[:, [0, 2]].min(axis=0), -mesh.vertices[:, [0, 2]].max(axis=0), atol=1e-5)
        assert mesh.faces.max() < len(mesh.vertices) and 4 < len(mesh.faces) < 12_000
        used = np.unique(mesh.faces)
        assert np.allclose(np.linalg.norm(mesh.normals[used], axis=1), 1, atol=1e-3)
    assert np.array_equal(meshes[0].vertices, meshes[2].vertices)
    changed = meshes[0].vertices.shape != meshes[1].vertices.shape
    assert changed or not np.allclose(meshes[0].vertices, meshes[1].vertices, atol=1e-3)


@pytest.mark.parametrize("name", ["cube", "cylinder", "bottle", "ring", "arch", "star", "cone", "pyramid"])
def test_normals_point_out_of_a_body_and_fit_its_faces(name: str) -> None:
    mesh = build(name, np.random.default_rng(0))
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    area = np.linalg.norm(flat, axis=1)
    large = area > 1e-4
    for corner in range(3):
        cosine = np.abs((flat * mesh.normals[mesh.faces[:, corner]]).sum(1)[large] / area[large])
        assert cosine.min() > 0.7
    if name in ("cube", "cylinder", "cone", "pyramid"):  # convex: outwards is away from the middle
        middle = np.array([0, mesh.extent()[1] * 0.4, 0])
        outwards = ((mesh.vertices - middle) * mesh.normals).sum(1)[np.unique(mesh.faces[large])]
        assert outwards.min() > -1e-4
