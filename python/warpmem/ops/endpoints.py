"""What endpoints of model servers have in common: their URL, where it may lead, the time for an answer, the
key."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from ..errors import InputError, ModelUnavailable
from ..types.scalars import float_of

_MAX_KEY: Final = 1 << 16


class Reach:
    """Which addresses an endpoint may have. Thread-safe.

    host       as the configuration has it. An address that stands there is listed by that, and so is
               localhost; a name may lead anywhere, and who answers for it today may not tomorrow
    networks   in CIDR notation, of the addresses beside public ones that a name may lead to

    A private address is one that is not routed in public: loopback, link-local, private and their like.
    """

    def __init__(self, host: str, networks: Sequence[str]) -> None:
        self._host = host
        if isinstance(networks, str) or not isinstance(networks, Sequence):
            raise InputError(f"networks must be a list of strings, not {type(networks).__name__}")
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise InputError("networks must be in CIDR notation, such as '10.0.0.0/8'") from error
        self.named = not _is_address(host)
        """Whether the host is a name, which has to be looked up."""

    def check(self, address: str) -> None:
        """Raises ModelUnavailable for an address that the host's name must not lead to."""
        if not self.named:
            return
        found = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None)
        found = found if mapped is None else mapped
        local = self._host == "localhost" or self._host.endswith(".localhost")
        if found.is_global or (local and found.is_loopback) or any(found in one for one in self._networks):
            return
        raise ModelUnavailable(
            f"the name {self._host} leads to the private address {found}, which is not listed: add its "
            "network to networks=, such as '10.0.0.0/8', or give the address itself"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class Keys:
    """Where the bearer token of an endpoint comes from. Thread-safe.

    name       of the endpoint, for messages
    key_env    name of an environment variable that holds it
    key_file   a file that holds it
    """

    def __init__(self, name: str, key_env: str | None, key_file: str | None) -> None:
        if key_env is not None and key_file is not None:
            raise InputError("give key_env or key_file, not both")
        self._name = name
        self._env = key_env
        self._file = key_file

    def read(self) -> str | None:
        """The token as it is now; None when none is wanted. Raises InputError when there should be one."""
        if self._env is not None:
            key = os.environ.get(self._env, "").strip()
            where = f"the environment variable {self._env}"
        elif self._file is not None:
            where = f"the file {self._file}"
            try:
                with open(self._file, encoding="ascii") as file:
                    key = file.read(_MAX_KEY).strip()
            except (OSError, ValueError) as error:
                raise InputError(f"{where} cannot be read for the key of {self._name}") from error
        else:
            return None
        if not key or not key.isascii() or not key.isprintable():
            raise InputError(f"{where} holds no key for {self._name}")
        return key


def check_timeout(timeout: float) -> float:
    """Raises InputError unless it is a number of seconds."""
    seconds = float_of(timeout)
    if seconds is None or not 0 < seconds < 1e6:
        raise InputError("timeout must be a number of seconds above 0")
    return seconds


def parse_url(url: str, ports: Mapping[str, int]) -> tuple[str, str, int, str]:
    """(scheme, host, port, path without a slash at its end). ports: of each scheme that may be. Raises
    InputError."""
    if not isinstance(url, str):
        raise InputError(f"url must be a string, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:  # UnicodeError is one
        raise InputError("url is not a URL") from None
    if parts.scheme not in ports or not parts.hostname:
        wanted = " or ".join(f"{scheme}://" for scheme in ports)
        raise InputError(f"url must begin with {wanted} and name a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError("url must have no user, query or fragment; keys come from key_env or key_file")
    if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise InputError("url must be printable ASCII without spaces")
    return parts.scheme, parts.hostname, port or ports[parts.scheme], parts.path.rstrip("/")
