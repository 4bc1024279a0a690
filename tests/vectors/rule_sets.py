"""Flow tables and traffic by which the number of megaflows is judged: the same for tests, the bench and Open vSwitch.

``FOUR_RULES`` is that of "The Design and Implementation of Open vSwitch" (Pfaff et al., NSDI 2015, section 7.2), where staged
look-up and prefix tracking made a million megaflows 15. ``routes_and_ports`` is a router behind a list of allowed services,
``firewall`` a list of who may not use what.

Invariant: what a function makes is the same each time.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from appliance.model.actions import ApplyActions, GotoTable, Instruction, Output
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.pipeline.flow_table import FlowEntry, Pipeline

CLIENTS, SERVERS = 1, 2
"""Ports of the switch."""
_ETH_TYPES = {"ip": 0x0800, "tcp": 0x0800, "udp": 0x0800, "arp": 0x0806}
_PROTOCOLS = {"tcp": 6, "udp": 17}
_FIELDS = {"nw_src": "ipv4_src", "nw_dst": "ipv4_dst", "tp_src": "{}_src", "tp_dst": "{}_dst"}
_SERVICES = (22, 25, 53, 80, 110, 123, 143, 389, 443, 465, 587, 636, 853, 993, 995, 1194, 1433, 3306, 5432, 8080)


class Rule(NamedTuple):
    """One flow entry. ``wanted`` are names and values as ovs-ofctl has them; addresses may be prefixes."""

    table: int
    priority: int
    protocol: str
    wanted: tuple[tuple[str, str], ...]
    action: str
    """``drop``, ``output:N`` or ``goto_table:N``."""

    def __str__(self) -> str:
        """For ovs-ofctl."""
        fields = "".join(f",{name}={value}" for name, value in self.wanted)
        return f"table={self.table},priority={self.priority},{self.protocol}{fields},actions={self.action}"

    def entry(self) -> FlowEntry:
        fields = [MatchField(BY_NAME["eth_type"], _ETH_TYPES[self.protocol])]
        if self.protocol in _PROTOCOLS:
            fields.append(MatchField(BY_NAME["ip_proto"], _PROTOCOLS[self.protocol]))
        for name, value in self.wanted:
            field = BY_NAME[_FIELDS[name].format(self.protocol)]
            if name.startswith("nw"):
                network = ipaddress.IPv4Network(value)
                fields.append(MatchField(field, int(network.network_address), int(network.netmask)))
            else:
                fields.append(MatchField(field, int(value)))
        kind, _, number = self.action.partition(":")
        instructions: tuple[Instruction, ...] = ()
        if kind == "goto_table":
            instructions = (GotoTable(int(number)),)
        elif kind == "output":
            instructions = (ApplyActions((Output(int(number)),)),)
        return FlowEntry(self.priority, Match.of(fields), instructions)


class Packet(NamedTuple):
    in_port: int
    frame: bytes


def pipeline(rules: list[Rule]) -> Pipeline:
    made = Pipeline()
    for rule in rules:
        made.table(rule.table).add(rule.entry())
    return made


def tcp_packet(source: int, destination: int, source_port: int, destination_port: int) -> bytes:
    """A SYN from one IPv4 address to another, without checksums."""
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 40, 0, 0, 64, 6, 0, source, destination)
    tcp = struct.pack(">HHIIBBHHH", source_port, destination_port, 0, 0, 0x50, 2, 8192, 0, 0)
    return bytes.fromhex("0200000000020200000000010800") + ip + tcp + bytes(6)


def both_ways(client: int, server: int, client_port: int, service: int) -> Iterator[Packet]:
    """The first packets of a connection."""
    yield Packet(CLIENTS, tcp_packet(client, server, client_port, service))
    yield Packet(SERVERS, tcp_packet(server, client, service, client_port))


FOUR_RULES = [
    Rule(0, 4, "arp", (), f"output:{CLIENTS}"),
    Rule(0, 3, "ip", (("nw_dst", "11.1.0.0/16"),), f"output:{CLIENTS}"),
    Rule(0, 2, "tcp", (("nw_dst", "9.1.1.1/32"), ("tp_src", "10"), ("tp_dst", "10")), f"output:{CLIENTS}"),
    Rule(0, 1, "ip", (("nw_dst", "9.1.1.0/24"),), f"output:{SERVERS}"),
]


def connections_for_four_rules(count: int) -> list[Packet]:
    """Between one host of 11.1/16 and one of 9.1.1/24, from and to any port."""
    rnd = Random(1)
    client, server = int(ipaddress.IPv4Address("11.1.7.9")), int(ipaddress.IPv4Address("9.1.1.8"))
    return [
        packet for _ in range(count) for packet in both_ways(client, server, rnd.randrange(1024, 65536), rnd.randrange(1024, 65536))
    ]


def routes_and_ports(routes: int) -> list[Rule]:
    """Table 0 lets some services through, and what they answer; table 1 has routes for prefixes of 24 to 32 bits in 10/8."""
    rnd = Random(2)
    allowed = [Rule(0, 100, "tcp", ((field, str(port)),), "goto_table:1") for port in _SERVICES for field in ("tp_dst", "tp_src")]
    prefixes: dict[str, int] = {}
    while len(prefixes) < routes:
        length = rnd.choice((24, 24, 24, 25, 26, 27, 28, 29, 30, 31, 32))
        address = 10 << 24 | rnd.getrandbits(24)
        prefixes[str(ipaddress.IPv4Network((address, length), strict=False))] = length
    routed = [Rule(1, length, "ip", (("nw_dst", prefix),), f"output:{SERVERS}") for prefix, length in prefixes.items()]
    return [*allowed, Rule(0, 1, "ip", (), "drop"), *routed, Rule(1, 1, "ip", (), f"output:{CLIENTS}")]


def connections_for_routes(rules: list[Rule], count: int) -> list[Packet]:
    """From clients anywhere but in 10/8, to three services on hosts in four of the routed prefixes."""
    rnd = Random(3)
    prefixes = [ipaddress.IPv4Network(dict(rule.wanted)["nw_dst"]) for rule in rules if rule.table == 1 and rule.wanted]
    servers = [int(prefix.network_address) for prefix in rnd.sample(prefixes, 4)]
    packets: list[Packet] = []
    while len(packets) < 2 * count:
        client = rnd.randrange(1 << 24, 224 << 24)
        if client >> 24 != 10:
            packets += both_ways(client, rnd.choice(servers), rnd.randrange(32768, 61000), rnd.choice((53, 80, 443)))
    return packets


def firewall(rules: int) -> list[Rule]:
    """Who may not use a service, or none at all: sources of 12 to 28 bits, in an order of their own; all others may."""
    rnd = Random(4)
    made: dict[tuple[str, tuple[tuple[str, str], ...]], Rule] = {}
    while len(made) < rules:
        network = ipaddress.IPv4Network((rnd.randrange(1 << 24, 224 << 24), rnd.choice((12, 16, 20, 24, 28))), strict=False)
        wanted: tuple[tuple[str, str], ...] = (("nw_src", str(network)),)
        if rnd.random() < 0.7:
            wanted += (("tp_dst", str(rnd.choice(_SERVICES))),)
        made["tcp", wanted] = Rule(0, 1000 - len(made), "tcp", wanted, "drop")
    return [*made.values(), Rule(0, 1, "ip", (), f"output:{SERVERS}")]


def connections_for_firewall(count: int) -> list[Packet]:
    """From clients anywhere to five services of one host, both ways."""
    rnd = Random(5)
    server = int(ipaddress.IPv4Address("10.0.0.1"))
    return [
        packet
        for _ in range(count)
        for packet in both_ways(
            rnd.randrange(1 << 24, 224 << 24), server, rnd.randrange(32768, 61000), rnd.choice((25, 53, 80, 443, 8443))
        )
    ]
