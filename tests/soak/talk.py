"""What hosts 4 and 5 say to each other all the time: numbered packets, one stream for each kind of protected entry; pings; TCP.

Invariant: each packet of a stream arrives once, and in order; so whoever misses one can say which.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any, NamedTuple

from soak.network import TALKING, UDP_OF_TALKERS, Network, mac_of, wire
from soak.protected import FIRST_UDP_PORT, STREAMS
from support.waiting import SECONDS, in_time, lost, until
from vectors import frames

from appliance.lab.transfer import TransferResult, transfer

PACE_SECONDS = 0.01
"""Between two packets of a stream."""
PING_SECONDS = 0.01
TRANSFER_BYTES = 5_000_000
_NUMBER = struct.Struct(">IQ")
"""At a packet's end: its stream, and which of its packets it is."""


class Heard(NamedTuple):
    """What has not come as it should, in words. ``wrong`` is so whatever has happened. ``lost``, or overtaken, is also what finds
    no room, or nobody to let it pass."""

    wrong: list[str]
    lost: list[str]


# ── streams ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class _Direction:
    """All streams from one host to the other."""

    def __init__(self, network: Network, source: int, destination: int) -> None:
        sending, receiving = network.host(source).interface, network.host(destination).interface
        self.name = f"h{source} to h{destination}"
        self.sent = [0] * len(STREAMS)
        self._next = [0] * len(STREAMS)
        self._missing: set[tuple[int, int]] = set()
        self._late: list[str] = []
        self._twice: list[str] = []
        self._frames = [_frame(source, destination, stream) for stream in range(len(STREAMS))]
        self._in = network.bed.inside(f"h{destination}", lambda: wire(receiving, UDP_OF_TALKERS))
        self._out = network.bed.inside(f"h{source}", lambda: _sender(sending))
        self._reading = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk, name=self.name, daemon=True)
        self._thread.start()

    def _talk(self) -> None:
        while not self._ended.wait(PACE_SECONDS):
            for stream, head in enumerate(self._frames):
                self._out.send(head + _NUMBER.pack(stream, self.sent[stream]))
                self.sent[stream] += 1
            with self._reading:
                self._receive()

    def check(self) -> Heard:
        """Whether all that has been sent so far has come, as it should."""
        sent = list(self.sent)
        in_time(lambda: not any(map(int.__lt__, self._next, sent)))
        with self._reading:
            lost, self._late = self._late, []
            wrong, self._twice = self._twice, []
            lost += [f"{STREAMS[stream]}: packet {number} was lost" for stream, number in sorted(self._missing)]
            self._missing.clear()
        for stream, there, wanted in zip(STREAMS, self._next, sent, strict=True):
            if there < wanted:
                wrong.append(f"{stream}: packets {there} to {wanted - 1} have not come, and none after them")
        if not self._thread.is_alive():
            wrong.append("nothing is sent any more")
        return Heard([f"{self.name}, {fault}" for fault in wrong], [f"{self.name}, {fault}" for fault in lost])

    def _receive(self) -> None:
        while True:
            try:
                frame = self._in.recv(2048)
            except BlockingIOError:
                return
            stream, number = _NUMBER.unpack(frame[-_NUMBER.size :])
            wanted = self._next[stream]
            if number >= wanted:
                self._missing |= {(stream, missing) for missing in range(wanted, number)}
                self._next[stream] = number + 1
            elif (stream, number) in self._missing:
                self._missing.remove((stream, number))
                self._late.append(f"{STREAMS[stream]}: packet {number} came behind packet {wanted - 1}")
            else:
                self._twice.append(f"{STREAMS[stream]}: packet {number} came twice")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._in.close()
        self._out.close()


def _sender(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((interface, 0))
    return opened


def _frame(source: int, destination: int, stream: int) -> bytes:
    """Without its number. The addresses are no host's, so that nobody answers."""
    udp = frames.udp(7000, FIRST_UDP_PORT + stream, payload=bytes(_NUMBER.size))
    packet = frames.ipv4(17, udp, src=bytes((10, 9, 0, source)), dst=bytes((10, 9, 0, destination)))
    src, dst = (bytes.fromhex(mac_of(port).replace(":", "")) for port in (source, destination))
    made = frames.Sample(frames.ethernet(0x0800, packet, src=src, dst=dst), 4, 14, 34, 17).finished(l4=False).frame
    return made[: -_NUMBER.size]


class Talk:
    """A context manager: streams while it is open; pings and TCP while a round lasts."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network = network
        self._output = folder / "pings"
        self._directions: list[_Direction] = []
        self._pinging: subprocess.Popen[Any] | None = None
        self._transferring: threading.Thread | None = None
        self._transferred: list[TransferResult] = []

    def __enter__(self) -> Talk:
        self._directions = [_Direction(self._network, *TALKING), _Direction(self._network, *TALKING[::-1])]
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """May be called twice."""
        while self._directions:
            self._directions.pop().close()
        if self._pinging is not None:
            self._network.bed.stop(self._pinging)
        if self._transferring is not None:
            self._transferring.join()

    @property
    def sent(self) -> int:
        """Packets of all streams so far."""
        return sum(sum(direction.sent) for direction in self._directions)

    def begin(self, family: int) -> None:
        """A round begins: pings, and a transfer over IPv``family``."""
        source, destination = (self._network.host(port) for port in TALKING)
        with self._output.open("wb") as out:
            words = ["ping", "-n", "-i", str(PING_SECONDS), destination.address(family)]
            self._pinging = self._network.bed.start(words, host=source.name, stdout=out, stderr=out)
        self._transferred.clear()

        def run() -> None:
            namespaces = source.namespace, destination.namespace
            self._transferred.append(transfer(*namespaces, destination.address(family), TRANSFER_BYTES, SECONDS))

        self._transferring = threading.Thread(target=run, name="transfer", daemon=True)
        self._transferring.start()

    def until_answered(self) -> None:
        """Pings are answered, not just the first: all that is said in this round has been said before."""
        until(lambda: self._output.read_text().count(" bytes from ") > 1, "answered pings")

    def end(self) -> Heard:
        """The round is over."""
        assert self._pinging is not None
        assert self._transferring is not None
        self._transferring.join()
        wrong = [f"TCP: {result}" for result in self._transferred if not result.ok]
        self.until_answered()
        self._pinging.send_signal(signal.SIGINT)
        self._pinging.wait(SECONDS)
        missing = lost(self._output.read_text())
        heard = [direction.check() for direction in self._directions]
        pings = [f"pings {missing} were not answered"] if missing else []
        return Heard(sum((item.wrong for item in heard), wrong), sum((item.lost for item in heard), pings))
