"""Settings of every test: offline, one thread, nothing written outside the temporary folder. Set before torch is imported."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

import pytest

# A fixed folder, so that matplotlib and numba build their caches once and not in every worker.
_SCRATCH = Path(tempfile.gettempdir()) / f"vitlens-tests-{getpass.getuser()}"
_HOMES = {"MPLCONFIGDIR": "matplotlib", "_MNE_FAKE_HOME_DIR": "mne", "HF_HOME": "huggingface", "NUMBA_CACHE_DIR": "numba"}
for _variable, _folder in _HOMES.items():
    (_SCRATCH / _folder).mkdir(parents=True, exist_ok=True)
    os.environ[_variable] = str(_SCRATCH / _folder)

# Embeddings are kept by content: a folder that outlives the run would hide what is computed wrongly now.
_CACHE = tempfile.TemporaryDirectory(prefix="vitlens-tests-cache-")
os.environ["VITLENS_CACHE"] = _CACHE.name

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # HF_HUB_OFFLINE=0 with -m network

# pytest-xdist runs one worker per core; more threads would only wait for each other.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of golden numbers of the public reference."""
    return Path(__file__).parent / "reference" / "vitlens"
