"""Several switches, each with hosts in namespaces of their own, and between them an underlay: what tunnels are for.

The underlay is a Linux bridge in one more namespace. Site N has 192.0.2.N and 2001:db8::N there, on an interface that is no port of
its switch. Invariant: leaving the ``with`` block takes everything away.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from support.quiet import never_ask_again
from support.running_switch import RunningSwitch, running_switch

from appliance.config import LabHost
from appliance.lab import namespace
from appliance.lab.testbed import Testbed
from appliance.lab.transfer import TransferResult, transfer

UNDERLAY_INTERFACE = "under"
FIXED_KEY = 42
FLOW_PORT = 20
_ETH_P_IP = 0x0800
_serial = count()


def underlay4(site: int) -> str:
    return f"192.0.2.{site}"


def underlay6(site: int) -> str:
    return f"2001:db8::{site:x}"


def ip(*words: str, inside: str | None) -> str:
    """`ip WORDS` in a namespace; what it printed."""
    prefix = () if inside is None else ("ip", "netns", "exec", inside)
    return subprocess.run([*prefix, "ip", *words], check=True, capture_output=True, text=True, timeout=60).stdout


class Overlay:
    """``hosts`` a site, called a1, a2, … at site 1, b1, … at site 2; host M of site N is 10.0.0.<10 N + M> and fd00::<10 N + M>."""

    def __init__(self, sites: int, hosts: int = 1, *, mtu: int = 1500, host_mtu: int = 1400) -> None:
        self.underlay = f"ofs-{os.getpid()}.u{next(_serial)}"
        self.mtu = mtu
        self.host_mtu = host_mtu
        self.beds = [
            Testbed(
                [
                    LabHost(
                        name=f"{chr(96 + site)}{host}",
                        address4=f"10.0.0.{10 * site + host}/24",
                        address6=f"fd00::{10 * site + host}/64",
                        mac=f"02:00:00:00:{site:02x}:{host:02x}",
                    )
                    for host in range(1, hosts + 1)
                ],
                isolated=True,
            )
            for site in range(1, sites + 1)
        ]
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            namespace.create(self.underlay)
            stack.callback(namespace.remove, self.underlay)
            ip("link", "add", "bridge", "mtu", str(self.mtu), "type", "bridge", inside=self.underlay)
            ip("link", "set", "bridge", "up", inside=self.underlay)
            for site, bed in enumerate(self.beds, 1):
                stack.enter_context(bed)
                never_ask_again(bed)
                self._join(site, bed)
                for host in bed.hosts:
                    ip("link", "set", host.interface, "mtu", str(self.host_mtu), inside=host.namespace)
                    ip("link", "set", host.switch_interface, "mtu", str(self.host_mtu), inside=bed.switch_namespace)
            self._undo = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    def _join(self, site: int, bed: Testbed) -> None:
        inside = bed.switch_namespace
        assert inside is not None
        port = f"site{site}"
        ip(
            *("link", "add", UNDERLAY_INTERFACE, "mtu", str(self.mtu), "type", "veth"),
            *("peer", "name", port, "mtu", str(self.mtu), "netns", self.underlay),
            inside=inside,
        )
        ip("link", "set", port, "master", "bridge", "up", inside=self.underlay)
        ip("link", "set", UNDERLAY_INTERFACE, "up", inside=inside)
        ip("addr", "add", f"{underlay4(site)}/24", "dev", UNDERLAY_INTERFACE, inside=inside)
        ip("addr", "add", f"{underlay6(site)}/64", "dev", UNDERLAY_INTERFACE, "nodad", inside=inside)

    def bed(self, host: str) -> Testbed:
        """That of the host's site."""
        return self.beds[ord(host[0]) - 97]

    def ping(self, source: str, destination: str, family: int = 4, *options: str, number: int = 3, wait: float = 5.0) -> int:
        """How many of ``number`` echo requests, each by a ping of its own, were answered. ``options`` are ping's."""
        address = self.bed(destination)[destination].address(family)
        argv = ["ping", f"-{family}", "-n", "-c", "1", "-W", str(wait), *options, address]
        environment = {**os.environ, "LC_ALL": "C"}
        bed = self.bed(source)
        outputs = (bed.run(argv, host=source, timeout=wait + 30, environment=environment).stdout for _ in range(number))
        return sum(" bytes from " in output for output in outputs)

    def transfer(self, source: str, destination: str, size: int, family: int = 4) -> TransferResult:
        """``size`` bytes by TCP, checked at the other end."""
        to = self.bed(destination)[destination]
        return transfer(self.bed(source)[source].namespace, to.namespace, to.address(family), size, 60.0)

    @contextmanager
    def switch(self, site: int, folder: Path, ports: str, *, fail_mode: str = "secure") -> Iterator[RunningSwitch]:
        """A switch at the site, whose hosts are ports 1, 2, …; ``ports`` are more lines of the section of that name."""
        bed = self.beds[site - 1]
        hosts = "".join(f"  - {{interface: {name}, number: {number}}}\n" for number, name in enumerate(bed.interfaces, 1))
        path = folder / f"site{site}.yaml"
        path.write_text(f"fail_mode: {fail_mode}\nlocal: none\nports:\n{hosts}{ports}")
        with running_switch(bed, folder, str(path), name=f"site{site}", ports=()) as switch:
            yield switch

    @contextmanager
    def seen(self, site: int, protocol: int = socket.IPPROTO_UDP) -> Iterator[Callable[[], list[bytes]]]:
        """Outer IPv4 packets that come in at the site meanwhile, from the IP header on: a call gives all so far."""
        packets: list[bytes] = []

        def listen() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
            raw.bind((UNDERLAY_INTERFACE, _ETH_P_IP))
            raw.setblocking(False)
            return raw

        with self.beds[site - 1].inside(None, listen) as raw:

            def so_far() -> list[bytes]:
                while True:
                    try:
                        packet, (_, _, kind, *_) = raw.recvfrom(1 << 16)
                    except BlockingIOError:
                        return packets
                    if packet[9] == protocol and kind != socket.PACKET_OUTGOING:
                        packets.append(packet)

            yield so_far


def tunnel(name: str, number: int, kind: str = "vxlan", **options: object) -> str:
    """A line of the section ``ports``; without a remote, flow entries say it."""
    words = ", ".join(f"{key}: {json.dumps(value)}" for key, value in {"remote_ip": "flow", **options}.items())
    return f"  - {{interface: {name}, number: {number}, type: {kind}, options: {{{words}}}}}\n"


class Sites(Overlay):
    """Port 1 of each switch is its host's, port 10 + N is a tunnel to site N by FIXED_KEY, FLOW_PORT one that flow entries lead."""

    switches: list[RunningSwitch]

    def __getitem__(self, site: int) -> RunningSwitch:
        return self.switches[site - 1]

    def join(self, one: int, other: int) -> None:
        """By ports with fixed ends."""
        for here, there in ((one, other), (other, one)):
            self[here].add_flows(f"in_port=1,actions=output:{10 + there}", f"in_port={10 + there},actions=output:1")

    def drops(self, site: int) -> dict[str, int]:
        drops: dict[str, int] = self[site].control.request("show")["drops"]
        return drops

    def clear(self) -> None:
        """No flow entries, no groups, and no hosts that still look for each other because of the test before."""
        for switch in self.switches:
            switch.ofctl("del-flows")
            switch.ofctl("del-groups")
        for bed in self.beds:
            for host in bed.hosts:
                for family in ("-4", "-6"):
                    bed.run(["ip", family, "neigh", "flush", "all"], host=host.name)


@contextmanager
def meshed(number: int, folder: Path) -> Iterator[Sites]:
    """That many sites, each with a tunnel to each."""
    with Sites(number, mtu=9100) as sites, ExitStack() as stack:
        sites.switches = []
        for site in range(1, number + 1):
            ports = "".join(
                tunnel(f"to{other}", 10 + other, remote_ip=underlay4(other), local_ip=underlay4(site), key=FIXED_KEY)
                for other in range(1, number + 1)
                if other != site
            )
            ports += tunnel("any", FLOW_PORT, key="flow", df_default=False)
            sites.switches.append(stack.enter_context(sites.switch(site, folder, ports)))
        yield sites
        for switch in sites.switches:
            assert switch.control.request("show")["faults"] == 0, switch.log
