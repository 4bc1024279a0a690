"""Megaflows: how many it takes for the same traffic by the same rules, against Open vSwitch.

The rule sets are those of ``vectors.rule_sets``: Open vSwitch's own four rules, a list of who may not use what, and a router behind
a list of allowed services. Of each connection the first packet each way is sent; when the switch has counted them all, its
megaflows are counted.

Invariant: a figure counts only if every packet went through the tables; losses are noted.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import openvswitch
from kernel import BenchError, Kernel
from links import command
from openvswitch import BRIDGE, OpenVSwitch
from product import CONNECT, Product
from results import Aim, Row

from appliance.lab import namespace
from appliance.lab.testbed import Testbed

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)] if str(TESTS) not in sys.path else []

from vectors import rule_sets  # noqa: E402
from vectors.rule_sets import Packet, Rule  # noqa: E402

GROUP = "megaflows"
OURS, OVS = "ofswitch", "Open vSwitch, netdev"
BURST = 64
STALL_SECONDS = 5.0
"""What has not been counted by then since something last was, is lost. Open vSwitch counts twice a second."""


@dataclass(slots=True)
class Contender:
    send: Callable[[Packet], object]
    packets: Callable[[], int]
    """That have met an entry of table 0."""
    megaflows: Callable[[], int]


class Megaflows:
    def __init__(self, _: Kernel, *, connections: int, routes: int) -> None:
        routed = rule_sets.routes_and_ports(routes)
        self._connections = connections
        self._cases: dict[str, tuple[str, Sequence[Rule], Sequence[Packet]]] = {
            "four_rules": ("four rules", rule_sets.FOUR_RULES, rule_sets.connections_for_four_rules(connections)),
            "firewall": ("firewall of 200", rule_sets.firewall(200), rule_sets.connections_for_firewall(connections)),
            "routes": (f"{routes:,} routes and ports", routed, rule_sets.connections_for_routes(routed, connections)),
        }

    def rows(self) -> Generator[Row, None, None]:
        missing = openvswitch.why_not()
        for case, (name, rules, packets) in self._cases.items():
            notes = [f"{OVS}: {missing}"] if missing else []
            samples: dict[str, list[float]] = {OURS: [], OVS: []}
            for contender, make in {OURS: _ours, **({} if missing else {OVS: _ovs})}.items():
                with ExitStack() as stack:
                    made = make(stack, [str(rule) for rule in rules])
                    arrived = _send(made, packets)
                    if arrived < len(packets):
                        notes.append(f"{contender}: {arrived:,} of {len(packets):,} packets arrived")
                    samples[contender].append(made.megaflows())
            yield Row(
                f"megaflows.{case}",
                GROUP,
                f"{OURS}, {self._connections:,} connections, {name}",
                "megaflows",
                samples[OURS],
                OVS,
                samples[OVS],
                Aim("<=", 1),
                "; ".join(notes),
            )


def _send(contender: Contender, packets: Sequence[Packet]) -> int:
    """How many went through the tables."""
    before = contender.packets()
    for start in range(0, len(packets), BURST):
        for packet in packets[start : start + BURST]:
            contender.send(packet)
        time.sleep(0.02)
    counted, since = 0, time.monotonic()
    while counted < len(packets) and time.monotonic() - since < STALL_SECONDS:
        time.sleep(0.05)
        now = contender.packets() - before
        if now != counted:
            counted, since = now, time.monotonic()
    if not counted:
        raise BenchError("no packet went through the tables")
    return counted


def _bed(stack: ExitStack) -> tuple[Testbed, Callable[[Packet], object]]:
    """Two hosts, and how to send from them."""
    bed = stack.enter_context(Testbed.of(2))
    sockets: dict[int, socket.socket] = {}

    def open_socket(interface: str) -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.bind((interface, 0))
        return raw

    for number, host in enumerate(bed.hosts, 1):
        bed.inside(host.name, partial(namespace.write_sysctl, f"net/ipv6/conf/{host.interface}/disable_ipv6", 1))
        sockets[number] = stack.enter_context(bed.inside(host.name, partial(open_socket, host.interface)))
    return bed, lambda packet: sockets[packet.in_port].send(packet.frame)


def _ours(stack: ExitStack, flows: Sequence[str]) -> Contender:
    bed, send = _bed(stack)
    product = stack.enter_context(Product(bed))
    product.add_flows(flows)
    return Contender(send, lambda: _packets(bed.run(_aggregate(CONNECT)).stdout), product.megaflows)


def _ovs(stack: ExitStack, flows: Sequence[str]) -> Contender:
    bed, send = _bed(stack)
    ovs = OpenVSwitch(bed.interfaces)
    bed.inside(None, ovs.__enter__)
    stack.callback(ovs.close)
    ovs.add_flows(flows)
    return Contender(send, lambda: _packets(command(_aggregate(BRIDGE), env=ovs.environment)), ovs.megaflows)


def _aggregate(switch: str) -> list[str]:
    return ["ovs-ofctl", "-O", "OpenFlow13", "dump-aggregate", switch, "table=0"]


def _packets(answer: str) -> int:
    found = re.search(r"packet_count=(\d+)", answer)
    if found is None:
        raise BenchError(f"no packet count: {answer.strip()}")
    return int(found[1])
