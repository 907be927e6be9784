"""The alias: one set of modules under two names, and a refusal where the real package came first."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vitlens.imagebind
from vitlens.errors import VitlensError
from vitlens.imagebind import AliasError, alias, chosen, install, uninstall


@pytest.fixture
def real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another package called imagebind, on the path and not yet imported."""
    (tmp_path / "imagebind").mkdir()
    (tmp_path / "imagebind" / "__init__.py").write_text("REAL = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("imagebind", None)


def test_both_names_give_the_same_modules() -> None:
    spec = vitlens.imagebind.data.__spec__
    install()
    import imagebind
    import imagebind.data
    from imagebind.models import imagebind_model
    from imagebind.models.imagebind_model import ImageBindModel, ModalityType, imagebind_huge

    from vitlens.imagebind.models import imagebind_model as ours

    assert imagebind is vitlens.imagebind
    assert imagebind.data is vitlens.imagebind.data
    assert imagebind_model is ours is imagebind.imagebind_model
    assert (ImageBindModel, imagebind_huge) == (ours.ImageBindModel, ours.imagebind_huge)
    assert imagebind.ModalityType is ModalityType
    assert imagebind.data.__spec__ is spec, "the module keeps the spec it was loaded with"
    assert importlib.reload(imagebind.data) is vitlens.imagebind.data


def test_installing_twice_is_no_harm_and_uninstalling_takes_it_back() -> None:
    install()
    install()
    assert sum(finder is alias._finder for finder in sys.meta_path) == 1
    importlib.import_module("imagebind.models")
    uninstall()
    assert alias._finder not in sys.meta_path
    assert importlib.util.find_spec("imagebind") is None
    assert "vitlens.imagebind.models" in sys.modules


def test_it_refuses_when_the_real_package_is_imported(real_package: Path) -> None:
    assert importlib.import_module("imagebind").REAL
    with pytest.raises(AliasError, match=r"already imported, from .*imagebind.__init__.py.*python -m vitlens.imagebind") as found:
        install()
    assert isinstance(found.value, VitlensError)
    assert isinstance(found.value, ImportError)
    assert str(real_package) in str(found.value)


def test_it_wins_over_a_real_package_that_is_only_installed(real_package: Path) -> None:
    install()
    assert importlib.import_module("imagebind") is vitlens.imagebind


def test_a_part_of_imagebind_that_is_not_here_is_named() -> None:
    install()
    with pytest.raises(ModuleNotFoundError, match=r"'imagebind.models.multimodal_preprocessors'.*imagebind.data"):
        importlib.import_module("imagebind.models.multimodal_preprocessors")
    with pytest.raises(AttributeError, match="no attribute 'bpe'"):
        vitlens.imagebind.bpe  # noqa: B018


def test_install_can_name_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(alias.ENV)
    assert chosen.default_model() == "vitlens-l"
    install("vitlens-tiny-random")
    assert chosen.default_model() == "vitlens-tiny-random"


def test_importing_it_loads_neither_torch_nor_a_model() -> None:
    code = "import sys, vitlens.imagebind as ours; ours.install(); import imagebind; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
