"""All controllers: the ones that the switch connects to, again and again, and the ones that connect to it.

Invariant: a connection's number is never used again, so that a message for one that is gone reaches nobody else.
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

from appliance.agent.channel import Channel, Owner, TcpTransport, Transport
from appliance.agent.green import Greenlet, Timeout, in_thread, sleep, spawn, wait_readable, wait_writable
from appliance.agent.tls import Certificates, TlsError, TlsTransport
from appliance.config import ControllerAddress, ListenAddress
from appliance.openflow.connection import Connection, Event, Negotiated
from appliance.openflow.messages import Message

LOG = logging.getLogger("ofswitch.openflow")

DEFAULT_LISTEN_ADDRESS = "127.0.0.1"
"""``ptcp:PORT`` lets in controllers of this machine; others only when asked, by ``ptcp:PORT:0.0.0.0``."""
CONNECT_SECONDS = 5.0
HANDSHAKE_SECONDS = 5.0
"""For TLS to come about."""
MAX_INCOMING = 64
"""Connections from outside at once; one more is closed at once."""
STOP_SECONDS = 2.0
STEADY_SECONDS = 8.0
"""A connection that lasted so long was a good one: the next try comes soon."""


class SwitchSide(Protocol):
    """Who is told of controllers and their messages. None of these may wait."""

    def opened(self, connection: int, version: int) -> None: ...
    def received(self, connection: int, event: Event) -> None: ...
    def closed(self, connection: int) -> None: ...
    def paused(self) -> None: ...


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


class Connections(Owner):
    """``versions`` are wire versions. Nothing is connected or listened to before it is asked for.

    ``certificates`` must be there if an address asks for TLS.
    """

    def __init__(self, side: SwitchSide, versions: frozenset[int], certificates: Certificates | None = None) -> None:
        self._side = side
        self._versions = versions
        self._certificates = certificates
        self._channels: dict[int, Channel] = {}
        self._outgoing: list[Outgoing] = []
        self._listeners: list[tuple[str, socket.socket]] = []
        self._greenlets: list[Greenlet] = []
        self._last_number = 0
        self._incoming = 0
        self.stopping = False
        self.dropped_packet_ins = 0
        """Of connections that are gone."""

    # ── what the agent calls ───────────────────────────────────────────────────────────────────────────────────────────
    def connect(self, host: str, port: Callable[[], int], name: str, backoff: Backoff | None = None, *, tls: bool = False) -> None:
        """Keep a connection to a controller. ``port`` is asked before each try, and may wait."""
        outgoing = Outgoing(self, host, port, name, backoff or Backoff(), tls=tls)
        self._outgoing.append(outgoing)
        self._greenlets.append(spawn(outgoing.run))

    def connect_to(self, address: ControllerAddress) -> None:
        self.connect(address.host, lambda: address.port, str(address), tls=address.tls)

    def listen(self, address: ListenAddress) -> int:
        """Let controllers connect; returns the TCP port. Raises OSError, with words, if nobody can listen there."""
        where = address.address or DEFAULT_LISTEN_ADDRESS
        listener = socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((where, address.port))
            listener.listen(MAX_INCOMING)
        except OSError as error:
            listener.close()
            raise OSError(error.errno, f"{address}: cannot listen there: {error.strerror}") from error
        listener.setblocking(False)
        self._listeners.append((str(address), listener))
        self._greenlets.append(spawn(self._accept, listener, address.tls))
        port: int = listener.getsockname()[1]
        return port

    def send(self, connection: int, message: Message) -> None:
        """To one controller, if it is still there. Raises ValueError if the message cannot be encoded."""
        channel = self._channels.get(connection)
        if channel is not None:
            channel.send(message)

    def tick(self, now: float) -> None:
        if self._certificates is not None:
            self._certificates.refresh()
        for channel in tuple(self._channels.values()):
            channel.tick(now)

    def stop(self, reason: str) -> None:
        """Close everything: what is queued is still written, to those who read. Waits for that, not for long."""
        self.stopping = True
        for channel in tuple(self._channels.values()):
            channel.close(reason)
        with Timeout(STOP_SECONDS, False):
            while self._channels:
                sleep(0.01)
        for greenlet in self._greenlets:
            greenlet.kill()
        for _, listener in self._listeners:
            listener.close()
        self._greenlets.clear()
        self._listeners.clear()

    def describe(self) -> list[dict[str, Any]]:
        """One mapping a controller, for ``show``: see ``control``."""
        now = time.monotonic()
        described = [outgoing.describe(now) for outgoing in self._outgoing]
        ours = {outgoing.channel for outgoing in self._outgoing}
        described += [_describe(channel, channel.peer, now) for channel in self._channels.values() if channel not in ours]
        return described

    @property
    def listening(self) -> list[str]:
        return [name for name, _ in self._listeners]

    # ── one connection's life ──────────────────────────────────────────────────────────────────────────────────────────
    def transport(self, connected: socket.socket, *, tls: bool, server: bool) -> Transport:
        """What to speak through on a connected socket, which is closed if that fails. Waits for TLS. Raises OSError."""
        connected.setblocking(False)
        if not tls:
            return TcpTransport(connected)
        if self._certificates is None:
            raise TlsError("there are no certificates")
        try:
            transport = TlsTransport(connected, self._certificates, server=server)
            with Timeout(HANDSHAKE_SECONDS, TlsError(f"no TLS within {HANDSHAKE_SECONDS:g} s")):
                transport.handshake()
        except BaseException:
            connected.close()
            raise
        return transport

    def serve(self, transport: Transport, peer: str, begun: Callable[[Channel], None] | None = None) -> Channel:
        """Speak OpenFlow until it ends; returns the ended channel."""
        self._last_number += 1
        channel = Channel(self._last_number, peer, transport, Connection(self._versions), self)
        self._channels[channel.number] = channel
        if begun is not None:
            begun(channel)
        try:
            channel.run()
        except Exception:
            LOG.exception("%s: closed because of a fault of the switch itself", peer)
            channel.reason = "a fault of the switch itself"
        finally:
            del self._channels[channel.number]
            self.dropped_packet_ins += channel.dropped_packet_ins
            if channel.version is not None:
                self._side.closed(channel.number)
        return channel

    def received(self, channel: Channel, event: Event) -> None:
        if isinstance(event, Negotiated):
            security = channel.transport.security
            LOG.info("%s: connected, OpenFlow 1.%d%s", channel.peer, event.version - 1, f", {security}" if security else "")
            self._side.opened(channel.number, event.version)
        else:
            self._side.received(channel.number, event)

    def paused(self) -> None:
        self._side.paused()

    # ── from outside ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _accept(self, listener: socket.socket, tls: bool) -> None:
        scheme = "ssl" if tls else "tcp"
        while True:
            wait_readable(listener.fileno())
            try:
                connected, address = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                LOG.warning("cannot take a connection: %s", error.strerror)
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    sleep(1.0)
                continue
            peer = f"{scheme}:[{address[0]}]:{address[1]}" if ":" in address[0] else f"{scheme}:{address[0]}:{address[1]}"
            if self._incoming >= MAX_INCOMING:
                LOG.warning("%s: turned away, there are %d connections already", peer, self._incoming)
                connected.close()
                continue
            self._incoming += 1
            spawn(self._serve_incoming, connected, peer, tls)

    def _serve_incoming(self, connected: socket.socket, peer: str, tls: bool) -> None:
        try:
            try:
                transport = self.transport(connected, tls=tls, server=True)
            except OSError as error:
                LOG.warning("%s: turned away: %s", peer, error.strerror)
                return
            channel = self.serve(transport, peer)
            LOG.info("%s: connection ended: %s", peer, channel.reason)
        finally:
            self._incoming -= 1


class Outgoing:
    """One controller that the switch keeps connecting to. ``channel`` is None while there is no connection."""

    def __init__(
        self, connections: Connections, host: str, port: Callable[[], int], name: str, backoff: Backoff, *, tls: bool
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
            return _describe(self.channel, self._name, now)
        return {"target": self._name, "state": "disconnected", "problem": self.problem}

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
            connected = socket.socket(family, socket.SOCK_STREAM)
            try:
                _connect_socket(connected, address)
                return connected
            except OSError as error:
                connected.close()
                failure = error
            except BaseException:
                connected.close()
                raise
        raise failure

    def _addresses(self) -> Iterator[tuple[int, Any]]:
        port = self._port()
        try:
            found = socket.getaddrinfo(self._host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = in_thread(socket.getaddrinfo, self._host, port, 0, socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            yield family, address


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


def _describe(channel: Channel, name: str, now: float) -> dict[str, Any]:
    return {
        "target": name,
        "state": "connecting" if channel.version is None else "connected",
        "version": None if channel.version is None else f"1.{channel.version - 1}",
        "security": channel.transport.security,
        "seconds": now - channel.opened_at,
        "dropped_packet_ins": channel.dropped_packet_ins,
        "backlog": channel.backlog,
    }
