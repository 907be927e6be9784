"""The tutorials of the documentation: notebooks, executed while it is built; called by mkdocs (`hooks` in mkdocs.yml).

Their sources are docs/tutorials/*.py in jupytext's percent format. All run in one kernel, which starts with the build and works
beside the pictures; each in an empty folder, its names forgotten before the next. A page is made of each; the notebook with its
outputs lies beside it, and so do the .html files that it wrote: other pages show them. A cell that raises ends the build.

    python .ci/docs_tutorials.py [NAME ...]      run them, say how long each took
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from nbformat import NotebookNode

SOURCES = Path(__file__).parents[1] / "docs" / "tutorials"
BEGIN = """%reset -sf
import os
from vitlens.libraries import load_open3d
load_open3d()  # it greets Jupyter
os.makedirs({folder!r})
os.chdir({folder!r})
del os, load_open3d"""
SECONDS = 600
"""For one cell, on a machine that does much else."""


@dataclass(frozen=True)
class Tutorial:
    """An executed notebook: its name, the notebook, the .html files that it wrote by their names, and how long it ran."""

    name: str
    notebook: NotebookNode
    written: dict[str, bytes]
    seconds: float


class _State:
    running: Future[list[Tutorial]] | None = None


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Begin to execute, in a process of its own, while the build goes on."""
    _State.running = ThreadPoolExecutor(1).submit(lambda: list(executed(sorted(SOURCES.glob("*.py")))))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page and a notebook for each; the page shows the notebook's pictures."""
    from mkdocs.structure.files import File

    assert _State.running is not None
    for path in SOURCES.glob("*.py"):
        if (source := files.get_file_from_path(f"tutorials/{path.name}")) is not None:
            files.remove(source)
    for tutorial in _State.running.result():
        text, pictures = page_of(tutorial)
        files_of = {f"{tutorial.name}-{name}": content for name, content in {**pictures, **tutorial.written}.items()}
        made: dict[str, Any] = {f"{tutorial.name}.md": text, f"{tutorial.name}.ipynb": notebook_text(tutorial), **files_of}
        for name, content in made.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def executed(sources: Sequence[Path]) -> Iterator[Tutorial]:
    """Each source as a notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    import jupytext
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell

    with tempfile.TemporaryDirectory(prefix="vitlens-tutorials-") as folder:
        kernel = KernelManager(kernel_name="python3")
        environment = {"VITLENS_CACHE": folder, "PYTHONPATH": os.pathsep.join([str(SOURCES.parents[1]), *sys.path])}
        kernel.start_kernel(env={**os.environ, **environment}, cwd=folder, extra_arguments=["--log-level=ERROR"])
        try:
            for source in sources:
                begun = time.monotonic()
                notebook = jupytext.read(source)
                own = Path(folder) / source.stem
                notebook.cells.insert(0, new_code_cell(BEGIN.format(folder=str(own))))
                NotebookClient(notebook, km=kernel, timeout=SECONDS, startup_timeout=SECONDS, coalesce_streams=True).execute()
                del notebook.cells[0]
                written = {path.name: path.read_bytes() for path in own.glob("*.html")}
                yield Tutorial(source.stem, notebook, written, time.monotonic() - begun)
        finally:
            kernel.shutdown_kernel(now=True)


def page_of(tutorial: Tutorial) -> tuple[str, dict[str, bytes]]:
    """The page as Markdown, with a line to download the notebook below its title, and its pictures by name."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_notebook_node(tutorial.notebook)
    for name in resources["outputs"]:
        text = text.replace(f"![png]({name})", f"![what the cell shows]({tutorial.name}-{name})")
    title, _, rest = text.partition("\n")
    while not title:
        title, _, rest = rest.partition("\n")
    download = f"[Download this notebook]({tutorial.name}.ipynb). It was run while this page was built."
    return f"{title}\n\n{download}\n{rest}", resources["outputs"]


def notebook_text(tutorial: Tutorial) -> str:
    """The notebook as the file that Jupyter opens."""
    import nbformat

    return nbformat.writes(tutorial.notebook)


def main(names: Sequence[str]) -> None:
    for tutorial in executed([SOURCES / f"{name}.py" for name in names] or sorted(SOURCES.glob("*.py"))):
        print(f"== {tutorial.name}: {tutorial.seconds:.1f} s", flush=True)
        print(page_of(tutorial)[0])


if __name__ == "__main__":
    main(sys.argv[1:])
