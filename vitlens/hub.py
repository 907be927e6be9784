"""Files of the Hugging Face Hub: from its cache, else from the network; without one an answer within seconds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from vitlens.errors import ModelError


def hub_file(repo: str, name: str, advice: str) -> Path:
    """A file from the Hugging Face cache or the Hub; without network an error within seconds.

    Raises:
        ModelError: it cannot be had; begins with `advice`.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        pass
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{advice}; HF_HUB_OFFLINE is set, nothing was asked of the network")
    if not hub_reachable():
        raise ModelError(f"{advice}; the Hub cannot be reached from here")
    try:
        return Path(hf_hub_download(repo, name))
    except Exception as error:
        raise ModelError(
            f"{advice}; the download failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        ) from error


def hub_reachable(seconds: float = 4.0) -> bool:
    """Whether the Hub answers a request, through a proxy if one is set: never more than `seconds`.

    Its own client retries for half a minute, and longer when something accepts connections and stays silent.
    """
    from huggingface_hub import constants

    answers: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=seconds).close()
            answers.append(True)
        except HTTPError:  # an answer, if not a friendly one
            answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # name resolution has no timeout of its own
    thread.start()
    thread.join(seconds)
    return bool(answers and answers[0])


def refusal(error: BaseException, repo: str) -> str | None:
    """Why the Hub did not give what was asked of `repo`, and what to do; None where the error is about something else.

    The error may be any library's: the Hub's own answer is looked for among its causes.
    """
    from huggingface_hub import constants, errors

    answers = [cause for cause in _causes(error) if isinstance(cause, errors.HfHubHTTPError)]
    if not answers:
        return None
    answer = answers[0]
    status = answer.response.status_code
    if isinstance(answer, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return f"the repository {repo} is gated: accept its terms on {page}, and log in with that account (hf auth login)"
    if isinstance(answer, errors.DisabledRepoError):
        return f"the repository {repo} has been disabled on the Hub"
    if isinstance(answer, errors.RevisionNotFoundError):
        return f"the repository {repo} has no such revision"
    if isinstance(answer, errors.RemoteEntryNotFoundError):
        return f"the repository {repo} lacks a file that is needed"
    if status == 401 and "Invalid credentials" in (answer.server_message or ""):
        return "the Hub does not accept the token that is stored here: log in again (hf auth login), or out (hf auth logout)"
    if isinstance(answer, errors.RepositoryNotFoundError) or status in (401, 404):
        return f"the Hub has no repository {repo}, or it is private: check its name, or log in (hf auth login)"
    if status == 403:
        return f"the Hub does not let you read {repo}: log in with an account that may (hf auth login)"
    return f"the Hub answered with status {status} when {repo} was asked for: try again later"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and what was being handled when it came up."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
