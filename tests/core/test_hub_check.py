"""Damaged downloads: told apart from whole files by the Hub's own sums, also without network; and fetched again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import vitlens
from tests import golden
from tests.local_hub import LocalHub, local_hub
from vitlens import zoo
from vitlens.cards import ModelCard, Weights
from vitlens.cli.models import app
from vitlens.errors import CheckpointError, ModelError
from vitlens.hub import HubFile, fetch
from vitlens.hub_check import check_file

NAME, FILE = "golden-depth", "depth.pt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("made") / FILE
    torch.save({"state_dict": golden.official_state("depth")}, file)
    return file.read_bytes()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    spec = golden.model_spec("depth")
    file = Weights("hub", ("depth", "image", "text"), FILE, other_names=("Depth.pt",), repo="me/mine", layout="tri_tower")
    made = ModelCard(spec=spec, summary="made up", weights=(file,), source="tests")
    monkeypatch.setattr(zoo, "all_cards", lambda: {made.name: made})
    return made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: bytes, card: ModelCard) -> Iterator[LocalHub]:
    with local_hub() as made:
        made.add("me/mine").files = {FILE: whole, "small.json": b"{}"}
        made.here(monkeypatch, tmp_path / "cache")
        monkeypatch.delenv("VITLENS_WEIGHTS", raising=False)
        yield made


def downloaded() -> Path:
    return zoo.find_weights(vitlens.card(NAME).weights[0], vitlens.card(NAME))


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE = {"cut off": lambda data: data[: len(data) // 2], "a login page": lambda _: b"<!DOCTYPE html>", "empty": lambda _: b""}


@pytest.mark.parametrize("without_network", [False, True])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_download_is_named_with_what_to_do(
    kind: str, without_network: bool, hub: LocalHub, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloaded()
    path.resolve().write_bytes(DAMAGE[kind](whole))
    if without_network:
        offline(monkeypatch)
    with pytest.raises(CheckpointError, match="the download is damaged") as caught:
        vitlens.load(NAME, device="cpu")
    told = str(caught.value)
    assert f"delete {path.resolve()}" in told and f"`vitlens models {NAME} --redownload`" in told
    assert ("sha256 differs" if without_network else f"the Hub's is {len(whole):,}") in told


def test_deleting_what_is_named_brings_a_whole_one(hub: LocalHub) -> None:
    path = downloaded()
    path.resolve().write_bytes(b"junk")
    path.resolve().unlink()
    assert vitlens.load(NAME, modalities=["depth"], device="cpu").modalities == ["depth"]


def test_a_whole_file_that_is_no_weights_file_is_not_called_damaged(hub: LocalHub) -> None:
    hub.repositories["me/mine"].files[FILE] = b"the owner uploaded a text"
    with pytest.raises(CheckpointError, match="sha256 is the Hub's") as caught:
        vitlens.load(NAME, device="cpu")
    assert "damaged" not in str(caught.value)


def test_a_file_copied_by_hand_is_compared_with_the_hub(
    hub: LocalHub, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FILE).write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match=r"damaged .*delete .*depth\.pt, or put a whole copy there"):
        vitlens.load(NAME, weights=tmp_path, device="cpu")
    offline(monkeypatch)
    with pytest.raises(CheckpointError, match="1,000 bytes, nothing to compare with: HF_HUB_OFFLINE is set"):
        vitlens.load(NAME, weights=tmp_path, device="cpu")


def test_a_file_of_another_name_is_not_compared(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError) as caught:
        vitlens.load(NAME, weights=tmp_path / "mine.pt", device="cpu")
    assert "Hub" not in str(caught.value)


def test_the_sum_of_a_card_counts_before_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    (tmp_path / "file").write_bytes(b"abc")
    assert check_file(tmp_path / "file", sha256=hashlib.sha256(b"abc").hexdigest()).text == "sha256 is the card's"
    assert check_file(tmp_path / "file", sha256=hashlib.sha256(b"abd").hexdigest()).state == "damaged"
    assert check_file(tmp_path / "file").state == "unknown"


def test_small_files_are_named_by_gits_sum(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.etag = lambda data: hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    path = fetch(HubFile("me/mine", ("small.json",)), "a test")
    offline(monkeypatch)
    assert check_file(path).text == "sum (git's) is the Hub's"
    path.resolve().write_bytes(b"[]")
    assert check_file(path).state == "damaged"


def run(*arguments: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, [NAME, *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout else []


def test_verify_says_file_by_file_and_finds_a_single_bit(hub: LocalHub, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row["place"] for row in run("--verify")[1]] == ["not on this machine"]
    path = downloaded()
    code, [row] = run("--verify")
    assert (code, row["file"], row["state"], row["text"]) == (0, f"{FILE} (me/mine)", "ok", "sha256 is the Hub's")
    path.resolve().write_bytes(flipped(whole))
    assert vitlens.load(NAME, device="cpu")  # no reader notices
    for _ in range(2):
        code, [row] = run("--verify")
        assert (code, row["state"]) == (1, "damaged") and "sha256 differs" in row["text"]
        offline(monkeypatch)


def test_redownload_fetches_what_is_not_whole_and_only_that(hub: LocalHub, whole: bytes) -> None:
    assert run("--redownload")[1][0]["state"] == "ok"
    path = downloaded()
    fetched = hub.asked.count("GET /me/mine/resolve/main/depth.pt")
    assert run("--redownload")[0] == 0
    assert hub.asked.count("GET /me/mine/resolve/main/depth.pt") == fetched + 1  # the question for its first byte
    path.resolve().write_bytes(b"junk")
    code, [row] = run("--redownload")
    assert (code, row["state"], path.read_bytes()) == (0, "ok", whole)


def test_redownload_leaves_what_was_put_there_by_hand(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_bytes(b"junk")
    monkeypatch.setenv("VITLENS_WEIGHTS", str(tmp_path))
    result = CliRunner().invoke(app, [NAME, "--redownload"])
    assert isinstance(result.exception, ModelError) and "put there by hand" in str(result.exception)
    assert (tmp_path / FILE).read_bytes() == b"junk"


def test_a_newer_version_on_the_hub_is_no_damage(hub: LocalHub, whole: bytes) -> None:
    downloaded()
    hub.repositories["me/mine"].files[FILE] = flipped(whole)
    assert run("--verify")[1][0]["text"] == "sha256 is the Hub's, which has another version of it by now"


def test_another_spelling_is_found_in_folders_in_the_cache_and_on_the_hub(
    hub: LocalHub, card: ModelCard, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["me/mine"].files = {"Depth.pt": whole}
    assert downloaded().name == "Depth.pt"
    offline(monkeypatch)
    assert downloaded().name == "Depth.pt"
    for place in (tmp_path / "flat", tmp_path / "tree" / "mine"):
        place.mkdir(parents=True)
        (place / "Depth.pt").write_bytes(whole)
    assert zoo.find_weights(card.weights[0], card, tmp_path / "flat") == tmp_path / "flat" / "Depth.pt"
    monkeypatch.setenv("VITLENS_WEIGHTS", str(tmp_path / "tree"))
    assert downloaded() == tmp_path / "tree" / "mine" / "Depth.pt"
    assert zoo.card_of_file(tmp_path / "flat" / "Depth.pt") is card


def test_a_card_may_pin_a_revision(hub: LocalHub, card: ModelCard) -> None:
    pinned = replace(card.weights[0], revision="0123456789abcdef0123456789abcdef01234567")
    assert zoo.find_weights(pinned, card).parent.name == pinned.revision
    with pytest.raises(ModelError, match="no such revision"):
        zoo.find_weights(replace(pinned, revision="f" * 40), card)


def test_both_public_spellings_of_the_objaverse_file_are_on_its_card() -> None:
    [file] = vitlens.card("vitlens-l-pc-objaverse").weights
    assert set(file.names) == {"Datacomp_L14_objaverse.pt", "Datacomp_L14_Objaverse.pt"}


def test_a_repository_in_the_native_format_is_checked_too(hub: LocalHub, tmp_path: Path) -> None:
    model = vitlens.ViTLens.from_spec(golden.model_spec("depth").restricted(["depth"]))
    model.save_pretrained(tmp_path / "native")
    hub.add("me/native", tmp_path / "native")
    assert vitlens.load("me/native", device="cpu").modalities == ["depth"]
    path = fetch(HubFile("me/native", ("model.safetensors",)), "a test")
    path.resolve().write_bytes(path.read_bytes()[:999])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: size 999 bytes.*hf download me/native --force-download"):
        vitlens.load("me/native", device="cpu")
