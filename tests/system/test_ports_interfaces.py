"""Interfaces, counters, XDP features and the watcher against a kernel: veth, bridge and tap in a namespace of the test's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import own_namespace
import pytest
from pyroute2 import IPRoute
from support.waiting import SECONDS, readable

from appliance import ports
from appliance.datapath import netlink, programs
from appliance.model.ports import UNKNOWN_COUNT, Hook, PortConfig, PortState
from appliance.ports import LinkChange, LinkWatcher, XdpFeature, ethtool

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("network")]

GONE = 4_000_000
INGRESS = 0xFFFFFFF2


@pytest.fixture
def network() -> Iterator[None]:
    with own_namespace.entered():
        yield


@pytest.fixture
def veth(network: None) -> int:
    with IPRoute() as ip:
        ip.link(
            "add", ifname="ofsa", kind="veth", peer={"ifname": "ofsb", "address": "02:00:00:00:00:0b"}, address="02:00:00:00:00:0a"
        )
        for index in (peer := ip.link_lookup(ifname="ofsb")[0], mine := ip.link_lookup(ifname="ofsa")[0]):
            with open(f"/proc/sys/net/ipv6/conf/{'ofsa' if index == mine else 'ofsb'}/disable_ipv6", "w") as file:
                file.write("1")
        ip.link("set", index=peer, state="up")
        ip.link("set", index=mine, state="up")
    return int(mine)


def change(**what: object) -> None:
    with IPRoute() as ip:
        ip.link("set", **what)


def test_an_interface_is_described(veth: int) -> None:
    found = ports.find("ofsa")
    assert found is not None
    assert found == ports.find(veth)
    assert (found.name, found.ifindex, found.mac.hex(), found.kind, found.mtu) == ("ofsa", veth, "02000000000a", "veth", 1500)
    assert found.up
    assert {"lo", "ofsa", "ofsb"} <= set(ports.interface_names())
    loopback = ports.find("lo")
    assert loopback is not None
    assert loopback.kind == "loopback"
    port = ports.describe(found, 7, PortConfig.NO_FWD)
    assert (port.number, port.name, port.hw_addr, port.state) == (7, "ofsa", found.mac, PortState.LIVE)
    assert port.config is PortConfig.NO_FWD
    assert port.curr_speed == port.max_speed == 10_000_000  # what the veth driver says of itself
    assert port.curr == ethtool.PortFeature.GB10_FD


def test_what_is_not_there_is_none_and_never_an_exception() -> None:
    assert ports.find("nix") is None
    assert ports.find(GONE) is None
    assert ports.read_counters([GONE]) == {}
    assert ports.xdp_features(GONE) is None
    assert ethtool.driver("nix") == ""
    assert ethtool.link_speed("nix") == ethtool.LinkSpeed()
    assert ports.set_promiscuous(GONE, True) is False
    assert ports.set_up(GONE, False) is False


def test_promiscuous_and_up_tell_whether_they_changed_anything(veth: int) -> None:
    for set_flag, name in ((ports.set_promiscuous, "promiscuous"), (ports.set_up, "admin_up")):
        before = getattr(ports.find(veth), name)
        assert set_flag(veth, before) is False
        assert set_flag(veth, not before) is True
        assert getattr(ports.find(veth), name) is not before
        assert set_flag(veth, before) is True


def test_no_carrier_is_down(veth: int) -> None:
    change(ifname="ofsb", state="down")
    found = ports.find(veth)
    assert found is not None
    assert (found.admin_up, found.carrier, found.up) == (True, False, False)
    assert ports.describe(found, 1).state is PortState.LINK_DOWN


def test_counters_count_frames_from_the_baseline_on(veth: int) -> None:
    frame = bytes.fromhex("02000000000b02000000000a88b5") + bytes(86)

    def send(number: int) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind(("ofsa", 0))
            for _ in range(number):
                out.send(frame)

    send(3)
    peer = ports.find("ofsb")
    assert peer is not None
    baseline = ports.read_counters([veth, peer.ifindex])
    assert baseline[veth].tx_packets == 3
    send(5)
    now = ports.read_counters([veth, peer.ifindex])
    sent, received = ports.since(now[veth], baseline[veth]), ports.since(now[peer.ifindex], baseline[peer.ifindex])
    assert (sent.tx_packets, sent.tx_bytes, sent.rx_packets) == (5, 500, 0)
    assert (received.rx_packets, received.rx_bytes, received.tx_packets) == (5, 500, 0)
    assert UNKNOWN_COUNT not in (received.rx_crc_err, received.rx_frame_err, received.rx_over_err, received.collisions)


# ── hooks ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_veth_is_asked_for_its_xdp_features(veth: int) -> None:
    features = ports.xdp_features(veth)
    if features is None:
        pytest.skip("this kernel is older than the question (6.3)")
    assert features & XdpFeature.BASIC
    assert not features & XdpFeature.NDO_XMIT, "its peer has no NAPI"
    assert ports.xdp_transmit("veth", features)[0] is False


@pytest.mark.parametrize(("kind", "options"), [("veth", {}), ("bridge", {}), ("tuntap", {"mode": "tap"})])
def test_auto_takes_tc_for_virtual_interfaces(kind: str, options: dict[str, str]) -> None:
    with IPRoute() as ip:
        ip.link("add", ifname="ofsv", kind=kind, **options)
    found = ports.find("ofsv")
    assert found is not None
    assert found.kind
    hook, reason = ports.choose_hook(found, "auto", ethtool.driver("ofsv"), ports.xdp_features(found.ifindex))
    assert hook is Hook.TC
    assert reason.startswith(f"{found.kind} is virtual")


# ── watcher ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def settle(watcher: LinkWatcher, done: Callable[[list[LinkChange]], bool]) -> list[LinkChange]:
    """The changes until ``done`` says so; the kernel tells of carrier changes up to a second late."""
    found: list[LinkChange] = []
    while not done(found):
        assert readable(watcher, SECONDS), f"nothing came after {found}"
        found.extend(watcher.changes())
    return found


def test_the_watcher_tells_of_everything_once() -> None:
    with LinkWatcher() as watcher, IPRoute() as ip:
        assert watcher.changes() == []
        ip.link("add", ifname="ofsw", kind="veth", peer="ofsx")
        added = settle(watcher, lambda changes: len(changes) >= 2)
        assert {item.after.name for item in added if item.after and item.before is None} == {"ofsw", "ofsx"}
        index = ip.link_lookup(ifname="ofsw")[0]

        ip.link("set", index=index, state="up")
        ip.link("set", index=ip.link_lookup(ifname="ofsx")[0], state="up")
        settle(watcher, lambda _: watcher.known[index].up)

        ip.link("set", index=index, state="down")
        ip.link("set", index=index, ifname="ofsy")
        changes = settle(watcher, lambda _: watcher.known[index].name == "ofsy" and not watcher.known[index].admin_up)
        assert all(item.before != item.after for item in changes)

        ip.link("del", index=index)
        gone = settle(watcher, lambda changes: sum(item.after is None for item in changes) >= 2)
        assert index in [item.ifindex for item in gone if item.after is None]
        assert index not in watcher.known


def test_the_watcher_tells_of_filters_and_programs_at_xdp(veth: int) -> None:
    tc, xdp = (programs.load(kind, "ofswitch", programs.returns(2)) for kind in (programs.SCHED_CLS, programs.XDP))
    with LinkWatcher() as watcher, IPRoute() as ip:
        ip.tc("add", "clsact", veth)
        assert watcher.changes() == [], "nothing is there yet, or gone"
        filters = [LinkChange(watcher.known[veth], watcher.known[veth], filters=True)]
        for change_filter in (
            lambda: netlink.attach_tc(veth, tc),
            lambda: ip.tc("del-filter", "bpf", veth, handle=netlink.TC_HANDLE, parent=INGRESS, prio=netlink.TC_PRIORITY),
            lambda: ip.tc("del", "clsact", veth),
        ):
            change_filter()
            assert watcher.changes() == filters
        for mode in netlink.XdpMode:
            before = watcher.known[veth]
            attached = replace(before, xdp_program=netlink.attach_xdp(veth, xdp, mode))
            assert LinkChange(before, attached) in watcher.changes()
            ip.link("set", index=veth, xdp={"attrs": [("IFLA_XDP_FD", -1), ("IFLA_XDP_FLAGS", mode.value)]})
            assert LinkChange(attached, before) in watcher.changes()
    for fd in (tc, xdp):
        os.close(fd)


def test_leaving_a_bridge_is_not_going_away(veth: int) -> None:
    with LinkWatcher() as watcher, IPRoute() as ip:
        ip.link("add", ifname="ofsbr", kind="bridge")
        bridge = ip.link_lookup(ifname="ofsbr")[0]
        ip.link("set", index=veth, master=bridge)
        ip.link("set", index=veth, master=0)
        ip.link("del", index=bridge)
        changes = settle(watcher, lambda changes: any(item.after is None for item in changes))
        assert [item.ifindex for item in changes if item.after is None] == [bridge]
        assert veth in watcher.known


def test_a_queue_that_ran_over_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ask_again = LinkWatcher._ask_again
    monkeypatch.setattr(LinkWatcher, "_ask_again", lambda self: asked.append(1) or ask_again(self))
    with LinkWatcher() as watcher, IPRoute() as ip:
        watcher._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least: a few messages
        for number in range(20):
            ip.link("add", ifname=f"ofsd{number}", kind="bridge")
        ip.link("del", index=ip.link_lookup(ifname="ofsd3")[0])
        changes = watcher.changes()
        assert asked
        assert {interface.name for interface in watcher.known.values()} == set(ports.interface_names())
        assert {item.after.name for item in changes if item.before is None and item.after} >= {
            f"ofsd{n}" for n in range(20) if n != 3
        }
