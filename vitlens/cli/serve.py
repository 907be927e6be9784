"""`vitlens serve`: a model as a service that embedding clients can talk to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.cli.chat import LensOption, Question, answer, open_host
from vitlens.cli.options import MODEL, BatchOption, DeviceOption, DtypeOption, ModelOption, named_values, new_app
from vitlens.errors import OptionError
from vitlens.libraries import check_installed
from vitlens.sources import check_file

if TYPE_CHECKING:
    from vitlens.store.items import Item

app = new_app()
EXAMPLES = 3
"""Of every modality."""
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")


@app.command()
def serve(
    model: ModelOption = MODEL,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    index: Annotated[str | None, typer.Option(help="An index of the model's space, for /v1/search.")] = None,
    scene: Annotated[Path | None, typer.Option(help="A scene of the model's space, for /v1/scene.")] = None,
    host_model: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="A language model for /v1/chat/completions, as vitlens chat --model takes it."),
    ] = None,
    lens: LensOption = None,
    examples: Annotated[
        Path | None, typer.Option(help="A folder or a manifest with files that the page offers to begin with.")
    ] = None,
    alias: Annotated[list[str] | None, typer.Option(help="A further name of the model for clients; repeated.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file with the tokens that are accepted, one a line.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A host that addresses in requests may name (*.example.org: all below); repeated."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="An origin whose pages may use the service; repeated.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="A name that this host is called by, behind a proxy for instance; repeated.")
    ] = None,
    readers: Annotated[int, typer.Option(min=1, help="Processes that read and preprocess files.")] = 2,
    batch_size: BatchOption = 32,
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    max_file_mb: Annotated[float, typer.Option(min=0.001, help="The largest file.")] = 64,
    max_request_mb: Annotated[float, typer.Option(min=0.001, help="The largest request.")] = 128,
    max_items: Annotated[int, typer.Option(min=1, help="Items of a request.")] = 2048,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; above it comes 429.")] = 2048,
    queue_mb: Annotated[float, typer.Option(min=0.001, help="Their bodies together.")] = 1000,
    upload_seconds: Annotated[float, typer.Option(help="Without a byte, and for all of a request beside 1 s per 10 kB.")] = 30,
    read_seconds: Annotated[float, typer.Option(help="For reading one file, beside a second per MB.")] = 30,
    read_mb: Annotated[float, typer.Option(min=1, help="Memory that reading one file may take.")] = 2000,
    engine: Annotated[str, typer.Option(help="uvicorn: one process. ray: replicas under Ray Serve.")] = "uvicorn",
    replicas: Annotated[int, typer.Option(min=1, help="Replicas at most, as many as the queue asks for (--engine ray).")] = 1,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve a model to clients of OpenAI's, vLLM's, infinity's, Cohere's and Weaviate's embedding interfaces, for every sensor.

    It listens while the model is loaded, and finishes what it accepted after Ctrl-C or SIGTERM. Logs are JSON lines.

    **Examples**

    vitlens serve --model vitlens-toybox

    vitlens serve --model vitlens-toybox --examples demo

    curl http://127.0.0.1:8000/v1/embeddings -F audio=@dog.wav
    """
    from vitlens import checks
    from vitlens.cli.console import say

    check_installed("vitlens serve", _PACKAGES, "serve")
    from vitlens.serve.server import LOOPBACK, listening, run
    from vitlens.serve.service import Service
    from vitlens.serve.settings import MB, Limits, Settings

    checks.one_of("--engine", engine, ("uvicorn", "ray"))
    if engine == "uvicorn" and replicas > 1:
        raise OptionError("--replicas is for --engine ray: uvicorn serves from one process")
    checks.one_of("--log-level", log_level, ("debug", "info", "warning", "error"))
    limits = Limits(
        file_bytes=round(max_file_mb * MB),
        request_bytes=round(max_request_mb * MB),
        items=max_items,
        queue=queue,
        queue_bytes=round(queue_mb * MB),
        upload_seconds=upload_seconds,
        read_seconds=read_seconds,
        read_bytes=round(read_mb * MB),
    )
    settings = Settings(
        model=model,
        device=device,
        dtype=dtype,
        aliases=tuple(alias or ()),
        chat=partial(open_chat, host_model, named_values("--lens", lens)) if host_model else None,
        index=index,
        scene=scene,
        examples=examples_of(examples),
        batch_size=batch_size,
        readers=readers,
        tokens=read_tokens(token_file),
        hosts=tuple(allow_host or ()),
        origins=tuple(cors_origin or ()),
        names=(*LOOPBACK, *(name or ())) if host in LOOPBACK else tuple(name or ()),
        limits=limits,
    )
    if engine == "ray":
        from vitlens.serve import cluster

        say(f"{model} at http://{host}:{port}, up to {replicas} replicas")
        cluster.run(settings, host, port, replicas)
        return
    listener = listening(host, port)
    shown = f"[{host}]" if ":" in host else host
    say(f"{model} at http://{shown}:{listener.getsockname()[1]}")
    run(Service(settings), listener, log_level=log_level)


class Answering:
    """A host of `vitlens chat`, as the service asks it."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.streams: Collection[str] = list(host.streams)

    def answer(
        self, question: str, files: Mapping[str, list[str]], read: Mapping[str, Mapping[str, Any]], **options: Any
    ) -> list[str]:
        """The host's answers, as the command gives them."""
        return answer(self.host, question, Question(dict(files), read, options))


def open_chat(model: str, lenses: Mapping[str, str]) -> Answering:
    """Load a host; at the start of each process that serves."""
    return Answering(open_host(model, lenses=lenses))


def examples_of(place: Path | None) -> tuple[Item, ...]:
    """What a manifest, the manifests in a folder, or the folder's own files name: some of every modality, in their order.

    Raises:
        InputError: no such file or folder, or nothing of a known modality in it.
    """
    if place is None:
        return ()
    from vitlens.cli.inputs import gather
    from vitlens.store.manifest import MANIFEST_TYPES

    manifests = sorted(path for kind in MANIFEST_TYPES for path in place.glob(f"*.{kind}")) if place.is_dir() else [place]
    found = [item for path in manifests for item in gather(manifest=path).items] if manifests else gather([str(place)]).items
    seen: Counter[str] = Counter()
    chosen = []
    for item in found:
        seen[item.modality] += 1
        if seen[item.modality] <= EXAMPLES:
            chosen.append(item)
    return tuple(chosen)


def read_tokens(file: Path | None) -> frozenset[str]:
    """The tokens in a file, one a line; empty lines and what begins with # are passed over.

    Raises:
        InputError: no such file.
        OptionError: no token in it: everybody would be let in.
    """
    if file is None:
        return frozenset()
    check_file(file, accepted="a text file with a token a line")
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    tokens = frozenset(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise OptionError(f"--token-file {file}: no token in it")
    return tokens
