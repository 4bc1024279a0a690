"""Five hosts on a switch's ports. Hosts 1 to 3 say nothing by themselves: their ports come and go, and random packets come in by
them. Hosts 4 and 5 talk to each other all the time.

Invariant: what a wire shows of random packets is all of them, and none of what hosts 4 and 5 say.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from support.packet_sockets import packet_socket, waiting_at
from support.quiet import never_ask_again
from support.waiting import until

from appliance.config import LabHost
from appliance.datapath import keeper
from appliance.lab import namespace
from appliance.lab.testbed import Host, Testbed
from appliance.model.ports import PortConfig
from appliance.ports import frame_sizes
from appliance.ports.offloads import _active as active_features

CHANGING = (1, 2, 3)
TALKING = (4, 5)
_SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 33, 26
_RECEIVE_BYTES = 1 << 25
_LEFT_ALONE = ("mtu", "qdisc", "promiscuity", "xdp")
_TALKERS_PREFIX = 0x02AA0000
_ACCEPT, _REFUSE = 0xFFFFFFFF, 0


def mac_of(port: int) -> str:
    """Those of the talking hosts are none that random packets have."""
    return f"02:aa:00:00:00:{port:02x}" if port in TALKING else f"02:00:00:00:0e:{port:02x}"


def _filter(*instructions: tuple[int, int, int, int]) -> bytes:
    """Classic BPF (linux/filter.h), as SO_ATTACH_FILTER wants it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def attach_filter(opened: socket.socket, program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code)))


NOT_OF_TALKERS = _filter(
    (0x20, 0, 0, 6),  # ld [6]: the first four bytes of the source address
    (0x15, 0, 1, _TALKERS_PREFIX),  # jeq
    (0x06, 0, 0, _REFUSE),
    (0x06, 0, 0, _ACCEPT),
)
UDP_OF_TALKERS = _filter(
    (0x20, 0, 0, 6),
    (0x15, 0, 5, _TALKERS_PREFIX),
    (0x28, 0, 0, 12),  # ldh [12]: the ethertype; a tag is beside the frame
    (0x15, 0, 3, 0x0800),
    (0x30, 0, 0, 23),  # ldb [23]: the protocol
    (0x15, 0, 1, 17),
    (0x06, 0, 0, _ACCEPT),
    (0x06, 0, 0, _REFUSE),
)


def dropped_by_kernel() -> int:
    """Packets, on the whole machine, that found the queue full by which a veth's other end receives (net.core.netdev_max_backlog).

    The second column of /proc/net/softnet_stat, a line a CPU, hexadecimal.
    """
    return sum(int(line.split()[1], 16) for line in Path("/proc/net/softnet_stat").read_text().splitlines())


def wire(interface: str, shown: bytes) -> socket.socket:
    """What comes in by the interface and passes the filter."""
    opened = packet_socket(interface)
    attach_filter(opened, shown)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
    return opened


class Network:
    """A context manager. ``up``, ``there`` and ``configs`` (OFPPC_* bits) say how each of the CHANGING ports has been left."""

    def __init__(self) -> None:
        hosts = [
            LabHost(name=f"h{n}", address4=f"10.0.0.{n}/24", address6=f"fd00::{n:x}/64", mac=mac_of(n)) for n in CHANGING + TALKING
        ]
        self.bed = Testbed(hosts, isolated=True)
        self.up = dict.fromkeys(CHANGING, True)
        self.there = dict.fromkeys(CHANGING, True)
        self.configs = dict.fromkeys(CHANGING, PortConfig.NONE)
        self._stack = ExitStack()
        self._wires: dict[int, socket.socket] = {}

    def __enter__(self) -> Network:
        with ExitStack() as stack:
            stack.enter_context(self.bed)
            never_ask_again(self.bed)
            for port in CHANGING:
                self._silence(port)
            for port in CHANGING + TALKING:
                stack.callback(self._close_wire, port)
                self._open_wire(port)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def host(self, port: int) -> Host:
        return self.bed[f"h{port}"]

    def ip(self, *words: str, host: str | None = None) -> str:
        done = self.bed.run(["ip", *words], host=host)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    # ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    def works(self, port: int) -> bool:
        """Whether its interface is there, with its link up."""
        return port in TALKING or (self.there[port] and self.up[port])

    @property
    def working(self) -> list[int]:
        """Those of the CHANGING ports."""
        return [port for port in CHANGING if self.works(port)]

    def set_link(self, port: int, up: bool) -> None:
        """By the host's end."""
        self.up[port] = up
        if self.there[port]:
            self._close_wire(port)
            self.ip("link", "set", self.host(port).interface, "up" if up else "down", host=f"h{port}")
            if up:
                self._open_wire(port)

    def remove(self, port: int) -> None:
        self.there[port] = False
        self.configs[port] = PortConfig.NONE
        self._close_wire(port)
        self.ip("link", "del", self.host(port).switch_interface)

    def restore(self, port: int) -> None:
        """Make an interface of the same name again, up."""
        host = self.host(port)
        peer = ("peer", "name", host.interface, "address", host.mac, "netns", host.namespace)
        self.ip("link", "add", host.switch_interface, "address", host.switch_mac, "type", "veth", *peer)
        self.bed.inside(None, partial(namespace.write_sysctl, f"net/ipv6/conf/{host.switch_interface}/disable_ipv6", 1))
        self._silence(port)
        self.ip("link", "set", host.interface, "up", host=f"h{port}")
        self.ip("link", "set", host.switch_interface, "up")
        self.there[port] = self.up[port] = True
        self._open_wire(port)

    def make_work(self, port: int) -> None:
        if not self.there[port]:
            self.restore(port)
        elif not self.up[port]:
            self.set_link(port, True)

    def until_known(self, ports: Any) -> None:
        """``ports`` asks the switch for its ports. It has heard of all that happened to them."""

        def known() -> bool:
            shown = {item["number"]: item for item in ports()}
            return all(
                (shown[port]["state"] != "missing") is self.there[port] and (shown[port].get("link") == "up") is self.works(port)
                for port in CHANGING
            )

        until(known, "the switch knows how its ports are")
        until(lambda: all(map(self._is_up, self.working)), "links come up")

    def _is_up(self, port: int) -> bool:
        """Before that the kernel throws away what either end is to send."""
        host = self.host(port)
        ends = ((host.interface, host.name), (host.switch_interface, None))
        return all(" state UP " in self.ip("-o", "link", "show", interface, host=name) for interface, name in ends)

    # ── what a switch must leave as it was ─────────────────────────────────────────────────────────────────────────────
    def interfaces(self) -> dict[str, dict[str, object]]:
        """Of each interface what a switch may change."""
        found = {}
        for place in (None, *(host.name for host in self.bed.hosts)):
            for link in json.loads(self.ip("-d", "-j", "link", "show", host=place)):
                sizes = self.bed.inside(place, partial(frame_sizes.read, link["ifindex"]))
                assert sizes is not None, link
                found[f"{link['ifname']} of {place or 'the switch'}"] = {
                    **{name: link.get(name) for name in _LEFT_ALONE},
                    "longest frames": (sizes.gso, sizes.gro),
                    "features": sorted(self.bed.inside(place, partial(active_features, link["ifindex"]))),
                }
        return found

    def keepers(self) -> list[str]:
        """Processes that hold programs of agents that are no more."""
        return self.bed.inside(None, lambda: [f"keeper, process {pid}" for pid, _ in keeper._others(0)])

    def _silence(self, port: int) -> None:
        host = self.host(port)
        path = f"net/ipv6/conf/{host.interface}/disable_ipv6"
        self.bed.inside(host.name, partial(namespace.write_sysctl, path, 1))
        self.ip("addr", "flush", "dev", host.interface, host=host.name)

    # ── random packets ─────────────────────────────────────────────────────────────────────────────────────────────────
    def send(self, port: int, frame: bytes) -> None:
        self._wires[port].send(frame)

    def arrived(self) -> Iterator[tuple[int, bytes]]:
        """What has come to hosts since it was asked last: (port, frame)."""
        for port, opened in self._wires.items():
            for frame in waiting_at(opened):
                yield port, frame

    def forget_arrived(self) -> None:
        for _ in self.arrived():
            pass

    def _open_wire(self, port: int) -> None:
        interface = self.host(port).interface
        self._wires[port] = self.bed.inside(f"h{port}", lambda: wire(interface, NOT_OF_TALKERS))

    def _close_wire(self, port: int) -> None:
        """Before its interface goes down: what is read then is an error, and what came before."""
        if port in self._wires:
            self._wires.pop(port).close()
