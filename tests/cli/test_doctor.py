"""`vitlens doctor`: what works is said to work, what is broken is named with the command that repairs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vitlens import devices
from vitlens.cli import doctor
from vitlens.cli.app import app
from vitlens.errors import MissingDependencyError
from vitlens.modality import list_modalities


def checks(group: str) -> dict[str, doctor.Check]:
    made = {"packages": doctor.check_packages, "modalities": doctor.check_modalities, "hub": doctor.check_hub}
    return {check.name: check for check in made.get(group, doctor.check_weights)()}


def test_the_report_is_json_and_covers_everything() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    report = json.loads(result.stdout)
    assert (result.exit_code, report["broken"]) == (0, False), report
    groups = {check["group"] for check in report["checks"]}
    assert groups == {"packages", "device", "modalities", "hub", "weights"}
    modalities = {check["name"]: check for check in report["checks"] if check["group"] == "modalities"}
    assert set(modalities) == set(list_modalities())
    assert all(check["state"] == "ok" and "became" in check["detail"] for check in modalities.values())
    assert {check["name"]: check["state"] for check in report["checks"]}["vitlens-tiny-random"] == "ok"


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["surely-not-there>=2", 'nor-this; extra == "hf"', 'nor-that>=1; extra == "train"', "numpy>=1000"]
    requirements += ['skipped; extra == "docs"', 'vitlens[hf,train]; extra == "all"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    found = checks("packages")
    assert found["surely-not-there"].state == "broken"
    assert found["surely-not-there"].fix == 'pip install "surely-not-there>=2"'
    assert found["numpy"].state == "broken" and ">=1000 is needed" in found["numpy"].detail
    assert found["nor-this"].state == "note" and found["nor-this"].fix == 'pip install "vitlens[hf]"'
    assert found["nor-that"].state == "note" and found["nor-that"].fix == 'pip install "vitlens[train]"'
    assert "skipped" not in found


def test_a_package_that_is_required_and_in_an_extra_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["numpy>=1", 'numpy>=1; extra == "toybox"'])
    assert [check.name for check in doctor.check_packages()].count("numpy") == 1


def test_a_library_that_does_not_import_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    assert "nms does not exist" in checks("packages")["import torchvision"].detail


def test_a_torchaudio_of_another_torch_is_a_fault_and_none_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError(f"{name} was compiled with another CUDA")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.11.0")
    (check,) = doctor.check_torchaudio()
    assert (check.state, check.fix) == ("broken", "pip uninstall torchaudio")
    assert "2.11.0" in check.detail and "another CUDA" in check.detail and "transformers" in check.detail

    def absent(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", absent)
    assert list(doctor.check_torchaudio()) == []


def test_a_gpu_without_a_usable_driver_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "nvidia_gpus", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = {check.name: check for check in doctor.check_devices()}
    assert found["cuda"].state == "broken" and "13.2" in found["cuda"].detail and "driver" in found["cuda"].fix


@pytest.mark.parametrize(
    ("error", "detail", "fix"),
    [
        (MissingDependencyError("audio files need soundfile: pip install soundfile"), "pip install soundfile", ""),
        (ModuleNotFoundError("No module named 'av.x'", name="av.x"), "No module named", "pip install av"),
        (ValueError("oops\nand more"), "ValueError: oops and more", "vitlens modalities image"),
    ],
)
def test_a_sensor_that_fails_is_broken_and_the_others_are_still_tried(
    error: Exception, detail: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitlens.modality import modality_class

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(modality_class("image"), "read", fail)
    check = doctor.check_modality("image")
    assert check.state == "broken" and detail in check.detail and check.fix == fix
    assert doctor.check_modality("text").state == "ok"


def test_weights_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITLENS_WEIGHTS", str(tmp_path / "gone"))
    assert checks("hub")["VITLENS_WEIGHTS"].state == "broken"
    assert checks("hub")["network"].detail.startswith("HF_HUB_OFFLINE")
    assert checks("weights")["vitlens-l-audio"].state == "note"
    monkeypatch.setenv("VITLENS_WEIGHTS", str(tmp_path))
    (tmp_path / "vitlensL_audio.pt").write_bytes(b"weights")
    assert checks("hub")["VITLENS_WEIGHTS"].state == "ok"
    found = checks("weights")
    assert found["vitlens-l-audio"].state == "ok"
    assert found["vitlens-l-eeg"].state == "note" and "vitlensL_eeg.pt" in found["vitlens-l-eeg"].detail


def test_something_broken_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [doctor.Check("packages", "x", "broken", "not installed", "pip install x")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "-> pip install x" in result.stdout and "1 to repair" in result.stdout


def test_a_sensor_of_somebody_else_that_cannot_be_imported_is_reported_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "my_radar.py").write_text("import surely_not_there\n")
    info = tmp_path / "my_radar-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_radar\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[vitlens.modalities]\nradar = my_radar:Radar\n")
    code = (
        "import json\nfrom vitlens.cli.modalities import about_modality, modality_pairs\n"
        "from vitlens.cli.doctor import check_modality\n"
        "check = check_modality('radar')\n"
        "known = about_modality('radar')\n"
        "print(json.dumps([check.state, check.detail, check.fix, known, modality_pairs(known)]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    state, detail, fix, known, shown = json.loads(out.stdout)
    assert (state, fix) == ("broken", "pip install surely_not_there")
    assert "surely_not_there" in detail
    assert known["package"] == "my_radar 2.0" and "surely_not_there" in known["problem"]
    assert ["problem", known["problem"]] in shown


def test_a_sensor_that_does_not_fit_its_own_modembed_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitlens.modality import modality_class

    cls = modality_class("pressure")
    transform = cls.transform
    monkeypatch.setattr(cls, "transform", lambda self, sample, *, train=False: transform(self, sample)[:-1])
    check = doctor.check_modality("pressure")
    assert check.state == "broken" and "does not take what transform gives, [7, 32, 32]" in check.detail
