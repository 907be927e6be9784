"""Two processes find what one finds, each with a part of the work; also where they share no folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import evaluation_processes
from tests.benchmarks.evaluation_world import write_world

ROOT = Path(__file__).parents[2]


def test_two_processes_are_like_one(tmp_path: Path) -> None:
    root = write_world(tmp_path / "tiny-shapes")
    (root / "pictures" / "005.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", evaluation_processes.__name__, str(root), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one, computed = evaluation_processes.results(root, tmp_path / "one")
    one = json.loads(json.dumps(one))
    assert one["tiny-shapes"]["skipped"][0]["item"] == "005" and "005.png" in one["error"]["says"]
    two = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for found in two:
        assert found["shared"] == one
        assert found["apart"] == {name: one[name] for name in (*evaluation_processes.APART, "error")}
    for name, total in computed.items():
        shares = [found["computed"][name] for found in two]
        assert sum(shares) == total and (total < 4 or min(shares) > 0), f"{name}: each does a part, none twice"
