"""Groups and meters in the fast path, on real veth pairs: the shares, ways and rates that they say."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from support.bursts import one_by_one
from support.waiting import SECONDS, until
from support.wires import QUIET, frame, from_port, received

from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathPort
from appliance.lab.testbed import Testbed
from appliance.model.actions import Meter, PopMpls, SetField
from appliance.model.fields import BY_NAME, ETH_SRC, IN_PORT
from appliance.model.megaflow import (
    FIRST_AGAIN,
    Again,
    Controller,
    DecTtl,
    DropReason,
    Failover,
    Forward,
    Megaflow,
    MeterBand,
    MeterConfig,
    PacketInReason,
    PopTag,
    PushTag,
    Select,
    Way,
)
from appliance.model.ports import Hook
from appliance.packet.parse import parse
from appliance.packet.select import select_way

pytestmark = pytest.mark.root


def flow(number: int) -> bytes:
    """UDP from a source port of its own: another flow for each number."""
    return bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src="10.0.0.1", dst="10.0.0.2")
        / UDP(sport=1024 + number, dport=9)
        / (number.to_bytes(4, "big") + bytes(20))
    )


def udp(wire: socket.socket, number: int) -> list[bytes]:
    return [data for data in received(wire, number, (0x0800,)) if data[23] == 17 and data[36:38] == b"\x00\x09"]


def test_select_spreads_flows_by_weight_as_the_reference_does(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    ways = (Way(0, (SetField(ETH_SRC, 0x0200000000AA), Forward(2)), weight=1), Way(1, (Forward(3),), weight=3))
    datapath.install(from_port(1, 1, PushTag(0x8100, 9), PopTag(), Select(7, ways)))
    datapath.caught_up([1])
    expected: dict[int, list[bytes]] = {0: [], 1: []}
    for number in range(400):
        sent = flow(number)
        wires[0].send(sent)
        way = select_way(parse(sent, 1).key, ways)
        assert way is not None
        expected[way.bucket].append(sent)
    assert udp(wires[2], len(expected[1])) == expected[1]
    assert udp(wires[1], len(expected[0])) == [data[:6] + bytes.fromhex("0200000000aa") + data[12:] for data in expected[0]]
    assert 250 < len(expected[1]) < 350
    assert [packets for packets, _ in datapath.statistics([1])[1].ways] == [len(expected[0]), len(expected[1])]


def test_failover_leaves_a_dead_port_with_the_next_packet(datapath: BpfDatapath, wires: list[socket.socket], bed: Testbed) -> None:
    ways = (Way(0, (Forward(2),), watch_port=2), Way(1, (DecTtl(), Forward(3)), watch_port=3))
    datapath.install(from_port(1, 1, Failover(7, ways)))
    datapath.caught_up([1])
    second, third = (
        DatapathPort(n, bed.interfaces[n - 1], bed.inside(None, lambda n=n: socket.if_nametoindex(bed.interfaces[n - 1])), Hook.TC)
        for n in (2, 3)
    )
    before = datapath.drops()[DropReason.NO_LIVE_BUCKET]
    wires[0].send(flow(0))
    datapath.update(replace(second, live=False))
    wires[0].send(flow(1))
    datapath.update(replace(third, live=False))
    wires[0].send(flow(2))
    assert udp(wires[1], 1) == [flow(0)]
    assert [parse(data, 3).key == parse(flow(1), 3).key - (1 << BY_NAME["ip_ttl"].shift) for data in udp(wires[2], 1)] == [True]
    assert datapath.drops()[DropReason.NO_LIVE_BUCKET] - before == 1


def test_a_meter_lets_its_rate_through_and_counts_the_rest(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    datapath.set_meter(MeterConfig(3, True, (MeterBand(rate=200, burst=20),)))
    datapath.install(from_port(1, 1, Meter(3), Forward(2)))
    datapath.caught_up([1])
    # What the bucket lets through, by the times at which packets were sent: pauses of a busy machine fill it no further.
    start = before = time.monotonic()
    sent = expected = 0
    tokens = 20.0
    while (now := time.monotonic()) - start < 1.5:
        wires[0].send(flow(sent))
        sent += 1
        tokens, before = min(20.0, tokens + 200 * (now - before)), now
        if tokens >= 1:
            tokens, expected = tokens - 1, expected + 1
        time.sleep(0.001)
    until(lambda: datapath.meter_counters([3])[3].packet_in_count >= sent, "all came to the meter")
    passed = len(udp(wires[1], 0))
    assert 0.9 * expected <= passed <= 1.1 * expected
    counters = datapath.meter_counters([3, 99])[3]
    assert counters.packet_in_count >= sent
    assert counters.packet_in_count - counters.bands[0][0] - passed <= counters.packet_in_count - sent
    datapath.remove([1])
    datapath.remove_meter(3)
    assert datapath.meter_counters([3]) == {}


def test_a_meter_remarks_and_a_punted_packet_is_metered_once(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    """AF11 goes up by one drop precedence, to AF12, checksum and all, whichever tier sends it on."""
    datapath.set_meter(MeterConfig(1, True, (MeterBand(rate=1, burst=1, prec_level=1),)))
    for action, port in (((Forward(2),), 2), ((Controller(PacketInReason.ACTION, 0, 0, 64),), None)):
        marked = bytes(Ether(flow(0)[:14]) / IP(src="10.0.0.1", dst="10.0.0.2", tos=10 << 2) / UDP(sport=1, dport=9) / bytes(20))
        raised = bytes(Ether(flow(0)[:14]) / IP(src="10.0.0.1", dst="10.0.0.2", tos=12 << 2) / UDP(sport=1, dport=9) / bytes(20))
        datapath.set_meter(MeterConfig(1, True, (MeterBand(rate=1, burst=1, prec_level=1),)))
        tos = BY_NAME["ip_dscp"]
        datapath.install(Megaflow(50, tos.put(IN_PORT.put(0, 1), 10), IN_PORT.mask | tos.mask, (Meter(1), *action)))
        datapath.caught_up([50])
        wires[0].send(marked)
        wires[0].send(marked)
        if port:
            assert udp(wires[1], 2) == [marked, raised]
        else:
            frames: list[bytes] = []
            deadline = time.monotonic() + SECONDS
            while len(frames) < 2 and time.monotonic() < deadline:
                frames += [upcall.frame for upcall in one_by_one(datapath.upcalls(100)) if upcall.megaflow_id == 50]
            assert frames == [marked, raised]
        datapath.remove([50])
    assert datapath.meter_counters([1])[1].bands == ((2, 2 * len(marked)),)
    datapath.remove_meter(1)


def test_a_meter_counts_the_packet_as_it_is_now(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    """Where a label has been popped before it, four bytes less; the megaflow counts what came."""
    place = FIRST_AGAIN + 7
    datapath.set_meter(MeterConfig(1, True, ()))
    datapath.install(Megaflow(1, IN_PORT.put(0, 1), IN_PORT.mask, (PopMpls(QUIET), Again(place))))
    datapath.install(Megaflow(2, IN_PORT.put(0, place), IN_PORT.mask, (Meter(1), Forward(2))))
    datapath.caught_up([1, 2])
    labelled = frame(1, ethertype=0x8847)[:14] + bytes.fromhex("00010140") + frame(1)[14:]
    wires[0].send(labelled)
    assert received(wires[1], 1) == [frame(1)]
    counters = datapath.meter_counters([1])[1]
    assert (counters.packet_in_count, counters.byte_in_count) == (1, len(labelled) - 4)
    assert [each.bytes for each in datapath.remove([1, 2]).values()] == [len(labelled)] * 2
    datapath.remove_meter(1)
