"""Files of the Hugging Face Hub: from its cache, else from the network; without one an answer within seconds.

Everything is asked through huggingface_hub's own session, so that its certificates, proxies and token are the ones that count.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from vitlens.errors import ModelError

T = TypeVar("T")


@dataclass(frozen=True)
class HubFile:
    """A file of a Hub repository; of several `names` the first that is there is meant (one file, written in several ways)."""

    repo: str
    names: tuple[str, ...]
    revision: str | None = None
    """A commit, branch or tag; None: the main branch."""

    def __str__(self) -> str:
        return f"{' or '.join(self.names)} of the Hub repository {self.repo}"


def hub_file(wanted: HubFile, need: str, advice: str) -> Path:
    """A file from the Hugging Face cache or the Hub; without network an error within seconds.

    Raises:
        ModelError: it cannot be had; `need` says what for, `advice` what to do where there is no network.
    """
    from huggingface_hub import constants

    here = cached(wanted)
    if here is not None:
        return here
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{need}. {advice}; HF_HUB_OFFLINE is set, nothing was asked of the network")
    trouble = unreachable()
    if trouble is not None:
        raise ModelError(f"{need}. {advice}; the Hub cannot be reached from here{trouble and f' ({trouble})'}")
    return fetch(wanted, need)


def cached(wanted: HubFile) -> Path | None:
    """The path of a file in the Hugging Face cache, if it is there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for name in wanted.names:
        try:
            return Path(hf_hub_download(wanted.repo, name, revision=wanted.revision, local_files_only=True))
        except (LocalEntryNotFoundError, OSError):
            continue
    return None


def fetch(wanted: HubFile, need: str, *, again: bool = False) -> Path:
    """Download a file that the Hub has into the Hugging Face cache, `again` also over what is there.

    Raises:
        ModelError: the Hub refuses it, or does not answer; begins with `need`.
    """
    from huggingface_hub import hf_hub_download

    try:
        name, _ = facts_of(wanted)
        return Path(hf_hub_download(wanted.repo, name, revision=wanted.revision, force_download=again))
    except Exception as error:
        answer = refusal(error, wanted.repo, " or ".join(wanted.names))
        if answer is None and isinstance(error, TimeoutError):
            answer = str(error)
        reason = answer or f"the download failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        raise ModelError(f"{need}: {reason}") from error


def facts_of(wanted: HubFile) -> tuple[str, Any]:
    """The name that the Hub has a file under, and what it says of it: `size`, `etag`, `commit_hash`.

    huggingface_hub's own way to a file tries again for minutes where the Hub is ill or silent; here one question is asked,
    and the first byte.

    Raises:
        HfHubHTTPError: the Hub refuses, or is ill.
        TimeoutError: it does not answer within HF_HUB_ETAG_TIMEOUT seconds (10).
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import RemoteEntryNotFoundError

    seconds = constants.HF_HUB_ETAG_TIMEOUT
    for name in wanted.names:
        silent = f"the Hub answers, but not within {seconds} seconds when {name} of {wanted.repo} is asked for: try again later"
        try:
            return name, within(seconds, lambda name=name: _ask(wanted, name, seconds), silent)  # type: ignore[misc]
        except RemoteEntryNotFoundError:
            if name == wanted.names[-1]:
                raise
    raise AssertionError("a HubFile has a name")


def _ask(wanted: HubFile, name: str, seconds: float) -> Any:
    from huggingface_hub import get_hf_file_metadata, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(wanted.repo, name, revision=wanted.revision)
    facts = get_hf_file_metadata(url, timeout=seconds)
    if facts.xet_file_data is None:  # else its bytes come from another server
        headers = {**build_hf_headers(), "Range": "bytes=0-0", "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=headers, timeout=seconds) as response:
            if response.status_code != 416:  # an empty file has no first byte
                hf_raise_for_status(response)
                next(response.iter_raw(), b"")
    return facts


def within(seconds: float, ask: Callable[[], T], silent: str) -> T:
    """What `ask` gives, or raises; `TimeoutError(silent)` where it takes longer: name resolution has no timeout of its own."""
    answers: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((True, ask()))
        except Exception as error:
            answers.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        fine, answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(silent) from None
    if not fine:
        if type(answer).__name__.endswith("Timeout"):  # the session's own, at about the same moment
            raise TimeoutError(silent) from answer
        raise answer
    return cast(T, answer)


def hub_reachable(seconds: float = 4.0) -> bool:
    """Whether the Hub answers a request, be it with a refusal: never more than `seconds`."""
    return unreachable(seconds) is None


def unreachable(seconds: float = 4.0) -> str | None:
    """Why the Hub does not answer ("" where it is just silent); None where it does, be it with a refusal."""
    from huggingface_hub import constants, get_session

    def ask() -> None:
        get_session().head(constants.ENDPOINT, timeout=seconds, follow_redirects=False)

    try:
        within(seconds, ask, "")
    except Exception as error:
        return " ".join(str(error).split())[:200]
    return None


def ailing(repo: str, files: tuple[str, ...], revision: str | None = None) -> str | None:
    """Why a Hub that can be reached gives nothing of a repository just now: it is ill, or silent about its `files`.

    None where it answers, be it with a refusal. Its client would try again for half a minute, file after file.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        facts_of(HubFile(repo, files, revision))
    except TimeoutError as error:
        return str(error)
    except HfHubHTTPError as error:
        status = error.response.status_code
        return refusal(error, repo) if status >= 500 or status == 429 else None
    except Exception:  # what this is, the library that asks next will say
        return None
    return None


def upload(folder: Path, repo: str, *, private: bool, token: str | None, mark: str) -> str:
    """Upload a folder to a repository of the Hub, made if need be; returns its address.

    A README.md that is there without `mark` is left as it is.

    Raises:
        ModelError: it cannot be done; says why, and what to do.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(token=token)
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{repo} cannot be uploaded: HF_HUB_OFFLINE is set")
    trouble = unreachable()
    if trouble is not None:
        raise ModelError(f"{repo} cannot be uploaded: the Hub cannot be reached from here{trouble and f' ({trouble})'}")
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        kept = ["README.md"] if _has_readme_without(mark, api, repo) else None
        api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=kept, commit_message="Upload by vitlens")
    except Exception as error:
        reason = _upload_refusal(error, repo) or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ModelError(f"{repo} cannot be uploaded: {reason}") from error
    return str(url)


def _has_readme_without(mark: str, api: Any, repo: str) -> bool:
    import tempfile

    from huggingface_hub.errors import RemoteEntryNotFoundError

    with tempfile.TemporaryDirectory() as folder:
        try:
            file = Path(api.hf_hub_download(repo, "README.md", local_dir=folder))
        except RemoteEntryNotFoundError:
            return False
        return mark not in file.read_text(encoding="utf-8", errors="replace")


def _upload_refusal(error: BaseException, repo: str) -> str | None:
    """As `refusal`, of one who wants to write."""
    from huggingface_hub import errors

    answer = next((cause for cause in _causes(error) if isinstance(cause, errors.HfHubHTTPError)), None)
    if answer is None or isinstance(answer, errors.GatedRepoError):
        return refusal(error, repo)
    status = answer.response.status_code
    if status == 401:
        return "the Hub does not know who you are: log in (hf auth login), or give token=; a token that ran out does not count"
    if status == 403:
        return "your account or token may not write there: check the owner's name, and that the token has the right to write"
    return refusal(error, repo)


def refusal(error: BaseException, repo: str, name: str = "") -> str | None:
    """Why the Hub did not give what was asked of `repo`, and what to do; None where the error is about something else.

    The error may be any library's: the Hub's own answer is looked for among its causes. `name` is the file that was asked for.
    """
    from huggingface_hub import constants, errors

    answers = [cause for cause in _causes(error) if isinstance(cause, errors.HfHubHTTPError)]
    if not answers:
        return None
    answer = answers[0]
    status, told = answer.response.status_code, answer.server_message or ""
    if isinstance(answer, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return f"the repository {repo} is gated: accept its terms on {page}, and log in with that account (hf auth login)"
    if isinstance(answer, errors.DisabledRepoError):
        return f"the repository {repo} has been disabled on the Hub"
    if isinstance(answer, errors.RevisionNotFoundError):
        return f"the repository {repo} has no such revision"
    if isinstance(answer, errors.RemoteEntryNotFoundError):
        return f"the repository {repo} has no file {name}" if name else f"the repository {repo} lacks a file that is needed"
    if status == 401 and any(word in told.lower() for word in ("invalid credentials", "token", "expired")):
        return "the Hub does not accept the token that is stored here: log in again (hf auth login), or out (hf auth logout)"
    if isinstance(answer, errors.RepositoryNotFoundError) or status in (401, 404):
        return f"the Hub has no repository {repo}, or it is private: check its name, or log in (hf auth login)"
    if status == 403:
        said = f"; it says: {told}" if told else ""
        return f"the Hub does not let you read {repo}: log in with an account that may (hf auth login){said}"
    return f"the Hub answered with status {status} when {repo} was asked for: try again later"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and what was being handled when it came up."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
