"""One controller's connection: a greenlet that reads, one that writes, and the sans-IO ``Connection`` between them.

A controller that does not read must not stall the switch, nor eat its memory. What waits for it is bounded in three steps:
beyond PACKET_IN_BYTES its packet-ins are dropped and counted; beyond PAUSE_BYTES nothing more is read from it, so that it cannot
ask for more; beyond ``connection.MAX_QUEUED_BYTES`` it is given up.

Invariant: ``send`` never waits.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from appliance.agent.green import Readable, Signal, Timeout, sleep, spawn, wait_writable
from appliance.openflow import connection as wire
from appliance.openflow.connection import Connection, ConnectionClosed, Event, MessageReceived, Negotiated
from appliance.openflow.messages import Message, PacketIn
from appliance.openflow.packet_ins import PacketIns

READ_BYTES = 1 << 16
WRITE_BYTES = 1 << 18
PACKET_IN_BYTES = 1 << 20
PAUSE_BYTES = 4 << 20
FLUSH_SECONDS = 1.0
"""For the last words (an Error that says why) before the socket is closed."""
TURN_SECONDS = 0.001
"""A controller whose messages keep coming is served for so long until others have their turn: packets too."""
LINGER_SECONDS = 0.0001
"""A controller that waits for each answer before it goes on is back within so long: until then nobody goes to sleep for it."""
LINGER_AFTER, LINGER_AFTER_AT_MOST = 4, 4096
"""That is done once it has been back so soon as often as this, in a row; four times as often after each time that it was in vain
(it may have been waiting for this very CPU), half as often after each time that it was not."""
BUSY_SECONDS = 0.05
"""A controller that sends without a pause still has its flow-mods brought into the fast path as often as this."""


class Owner(Protocol):
    """Who is told of what comes in. None of these may wait."""

    message: Callable[[MessageReceived], None]
    """What the controller says once it is ``opened``."""

    def opened(self, channel: Channel, version: int) -> None:
        """The two have agreed on a version."""

    def paused(self) -> None:
        """The controller has said what it had to say, for now."""


class Transport(Protocol):
    """Bytes over a connected socket that does not block: plainly (``TcpTransport``) or encrypted (``tls.TlsTransport``)."""

    socket: socket.socket

    @property
    def pending(self) -> int:
        """Bytes that ``flush`` has to write."""

    @property
    def security(self) -> str | None:
        """For people; None if anybody on the way can read and write."""

    def recv(self) -> bytes:
        """Some bytes; none at the end. Raises BlockingIOError, OSError."""

    def send(self, data: memoryview) -> int:
        """How many it took. Raises BlockingIOError, OSError."""

    def flush(self) -> None:
        """Write what it took. Raises BlockingIOError, OSError."""

    def close(self) -> None: ...


class TcpTransport:
    pending = 0
    security = None

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.recv = partial(connected.recv, READ_BYTES)
        self.send = connected.send

    def flush(self) -> None:
        """Whatever was taken has been written."""

    def close(self) -> None:
        self.socket.close()


class Channel:
    """``number`` is never used again; ``peer`` names the controller for people. ``transport`` is connected, and ours now."""

    def __init__(self, number: int, peer: str, transport: Transport, connection: Connection, owner: Owner) -> None:
        self.number = number
        self.peer = peer
        self.connection = connection
        self.version: int | None = None
        """Once it is agreed on."""
        self.opened_at = time.monotonic()
        self.dropped_packet_ins = 0
        self.transport = transport
        self.auxiliary_id = 0
        self.main: Channel | None = None
        """The main connection, of an auxiliary one."""
        self.ended = False
        self._owner = owner
        self._to_write = Signal()
        self._drained = Signal()
        self._readable = Readable(transport.socket.fileno())
        self._writes_follow = False
        """What is queued now is written soon, by ``write_gathered``."""
        self._writing = memoryview(b"")
        self._written = self._written_before = 0
        self.reason: str | None = None
        """Why it ended, or is about to."""
        self._broken = False
        """Nothing can be written any more."""

    @property
    def backlog(self) -> int:
        """Bytes that the controller has not taken yet."""
        return self.connection.queued_bytes + len(self._writing) + self.transport.pending

    def send(self, message: Message) -> None:
        """Queue a message; a packet-in for a controller that lags is dropped. Raises ValueError if it cannot be encoded."""
        if isinstance(message, PacketIn) and self.backlog > PACKET_IN_BYTES:
            self.dropped_packet_ins += 1
            return
        self.connection.send(message)
        if not self._writes_follow:
            self._wake_writer()

    def send_packet_ins(self, packet_ins: PacketIns) -> None:
        """The same for many packet-ins."""
        frames = packet_ins.frames
        fitting = packet_ins.within(PACKET_IN_BYTES - self.backlog)
        if fitting < len(frames):
            self.dropped_packet_ins += len(frames) - fitting
            packet_ins = packet_ins._replace(frames=frames[:fitting])
        if fitting:
            self.connection.send_packet_ins(packet_ins)
            if not self._writes_follow:
                self._wake_writer()

    def gather(self) -> None:
        """What is sent from now on waits for ``write_gathered``."""
        self._writes_follow = True

    def write_gathered(self) -> None:
        """Write what is queued without waking the writer, as far as the socket takes it: a controller that waits for each answer
        before it goes on gets it sooner, and many messages go out by one call."""
        self._writes_follow = False
        if self._broken or self.ended:
            return
        if not self._writing and not self.transport.pending:
            data = self.connection.data_to_send()
            if not data:
                return
            self._writing = memoryview(data)
            try:
                self._send_some()
            except BlockingIOError:
                pass
            except OSError as error:
                self._fail(error)
        if self._writing:
            self._to_write.set()
        else:
            self._wake_writer()

    def tick(self, now: float) -> None:
        """Wanted about once a second: probes a silent controller, gives up one that is gone."""
        progress = self._written != self._written_before
        self._written_before = self._written
        if progress and self.backlog > PAUSE_BYTES and self.connection.queued_bytes <= wire.MAX_QUEUED_BYTES:
            return  # it is silent because nothing is read from it, and it is there because it reads
        self._take(self.connection.tick(now))
        self._wake_writer()

    def close(self, reason: str) -> None:
        """End it from this side: what is queued is still written, then ``run`` returns."""
        if self.reason is None:
            self.reason = reason
        with contextlib.suppress(OSError):  # the controller was quicker
            self.transport.socket.shutdown(socket.SHUT_RD)  # the reader sees the end of the stream
        self._drained.set()

    def run(self) -> None:
        """Serve the connection until it ends; ``reason`` then says why, in words."""
        with contextlib.suppress(OSError):  # no matter
            self.transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wake_writer()
        writer = spawn(self._write)
        try:
            self._read()
            self._readable.close()  # at its end it is readable all the time
            with Timeout(FLUSH_SECONDS, False):
                while self.backlog and not self._broken:
                    sleep(0.01)
        finally:
            writer.kill()
            self._readable.close()
            self.transport.close()

    # ── in ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _read(self) -> None:
        began_at = time.monotonic()
        """Its turn: nothing else has run since."""
        heard_at: float | None = None
        """When the first came of what the owner does not know yet to be a whole."""
        quick = 0
        """How often in a row the controller was back within LINGER_SECONDS."""
        wanted = LINGER_AFTER
        """How often it must have been, to be lingered for."""
        while self.reason is None:
            if self.backlog > PAUSE_BYTES:
                self._readable.close()  # it is not to be read for a while
                self._drained.clear()
                self._drained.wait()
                continue
            try:
                data = self.transport.recv()
            except BlockingIOError:
                if heard_at is not None:
                    self._owner.paused()
                    heard_at = None
                paused_at = time.monotonic()
                if quick >= wanted:
                    if self._readable.soon(LINGER_SECONDS):
                        wanted = max(LINGER_AFTER, wanted // 2)
                        began_at = time.monotonic()  # nobody else wanted a turn
                        continue
                    wanted = min(LINGER_AFTER_AT_MOST, wanted * 4)
                self._readable.wait()
                began_at = time.monotonic()
                quick = quick + 1 if began_at - paused_at < LINGER_SECONDS else 0
                continue
            except OSError as error:
                self.close(error.strerror or str(error))
                return
            if not data:
                self.close("closed by the controller")
                return
            now = time.monotonic()
            self._writes_follow = True
            try:
                self._take(self.connection.receive_data(data, now))
            finally:
                self.write_gathered()
            if heard_at is None:
                heard_at = now
            elif now - heard_at > BUSY_SECONDS:
                self._owner.paused()
                heard_at = None
            if now - began_at > TURN_SECONDS:
                sleep(0)
                began_at = time.monotonic()

    def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case MessageReceived():
                    self._owner.message(event)
                case Negotiated(version=version):
                    self.version = version
                    self._owner.opened(self, version)
                case ConnectionClosed(reason=reason):
                    self.close(reason)

    # ── out ────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _wake_writer(self) -> None:
        if self.connection.queued_bytes or self.transport.pending:
            self._to_write.set()

    def _write(self) -> None:
        try:
            while True:
                self._to_write.wait()
                self._to_write.clear()
                while self._to_be_written():
                    self._write_some()
                while self.transport.pending:
                    self._flush_some()
        except OSError as error:
            self._fail(error)

    def _to_be_written(self) -> bool:
        if not self._writing:
            self._writing = memoryview(self.connection.data_to_send())
        return bool(self._writing)

    def _write_some(self) -> None:
        try:
            self._send_some()
        except BlockingIOError:
            wait_writable(self.transport.socket.fileno())
            return
        if self._writing or self.connection.queued_bytes:
            sleep(0)

    def _send_some(self) -> None:
        count = self.transport.send(self._writing[:WRITE_BYTES])
        self._writing = self._writing[count:]
        self._written += count
        if self.backlog <= PAUSE_BYTES:
            self._drained.set()

    def _fail(self, error: OSError) -> None:
        self._broken = True
        self.close(error.strerror or str(error))

    def _flush_some(self) -> None:
        try:
            self.transport.flush()
        except BlockingIOError:
            wait_writable(self.transport.socket.fileno())
