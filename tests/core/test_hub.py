"""Files of the Hub: what cannot be had is told apart within seconds, and every request goes through huggingface_hub's session."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local_hub import TOKEN, LocalHub, local_hub
from vitlens.errors import ModelError
from vitlens.hub import HubFile, hub_file, hub_reachable

ADVICE = "Download it where there is network"
MINE = HubFile("me/mine", ("weights.pt",))


def get(wanted: HubFile) -> bytes:
    return hub_file(wanted, f"the test needs {wanted}", ADVICE).read_bytes()


def refused(wanted: HubFile) -> str:
    with pytest.raises(ModelError) as caught:
        get(wanted)
    assert str(caught.value).startswith("the test needs ")
    return str(caught.value)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub() as made:
        for name, options in {"mine": {}, "gated": {"gated": True}, "private": {"private": True}}.items():
            made.add(f"me/{name}", **options).files = {"weights.pt": name.encode(), "Other.pt": b"other", "empty": b""}
        made.here(monkeypatch, tmp_path / "cache")
        yield made


def test_a_file_is_fetched_once_and_found_in_the_cache_from_then_on(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get(MINE) == b"mine"
    asked = len(hub.asked)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert get(MINE) == b"mine" and len(hub.asked) == asked
    assert get(HubFile("me/mine", ("gone.pt", "weights.pt"))) == b"mine"


def test_an_empty_file_is_a_file(hub: LocalHub) -> None:
    assert get(HubFile("me/mine", ("empty",))) == b""


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (HubFile("me/gated", ("weights.pt",)), "the repository me/gated is gated: accept its terms on {url}/me/gated"),
        (HubFile("me/private", ("weights.pt",)), "the Hub has no repository me/private, or it is private"),
        (HubFile("me/none", ("weights.pt",)), "the Hub has no repository me/none"),
        (HubFile("me/mine", ("gone.pt",)), "the repository me/mine has no file gone.pt"),
        (HubFile("me/mine", ("gone.pt", "Gone.pt")), "the repository me/mine has no file gone.pt or Gone.pt"),
        (HubFile("me/mine", ("weights.pt",), "v9"), "the repository me/mine has no such revision"),
    ],
)
def test_what_is_refused_is_told_and_not_called_a_lack_of_network(wanted: HubFile, reason: str, hub: LocalHub) -> None:
    told = refused(wanted)
    assert reason.format(url=hub.url) in told and "network" not in told and "reached" not in told


def test_a_wrong_token_is_told_and_the_right_one_opens(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.here(monkeypatch, tmp_path / "cache", token="hf_wrong")
    assert "the Hub does not accept the token that is stored here: log in again" in refused(
        HubFile("me/private", ("weights.pt",))
    )
    hub.here(monkeypatch, tmp_path / "cache", token=TOKEN)
    assert [get(HubFile(f"me/{name}", ("weights.pt",))) for name in ("gated", "private")] == [b"gated", b"private"]


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (401, 'User Access Token "mine" is expired', "does not accept the token that is stored here"),
        (403, "enable access to public gated repositories", "does not let you read me/mine: log in with an account that may"),
        (403, "enable access to public gated repositories", "it says: enable access to public gated repositories"),
        (403, "Access to this resource is disabled.", "the repository me/mine has been disabled"),
        (451, "for legal reasons", "the Hub answered with status 451"),
    ],
)
def test_other_refusals_are_told_too(status: int, message: str, reason: str, hub: LocalHub) -> None:
    hub.refuses = (status, message)
    told = refused(MINE)
    assert reason in told and "network" not in told


def test_another_spelling_is_tried_in_order(hub: LocalHub) -> None:
    assert get(HubFile("me/mine", ("weights.pt", "Other.pt"))) == b"mine"
    assert get(HubFile("me/mine", ("other.pt", "Other.pt"))) == b"other"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_hub_that_is_ill_is_asked_once(status: int, hub: LocalHub) -> None:
    hub.status = status
    assert f"the Hub answered with status {status} when me/mine was asked for: try again later" in refused(MINE)
    assert hub.asked == ["HEAD /", "HEAD /me/mine/resolve/main/weights.pt"]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_hub_that_is_silent_about_the_file_is_waited_for_once(method: str, hub: LocalHub) -> None:
    hub.silent = {method}
    told = refused(MINE)
    assert "the Hub answers, but not within 1 seconds when weights.pt of me/mine is asked for: try again later" in told
    assert "network" not in told
    assert len([line for line in hub.asked if line.startswith(f"{method} /me/mine/")]) == 1


def test_a_hub_that_is_not_there_is_told_with_the_advice(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    told = refused(MINE)
    assert f"{ADVICE}; the Hub cannot be reached from here (" in told and "refused" in told


def certificate(folder: Path) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a hub")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    file = folder / "hub.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_the_certificates_of_huggingface_hub_are_the_ones_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import get_session, set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    file = certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    with local_hub(server) as made:
        made.add("me/mine").files = {"weights.pt": b"by https"}
        made.here(monkeypatch, tmp_path / "cache")
        assert not hub_reachable()
        assert "CERTIFICATE_VERIFY_FAILED" in refused(MINE)
        client, knows = type(get_session()), ssl.create_default_context(cafile=str(file))
        set_client_factory(lambda: client(verify=knows, follow_redirects=True))
        try:
            assert hub_reachable() and get(MINE) == b"by https"
        finally:
            set_client_factory(default_client_factory)
