"""Three switches joined by VXLAN over an underlay: hosts behind them reach each other, by fixed ends and as flow entries say."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from support.overlay import FIXED_KEY, FLOW_PORT, Sites, ip, meshed, underlay4
from support.waiting import SECONDS, until

pytestmark = pytest.mark.root

BULK = 30_000_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with meshed(3, tmp_path_factory.mktemp("tunnels")) as sites:
        yield sites


@pytest.fixture
def sites(running: Sites) -> Sites:
    running.clear()
    return running


@pytest.fixture
def large(sites: Sites) -> Iterator[Sites]:
    """Hosts that send jumbo frames."""
    links = [(bed, host) for bed in sites.beds for host in bed.hosts]

    def mtu(size: int) -> None:
        for bed, host in links:
            ip("link", "set", host.switch_interface, "mtu", str(size), inside=bed.switch_namespace)
            ip("link", "set", host.interface, "mtu", str(size), inside=host.namespace)

    mtu(9000)
    yield sites
    mtu(sites.host_mtu)


def wait_for(found: Callable[[], list[bytes]], number: int) -> list[bytes]:
    """That many, and a moment later no more."""
    deadline = time.monotonic() + SECONDS
    while len(found()) < number:
        assert time.monotonic() < deadline, found()
        time.sleep(0.01)
    time.sleep(0.05)
    return found()


def _sender() -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("eth0", 0))
    return raw


def test_ping_and_bulk_tcp_through_fixed_ends(sites: Sites) -> None:
    sites.join(1, 2)
    before = {site: (sites[site].packets(), sites.drops(site)) for site in (1, 2)}
    for family in (4, 6):
        assert sites.ping("a1", "b1", family) == 3
        for source, destination in (("a1", "b1"), ("b1", "a1")):
            result = sites.transfer(source, destination, BULK, family)
            assert result.ok, result
    for site, (packets, drops) in before.items():
        now = sites[site].packets()
        by_tc, by_python = (now[tier] - packets[tier] for tier in ("tc", "slow_path"))
        assert by_tc > 10 * by_python, (by_tc, by_python)
        assert sites.drops(site) == drops
    assert sites.ping("a1", "c1", number=1, wait=0.3) == 0, "nothing is joined to site 3"


def test_the_packets_on_the_underlay_are_vxlan(sites: Sites) -> None:
    sites.join(1, 2)
    assert sites.ping("a1", "b1") == 3
    with sites.seen(2) as seen:
        assert sites.ping("a1", "b1", number=1) == 1
        packets = seen()
    echo = next(packet for packet in packets if packet[48:50] == b"\x08\x00" and packet[59] == socket.IPPROTO_ICMP)
    assert echo[1] == 0, "type of service"
    assert echo[6:8] == b"\x40\x00", "not to be fragmented"
    assert echo[8] == 64, "TTL"
    assert echo[12:20] == bytes((192, 0, 2, 1, 192, 0, 2, 2))
    assert echo[22:24] == (4789).to_bytes(2, "big")
    assert echo[26:28] == b"\0\0", "no UDP checksum"
    assert echo[28:36] == b"\x08\0\0\0" + FIXED_KEY.to_bytes(3, "big") + b"\0"
    assert echo[36:42] == bytes.fromhex("020000000201"), "the inner frame, to b1"


def test_large_frames_and_fragments(large: Sites) -> None:
    large.join(1, 2)
    for family, header in ((4, 28), (6, 48)):
        assert large.ping("a1", "b1", family, "-M", "do", "-s", str(9000 - header)) == 3, "as large as the host sends"
        assert large.ping("a1", "b1", family, "-s", "20000") == 3, "in fragments"
    result = large.transfer("a1", "b1", BULK)
    assert result.ok, result


def test_tags_in_tunnels(sites: Sites) -> None:
    """Pushed before the tunnel and popped behind it: also of frames that the kernel is still to cut."""
    for here, there in ((1, 2), (2, 1)):
        sites[here].add_flows(
            f"in_port=1,actions=push_vlan:0x8100,set_field:{0x1000 | 5}->vlan_vid,output:{10 + there}",
            f"in_port={10 + there},dl_vlan=5,actions=pop_vlan,output:1",
        )
    with sites.seen(2) as seen:
        assert sites.ping("a1", "b1") == 3
        packets = seen()
    assert any(packet[48:52] == b"\x81\x00\x00\x05" for packet in packets), "the tag is in the inner frame"
    for family in (4, 6):
        result = sites.transfer("a1", "b1", BULK, family)
        assert result.ok, result


def test_flow_entries_lead_to_two_remotes(sites: Sites) -> None:
    """One port, and by the host's address another tunnel and another key; the other end tells them by source and key."""
    for site, host, key in ((2, "b1", 7), (3, "c1", 8)):
        mac = sites.bed(host)[host].mac
        to = f"set_field:{key}->tun_id,set_field:{underlay4(site)}->tun_dst"
        sites[1].add_flows(
            f"in_port=1,dl_dst={mac},actions={to},output:{FLOW_PORT}",
            f"in_port={FLOW_PORT},tun_id={key},tun_src={underlay4(site)},tun_dst={underlay4(1)},actions=output:1",
        )
        back = f"set_field:{key}->tun_id,set_field:{underlay4(1)}->tun_dst"
        sites[site].add_flows(
            f"in_port=1,actions={back},output:{FLOW_PORT}",
            f"in_port={FLOW_PORT},tun_id={key},tun_src={underlay4(1)},actions=output:1",
        )
    # What is for all goes to both: each copy by its own tunnel, and back to port 1 none.
    copies = ",".join(
        f"set_field:{key}->tun_id,set_field:{underlay4(site)}->tun_dst,output:{FLOW_PORT}" for site, key in ((2, 7), (3, 8))
    )
    sites[1].add_flows(f"in_port=1,priority=1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions={copies}")
    for host in ("b1", "c1"):
        for family in (4, 6):
            assert sites.ping("a1", host, family) == 3
        result = sites.transfer("a1", host, BULK)
        assert result.ok, result
    asked = [line for line in sites[1].flows() if "tun_src=" in line]
    assert len(asked) == 2
    assert not any("n_packets=0," in line for line in asked), asked
    megaflows = sites[1].control.request("megaflows", limit=100)["megaflows"]
    assert any("tun_dst" in str(megaflow["actions"]) for megaflow in megaflows), megaflows


def test_copies_to_several_tunnels_are_each_told_where_to_go(sites: Sites) -> None:
    """Fixed ends, led ones and the packet as it is, in one list of actions: in the fast path as in the slow path."""
    sites[1].add_flows(
        f"in_port=1,actions=output:12,set_field:9->tun_id,set_field:{underlay4(3)}->tun_dst,output:{FLOW_PORT},output:13,"
        f"set_field:10->tun_id,set_field:{underlay4(2)}->tun_dst,output:{FLOW_PORT}"
    )
    for site in (2, 3):
        sites[site].add_flows("in_port=11,actions=drop", f"in_port={FLOW_PORT},actions=drop")
    inner = bytes.fromhex("02000000030102000000010188b5") + b"copied by many" + bytes(40)
    with sites.seen(2) as at2, sites.seen(3) as at3, sites.beds[0].inside("a1", _sender) as out:
        for number in range(1, 9):  # the first ones by the slow path
            out.send(inner + bytes((number,)))
            for site, seen, key in ((2, at2, 10), (3, at3, 9)):
                frame = inner + bytes((number,))
                came = wait_for(lambda: [packet for packet in seen() if packet.endswith(frame)], 2)  # noqa: B023
                assert sorted(int.from_bytes(packet[32:35], "big") for packet in came) == [key, FIXED_KEY], (number, site)
        assert sites[1].packets()["tc"] > 0


def test_a_switch_between_two_tunnels(sites: Sites) -> None:
    """From one tunnel of a device into another of the same device, and on to a led one; nothing of the first stays."""
    sites[2].add_flows("in_port=1,actions=output:11", "in_port=11,actions=output:1")
    sites[3].add_flows("in_port=1,actions=output:11", f"in_port={FLOW_PORT},actions=output:1", "in_port=11,actions=output:1")
    sites[1].add_flows(
        f"in_port=12,actions=set_field:{underlay4(3)}->tun_dst,output:{FLOW_PORT}",
        "in_port=13,actions=output:12",
    )
    with sites.seen(3) as seen:
        assert sites.ping("b1", "c1") == 3
        packets = seen()
    keys = {int.from_bytes(packet[32:35], "big") for packet in packets if packet[12:16] == bytes((192, 0, 2, 1))}
    assert keys == {FIXED_KEY}, "the key goes on as it came"
    result = sites.transfer("b1", "c1", BULK)
    assert result.ok, result


def test_a_tunnel_that_nothing_leads_is_a_drop_with_a_name(sites: Sites) -> None:
    sites[1].add_flows(f"in_port=1,actions=output:{FLOW_PORT}", f"in_port=12,actions=output:{FLOW_PORT}")
    sites[2].add_flows("in_port=1,actions=output:11")
    before = sites.drops(1).get("no_tunnel_destination", 0)
    sent = sites[1].control.request("ports")
    sites.ping("a1", "b1", number=3, wait=0.3)
    sites.ping("b1", "c1", number=3, wait=0.3)  # came by a tunnel: its addresses do not lead back
    until(lambda: sites.drops(1).get("no_tunnel_destination", 0) >= before + 2, "the drops")
    after = sites[1].control.request("ports")
    counted = [next(port["counters"]["tx_packets"] for port in ports if port["number"] == FLOW_PORT) for ports in (sent, after)]
    assert counted[0] == counted[1], "nothing left, so nothing is counted"


def test_a_flood_reaches_the_tunnels(sites: Sites) -> None:
    sites[1].add_flows("in_port=1,actions=flood", "in_port=12,actions=output:1", "in_port=13,actions=output:1")
    for site in (2, 3):
        sites[site].add_flows("in_port=1,actions=output:11", "in_port=11,actions=output:1")
    for host in ("b1", "c1"):
        assert sites.ping("a1", host) == 3


def test_a_packet_out_goes_where_it_says(sites: Sites) -> None:
    sites[2].add_flows(f"in_port={FLOW_PORT},tun_id=0x123,actions=output:1")
    frame = "ffffffffffff02000000aa0188b5" + "00" * 46
    inner = bytes.fromhex(frame)
    with sites.seen(2) as seen:
        for out in ("output:12", f"set_field:0x123->tun_id,set_field:{underlay4(2)}->tun_dst,output:{FLOW_PORT}"):
            sites[1].ofctl("packet-out", f"in_port=controller,packet={frame},actions={out}")
        came = wait_for(lambda: [packet for packet in seen() if packet.endswith(inner)], 2)
    assert [int.from_bytes(packet[32:35], "big") for packet in came] == [FIXED_KEY, 0x123]
