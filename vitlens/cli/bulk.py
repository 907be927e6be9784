"""`vitlens embed -o DIR/`: how the command line asks for a folder of parts, and what it says of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from vitlens import checks
from vitlens.cli.options import open_model
from vitlens.errors import OptionError
from vitlens.sources import suffix_of
from vitlens.store.files import FORMATS
from vitlens.store.places import Folder, is_uri
from vitlens.vectors import WHOLE

if TYPE_CHECKING:
    from vitlens.display.progress import ProgressBar
    from vitlens.model import ViTLens
    from vitlens.store.bulk.job import BulkJob, BulkResult, Pool
    from vitlens.store.bulk.pieces import Counts
    from vitlens.store.engine import Progress
    from vitlens.store.job import Job, Result, Settings
    from vitlens.store.listing import Listing

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Ask:
    """What the options of a bulk job say beside its settings."""

    model: str
    output: str
    part_items: int
    engine: str
    ray_address: str | None
    workers: int | None
    device: str | None
    dry_run: bool
    as_json: bool

    def check(self) -> None:
        """Raises OptionError for options that do not go together."""
        checks.one_of("--engine", self.engine, ENGINES)
        if self.engine != "ray" and (self.ray_address or self.workers):
            raise OptionError("--ray-address and --workers belong to --engine ray (torchrun starts several processes without it)")
        if is_uri(self.output) and suffix_of(self.output) in FORMATS:
            raise OptionError(f"output {self.output}: one file goes to a local disk; end with / for a folder of parts there")


def embed_by_parts(listing: Listing, job: Job, load: Callable[[list[str]], ViTLens], progress: Progress) -> Result:
    """One file of what is not on a local disk, by way of parts beside it."""
    from vitlens.store.bulk.job import BulkJob, Local
    from vitlens.store.bulk.one_file import into_one_file

    folder = Folder(job.out.with_name(job.out.name + ".partial"))
    bulk = BulkJob(listing, folder, job.model_name, replace(job.settings, packing=WHOLE), named=named_by(listing))
    return into_one_file(bulk, job.out, Local(bulk.maker(load)), progress, packing=job.settings.packing)


def named_by(listing: Listing) -> tuple[str, ...]:
    """What the user named as inputs."""
    table = [os.fspath(listing.manifest)] if listing.manifest else []
    return (*listing.inputs, *listing.texts, *table, *listing.modalities)


def embed_in_bulk(listing: Listing, settings: Settings, ask: Ask) -> None:
    """Run, or with a dry run describe, a bulk job; exit code 1 where something is missing at its end."""
    from vitlens.cli.console import remark, say_json
    from vitlens.display.progress import ProgressBar
    from vitlens.store.bulk.job import BulkJob

    ask.check()
    job = BulkJob(listing, Folder(ask.output), ask.model, settings, ask.part_items, named_by(listing))
    job.check()
    with ProgressBar() as bar:
        if ask.dry_run:
            counts = job.plan(bar.update)
        else:
            result = job.run(_pool(job, ask, bar), progress=bar.update)
    for note in listing.notes:
        remark(note)
    if ask.dry_run:
        _say_plan(counts, job, ask)
        raise typer.Exit(1 if counts.failures else 0)
    say_json(result.to_dict()) if ask.as_json else _say_result(result, job)
    if result.errors or result.lost:
        raise typer.Exit(1)


def _pool(job: BulkJob, ask: Ask, bar: ProgressBar) -> Pool:
    if ask.engine == "ray":
        from vitlens.store.bulk.ray_pool import RayPool

        return RayPool(
            job.maker(lambda needed: open_model(ask.model, needed, ask.device)), ask.ray_address, ask.workers, ask.device
        )

    from vitlens.store.bulk.job import Local

    def load(needed: list[str]) -> ViTLens:
        import torch

        bar.close()  # the spinner has the screen now; the next update opens it again
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        return open_model(ask.model, needed, ask.device)

    return Local(job.maker(load))


def _say_plan(counts: Counts, job: BulkJob, ask: Ask) -> None:
    from vitlens.cli.console import say, say_json
    from vitlens.zoo import find_spec

    size = counts.size(find_spec(ask.model).space.dim)
    if ask.as_json:
        say_json(
            {"counts": counts.items, "failures": counts.failures, "parts": counts.pieces, "bytes": size, "output": ask.output}
        )
        return
    named = ", ".join(f"{count} {modality}" for modality, count in counts.items.items()) or "nothing"
    parts = f"{counts.pieces} part{'s' * (counts.pieces != 1)}"
    say(f"{named} to embed into {parts} of up to {job.part_items} items, about {_bytes(size)}, in {job.out}/")
    if counts.failures:
        say(f"{counts.failures} inputs are known to be bad: they will be in {job.out}/errors/")
    say("nothing was done (--dry-run)")


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def _say_result(result: BulkResult, job: BulkJob) -> None:
    from vitlens.cli.console import complain, remark, say, say_failures
    from vitlens.store.bulk.job import first_failures

    for text in result.remarks:
        remark(text)
    for name, reason in list(result.lost.items())[:5]:
        complain(f"{name}: {reason}")
    if result.lost:
        remark(f"{len(result.lost)} of {result.pieces} parts could not be made; the same command tries them again")
    if result.elsewhere:
        remark(f"{result.elsewhere} of {result.pieces} parts are not there yet: other processes are at them, or were killed")
    if not result.complete:
        return
    if result.errors:
        say_failures(first_failures(job.out, result.pieces))
        remark(f"{result.errors} of {result.errors + sum(result.counts.values())} inputs failed, see {job.out}/errors/")
    counts = ", ".join(f"{count} {modality}" for modality, count in result.counts.items()) or "no"
    before = f" ({result.resumed} from an earlier run)" if result.resumed else ""
    say(f"{job.out}/: {counts} embeddings in {result.pieces} parts{before}, {result.seconds:.1f} s")
