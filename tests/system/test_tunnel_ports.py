"""Tunnel ports are ports like others, although they share a device: state, counters, floods, groups, and whatever frames come."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.overlay import FIXED_KEY, FLOW_PORT, UNDERLAY_INTERFACE, Sites, ip, meshed, underlay4
from support.running_switch import LISTEN_PORT
from support.waiting import SECONDS, until

pytestmark = pytest.mark.root

BULK = 20_000_000
UDP_SEGMENT = 103


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with meshed(3, tmp_path_factory.mktemp("tunnels")) as sites:
        yield sites


@pytest.fixture
def sites(running: Sites) -> Sites:
    running.clear()
    return running


def counted(sites: Sites, site: int) -> dict[int, tuple[int, int]]:
    """By port number, packets that came in and that went out, as OpenFlow tells."""
    text = sites[site].ofctl("dump-ports")
    found = re.findall(r"port\s+(\d+): rx pkts=(\d+),.*\n\s+tx pkts=(\d+),", text)
    return {int(number): (int(came), int(left)) for number, came, left in found}


def description(sites: Sites, site: int, number: int) -> str:
    text = sites[site].ofctl("dump-ports-desc")
    return text[text.index(f" {number}(") :].split("speed:")[0]


def sender() -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("eth0", 0))
    return raw


def frame(number: int) -> bytes:
    """For everybody, of an ethertype for experiments."""
    return b"\xff" * 6 + bytes.fromhex("0200000001aa88b5") + b"tunnel ports" + bytes(40) + bytes((number,))


# ── what a controller sees ─────────────────────────────────────────────────────────────────────────────────────────────
def test_each_port_of_a_device_has_a_name_an_address_and_counters_of_its_own(sites: Sites) -> None:
    names = [re.search(r"\((\w+)\): addr:([\da-f:]+)", description(sites, 1, number)) for number in (12, 13, FLOW_PORT)]
    assert [name.group(1) for name in names if name] == ["to2", "to3", "any"]
    assert len({name.group(2) for name in names if name}) == 3
    shown = sites[1].control.request("ports")
    assert [port["interface"] for port in shown] == ["sw-a1", "to2", "to3", "any"]
    assert [port["hook_reason"] for port in shown[1:]] == [
        f"the kernel's vxlan {where}, behind vxlan_of_4789"
        for where in ("to 192.0.2.2, key 42", "to 192.0.2.3, key 42", "to where flow entries say, any key")
    ]
    sites.join(1, 2)
    sites[3].add_flows("in_port=1,actions=output:11")
    sites[1].add_flows("in_port=13,actions=drop")
    before = counted(sites, 1)
    assert sites.ping("a1", "b1") == 3
    with sites.beds[2].inside("c1", sender) as out:
        for number in range(7):
            out.send(frame(number))
    until(lambda: counted(sites, 1)[13][0] == before[13][0] + 7, "what site 3 sent")
    after = counted(sites, 1)
    moved = {number: tuple(now - then for now, then in zip(after[number], before[number], strict=True)) for number in after}
    assert moved[12][0] == moved[1][1] >= 3
    assert moved[12][1] == moved[1][0] >= 3
    assert (moved[13], moved[FLOW_PORT]) == ((7, 0), (0, 0))


@pytest.mark.parametrize("config", ["down", "no-receive"])
def test_one_port_is_shut_and_the_others_of_its_device_go_on(sites: Sites, config: str) -> None:
    sites[1].add_flows("in_port=1,actions=output:12,output:13", "in_port=12,actions=output:1", "in_port=13,actions=output:1")
    for site in (2, 3):
        sites[site].add_flows("in_port=1,actions=output:11", "in_port=11,actions=output:1")
    assert [sites.ping("a1", host) for host in ("b1", "c1")] == [3, 3]
    sites[1].ofctl("mod-port", "12", config)
    try:
        assert sites.ping("a1", "b1", wait=0.3) == 0
        assert sites.ping("a1", "c1") == 3
        assert ("PORT_DOWN" if config == "down" else "NO_RECV") in description(sites, 1, 12)
        assert "LIVE" in description(sites, 1, 13)
    finally:
        sites[1].ofctl("mod-port", "12", "up" if config == "down" else "receive")
    assert sites.ping("a1", "b1") == 3


def test_the_device_goes_down_and_comes_up_with_all_its_ports(sites: Sites) -> None:
    sites.join(1, 2)
    assert sites.ping("a1", "b1") == 3
    inside = sites.beds[0].switch_namespace
    ip("link", "set", "vxlan_of_4789", "down", inside=inside)
    try:
        until(lambda: all("LINK_DOWN" in description(sites, 1, number) for number in (12, 13, FLOW_PORT)), "three ports down")
        assert sites.ping("a1", "b1", wait=0.3) == 0
        assert "LIVE" in description(sites, 1, 1)
    finally:
        ip("link", "set", "vxlan_of_4789", "up", inside=inside)
    until(lambda: all("LIVE" in description(sites, 1, number) for number in (12, 13, FLOW_PORT)), "three ports up")
    assert sites.ping("a1", "b1") == 3


def test_without_the_underlay_a_tunnel_port_is_up_and_its_packets_are_lost(sites: Sites) -> None:
    """As in Open vSwitch: a tunnel is stateless, nobody knows whether there is another end."""
    sites.join(1, 2)
    assert sites.ping("a1", "b1") == 3
    inside = sites.beds[0].switch_namespace
    addresses = ip("-o", "-6", "addr", "show", "dev", UNDERLAY_INTERFACE, "scope", "global", inside=inside)
    ip("link", "set", UNDERLAY_INTERFACE, "down", inside=inside)
    try:
        assert sites.ping("a1", "b1", wait=0.3) == 0
        assert "LIVE" in description(sites, 1, 12)
    finally:
        ip("link", "set", UNDERLAY_INTERFACE, "up", inside=inside)
        for address in re.findall(r"inet6 (\S+)", addresses):  # which the kernel takes away with the link
            ip("addr", "replace", address, "dev", UNDERLAY_INTERFACE, "nodad", inside=inside)
    until(lambda: sites.ping("a1", "b1", number=1, wait=0.5) == 1, "an answer, once the underlay is back")
    assert sites.ping("a1", "b1") == 3


def test_a_packet_in_says_by_which_tunnel_the_packet_came(sites: Sites, tmp_path: Path) -> None:
    sites[1].add_flows(f"in_port={FLOW_PORT},actions=controller")
    sites[2].add_flows(f"in_port=1,actions=set_field:0x1234->tun_id,set_field:{underlay4(1)}->tun_dst,output:{FLOW_PORT}")
    monitor = tmp_path / "monitor.log"
    command = ["ovs-ofctl", "-O", "OpenFlow13", "monitor", f"tcp:127.0.0.1:{LISTEN_PORT}", "1024"]
    with monitor.open("wb") as out:
        watching = sites.beds[0].start(command, stdout=out, stderr=out, env={**os.environ, "OVS_RUNDIR": str(tmp_path)})
        try:
            until(
                lambda: any(controller["state"] == "connected" for controller in sites[1].control.request("show")["controllers"]),
                "the monitor",
            )
            with sites.beds[1].inside("b1", sender) as raw:
                raw.send(frame(1))
            expected = f"tun_id=0x1234,tun_src={underlay4(2)},tun_dst={underlay4(1)},in_port={FLOW_PORT} "
            until(lambda: expected in monitor.read_text(), "the packet-in")
        finally:
            sites.beds[0].stop(watching)


# ── where packets go ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_flood_from_a_tunnel_reaches_all_ports_of_the_device_but_that_one(sites: Sites) -> None:
    sites[1].add_flows("in_port=12,actions=flood")
    sites[2].add_flows("in_port=1,actions=output:11")
    for site in (2, 3):
        sites[site].add_flows("in_port=11,actions=output:1")
    before = {site: counted(sites, site) for site in (1, 2, 3)}
    with sites.beds[1].inside("b1", sender) as out:
        for number in range(5):
            out.send(frame(number))
            until(lambda: counted(sites, 3)[1][1] == before[3][1][1] + number + 1, "the flood at site 3")  # noqa: B023
    after = {site: counted(sites, site) for site in (1, 2, 3)}
    assert after[1][1][1] == before[1][1][1] + 5, "to the host"
    assert after[1][12] == (before[1][12][0] + 5, before[1][12][1]), "not back"
    assert after[2][11][0] == before[2][11][0]
    assert after[1][FLOW_PORT] == before[1][FLOW_PORT], "nothing says where to"


def test_in_port_is_back_through_the_same_tunnel(sites: Sites) -> None:
    """By fixed ends as they are; by a led port to where an action says, with the key that the packet came by or another."""
    sites[1].add_flows(
        "in_port=12,actions=in_port",
        f"in_port={FLOW_PORT},tun_src={underlay4(2)},tun_id=6,actions=set_field:{underlay4(2)}->tun_dst,in_port",
        f"in_port={FLOW_PORT},tun_src={underlay4(2)},tun_id=7,actions=set_field:8->tun_id,set_field:{underlay4(2)}->tun_dst,in_port",
    )
    to = f"set_field:{underlay4(1)}->tun_dst"
    sites[2].add_flows(
        f"in_port=1,actions=output:11,{to},set_field:6->tun_id,output:{FLOW_PORT},set_field:7->tun_id,output:{FLOW_PORT}",
        "in_port=11,actions=drop",
        f"in_port={FLOW_PORT},actions=drop",
    )
    with sites.seen(2) as seen, sites.beds[1].inside("b1", sender) as out:
        for number in range(4):
            sent = frame(number)
            out.send(sent)
            until(lambda: len([packet for packet in seen() if packet.endswith(sent)]) == 3, "three packets back")  # noqa: B023
        keys = [int.from_bytes(packet[32:35], "big") for packet in seen() if packet.endswith(frame(3))]
    assert sorted(keys) == [6, 8, FIXED_KEY]


def test_masks_of_tunnel_fields(sites: Sites) -> None:
    """As controllers give them; what is cut out of a key by one mask goes on by another entry."""
    sites[1].add_flows(
        f"in_port={FLOW_PORT},priority=2,tun_id=0x10/0xf0,tun_src=192.0.2.0/30,actions=output:1",
        f"in_port={FLOW_PORT},priority=1,actions=drop",
    )
    assert any("tun_id=0x10/0xf0,tun_src=192.0.2.0/30" in flow for flow in sites[1].flows())
    dst = f"set_field:{underlay4(1)}->tun_dst"
    for site in (2, 3):
        copies = ",".join(f"set_field:{key:#x}->tun_id,output:{FLOW_PORT}" for key in (0x10, 0x20, 0x31F, 0xABC010, 0x11))
        sites[site].add_flows(f"in_port=1,actions={dst},{copies}")
    before = counted(sites, 1)
    for host in ("b1", "c1"):
        with sites.bed(host).inside(host, sender) as out:
            for number in range(4):
                out.send(frame(number))
    # A packet is counted by its flow entry when it has left.
    packets = r"n_packets=(\d+)"
    until(lambda: sum(int(re.findall(packets, flow)[0]) for flow in sites[1].flows()) == 2 * 4 * 5, "what sites 2 and 3 sent")
    assert counted(sites, 1)[FLOW_PORT][0] == before[FLOW_PORT][0] + 2 * 4 * 5
    assert counted(sites, 1)[1][1] == before[1][1] + 2 * 4 * 4, "192.0.2.0/30 has sites 2 and 3, 0x10/0xf0 four of the five keys"


def test_fast_failover_from_one_tunnel_to_another(sites: Sites) -> None:
    """The next packet leaves by the other one, over the switch at its end."""
    sites[1].ofctl("add-group", "group_id=1,type=ff,bucket=watch_port:12,actions=output:12,bucket=watch_port:13,actions=output:13")
    sites[1].add_flows("in_port=1,actions=group:1", "in_port=12,actions=output:1", "in_port=13,actions=output:1")
    sites[2].add_flows("in_port=1,actions=output:11", "in_port=11,actions=output:1", "in_port=13,actions=output:1")
    sites[3].add_flows("in_port=11,actions=output:12", "in_port=12,actions=output:11")
    assert sites.ping("a1", "b1") == 3
    sites[1].ofctl("mod-port", "12", "no-receive")  # the link is up: no reason to change
    sites[2].ofctl("mod-flows", "in_port=1,actions=output:13")
    before = counted(sites, 1)
    try:
        assert sites.ping("a1", "b1") == 3, "out by 12, back by 13"
        assert counted(sites, 1)[12][1] >= before[12][1] + 3
        sites[1].ofctl("mod-port", "12", "down")
        before = counted(sites, 1)
        assert sites.ping("a1", "b1") == 3
        after = counted(sites, 1)
        assert after[12] == before[12]
        assert after[13][1] >= before[13][1] + 3
    finally:
        sites[1].ofctl("mod-port", "12", "up")
        sites[1].ofctl("mod-port", "12", "receive")
    before = counted(sites, 1)
    assert sites.ping("a1", "b1") == 3
    assert counted(sites, 1)[12][1] >= before[12][1] + 3, "the first bucket that is live"


# ── what is in them ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("tags", [(0x81000005,), (0x88A80006, 0x81006007), (0x81000006, 0x8100E007)])
def test_frames_with_tags_of_the_hosts_own(sites: Sites, tags: tuple[int, ...]) -> None:
    """There and back by the tunnel, and in it as they were."""
    sites[1].add_flows("in_port=1,actions=output:12", "in_port=12,actions=drop")
    sites[2].add_flows("in_port=11,actions=in_port")
    with sites.seen(1) as back, sites.seen(2) as there, sites.beds[0].inside("a1", sender) as out:
        for number in range(4):  # the first by the slow path
            plain = frame(number)
            sent = plain[:12] + b"".join(struct.pack(">I", tag) for tag in tags) + plain[12:]
            out.send(sent)
            for seen in (there, back):
                until(lambda: [packet for packet in seen() if packet.endswith(plain[12:])], "the frame")  # noqa: B023
                (packet,) = (packet for packet in seen() if packet.endswith(plain[12:]))
                assert packet[36:] == sent


def test_two_tags_around_segments_that_the_kernel_cuts(sites: Sites) -> None:
    for here, there in ((1, 2), (2, 1)):
        sites[here].add_flows(
            "in_port=1,actions=push_vlan:0x8100,set_field:0x1007->vlan_vid,goto_table:1",
            f"table=1,in_port=1,actions=push_vlan:0x88a8,set_field:0x1006->vlan_vid,output:{10 + there}",
            f"in_port={10 + there},dl_vlan=6,actions=pop_vlan,goto_table:1",
            f"table=1,in_port={10 + there},dl_vlan=7,actions=pop_vlan,output:1",
        )
    for family in (4, 6):
        assert sites.ping("a1", "b1", family, "-s", "4000") == 3, "in fragments"
        for source, destination in (("a1", "b1"), ("b1", "a1")):
            result = sites.transfer(source, destination, BULK, family)
            assert result.ok, result


@pytest.mark.parametrize("size", [1000, 1372])
def test_udp_in_large_frames_that_the_kernel_cuts(sites: Sites, size: int) -> None:
    """UDP_SEGMENT: one frame of many datagrams goes through both switches and the tunnel, or what becomes of it does."""
    sites.join(1, 2)
    assert sites.ping("a1", "b1", number=1) == 1

    def bound() -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("", 7000))
        udp.settimeout(SECONDS)
        return udp

    def connected() -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        udp.connect((sites.bed("b1")["b1"].address(4), 7000))
        return udp

    with sites.bed("b1").inside("b1", bound) as receiver, sites.bed("a1").inside("a1", connected) as out:
        for turn in range(4):  # the first by the slow path
            datagrams = [struct.pack(">II", turn, number) + bytes(size - 8) for number in range(40)]
            out.send(b"".join(datagrams))
            assert [receiver.recv(1 << 16) for _ in datagrams] == datagrams
