"""The process around the application: where it listens, and how it ends."""

from __future__ import annotations

import gc
import ipaddress
import signal
import sys
import threading
from types import FrameType

import threadpoolctl
import torch
import uvicorn

from recsys.errors import ConfigError
from recsys.serving.access_log import log_as_json
from recsys.serving.app import app_of
from recsys.serving.service import Service

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
STOP_SECONDS = 30
SWITCH_SECONDS = 0.001
"""How long a thread may compute in Python while another waits: five times less than the default, for the sake of the slowest requests."""


def serve(service: Service, *, host: str = "127.0.0.1", port: int = 8080, log_level: str = "info") -> None:
    """Serve in this process until SIGTERM or SIGINT; requests that were taken in are answered first."""
    log_as_json(log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    # One thread a request: a second one would be taken from the other requests.
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    # What is loaded now stays: the collector need not walk through it again and again.
    gc.collect()
    gc.freeze()
    options = uvicorn.Config(
        app_of(service), host=host, port=port, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=STOP_SECONDS
    )
    DrainingServer(options, service).run()


class DrainingServer(uvicorn.Server):
    """SIGTERM first makes /readyz say no, and ends the server `drain_seconds` later: a balancer has noticed by then. A second one ends it at once."""

    def __init__(self, options: uvicorn.Config, service: Service) -> None:
        super().__init__(options)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        seconds = self._service.config.drain_seconds
        first = not self._service.draining.is_set()
        self._service.draining.set()
        if sig == signal.SIGTERM and first and seconds > 0:
            threading.Timer(seconds, super().handle_exit, (sig, frame)).start()
        else:
            super().handle_exit(sig, frame)


def require_safe(host: str, *, token: str | None, allow_remote: bool) -> None:
    """Being reachable from other machines without authentication is a decision, not a default.

    Raises:
        ConfigError: a host that is not loopback, without a token and without `allow_remote`.
    """
    if token is not None or allow_remote or is_loopback(host):
        return
    way_out = "set RECSYS_TOKEN (16 characters or more), or leave access to a proxy with allow_remote (--allow-remote)"
    raise ConfigError(f"host {host!r} is not loopback and no token is set; {way_out}")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
