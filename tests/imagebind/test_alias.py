"""The alias: one set of modules under two names, and a refusal where the real package came first."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vitlens.imagebind
from vitlens.errors import VitlensError
from vitlens.imagebind import AliasError, alias, chosen, data, imagebind_model, install, uninstall


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


@pytest.mark.parametrize("name", ["ImageBind", "image_bind", "some_project.imagebind"])
def test_other_names_of_imagebind_are_answered_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_project").mkdir()
    (tmp_path / "some_project" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    install(alias=name)
    assert importlib.import_module(f"{name}.data") is vitlens.imagebind.data
    names: dict[str, Any] = {}
    exec(f"from {name}.models.imagebind_model import ModalityType\nimport {name}.data as data", names)
    assert names["ModalityType"] is vitlens.imagebind.ModalityType
    with pytest.raises(ModuleNotFoundError, match=f"{name} is vitlens's drop-in here, which has {name}.data"):
        importlib.import_module(f"{name}.video")
    assert importlib.util.find_spec("imagebind") is None, "only what was asked for"
    uninstall()
    assert not any(loaded == name or loaded.startswith(f"{name}.") for loaded in sys.modules)
    sys.modules.pop("some_project", None)


def test_a_relative_import_of_a_copy_within_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "painter" / "imagebind").mkdir(parents=True)
    (tmp_path / "painter" / "__init__.py").write_text("from . import imagebind\n", encoding="utf-8")
    (tmp_path / "painter" / "imagebind" / "__init__.py").write_text("raise RuntimeError('the copy')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    install(alias="painter.imagebind")
    assert importlib.import_module("painter").imagebind is vitlens.imagebind
    sys.modules.pop("painter")


def test_a_clone_with_the_package_in_it() -> None:
    install(alias="ImageBind")
    names: dict[str, Any] = {}
    exec("from ImageBind.imagebind import data\nfrom ImageBind.imagebind.models import imagebind_model", names)
    assert names["data"] is vitlens.imagebind.data
    assert names["imagebind_model"] is vitlens.imagebind.imagebind_model


@pytest.mark.parametrize("name", ["", "image-bind", "a..b", "vitlens.imagebind", 3])
def test_an_alias_is_the_name_of_a_module(name: Any) -> None:
    with pytest.raises(AliasError, match="alias must be the name of a module"):
        install(alias=name)


def test_another_name_is_refused_too_when_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image_bind.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("image_bind")
    with pytest.raises(AliasError, match=r"image_bind is already imported, from .*before anything imports image_bind"):
        install(alias="image_bind")
    sys.modules.pop("image_bind")


ABSENT = {
    "imagebind": {"bpe": "it has AliasError, install"},
    "imagebind.data": {
        "EncodedVideo": "it is pytorchvideo's",
        "pv_transforms": "it is pytorchvideo's",
        "pkg_resources": "return_bpe_path",
        "load_and_transform_smell": r"load_and_transform\(modality, items, device\)",
    },
    "imagebind.models": {"lora": "imagebind_model, helpers, multimodal_preprocessors and transformer"},
    "imagebind.models.imagebind_model": {
        "imagebind_huge_pth": r"weights of ImageBind do not load here: imagebind_huge\(pretrained=True, model=",
        "SimpleTransformer": r"model\.vitlens\.encoders",
    },
    "imagebind.models.helpers": {"EinOpsRearrange": "einops", "SelectElement": "LearnableLogitScaling and QuickGELU are here"},
    "imagebind.models.multimodal_preprocessors": {"PadIm2Video": "only SimpleTokenizer is here", "get_pairs": "open_clip"},
    "imagebind.models.transformer": {"BlockWithMasking": "timm", "Attention": r"model\.vitlens\.encoders"},
}


@pytest.mark.parametrize(("module", "name", "advice"), [(m, n, a) for m, names in ABSENT.items() for n, a in names.items()])
def test_a_name_that_is_not_here_says_what_to_use(module: str, name: str, advice: str) -> None:
    install()
    with pytest.raises(ImportError, match=f"no attribute '{name}': .*{advice}") as found:
        exec(f"from {module} import {name}", {})
    assert isinstance(found.value, VitlensError)
    home = importlib.import_module(module)
    assert not hasattr(home, name), "asked as any module is, it answers as any module does"
    with pytest.raises(AttributeError, match=advice):
        getattr(home, name)


def test_a_module_that_is_not_here_says_what_to_use() -> None:
    install()
    with pytest.raises(ModuleNotFoundError, match=r"no module 'imagebind.models.lora'.*imagebind.data and imagebind.models"):
        importlib.import_module("imagebind.models.lora")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("imagebind.data.video")


def test_the_top_has_what_programs_take_from_it() -> None:
    install()
    import imagebind
    from imagebind import ImageBindModel, imagebind_huge, load_and_transform_audio_data, load_and_transform_text

    assert (ImageBindModel, imagebind_huge) == (imagebind_model.ImageBindModel, imagebind_model.imagebind_huge)
    assert load_and_transform_text is data.load_and_transform_text
    assert load_and_transform_audio_data is imagebind.data.load_and_transform_audio_data
    loaders = {name for name in vars(data) if name.startswith("load_and_transform")}
    assert loaders == {name for name in dir(imagebind) if name.startswith("load_and_transform")}
    assert imagebind.__version__ == vitlens.__version__


def test_install_can_name_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(alias.ENV)
    assert chosen.default_model() == "vitlens-l"
    install("vitlens-tiny-random")
    assert chosen.default_model() == "vitlens-tiny-random"


def test_importing_it_loads_neither_torch_nor_a_model() -> None:
    code = "import sys, vitlens.imagebind as ours; ours.install(); import imagebind; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
