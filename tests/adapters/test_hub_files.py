"""Hosts and decoders from a Hub: several repositories in turn, and what is said of gated, missing and private ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters import tiny_hosts
from tests.adapters.generate import tiny_diffusers
from tests.local_hub import TOKEN, LocalHub, local_hub
from vitlens.adapters.generate.decoders import load_decoder
from vitlens.adapters.host_files import HostFiles
from vitlens.errors import ModelError

SCRIPT = """
import json, os
from dataclasses import replace
from vitlens.adapters.chat.llava import LlavaAdapter
from vitlens.adapters.generate.decoder_cards import decoder_card
from vitlens.adapters.generate.pipelines import load_pipeline
from vitlens.errors import VitlensError

def tell(call):
    try:
        call()
        return "fine"
    except VitlensError as error:
        return f"{type(error).__name__}: {error}"

def host(name, **options):
    return tell(lambda: LlavaAdapter.from_pretrained(name, device_map="cpu", **options))

def decoder(name, repo, *mirrors, **changes):
    card = replace(decoder_card(name), repo=repo, mirrors=mirrors, **changes)
    return tell(lambda: load_pipeline(card, device="cpu"))

names = ("me/llava", "me/gated", "me/none", "me/private", "me/half")
said = {name: host(name) for name in names}
said["revision"] = host("me/llava", revision="v9")
adapter = {"pretrained_model_name_or_path_or_dict": "me/half", "subfolder": "models", "weight_name": "one.bin"}
said |= {
    "moved": decoder("unclip-h", "me/new", "me/old"),
    "cached": decoder("unclip-h", "me/twin", "me/old"),
    "nowhere": decoder("unclip-h", "me/new", "me/gated"),
    "gated decoder": decoder("unclip-h", "me/gated"),
    "adapter": decoder("ip-adapter-sd15", "me/painter", adapter=adapter),
    "part": decoder("unclip-h", "me/old", parts={"unet": ("UNet2DConditionModel", "me/none")}),
}
os.environ["HF_TOKEN"] = "hf_wrong"
said["wrong token"] = host("me/private")
os.environ["HF_TOKEN"] = "hf_theRightOne"
said |= {f"{name} with an account": host(name) for name in ("me/gated", "me/private", "me/none")}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    place = tmp_path_factory.mktemp("repositories")
    model, parts = tiny_hosts.llava()
    for part in (model, *parts.values()):
        part.save_pretrained(place / "llava")
    tiny_diffusers.unclip().save_pretrained(place / "unclip")
    tiny_diffusers.stable_diffusion().save_pretrained(place / "painter")
    with local_hub() as made:
        whole = made.add("me/llava", place / "llava").files
        made.add("me/gated", gated=True).files = {**whole, **made.add("me/old", place / "unclip").files}
        made.add("me/twin").files = made.repositories["me/old"].files
        made.add("me/private", private=True).files = whole
        made.add("me/half").files = {name: data for name, data in whole.items() if not name.endswith(".safetensors")}
        made.add("me/painter", place / "painter")
        yield made


@pytest.fixture(scope="module")
def said(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each attempt ended in: one process asks the Hub for all of them."""
    found: dict[str, str] = hub.run(SCRIPT, home=tmp_path_factory.mktemp("home"))
    return found


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        ("me/gated", "the repository me/gated is gated: accept its terms on {url}/me/gated, and log in with that account"),
        ("me/none", "the Hub has no repository me/none, or it is private: check its name, or log in (hf auth login)"),
        ("me/private", "the Hub has no repository me/private, or it is private"),
        ("me/half", "LlavaForConditionalGeneration cannot be loaded (me/half does not appear to have a file named"),
        ("revision", "the repository me/llava has no such revision"),
        ("wrong token", "the Hub does not accept the token that is stored here: log in again (hf auth login)"),
        ("me/none with an account", "the Hub has no repository me/none"),
        (
            "gated decoder",
            "decoder unclip-h: me/gated: StableUnCLIPImg2ImgPipeline cannot be loaded: the repository me/gated",
        ),
        ("nowhere", "decoder unclip-h: none of 2 repositories gives it: me/new: "),
        ("nowhere", "the Hub has no repository me/new, or it is private"),
        ("nowhere", "accept its terms on {url}/me/gated"),
        ("adapter", "decoder ip-adapter-sd15: me/half: IP-Adapter cannot be loaded"),
        ("part", "me/none: UNet2DConditionModel cannot be loaded: the Hub has no repository me/none"),
    ],
)
def test_what_cannot_be_had_is_told_apart_and_never_called_offline(
    attempt: str, reason: str, said: dict[str, str], hub: LocalHub
) -> None:
    assert said[attempt].startswith("ModelError: ") and reason.format(url=hub.url) in said[attempt], said[attempt]
    assert "network" not in said[attempt]


def test_what_can_be_had_is_had(said: dict[str, str]) -> None:
    good = ("me/llava", "me/gated with an account", "me/private with an account", "moved", "cached")
    assert {name: said[name] for name in good} == dict.fromkeys(good, "fine")
    assert TOKEN in SCRIPT


def test_a_repository_that_is_on_this_machine_comes_before_a_download(said: dict[str, str], hub: LocalHub) -> None:
    assert said["cached"] == "fine" and any(line.startswith("GET /me/old/resolve/") for line in hub.asked)
    assert not any(line.startswith("GET /me/twin/resolve/") for line in hub.asked)


def test_without_network_it_is_said_what_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vitlens.adapters.generate.pipelines.offline", lambda: True)
    with pytest.raises(ModelError, match=r"where there is network \(hf download sd2-community/.*hf download stabilityai/"):
        load_decoder("unclip-h", device="cpu")


class Reader:
    """As a class of transformers: it has what the cache has, which is `here`."""

    here = False

    @classmethod
    def from_pretrained(cls, name: str, *, local_files_only: bool, revision: str) -> str:
        if cls.here or not local_files_only:
            return name
        raise OSError(f"{name} is not in the cache")


@pytest.fixture
def ill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub() as made:
        made.add("me/llava").files = {"config.json": b"{}"}
        made.add("me/gated", gated=True).files = {"config.json": b"{}"}
        made.here(monkeypatch, tmp_path)
        yield made


@pytest.mark.parametrize(
    ("status", "silent", "reason"),
    [
        (503, set(), "the Hub answered with status 503 when me/llava was asked for: try again later"),
        (429, set(), "the Hub answered with status 429 when me/llava was asked for: try again later"),
        (None, {"HEAD"}, "the Hub answers, but not within 1 seconds when config.json of me/llava is asked for: try again later"),
        (None, {"GET"}, "the Hub answers, but not within 1 seconds when config.json of me/llava is asked for: try again later"),
    ],
)
def test_a_hub_that_is_ill_or_silent_is_asked_once(
    status: int | None, silent: set[str], reason: str, ill: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ill.status, ill.silent = status, silent
    files = HostFiles.at("me/llava").asked()
    with pytest.raises(ModelError) as caught:
        files.load(Reader)
    assert reason in str(caught.value) and "where there is network" not in str(caught.value)
    assert len([line for line in ill.asked if "/resolve/" in line]) <= 2
    monkeypatch.setattr(Reader, "here", True)
    assert files.load(Reader) == "me/llava"


@pytest.mark.parametrize("name", ["me/llava", "me/gated", "me/none"])
def test_a_hub_that_answers_be_it_with_a_refusal_is_left_to_the_library(name: str, ill: LocalHub) -> None:
    files = HostFiles.at(name)
    assert files.asked() == files and not files.local
