"""A controller that the switch connects to, again and again; and the auxiliary connections to it.

Invariant: an auxiliary connection is there only while its main connection is.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from appliance.agent.channel import Channel, Transport
from appliance.agent.green import Greenlet, Timeout, in_thread, sleep, spawn, wait_writable

LOG = logging.getLogger("ofswitch.openflow")

CONNECT_SECONDS = 5.0
STEADY_SECONDS = 8.0
"""A connection that lasted so long was a good one: the next try comes soon."""


class Connections(Protocol):
    """See ``connections.Connections``."""

    stopping: bool

    def transport(self, connected: socket.socket, *, tls: bool, server: bool) -> Transport: ...

    def serve(
        self,
        transport: Transport,
        peer: str,
        begun: Callable[[Channel], None] | None = None,
        *,
        auxiliary_id: int = 0,
        main: Channel | None = None,
    ) -> Channel: ...


@dataclass
class Backoff:
    """Seconds until the next try: ``first``, then twice as long each time up to ``longest``, each a little off at random."""

    first: float = 1.0
    longest: float = 8.0
    jitter: float = 0.2
    _next: float = 0.0

    def delay(self) -> float:
        base = max(self.first, self._next)
        self._next = min(base * 2, self.longest)
        return base * random.uniform(1 - self.jitter, 1 + self.jitter)

    def reset(self) -> None:
        self._next = 0.0


class Outgoing:
    """One controller that the switch keeps connecting to. ``channel`` is None while there is no connection."""

    def __init__(
        self,
        connections: Connections,
        host: str,
        port: Callable[[], int],
        name: str,
        backoff: Backoff,
        *,
        tls: bool,
        auxiliary: int,
    ) -> None:
        self.channel: Channel | None = None
        self.problem = ""
        """Why there is no connection."""
        self._connections = connections
        self._host = host
        self._port = port
        self._name = name
        self._backoff = backoff
        self._tls = tls
        self._auxiliary = auxiliary

    def run(self) -> None:
        while not self._connections.stopping:
            began = time.monotonic()
            try:
                transport = self._connections.transport(self._connect(), tls=self._tls, server=False)
            except (OSError, UnicodeError) as error:  # a name may be such that nobody can even ask for it
                self._failed(getattr(error, "strerror", None) or str(error))
            else:
                channel = self._connections.serve(transport, self._name, self._begun)
                self.channel = None
                if channel.version is not None:
                    self.problem = ""  # say it also if it is what it was before
                    if time.monotonic() - began > STEADY_SECONDS:
                        self._backoff.reset()
                self._failed(channel.reason or "")
            sleep(self._backoff.delay())

    def describe(self, now: float) -> dict[str, Any]:
        if self.channel is not None:
            return describe(self.channel, self._name, now)
        return {"target": self._name, "state": "disconnected", "problem": self.problem}

    def open_auxiliary(self, main: Channel) -> list[Greenlet]:
        """The main connection has agreed on a version: keep the others while it lasts (specification 1.3.5, section 6.3.6)."""
        return [spawn(self._keep_auxiliary, number, main) for number in range(1, self._auxiliary + 1)]

    def _keep_auxiliary(self, auxiliary_id: int, main: Channel) -> None:
        """From and to the addresses of the main connection."""
        name, backoff, problem = f"{self._name} auxiliary {auxiliary_id}", Backoff(), ""
        while not main.ended and not self._connections.stopping:
            try:
                near = main.transport.socket
                connected = _connected(near.family, near.getpeername(), (near.getsockname()[0], 0))
                transport = self._connections.transport(connected, tls=self._tls, server=False)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                reason = self._connections.serve(transport, name, auxiliary_id=auxiliary_id, main=main).reason or ""
            if reason != problem and not main.ended and not self._connections.stopping:
                LOG.warning("%s: not connected: %s", name, reason)
            problem = reason
            sleep(backoff.delay())

    def _begun(self, channel: Channel) -> None:
        self.channel = channel

    def _failed(self, problem: str) -> None:
        """Log why there is no connection, once if it stays the same."""
        if problem != self.problem and not self._connections.stopping:
            LOG.warning("%s: not connected: %s", self._name, problem)
        self.problem = problem

    def _connect(self) -> socket.socket:
        """A connected socket, by whichever of the host's addresses answers first in order. Raises OSError."""
        failure: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
        for family, address in self._addresses():
            try:
                return _connected(family, address)
            except OSError as error:
                failure = error
        raise failure

    def _addresses(self) -> Iterator[tuple[int, Any]]:
        port = self._port()
        try:
            found = socket.getaddrinfo(self._host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = in_thread(socket.getaddrinfo, self._host, port, 0, socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            yield family, address


def _connected(family: int, address: Any, source: Any = None) -> socket.socket:
    """A socket connected to ``address``. Raises OSError."""
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        if source is not None:
            connected.bind(source)
        _connect_socket(connected, address)
    except BaseException:
        connected.close()
        raise
    return connected


def _connect_socket(connected: socket.socket, address: Any) -> None:
    """Connect, waiting at most CONNECT_SECONDS. Raises OSError."""
    connected.setblocking(False)
    code = connected.connect_ex(address)
    if code == errno.EINPROGRESS:
        code = errno.ETIMEDOUT
        with Timeout(CONNECT_SECONDS, False):
            wait_writable(connected.fileno())
            code = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code != 0:
        raise OSError(code, os.strerror(code))


def describe(channel: Channel, name: str, now: float) -> dict[str, Any]:
    """For ``show``: see ``control``."""
    return {
        "target": name,
        "state": "connecting" if channel.version is None else "connected",
        "version": None if channel.version is None else f"1.{channel.version - 1}",
        "security": channel.transport.security,
        "seconds": now - channel.opened_at,
        "dropped_packet_ins": channel.dropped_packet_ins,
        "backlog": channel.backlog,
    }
