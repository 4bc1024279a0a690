"""Ryu's own apps, unmodified, under the integrated controller: what each is for works between hosts."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.running_switch import RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.config import LabHost
from appliance.lab.testbed import Testbed

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

STOCK = Path(__file__).parent / "stock" / "ryu"
DATAPATH_ID = 1
"""The apps' own examples are for this one."""
REST_PORT = 8080
GROUP = "239.1.2.3"


@contextmanager
def running(app: str, folder: Path, hosts: list[LabHost] | int = 3) -> Iterator[RunningSwitch]:
    """The switch under one app, which has set up its table-miss entry."""
    bed = Testbed.of(hosts) if isinstance(hosts, int) else Testbed(hosts, isolated=True)
    flags = ("--app", str(STOCK / app), "--datapath-id", f"{DATAPATH_ID:#x}", "--listen", "ptcp:16653")
    with bed, running_switch(bed, folder, *flags, listen=False) as switch:
        try:
            until(lambda: switch.control.request("show")["controllers"], "a controller")
            until(lambda: switch.control.request("show")["controllers"][0]["state"] == "connected", "the app")
            yield switch
        finally:
            log = switch.log
        assert switch.control.request("show")["faults"] == 0, log
        assert "Traceback" not in log, log
        assert "OFPErrorMsg" not in log, log


def has_flows(switch: RunningSwitch) -> bool:
    return bool(switch.control.request("show")["flows"])


def until_forwarding(switch: RunningSwitch) -> None:
    """The app installs its table-miss entry before os-ken lets it have packet-ins."""
    until(lambda: has_flows(switch), "the table-miss entry")
    until(lambda: switch.bed.ping("h1", "h2", number=1, wait=0.5).ok, "the app at work")


def all_reach_each_other(switch: RunningSwitch) -> None:
    for result in switch.bed.ping_all():
        assert result.ok, result


# ── switches ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_simple_switch(tmp_path: Path) -> None:
    with running("simple_switch_13.py", tmp_path) as switch:
        until_forwarding(switch)
        all_reach_each_other(switch)
        assert switch.control.request("show")["flows"] == 1 + 6, "one for each pair and direction"


def test_simple_monitor_tells_flows_and_ports(tmp_path: Path) -> None:
    with running("simple_monitor_13.py", tmp_path) as switch:
        until_forwarding(switch)
        assert switch.bed.ping("h1", "h2", number=6).ok
        flow = rf"{DATAPATH_ID:016x}        1 {switch.bed['h2'].mac}        2"
        until(
            lambda: [line for line in switch.log.splitlines() if flow in line and int(line.split()[-2]) >= 6],
            "the flow entry's counters",
        )
        port = rf" {DATAPATH_ID:016x}        1 "
        until(
            lambda: [
                words
                for words in (line.split() for line in switch.log.splitlines() if port in line)
                if len(words) == 12 and int(words[6]) > 2
            ],
            "the port's counters",
        )


def test_simple_switch_igmp_sends_a_group_to_its_members(tmp_path: Path) -> None:
    """h1 joins; what h2, which is on the server's port, sends to the group reaches h1 and not h4."""
    with running("simple_switch_igmp_13.py", tmp_path, 4) as switch:
        bed = switch.bed
        until_forwarding(switch)
        member = bed.inside("h1", lambda: joined(bed["h1"].address4))
        other = bed.inside("h4", lambda: joined(None))
        sender = bed.inside("h2", lambda: multicast_sender(bed["h2"].address4))
        with member, other, sender:
            until(lambda: has_a_flow_for_the_group(switch), "the membership report")
            for number in range(20):
                sender.sendto(b"packet %d" % number, (GROUP, 5000))
                assert member.recv(2048) == b"packet %d" % number
            other.settimeout(0.5)
            with pytest.raises(TimeoutError):
                other.recv(2048)


def has_a_flow_for_the_group(switch: RunningSwitch) -> bool:
    return f"nw_dst={GROUP}" in switch.ofctl("dump-flows")


def joined(address: str | None) -> socket.socket:
    """A socket for the group's packets; only with an address does it tell the network that it wants them."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(("", 5000))
    opened.settimeout(SECONDS)
    if address is not None:
        member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(address))
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return opened


def multicast_sender(address: str) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    return opened


@dataclass(frozen=True)
class Ring:
    """Two switches joined by two cables, and the app that they have in common."""

    bed: Testbed
    switches: list[RunningSwitch]
    log: Path

    def states(self) -> dict[str, str]:
        """The last that the app said of each port."""
        found = re.findall(r"dpid=0+(\d): \[port=(\d)\] (\S+) +/ (\S+)", self.log.read_text())
        return {f"{dpid}/{port}": f"{role} {state}" for dpid, port, role, state in found}


@pytest.fixture(scope="module", autouse=True)
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    """From the first test on: a spanning tree takes half a minute to settle, and the others run meanwhile."""
    folder = tmp_path_factory.mktemp("ring")
    with Testbed.of(2) as bed, ExitStack() as stack:
        for cable in ("left", "right"):
            assert bed.run(["ip", "link", "add", f"{cable}-1", "type", "veth", "peer", "name", f"{cable}-2"]).returncode == 0
            for end in (1, 2):
                assert bed.run(["ip", "link", "set", f"{cable}-{end}", "up"]).returncode == 0
        with (folder / "controller.log").open("wb") as log:
            app = str(STOCK / "simple_switch_stp_13.py")
            bed.start([sys.executable, "-m", "appliance.controller", "--port", "6653", app], stdout=log, stderr=log)
        switches = []
        for n in (1, 2):
            ports = (f"{bed.interfaces[n - 1]}=1", f"left-{n}=2", f"right-{n}=3")
            flags = ("--datapath-id", f"{n:#x}", "--controller", "tcp:127.0.0.1:6653")
            starting = running_switch(bed, folder, *flags, listen=False, name=f"switch{n}", ports=ports)
            switches.append(stack.enter_context(starting))
        yield Ring(bed, switches, folder / "controller.log")
        assert [switch.control.request("show")["faults"] for switch in switches] == [0, 0]


def test_simple_switch_stp_breaks_a_loop(ring: Ring) -> None:
    """Without a spanning tree the first broadcast would go round for ever."""
    settled = {f"{n}/{port}": "DESIGNATED_PORT FORWARD" for n in (1, 2) for port in (1, 2, 3)}
    settled |= {"2/2": "ROOT_PORT FORWARD", "2/3": "NON_DESIGNATED_PORT BLOCK"}
    until(lambda: ring.states() == settled, "the tree", 240.0)
    until(lambda: ring.bed.ping("h1", "h2", number=1, wait=0.5).ok, "a way over the tree")
    for result in ring.bed.ping_all():
        assert result.ok, result
    before = [sum(switch.packets().values()) for switch in ring.switches]
    time.sleep(2)
    after = [sum(switch.packets().values()) for switch in ring.switches]
    assert max(now - then for now, then in zip(after, before, strict=True)) < 50, "nothing goes round"
    assert ring.bed.run(["ip", "link", "set", "left-1", "down"]).returncode == 0  # for the last test


# ── by REST ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def rest(switch: RunningSwitch, path: str, body: Any = None) -> Any:
    """GET, or POST of a body; the answer, read as JSON if it is that."""

    def ask() -> str:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{REST_PORT}{path}", data, SECONDS) as answer:
            return str(answer.read().decode())

    text = switch.bed.inside(None, ask)
    return json.loads(text) if text else None


def listens(switch: RunningSwitch) -> bool:
    try:
        switch.bed.inside(None, lambda: socket.create_connection(("127.0.0.1", REST_PORT), 1)).close()
    except OSError:
        return False
    return True


def test_rest_router_routes_between_networks(tmp_path: Path) -> None:
    hosts = [LabHost(name=f"h{n}", address4=f"10.0.{n}.1/24", address6=f"fd00:{n}::1/64") for n in (1, 2)]
    with running("rest_router.py", tmp_path, hosts) as switch:
        until(lambda: listens(switch), "the REST API")

        def routes() -> bool:
            try:
                return any("internal_network" in router for router in rest(switch, "/router/all"))
            except urllib.error.HTTPError:  # the app listens, and has not seen the switch yet
                return False

        until(routes, "the router")
        for n in (1, 2):
            done = rest(switch, f"/router/{DATAPATH_ID:016x}", {"address": f"10.0.{n}.254/24"})
            assert done[0]["command_result"][0]["result"] == "success", done
            assert switch.bed.run(["ip", "route", "add", "default", "via", f"10.0.{n}.254"], host=f"h{n}").returncode == 0
        until(lambda: switch.bed.ping("h1", "h2", number=1, wait=1.0).ok, "a way through the router")
        result = switch.bed.ping("h2", "h1", number=5)
        assert result.ok, result
        output = switch.bed.run(["ping", "-n", "-c1", "-W5", "10.0.2.1"], host="h1").stdout
        assert "ttl=63" in output


def test_ofctl_rest_reads_and_writes_the_switch(tmp_path: Path) -> None:
    with running("ofctl_rest.py", tmp_path) as switch:
        until(lambda: listens(switch), "the REST API")
        until(lambda: rest(switch, "/stats/switches") == [DATAPATH_ID], "the switch")
        for one, other in ((1, 2), (2, 1)):
            entry = {"dpid": DATAPATH_ID, "priority": 7, "match": {"in_port": one}, "actions": [{"type": "OUTPUT", "port": other}]}
            rest(switch, "/stats/flowentry/add", entry)
        assert switch.bed.ping("h1", "h2", number=3).ok
        key = str(DATAPATH_ID)

        def stats(what: str) -> Any:
            """The app gives an empty answer when the switch's takes longer than a second."""
            return until(lambda: rest(switch, f"/stats/{what}/{key}")[key], what)

        flows = stats("flow")
        assert {(flow["match"]["in_port"], tuple(flow["actions"])) for flow in flows} == {(1, ("OUTPUT:2",)), (2, ("OUTPUT:1",))}
        assert all(flow["packet_count"] >= 3 for flow in flows)
        assert stats("desc")["mfr_desc"] == "ofswitch"
        ports = {port["port_no"]: port for port in stats("port")}
        assert ports[1]["rx_packets"] >= 3
        assert {port["name"] for port in stats("portdesc")} >= set(switch.bed.interfaces)
        tables = stats("table")
        assert tables[0]["active_count"] == 2
        assert stats("aggregateflow")[0]["flow_count"] == 2
        rest(switch, "/stats/flowentry/delete", {"dpid": DATAPATH_ID, "match": {"in_port": 1}})
        until(lambda: len(rest(switch, f"/stats/flow/{key}")[key]) == 1, "the deletion")


# ── last: the tree had time to settle anew ─────────────────────────────────────────────────────────────────────────────
def test_simple_switch_stp_takes_the_other_cable(ring: Ring) -> None:
    ring.bed.run(["ip", "link", "set", "left-1", "down"])
    until(lambda: ring.states().get("2/3") == "ROOT_PORT FORWARD", "the other cable", 240.0)
    until(lambda: ring.bed.ping("h1", "h2", number=3, wait=0.5).ok, "a way over the other cable")
