"""One sweep over the registry: every modality, third-party plugins included, must really work from file to embedding."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from vitlens.encoder import EncoderSpec, build_encoder
from vitlens.errors import InputError, OptionError
from vitlens.modality import get_modality, list_modalities, modality_class
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.vit import ViTSpec

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 224, "patch_size": 28, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
VIT = ViTSpec("sweep", config=CLIP)
EVERY = pytest.mark.parametrize("name", list_modalities())
VISION = pytest.mark.parametrize("name", [n for n in list_modalities() if modality_class(n).tower == "vision"])


def spec(name: str) -> ModelSpec:
    text = VIT if modality_class(name).tower == "text" else None
    encoders = () if text else (EncoderSpec(modality_class(name).shares or name, VIT),)
    return ModelSpec(name=f"sweep-{name}", space=EmbeddingSpace("sweep", 16), encoders=encoders, text=text)


@EVERY
def test_it_says_what_it_is(name: str) -> None:
    modality = get_modality(name)
    assert modality.name == name
    assert modality.unit
    assert modality.accepts
    assert modality.steps(), "preprocessing in words"
    assert json.loads(json.dumps(modality.options())) is not None
    again = get_modality(name, **json.loads(json.dumps(modality.options())))
    assert json.dumps(again.options()) == json.dumps(modality.options())


@EVERY
def test_its_example_survives_a_real_file(name: str, tmp_path: Path) -> None:
    modality = get_modality(name)
    sample = modality.example(seed=3)
    path = modality.write(sample, tmp_path, "example")
    assert path.is_file()
    again = modality.load(path)
    first, second = modality.transform(sample).float(), modality.transform(again).float()
    assert first.shape == second.shape
    scale = float(first.abs().max())
    assert float((first - second).abs().mean()) <= 0.02 * scale
    assert modality.describe(again)


@EVERY
def test_evaluation_is_a_pure_function_of_the_input(name: str) -> None:
    modality = get_modality(name)
    torch.manual_seed(1)
    first = modality.transform(modality.example(seed=5))
    torch.manual_seed(2)
    assert torch.equal(first, modality.transform(modality.example(seed=5)))
    other = modality.transform(modality.example(seed=6))
    assert first.shape == other.shape
    assert not torch.equal(first, other)


@EVERY
def test_augmentation_follows_the_seed(name: str) -> None:
    modality = get_modality(name)
    sample = modality.example()
    outs = []
    for _ in range(2):
        torch.manual_seed(7)
        outs.append(modality.transform(sample, train=True))
    assert torch.equal(*outs)
    assert bool(torch.isfinite(outs[0].float()).all())


@EVERY
def test_it_encodes_and_saves_and_loads(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ViTLens.from_spec(spec(name))
    examples = [model.modality(name).example(seed) for seed in range(2)]
    out = model.encode({name: examples})[name]
    assert out.shape == (2, 16)
    assert torch.allclose(out.norm(dim=-1), torch.ones(2), atol=1e-5)
    model.save_pretrained(tmp_path / "m")
    again = ViTLens.from_pretrained(str(tmp_path / "m"), device="cpu")
    assert torch.equal(again.encode({name: examples})[name], out)


@VISION
def test_its_modembed_and_lens_train_and_the_vit_does_not(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(spec(name).encoders[0]).train()
    x = torch.stack([get_modality(name).transform(get_modality(name).example(seed)) for seed in range(2)])
    tokens = encoder.tokens(x)
    assert tokens.shape[0] == 2
    assert tokens.shape[-1] == encoder.vit.width
    encoder(x).square().sum().backward()
    trained = [n for n, p in encoder.named_parameters() if p.requires_grad and not n.startswith("vit.")]
    if modality_class(name).default_lens is not None:
        assert trained
    without = [n for n in trained if encoder.get_parameter(n).grad is None]
    assert not without
    assert all(p.grad is None for p in encoder.vit.parameters())


@EVERY
@pytest.mark.parametrize("source", [b"", b"\x00\x01garbage\xff" * 40, 3.5, object()])
def test_nonsense_is_one_clear_error(name: str, source: object) -> None:
    modality = get_modality(name)
    with pytest.raises(InputError) as caught:
        modality.load(io.BytesIO(source) if isinstance(source, bytes) else source)
    assert "Accepted:" in str(caught.value)


@EVERY
def test_missing_files_and_folders_are_named(name: str, tmp_path: Path) -> None:
    modality = get_modality(name)
    extension = modality.extensions[0] if modality.extensions else "bin"
    with pytest.raises(InputError, match="gone"):
        modality.load(tmp_path / f"gone.{extension}")
    with pytest.raises(InputError, match="folder"):
        modality.load(tmp_path)


@EVERY
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="no_such_option"):
        get_modality(name, no_such_option=1)
    with pytest.raises(OptionError, match="no_such_option"):
        get_modality(name).load("x", no_such_option=1)


@EVERY
def test_it_can_be_drawn(name: str) -> None:
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(2, 2))
    get_modality(name).draw(get_modality(name).example(), axes)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    plt.close(figure)
    assert pixels[..., :3].std() > 1, "the picture is blank"
