"""The field's standard tools with our models: sentence-transformers and MTEB as they are installed, offline."""

from __future__ import annotations

from pathlib import Path

import mteb
import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from mteb.mocks.mock_tasks import classification as mocks
from mteb.results import TaskResult
from sentence_transformers import SentenceTransformer

import vitlens
from vitlens.adapters.standard.items import as_source
from vitlens.adapters.standard.mteb import MTEBEncoder
from vitlens.adapters.standard.sentence_transformers import ViTLensModule
from vitlens.benchmarks.toybox import World, as_items, observe
from vitlens.errors import InputError
from vitlens.model import ViTLens

THINGS = [World().object("test", i) for i in range(4)]


def decodes() -> bool:
    """Whether torchcodec finds libraries of FFmpeg here; its wheels hold none."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


needs_ffmpeg = pytest.mark.skipif(not decodes(), reason="torchcodec finds no FFmpeg: apt-get install ffmpeg")


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load("vitlens-toybox", device="cpu")


@pytest.fixture(scope="module")
def transformer(model: ViTLens) -> SentenceTransformer:
    return SentenceTransformer(modules=[ViTLensModule(model)], device="cpu")


def equal(found: object, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(np.asarray(found), wanted.numpy(), atol=2e-6)


def test_sentence_transformers_gives_our_embeddings(model: ViTLens, transformer: SentenceTransformer, tmp_path: Path) -> None:
    texts = [thing.caption for thing in THINGS]
    equal(transformer.encode(texts), model.encode({"text": texts})["text"])
    arrays = [observe(thing, ["image", "audio"]) for thing in THINGS]
    pictures = [PIL.Image.fromarray(found["image"]) for found in arrays]
    equal(transformer.encode(pictures), model.encode({"image": pictures})["image"])
    sounds = [{"array": found["audio"], "sampling_rate": 16000} for found in arrays]
    ours = model.encode({"audio": [{"source": found["audio"], "rate": 16000} for found in arrays]})["audio"]
    equal(transformer.encode(sounds), ours)
    soundfile.write(tmp_path / "a.wav", arrays[0]["audio"], 16000, subtype="FLOAT")
    pictures[1].save(tmp_path / "b.png")
    mixed = transformer.encode([str(tmp_path / "a.wav"), str(tmp_path / "b.png"), texts[2]])
    equal(mixed[0], ours[0])
    equal(mixed[2], model.encode({"text": texts[2:3]})["text"][0])
    assert transformer.get_embedding_dimension() == 128
    scores = transformer.similarity(transformer.encode(pictures), transformer.encode(texts))
    assert scores.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_every_other_sensor_goes_by_its_name(model: ViTLens, transformer: SentenceTransformer) -> None:
    items = as_items(observe(THINGS[0], ["point_cloud", "depth", "eeg", "tactile"]))
    for name, item in items.items():
        equal(transformer.encode([{name: item}])[0], model.encode({name: [item]})[name][0])
    both = transformer.encode([{"tactile": items["tactile"], "text": THINGS[0].caption}])[0]
    rows = model.encode({"tactile": [items["tactile"]], "text": [THINGS[0].caption]})
    equal(both, torch.nn.functional.normalize(rows["tactile"] + rows["text"], dim=-1)[0])
    with pytest.raises(InputError, match="point_cloud"):
        transformer.encode([{"smell": 3}])
    with pytest.raises(InputError, match="modality message"):
        transformer.encode([{"role": "user", "content": "hello"}])


def test_a_saved_sentence_transformer_comes_back(transformer: SentenceTransformer, tmp_path: Path) -> None:
    transformer.save(str(tmp_path / "st"))
    again = SentenceTransformer(str(tmp_path / "st"), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(["a wooden mug"]), transformer.encode(["a wooden mug"]))


@pytest.mark.parametrize("task", ["MockClassificationTask", "MockImageClassificationTask"])
@pytest.mark.filterwarnings("ignore:the model does not know")  # its vocabulary is the Toybox's, the mock task's is not
def test_mteb_scores_our_models(model: ViTLens, task: str) -> None:
    encoder = MTEBEncoder(model, revision="1")
    made = getattr(mocks, task)()
    found = mteb.evaluate(encoder, made, cache=None, co2_tracker=False, show_progress_bar=False)
    (result,) = found.task_results
    assert 0 <= result.get_score() <= 1
    assert found.model_name == "vitlens/vitlens-toybox"


def test_mteb_gets_our_embeddings(model: ViTLens) -> None:
    encoder = MTEBEncoder(model)
    texts = [thing.caption for thing in THINGS]
    batches = [{"text": texts[:3]}, {"text": texts[3:]}]
    equal(
        encoder.encode(batches, task_metadata=None, hf_split="test", hf_subset="default"), model.encode({"text": texts})["text"]
    )  # type: ignore[arg-type]
    sounds = [observe(thing, ["audio"])["audio"] for thing in THINGS[:2]]
    batch = {"audio": [{"array": sound.astype(float), "sampling_rate": 16000} for sound in sounds]}
    ours = model.encode({"audio": [{"source": sound, "rate": 16000} for sound in sounds]})["audio"]
    equal(encoder.encode([batch]), ours)  # type: ignore[call-arg, arg-type]
    assert encoder.mteb_model_meta.modalities == ["text", "image", "audio", "video"]
    with pytest.raises(InputError, match="columns smell"):
        encoder.encode([{"smell": [1]}])  # type: ignore[arg-type]


@needs_ffmpeg
@pytest.mark.filterwarnings("ignore")  # what the mock tasks' libraries have to say of one another
def test_mteb_is_content_with_every_kind_of_task(model: ViTLens) -> None:
    found = mteb.mock_run(MTEBEncoder(model, revision="1")).task_results
    amiss = {name: str(status) for name, status in found.items() if not isinstance(status, TaskResult)}
    assert not amiss
    assert len(found) >= 60


@needs_ffmpeg
def test_decoders_are_read_as_their_files(model: ViTLens, transformer: SentenceTransformer, tmp_path: Path) -> None:
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    sound, film = model.modality("audio"), model.modality("video")
    heard = sound.write(sound.example(), tmp_path, "sound")
    seen = film.write(film.example(), tmp_path, "film")
    given = {"audio": AudioDecoder(heard), "video": VideoDecoder(seen)}
    wanted = model.encode({"audio": [heard], "video": [seen]})
    for name, decoder in given.items():
        assert torch.cosine_similarity(model.encode({name: [as_source(model, name, decoder)]})[name], wanted[name]) > 0.999
        assert np.dot(transformer.encode([decoder])[0], wanted[name][0].numpy()) > 0.999
        assert np.dot(transformer.encode([{name: decoder}])[0], wanted[name][0].numpy()) > 0.999


def test_films_as_arrays(model: ViTLens, transformer: SentenceTransformer) -> None:
    frames = model.modality("video").example().data
    wanted = model.encode({"video": [frames]})["video"]
    channels_first = torch.tensor(frames).permute(0, 3, 1, 2)
    for item in (channels_first, {"array": channels_first}, {"array": frames, "video_metadata": None}):
        equal(transformer.encode([{"video": item}]), wanted)
