"""The snoop socket: who connects sees what the switch and its controllers say to each other.

``ovs-ofctl -O OpenFlow13 snoop unix:PATH`` reads it, as it reads Open vSwitch's. It is a Unix socket for its owner only. After a
Hello, every OpenFlow message of every controller follows, whichever way it went, as it was on the wire (before TLS).

Invariant: who snoops holds up nobody: one that does not read misses messages, always whole ones.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from appliance.agent.green import Greenlet, Signal, spawn, wait_readable
from appliance.agent.unix_socket import UnixListener, send_all
from appliance.openflow.codec import encode
from appliance.openflow.constants import OFP_VERSION
from appliance.openflow.messages import Hello

MAX_WAITING_BYTES = 4 << 20
READ_BYTES = 1 << 12


def snoop_path(control_socket: str) -> str:
    """Beside the control socket."""
    return f"{control_socket.removesuffix('.sock')}.snoop"


class Snoop:
    """Listens from the moment it is made. Raises UnixSocketError.

    ``watch`` is told whom to show all messages, whole ones; None while nobody snoops.
    """

    def __init__(self, path: str, watch: Callable[[Callable[[bytes], object] | None], None]) -> None:
        self._listener = UnixListener(path)
        self._watch = watch
        self._snoopers: set[_Snooper] = set()
        self._acceptor: Greenlet | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._acceptor = spawn(self._listener.accept_all, self._begin)

    def close(self) -> None:
        """Let everybody go, and take the socket away."""
        if self._acceptor is not None:
            self._acceptor.kill()
        for snooper in tuple(self._snoopers):
            snooper.close()
        self._listener.close()

    def _show(self, raw: bytes) -> None:
        for snooper in self._snoopers:
            snooper.show(raw)

    def _begin(self, client: socket.socket) -> None:
        snooper = _Snooper(client)
        self._snoopers.add(snooper)
        self._watch(self._show)
        snooper.reader.link(lambda _: self._end(snooper))

    def _end(self, snooper: _Snooper) -> None:
        snooper.close()
        self._snoopers.discard(snooper)
        if not self._snoopers:
            self._watch(None)


class _Snooper:
    """One client: what it says does not matter, but that it goes."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._to_write = Signal()
        self.reader = spawn(self._read)
        self._writer = spawn(self._write)
        self.show(encode(Hello((OFP_VERSION,), OFP_VERSION)))

    def show(self, raw: bytes) -> None:
        if self._waiting_bytes + len(raw) > MAX_WAITING_BYTES:
            return
        self._waiting.append(raw)
        self._waiting_bytes += len(raw)
        self._to_write.set()

    def close(self) -> None:
        self._writer.kill()
        self.reader.kill()
        self._client.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # it has gone
            while True:
                wait_readable(self._client.fileno())
                if not self._client.recv(READ_BYTES):
                    return

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # the reader sees that it has gone
            while True:
                self._to_write.wait()
                self._to_write.clear()
                data = b"".join(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
                send_all(self._client, data)
