"""What `vitlens index build` and `add` share: inputs of every kind put into an index, and said what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitlens.cli.inputs import cutting_for, gather
from vitlens.cli.options import open_model
from vitlens.store.files import holds_embeddings
from vitlens.store.items import Inputs

if TYPE_CHECKING:
    from vitlens.batches import Workers
    from vitlens.display.progress import ProgressBar
    from vitlens.index.build import Filled, Settings, Stored
    from vitlens.index.index import Index
    from vitlens.index.measure import Nearest


@dataclass(frozen=True)
class Given:
    """What a command line names: files of embeddings, and items to embed, with how those are read that say nothing themselves."""

    stored: tuple[str, ...]
    inputs: Inputs
    read_options: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls,
        inputs: Sequence[str],
        texts: Sequence[str],
        manifest: Path | None,
        modalities: Sequence[str],
        read_option: Sequence[str] | None,
        model: str,
    ) -> Given:
        """Sort it; recordings are cut into the windows that the read options ask for, as long as `model` has them.

        Raises:
            OptionError, InputError, ModalityError: as `gather`.
        """
        from vitlens.cli.console import remark

        stored = [name for name in inputs if holds_embeddings(name)]
        others = [name for name in inputs if name not in stored]
        some = others or texts or manifest or not stored
        cutting, found = cutting_for(read_option, modalities, model), Inputs(())
        if some:
            found = gather(others, texts=texts, manifest=manifest, modalities=modalities, with_columns=True, cutting=cutting)
        for note in found.notes:
            remark(note)
        return cls(tuple(stored), found, cutting.reads())

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"files of embeddings": list(self.stored), **self.inputs.to_dict()}


@dataclass(frozen=True)
class Embedding:
    """How items are embedded."""

    model: str
    batch_size: int
    num_workers: Workers
    dtype: str
    device: str | None


def fill(
    index: Index,
    given: Given,
    stored: Sequence[Stored],
    settings: Settings,
    embedding: Embedding,
    bar: ProgressBar,
    *,
    nearest: Nearest | None = None,
) -> Filled:
    """Put everything in; search structures are made at the end."""
    from vitlens.index.build import Filled, Filling
    from vitlens.index.rows import Added

    filling = Filling(index, settings, progress=bar.update, nearest=nearest)
    result = Filled(Added(), given.inputs.failures)
    with index.bulk():
        for one in stored:
            result = together(result, filling.add_stored(one))
        if given.inputs.items:
            engine = engine_of(embedding, list(given.inputs.by_modality()), bar)
            result = together(result, filling.add_items(given.inputs.items, engine))
    return result


def together(one: Filled, other: Filled) -> Filled:
    """What became of both."""
    from vitlens.index.build import Filled

    return Filled(one.added + other.added, (*one.failures, *other.failures))


def engine_of(embedding: Embedding, modalities: list[str], bar: ProgressBar) -> Callable[[], Any]:
    """What makes the engine, once, when it is needed."""
    made: list[Any] = []

    def engine() -> Any:
        from vitlens.store.engine import Engine

        if not made:
            bar.close()  # the spinner has the screen now; the next update opens it again
            model = open_model(embedding.model, modalities, embedding.device)
            made.append(Engine(model, embedding.batch_size, embedding.num_workers, embedding.dtype))
        return made[0]

    return engine


def say_filled(index: Index, filled: Filled, loss: Any) -> None:
    """What became of everything."""
    from vitlens.cli.console import say, say_failures

    added = filled.added
    more = [f"{added.known} known already"] * bool(added.known) + [f"{added.replaced} replaced"] * bool(added.replaced)
    more += [f"{len(filled.failures)} failed"] * bool(filled.failures)
    say(f"{index.path}: {', '.join([f'{added.added} added', *more])}; {len(index)} rows of {index.space.name}")
    if loss is not None:
        say(
            f"kept as {index.storage.kind}, {index.storage.width} of {index.space.dim} values: "
            f"recall@10 {loss.recall_at_10:.3f} of what whole float32 vectors find ({loss.queries} queries, {loss.rows} rows)"
        )
    say_failures(list(filled.failures))


def filled_dict(index: Index, filled: Filled, loss: Any) -> dict[str, Any]:
    """The same as JSON types."""
    added = filled.added
    counts = {"added": added.added, "known": added.known, "replaced": added.replaced, "rows": len(index)}
    errors = [failure.to_dict() for failure in filled.failures]
    return {"index": index.path, "space": index.space.name, **counts, "loss": loss and loss.to_dict(), "errors": errors}
