"""Programs that prepare ImageBind's tensors themselves: its helpers give its numbers, and the model reads what comes of them."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.imagebind.conftest import MODEL
from vitlens.errors import MissingDependencyError, ModelError, OptionError
from vitlens.imagebind import data, install
from vitlens.imagebind.models import helpers
from vitlens.imagebind.models.imagebind_model import ImageBindEmbedder, ImageBindModel, imagebind_huge
from vitlens.imagebind.models.multimodal_preprocessors import SimpleTokenizer
from vitlens.modality import get_modality


def noise(seconds: float, *, channels: int = 2, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(channels, round(16000 * seconds), generator=torch.Generator().manual_seed(seed))


def test_a_waveform_becomes_imagebinds_spectrogram() -> None:
    kaldi = pytest.importorskip(
        "torchaudio.compliance.kaldi", reason="compared with torchaudio: pip install 'vitlens[torchaudio]'"
    )
    sound = noise(2)
    kept = sound.clone()
    found = data.waveform2melspec(sound, 16000, 128, 204)
    bank = kaldi.fbank(
        sound - sound.mean(), htk_compat=True, sample_frequency=16000, use_energy=False, window_type="hanning", num_mel_bins=128,
        dither=0.0, frame_length=25, frame_shift=10,
    )  # fmt: skip
    assert found.shape == (1, 128, 204)
    torch.testing.assert_close(found[0, :, :198], bank.T, atol=1e-3, rtol=1e-3)
    assert not found[0, :, 198:].any()
    assert torch.equal(sound, kept), "the caller's sound is left as it is"


def test_a_spectrogram_is_cut_and_a_gap_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert data.waveform2melspec(noise(2), 16000, 64, 190).shape == (1, 64, 190)
    assert not caplog.messages
    assert data.waveform2melspec(noise(0.5), 16000, 128, 204).shape == (1, 128, 204)
    assert caplog.messages == ["a sound of 48 frames is made one of 204"]


@pytest.mark.parametrize("sound", [torch.zeros(1, 100), torch.zeros(16000), torch.zeros(1, 16000, dtype=torch.int16), [0.0]])
def test_what_is_no_waveform_is_refused(sound: Any) -> None:
    with pytest.raises(OptionError, match="waveform must be"):
        data.waveform2melspec(sound, 16000, 128, 204)


class Clip(NamedTuple):
    """What pytorchvideo's samplers give."""

    clip_start_sec: Fraction
    clip_end_sec: Fraction
    clip_index: int
    aug_index: int
    is_last_clip: bool


def test_clip_times_are_asked_of_the_sampler() -> None:
    asked = []

    def sampler(last: Any, duration: Any, annotation: Any) -> Clip:
        asked.append((last, duration, annotation))
        index = len(asked) - 1
        return Clip(Fraction(4 * index), Fraction(4 * index + 2), index, 0, index == 2)

    assert data.get_clip_timepoints(sampler, 10.0) == [(0, 2), (4, 6), (8, 10)]
    assert asked == [(0.0, 10.0, None), (2, 10.0, None), (6, 10.0, None)]


@pytest.mark.parametrize(
    ("shape", "corners"),
    [((5, 9), [(0, 0), (0, 2), (0, 4)]), ((10, 5), [(0, 0), (3, 0), (5, 0)]), ((7, 5), [(0, 0), (1, 0), (2, 0)])],
)
def test_crops_lie_along_the_longer_side(shape: tuple[int, int], corners: list[tuple[int, int]]) -> None:
    pictures = torch.arange(2 * 3 * shape[0] * shape[1]).reshape(2, 3, *shape)
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    for place, (top, left) in enumerate(corners):
        cropped, moved = data.uniform_crop(pictures, 5, place, boxes=boxes)
        assert torch.equal(cropped, pictures[:, :, top : top + 5, left : left + 5])
        assert moved.tolist() == [[1 - left, 2 - top, 3 - left, 4 - top]]
        assert torch.equal(data.uniform_crop(pictures[0], 5, place)[0], cropped[0])
    assert boxes.tolist() == [[1, 2, 3, 4]]
    scaled = data.uniform_crop(pictures.float(), 4, 1, scale_size=4)[0]
    assert scaled.shape == (2, 3, 4, 4)


def test_crops_that_cannot_be_are_refused() -> None:
    with pytest.raises(OptionError, match="spatial_idx must be 0, 1 or 2, found 3"):
        data.uniform_crop(torch.zeros(3, 8, 8), 4, 3)
    with pytest.raises(OptionError, match="a square of 9 pixels does not fit pictures of 8 by 12"):
        data.uniform_crop(torch.zeros(3, 8, 12), 9, 0)
    with pytest.raises(OptionError, match="num_crops must be 1 or 3"):
        data.SpatialCrop(224, num_crops=2)
    with pytest.raises(OptionError, match="a list of videos"):
        data.SpatialCrop(224)(torch.zeros(3, 2, 224, 224))  # type: ignore[arg-type]


def test_videos_are_normalised_and_cropped(tiny: ImageBindModel) -> None:
    video = torch.rand(3, 2, 224, 300)
    normalise = data.NormalizeVideo(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    found = normalise(video)
    torch.testing.assert_close(found[2], (video[2] - 0.3) / 0.4)
    crops = data.SpatialCrop(224, num_crops=3)([found, found])
    assert len(crops) == 6
    assert torch.equal(crops[1], found[..., 38:262])
    assert len(data.SpatialCrop(224, num_crops=1)([found])) == 1
    with torch.no_grad():
        assert tiny({"vision": torch.stack(crops)[None]})["vision"].shape == (1, tiny.embed_dim)
    kept = data.NormalizeVideo(mean=(0.0,) * 3, std=(2.0,) * 3, inplace=True)(video)
    assert kept is video


def test_the_vocabulary_is_clips() -> None:
    assert Path(data.return_bpe_path()).name == "bpe_simple_vocab_16e6.txt.gz"
    assert data.return_bpe_path() == data.BPE_PATH
    assert data.SimpleTokenizer is SimpleTokenizer
    tokenizer = SimpleTokenizer(bpe_path=data.return_bpe_path())
    assert tokenizer.decode(tokenizer.encode("A small dog.")).strip() == "a small dog ."
    assert tokenizer("a dog").shape == (77,)
    assert tokenizer(["a dog"]).shape == (77,), "as ImageBind: one text, one row"
    assert tokenizer("a dog", context_length=16).tolist() == [49406, 320, 1929, 49407, *[0] * 12]
    texts = ["a dog", "the sea, " * 100]
    assert torch.equal(tokenizer(texts), data.load_and_transform_text(texts, "cpu"))
    with pytest.raises(ModelError, match=r"no file bpe/none.txt.gz.*return_bpe_path"):
        SimpleTokenizer("bpe/none.txt.gz")


def test_tokens_are_those_of_the_model(toybox: dict[str, list[str]]) -> None:
    imagebind_huge(model="vitlens-toybox", modalities=["text"])
    tokenizer = SimpleTokenizer()
    found = tokenizer(toybox["text"])
    assert torch.equal(found, data.load_and_transform_text(toybox["text"], "cpu"))
    assert found.max() < 1000, "a small vocabulary's places"


def by_hand(sound: Tensor) -> Tensor:
    """A batch of clips of two seconds, as ImageBind's own loader makes them."""
    clips = [data.waveform2melspec(sound[:, start : start + 32000], 16000, 128, 204) for start in (0, 16000)]
    return ((torch.stack(clips) - -4.268) / 9.138)[None]


def test_imagebinds_sound_is_understood(tiny: ImageBindModel) -> None:
    audio = get_modality("audio")
    sample = audio.example()
    sound = torch.tensor(sample.data)[:, : 44100 * 2 + 44100 // 2]
    from vitlens.modalities.audio_features import resample

    at_16k = torch.stack([resample(channel, 160, 441) for channel in sound])
    x = by_hand(at_16k)
    assert x.shape == (1, 2, 1, 128, 204)
    own = data.load_and_transform_audio_data([{"source": sound[:, : 2 * 44100].numpy(), "rate": 44100}], "cpu")
    with torch.no_grad():
        found, wanted = tiny({"audio": x[:, 0]})["audio"], tiny({"audio": own})["audio"]
        whole, halved = tiny({"audio": x})["audio"], tiny({"audio": x.half()})["audio"]
    assert F.cosine_similarity(found, wanted) > 0.99, "repeated where it is short, normalised as the model wants it"
    torch.testing.assert_close(found.norm(dim=-1), torch.tensor([20.0]))
    assert whole.shape == (1, tiny.embed_dim)
    assert F.cosine_similarity(whole, halved) > 0.999


def test_imagebinds_short_sound_loses_its_zeros(tiny: ImageBindModel) -> None:
    x = by_hand(noise(1.5))
    once, twice = tiny({"audio": x[:, 0]})["audio"], tiny({"audio": x[:, 1]})["audio"]
    assert (x[0, 1, 0, :, 50:] == x[0, 1, 0, 0, -1]).all(), "half a second, then zeros"
    assert F.cosine_similarity(once, twice) > 0.9, "noise is noise, of whatever length"


def test_sound_of_other_numbers_is_refused(tiny: ImageBindModel) -> None:
    energies = data.waveform2melspec(noise(2), 16000, 128, 204)[None]
    with pytest.raises(OptionError, match=r"ImageBind's layout, but not its log-mel energies, normalised with -4.268 and 9.138"):
        tiny({"audio": energies - 10})
    with pytest.raises(OptionError, match="ImageBind's layout"):
        tiny({"audio": torch.full((1, 1, 128, 204), float("nan"))})


def test_depth_of_unknown_numbers_is_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitlens.imagebind import chosen

    monkeypatch.setattr(chosen, "_shapes", {})
    model = imagebind_huge(model=MODEL, modalities=["depth"])
    with pytest.warns(UserWarning, match="depth: this tensor was not made by load_and_transform_depth_data"):
        model({"depth": torch.rand(1, 1, 224, 224)})
    known = data.load_and_transform_depth_data([np.full((64, 64), 2.0, np.float32)], "cpu")
    model({"depth": known})
    model({"depth": known.half()})


def test_the_forward_of_copies_takes_normalize(tiny: ImageBindModel, toybox: dict[str, list[str]]) -> None:
    x = data.load_and_transform_vision_data(toybox["image"], "cpu")
    with torch.no_grad():
        raw, unit = tiny({"vision": x}, normalize=False)["vision"], tiny({"vision": x})["vision"]
    torch.testing.assert_close(F.normalize(raw, dim=-1), unit)
    assert not torch.allclose(raw, unit)
    embedder = ImageBindEmbedder()
    torch.testing.assert_close(embedder({"vision": x}, normalize=False)["vision"], raw)
    assert not any(parameter.requires_grad for parameter in embedder.parameters())


def test_a_download_folder_is_taken_and_stays_empty(tmp_path: Path) -> None:
    imagebind_huge(pretrained=True, download_dir=tmp_path, modalities=["text"])
    assert not list(tmp_path.iterdir())


def test_the_width_is_told_where_programs_run_unchanged() -> None:
    install()
    with pytest.warns(UserWarning, match=rf"embeddings of {MODEL} have 64 numbers, ImageBind's 1024") as told:
        imagebind_huge(modalities=["text"])
    assert told[0].filename == __file__


def test_small_layers_are_imagebinds() -> None:
    scaling = helpers.LearnableLogitScaling()
    assert list(scaling.state_dict()) == ["log_logit_scale"]
    torch.testing.assert_close(scaling(torch.ones(2)), torch.full((2,), 1 / 0.07))
    assert scaling.log_logit_scale.requires_grad
    torch.testing.assert_close(helpers.LearnableLogitScaling(logit_scale_init=500.0)(torch.ones(1)), torch.tensor([100.0]))
    fixed = helpers.LearnableLogitScaling(logit_scale_init=20.0, learnable=False)
    assert torch.equal(fixed(torch.ones(1)), torch.tensor([20.0]))
    assert not list(fixed.parameters())
    torch.testing.assert_close(helpers.Normalize(dim=-1)(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(helpers.QuickGELU()(torch.ones(1)), torch.sigmoid(torch.tensor([1.702])))


def test_libraries_are_reached_through_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import transforms

    assert data.transforms is transforms
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vitlens\[torchaudio\]'"):
        data.torchaudio  # noqa: B018
