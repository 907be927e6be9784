"""ImageBind's loaders, and those it never had: files in, batches for the model out.

Every loader takes a list of files (or of what else our readers take: arrays, open files, {"source": ..., option: value}) and a
device, and gives one tensor, or None for None. It prepares for the model made last in this process; before one is made, for the
one that VITLENS_IMAGEBIND_MODEL names, else ViT-Lens-L. `model=` (a name, a folder or an ImageBindModel) says otherwise.

What else programs import from ImageBind's `data` is here, too: crops, filter banks, clip times, the vocabulary's place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from vitlens import checks
from vitlens.errors import MissingDependencyError, ModalityError, OptionError
from vitlens.imagebind.absent import answer
from vitlens.imagebind.by_hand import BPE_PATH as BPE_PATH
from vitlens.imagebind.by_hand import DEFAULT_AUDIO_FRAME_SHIFT_MS as DEFAULT_AUDIO_FRAME_SHIFT_MS
from vitlens.imagebind.by_hand import NormalizeVideo as NormalizeVideo
from vitlens.imagebind.by_hand import SpatialCrop as SpatialCrop
from vitlens.imagebind.by_hand import crop_boxes as crop_boxes
from vitlens.imagebind.by_hand import crop_start
from vitlens.imagebind.by_hand import get_clip_timepoints as get_clip_timepoints
from vitlens.imagebind.by_hand import return_bpe_path as return_bpe_path
from vitlens.imagebind.by_hand import uniform_crop as uniform_crop
from vitlens.imagebind.by_hand import waveform2melspec as waveform2melspec
from vitlens.imagebind.chosen import Target, current, stamp
from vitlens.imagebind.layout import audio_layout
from vitlens.imagebind.names import encoder_name, our_name, where_else
from vitlens.modality import Modality, get_modality
from vitlens.sources import name_of

if TYPE_CHECKING:
    from vitlens.imagebind.models.imagebind_model import ImageBindModel

Model: TypeAlias = "str | os.PathLike[str] | ImageBindModel | None"
Device: TypeAlias = "str | torch.device | None"
Batch: TypeAlias = Any
"""A tensor, or None where None was given. `Any`, because programs written for ImageBind use it without asking which."""

CLIP_DURATION, AUDIO_CLIPS = 2, 3
AUDIO_FACTS = {"mel_bins": 128, "frames": 204, "rate": 16000, "mean": -4.268, "std": 9.138}
"""ImageBind's defaults, by the names our audio options have for them: given or not, they stand for the model's own."""


_absent = answer(
    __name__,
    "the loaders are load_and_transform_text and its like, and load_and_transform(modality, items, device) for any sensor",
    {
        **dict.fromkeys(
            ("ConstantClipsPerVideoSampler", "EncodedVideo", "pv_transforms"), "it is pytorchvideo's: import it from there"
        ),
        "load_and_transform_vision_data2": "load_and_transform_vision_data does it",
        "pkg_resources": "return_bpe_path() says where the vocabulary is",
    },
)


def __getattr__(name: str) -> Any:
    """Libraries that programs reach through this module, imported when they do; the rest is refused with what to use."""
    if name == "transforms":
        from torchvision import transforms

        return transforms
    if name == "SimpleTokenizer":
        from vitlens.imagebind.tokenizer import SimpleTokenizer

        return SimpleTokenizer
    if name == "torchaudio":
        return _torchaudio()
    return _absent(name, 2)


def _torchaudio() -> Any:
    """torchaudio, which vitlens itself does without.

    Raises:
        MissingDependencyError: not installed, or not for this torch.
    """
    try:
        import torchaudio
    except Exception as error:  # built for another torch it raises what it likes
        advice = "pip install 'vitlens[torchaudio]' (it ended with torch 2.11); the loaders here need none"
        raise MissingDependencyError(f"torchaudio cannot be imported ({error}): {advice}") from error
    return torchaudio


def load_and_transform_text(text: Sequence[str] | None, device: Device, *, model: Model = None) -> Batch:
    """Texts -> token ids int64 [b, words] of the model's tokenizer; long text is cut, its end token kept.

    Raises:
        InputError: an item that is no text.
        OptionError: no list, or an empty one.
    """
    return load_and_transform("text", text, device, model=model)


def load_and_transform_vision_data(image_paths: Sequence[Any] | None, device: Device, *, model: Model = None) -> Batch:
    """Pictures -> float32 [b, 3, size, size], normalised as the model wants them.

    Raises:
        InputError: a picture that cannot be read, by its name.
    """
    return load_and_transform("vision", image_paths, device, model=model)


def load_and_transform_audio_data(
    audio_paths: Sequence[Any] | None,
    device: Device,
    num_mel_bins: int = 128,
    target_length: int = 204,
    sample_rate: int = 16000,
    clip_duration: float = CLIP_DURATION,
    clips_per_video: int = AUDIO_CLIPS,
    mean: float = -4.268,
    std: float = 9.138,
    *,
    model: Model = None,
) -> Batch:
    """Sound -> log-mel filter banks float32 [b, clips, 1, mel, frames].

    ImageBind's defaults stand for the model's own numbers. `clips_per_video` and `clip_duration` (seconds) may be chosen; the
    others belong to the weights.

    Raises:
        InputError: a sound that cannot be read, by its name.
        OptionError: a bin count, length, rate, mean or deviation that is neither ImageBind's default nor the model's.
    """
    if audio_paths is None:
        return None
    target = current(model)
    own = _sensor("audio", target)
    _check_facts(own, target.name, mel_bins=num_mel_bins, frames=target_length, rate=sample_rate, mean=mean, std=std)
    changed: dict[str, Any] = {"clips": clips_per_video} if clips_per_video != AUDIO_CLIPS else {}
    if clip_duration != CLIP_DURATION:
        _check_duration(own, target.name, clip_duration)
        changed["clip_seconds"] = clip_duration
    sensor = get_modality("audio", **{**own.options(), **changed}) if changed else own
    return _batch(audio_paths, device, target, own, lambda item: audio_layout(sensor.transform(sensor.load(item))))


def load_and_transform_video_data(
    video_paths: Sequence[Any] | None,
    device: Device,
    clip_duration: int = CLIP_DURATION,
    clips_per_video: int = 5,
    sample_rate: int = 16000,
    *,
    model: Model = None,
) -> Batch:
    """Videos -> float32 [b, 3 * clips, 3, frames, size, size]: each clip as three crops along its longer side.

    As in ImageBind `clip_duration` is also the number of frames of a clip, and `sample_rate` changes nothing. Here the frames of
    all clips are spread evenly over the video.

    Raises:
        InputError: a video that cannot be read, by its name.
        OptionError: a number of clips or frames that is no whole number of 1 or more.
    """
    if video_paths is None:
        return None
    for name, value in (("clip_duration", clip_duration), ("clips_per_video", clips_per_video)):
        checks.whole(name, value, least=1)
    target = current(model)
    own = _sensor("video", target)
    sensor = get_modality("video", **{**own.options(), "frames": clips_per_video * clip_duration})

    def prepare(item: Any) -> Tensor:
        sample = sensor.load(item)
        crops = torch.stack([sensor.transform(replace(sample, data=part)) for part in _three_crops(sample.data)])
        return crops.unflatten(1, (clips_per_video, clip_duration)).permute(1, 0, 3, 2, 4, 5).flatten(0, 1)

    return _batch(video_paths, device, target, _sensor("image", target), prepare)


def load_and_transform_depth_data(
    depth_paths: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """Depth maps -> normalised disparity float32 [b, 1, size, size].

    Maps hold metres, or integers with `scale=` metres per unit (0.001 for a PNG in millimetres); `focal_length=` (pixels) and
    `baseline=` (metres) are the camera's, else a Kinect's. All read options of depth are taken (docs/sensors.md).

    Raises:
        InputError: a map that cannot be read, by its name.
    """
    return load_and_transform("depth", depth_paths, device, model=model, **read_options)


def load_and_transform_thermal_data(
    thermal_paths: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """Thermal maps -> float32 [b, 1, size, size] in 0..1, from the model's lowest to its highest kelvin.

    `scale=`, `offset=` and `unit=` are for files that do not say them, `range=` for grey 8-bit pictures (docs/sensors.md).

    Raises:
        InputError: a map that cannot be read, by its name.
        ModalityError: the model has no lens for it; says what to do.
    """
    return load_and_transform("thermal", thermal_paths, device, model=model, **read_options)


def load_and_transform_imu_data(
    imu_paths: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """Recordings of an inertial sensor -> float32 [b, 6, samples], 2,000 samples of 5 s unless the model's sensor says otherwise.

    `rate=`, `accel_unit=`, `gyro_unit=` ... are for files that do not say them (docs/sensors.md).

    Raises:
        InputError: a recording that cannot be read, by its name.
        ModalityError: the model has no lens for it; says what to do.
    """
    return load_and_transform("imu", imu_paths, device, model=model, **read_options)


def load_and_transform_point_cloud_data(
    point_cloud_paths: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """Point clouds and meshes -> float32 [b, points, 3], or 6 with colours for a model that sees them.

    Raises:
        InputError: a cloud that cannot be read, by its name.
    """
    return load_and_transform("point_cloud", point_cloud_paths, device, model=model, **read_options)


def load_and_transform_tactile_data(
    tactile_paths: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """Pictures of a GelSight-style touch sensor -> float32 [b, 3, size, size]; of lists of frames [b, frames, 3, size, size].

    Raises:
        InputError: a picture that cannot be read, by its name.
    """
    return load_and_transform("tactile", tactile_paths, device, model=model, **read_options)


def load_and_transform_eeg_data(
    eeg_paths: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """EEG recordings in volts -> float32 [b, channels, samples]; `start=`, `epoch=`, `rate=` ... as in docs/sensors.md.

    Raises:
        InputError: a recording that cannot be read, by its name.
    """
    return load_and_transform("eeg", eeg_paths, device, model=model, **read_options)


def load_and_transform_pressure_data(
    pressure_paths: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """Films of pressure mats, gloves and skins -> float32 [b, moments, size, size].

    `unit=`, `scale=`, `shape=`, `rate=` as in docs/sensors.md.

    Raises:
        InputError: a film that cannot be read, by its name.
    """
    return load_and_transform("pressure", pressure_paths, device, model=model, **read_options)


def load_and_transform(
    modality: str, items: Sequence[Any] | None, device: Device, *, model: Model = None, **read_options: Any
) -> Batch:
    """Items of any modality the model has, a plugin's too -> one batch. `read_options` go to the reader of every item.

    Raises:
        InputError: an item that cannot be read.
        ModalityError: the model has no such modality.
        OptionError: no list, an empty one, items whose tensors differ in shape, or an unknown read option.
    """
    if items is None:
        return None
    if modality == "audio" and not read_options:
        return load_and_transform_audio_data(items, device, model=model)
    if modality == "video" and not read_options:
        return load_and_transform_video_data(items, device, model=model)
    target = current(model)
    sensor = _sensor(our_name(modality), target)

    def prepare(item: Any) -> Tensor:
        x = sensor.transform(sensor.load(item, **read_options))
        return audio_layout(x) if modality == "audio" else x

    return _batch(items, device, target, _sensor(encoder_name(modality), target), prepare)


def _sensor(name: str, target: Target) -> Modality:
    try:
        return target.modality(name)
    except ModalityError as error:
        raise ModalityError(f"{error}{where_else(name)}") from error


def _batch(items: Sequence[Any], device: Device, target: Target, sensor: Modality, prepare: Callable[[Any], Tensor]) -> Tensor:
    if isinstance(items, str | bytes | os.PathLike | Mapping):
        raise OptionError(f"{sensor.name}: a list of items is needed, found {name_of(items)}: put it in a list")
    prepared = [prepare(item) for item in items]
    if not prepared:
        raise OptionError(f"{sensor.name}: an empty list; for a modality that is not there give None, or leave it out")
    shapes = {tuple(x.shape) for x in prepared}
    if len(shapes) > 1:
        found = ", ".join(str(list(shape)) for shape in sorted(shapes))
        raise OptionError(f"{sensor.name}: items of different shapes ({found}) make no batch: load them one by one")
    return stamp(torch.stack(prepared).to(device), target, sensor)


def _check_facts(own: Modality, model: str, **asked: float) -> None:
    options = own.options()
    for name, value in asked.items():
        if value not in (AUDIO_FACTS[name], options[name]):
            raise OptionError(f"audio: the model {model} was trained with {name} {options[name]}; {value!r} is not for it")


def _check_duration(own: Modality, model: str, seconds: Any) -> None:
    most = own.options()["frames"] / 100  # a frame every 10 ms
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= most:
        raise OptionError(f"audio: clip_duration must be at most the {most:g} s that the model {model} hears, found {seconds!r}")


def _three_crops(frames: Any) -> list[Any]:
    """The squares at the start, the middle and the end of the longer side of frames [n, h, w, 3]."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    starts = [crop_start(max(height, width), side, place) for place in range(3)]
    if height > width:
        return [frames[:, start : start + side] for start in starts]
    return [frames[:, :, start : start + side] for start in starts]
