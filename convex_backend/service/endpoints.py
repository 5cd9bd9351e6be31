"""Listening sockets: bound first, so that the port is known and a taken one is told before anything is created; opened last.

Between :meth:`reserve` and :meth:`Listener.listen` clients are refused by the kernel: who can connect gets an answer.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Protocol

from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from convex_backend.service.configuration import BadOption
from convex_backend.service.option_values import Listen

# Sockets that wait to be accepted: a thousand clients that come back at once must not be refused.
_BACKLOG = 1024
_PAIR_TRIES = 20


class CannotListen(Exception):
    """The port cannot be had; the text is one line for the operator."""


class Listener(Protocol):
    """A place to listen at. ``port`` is ``None`` when an endpoint string does not show it."""

    port: int | None

    @property
    def where(self) -> str:
        """For the banner and the log."""

    async def listen(self, factory: IProtocolFactory) -> IListeningPort:
        """Accept connections from now on.

        :raises CannotListen: with one line for the operator.
        """

    def close(self) -> None:
        """Give back what was reserved, unless it listens already."""


class TcpListener:
    """A bound TCP port.

    :param reactor: provides ``IReactorSocket``.
    """

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self._reactor = reactor
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket: socket.socket | None = None
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
        except OSError as error:
            bound.close()
            raise CannotListen(_reason(host, port, error)) from error
        self._socket = bound
        self.port: int | None = bound.getsockname()[1]

    @property
    def where(self) -> str:
        """``ADDRESS:PORT``."""
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    async def listen(self, factory: IProtocolFactory) -> IListeningPort:
        """See :class:`Listener`."""
        assert self._socket is not None and self.port is not None
        try:
            self._socket.listen(_BACKLOG)
        except OSError as error:
            raise CannotListen(_reason(self._host, self.port, error)) from error
        port: IListeningPort = self._reactor.adoptStreamPort(self._socket.fileno(), self._family, factory)
        self.close()
        return port

    def close(self) -> None:
        """See :class:`Listener`; the reactor has its own copy of a socket that listens."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class EndpointListener:
    """A place that a Twisted endpoint string names.

    :raises BadOption: the string cannot be understood.
    """

    port: int | None = None

    def __init__(self, reactor: Any, option: str, endpoint: str) -> None:
        # A large module, and few servers listen on an endpoint string.
        from twisted.internet.endpoints import serverFromString

        self._string = endpoint
        try:
            self._endpoint = serverFromString(reactor, endpoint)
        except Exception as error:  # each endpoint parser, plug-ins too, has errors of its own
            raise BadOption(f"{option} {endpoint!r} is not a usable endpoint string: {error}") from error

    @property
    def where(self) -> str:
        """The string itself."""
        return self._string

    async def listen(self, factory: IProtocolFactory) -> IListeningPort:
        """See :class:`Listener`."""
        try:
            port: IListeningPort = await self._endpoint.listen(factory)
        except Exception as error:  # as above
            raise CannotListen(f"cannot listen on {self._string}: {error}") from error
        return port

    def close(self) -> None:
        """Nothing was reserved."""


def reserve(reactor: Any, cloud: Listen, site: Listen | None) -> tuple[Listener, Listener | None]:
    """Bind the main port and the one for HTTP actions.

    :raises CannotListen: a port is taken or not allowed; then neither is kept.
    :raises BadOption: an endpoint string cannot be understood.
    """
    for tries_left in reversed(range(_PAIR_TRIES)):
        main = _reserve(reactor, "--port", cloud)
        if site is None:
            return main, None
        try:
            if not site.after_main:
                return main, _reserve(reactor, "--site-port", site)
            assert main.port is not None
            return main, TcpListener(reactor, site.host, main.port + 1)
        except (CannotListen, BadOption, OverflowError):
            main.close()
            # The port that the kernel picked has no free neighbour: let it pick again.
            if not site.after_main or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _reserve(reactor: Any, option: str, listen: Listen) -> Listener:
    if listen.endpoint is not None:
        return EndpointListener(reactor, option, listen.endpoint)
    assert listen.port is not None
    return TcpListener(reactor, listen.host, listen.port)


def _reason(host: str, port: int, error: OSError) -> str:
    where = f"port {port}" if host in ("0.0.0.0", "::") else f"{host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program; stop it or choose another by --port or --site-port"
    if error.errno == errno.EACCES:
        return f"{where} needs rights that this user does not have; choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine"
    return f"cannot listen on {where}: {error.strerror}"
