"""Video: a few frames, evenly spread over a clip, each encoded as a picture; the embeddings of the frames are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vitlens import checks
from vitlens.modalities.containers import missing_bytes
from vitlens.modalities.image import is_animation, landscape, rgb_text
from vitlens.modalities.picture_files import pixels_of_array, read_pixels
from vitlens.modalities.pixels import Crop, PillowModality
from vitlens.modalities.video_files import decode, spread, stack
from vitlens.modality import Sample, register_modality
from vitlens.sources import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor


@register_modality
@dataclass(frozen=True, kw_only=True)
class Video(PillowModality):
    """`frames` pictures from the centres of equal segments of a clip, each prepared as an image."""

    frames: int = 8

    name: ClassVar[str] = "video"
    unit: ClassVar[str] = "RGB frames, uint8 [frames, h, w, 3]"
    accepts: ClassVar[str] = "a video (mp4, mov, avi, mkv, webm, gif), an array [frames, h, w, 3], or a list of pictures"
    extensions: ClassVar[tuple[str, ...]] = ("mp4", "m4v", "mov", "avi", "mkv", "webm", "gif")
    shares: ClassVar[str | None] = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("video: frames", self.frames, least=1, most=1024)

    def read(self, source: Any, *, format: str | None = None) -> Sample:
        """Take `frames` evenly spread frames out of a clip, as RGB uint8 `[frames, h, w, 3]`.

        `source` is a path, a binary file object (whose type `format` names if its name does not), an array
        `[frames, h, w, 1 | 3 | 4]` of uint8 or of floats in 0..1, or a list of pictures (paths, arrays, PIL images) of one
        size. Frames are turned as the file's rotation says. Of a list only the pictures taken are read.

        Raises:
            InputError: no video in the file, no frames, cut off, damaged, or frames of different sizes.
        """
        given = Source(source, self.accepts)
        if given.is_array or isinstance(source, list | tuple):
            return self._read_frames(given)
        with given.local_file(extensions=self.extensions, format=format) as path:
            if cut_off := missing_bytes(path):
                raise given.refuse(f"cut off: at least {cut_off} bytes are missing at its end")
            with given.decoding():
                pixels, info = decode(path, self.frames, given)
        return Sample(pixels, given.name, info)

    def _read_frames(self, source: Source) -> Sample:
        frames: Sequence[Any] | np.ndarray = source.array() if source.is_array else source.value
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise source.refuse(f"an array of {frames.ndim} dimensions")
        if len(frames) == 0:
            raise source.refuse("no frames")
        pixels = {}
        for i in sorted(set(indices := spread(len(frames), self.frames))):
            if isinstance(frames, np.ndarray):
                pixels[i] = pixels_of_array(frames[i], source)
            else:
                pixels[i] = read_pixels(Source(frames[i], self.accepts))[0]
        stacked = stack([pixels[i] for i in indices], source)
        return Sample(stacked, source.name, {"frames_in_source": len(frames)})

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Float32 `[frames, 3, size, size]`; with `train` the same random part of every frame, mirrored half of the time."""
        import torch

        crop = Crop.draw(*sample.data.shape[1:3]) if train else None
        return torch.stack([self.to_tensor(sample.data[i], crop) for i in spread(len(sample.data), self.frames)])

    def example(self, seed: int = 0) -> Sample:
        """A red ball flying in an arc over a landscape: `frames` frames of 120 x 160 pixels."""
        scene = landscape(seed, 120, 160)
        y, x = np.mgrid[:120, :160]
        frames = []
        for step in np.linspace(0.1, 0.9, self.frames):
            ball = np.hypot(x - 160 * step, y - 95 + 260 * step * (1 - step)) < 9
            frames.append(np.where(ball[..., None], np.array([205, 45, 40], np.uint8), scene))
        return Sample(np.stack(frames), f"<{self.name} example {seed}>")

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a Matroska file with FFV1, which is lossless: 8 frames a second."""
        import av

        path = Path(folder) / f"{stem}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=8)
            stream.height, stream.width = sample.data.shape[1:3]
            stream.pix_fmt = "bgr0"
            for frame in sample.data:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
            container.mux(stream.encode())
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        count, height, width = sample.data.shape[:3]
        text = {"size": f"{width} x {height} pixels", "frames": f"{count} taken", "mean colour": rgb_text(sample.data)}
        if total := sample.info.get("frames_in_source"):
            text["frames"] += f" of {total}"
        if times := sample.info.get("times"):
            text["at seconds"] = ", ".join(f"{t:.2f}" for t in times)
        return text

    def steps(self) -> list[str]:
        return [f"take {self.frames} frames at the centres of as many equal segments", *(f"{s}, each" for s in super().steps())]

    def draw(self, sample: Sample, axes: Axes) -> None:
        """A contact sheet, read like a page."""
        count, height, width = sample.data.shape[:3]
        columns = min(4, count)
        rows = -(-count // columns)
        sheet = np.full((rows * columns, height, width, 3), 255, np.uint8)
        sheet[:count] = sample.data
        sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
        axes.imshow(sheet.reshape(rows * height, columns * width, 3))
        for i in range(count):
            time = sample.info["times"][i] if "times" in sample.info else None
            label = f"{i + 1}" if time is None else f"{time:.2f} s"
            at = (width * (i % columns + 0.03), height * (i // columns + 0.04))
            axes.text(*at, label, color="white", va="top", size="small", bbox={"color": "black", "alpha": 0.5, "pad": 1})
        axes.axis("off")

    def claims(self, path: Path) -> float:
        """1 for a video by its extension; half of that for a GIF with a single frame, which is a picture."""
        claim = super().claims(path)
        return 0.5 * claim if Path(path).suffix.lower() == ".gif" and not is_animation(path) else claim
