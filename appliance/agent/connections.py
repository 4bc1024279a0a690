"""All controllers: the ones that the switch connects to, again and again, and the ones that connect to it.

Invariant: a connection's number is never used again, so that a message for one that is gone reaches nobody else.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from appliance.agent.accept import accept_all
from appliance.agent.channel import Channel, Owner, TcpTransport, Transport
from appliance.agent.green import Greenlet, Timeout, sleep, spawn
from appliance.agent.outgoing import Backoff, Outgoing, describe
from appliance.agent.tls import Certificates, TlsError, TlsTransport
from appliance.config import ControllerAddress, ListenAddress
from appliance.openflow.connection import Connection, MessageReceived
from appliance.openflow.messages import Message
from appliance.openflow.packet_ins import PacketIns

LOG = logging.getLogger("ofswitch.openflow")

DEFAULT_LISTEN_ADDRESS = "127.0.0.1"
"""``ptcp:PORT`` lets in controllers of this machine; others only when asked, by ``ptcp:PORT:0.0.0.0``."""
HANDSHAKE_SECONDS = 5.0
"""For TLS to come about."""
MAX_INCOMING = 64
"""Connections from outside at once; one more is closed at once."""
STOP_SECONDS = 2.0


class SwitchSide(Protocol):
    """Who is told of controllers and their messages. None of these may wait."""

    message: Callable[[MessageReceived], None]

    def opened(self, connection: int, version: int, auxiliary_id: int, main: int | None) -> None: ...
    def closed(self, connection: int) -> None: ...
    def paused(self) -> None: ...


class Connections(Owner):
    """``versions`` are wire versions. Nothing is connected or listened to before it is asked for.

    ``certificates`` must be there if an address asks for TLS.
    """

    def __init__(
        self,
        side: SwitchSide,
        versions: frozenset[int],
        certificates: Certificates | None = None,
    ) -> None:
        self._side = side
        self.message = side.message
        self._snoop: Callable[[bytes], object] | None = None
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
    def connect(
        self,
        host: str,
        port: Callable[[], int],
        name: str,
        backoff: Backoff | None = None,
        *,
        tls: bool = False,
        auxiliary: int = 0,
    ) -> None:
        """Keep a connection to a controller, and while there is one, ``auxiliary`` more to it.

        ``port`` is asked before each try, and may wait.
        """
        outgoing = Outgoing(self, host, port, name, backoff or Backoff(), tls=tls, auxiliary=auxiliary)
        self._outgoing.append(outgoing)
        self._greenlets.append(spawn(outgoing.run))

    def connect_to(self, address: ControllerAddress) -> None:
        self.connect(address.host, lambda: address.port, str(address), tls=address.tls, auxiliary=address.auxiliary)

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
        begin = partial(self._begin_incoming, tls=address.tls)
        self._greenlets.append(spawn(accept_all, listener, str(address), begin))
        port: int = listener.getsockname()[1]
        return port

    def send(self, connection: int, message: Message) -> None:
        """To one controller, if it is still there. Raises ValueError if the message cannot be encoded."""
        channel = self._channels.get(connection)
        if channel is not None:
            channel.send(message)

    def send_packet_ins(self, connection: int, packet_ins: PacketIns) -> None:
        """The same for many at once."""
        channel = self._channels.get(connection)
        if channel is not None:
            channel.send_packet_ins(packet_ins)

    def gather(self) -> None:
        """What is sent from now on waits for ``write_gathered``: it is for those who do not wait until then."""
        for channel in self._channels.values():
            channel.gather()

    def write_gathered(self) -> None:
        """Write what is queued, without waking a greenlet, as far as the sockets take it."""
        for channel in tuple(self._channels.values()):
            channel.write_gathered()

    def show_messages(self, snoop: Callable[[bytes], object] | None) -> None:
        """From now on ``snoop`` is shown every message, both ways."""
        self._snoop = snoop
        for channel in self._channels.values():
            channel.connection.snoop = snoop

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
        described += [describe(channel, channel.peer, now) for channel in self._channels.values() if channel not in ours]
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

    def serve(
        self,
        transport: Transport,
        peer: str,
        begun: Callable[[Channel], None] | None = None,
        *,
        auxiliary_id: int = 0,
        main: Channel | None = None,
    ) -> Channel:
        """Speak OpenFlow until it ends; returns the ended channel. One with a ``main`` connection ends with that."""
        self._last_number += 1
        channel = Channel(self._last_number, peer, transport, Connection(self._versions, number=self._last_number), self)
        channel.connection.snoop = self._snoop
        channel.auxiliary_id, channel.main = auxiliary_id, main
        self._channels[channel.number] = channel
        if begun is not None:
            begun(channel)
        try:
            channel.run()
        except Exception:
            LOG.exception("%s: closed because of a fault of the switch itself", peer)
            channel.reason = "a fault of the switch itself"
        finally:
            channel.ended = True
            del self._channels[channel.number]
            for auxiliary in tuple(self._channels.values()):
                if auxiliary.main is channel:
                    auxiliary.close("its main connection has ended")
            self.dropped_packet_ins += channel.dropped_packet_ins
            if channel.version is not None:
                self._side.closed(channel.number)
        return channel

    def opened(self, channel: Channel, version: int) -> None:
        security = channel.transport.security
        LOG.info("%s: connected, OpenFlow 1.%d%s", channel.peer, version - 1, f", {security}" if security else "")
        main = None if channel.main is None else channel.main.number
        self._side.opened(channel.number, version, channel.auxiliary_id, main)
        for outgoing in self._outgoing:
            if outgoing.channel is channel:
                self._greenlets += outgoing.open_auxiliary(channel)

    def paused(self) -> None:
        self._side.paused()

    # ── from outside ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _begin_incoming(self, connected: socket.socket, address: Any, tls: bool) -> None:
        scheme = "ssl" if tls else "tcp"
        peer = f"{scheme}:[{address[0]}]:{address[1]}" if ":" in address[0] else f"{scheme}:{address[0]}:{address[1]}"
        if self._incoming >= MAX_INCOMING:
            LOG.warning("%s: turned away, there are %d connections already", peer, self._incoming)
            connected.close()
            return
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
