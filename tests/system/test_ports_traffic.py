"""Right on every port: what hosts send passes, whatever the port is and wherever the fast path meets its packets.

Each pair of port and traffic is one of the pitfalls of virtual interfaces: checksums and segments left open, tags beside the frame,
frames longer than XDP takes, interfaces that do not poll.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest
from support.running_switch import RunningSwitch, running_switch
from support.tags import tagged
from support.tap import tap_cable
from support.waiting import SECONDS, until

from appliance.lab.testbed import Testbed
from appliance.lab.transfer import transfer

pytestmark = pytest.mark.root

MEGABYTES, FEW = 10_000_000, 100_000
JUMBO = 9000
SIOCETHTOOL, ETHTOOL_SGRO = 0x8946, 0x2C
IP_HEADER, IP6_HEADER, UDP_HEADER, ICMP_HEADER = 20, 40, 8, 8


@dataclass(frozen=True)
class Kind:
    """How the hosts are joined to the switch."""

    hook: str
    tiers: tuple[str, ...] = ("tc",)
    """Which are to forward what comes from the hosts."""
    tap: bool = False
    """The second host is a virtual machine, so to say."""


KINDS = {
    "veth, TC": Kind("tc"),
    "veth, native XDP": Kind("xdp", ("xdp",)),
    "veth, generic XDP": Kind("xdp-generic", ("xdp",)),
    "tap, TC": Kind("tc", tap=True),
    "tap, native XDP": Kind("xdp", ("xdp", "tc"), tap=True),  # the tap's frames may be unfinished, so that XDP passes them on
}


@dataclass(frozen=True)
class Network:
    """Two hosts, h1 and h2, and the switch between them."""

    switch: RunningSwitch
    kind: Kind
    devices: tuple[str, str]
    """The hosts' interfaces."""

    def ip(self, *words: str, host: str) -> None:
        result = self.switch.bed.run(["ip", *words], host=host)
        assert result.returncode == 0, (words, result.stderr)

    def address(self, host: int, family: int, net: int = 0) -> str:
        return f"10.0.{net}.{host}" if family == 4 else f"fd00:{net}::{host}"

    def give(self, host: int, device: str, net: int) -> None:
        self.ip("addr", "add", f"{self.address(host, 4, net)}/24", "dev", device, host=f"h{host}")
        self.ip("addr", "add", f"{self.address(host, 6, net)}/64", "dev", device, "nodad", host=f"h{host}")
        self.ip("link", "set", device, "up", host=f"h{host}")

    # ── traffic ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def ping(self, family: int, size: int = 56, net: int = 0, *options: str) -> None:
        command = ["ping", "-q", "-c1", "-W5", f"-s{size}", *options, self.address(2, family, net)]
        for _ in range(3):
            result = self.switch.bed.run(command, host="h1")
            assert " 0% packet loss" in result.stdout, f"{' '.join(command)}: {result.stdout}{result.stderr}\n{self.tiers()}"

    def tcp(self, family: int, net: int = 0, size: int = MEGABYTES) -> bool:
        """Both ways, every byte compared."""
        for source, destination in ((1, 2), (2, 1)):
            namespaces = (self.switch.bed[f"h{host}"].namespace for host in (source, destination))
            result = transfer(*namespaces, self.address(destination, family, net), size)
            assert result.ok, (result, self.tiers())
        return True

    def udp(self, family: int, sizes: range, net: int = 0) -> None:
        """Datagrams that h2 sends back, every byte compared."""
        kind, bed = socket.AF_INET if family == 4 else socket.AF_INET6, self.switch.bed
        rnd = random.Random(family)
        address = self.address(2, family, net)
        with (
            bed.inside("h1", lambda: socket.socket(kind, socket.SOCK_DGRAM)) as asking,
            bed.inside("h2", lambda: socket.socket(kind, socket.SOCK_DGRAM)) as answering,
        ):
            answering.bind(("", 0))
            where = (address, answering.getsockname()[1])
            for opened in (asking, answering):
                opened.settimeout(SECONDS)
            thread = threading.Thread(target=echo, args=(answering, len(sizes)))
            thread.start()
            try:
                for size in sizes:
                    data = rnd.randbytes(size)
                    asking.sendto(data, where)
                    assert asking.recv(1 << 16) == data, f"{size} bytes"
            finally:
                thread.join()

    def tiers(self) -> dict[str, object]:
        show = self.switch.control.request("show")
        return {"tiers": show["tiers"]["packets"], "drops": show["drops"], "faults": show["faults"]}


def receive_by_polling(device: str) -> None:
    """Turn on generic receive offload."""
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_SGRO, 1), 8)
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)


def echo(opened: socket.socket, number: int) -> None:
    for _ in range(number):
        try:
            data, where = opened.recvfrom(1 << 16)
        except TimeoutError:
            return
        opened.sendto(data, where)


@pytest.fixture(scope="module", params=KINDS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    kind = KINDS[request.param]
    with ExitStack() as stack:
        bed = stack.enter_context(Testbed.of(2))
        devices, ports = ["eth0", "eth0"], list(bed.interfaces)
        if kind.tap:
            stack.enter_context(tap_cable((bed.switch_namespace, "tap2"), (bed["h2"].namespace, "tap0")))
            devices[1], ports[1] = "tap0", "tap2"
            assert bed.run(["ip", "link", "set", "tap2", "up"]).returncode == 0
        for host, device in enumerate(devices, 1):
            # Or XDP's redirects to a veth's other end are lost, so that XDP leaves them to TC.
            bed.inside(f"h{host}", partial(receive_by_polling, device))
        flags = ("--hook", kind.hook, "--local", "none")
        folder = tmp_path_factory.mktemp("switch")
        switch = stack.enter_context(running_switch(bed, folder, *flags, ports=ports))
        network = Network(switch, kind, (devices[0], devices[1]))
        for host, device in enumerate(devices, 1):
            network.give(host, device, 1)
        switch.add_flows("priority=1,actions=NORMAL")
        yield network
        assert switch.control.request("show")["faults"] == 0, switch.log


FAMILIES = pytest.mark.parametrize("family", [4, 6])


@FAMILIES
def test_ping(network: Network, family: int) -> None:
    network.ping(family, net=1)
    full = 1500 - (IP_HEADER if family == 4 else IP6_HEADER) - ICMP_HEADER
    network.ping(family, full, 1, "-Mdo")


@FAMILIES
def test_bulk_tcp(network: Network, family: int) -> None:
    """Segments and checksums are left to the interface, which has nobody to leave them to."""
    network.switch.until_fast(lambda: network.tcp(family, net=1, size=FEW))
    before = network.switch.packets()
    network.tcp(family, net=1)
    after = network.switch.packets()
    forwarded = {tier: after[tier] - before[tier] for tier in before}
    assert all(forwarded[tier] > 50 for tier in network.kind.tiers), forwarded
    assert sum(forwarded[tier] for tier in network.kind.tiers) > 0.9 * sum(forwarded.values()), forwarded


@FAMILIES
def test_udp(network: Network, family: int) -> None:
    network.udp(family, range(0, 1400, 50), net=1)


@FAMILIES
def test_fragments(network: Network, family: int) -> None:
    network.ping(family, 20_000, 1)
    network.udp(family, range(1_500, 60_000, 6_500), net=1)


TAGS: dict[str, tuple[tuple[int, int], ...]] = {"802.1Q": ((0x8100, 5),), "QinQ": ((0x88A8, 100), (0x8100, 7))}


@pytest.mark.parametrize("tags", TAGS)
def test_tags(network: Network, tags: str) -> None:
    """The outermost tag is beside the frame, not in it, where a device or a stack left it to the next."""
    with ExitStack() as stack:
        for host, device in enumerate(network.devices, 1):
            stack.enter_context(tagged(network.switch.bed[f"h{host}"].namespace, device, TAGS[tags]))
            # A device lets frames with one tag be longer than without, but not those with two.
            mtu = str(1500 - 4 * (len(TAGS[tags]) - 1))
            for family in (4, 6):
                there, here = network.address(3 - host, family, 1), network.address(host, family, 1)
                route = ("route", "add", there, "dev", device, "src", here, "mtu", mtu)
                network.ip(*route, host=f"h{host}")
                stack.callback(network.ip, "route", "del", *route[2:], host=f"h{host}")
        for family in (4, 6):
            network.ping(family, net=1)
            network.ping(family, 4_000, 1)
            network.tcp(family, 1)
            network.udp(family, range(0, 1400, 200), 1)
        matched = [item["match_text"] for item in network.switch.control.request("megaflows")["megaflows"]]
    assert any(f"vlan_vid={TAGS[tags][0][1]}" in text for text in matched), matched


@pytest.fixture
def hidden(network: Network) -> int:
    """A network in which each host reaches the other by an address that the switch makes up; its number."""
    bed, net, made_up = network.switch.bed, 1, 2
    for port, other in ((1, 2), (2, 1)):
        device = network.devices[other - 1]
        (link,) = json.loads(bed.run(["ip", "-j", "link", "show", device], host=f"h{other}").stdout)
        for family, ip, src, dst, bits in ((4, "ip", "ip_src", "ip_dst", 32), (6, "ipv6", "ipv6_src", "ipv6_dst", 128)):
            source, destination = network.address(port, family, made_up), network.address(other, family, net)
            match = f"in_port={port},{ip},{dst.replace('ip_', 'nw_')}={network.address(other, family, made_up)}"
            addresses = f"set_field:{source}->{src},set_field:{destination}->{dst},set_field:{link['address']}->eth_dst"
            network.switch.add_flows(f"priority=9,{match},actions={addresses},dec_ttl,output:{other}")
            device, host = network.devices[port - 1], f"h{port}"
            there = network.address(other, family, made_up)
            network.ip("route", "replace", f"{there}/{bits}", "dev", device, "src", network.address(port, family, net), host=host)
            network.ip("neigh", "replace", there, "lladdr", "02:00:00:00:00:77", "dev", device, host=host)
    return made_up


@FAMILIES
def test_rewritten(network: Network, hidden: int, family: int) -> None:
    """Addresses and TTL change on the way: what covers them is put right, also where it is not finished yet."""
    network.ping(family, net=hidden)
    network.tcp(family, hidden)
    network.udp(family, range(0, 1400, 200), hidden)


@FAMILIES
def test_jumbo(network: Network, family: int) -> None:
    """MTU 9000 on both hosts and the switch's ports."""
    bed = network.switch.bed
    ports = [port["interface"] for port in network.switch.control.request("ports")]
    mtus = [(None, ports), *((f"h{host}", [device]) for host, device in enumerate(network.devices, 1))]

    def set_mtu(mtu: int) -> None:
        for host, names in mtus:
            for name in names:
                result = bed.run(["ip", "link", "set", name, "mtu", str(mtu)], host=host)
                assert result.returncode == 0, result.stderr
        until(lambda: {port["mtu"] for port in network.switch.control.request("ports")} == {mtu}, "the switch is told")

    set_mtu(JUMBO)
    try:
        network.ping(family, JUMBO - (IP_HEADER if family == 4 else IP6_HEADER) - ICMP_HEADER, 1, "-Mdo")
        network.udp(family, range(8_000, 8_900, 100), 1)
        network.tcp(family, 1)
    finally:
        set_mtu(1500)
