"""One HTTP endpoint of a model server: POST of JSON under a deadline, and every fault as a typed error.

Over http.client, which brings TLS, chunked bodies and nothing that would have to be switched off: no
redirects, no proxies from the environment, no cookies, no retries. What it lacks is a deadline for an answer
as a whole (its timeout begins anew with every byte), so the socket is read through _Wire here.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import math
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from ..errors import DeadlineExceeded, InputError, ModelError, ModelUnavailable, Overloaded
from .endpoints import Keys, Reach, check_timeout, parse_url

T = TypeVar("T")

_PORTS: Final = {"http": 80, "https": 443}
_MAX_IDLE: Final = 16
_PIECE: Final = 1 << 16
_RETRY_AFTER: Final = 1.0
_MAX_RETRY_AFTER: Final = 86_400.0


class Endpoint:
    """A base URL to which JSON is posted. Thread-safe; connections are kept and used again.

    url         http:// or https://, host, optional port and path; neither user, query nor fragment
    timeout     seconds for one request, from connecting to the last byte of its answer; resolving a host's
                name is the operating system's business and not bounded
    key_env     name of an environment variable that holds the bearer token; read anew for every request
    key_file    a file that holds it, likewise
    ca_file     certificates to trust instead of the system's
    networks    private ones that the host's name may lead to (endpoints.Reach)
    max_bytes   the longest answer that is read
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
        scheme, self._host, self._port, self._base = parse_url(url, _PORTS)
        self._tls = scheme == "https"
        self._timeout = check_timeout(timeout)
        self._reach = Reach(self._host, networks)
        self._keys = Keys(self.name, key_env, key_file)
        self._max_bytes = max_bytes
        self._context = _context(ca_file) if self._tls else None
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._process = os.getpid()
        weakref.finalize(self, _drop_all, self._idle)

    @property
    def name(self) -> str:
        """host:port, for messages."""
        return f"{self._host}:{self._port}"

    @property
    def base(self) -> str:
        """What requests with the same one have in common: scheme, host, port and path."""
        return f"{'https' if self._tls else 'http'}://{self.name}{self._base}"

    def post(self, path: str, payload: Any, answer: type[T], timeout: float | None = None) -> T:
        """`payload` as JSON to base URL + `path`; the answer's body as `answer` (a type that msgspec knows).
        timeout: seconds, where less are left than the endpoint's own.

        Raises ModelUnavailable when the server cannot be reached, breaks off or fails; Overloaded on 429 and
        503, with the server's Retry-After; DeadlineExceeded when the time had passed; ModelError when it
        refuses the request, or answers at too great length or with another body than `answer`. No message
        holds anything of what was sent or received.
        """
        body = msgspec.json.encode(payload)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "warpmem"}
        key = self._keys.read()
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        received = self._exchange(path, body, headers, seconds)
        try:
            return msgspec.json.decode(received, type=answer)
        except ValueError:  # msgspec's text may quote the body
            raise ModelError(
                f"{self.name} answered {len(received)} bytes that are not the JSON of {path}"
            ) from None

    def close(self) -> None:
        """Close the connections that wait for a next request, as happens at the end of the object."""
        with self._lock:
            _drop_all(self._idle)

    def _exchange(self, path: str, body: bytes, headers: dict[str, str], seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while True:
            connection = self._take()
            reused = connection is not None
            try:
                if connection is None:
                    connection = _Connection(self._host, self._port, self._context, deadline, self._reach)
                return self._ask(connection, path, body, headers, deadline)
            except TimeoutError:
                raise DeadlineExceeded(f"{self.name} did not answer within {seconds:.4g} s") from None
            except ssl.SSLError as error:
                broke_off = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
                if reused and broke_off:  # the same, below, without TLS
                    continue
                why = getattr(error, "verify_message", "") or error.reason
                why = why or ("the server broke off" if broke_off else "handshake failed")
                raise ModelUnavailable(f"{self.name}: TLS: {why}") from error
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                if reused:  # it was closed while it waited; asking a model twice does no harm
                    continue
                raise ModelUnavailable(f"{self.name}: {_reason(error)}") from error
            except http.client.IncompleteRead:
                raise ModelUnavailable(f"{self.name} broke off in the middle of its answer") from None
            except http.client.HTTPException as error:
                raise ModelUnavailable(
                    f"{self.name} did not answer in HTTP ({type(error).__name__})"
                ) from None
            except OSError as error:
                raise ModelUnavailable(f"{self.name}: {_reason(error)}") from error

    def _ask(
        self, connection: _Connection, path: str, body: bytes, headers: dict[str, str], deadline: float
    ) -> bytes:
        connection.wire.deadline = deadline
        keep = False
        try:
            connection.request("POST", self._base + path, body, headers)
            response = connection.getresponse()
            received = _read(response, self._max_bytes, self.name)
            keep = not response.will_close
        finally:
            if keep:
                self._give(connection)
            else:
                connection.drop()
        _check_status(response, self.name, path)
        return received

    def _take(self) -> _Connection | None:
        with self._lock:
            if self._process != os.getpid():  # after a fork the parent's connections are the parent's
                self._process = os.getpid()
                _drop_all(self._idle)
            return self._idle.pop() if self._idle else None

    def _give(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.drop()


class _Wire:
    """What http.client asks of a socket, with waits that end at `deadline`."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self), _PIECE)

    def sendall(self, data: Any) -> None:
        self.sock.settimeout(_left(self.deadline))
        self.sock.sendall(data)

    def close(self) -> None:
        """Nothing: http.client closes before the answer is read. `drop` of the connection does it."""


class _Incoming(io.RawIOBase):
    """The bytes of one answer."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._wire.sock.settimeout(_left(self._wire.deadline))
        return self._wire.sock.recv_into(buffer)


class _Connection(http.client.HTTPConnection):
    """A connection, TLS included, whose every wait ends at `wire.deadline`."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None, deadline: float, reach: Reach
    ) -> None:
        super().__init__(host, port)
        self.auto_open = 0
        self.wire = _Wire(_connect(host, port, context, deadline, reach), deadline)
        self.sock: Any = self.wire

    def drop(self) -> None:
        self.close()
        self.wire.sock.close()


def _connect(
    host: str, port: int, context: ssl.SSLContext | None, deadline: float, reach: Reach
) -> socket.socket:
    failure: OSError = ConnectionError(f"no address of {host}")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        reach.check(str(address[0]))
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(_left(deadline))
            return sock if context is None else context.wrap_socket(sock, server_hostname=host)
        except OSError as error:
            sock.close()
            failure = error
            if isinstance(error, (TimeoutError, ssl.SSLError)):
                break
    raise failure


def _drop_all(connections: list[_Connection]) -> None:
    while connections:
        connections.pop().drop()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _read(response: http.client.HTTPResponse, most: int, name: str) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while piece := response.read1(_PIECE):
        pieces.append(piece)
        total += len(piece)
        if total > most:
            raise ModelError(f"{name} answers with more than {most} bytes")
    if response.length:  # read1 says nothing when a body ends before its announced length
        raise http.client.IncompleteRead(b"", response.length)
    response.close()  # else the connection takes no further request
    return b"".join(pieces)


def _check_status(response: http.client.HTTPResponse, name: str, path: str) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    if status in (429, 503):
        raise Overloaded(f"{name} answered {status}", _retry_after(response.getheader("Retry-After")))
    if status >= 500:
        raise ModelUnavailable(f"{name} answered {status} to {path}")
    if 300 <= status < 400:
        raise ModelError(f"{name} answered {status}; redirects are not followed: configure the final URL")
    hint = {401: ": its key is missing or wrong", 403: ": its key may not", 404: ": no such path or model"}
    raise ModelError(f"{name} refused the request to {path} with {status}{hint.get(status, '')}")


def _retry_after(value: str | None) -> float:
    """Seconds, from either form of the header; a default where it is absent or senseless."""
    if value is None:
        return _RETRY_AFTER
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return _RETRY_AFTER
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if math.isfinite(seconds) else _RETRY_AFTER


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise InputError(f"ca_file {ca_file!r} cannot be read as certificates") from error


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
