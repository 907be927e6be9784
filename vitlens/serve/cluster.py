"""Past one process: the same application as a deployment of Ray Serve, with as many replicas as the queue asks for.

A replica is a whole service, with its own model, readers and gate. Ray's proxy takes the requests; one that is lost with its
replica gets an answer of Ray's own (500, no JSON), after which `vitlens.serve.Client` tries again.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from vitlens.errors import MissingDependencyError
from vitlens.serve.settings import Settings

NAME = "vitlens"


def build(settings: Settings) -> Any:
    """The application of one replica."""
    from vitlens.serve.app import create_app
    from vitlens.serve.logs import log_as_json
    from vitlens.serve.service import Service

    log_as_json("info")
    return create_app(Service(settings))


def deployment(settings: Settings, replicas: int, *, least: int = 1) -> Any:
    """The deployment: from `least` to `replicas` replicas, more while each has more waiting requests than fill two batches."""
    serve = _ray_serve()

    def application() -> Any:  # Ray knows what builds an application by its being a plain function
        return build(settings)

    scaling = {
        "min_replicas": min(least, replicas),
        "max_replicas": replicas,
        "target_ongoing_requests": 2 * settings.batch_size,
        "upscale_delay_s": 5,
        "downscale_delay_s": 120,
    }
    made = serve.deployment(
        serve.ingress(application)(),
        name=NAME,
        autoscaling_config=scaling,
        max_ongoing_requests=settings.limits.queue + 64,  # the gate refuses, in our words, before Ray holds back
        max_queued_requests=-1,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=300,
        ray_actor_options={"num_cpus": 1},
    )
    return made.bind()


def start(settings: Settings, host: str, port: int, replicas: int, *, least: int = 1) -> None:
    """Deploy, in the cluster that RAY_ADDRESS names or on this machine, and wait until a replica is there."""
    import ray

    serve = _ray_serve()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": host, "port": port})
    serve.run(deployment(settings, replicas, least=least), name=NAME, route_prefix="/")


def run(settings: Settings, host: str, port: int, replicas: int) -> None:
    """Serve until a signal comes; requests that were accepted are finished."""
    import ray

    serve = _ray_serve()
    start(settings, host, port, replicas)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    over.wait()
    serve.shutdown()
    ray.shutdown()


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        advice = "pip install 'vitlens[serve-ray]'"
        raise MissingDependencyError(f"--engine ray needs Ray Serve ({error.name or error}): {advice}") from error
    return serve
