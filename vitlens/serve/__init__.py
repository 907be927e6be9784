"""A service that speaks what clients already send (`vitlens serve`), and a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlens.serve.client import AsyncClient as AsyncClient
    from vitlens.serve.client import Client as Client
    from vitlens.serve.client import File as File
    from vitlens.serve.client import Mixture as Mixture
    from vitlens.serve.client import ServeError as ServeError
    from vitlens.serve.client import Weighted as Weighted

__all__ = ["AsyncClient", "Client", "File", "Mixture", "ServeError", "Weighted"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vitlens.serve' has no attribute {name!r}")
    try:
        from vitlens.serve import client
    except ImportError as error:
        from vitlens.errors import MissingDependencyError

        raise MissingDependencyError(f"vitlens.serve needs {error.name}: pip install 'vitlens[serve]'") from error
    return getattr(client, name)
