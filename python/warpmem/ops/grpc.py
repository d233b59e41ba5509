"""One gRPC endpoint of a model server: a call of bytes under a deadline, and every fault as a typed error."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import DeadlineExceeded, InputError, MissingDependency, ModelError, ModelUnavailable, Overloaded
from .endpoints import Keys, Reach, check_timeout, parse_url

_PORTS: Final = {"grpc": 80, "grpcs": 443}
_RETRY_AFTER: Final = 1.0
_MAX_RETRY_AFTER: Final = 86_400.0
_REFUSALS: Final = {
    "INVALID_ARGUMENT": "",
    "OUT_OF_RANGE": "",
    "FAILED_PRECONDITION": "",
    "ALREADY_EXISTS": "",
    "NOT_FOUND": ": no such model",
    "UNAUTHENTICATED": ": its key is missing or wrong",
    "PERMISSION_DENIED": ": its key may not",
    "UNIMPLEMENTED": ": it does not serve this protocol",
}
"""What a server says of the request; every other status is its own failing."""


class GrpcEndpoint:
    """A server that is called over one channel. Thread-safe; a fork opens a channel of its own.

    url         grpc:// or, with TLS, grpcs://, host and optional port; nothing else
    timeout     seconds for one call, from connecting to the last byte of its answer
    key_env     name of an environment variable that holds the bearer token; read anew for every call
    key_file    a file that holds it, likewise
    ca_file     certificates to trust instead of the system's
    networks    private ones that the host's name may lead to (endpoints.Reach); grpc looks the name up once
                more, itself
    max_bytes   the longest answer that is read

    No proxies from the environment, no retries and no configuration of the service from its name's records.
    Raises MissingDependency without grpcio.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        key_env: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        networks: Sequence[str] = (),
        max_bytes: int = 64 << 20,
    ) -> None:
        scheme, self._host, self._port, path = parse_url(url, _PORTS)
        if path:
            raise InputError("a grpc url has no path: name the model with model=")
        self._tls = scheme == "grpcs"
        self._timeout = check_timeout(timeout)
        self._reach = Reach(self._host, networks)
        self._keys = Keys(self.name, key_env, key_file)
        self._max_bytes = max_bytes
        self._grpc = _load()
        self._roots = _roots(ca_file) if self._tls else None
        self._lock = threading.Lock()
        self._process = 0
        self._channel: Any = None

    @property
    def name(self) -> str:
        """host:port, for messages."""
        return f"{self._host}:{self._port}"

    @property
    def base(self) -> str:
        """What calls with the same one have in common: scheme, host and port."""
        return f"{'grpcs' if self._tls else 'grpc'}://{self.name}"

    def call(self, method: str, message: bytes, timeout: float | None = None) -> bytes:
        """The answer to `message`, both as they go over the wire. method: "/package.Service/Name". timeout:
        seconds, where less are left than the endpoint's own.

        Raises ModelUnavailable when the server cannot be reached, breaks off or fails; Overloaded on
        RESOURCE_EXHAUSTED, with the server's `retry-pushback-ms`; DeadlineExceeded when the time had passed;
        ModelError when it refuses the call or answers at too great length. No message holds anything of what
        was sent or received.
        """
        self._look_up()
        key = self._keys.read()
        metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        began = time.monotonic()
        call = self._open().unary_unary(method)
        try:
            received: bytes = call(message, timeout=seconds, metadata=metadata)
        except self._grpc.RpcError as error:
            # One that is out of time may be told so by the server or by the socket that gave up.
            late = time.monotonic() - began >= seconds
            raise self._fault(error, seconds, late) from None
        return received

    def _look_up(self) -> None:
        if self._reach.named:
            try:
                found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise ModelUnavailable(f"{self.name}: its name cannot be looked up") from error
            for _, _, _, _, address in found:
                self._reach.check(str(address[0]))

    def _open(self) -> Any:
        """The channel of this process; connections are made and made again by it."""
        with self._lock:
            if self._process != os.getpid():
                host = f"[{self._host}]" if ":" in self._host else self._host
                target, options = f"{host}:{self._port}", self._options()
                if self._tls:
                    credentials = self._grpc.ssl_channel_credentials(self._roots)
                    self._channel = self._grpc.secure_channel(target, credentials, options)
                else:
                    self._channel = self._grpc.insecure_channel(target, options)
                self._process = os.getpid()
                weakref.finalize(self, _close, self._channel, self._process)
            return self._channel

    def _options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.max_receive_message_length", self._max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            # When a server that failed is tried again, its guard decides.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.primary_user_agent", "warpmem"),
        ]

    def _fault(self, error: Any, seconds: float, late: bool) -> Exception:
        status = error.code().name
        details = error.details() or ""
        if status == "DEADLINE_EXCEEDED" or late:
            return DeadlineExceeded(f"{self.name} did not answer within {seconds:.4g} s")
        if status == "RESOURCE_EXHAUSTED":
            if "larger than max" in details:
                if "SERVER:" in details:
                    return ModelError(f"{self.name} refused the call: it takes no messages of this size")
                return ModelError(f"{self.name} answers with more than {self._max_bytes} bytes")
            return Overloaded(f"{self.name} answered {status}", _pushback(error.trailing_metadata()))
        if status in _REFUSALS:
            return ModelError(f"{self.name} refused the call with {status}{_REFUSALS[status]}")
        if status == "UNAVAILABLE" and "CERTIFICATE_VERIFY_FAILED" in details:
            return ModelUnavailable(f"{self.name}: TLS: its certificate is not one to trust")
        return ModelUnavailable(f"{self.name} answered {status}, or could not be reached")


def _pushback(metadata: Any) -> float:
    """Seconds that the server wants to be left alone; a default where it says nothing of sense."""
    for name, value in metadata or ():
        if name == "retry-pushback-ms":
            text = value if isinstance(value, str) else ""
            if text.isascii() and text.isdigit():
                return min(int(text[:12]) / 1000, _MAX_RETRY_AFTER)
    return _RETRY_AFTER


def _roots(ca_file: str | None) -> bytes | None:
    """Certificates in PEM; None for those that gRPC brings, where the system names no file of its own."""
    file = ca_file if ca_file is not None else ssl.get_default_verify_paths().cafile
    if not file:
        return None
    try:
        ssl.create_default_context(cafile=file)
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"ca_file {file!r} cannot be read as certificates") from error


def _close(channel: Any, process: int) -> None:
    if process == os.getpid():  # a parent's channel is the parent's
        channel.close()


def _load() -> Any:
    try:
        import grpc
    except ImportError as error:
        raise MissingDependency("gRPC needs grpcio: python -m pip install 'warpmem[grpc]'") from error
    return grpc
