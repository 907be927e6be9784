"""Files to tensors: each in a reader process with limits of time and memory, texts right here."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens import isolation
from vitlens.errors import InputError
from vitlens.isolation import isolated_within
from vitlens.modality import Modality
from vitlens.serve import kinds
from vitlens.serve.given import File, Given
from vitlens.serve.settings import Limits
from vitlens.sources import Source
from vitlens.words import unknown_words

if TYPE_CHECKING:
    from torch import Tensor

Read = tuple[str, "Tensor", list[str]]
"""Modality, preprocessed tensor, remarks."""


class Readers:
    """A pool of reader processes for a model's sensors; one that a file crashes is replaced, and only that file is refused."""

    def __init__(self, sensors: Mapping[str, Modality], count: int, limits: Limits) -> None:
        from vitlens.serve import reading

        self.sensors = dict(sensors)
        self.limits = isolation.Limits(limits.read_seconds, limits.read_bytes, reading.ready)
        isolation.keep_idle(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="vitlens-reader")
        self._count = count
        self._folder = Path(tempfile.mkdtemp(prefix="vitlens-serve-"))

    async def start(self) -> None:
        """Start the processes, which takes seconds; texts need none."""
        if all(sensor.tower == "text" for sensor in self.sensors.values()):
            return
        from vitlens.serve import reading

        here = Path(__file__)
        first = (isolated_within, self.limits, reading.ready, here, Source(here, ""))
        await asyncio.gather(*(self._run(*first) for _ in range(self._count)))

    async def read(self, given: Given) -> Read:
        """One thing as a tensor. Its modality is its own, or that of the sensor that claims the file.

        Raises:
            InputError: a file that cannot be read, takes too long or too much memory, or that nobody claims.
        """
        if isinstance(given.content, str):
            return await asyncio.get_running_loop().run_in_executor(None, self._read_text, given)
        return await self._run(self._read_file, given)

    async def preview(self, given: Given, *, dark: bool) -> dict[str, Any]:
        """What a person wants to see of one thing: `reading.previewed` with its modality, of a text what its sensor says of it.

        Raises:
            InputError: as `read`.
        """
        if isinstance(given.content, str):
            sensor = self.sensors[given.modality]
            facts = await asyncio.get_running_loop().run_in_executor(None, lambda: sensor.describe(sensor.load(given.content)))
            return {"modality": given.modality, "facts": facts, "steps": sensor.steps()}
        return await self._run(self._preview_file, given, dark)

    def close(self) -> None:
        """Wait for what is being read, and remove the folder of files."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _read_text(self, given: Given) -> Read:
        sensor = self.sensors[given.modality]
        sample = sensor.load(given.content)
        told = unknown_words(sensor, [given.content])
        return given.modality, sensor.transform(sample), [told] if told else []

    def _read_file(self, given: Given) -> Read:
        import torch

        from vitlens.serve import reading

        with self.laid_out(given) as (path, source):
            name, settings, options = self._how(given, path, source)
            array, remarks = isolated_within(self.limits, reading.preprocessed, path, source, name, settings, options)
            return name, torch.from_numpy(np.require(array, requirements="W")), remarks

    def _preview_file(self, given: Given, dark: bool) -> dict[str, Any]:
        from vitlens.serve import reading

        with self.laid_out(given) as (path, source):
            name, settings, options = self._how(given, path, source)
            found = isolated_within(self.limits, reading.previewed, path, source, name, settings, options, dark)
            return {"modality": name, **found}

    def _how(self, given: Given, path: Path, source: Source) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """By which sensor a file is read: its name, its options and the read options."""
        name = given.modality or self._guess(path, source)
        options = given.options if given.modality else given.options.get(name, {})
        return name, self.sensors[name].options(), dict(options)

    def _guess(self, path: Path, source: Source) -> str:
        from vitlens.serve import reading

        name = isolated_within(self.limits, reading.guessed, path, source)
        if name not in self.sensors:
            raise InputError(source.name, f"a file of {name}", f"files of what this model has: {', '.join(self.sensors)}")
        return name

    @contextmanager
    def laid_out(self, given: Given) -> Iterator[tuple[Path, Source]]:
        """A file in a folder of its own with those beside it, which are gone afterwards; and how errors call it."""
        assert isinstance(given.content, File)
        sensor = self.sensors.get(given.modality)
        accepted = sensor.accepts if sensor else "a file of a known sensor; say which it is"
        file = given.content
        stem = kinds.safe_name(file.name).rpartition(".")[0] or "file"
        said = {"name": file.name, "kind": file.kind, "said": file.format}
        suffix = kinds.suffix_for(file.content, **said, extensions=sensor.extensions if sensor else ())
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            path = folder / (f"{stem}.{suffix}" if suffix else stem)
            for other in given.beside:
                (folder / kinds.safe_name(other.name)).write_bytes(other.content)
            path.write_bytes(file.content)
            yield path, Source(path, accepted, given.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
