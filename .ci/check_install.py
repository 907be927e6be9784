"""Run by an environment that holds vitlens as a wheel: all of it is there, nothing else is, and importing it is light."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, files
from importlib.util import find_spec
from pathlib import Path

MODALITIES = {"image", "text", "video", "point_cloud", "depth", "audio", "tactile", "eeg", "thermal", "imu", "pressure"}
FOLDERS = ("modalities", "adapters", "benchmarks")
IMPORT_LIMIT = 0.5  # seconds, the fastest of five


def main() -> None:
    import vitlens

    home = Path(vitlens.__file__).parent
    assert home.is_relative_to(sys.prefix), f"vitlens comes from {home}, not from this environment"
    assert "torch" not in sys.modules, "import vitlens imports torch"
    assert (home / "py.typed").is_file(), "py.typed is not in the wheel"
    assert all((home / folder / "__init__.py").is_file() for folder in FOLDERS), "a folder is not in the wheel"

    tops = {path.parts[0] for path in files("vitlens") or () if path.parts[0] != ".."}
    assert tops == {"vitlens", f"vitlens-{vitlens.__version__}.dist-info"}, f"top-level names in the wheel: {sorted(tops)}"
    stray = [name for name in FOLDERS if (home.parent / name).exists()]
    assert not stray, f"top-level packages in site-packages: {stray}"

    found = {point.name: point.load().name for point in entry_points(group="vitlens.modalities")}
    assert found == {name: name for name in MODALITIES}, f"modalities: {found}"

    # Sound is heard without torchaudio, which is an extra.
    assert find_spec("torchaudio") is None, "the wheel brought torchaudio, which no torch after 2.11 has"
    model = vitlens.load("vitlens-toybox", device="cpu")
    sizes = {name: tuple(model.encode({name: [model.modality(name).example()]})[name].shape) for name in model.modalities}
    assert set(sizes.values()) == {(1, 128)}, f"the shipped model's embeddings: {sizes}"

    fastest = min(import_seconds() for _ in range(5))
    assert fastest < IMPORT_LIMIT, f"import vitlens takes {fastest:.2f} s, the limit is {IMPORT_LIMIT} s"
    print(f"vitlens {vitlens.__version__}: {len(found)} modalities, imported in {fastest:.3f} s")


def import_seconds() -> float:
    """Seconds that a new interpreter spends in `import vitlens`."""
    code = "import time; start = time.perf_counter(); import vitlens; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
