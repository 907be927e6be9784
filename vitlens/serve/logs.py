"""Logs: one JSON object a line on standard error, each request under its id."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from dataclasses import dataclass, field

LOG = logging.getLogger("vitlens.serve")


@dataclass
class Visit:
    """One request, as the log tells it."""

    request_id: str
    method: str
    path: str
    route: str = ""
    """The path's pattern, once it is known: a label of metrics must not be what anybody makes up."""
    status: int = 0
    code: str = ""
    """Of a refusal."""
    received: int = 0
    """Bytes of the body."""
    modalities: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    @property
    def modality(self) -> str:
        """The one modality of what was embedded, mixed, or none."""
        return next(iter(self.modalities)) if len(self.modalities) == 1 else "mixed" if self.modalities else "none"

    def log(self) -> None:
        """Write the line."""
        seconds = time.monotonic() - self.started
        told = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path[:200],
            "status": self.status,
            "seconds": round(seconds, 4),
            "bytes": self.received,
            **({"items": dict(self.modalities)} if self.modalities else {}),
            **({"code": self.code} if self.code else {}),
        }
        LOG.info("request", extra={"told": told})


class JsonLines(logging.Formatter):
    """A record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{moment}.{int(record.msecs):03}Z", "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "told", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json(level: str) -> None:
    """Let the service's and uvicorn's loggers write JSON lines to standard error; other libraries from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("vitlens", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    logging.getLogger("uvicorn.access").disabled = True  # the gate writes that line, with the request's id
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
