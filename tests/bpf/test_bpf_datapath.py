"""The eBPF driver on real veth pairs: packets in and out, statistics, order, counters that add up, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.bursts import one_by_one
from support.waiting import SECONDS, until
from support.wires import (
    QUIET,
    UPCALL_PAGES,
    attached,
    frame,
    from_port,
    new_datapath,
    packet_socket,
    received,
    wait_upcalls,
    wait_upcalls_tagged,
)

from appliance.datapath import gates, netlink, programs
from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathError, DatapathPort
from appliance.datapath.layout import UPCALL_UNIT
from appliance.lab.testbed import Testbed
from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME, ETH_DST, ETH_TYPE, IN_PORT
from appliance.model.megaflow import Controller, DropReason, Flood, Forward, Megaflow, PacketInReason, PopTag, PushTag, UpcallReason
from appliance.model.ports import Hook
from appliance.packet.parse import parse

pytestmark = pytest.mark.root


def test_a_miss_comes_up_whole_and_a_megaflow_forwards(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    start = time.monotonic()
    wires[0].send(frame(1))
    upcall = wait_upcalls(datapath, 1)[0]
    assert (upcall.in_port, upcall.reason, upcall.frame, upcall.gso_size) == (1, UpcallReason.MISS, frame(1), 0)
    assert ETH_DST.get(upcall.key) == 0x020000000002

    # Only our own: the hosts' stacks send a packet by themselves now and then.
    quiet = ETH_TYPE.put(IN_PORT.put(0, 1), QUIET)
    assert datapath.install(Megaflow(5, quiet, IN_PORT.mask | ETH_TYPE.mask, (Forward(2),)))
    datapath.caught_up([5])
    for number in range(10):
        wires[0].send(frame(number))
    assert received(wires[1], 10) == [frame(number) for number in range(10)]
    assert received(wires[2], 0) == []
    statistics = datapath.statistics([5, 99])
    assert list(statistics) == [5]
    assert (statistics[5].packets, statistics[5].bytes) == (10, 640)
    assert start - 0.1 <= statistics[5].last_used <= time.monotonic() + 0.1, "to a tick or two"

    assert datapath.remove([5, 99])[5].packets == 10
    wires[0].send(frame(77))
    assert [upcall.frame for upcall in wait_upcalls(datapath, 1)] == [frame(77)]


def test_packets_of_one_flow_stay_in_order_while_the_slow_path_catches_up(
    datapath: BpfDatapath, wires: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "GATE_SECONDS", SECONDS)  # however long this takes
    for number in range(3):
        wires[0].send(frame(number))
    early = wait_upcalls(datapath, 3)
    datapath.install(from_port(1, 6, Forward(2)))
    wires[0].send(frame(3))
    for upcall in early:
        datapath.send(2, upcall.frame)
    datapath.caught_up([6])
    # Frame 3 is still in the queue: frame 4 must not overtake it.
    wires[0].send(frame(4))
    queued = wait_upcalls(datapath, 2)
    assert [(upcall.reason, upcall.megaflow_id) for upcall in queued] == [(UpcallReason.CATCHING_UP, 6)] * 2
    for upcall in queued:
        datapath.send(2, upcall.frame)
        datapath.served(6)
    wires[0].send(frame(5))
    assert received(wires[1], 6) == [frame(number) for number in range(6)]
    assert datapath.statistics([6])[6].packets == 1


def test_flows_with_nothing_in_the_slow_path_do_not_wait_for_those_that_have(
    datapath: BpfDatapath, wires: list[socket.socket]
) -> None:
    wires[0].send(frame(0))
    (early,) = wait_upcalls(datapath, 1)
    datapath.install(from_port(1, 6, Forward(2)))
    others = [frame(1, dst=f"02000000000{number}") for number in (3, 4, 5)]
    for raw in (frame(2), *others):
        wires[0].send(raw)
    passed = received(wires[1], len(others))
    assert len(passed) >= len(others) - 1, "one may stand in the same line by chance"
    assert frame(2) not in passed
    datapath.send(2, early.frame)
    datapath.dealt_with()
    datapath.caught_up([6])
    waiting = wait_upcalls(datapath, 1 + len(others) - len(passed))
    assert waiting[0].frame == frame(2)
    assert waiting[0].reason is UpcallReason.CATCHING_UP
    for upcall in waiting:
        datapath.send(2, upcall.frame)
        datapath.served(6)
    datapath.dealt_with()
    wires[0].send(frame(3))
    left = received(wires[1], 3)
    assert [raw for raw in left if raw not in others] == [frame(0), frame(2), frame(3)]


def test_flood_output_drop_and_the_way_back(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    datapath.install(from_port(1, 1, Flood()))
    datapath.install(from_port(2, 2, SetField(ETH_DST, 0x0200000000AA), Forward(1), Forward(2)))
    datapath.install(from_port(3, 3))
    datapath.caught_up([1, 2, 3])
    before = datapath.drops()[DropReason.NO_ACTION]
    wires[0].send(frame(1))
    wires[1].send(frame(2))
    wires[2].send(frame(3))
    changed = frame(2, dst="0200000000aa")
    assert received(wires[0], 1) == [changed]
    assert received(wires[1], 2) == [frame(1), changed]
    assert received(wires[2], 1) == [frame(1)]
    assert datapath.drops()[DropReason.NO_ACTION] - before >= 1


def test_controllers_get_a_copy_of_what_is_forwarded(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    """As the packet is where the action stands; it is counted as forwarded, once."""
    up = Controller(PacketInReason.NO_MATCH, 7, 0x123456789ABCDEF0, 0xFFE5, 0x0FEDCBA987654321)
    flood = Megaflow(4, ETH_TYPE.put(IN_PORT.put(0, 1), QUIET), IN_PORT.mask | ETH_TYPE.mask, (PushTag(0x8100, 5), up, Flood()))
    datapath.install(flood)
    datapath.caught_up([4])
    wires[0].send(frame(1))
    (copy,) = wait_upcalls_tagged(datapath, 1)
    tagged = frame(1)[:12] + bytes.fromhex("81000005") + frame(1)[12:]
    assert (copy.in_port, copy.reason, copy.megaflow_id, copy.controller, copy.frame) == (1, UpcallReason.COPY, 4, up, tagged)
    assert [len(received(wire, 1)) for wire in wires[1:]] == [1, 1]
    assert datapath.statistics([4])[4].packets == 1
    counters = datapath.port_counters()[1]
    assert (counters.forwarded_tc, counters.dropped, counters.lost) == (1, 0, 0)


def test_no_room_for_copies_drops_no_packet(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    up = Controller(PacketInReason.ACTION, 0, 0, 0xFFFF)
    datapath.install(Megaflow(4, ETH_TYPE.put(IN_PORT.put(0, 1), QUIET), IN_PORT.mask | ETH_TYPE.mask, (up, Forward(2))))
    datapath.caught_up([4])
    for number in range(UPCALL_PAGES):
        wires[0].send(frame(number))
    assert len(received(wires[1], UPCALL_PAGES)) == UPCALL_PAGES
    counters = datapath.port_counters()[1]
    assert counters.forwarded_tc == UPCALL_PAGES
    assert counters.lost > 0
    assert (
        len([upcall for upcall in one_by_one(datapath.upcalls(2 * UPCALL_PAGES)) if upcall.controller == up])
        == UPCALL_PAGES - counters.lost
    )


def test_tags_are_pushed_and_popped(datapath: BpfDatapath, bed: Testbed, wires: list[socket.socket]) -> None:
    datapath.install(from_port(1, 1, PushTag(0x8100, 5 << 13 | 100), Forward(2)))
    tagged = BY_NAME["vlan_vid"].put(IN_PORT.put(0, 2), 0x1000 | 100)
    datapath.install(Megaflow(2, tagged, IN_PORT.mask | BY_NAME["vlan_vid"].mask, (PopTag(), Forward(3))))
    datapath.caught_up([1, 2])
    wires[1].setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the tag that the kernel takes off
    wires[0].send(frame(1))
    data, ancillary, _, _ = wires[1].recvmsg(65536, 256)
    while data[12:14] != QUIET.to_bytes(2, "big"):
        data, ancillary, _, _ = wires[1].recvmsg(65536, 256)
    _, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", ancillary[0][2][:20])
    assert (data, tci, tpid) == (frame(1), 5 << 13 | 100, 0x8100)
    wires[1].send(frame(2)[:12] + struct.pack(">HH", 0x8100, 100) + frame(2)[12:])
    assert received(wires[2], 1) == [frame(2)]


def test_a_tagged_miss_comes_up_with_its_tag(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    tagged = frame(9)[:12] + struct.pack(">HH", 0x88A8, 3 << 13 | 7) + frame(9)[12:]
    wires[0].send(tagged)
    until(lambda: tagged in [upcall.frame for upcall in one_by_one(datapath.upcalls(100))], "the upcall")


def test_port_settings_and_counters_that_add_up(datapath: BpfDatapath, wires: list[socket.socket], bed: Testbed) -> None:
    before = datapath.drops()
    datapath.install(from_port(1, 1, Forward(2)))
    datapath.caught_up([1])
    port = DatapathPort(2, bed.interfaces[1], bed.inside(None, lambda: socket.if_nametoindex(bed.interfaces[1])), Hook.TC)
    for number in range(4):
        wires[0].send(frame(number))
    datapath.update(replace(port, forward=False))
    wires[0].send(frame(4))
    datapath.update(replace(port, receive=False))
    wires[1].send(frame(5))
    wires[2].send(frame(6))
    assert len(wait_upcalls(datapath, 1)) == 1
    assert len(received(wires[1], 4)) == 4
    drops = {reason: count - before[reason] for reason, count in datapath.drops().items()}
    assert drops[DropReason.OUTPUT_DOWN] == 1
    assert drops[DropReason.NO_RECV] >= 1
    for counters in datapath.port_counters().values():
        assert counters.rx_packets == (counters.forwarded_xdp + counters.forwarded_tc + counters.dropped + counters.punted), (
            counters
        )
    assert sum(counters.dropped for counters in datapath.port_counters().values()) == sum(drops.values())
    assert datapath.port_counters()[2].tx_packets == 4


def test_xdp_forwards_what_it_can(bed: Testbed, loaded: BpfDatapath, wires: list[socket.socket]) -> None:
    with attached(bed, loaded, Hook.XDP) as datapath:
        ifindexes = bed.inside(None, lambda: [socket.if_nametoindex(name) for name in bed.interfaces])
        # Our program on every port turns NAPI on at that end, not at the hosts': the frames that XDP drops go to port 3 here.
        datapath.install(from_port(1, 1, Flood()))
        datapath.install(from_port(2, 2))
        datapath.caught_up([1, 2])
        wires[0].send(frame(1))
        assert received(wires[1], 1) == [frame(1)]
        for number in range(5):
            wires[1].send(frame(number))
        until(lambda: datapath.statistics([2])[2].packets >= 5, "the drops")
        counters = datapath.port_counters()
        assert counters[1].forwarded_tc >= 1
        assert counters[2].dropped >= 5
        assert all(bed.inside(None, lambda: [netlink.xdp_program_id(ifindex) for ifindex in ifindexes]))
    assert not any(bed.inside(None, lambda: [netlink.xdp_program_id(ifindex) for ifindex in ifindexes]))


def own_programs() -> set[int]:
    """Ids of the programs that this process holds: other switches may run beside it."""
    ids = set()
    for fd in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(FileNotFoundError):
            found = re.search(r"^prog_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.MULTILINE)
            ids.update((int(found[1]),) if found else ())
    return ids


def test_a_new_one_takes_over_and_a_clean_stop_leaves_nothing(bed: Testbed, loaded: BpfDatapath) -> None:
    before = own_programs()
    second = new_datapath()
    loaded_by_second = own_programs() - before
    assert loaded_by_second <= {program.id for program in programs.loaded("ofswitch")}
    with attached(bed, loaded) as first:
        with attached(bed, second):
            filters = bed.inside(None, lambda: [netlink.tc_filters(socket.if_nametoindex(name)) for name in bed.interfaces])
            assert [len(of_port) for of_port in filters] == [1, 1, 1]
        assert first.port_counters()
    second.close()
    assert bed.inside(None, lambda: [netlink.tc_filters(socket.if_nametoindex(name)) for name in bed.interfaces]) == [[], [], []]
    # The kernel frees them in its own time.
    until(lambda: not {program.id for program in programs.loaded("ofswitch")} & loaded_by_second, "the programs are gone")


def test_an_interface_that_goes_to_another_namespace_works_there(loaded: BpfDatapath) -> None:
    """The kernel leaves our program at XDP on it: it is to let everything pass, while we live and afterwards."""
    with Testbed.of(2) as bed:
        name = bed.interfaces[0]
        bed.inside(None, lambda: loaded.attach(DatapathPort(1, name, socket.if_nametoindex(name), Hook.XDP)))
        assert bed.run(["ip", "link", "set", name, "netns", bed["h2"].namespace]).returncode == 0
        bed.inside(None, lambda: loaded.detach(1))
        assert bed.run(["ip", "link", "set", name, "up"], host="h2").returncode == 0
        wire, moved = bed.inside("h1", lambda: packet_socket(bed["h1"].interface)), bed.inside("h2", lambda: packet_socket(name))
        with wire, moved:

            def passes() -> bool:
                wire.send(frame(1))
                return frame(1) in received(moved, 0)

            until(passes, "a frame, once the kernel has seen to the link")


def test_an_interface_that_went_is_refused_and_leaves_nothing(loaded: BpfDatapath) -> None:
    """Between the kernel's word of it and ours it may go, or be called otherwise."""
    sockets = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DatapathError, match="cannot send by interface 2147483000"):
        loaded.attach(DatapathPort(9, "gone", 2147483000, Hook.TC))
    assert 9 not in loaded.port_counters()
    assert not loaded.send(9, bytes(60))
    assert len(os.listdir("/proc/self/fd")) == sockets


def test_a_port_that_floods_the_slow_path_leaves_room_for_the_others(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    share = UPCALL_PAGES * 4096 // UPCALL_UNIT // 5
    for number in range(share + 200):
        wires[0].send(frame(number))
    for number in range(100):
        wires[1].send(frame(number))
    until(
        lambda: datapath.port_counters()[1].rx_packets >= share + 200 and datapath.port_counters()[2].punted >= 100, "all came in"
    )
    flood = datapath.port_counters()[1]
    assert share - 10 <= flood.punted <= share + 1
    assert datapath.drops()[DropReason.UPCALL_SHARE] == flood.dropped == flood.rx_packets - flood.punted

    came = wait_upcalls(datapath, flood.punted + 100)
    assert sum(upcall.in_port == 2 for upcall in came) == 100
    by_flood = [upcall.frame for upcall in came if upcall.in_port == 1]
    assert by_flood == [frame(number) for number in range(len(by_flood))]
    assert len(by_flood) >= share - 10

    wires[0].send(frame(99_999))
    assert [upcall.frame for upcall in wait_upcalls(datapath, 1)] == [frame(99_999)], "what was taken out may be filled again"


def test_the_mask_that_finds_most_is_looked_at_first(datapath: BpfDatapath, wires: list[socket.socket]) -> None:
    """And changing the order loses and changes no packet."""
    masks = [IN_PORT.mask | ETH_TYPE.mask | ETH_DST.mask >> n for n in range(1, 30)]
    ours = parse(frame(), 1).key
    for number, mask in enumerate(masks, 1):
        # All but the last are for other packets.
        key = ours if number == len(masks) else ETH_TYPE.put(ours, 0x88B6)
        assert datapath.install(Megaflow(number, key & mask, mask, (Forward(2),)))
    datapath.caught_up(range(1, len(masks) + 1))
    found_by = datapath.megaflows.installed[len(masks)].place.subtable.number
    assert list(datapath.megaflows.probing.listed)[-1] == found_by
    for _ in range(3):
        for n in range(20):
            wires[0].send(frame(n))
        assert received(wires[1], 20) == [frame(n) for n in range(20)]
        datapath.statistics(range(1, len(masks) + 1))
        datapath.arrange()
        assert next(iter(datapath.megaflows.probing.listed)) == found_by
    datapath.remove(range(1, len(masks)))
    datapath.arrange()
    assert list(datapath.megaflows.probing.listed) == [found_by]
    wires[0].send(frame(20))
    assert received(wires[1], 1) == [frame(20)]


def test_the_fast_path_says_when_it_is_full(datapath: BpfDatapath) -> None:
    ids = iter(range(1, 10_000))
    installed = 0
    # As many megaflows as slots; not all find a way in their bucket, and those that don't are refused, not lost.
    for number in ids:
        if number > 1100:
            break
        installed += datapath.install(Megaflow(number, IN_PORT.put(0, 3) | number << 64, IN_PORT.mask | 0xFFFFFFFF << 64, ()))
    assert 900 < installed <= 1024
    assert len(datapath.statistics(range(1, 1101))) == installed
    datapath.remove(range(1, 1101))
    time.sleep(0.05)
    assert datapath.install(from_port(3, 20_000))
