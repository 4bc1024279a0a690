"""The controller's end of an OpenFlow connection, for measuring: it sends, and counts what comes back without looking into it more
than it must.
"""

from __future__ import annotations

import select
import socket
import struct
from types import TracebackType

from kernel import BenchError

from appliance.openflow.codec import decode, encode
from appliance.openflow.messages import BarrierRequest, Error, FragmentHandling, Hello, Message, SetConfig

OFPT_ERROR, OFPT_ECHO_REQUEST, OFPT_PACKET_IN, OFPT_BARRIER_REPLY = 1, 2, 10, 21
WHOLE_PACKETS = 0xFFFF
SECONDS = 60.0
_HEADER = struct.Struct(">BBHI")


class Controller:
    """A context manager. Raises BenchError if the switch answers with an error, or not at all."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._received = bytearray()
        self.packet_ins = 0
        # To connections from its own machine Open vSwitch sends packet-ins only after it was told how much of them.
        self.send(Hello((4,)), SetConfig(FragmentHandling.NORMAL, WHOLE_PACKETS))
        self.barrier()

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def send(self, *messages: Message) -> None:
        self._socket.sendall(b"".join(map(encode, messages)))

    def barrier(self, *messages: Message) -> None:
        """Send them and a barrier request, and wait for its reply."""
        self.send(*messages, BarrierRequest())
        while not self.poll(SECONDS):
            pass

    def poll(self, seconds: float = 0.0) -> bool:
        """Take what has come, or comes within so many seconds; whether a barrier reply was among it."""
        if not select.select([self._socket], [], [], seconds)[0]:
            if seconds:
                raise BenchError(f"the switch did not answer for {seconds:.0f} s")
            return False
        data = self._socket.recv(1 << 20)
        if not data:
            raise BenchError("the switch closed the connection")
        self._received += data
        at, barrier, end = 0, False, len(self._received)
        while end - at >= _HEADER.size:
            _, kind, length, _ = _HEADER.unpack_from(self._received, at)
            if end - at < length:
                break
            if kind == OFPT_PACKET_IN:
                self.packet_ins += 1
            elif kind == OFPT_BARRIER_REPLY:
                barrier = True
            elif kind == OFPT_ECHO_REQUEST:
                self._socket.sendall(b"\x04\x03" + self._received[at + 2 : at + length])
            elif kind == OFPT_ERROR:
                error = decode(bytes(self._received[at : at + length]))
                raise BenchError(f"the switch answered with an error: {error if isinstance(error, Error) else '?'}")
            at += length
        del self._received[:at]
        return barrier
