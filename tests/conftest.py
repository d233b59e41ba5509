"""What holds for every test: reproducible property tests, no connection but to the tests' own servers."""

from __future__ import annotations

import socket
import sys
from typing import Any

from hypothesis import HealthCheck, settings

import local_servers

settings.register_profile(
    "warpmem", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("warpmem")

_REFUSED = frozenset({"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"})
_TO_A_SERVER = frozenset({"socket.connect", "socket.getaddrinfo"})


def _refuse_connections(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _REFUSED and getattr(arguments[0], "family", None) is not socket.AF_UNIX:
        address = arguments[:2] if event == "socket.getaddrinfo" else arguments[1]
        if event in _TO_A_SERVER and address in local_servers.started:
            return
        raise AssertionError(f"{event}: the core opens no connection, and neither do its tests")


sys.addaudithook(_refuse_connections)
