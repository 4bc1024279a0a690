"""ofswitch and Open vSwitch (netdev) side by side, each the whole product with hosts and a namespace of its own, told what to do in
the same words, by the same means: TCP over loopback.

Invariant: what one contender is given the other one is given too, and nothing of either is there after the ``with`` block.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import openvswitch
from controller import Controller
from kernel import BenchError, Kernel
from openvswitch import OpenVSwitch
from product import CONNECT, PORT, Product

from appliance.datapath import netlink
from appliance.lab import namespace
from appliance.lab.testbed import Testbed

OURS, OVS = "ofswitch", "Open vSwitch, netdev"
BURST = 64
STALL_SECONDS = 5.0
SECONDS = 30.0


class Switch(Protocol):
    """What can be asked of either."""

    @property
    def pid(self) -> int: ...

    def ofctl(self, command: str, *arguments: str) -> str:
        """What ``ovs-ofctl COMMAND SWITCH ARGUMENTS`` printed. Raises BenchError."""

    def add_flows(self, flows: Sequence[str]) -> None: ...

    def megaflows(self) -> int: ...

    def connection(self) -> socket.socket:
        """To speak OpenFlow by."""


@dataclass(frozen=True, slots=True)
class Rig:
    """``wire`` sends frames as host h1."""

    name: str
    bed: Testbed
    switch: Switch
    wire: socket.socket

    def controller(self) -> Controller:
        return Controller(self.switch.connection())

    def resident(self) -> float:
        """MB of memory that the switch's process has."""
        with open(f"/proc/{self.switch.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1000


@contextmanager
def rigs(programs: Kernel, sinks: Sequence[str]) -> Iterator[tuple[dict[str, Rig], str]]:
    """Both, and why Open vSwitch is not there if it is not. ``sinks`` are XDP programs that take all that comes to h2, h3 …"""
    with ExitStack() as stack:
        found = {OURS: ours(stack, programs, sinks)}
        missing = openvswitch.why_not()
        if not missing:
            bed = _bed(stack, programs, sinks)
            ovs = _OvsByTcp(bed)
            bed.inside(None, ovs.__enter__)
            stack.callback(ovs.close)
            found[OVS] = Rig(OVS, bed, ovs, _wire(stack, bed))
        yield found, f"{OVS}: {missing}" if missing else ""


class _OvsByTcp(OpenVSwitch):
    """Its own unix socket would spare it a tenth of a round trip."""

    def __init__(self, bed: Testbed) -> None:
        super().__init__(bed.interfaces)
        self._bed = bed

    def __enter__(self) -> OpenVSwitch:
        super().__enter__()
        self.listen(PORT)
        return self

    def ofctl(self, name: str, *arguments: str) -> str:
        done = self._bed.run(["ovs-ofctl", "-O", "OpenFlow13", name, CONNECT, *arguments], timeout=120)
        if done.returncode:
            raise BenchError(f"Open vSwitch refused {name}: {done.stderr.strip()}")
        return done.stdout

    def connection(self) -> socket.socket:
        return self._bed.inside(None, lambda: socket.create_connection(("127.0.0.1", PORT), SECONDS))


def ours(stack: ExitStack, programs: Kernel, sinks: Sequence[str]) -> Rig:
    bed = _bed(stack, programs, sinks)
    return Rig(OURS, bed, stack.enter_context(Product(bed)), _wire(stack, bed))


def _bed(stack: ExitStack, programs: Kernel, sinks: Sequence[str]) -> Testbed:
    bed = stack.enter_context(Testbed.of(1 + len(sinks)))
    for host in bed.hosts:
        bed.inside(host.name, partial(namespace.write_sysctl, f"net/ipv6/conf/{host.interface}/disable_ipv6", 1))
    for host, sink in zip(bed.hosts[1:], sinks, strict=True):
        program = programs.program(sink)
        bed.inside(host.name, lambda host=host, program=program: netlink.attach_xdp(socket.if_nametoindex(host.interface), program))  # type: ignore[misc]
    return bed


def _wire(stack: ExitStack, bed: Testbed) -> socket.socket:
    def open_socket() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.bind((bed["h1"].interface, 0))
        return raw

    return stack.enter_context(bed.inside("h1", open_socket))


def touch(programs: Kernel, rig: Rig, packets: Sequence[bytes]) -> None:
    """Send them, at most BURST on their way, until as many came to sinks, or nothing comes any more."""
    before = arrived = programs.arrived() + programs.arrived(1)
    sent, progress = 0, time.monotonic()
    while arrived - before < len(packets) and time.monotonic() - progress < STALL_SECONDS:
        if sent < len(packets) and sent - (arrived - before) < BURST:
            rig.wire.send(packets[sent])
            sent += 1
        now = programs.arrived() + programs.arrived(1)
        if now != arrived:
            arrived, progress = now, time.monotonic()


def turns(names: Sequence[str], sample: Callable[[str], float]) -> dict[str, Callable[[], float]]:
    """For ``results.in_turn``: ``sample`` called with each name."""
    return {name: partial(sample, name) for name in names}
