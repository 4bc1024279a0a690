"""The switch with the real fast path, on veths, and one without any, told and sent the same: the same frames leave, and the same is
counted. ``test_switch_tiers`` does it with the fast path in memory, and has the messages."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from support import pipeline_cases as cases
from support.packet_sockets import packet_socket, waiting_at
from support.waiting import SECONDS, until
from switch_shell import DESCRIPTION, Shell, port
from test_switch_tiers import GROUPS, METERS, PORTS, Both, alike, flow_mod, group_mod, like, message, meter_mod

from appliance.datapath import netlink, programs
from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.driver import DatapathPort
from appliance.datapath.loader import Sizes
from appliance.lab import namespace
from appliance.model.actions import ApplyActions, Group, Meter
from appliance.model.megaflow import Megaflow
from appliance.model.ports import Hook, PortState
from appliance.model.queues import Queue
from appliance.model.tunnel import NO_TUNNEL, Tunnel
from appliance.openflow.messages import BarrierRequest, FlowMod, GroupModCommand, Message, MeterMod, MeterModCommand
from appliance.switch.events import PortAdded, PortChanged
from appliance.switch.switch import Switch

pytestmark = pytest.mark.root

XDP_PASS = 2
SHORTEST = 24
"""Of shorter frames with a tag the kernel drops some."""
NEVER, ALWAYS = 2**31, 1
"""Rates of meters: packets a second that exceed none, and that every packet exceeds once ``MANY`` have come."""
MANY = 1_000_000


class Wires:
    """The real fast path with ports 1 to 3, as a test's ``Shell`` wants it. Frames come in from the other ends of their veths."""

    def __init__(self, where: str, hook: Hook) -> None:
        self.datapath = BpfDatapath(Sizes(megaflows=1024, upcall_pages=256))
        self.tunnels: list[tuple[int, Tunnel]] = []
        self._ids: set[int] = set()
        self._hook = hook
        self._where = where
        self._ends = namespace.inside(where, self._make_ends)

    def _make_ends(self) -> dict[int, socket.socket]:
        for which in ("all", "default"):
            namespace.write_sysctl(f"net/ipv6/conf/{which}/disable_ipv6", 1)  # nobody else is to send anything
        for number in PORTS:
            for command in (f"add p{number} type veth peer name h{number}", f"set p{number} up", f"set h{number} up"):
                subprocess.run(["ip", "link", *command.split()], check=True)
        if self._hook is Hook.XDP:  # what XDP redirects to a veth arrives if there is a program at the other end
            passes = programs.load(programs.XDP, "passes", programs.returns(XDP_PASS))
            for number in PORTS:
                netlink.attach_xdp(socket.if_nametoindex(f"h{number}"), passes)
            os.close(passes)
        for number in PORTS:  # before that the kernel throws away what leaves by an interface
            for name in (f"p{number}", f"h{number}"):
                shown = ("ip", "-o", "link", "show", name)
                until(lambda shown=shown: " state UP " in subprocess.run(shown, capture_output=True, text=True).stdout, name)
        return {number: packet_socket(f"h{number}") for number in PORTS}

    def begin(self) -> None:
        """No megaflows, no meters, all ports as at first, nothing under way."""
        self.datapath.remove(self._ids)
        self._ids.clear()
        for meter_id in METERS:
            self.datapath.remove_meter(meter_id)
        for number in PORTS:
            namespace.inside(self._where, lambda number=number: self._attach(number))
        self.datapath.upcalls(1 << 20)
        self.arrived()

    def _attach(self, number: int) -> None:
        interface = f"p{number}"
        wanted = DatapathPort(number, interface, socket.if_nametoindex(interface), self._hook, xdp_transmit=self._hook is Hook.XDP)
        if number in self.ports:
            self.datapath.update(wanted)
        else:
            self.datapath.attach(wanted)

    def close(self) -> None:
        namespace.inside(self._where, self.datapath.close)
        for end in self._ends.values():
            end.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self.datapath, name)

    @property
    def ports(self) -> dict[int, DatapathPort]:
        return self.datapath.ports._ports

    def install(self, megaflow: Megaflow) -> bool:
        self._ids.add(megaflow.id)
        return self.datapath.install(megaflow)

    def inject(self, in_port: int, frame: bytes) -> None:
        """Returns when the fast path has dealt with it."""
        before = self.datapath.port_counters()[in_port].rx_packets
        self._ends[in_port].send(frame)
        deadline = time.monotonic() + SECONDS
        while self.datapath.port_counters()[in_port].rx_packets == before:
            assert time.monotonic() < deadline, "it did not come in"

    def arrived(self, expected: int = 0) -> list[tuple[int, bytes]]:
        """What has left; waits for so many frames. More than these are seen the next time at the latest."""
        found: list[tuple[int, bytes]] = []
        deadline = time.monotonic() + SECONDS
        while True:
            found += [(number, frame) for number, end in self._ends.items() for frame in waiting_at(end)]
            if len(found) >= expected or time.monotonic() > deadline:
                return found


class RealShell(Shell):
    def __init__(self, wires: Wires, queues: dict[int, tuple[Queue, ...]], max_megaflows: int) -> None:
        wires.begin()
        self.now = time.monotonic()  # as eBPF has it
        self.datapath = wires  # type: ignore[assignment]
        self.switch = Switch(0x1234, DESCRIPTION, wires.datapath.meter, queues=queues, max_megaflows=max_megaflows)
        self.messages, self.effects, self.port_counters, self.queue_counters = [], [], {}, {}
        for number in PORTS:
            self.step(PortAdded(port(number)))
        self.open(1)

    def pass_on(self, in_port: int, frame: bytes, expected: int) -> list[tuple[int, bytes]]:
        self.datapath.inject(in_port, frame)
        self.pump()
        return self.datapath.arrived(expected)  # type: ignore[attr-defined]


class RealAndSlow(Both):
    def __init__(self, rnd: Random, wires: Wires) -> None:
        queues = {1: (Queue(1),)} if rnd.random() < 0.3 else {}
        self.fast = RealShell(wires, queues, rnd.choice((4, 1000)))
        self.slow = Shell(queues=queues, capacity=0)
        self.slow.now = self.fast.now
        self._sent = Counter[int]()
        self._before = wires.datapath.port_counters()

    def receive(self, wanted: Message) -> None:
        super().receive(wanted)
        if isinstance(wanted, MeterMod) and wanted.command is not MeterModCommand.DELETE:
            for shell in (self.fast, self.slow):
                if any(band.rate == ALWAYS for band in wanted.bands) and wanted.meter_id in shell.switch.meter_ids:
                    shell.datapath.meter(wanted.meter_id, MANY, 0)

    def inject(self, in_port: int, frame: bytes, tunnel: Tunnel = NO_TUNNEL) -> None:
        slow = self.slow.inject(in_port, frame)
        assert Counter(self.fast.pass_on(in_port, frame, len(slow))) == Counter(slow)
        self._sent[in_port] += 1

    def compare(self) -> None:
        super().compare()
        assert self.fast.datapath.arrived() == []  # type: ignore[attr-defined]
        after = self.fast.datapath.port_counters()
        for number in PORTS:
            assert after[number].rx_packets - self._before[number].rx_packets == self._sent[number]


def timeless(wanted: Message, rnd: Random) -> Message:
    """The same, with nothing that depends on how long a test takes."""
    match wanted:
        case FlowMod():
            return wanted._replace(idle_timeout=0)
        case MeterMod():
            rate = rnd.choice((NEVER, ALWAYS))
            return replace(wanted, bands=tuple(replace(band, rate=rate, burst_size=rate) for band in wanted.bands))
    return wanted


@pytest.fixture(scope="module", params=Hook)
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    where = f"ofs-{os.getpid()}-real"
    namespace.create(where)
    try:
        wires = Wires(where, request.param)
        yield wires
        wires.close()
    finally:
        namespace.remove(where)


@settings(max_examples=60)
@given(cases.RANDOMS)
def test_the_real_fast_path_does_and_counts_the_same(wires: Wires, rnd: Random) -> None:
    both = RealAndSlow(rnd, wires)
    for number in reversed(GROUPS):
        both.receive(replace(group_mod(rnd), command=GroupModCommand.ADD, group_id=number))
    for number in METERS:
        both.receive(replace(timeless(meter_mod(rnd), rnd), command=MeterModCommand.ADD, meter_id=number))
    both.receive(FlowMod(priority=0, instructions=(Meter(1), ApplyActions((Group(rnd.choice(GROUPS)),)))))
    for wanted in (*alike(rnd), flow_mod(rnd), flow_mod(rnd)):
        both.receive(timeless(wanted, rnd))
    traffic = []
    for _ in range(3):
        frame = cases.frame(rnd, everything=rnd.random() < 0.4).ljust(SHORTEST, b"\0")
        traffic += like(rnd.choice(PORTS), frame)[: rnd.choice((1, 9))]
    for _ in range(10):
        for _ in range(rnd.randrange(3)):
            both.receive(timeless(message(rnd), rnd))
        both.receive(BarrierRequest())
        if rnd.random() < 0.25:
            state = rnd.choice((PortState.LINK_DOWN, PortState.LIVE))
            both.step(PortChanged(replace(port(rnd.choice(PORTS)), state=state)))
        for _ in range(rnd.randrange(6)):
            both.inject(*rnd.choice(traffic))
    both.compare()
