"""Files of the Hugging Face Hub: from its cache, else from the network; without one an answer within seconds."""

from __future__ import annotations

import threading
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
