"""Files that appear whole or not at all, also where the disk takes no more: the error names the file, nothing is left of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vitlens.disk import atomic, write_text

SCRIPT = """
import json, resource, sys
from pathlib import Path
import torch
from vitlens.checkpoint import save_tensors
from vitlens.disk import atomic
from vitlens.train.logs import CsvLog

folder, weights = Path(sys.argv[1]), torch.zeros(100_000)

def pickled(path):
    with atomic(path) as part:
        torch.save({"a": weights}, part)

def text(path):
    with atomic(path) as part:
        part.write_text("a" * 200_000)

def curve(path):
    log = CsvLog(path, ("step", "loss"), step=0)
    for step in range(20_000):
        log.add({"step": step, "loss": 1.0})

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
said = {}
tensors = lambda path: save_tensors(path, {"a": weights})
for name, write in {"a.pt": pickled, "a.safetensors": tensors, "a.txt": text, "a.csv": curve}.items():
    try:
        write(folder / name)
    except OSError as error:
        said[name] = [error.filename, str(error.strerror)]
print(json.dumps(said))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does: run it there")
def test_a_disk_that_takes_no_more_names_the_file_whoever_writes(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"the one before")
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert {name: path for name, (path, _) in said.items()} == {name: str(tmp_path / name) for name in said}
    assert set(said) == {"a.pt", "a.safetensors", "a.txt", "a.csv"}
    assert said["a.safetensors"][1] == said["a.txt"][1] == "File too large"
    assert "is the disk full?" in said["a.pt"][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.pt"]
    assert (tmp_path / "a.pt").read_bytes() == b"the one before"


def test_any_other_error_of_a_writer_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), atomic(tmp_path / "a.txt"):
        raise RuntimeError("a bug")
    assert not list(tmp_path.iterdir())


def test_bytes_of_a_name_that_are_no_utf8_are_kept_in_json(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", json.dumps({"item": "caf\udce9 Zoë"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"item": "caf\udce9 Zoë"}
