"""The bulk job of `vitlens embed -o FOLDER/`: a listing of any length becomes a folder of parts, wherever it is.

    FOLDER/_vitlens.json            which job this is
    FOLDER/part-00000.parquet ...   and errors/, _pieces/: see `vitlens.store.bulk.pieces`
    FOLDER/_SUCCESS                 written last: how much of what

Pieces are made by a pool: this process, or actors of Ray. Under torchrun each process makes every n-th. Whoever is killed
loses what was in flight; the same command goes on, and whoever ends last writes the summary.
"""

from __future__ import annotations

import errno
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from vitlens import checks
from vitlens.errors import OptionError, VitlensError
from vitlens.precision import AUTO
from vitlens.processes import launched
from vitlens.store.bulk.maker import Maker, Told
from vitlens.store.bulk.pieces import ERRORS, PIECES, Counts, Piece, Receipt, Spool, cut, number_of
from vitlens.store.engine import Progress
from vitlens.store.files import JOB_CARD, SUCCESS, read_table
from vitlens.store.items import Failure, Item
from vitlens.store.job import Settings, Stopped
from vitlens.store.places import Folder
from vitlens.store.work_folder import difference

if TYPE_CHECKING:
    from vitlens.model import ViTLens

FORMAT = 1
ATTEMPTS = 3
"""How often a piece is tried when a process, a disk or a network fails."""


@dataclass(frozen=True)
class Outcome:
    """What became of a piece: its receipt, or why there is none."""

    piece: Piece
    receipt: Receipt | None
    made: bool = False
    """Whether it was made now, and not by an earlier run."""
    reason: str = ""


class Pool(Protocol):
    """Whoever makes pieces, in any order."""

    def make(self, pieces: Iterator[Piece], modalities: Sequence[str], told: Told) -> Iterator[Outcome]: ...


@dataclass(frozen=True)
class Local:
    """This process makes the pieces, one after the other."""

    maker: Maker

    def make(self, pieces: Iterator[Piece], modalities: Sequence[str], told: Told) -> Iterator[Outcome]:
        """Make them; what fails for no fault of the items is tried again, then reported."""
        self.maker.expected = modalities
        for piece in pieces:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    receipt, made = self.maker(piece, told)
                except VitlensError:
                    raise
                except Exception as error:  # a reader's process that was killed, a disk, a network
                    if is_full(error):
                        raise
                    if attempt == ATTEMPTS:
                        yield Outcome(piece, None, reason=reason_of(error))
                else:
                    yield Outcome(piece, receipt, made)
                    break


def is_full(error: BaseException) -> bool:
    """Whether nothing more can be written, whoever tries."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = str(error).strip()
    if "DataLoader worker" in text:  # torch puts the worker's traceback before the message
        text = text.rpartition("\n")[2]
    return " ".join(f"{type(error).__name__}: {text}".split())


@dataclass
class BulkResult:
    """What a run of a bulk job did."""

    output: str
    pieces: int
    counts: dict[str, int] = field(default_factory=dict)
    """Embeddings of each modality in the whole folder, when it is complete."""
    errors: int = 0
    resumed: int = 0
    """Pieces that were there already."""
    resumed_items: int = 0
    """Items of those."""
    lost: dict[str, str] = field(default_factory=dict)
    """Pieces that could not be made, and why."""
    elsewhere: int = 0
    """Pieces that other processes have not finished yet."""
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the folder has all its parts."""
        return not self.lost and not self.elsewhere

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {**asdict(self), "complete": self.complete, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class BulkJob:
    """A listing to embed into the folder `out` with the model called `model_name`, `part_items` a part."""

    listing: Iterable[Item | Failure]
    out: Folder
    model_name: str
    settings: Settings
    part_items: int = 4096
    named: tuple[str, ...] = ()
    """What the user named as inputs: another job names others."""

    def __post_init__(self) -> None:
        checks.whole("--part-items", self.part_items, least=1)

    def check(self) -> None:
        """Whether the output can be this job's.

        Raises:
            OptionError: a folder with other things in it, or with another job (without `overwrite`); precision auto, which
                machines could choose differently.
        """
        if self.settings.dtype == AUTO:
            raise OptionError("--dtype auto is chosen on one machine for one file: give fp32 or bf16 for a folder of parts")
        content = self.out.read(JOB_CARD)
        if content is None:
            others = [name for name in self.out.sizes() if not name.startswith(".")]
            if others:
                raise OptionError(f"output {self.out}: other files are in it ({others[0]} ...); give a new or empty folder")
            return
        try:
            known = dict(json.loads(content))
        except ValueError as error:
            raise OptionError(f"{self.out}/{JOB_CARD} cannot be read ({error}): delete the folder to start anew") from error
        other = difference(known, self.identity())
        if other and not self.settings.overwrite:
            raise OptionError(
                f"output {self.out} holds another job ({other}). Give the same command to go on with it, choose another output, "
                f"or --overwrite it: parts that differ are made anew"
            )

    def identity(self) -> dict[str, Any]:
        """What two runs must have in common to be the same job."""
        return {
            "format": FORMAT,
            "model": self.model_name,
            "dtype": self.settings.dtype,
            "read options": self.settings.read_options,
            "part items": self.part_items,
            **({} if self.settings.packing.whole else {"store": asdict(self.settings.packing)}),
            "inputs": list(self.named),
        }

    def plan(self, progress: Progress | None = None) -> Counts:
        """How much there is to embed; nothing is written.

        Raises:
            InputError: as the listing.
        """
        counts = Counts()
        for piece in self._looked_at(progress):
            counts.add(piece)
        return counts

    def _looked_at(self, progress: Progress | None) -> Iterator[Piece]:
        found = 0
        for piece in cut(self.listing, self.part_items):
            found += len(piece.entries)
            if progress:
                progress("looking", found, found)
            yield piece

    def maker(self, load: Callable[[list[str]], ViTLens]) -> Maker:
        """What makes a piece of this job."""
        return Maker(self.out, self.model_name, self.settings, load)

    def run(self, pool: Pool, *, progress: Progress | None = None) -> BulkResult:
        """Make what is missing, going on with what earlier runs left.

        Raises:
            OptionError: an output that cannot be this job's.
            InputError: as the listing.
            Stopped: Ctrl-C; whole parts are kept.
        """
        begun = time.monotonic()
        self.check()
        spool = Spool()
        try:
            for piece in self._looked_at(progress):
                spool.add(piece)
            if spool.counts.total:
                self.out.write(JOB_CARD, (json.dumps(self.identity(), indent=1) + "\n").encode())
            result = BulkResult(str(self.out), spool.counts.pieces)
            tally = _Tally(spool.counts.total, progress)
            rank, count = launched()
            mine = (piece for piece in spool if piece.number % count == rank)
            try:
                for outcome in pool.make(mine, list(spool.counts.items), tally.told):
                    tally.add(outcome, result)
            except KeyboardInterrupt as error:
                kept = f"{tally.done} of {spool.counts.pieces} parts are kept in {self.out}"
                raise Stopped(f"stopped: {kept}; the same command goes on from there") from error
            self._finish(spool, result, tally.weights, begun)
        finally:
            spool.close()
        result.seconds = time.monotonic() - begun
        return result

    def _finish(self, spool: Spool, result: BulkResult, weights: dict[str, str], begun: float) -> None:
        """See whether all pieces are there, also those of other processes, by the same `weights`; then the summary."""
        receipts = ((piece, Receipt.read(self.out, piece.name)) for piece in spool if piece.name not in result.lost)
        working, space = 0.0, ("", 0)
        towers: dict[str, Any] = {}
        for piece, receipt in receipts:
            stale = receipt is not None and any(weights.setdefault(m, told) != told for m, told in receipt.weights.items())
            if receipt is None or receipt.listing != piece.listing or stale:
                result.elsewhere += 1
                continue
            for modality, count in receipt.embedded.items():
                result.counts[modality] = result.counts.get(modality, 0) + count
            result.errors += receipt.errors
            working += receipt.seconds
            towers |= receipt.towers
            space = receipt.space if receipt.space[1] else space
        if not result.complete or not result.pieces:
            return
        self._clean(result.pieces)
        seconds = round(time.monotonic() - begun, 3)
        summary = {
            "format": FORMAT,
            "model": self.model_name,
            "space": space[0],
            "dim": self.settings.packing.width or space[1],
            "store": self.settings.packing.kind,
            "weights": towers,
            "dtype": self.settings.dtype,
            "embeddings": result.counts,
            "errors": result.errors,
            "parts": result.pieces,
            "seconds": seconds,
            "seconds of work": round(working, 3),
        }
        self.out.write(SUCCESS, (json.dumps(summary, indent=1) + "\n").encode())

    def _clean(self, pieces: int) -> None:
        """Remove parts of a listing that was longer, and what killed writers left."""
        for folder in ("", ERRORS, PIECES):
            for name in self.out.sizes(folder):
                number = number_of(name)
                if number is not None and number >= pieces:
                    self.out.remove(f"{folder}/{name}".lstrip("/"))
        self.out.clean()


class _Tally:
    """How far a run is."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total = total
        self.progress = progress
        self.done = 0
        self.weights: dict[str, str] = {}
        self._items = 0
        self._told = 0

    def told(self, modality: str, count: int) -> None:
        """So many more items were looked at."""
        self._told += count
        if self.progress:
            self.progress("embedding", min(self._items + self._told, self.total), self.total)

    def add(self, outcome: Outcome, result: BulkResult) -> None:
        """A piece came to its end."""
        self.done += outcome.receipt is not None
        self._items += len(outcome.piece.entries)
        self._told = 0
        if self.progress:
            self.progress("embedding", self._items, self.total)
        if outcome.receipt is None:
            result.lost[outcome.piece.name] = outcome.reason
            return
        self.weights |= outcome.receipt.weights
        result.resumed += not outcome.made
        result.resumed_items += 0 if outcome.made else len(outcome.piece.entries)
        result.remarks += outcome.receipt.remarks if outcome.made else ()
        del result.remarks[20:]


def first_failures(folder: Folder, pieces: int, most: int = 5) -> list[Failure]:
    """The first inputs of a finished job that gave no embedding."""

    def rows() -> Iterator[Failure]:
        for name in sorted(folder.sizes(ERRORS)):
            number = number_of(name)
            content = folder.read(f"{ERRORS}/{name}") if number is not None and number < pieces else None
            for row in read_table(io.BytesIO(content)).to_pylist() if content else ():
                yield Failure(row["row"], row["item"], row["modality"], row["error"])

    return list(islice(rows(), most))
