"""New flows: how many a second the slow path sets up, and how long the first packet of one takes.

The whole product against Open vSwitch (netdev), by the same rules, of three kinds. Each pair of UDP ports has an entry of its own,
which matches exactly; or there is a table of source ports and behind it one of destination ports, and each pair is a way through
both. In these our switch comes to foresee what is wanted next (``switch/prefetch.py``, ``cross_product.py``), and few packets come
up to its slow path: the note says how many. Of the third kind none can be foreseen: each pair takes a megaflow of its own, and they
come in no order. That one is there to show what the slow path itself takes.

A host sends the first packet of each pair and keeps at most WINDOW of them on their way; what arrives is counted at the other host.
Latency is of one packet at a time, from before it is sent to when a program at the other host takes it, by one clock: when the
sender, whose CPU the switch may have taken, gets that back does not matter.

Invariant: a rate is of packets that arrived; losses are noted. What a switch does of its own accord between two measurements of it,
it has done before the other's turn.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import frames
import openvswitch
from kernel import BenchError, Kernel
from openvswitch import OpenVSwitch
from product import Product
from results import Aim, Row, in_turn

from appliance.datapath import netlink
from appliance.lab import namespace
from appliance.lab.testbed import Testbed

GROUP = "misses"
OURS, OVS = "ofswitch", "Open vSwitch, netdev"
WINDOW = 128
STALL_SECONDS = 1.0
"""What has not come by then since something last came is lost."""
FIRST_SOURCE, FIRST_DESTINATION = 10000, 30000
TIMEOUT_SECONDS = 1.0
PAUSE_SECONDS = 0.0005
"""Between packets whose latency is measured: the slow path is idle again."""


def an_entry_each(side: int) -> list[str]:
    """side² flow entries; what comes back, and everything else, is dropped."""
    pairs = ((FIRST_SOURCE + n // side, FIRST_DESTINATION + n % side) for n in range(side * side))
    return [f"priority=10,udp,in_port=1,tp_src={source},tp_dst={destination},actions=output:2" for source, destination in pairs]


def two_tables(side: int, *, told_apart: bool = False) -> list[str]:
    """2 × ``side`` flow entries for side² pairs; likewise. With ``told_apart`` each pair takes a megaflow of its own in any switch,
    because the second table may ask which the source was."""
    told = "write_metadata:{}," if told_apart else ""
    first = [
        f"table=0,priority=10,udp,in_port=1,tp_src={FIRST_SOURCE + n},actions={told.format(n)}goto_table:1" for n in range(side)
    ]
    second = [f"table=1,priority=10,udp,tp_dst={FIRST_DESTINATION + n},actions=output:2" for n in range(side)]
    return first + second


def packet(source: int, destination: int) -> bytes:
    raw = bytearray(frames.frame(0, destination))
    raw[34:36] = source.to_bytes(2, "big")
    raw[40:42] = bytes(2)  # no UDP checksum
    return bytes(raw)


@dataclass(frozen=True, slots=True)
class Kind:
    key: str
    text: str
    rules: Callable[[int], list[str]]
    foreseen: bool = True
    """Else the pairs come in no order, and the rate has no aim."""

    def pairs(self, side: int) -> Iterator[tuple[int, int]]:
        """UDP ports of each pair, source and destination."""
        order = list(range(side * side))
        if not self.foreseen:
            random.Random(0).shuffle(order)
        return ((FIRST_SOURCE + n // side, FIRST_DESTINATION + n % side) for n in order)


KINDS = (
    Kind("misses", "an entry each", an_entry_each),
    Kind("misses.crossed", "by two tables", two_tables),
    Kind("misses.unforeseen", "none foreseen", partial(two_tables, told_apart=True), foreseen=False),
)


@dataclass(slots=True)
class Contender:
    send: socket.socket
    packets: Iterator[bytes]
    """Each the first of its flow."""
    megaflows: Callable[[], int]
    came_up: Callable[[], int | None]
    """Packets, so far; None if it does not say."""
    settle: Callable[[], None]
    """Wait until it does nothing more."""
    sent: int = 0
    arrived: int = 0


class Misses:
    def __init__(self, programs: Kernel, *, side: int, rounds: int, latencies: int) -> None:
        """In all, side² flows for each contender and kind: ``latencies`` a round for the latency, the rest for the rate."""
        self._programs = programs
        self._side = side
        self._rounds = rounds
        self._latencies = latencies
        self._flows = side * side // rounds - latencies
        self._percentiles: dict[str, list[tuple[float, float]]] = {}

    def rows(self) -> Generator[Row, None, None]:
        for kind in KINDS:
            yield from self._rows(kind)

    def _rows(self, kind: Kind) -> Generator[Row, None, None]:
        with ExitStack() as stack:
            contenders = {OURS: self._ours(stack, kind)}
            missing = openvswitch.why_not()
            if not missing:
                contenders[OVS] = self._ovs(stack, kind)
            self._percentiles = {name: [] for name in contenders}
            samples = in_turn(
                {name: lambda contender=contender: self._rate(contender) for name, contender in contenders.items()},  # type: ignore[misc]
                self._rounds,
            )
            in_turn(
                {name: lambda name=name: self._latency(name, contenders[name]) for name in contenders},  # type: ignore[misc]
                self._rounds,
            )
            notes = [f"{OVS}: {missing}"] if missing else []
            for name, contender in contenders.items():
                came_up = contender.came_up()
                up = "" if came_up is None else f" {came_up:,} by the slow path,"
                notes.append(
                    f"{name}: {contender.arrived:,} of {contender.sent:,} arrived,{up} {contender.megaflows():,} megaflows"
                )
        note = "; ".join(notes)
        theirs = samples.get(OVS, [])
        aim = Aim(">=", 1) if kind.foreseen else None
        yield Row(f"{kind.key}.rate", GROUP, f"{OURS}, new flows, {kind.text}", "1/s", samples[OURS], OVS, theirs, aim, note)
        for place, percentile in enumerate((50, 99)):
            ours, theirs = ([both[place] for both in self._percentiles.get(name, [])] for name in (OURS, OVS))
            yield Row(
                f"{kind.key}.latency_p{percentile}",
                GROUP,
                f"{OURS}, first packet's latency, {kind.text}, p{percentile}",
                "µs",
                ours,
                OVS,
                theirs,
                Aim("<=", 1.5),
                f"{OVS}: {missing}" if missing else "",
            )

    # ── contenders ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _bed(self, stack: ExitStack) -> Testbed:
        bed = stack.enter_context(Testbed.of(2))
        for host in bed.hosts:
            bed.inside(host.name, partial(namespace.write_sysctl, f"net/ipv6/conf/{host.interface}/disable_ipv6", 1))
        sink = self._programs.program("xdp_timed_sink")
        bed.inside("h2", lambda: netlink.attach_xdp(socket.if_nametoindex(bed["h2"].interface), sink))
        return bed

    def _ours(self, stack: ExitStack, kind: Kind) -> Contender:
        bed = self._bed(stack)
        product = stack.enter_context(Product(bed))
        product.add_flows(kind.rules(self._side))
        return Contender(self._sender(stack, bed), self._packets(kind), product.megaflows, product.came_up, product.settle)

    def _ovs(self, stack: ExitStack, kind: Kind) -> Contender:
        bed = self._bed(stack)
        ovs = OpenVSwitch(bed.interfaces)
        bed.inside(None, ovs.__enter__)
        stack.callback(ovs.close)
        ovs.add_flows(kind.rules(self._side))
        return Contender(self._sender(stack, bed), self._packets(kind), ovs.megaflows, lambda: None, lambda: None)

    def _packets(self, kind: Kind) -> Iterator[bytes]:
        return (packet(*pair) for pair in kind.pairs(self._side))

    def _sender(self, stack: ExitStack, bed: Testbed) -> socket.socket:
        def open_socket() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            raw.bind((bed["h1"].interface, 0))
            return raw

        return stack.enter_context(bed.inside("h1", open_socket))

    # ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _rate(self, contender: Contender) -> float:
        """New flows a second, over those whose packet arrived."""
        packets = [next(contender.packets) for _ in range(self._flows)]
        arrived, start = self._send(contender.send, packets)
        contender.settle()
        contender.sent += len(packets)
        contender.arrived += arrived
        if not arrived:
            raise BenchError("of packets of new flows, none arrived")
        return arrived / (self._last_arrival - start)

    def _send(self, out: socket.socket, packets: Sequence[bytes]) -> tuple[int, float]:
        count, clock = self._programs.arrived, time.monotonic
        before = arrived = count()
        lost = sent = 0
        start = progress = clock()
        while arrived - before + lost < len(packets):
            if sent < len(packets) and sent - (arrived - before) - lost < WINDOW:
                out.send(packets[sent])
                sent += 1
            else:
                os.sched_yield()
            now = count()
            if now != arrived:
                arrived, progress = now, clock()
            elif clock() - progress > STALL_SECONDS:
                lost = sent - (arrived - before)
                progress = clock()
        self._last_arrival = progress
        return arrived - before, start

    def _latency(self, name: str, contender: Contender) -> float:
        count, clock = self._programs.arrived, time.monotonic
        taken = []
        for _ in range(self._latencies):
            raw = next(contender.packets)
            time.sleep(PAUSE_SECONDS)
            before = count()
            start = clock()
            contender.send.send(raw)
            while count() == before and clock() - start < TIMEOUT_SECONDS:
                pass
            taken.append(((self._programs.last_arrival() if count() != before else clock()) - start) * 1e6)
        contender.sent += self._latencies
        contender.arrived += sum(latency < TIMEOUT_SECONDS * 1e6 for latency in taken)
        percentiles = statistics.quantiles(taken, n=100, method="inclusive")
        self._percentiles[name].append((percentiles[49], percentiles[98]))
        return percentiles[49]
