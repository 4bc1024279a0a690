"""Random packets put on the wires, whose every copy is foretold by the interpreter of the tables as they must be; and counted.

Each goes several times: first as a packet that the fast path does not know, then as one that it does.

Invariant: a packet that the interpreter has foretold has come to its hosts, or the failure names it, before the next is sent.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from soak import draw
from soak.controllers import Controllers
from soak.draw import PROTECTED
from soak.network import TALKING, Network
from soak.product import Product
from soak.tables import Tables, entry_key
from support.interpreter import Interpreter
from support.waiting import SECONDS, in_time

from appliance.model.fields import BY_NAME
from appliance.model.megaflow import Controller as ControllerAction
from appliance.model.megaflow import Flood, Forward, PacketInReason
from appliance.model.ports import PortConfig
from appliance.openflow.messages import FlowStatsRequest, GroupStatsRequest, MeterStatsRequest, PacketIn
from appliance.packet.meter import METER_PASSES, RunMeter
from appliance.pipeline.flow_table import FlowEntry

TIMES = 3
"""Each packet is sent so often."""
_WAIT_SECONDS = 0.0002
_IN_PORT = BY_NAME["in_port"]

Frames = Counter[tuple[int, bytes]]
"""How often each has left: (port, frame)."""
Told = tuple[int, int, int, int, bytes]
"""What matters of a packet-in: reason, table, cookie, port, frame."""
Counts = Counter[tuple[object, ...]]
"""By what is counted, of what: ("entry", its key, "packets"), ("group", its number, bucket or None for the group, "bytes") …"""


@dataclass(frozen=True)
class Probe:
    """A packet, and what must come of it."""

    port: int
    frame: bytes
    leaves: Frames
    told: tuple[Told, ...]
    counted: Counts


class Probes:
    """Sends and compares, for one switch."""

    def __init__(self, network: Network, product: Product, controllers: Controllers) -> None:
        self._network = network
        self._product = product
        self._controllers = controllers
        self.sent = 0
        self.by_fast_path = 0

    def run(self, rnd: Random, tables: Tables, number: int) -> Iterator[str]:
        """Send so many; what did not go, or was not counted, as it should, in words. Nobody else may send or change anything."""
        probes = list(self._foretold(rnd, tables, number))
        leader = self._controllers.leader
        leader.ask()
        leader.take_packet_ins()
        self._network.forget_arrived()
        ports, before = self._product.counters(), self._counted()
        for probe in probes * TIMES:
            if wrong := list(self._send(probe)):
                yield from wrong
                return  # what is counted then is of no use
        sent = Counter(probe.port for probe in probes for _ in range(TIMES))
        yield from self._fates(ports, sent)
        expected = before
        for probe in probes * TIMES:
            expected.update(probe.counted)
        in_time(lambda: self._counted() == expected)  # the slow path may have some of them before it
        counted = self._counted()
        for what in counted.keys() | expected.keys():
            if counted[what] != expected[what]:
                yield f"{what}: counted {counted[what]}, not {expected[what]}"
        yield from (f"port {port} sent what nobody expected: {frame.hex()}" for port, frame in self._network.arrived())
        yield from self._told(Counter(told for probe in probes for told in probe.told * TIMES))
        self.sent += len(probes) * TIMES

    # ── foretelling ────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def _live(self) -> frozenset[int]:
        up = {port for port in self._network.working if not self._network.configs[port] & PortConfig.PORT_DOWN}
        return frozenset(up | set(TALKING))

    def _foretold(self, rnd: Random, tables: Tables, number: int) -> Iterator[Probe]:
        """Without those whose TTL is used up on the way: they count in later tables too, which their megaflow looked into."""
        senders = self._network.working
        pipeline = tables.pipeline()
        table_of = {entry: table.table_id for table in pipeline for entry in table}
        while number and senders:
            port, frame = rnd.choice(senders), draw.frame(rnd)
            metered: list[tuple[int, int]] = []
            run = Interpreter(pipeline, frame, port, self._live, meter=_recording(metered))
            run.run()
            reasons = {item.action.reason for item in run.emissions if isinstance(item.action, ControllerAction)}
            if PacketInReason.INVALID_TTL in reasons:
                continue
            number -= 1
            yield self._probe(port, frame, run, metered, table_of)

    def _probe(
        self, port: int, frame: bytes, run: Interpreter, metered: list[tuple[int, int]], table_of: dict[FlowEntry, int]
    ) -> Probe:
        configs = self._network.configs
        config = configs[port]
        if config & (PortConfig.NO_RECV | PortConfig.PORT_DOWN):
            return Probe(port, frame, Counter(), (), Counts())
        out = [number for number in sorted(self._live) if not configs.get(number, PortConfig.NONE) & PortConfig.NO_FWD]
        leaves: Frames = Counter()
        told: list[Told] = []
        for item in run.emissions:
            match item.action:
                case Forward(number):
                    leaves.update([(number, item.frame)] if number in out else [])
                case Flood():
                    leaves.update((number, item.frame) for number in out if number != port)
                case ControllerAction(reason, table_id, cookie) if not (
                    reason is PacketInReason.NO_MATCH and config & PortConfig.NO_PACKET_IN
                ):
                    told.append((reason, table_id, cookie, port, item.frame))
        counted = Counts()
        for entry in run.entries:
            if entry is not None:
                _count(counted, ("entry", entry_key(table_of[entry], entry)), len(frame))
        for meter_id, octets in metered:
            _count(counted, ("meter", meter_id), octets)
        for hit in run.hits:
            bucket = next((number for number, bucket in enumerate(hit.group.buckets) if bucket is hit.bucket), None)
            _count(counted, ("group", hit.group.group_id, bucket), len(frame))
        return Probe(port, frame, leaves, tuple(told), counted)

    # ── sending ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _send(self, probe: Probe) -> Iterator[str]:
        """Returns when what must leave has left."""
        self._network.send(probe.port, probe.frame)
        found: Frames = Counter()
        deadline = time.monotonic() + SECONDS
        while found.total() < probe.leaves.total() and time.monotonic() < deadline:
            found.update(self._network.arrived())
            time.sleep(_WAIT_SECONDS)
        if found != probe.leaves:
            yield f"in by port {probe.port}: {probe.frame.hex()}"
            yield from (f"  did not leave by port {port}: {frame.hex()}" for port, frame in (probe.leaves - found).elements())
            yield from (f"  left by port {port}: {frame.hex()}" for port, frame in (found - probe.leaves).elements())

    def _fates(self, before: dict[int, dict[str, int]], sent: Counter[int]) -> Iterator[str]:
        """Each packet has come in, and met one fate."""

        def since() -> dict[int, Counter[str]]:
            now = self._product.counters()
            return {port: Counter({name: now[port][name] - before[port][name] for name in now[port]}) for port in sent}

        in_time(lambda: all(since()[port]["rx_packets"] >= number for port, number in sent.items()))
        for port, fates in since().items():
            if fates["rx_packets"] != sent[port]:
                yield f"port {port} got {sent[port]} packets, and counted {fates['rx_packets']}"
            self.by_fast_path += fates["rx_packets"] - fates["slow_path"]

    def _told(self, wanted: Counter[Told]) -> Iterator[str]:
        """Packet-ins: those that the interpreter foretold, and no others."""
        leader = self._controllers.leader
        told: Counter[Told] = Counter()

        def come() -> bool:
            leader.ask()
            told.update(map(_told, leader.take_packet_ins()))
            return told.total() >= wanted.total()

        in_time(come)
        yield from (f"no packet-in: {item}" for item in (wanted - told).elements())
        yield from (f"a packet-in that nobody expected: {item}" for item in (told - wanted).elements())

    def _counted(self) -> Counts:
        """What the switch says that it has counted so far."""
        leader, counted = self._controllers.leader, Counts()
        for entry in leader.entries(FlowStatsRequest(cookie_mask=PROTECTED)):
            _count(counted, ("entry", entry_key(entry.table_id, entry)), entry.byte_count, entry.packet_count)
        for group in leader.entries(GroupStatsRequest()):
            if group.group_id in draw.GROUPS:
                _count(counted, ("group", group.group_id, None), group.byte_count, group.packet_count)
                for number, bucket in enumerate(group.bucket_stats):
                    _count(counted, ("group", group.group_id, number), bucket.byte_count, bucket.packet_count)
        for meter in leader.entries(MeterStatsRequest()):
            if meter.meter_id in draw.METERS:
                _count(counted, ("meter", meter.meter_id), meter.byte_in_count, meter.packet_in_count)
        return counted


def _recording(metered: list[tuple[int, int]]) -> RunMeter:
    """Meters that let everything pass, and note it: (meter, bytes)."""

    def meter(meter_id: int, octets: int) -> int:
        metered.append((meter_id, octets))
        return METER_PASSES

    return meter


def _count(counts: Counts, what: tuple[object, ...], octets: int, packets: int = 1) -> None:
    counts[(*what, "packets")] += packets
    counts[(*what, "bytes")] += octets


def _told(message: PacketIn) -> Told:
    return message.reason, message.table_id, message.cookie, _IN_PORT.get(message.match.value), message.data
