"""The verb `serve` of `python -m arclight`. Nothing heavy is imported before it is chosen."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import ipaddress
import logging
import os
import socket
from typing import Any

from arclight.errors import InputError

API_KEY = "ARCLIGHT_API_KEY"
NEEDED = ("fastapi", "uvicorn", "multipart", "prometheus_client", "fastapi_offline")
MAX_CONNECTIONS = 512  # more get 503
LONGEST_STOP_S = 120  # that open requests are waited for
ACCEPT_S, DRAIN_S = 0.1, 0.9  # after the signal: until no connection is accepted, and from then on until idle ones are closed

log = logging.getLogger(__name__)


def add_verbs(verbs: Any) -> None:
    """Adds the verb to the sub-parsers of argparse."""
    verb = verbs.add_parser("serve", help="answer HTTP requests with the predictions of trained runs")
    meaning = "run directory, checkpoint file, latest, or a pointer file (also by its name in registry/); NAME=RUN names it"
    verb.add_argument("runs", nargs="+", metavar="RUN", help=meaning)
    verb.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine only)")
    verb.add_argument("--port", type=int, default=8000, help="(%(default)s); 0 takes a free one")
    verb.add_argument("--workers", type=int, default=1, help="processes per run, each with the model (%(default)s)")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s: that of the run)")
    verb.add_argument("--threads", type=int, default=0, help="of a forward pass on the CPU (default: the cores, shared)")
    verb.add_argument("--batch-size", type=int, default=32, help="inputs in a forward pass (%(default)s)")
    verb.add_argument("--max-queue", type=int, default=256, help="inputs that may wait; more are refused, 429 (%(default)s)")
    verb.add_argument("--max-items", type=int, default=64, help="inputs in a request (%(default)s)")
    verb.add_argument("--max-body-mb", type=float, default=16, help="size of a request (%(default)s)")
    verb.add_argument("--max-characters", type=int, default=100_000, help="of the texts in a request (%(default)s)")
    verb.add_argument("--timeout", type=float, default=30, metavar="S", help="for a request and its answer (%(default)s)")
    verb.set_defaults(do=serve)


def serve(options: argparse.Namespace) -> None:
    """Serves until a signal; then answers what it has accepted."""
    check(options)
    import uvicorn

    from arclight.serving.app import Limits, create_app
    from arclight.serving.deployment import Deployment
    from arclight.serving.pool import WorkerSettings

    settings = WorkerSettings(
        workers=options.workers,
        device=options.device,
        batch_size=options.batch_size,
        threads=options.threads,
        max_queue=options.max_queue,
        batch_timeout_s=max(60.0, 2 * options.timeout),
    )
    limits = Limits(options.max_items, round(options.max_body_mb * 1e6), options.max_characters, options.timeout)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    deployment = Deployment(options.runs, settings)
    key = os.environ.get(API_KEY) or None
    loopback = is_loopback(options.host)
    if not loopback and key is None:
        log.warning("anybody who reaches %s can use this server; set %s to ask for a key", options.host, API_KEY)
    listener = listen(options.host, options.port)
    app = create_app(deployment, limits, api_key=key, is_loopback=loopback)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=LONGEST_STOP_S,
    )

    class DrainingServer(uvicorn.Server):
        """A server that answers what is on its way over open connections before it closes them."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            deployment.is_draining = True
            await asyncio.sleep(ACCEPT_S)  # connections that the kernel has accepted
            for one in self.servers:
                one.close()
            await asyncio.sleep(DRAIN_S)
            await super().shutdown(sockets)

    server = DrainingServer(config)

    async def run() -> None:
        await deployment.start()  # its errors are for the user; uvicorn would log them with a traceback
        log.info("http://%s:%d  (API: /docs)", options.host, listener.getsockname()[1])
        await server.serve(sockets=[listener])

    with listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again that has stopped it
        asyncio.run(run())


def check(options: argparse.Namespace) -> None:
    """Raises InputError for missing packages and values out of range."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"serve needs {', '.join(missing)}; type: pip install 'arclight[serve]', in a checkout -e '.[serve]'")
    for name in ("workers", "batch_size", "max_queue", "max_items", "max_body_mb", "max_characters", "timeout"):
        if not 0 < getattr(options, name) < 1e9:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)} must be above 0")
    if not 0 <= options.port < 65536:
        raise InputError(f"--port {options.port} must be between 0 and 65535")
    if options.threads < 0:
        raise InputError(f"--threads {options.threads} must be 0 or more")


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; raises InputError when the address is wrong or the port in use."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise InputError(f"cannot listen at {host}:{port} ({error.strerror}); choose another --port or --host") from error


def is_loopback(host: str) -> bool:
    """Returns whether only programs on this machine reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
