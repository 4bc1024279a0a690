"""One TCP transfer between two namespaces, checked byte for byte.

Invariant: a result is ``ok`` only if every byte arrived, in order and unchanged: the count and the CRC-32 of both ends agree. Each
block of the stream starts with its number, so that two blocks exchanged would show.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
import zlib
from dataclasses import dataclass

from appliance.lab import namespace

BLOCK_BYTES = 1 << 20
_SEED = 6653
_HEADER = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class TransferResult:
    """``seconds`` is from connect to the last byte received; ``error`` is empty unless something broke off."""

    size: int
    sent: int
    received: int
    sent_crc: int
    received_crc: int
    seconds: float
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and self.size == self.sent == self.received and self.sent_crc == self.received_crc

    @property
    def bits_per_second(self) -> float:
        return self.received * 8 / self.seconds if self.seconds else 0.0


class _Sender(threading.Thread):
    def __init__(self, connection: socket.socket, size: int) -> None:
        super().__init__(name="transfer sender")
        self.connection, self.size = connection, size
        self.sent = self.crc = 0
        self.error = ""

    def run(self) -> None:
        block = bytearray(random.Random(_SEED).randbytes(min(BLOCK_BYTES, max(self.size, _HEADER.size))))
        try:
            number = 0
            while self.sent < self.size:
                _HEADER.pack_into(block, 0, number)
                chunk = memoryview(block)[: self.size - self.sent]
                self.connection.sendall(chunk)
                self.crc = zlib.crc32(chunk, self.crc)
                self.sent += len(chunk)
                number += 1
            self.connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = f"sending: {error}"


def _receive(connection: socket.socket) -> tuple[int, int, str]:
    """Bytes, their CRC-32, and what broke off."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    received = crc = 0
    try:
        while length := connection.recv_into(buffer):
            crc = zlib.crc32(buffer[:length], crc)
            received += length
    except OSError as error:
        return received, crc, f"receiving: {error}"
    return received, crc, ""


def transfer(source: str | None, destination: str | None, address: str, size: int, timeout: float = 60.0) -> TransferResult:
    """Send ``size`` bytes from namespace ``source`` to ``address``, by which it reaches namespace ``destination``.

    ``timeout`` is for each single wait (connect, a block), in seconds.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen() -> socket.socket:
        return socket.create_server(("", 0), family=family)

    def connect() -> socket.socket:
        return socket.create_connection((address, port), timeout=timeout)

    with namespace.inside(destination, listen) as listener:
        listener.settimeout(timeout)
        port = listener.getsockname()[1]
        start = time.monotonic()
        try:
            outgoing = namespace.inside(source, connect)
        except OSError as error:
            return TransferResult(size, 0, 0, 0, 0, time.monotonic() - start, f"connecting: {error}")
        with outgoing:
            incoming, _ = listener.accept()
            with incoming:
                incoming.settimeout(timeout)
                sender = _Sender(outgoing, size)
                sender.start()
                received, crc, error_text = _receive(incoming)
                seconds = time.monotonic() - start
                sender.join()
    return TransferResult(size, sender.sent, received, sender.crc, crc, seconds, sender.error or error_text)
