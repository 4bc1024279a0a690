"""Frames that go straight to a veth's other end, past its queue: they arrive as by the queue, are counted as by the queue, and go
by the queue wherever the short way would be another one.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import own_namespace
import pytest
from pyroute2 import IPRoute
from support.running_switch import RunningSwitch, running_switch
from support.waiting import readable, until

from appliance.agent.links import KernelLinks
from appliance.datapath import netlink, programs
from appliance.lab.testbed import Testbed
from appliance.ports import LinkChange, LinkWatcher, OutputMethod, choose_output, find

pytestmark = pytest.mark.root

STRAIGHT, BY_THE_QUEUE = "redirect_peer", "redirect"
UDP, OTHER = 0x0800, 0x88B5
XDP_PASS = 2
ETH_P_ALL = 3
HOST, BROADCAST, MULTICAST, OTHERHOST, OUTGOING = range(5)
"""PACKET_*: what an interface takes a frame for."""
BURST = 100
"""Frames that a socket's buffer holds."""


# ── the choice ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def sw(bed: Testbed, host: str, function: Callable[..., Any], *words: Any) -> Any:
    """Call it where the switch's end is, with that interface."""
    return bed.inside(None, lambda: function(find(bed[host].switch_interface), *words))


def test_the_choice_and_why() -> None:
    with Testbed.of(1) as bed:
        mac = bytes.fromhex(bed["h1"].mac.replace(":", ""))
        straight = OutputMethod(mac, "its other end is in another namespace")
        assert sw(bed, "h1", choose_output) == straight

        assert bed.run(["tc", "qdisc", "add", "dev", bed["h1"].switch_interface, "root", "pfifo"]).returncode == 0
        assert sw(bed, "h1", choose_output) == OutputMethod(b"", "its qdisc pfifo is to see what leaves")
        assert bed.run(["tc", "qdisc", "del", "dev", bed["h1"].switch_interface, "root"]).returncode == 0

        with attached_xdp(bed, "h1"):
            assert sw(bed, "h1", choose_output) == OutputMethod(b"", "the XDP program at its other end is to see what arrives")
        assert sw(bed, "h1", choose_output) == straight


def test_only_a_veth_has_another_end_and_only_in_another_namespace() -> None:
    with own_namespace.entered(), IPRoute() as ip:
        ip.link("add", ifname="ofsa", kind="veth", peer={"ifname": "ofsb"})
        ip.link("add", ifname="ofsc", kind="bridge")
        veth, bridge = find("ofsa"), find("ofsc")
        assert veth is not None
        assert bridge is not None
        assert choose_output(veth) == OutputMethod(b"", "its other end is in this namespace")
        assert choose_output(bridge) == OutputMethod(b"", "")
        ip.link("del", index=veth.ifindex)
        assert choose_output(veth) == OutputMethod(b"", "it is gone")


CAP_NET_BROADCAST = 11
CAPABILITIES_VERSION = 0x20080522


def drop(capability: int) -> None:
    """From this thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = struct.pack("=Ii", CAPABILITIES_VERSION, 0), ctypes.create_string_buffer(24)
    assert libc.capget(head, data) == 0
    effective = struct.unpack_from("=I", data)[0]
    struct.pack_into("=I", data, 0, effective & ~(1 << capability))
    assert libc.capset(head, data) == 0


def test_who_may_not_hear_of_the_other_end_goes_by_the_queue() -> None:
    with Testbed.of(1) as bed:
        name = bed["h1"].switch_interface

        def chosen(deaf: bool) -> OutputMethod:
            if deaf:
                drop(CAP_NET_BROADCAST)
            links = KernelLinks()
            try:
                return links.choose_output(next(item for item in links.known.values() if item.name == name))
            finally:
                links.close()

        assert bed.inside(None, lambda: chosen(False)).other_end
        assert bed.inside(None, lambda: chosen(True)) == OutputMethod(
            b"", "without CAP_NET_BROADCAST nobody says when its other end changes"
        )


def test_what_happens_beside_an_interface_is_heard() -> None:
    with Testbed.of(2) as bed, bed.inside(None, LinkWatcher) as watcher:
        assert watcher.hears_other_ends
        while readable(watcher, 1):
            watcher.changes()  # links come up a while after they were told to
        mine = next(interface for interface in watcher.known.values() if interface.name == bed["h1"].switch_interface)

        def heard(*words: str, host: str | None = None) -> set[LinkChange]:
            assert bed.run(words, host=host).returncode == 0
            return set(watcher.changes())

        beside = LinkChange(mine, mine)
        assert heard("ip", "link", "set", "eth0", "address", "02:00:00:00:00:77", host="h1") == {beside}
        assert heard("tc", "qdisc", "add", "dev", mine.name, "root", "pfifo") == {beside}
        assert heard("tc", "qdisc", "del", "dev", mine.name, "root") == {beside}
        assert heard("tc", "qdisc", "add", "dev", mine.name, "clsact") == set()
        assert heard("ip", "link", "add", "br9", "type", "bridge", host="h1") == set()


# ── traffic ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class attached_xdp:  # noqa: N801  # a context manager, used as a function
    """A program that lets everything pass, at a host's interface."""

    def __init__(self, bed: Testbed, host: str) -> None:
        self._bed, self._host = bed, host

    def __enter__(self) -> None:
        fd = programs.load(programs.XDP, "ofswitch_passes", programs.returns(XDP_PASS))
        try:
            self._bed.inside(self._host, lambda: netlink.attach_xdp(socket.if_nametoindex("eth0"), fd))
        finally:
            os.close(fd)

    def __exit__(self, *_: object) -> None:
        assert self._bed.run(["ip", "link", "set", "eth0", "xdp", "off"], host=self._host).returncode == 0


def address(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(destination: bytes, source: bytes, kind: int, number: int, size: int = 100) -> bytes:
    """``number`` is at its end."""
    body = bytes(size - 18)
    if kind == UDP:
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
        body = (ip + struct.pack(">HHHH", 1000, 2000, size - 34, 0)).ljust(size - 18, b"\0")
    return destination + source + struct.pack(">H", kind) + body + struct.pack(">I", number)


class Network:
    """Two hosts at a switch that sends all from each to the other."""

    def __init__(self, switch: RunningSwitch) -> None:
        self.switch, self.bed = switch, switch.bed
        self.macs = {host.name: address(host.mac) for host in self.bed.hosts}

    def packet_socket(self, interface: str, host: str | None) -> socket.socket:
        """All that the interface receives and sends."""

        def opened() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            made.bind((interface, ETH_P_ALL))
            made.settimeout(2)
            return made

        return self.bed.inside(host, opened)

    def port(self, number: int) -> Any:
        return next(port for port in self.switch.control.request("ports") if port["number"] == number)

    def output(self, number: int = 2) -> tuple[str, str]:
        port = self.port(number)
        return port["output"], port["output_reason"]

    def send(self, frames: list[bytes]) -> list[tuple[bytes, int]]:
        """From h1; what came to h2 of them, and what h2 took each for."""
        with self.packet_socket("eth0", "h1") as sender, self.packet_socket("eth0", "h2") as receiver:
            for item in frames:
                sender.send(item)
            return received(receiver, len(frames))

    def warm(self, item: bytes) -> None:
        """Until the fast path has such frames' megaflow."""
        with self.packet_socket("eth0", "h1") as sender:

            def forwarded() -> bool:
                before = self.switch.packets()["tc"]
                sender.send(item)
                time.sleep(0.02)
                return self.switch.packets()["tc"] > before

            until(forwarded, "such frames in the fast path")


def received(receiver: socket.socket, wanted: int) -> list[tuple[bytes, int]]:
    found: list[tuple[bytes, int]] = []
    try:
        while len(found) < wanted:
            data, (_, _, taken_for, _, _) = receiver.recvfrom(1 << 16)
            if taken_for != OUTGOING and data[12:14] in (UDP.to_bytes(2, "big"), OTHER.to_bytes(2, "big")):
                found.append((data, taken_for))
    except TimeoutError:
        pass
    return found


def started(stack: ExitStack, folder: Path, direct: bool, **port: Any) -> Network:
    """``port`` is what else the configuration says of port 2."""
    bed = stack.enter_context(Testbed.of(2))
    for host in bed.hosts:  # which are to send nothing by themselves
        bed.inside(host.name, lambda: Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1"))
    config = folder / "switch.yaml"
    ports = [{"interface": name, "direct_to_peer": direct} for name in bed.interfaces]
    ports[1] |= port
    config.write_text(json.dumps({"ports": ports, "local": False}))
    switch = stack.enter_context(running_switch(bed, folder, str(config), ports=()))
    switch.add_flows("priority=1,in_port=1,actions=output:2", "priority=1,in_port=2,actions=output:1")
    return Network(switch)


@pytest.fixture(scope="module", params=[STRAIGHT, BY_THE_QUEUE])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with ExitStack() as stack:
        network = started(stack, tmp_path_factory.mktemp("switch"), request.param == STRAIGHT)
        reason = "its other end is in another namespace" if request.param == STRAIGHT else "as configured"
        assert [network.output(number) for number in (1, 2)] == [(request.param, reason)] * 2
        yield network
        assert network.switch.control.request("show")["faults"] == 0, network.switch.log


@pytest.mark.parametrize("kind", [UDP, OTHER])
def test_every_frame_arrives_in_order_and_is_counted(network: Network, kind: int) -> None:
    frames = [frame(network.macs["h2"], network.macs["h1"], kind, number, 60 + number) for number in range(BURST)]
    network.warm(frames[0])
    before = network.port(2)["counters"]
    with network.packet_socket(network.bed["h2"].switch_interface, None) as tap:
        assert network.send(frames) == [(item, HOST) for item in frames]
        tap.settimeout(0.1)
        seen = []
        try:
            while True:
                data, (_, _, taken_for, _, _) = tap.recvfrom(1 << 16)
                seen += [data] if taken_for == OUTGOING else []
        except TimeoutError:
            pass
    after = network.port(2)["counters"]
    assert after["tx_packets"] - before["tx_packets"] == BURST
    assert after["tx_bytes"] - before["tx_bytes"] == sum(map(len, frames))
    assert after["tx_slow_path"] == before["tx_slow_path"]
    # It is what the two ways differ in: who listens at the switch's end sees frames leave by the queue.
    assert len(seen) == (0 if network.output()[0] == STRAIGHT else BURST)


@pytest.mark.parametrize("kind", [UDP, OTHER])
def test_a_frame_arrives_as_what_it_is(network: Network, kind: int) -> None:
    """A host must not take frames for others for its own: it would answer, or forward them."""
    kinds = {
        network.macs["h2"]: HOST,
        b"\2\0\0\0\0\x99": OTHERHOST,
        b"\xff" * 6: BROADCAST,
        b"\x01\0\x5e\0\0\x05": MULTICAST,
        bytes(6): OTHERHOST,
    }
    for destination, taken_for in kinds.items():
        item = frame(destination, network.macs["h1"], kind, 1)
        network.warm(item)
        assert network.send([item]) == [(item, taken_for)]


def test_the_destination_counts_as_it_leaves(network: Network) -> None:
    """Behind actions too, on whichever way through eBPF."""
    wrong = b"\2\0\0\0\0\x99"
    simple = "set_field:{}->eth_dst"
    ways = (simple, f"push_vlan:0x8100,set_field:4101->vlan_vid,{simple},pop_vlan")
    for priority, actions in enumerate(ways, 10):
        for kind in (UDP, OTHER):
            flow = f"priority={priority},in_port=1,dl_dst=02:00:00:00:00:99,dl_type={kind:#x}"
            network.switch.add_flows(f"{flow},actions={actions.format(network.bed['h2'].mac)},output:2")
            item = frame(wrong, network.macs["h1"], kind, 1)
            network.warm(item)
            assert network.send([item]) == [(network.macs["h2"] + item[6:], HOST)], (actions, kind)
            network.switch.ofctl("--strict del-flows", flow)


def test_frames_longer_than_the_port_carries_do_not_leave(network: Network) -> None:
    bed = network.bed
    try:
        for mtu, arrives in (("1000", False), ("1400", True)):
            assert bed.run(["ip", "link", "set", bed["h2"].switch_interface, "mtu", mtu]).returncode == 0
            until(lambda mtu=mtu: network.port(2)["mtu"] == int(mtu), "the MTU")  # type: ignore[misc]
            item = frame(network.macs["h2"], network.macs["h1"], UDP, 1, 1200)
            network.warm(frame(network.macs["h2"], network.macs["h1"], UDP, 1))
            # The kernel asks the other end, by the queue: so that one too.
            assert bed.run(["ip", "link", "set", "eth0", "mtu", mtu], host="h2").returncode == 0
            assert network.send([item]) == ([(item, HOST)] if arrives else [])
    finally:
        assert bed.run(["ip", "link", "set", bed["h2"].switch_interface, "mtu", "1500"]).returncode == 0
        assert bed.run(["ip", "link", "set", "eth0", "mtu", "1500"], host="h2").returncode == 0
        until(lambda: network.port(2)["mtu"] == 1500, "the MTU")


# ── changes ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_way_follows_what_happens_at_the_other_end(tmp_path: Path) -> None:
    with ExitStack() as stack:
        network = started(stack, tmp_path, True)
        bed, old, new = network.bed, network.macs["h2"], b"\2\0\0\0\0\x77"
        to_old, to_new = (frame(mac, network.macs["h1"], UDP, 1) for mac in (old, new))
        network.warm(to_old)
        assert network.send([to_old, to_new]) == [(to_old, HOST), (to_new, OTHERHOST)]

        assert bed.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:77"], host="h2").returncode == 0
        until(lambda: network.send([to_old, to_new]) == [(to_old, OTHERHOST), (to_new, HOST)], "the new address")

        interface = bed["h2"].switch_interface
        assert bed.run(["tc", "qdisc", "add", "dev", interface, "root", "pfifo"]).returncode == 0
        until(lambda: network.output() == (BY_THE_QUEUE, "its qdisc pfifo is to see what leaves"), "the qdisc")
        assert network.send([to_new]) == [(to_new, HOST)]
        shown = bed.run(["tc", "-s", "qdisc", "show", "dev", interface, "root"]).stdout
        assert f"Sent {len(to_new)} bytes 1 pkt" in shown, shown
        assert bed.run(["tc", "qdisc", "del", "dev", interface, "root"]).returncode == 0
        until(lambda: network.output()[0] == STRAIGHT, "no qdisc")

        with attached_xdp(bed, "h2"):
            until(lambda: network.output()[0] == BY_THE_QUEUE, "the XDP program")
            assert network.send([to_new]) == [(to_new, HOST)]
        until(lambda: network.output()[0] == STRAIGHT, "no XDP program")

        assert bed.run(["ip", "link", "set", "eth0", "down"], host="h2").returncode == 0
        until(lambda: network.port(2)["state"] == "down", "the link")
        before = network.port(1)["counters"]["dropped"]
        with network.packet_socket("eth0", "h1") as sender:
            sender.send(to_new)
        until(lambda: network.port(1)["counters"]["dropped"] > before, "the drop")
        assert bed.run(["ip", "link", "set", "eth0", "up"], host="h2").returncode == 0
        until(lambda: network.send([to_new]) == [(to_new, HOST)], "the link")
        assert network.switch.control.request("show")["faults"] == 0


def test_the_other_end_may_move_or_go_under_traffic(tmp_path: Path) -> None:
    with ExitStack() as stack:
        network = started(stack, tmp_path, True)
        bed, item = network.bed, frame(network.macs["h2"], network.macs["h1"], UDP, 1)
        network.warm(item)
        sender = stack.enter_context(network.packet_socket("eth0", "h1"))
        pid = network.switch.process.pid

        def sent(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for _ in range(20):
                    sender.send(item)

        assert bed.run(["ip", "link", "set", "eth0", "netns", str(pid), "name", "moved"], host="h2").returncode == 0
        sent(0.1)
        assert bed.run(["ip", "link", "set", "moved", "up"]).returncode == 0
        until(lambda: network.output() == (BY_THE_QUEUE, "its other end is in this namespace"), "the move")
        with network.packet_socket("moved", None) as receiver:

            def arrives() -> bool:
                sender.send(item)
                return received(receiver, 1) == [(item, HOST)]

            until(arrives, "a frame, once the kernel has seen to the link")
        assert bed.run(["ip", "link", "set", "moved", "netns", network.bed["h2"].namespace, "name", "eth0"]).returncode == 0
        sent(0.1)
        assert bed.run(["ip", "link", "set", "eth0", "up"], host="h2").returncode == 0
        until(lambda: network.output()[0] == STRAIGHT, "the way back")
        until(lambda: network.send([item]) == [(item, HOST)], "a frame, once the kernel has seen to the link")

        assert bed.run(["ip", "link", "del", "eth0"], host="h2").returncode == 0
        sent(0.2)
        until(lambda: network.port(2)["state"] == "missing", "the port is gone")
        assert network.switch.process.poll() is None
        assert network.switch.control.request("show")["faults"] == 0


def test_a_port_with_queues_keeps_them(tmp_path: Path) -> None:
    with ExitStack() as stack:
        network = started(stack, tmp_path, True, queues=[{"id": 1, "max_rate": "1G"}])
        assert network.output(1)[0] == STRAIGHT
        assert network.output(2) == (BY_THE_QUEUE, "its qdisc htb is to see what leaves")
        network.switch.add_flows("priority=2,in_port=1,actions=set_queue:1,output:2")
        frames = [frame(network.macs["h2"], network.macs["h1"], UDP, number) for number in range(50)]
        network.warm(frames[0])
        before = queue_packets(network)
        assert network.send(frames) == [(item, HOST) for item in frames]
        assert queue_packets(network) - before == len(frames)


def queue_packets(network: Network) -> int:
    text = network.switch.ofctl("queue-stats", "2", "1")
    return int(text.rpartition("pkts=")[2].partition(",")[0])
