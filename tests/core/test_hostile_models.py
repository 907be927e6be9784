"""config.json and weights that somebody spoiled, by accident or not: one error that names them, at once, in little memory."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vitlens
from vitlens import EmbeddingSpace, EncoderSpec, ModelSpec, ViTLens, ViTSpec
from vitlens.checkpoint import import_official
from vitlens.errors import CheckpointError, ModalityError, OptionError
from vitlens.lens_config import PerceiverConfig
from vitlens.zoo import Pretrained, find_spec

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16, "norm_kwargs": {"eps": 1e-6}},
    "text_cfg": {"context_length": 8, "vocab_size": 60, "width": 32, "heads": 2, "layers": 1, "mlp_ratio": 2.0},
}
VALUES: list[Any] = [None, -1, 10**30, math.nan, [1], {"a": 1}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vit = ViTSpec("small", config=CLIP)
    encoders = (
        EncoderSpec("image", vit, {"size": 16}),
        EncoderSpec("depth", vit, {"size": 16}, lens=PerceiverConfig(depth=1, latents=4)),
    )
    options = {"context_length": 8, "vocabulary": list(range(1, 61))}
    spec = ModelSpec("small", EmbeddingSpace("small", 16), encoders, text=vit, text_options=options)
    return ViTLens.from_state(Pretrained(spec, None, "small")).save_pretrained(tmp_path_factory.mktemp("models") / "small")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def changed(config: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    made = copy.deepcopy(config)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def spoiled(folder: Path, target: Path, config: Any) -> Path:
    target.mkdir(exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (target / "config.json").write_text(text, encoding="utf-8")
    if not (target / "model.safetensors").exists():
        (target / "model.safetensors").symlink_to(folder / "model.safetensors")
    return target


def test_no_value_in_a_config_brings_anything_but_its_own_error(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    refused = 0
    for path in places(config):
        for value in VALUES:
            try:
                vitlens.load(spoiled(folder, tmp_path / "model", changed(config, path, value)), device="cpu")
            except (CheckpointError, OptionError, ModalityError):
                refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("text", "config", "text_cfg", "context_length"), 10**7, "context_length must be a whole number"),
        (("text", "config", "text_cfg", "heads"), 0, "heads must be a whole number"),
        (("text", "config", "text_cfg", "heads"), 3, "no multiple of its 3 heads"),
        (("encoders", 0, "vit", "config", "vision_cfg", "patch_size"), 0, "side of a square|patch_size"),
        (("encoders", 0, "vit", "config", "vision_cfg", "layers"), 10**7, "layers must be a whole number from 1 to 1000"),
        (("encoders", 0, "vit", "config", "vision_cfg", "head_width"), 5, "heads of 5"),
        (("text", "config", "text_cfg", "context_length"), 10**10, "context_length must be a number"),
        (("encoders", 0, "options"), [1], "options of image must be a mapping"),
        (("encoders", 0, "options", "size"), "big", "size must be a whole number"),
        (("encoders", 1, "lens", "depth"), 10**7, "lens perceiver: depth must be"),
        (("encoders", 1, "lens", "latents"), -4, "lens perceiver: latents must be"),
        (("encoders",), {"image": {}}, "encoders must be a list"),
        (("logit_scale",), math.nan, "logit_scale must be a number"),
        (("logit_scale",), math.inf, "logit_scale must be a number"),
        (("logit_scale",), -3.0, "logit_scale must be a number"),
        (("logit_scale",), True, "logit_scale must be a number"),
        (("space", "dim"), 16.0, "dim must be a whole number"),
        (("name",), [1], "name must be a text"),
    ],
)
def test_an_absurd_number_is_named_with_what_it_may_be(
    path: tuple[Any, ...], value: Any, named: str, folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises((CheckpointError, OptionError), match=named):
        vitlens.load(spoiled(folder, tmp_path / "model", changed(config, path, value)), device="cpu")


@pytest.mark.parametrize(
    ("modality", "option"),
    [("point_cloud", "points"), ("audio", "clips"), ("eeg", "samples"), ("image", "size"), ("tactile", "resize")],
)
def test_absurd_options_of_a_sensor_are_refused_before_anything_is_read(
    modality: str, option: str, folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["encoders"][0] |= {"modality": modality, "options": {option: 10**10}}
    with pytest.raises(OptionError, match=rf"{modality}: {option} must be a whole number from 1 to"):
        find_spec(spoiled(folder, tmp_path / "model", config)).modality(modality)


@pytest.mark.parametrize("library", ["timm", "huggingface"])
def test_other_libraries_configurations_have_bounds_too(library: Any) -> None:
    for config in ({"depth": 10**7}, {"num_hidden_layers": 10**7}, {"width": math.inf}, {"a": [[[[[[[[[[1]]]]]]]]]]}):
        with pytest.raises(OptionError, match="config"):
            ViTSpec("vit_tiny_patch16_224", library, config=config)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000 + "]" * 100_000, '{"format": 1, "name": ' + "[" * 50_000, "\0", "[]", "3", "null", '{"format": 1}'],
    ids=["deep", "cut off", "zero byte", "a list", "a number", "null", "no fields"],
)
def test_a_config_that_is_none(text: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, OptionError), match=r"config\.json"):
        vitlens.load(spoiled(folder, tmp_path / "model", text), device="cpu")


def test_a_huge_config_is_not_read(folder: Path, tmp_path: Path) -> None:
    target = spoiled(folder, tmp_path / "model", "{}")
    with (target / "config.json").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(CheckpointError, match="bytes, at most"):
        vitlens.load(target, device="cpu")


def tensors_of(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata())  # noqa: SIM118


def with_weights(folder: Path, target: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Path:
    target.mkdir()
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, target / "model.safetensors", metadata=metadata)
    return target


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda x: torch.full_like(x, math.nan), r"1 weights with values that are NaN or infinite: encoders\.image\.vit\.proj"),
        (lambda x: x.index_fill(0, torch.tensor([3]), math.inf), r"NaN or infinite: encoders\.image\.vit\.proj"),
        (lambda x: x.to(torch.int8), r"a type that none here has: encoders\.image\.vit\.proj int8"),
        (lambda x: x.to(torch.complex64), r"encoders\.image\.vit\.proj complex64"),
        (lambda x: x.to(torch.bool), r"encoders\.image\.vit\.proj bool"),
        (lambda x: x.to(torch.float8_e4m3fn), r"encoders\.image\.vit\.proj float8_e4m3fn"),
    ],
    ids=["NaN", "infinite", "int8", "complex", "bool", "float8"],
)
def test_weights_that_are_no_numbers_are_named(spoil: Any, named: str, folder: Path, tmp_path: Path) -> None:
    tensors, metadata = tensors_of(folder)
    tensors["encoders.image.vit.proj"] = spoil(tensors["encoders.image.vit.proj"])
    with pytest.raises(CheckpointError, match=named):
        vitlens.load(with_weights(folder, tmp_path / "model", tensors, metadata), device="cpu", modalities=["image"])


@pytest.mark.parametrize(
    "aliases",
    ["[1]", "3", "null", '{"encoders.image.vit.proj": 3}', '{"encoders.image.vit.x": "nowhere"}', "{", "[" * 50_000],
)
def test_aliases_that_are_none_are_named(aliases: str, folder: Path, tmp_path: Path) -> None:
    tensors, metadata = tensors_of(folder)
    target = with_weights(folder, tmp_path / "model", tensors, {**metadata, "aliases": aliases})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        vitlens.load(target, device="cpu")


@pytest.mark.parametrize(
    "scale", [torch.tensor(math.nan), torch.tensor(math.inf), torch.tensor(1000.0), torch.ones(2), torch.tensor(3)]
)
def test_a_temperature_of_an_official_file_is_one_sane_number(scale: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match="logit_scale is the logarithm of a temperature"):
        import_official({"visual.proj": torch.ones(2, 2), "logit_scale": scale}, layout="open_clip")
