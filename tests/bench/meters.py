"""Meters: how far what they let through is from what their rate and burst allow, from 100 packets/s to 1 Gb/s.

Three times the rate is offered for some seconds; the time that this took says what may pass, the receiver's kernel counts what did.
The faster ones in kilobits get segmentation-offload frames, as a local stack makes them.

Invariant: too little offered is an error, not a figure.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from kernel import BenchError, Kernel
from product import Product
from results import Aim, Row

from appliance.lab.testbed import Testbed

GROUP = "meters"
UDP_SEGMENT = 103
SEGMENT_BYTES = 1400
HEADERS_BYTES = 42
PORT = 9
OFFERED = 3
LATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """``rate`` is in packets/s or kb/s; each send is ``segments`` packets of ``size`` bytes of payload."""

    id: str
    name: str
    kind: str
    rate: int
    size: int = 100
    segments: int = 1

    @property
    def each(self) -> float:
        """What one send counts, in the unit of the rate."""
        return 1.0 if self.kind == "pktps" else (self.size * self.segments + HEADERS_BYTES) * 8 / 1000


CASES = (
    Case("pktps_100", "100 packets/s", "pktps", 100),
    Case("pktps_10k", "10,000 packets/s", "pktps", 10_000),
    Case("kbps_1m", "1 Mb/s", "kbps", 1_000, 1000),
    Case("kbps_100m", "100 Mb/s", "kbps", 100_000, SEGMENT_BYTES, 10),
    Case("kbps_1g", "1 Gb/s", "kbps", 1_000_000, SEGMENT_BYTES, 44),
)


class Meters:
    def __init__(self, _: Kernel, *, seconds: float, rounds: int) -> None:
        self._seconds = seconds
        self._rounds = rounds

    def rows(self) -> Generator[Row, None, None]:
        with Testbed.of(2) as bed, Product(bed) as product:
            for case in CASES:
                passed = [self._measure(bed, product, case) for _ in range(self._rounds)]
                yield Row(
                    f"meters.{case.id}",
                    GROUP,
                    f"ofswitch lets through, {case.name}",
                    "packets" if case.kind == "pktps" else "kb",
                    [let_through for let_through, _ in passed],
                    "rate and burst allow",
                    [allowed for _, allowed in passed],
                    Aim("±", 0.03),
                )

    def _measure(self, bed: Testbed, product: Product, case: Case) -> tuple[float, float]:
        """What passed, and what the rate and a burst of half the time allow: a pause of the sender then loses no tokens."""
        burst = case.rate * self._seconds / 2
        product.ofctl("del-flows")
        product.ofctl("del-meters")
        product.ofctl("add-meter", f"meter=1,{case.kind},burst,band=type=drop,rate={case.rate},burst_size={burst:.0f}")
        product.add_flows(["in_port=1,actions=meter:1,output:2", "in_port=2,actions=output:1"])
        with self._socket(bed, "h2") as sink, self._socket(bed, "h1") as source:
            if case.segments > 1:
                source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT_BYTES)
            sink.bind((bed["h2"].address4, PORT))  # so that no ICMP error comes back
            source.connect((bed["h2"].address4, PORT))
            packets, octets = _arrived(bed)
            elapsed = self._offer(lambda: source.send(bytes(case.size * case.segments)), case, burst)
            packets, octets = (after - before for after, before in zip(_arrived(bed), (packets, octets), strict=True))
        return (packets if case.kind == "pktps" else octets * 8 / 1000), burst + case.rate * elapsed

    def _offer(self, send: Callable[[], object], case: Case, burst: float) -> float:
        """Clearly more than may pass; how long that took."""
        start = time.monotonic()
        sent = 0.0
        while (elapsed := time.monotonic() - start) < self._seconds or sent < 1.2 * (burst + case.rate * elapsed):
            if elapsed > self._seconds + LATE_SECONDS:
                raise BenchError(f"meters: the sender is too slow for {case.name}")
            if sent <= elapsed * OFFERED * case.rate:
                send()
                sent += case.each
            else:
                time.sleep(0.0002)
        return elapsed

    @staticmethod
    def _socket(bed: Testbed, host: str) -> socket.socket:
        return bed.inside(host, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def _arrived(bed: Testbed) -> tuple[int, int]:
    """Packets and bytes that the receiver's interface has counted."""
    told = bed.run(["ip", "-json", "-s", "link", "show", "dev", bed["h2"].interface], host="h2")
    rx = json.loads(told.stdout)[0]["stats64"]["rx"]
    return rx["packets"], rx["bytes"]
