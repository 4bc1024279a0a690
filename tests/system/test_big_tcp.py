"""BIG TCP across the switch: hosts send frames longer than IPv4's header can say, and whatever becomes of them on the way, every
byte arrives. Sizes are raised while every port takes such frames, and taken back, also by an agent that did not raise them.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.big_frames import needs_big_tcp
from support.running_switch import RunningSwitch, running_switch
from support.tap import tap_cable
from support.waiting import until

from appliance.lab import namespace
from appliance.lab.testbed import Testbed
from appliance.ports import BIG_BYTES, frame_sizes
from appliance.ports.big_tcp import DEFAULT_BYTES

pytestmark = pytest.mark.root

SIZE, FIRST, LITTLE = 60_000_000, 100_000, 3_000_000
LONGEST_SAID = 65_535 + 14
ETH_P_ALL = 3
MACS = {1: "02:00:00:00:00:01", 2: "02:00:00:00:00:02"}
TOLD = "frames of up to 184,997 bytes, as every port takes them whole"


@contextmanager
def hosts(number: int) -> Iterator[Testbed]:
    needs_big_tcp()
    with Testbed.of(number) as bed:
        for host in bed.hosts:
            # A timer that paces holds TCP to smaller frames.
            bed.inside(host.name, lambda: namespace.write_sysctl("net/ipv4/tcp_congestion_control", "reno"))
        yield bed


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    with hosts(2) as bed:
        for host, other in (("h1", 2), ("h2", 1)):
            for address in (f"10.0.0.{other}", "10.0.0.9"):
                command = ["ip", "neigh", "replace", address, "lladdr", MACS[other], "dev", bed[host].interface]
                assert bed.run(command, host=host).returncode == 0
        with running_switch(bed, tmp_path_factory.mktemp("switch")) as running:
            yield running
            assert running.control.request("show")["faults"] == 0, running.log


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> None:
    if "switch" in request.fixturenames:
        switch = request.getfixturevalue("switch")
        switch.ofctl("del-flows")
        switch.ofctl("del-groups")


class Longest:
    """The longest frame that comes in at a host's interface."""

    def __init__(self, interface: str) -> None:
        self.bytes = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        buffer = bytearray(64)
        while not self._stop.is_set():
            try:
                length, address = self._socket.recvfrom_into(buffer, 0, socket.MSG_TRUNC)
            except TimeoutError:
                continue
            if address[2] != socket.PACKET_OUTGOING:
                self.bytes = max(self.bytes, length)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


@contextmanager
def longest(bed: Testbed, host: str) -> Iterator[Longest]:
    listening = bed.inside(host, lambda: Longest(bed[host].interface))
    try:
        yield listening
    finally:
        listening.close()


def transfer(switch: RunningSwitch, *, size: int = SIZE, tier: str = "tc") -> None:
    """h1 sends to h2: all bytes arrive as they were sent, in frames longer than any header can say, by this tier."""
    switch.until_fast(lambda: switch.bed.transfer("h1", "h2", FIRST).ok)
    before = switch.packets()
    with longest(switch.bed, "h2") as seen:
        result = switch.bed.transfer("h1", "h2", size)
    after = switch.packets()
    assert result.ok, result
    assert LONGEST_SAID < seen.bytes <= BIG_BYTES
    if tier == "tc":
        assert after["slow_path"] - before["slow_path"] <= 20, (before, after)
    assert after[tier] - before[tier] > 50


def both_ways(*flows: str) -> tuple[str, ...]:
    """``{one}`` is the port that a packet came in on, ``{other}`` the one where it is to go."""
    return tuple(flow.format(one=one, other=3 - one, mac=MACS[3 - one]) for flow in flows for one in (1, 2))


# ── what becomes of the frames ─────────────────────────────────────────────────────────────────────────────────────────
def test_as_they_are(switch: RunningSwitch) -> None:
    switch.add_flows(*both_ways("in_port={one},actions=output:{other}"))
    before = [port["counters"] for port in switch.control.request("ports")]
    transfer(switch)

    def passed_on() -> tuple[int, int]:
        """Bytes that came in from h1, and that left to h2."""
        after = [port["counters"] for port in switch.control.request("ports")]
        return after[0]["rx_bytes"] - before[0]["rx_bytes"], after[1]["tx_bytes"] - before[1]["tx_bytes"]

    until(lambda: len(set(passed_on())) == 1, "as much out as in")
    assert passed_on()[0] >= SIZE


def test_addresses_translated(switch: RunningSwitch) -> None:
    switch.add_flows(
        "in_port=1,tcp,actions=set_field:10.0.0.9->ip_src,set_field:02:00:00:00:00:99->eth_src,dec_ttl,output:2",
        "in_port=2,tcp,nw_dst=10.0.0.9,actions=set_field:10.0.0.1->ip_dst,set_field:02:00:00:00:00:01->eth_dst,output:1",
    )
    transfer(switch)


def test_tags_pushed_and_popped(switch: RunningSwitch) -> None:
    switch.add_flows(
        *both_ways(
            "in_port={one},actions=push_vlan:0x8100,set_field:4196->vlan_vid,push_vlan:0x88a8,set_field:4200->vlan_vid,goto_table:1",
            "table=1,in_port={one},dl_vlan=104,actions=pop_vlan,goto_table:2",
            "table=2,in_port={one},dl_vlan=100,actions=pop_vlan,output:{other}",
        )
    )
    transfer(switch)


def test_a_label_pushed_and_popped(switch: RunningSwitch) -> None:
    switch.add_flows(
        *both_ways(
            "in_port={one},ip,actions=push_mpls:0x8847,set_field:77->mpls_label,goto_table:1",
            "table=1,in_port={one},mpls,mpls_label=77,actions=pop_mpls:0x0800,goto_table:2",
            "table=2,in_port={one},ip,actions=output:{other}",
        )
    )
    transfer(switch)


def test_copies_that_differ(switch: RunningSwitch) -> None:
    """An ALL group: two copies go back, changed, and the packet itself comes out at the other side as it was."""
    for one in (1, 2):
        copies = ",".join(
            f"bucket=set_field:{address}->ip_dst,set_field:02:00:00:00:00:77->eth_dst,dec_ttl,push_vlan:0x8100,in_port"
            for address in ("10.0.0.77", "10.0.0.78")
        )
        switch.ofctl("add-group", f"group_id={one},type=all,{copies}")
    switch.add_flows(*both_ways("in_port={one},ip,actions=group:{one},output:{other}"))
    transfer(switch)


def test_a_meter_that_lets_them_through(switch: RunningSwitch) -> None:
    switch.ofctl("add-meter", "meter=1,kbps,burst,stats,band=type=drop,rate=100000000,burst_size=100000000")
    switch.add_flows(*both_ways("in_port={one},actions=meter:1,output:{other}"))
    transfer(switch)
    switch.ofctl("del-meters")


def slow(switch: RunningSwitch) -> None:
    """Two groups that choose: a megaflow can have but one."""
    for one in (1, 2):
        there = f"set_field:02:00:00:00:00:66->eth_src,output:{3 - one}"
        back = "set_field:02:00:00:00:00:77->eth_dst,in_port"
        for group, bucket in ((one, there), (one + 10, back)):
            switch.ofctl("add-group", f"group_id={group},type=select,bucket=weight:1,{bucket},bucket=weight:2,{bucket}")
    switch.add_flows(*both_ways("in_port={one},actions=group:{one},group:1{one}"))


def test_a_rule_for_the_slow_path_alone(switch: RunningSwitch) -> None:
    """There they are cut into packets as on a wire."""
    slow(switch)
    before = switch.packets()
    too_long = switch.control.request("show")["drops"].get("upcall_full", 0)
    with longest(switch.bed, "h2") as seen:
        result = switch.bed.transfer("h1", "h2", LITTLE)
    assert result.ok, result
    assert 0 < seen.bytes <= 1514
    assert switch.packets()["slow_path"] - before["slow_path"] > 20
    # A sender that is too fast for the slow path loses frames for that, but none for being long.
    assert switch.control.request("show")["drops"].get("upcall_full", 0) == too_long


def test_a_copy_for_the_controllers(switch: RunningSwitch) -> None:
    switch.add_flows(*both_ways("in_port={one},actions=set_field:02:00:00:00:00:66->eth_src,output:{other},controller:64"))
    transfer(switch)


def test_rules_that_change_in_mid_stream(switch: RunningSwitch) -> None:
    """Each change takes the megaflows away: frames come up, are executed in Python and are sent from there, whole."""
    ways = (
        both_ways("in_port={one},actions=output:{other}"),
        both_ways("in_port={one},actions=set_field:02:00:00:00:00:66->eth_src,output:{other}"),
        both_ways("in_port={one},ip,actions=push_vlan:0x8100,set_field:4196->vlan_vid,pop_vlan,output:{other}"),
    )
    switch.add_flows(*ways[0])
    stop = threading.Event()
    changes = 0

    def change() -> None:
        nonlocal changes
        while not stop.is_set():
            switch.add_flows(*ways[changes % len(ways)])
            changes += 1

    before = switch.packets()
    changing = threading.Thread(target=change)
    changing.start()
    try:
        with longest(switch.bed, "h2") as seen:
            results = []
            while len(results) < 3 or changes <= 3:
                results.append(switch.bed.transfer("h1", "h2", SIZE))
                assert changing.is_alive()
    finally:
        stop.set()
        changing.join()
    assert all(result.ok for result in results), results
    assert seen.bytes > LONGEST_SAID
    assert switch.packets()["slow_path"] > before["slow_path"]


# ── which ports have them ──────────────────────────────────────────────────────────────────────────────────────────────
def ends(bed: Testbed, *names: str) -> set[int | None]:
    """gso_ipv4_max_size and gro_ipv4_max_size of the hosts' interfaces, and of the switch's at their other end."""

    def read(name: str) -> set[int | None]:
        found = frame_sizes.read(socket.if_nametoindex(name))
        assert found is not None
        return {found.gso, found.gro}

    hosts = [bed[name] for name in names]
    places = [(host.name, host.interface) for host in hosts] + [(None, host.switch_interface) for host in hosts]
    return set[int | None]().union(*(bed.inside(where, lambda name=name: read(name)) for where, name in places))  # type: ignore[misc]


def told(switch: RunningSwitch) -> dict[Any, tuple[bool, str]]:
    ports = [port for port in switch.control.request("ports") if port["state"] != "missing"]
    return {port["number"]: (port["big_tcp"], port["big_tcp_reason"]) for port in ports}


def test_sizes_are_raised_while_it_runs(tmp_path: Path) -> None:
    with hosts(2) as bed:
        with running_switch(bed, tmp_path) as switch:
            assert ends(bed, "h1", "h2") == {BIG_BYTES}
            assert set(told(switch).values()) == {(True, TOLD)}
        assert ends(bed, "h1", "h2") == {DEFAULT_BYTES}


def test_after_a_crash_the_next_agent_takes_them_back(tmp_path: Path) -> None:
    with hosts(2) as bed:
        for flag in ("auto", "off"):
            with running_switch(bed, tmp_path) as switch:
                os.kill(switch.process.pid, signal.SIGKILL)
                switch.process.wait()
            assert ends(bed, "h1", "h2") == {BIG_BYTES}
            with running_switch(bed, tmp_path, "--big-tcp", flag) as switch:
                assert ends(bed, "h1", "h2") == {BIG_BYTES if flag == "auto" else DEFAULT_BYTES}
                assert set(told(switch).values()) == {(True, TOLD) if flag == "auto" else (False, "as configured")}
            assert ends(bed, "h1", "h2") == {DEFAULT_BYTES}


def test_a_port_that_takes_none_comes_and_goes(tmp_path: Path) -> None:
    """A tap: the kernel would cut them there."""
    with hosts(2) as bed:
        ports = [*bed.interfaces, "tap0"]
        with ExitStack() as tap:

            def plug_in() -> None:
                tap.enter_context(tap_cable((bed.switch_namespace, "tap0"), (bed["h2"].namespace, "tap1")))

            plug_in()
            with running_switch(bed, tmp_path, "--local", "none", "--fail-mode", "standalone", ports=ports, listen=False) as switch:
                for _ in range(2):
                    until(lambda: 3 in told(switch), "the tap")
                    until(lambda: ends(bed, "h1", "h2") == {DEFAULT_BYTES}, "smaller frames")
                    reason = "a tun may lead to where frames are cut"
                    others = dict.fromkeys((1, 2), (False, f"port 3 (tap0): {reason}"))
                    assert told(switch) == {**others, 3: (False, reason)}
                    assert bed.transfer("h1", "h2", SIZE // 10).ok
                    tap.close()
                    until(lambda: 3 not in told(switch), "no tap")
                    until(lambda: ends(bed, "h1", "h2") == {BIG_BYTES}, "larger frames")
                    assert bed.transfer("h1", "h2", SIZE // 10).ok
                    plug_in()


def test_an_other_end_that_joins_a_bridge(tmp_path: Path) -> None:
    with hosts(2) as bed, running_switch(bed, tmp_path) as switch:
        device = bed["h2"].interface
        assert bed.run(["ip", "link", "add", "br0", "type", "bridge"], host="h2").returncode == 0
        assert bed.run(["ip", "link", "set", device, "master", "br0"], host="h2").returncode == 0
        until(lambda: ends(bed, "h1", "h2") == {DEFAULT_BYTES}, "smaller frames")
        assert told(switch)[2] == (False, "its other end is part of a bridge or switch")
        assert bed.run(["ip", "link", "set", device, "nomaster"], host="h2").returncode == 0
        until(lambda: ends(bed, "h1", "h2") == {BIG_BYTES}, "larger frames")


def test_sizes_that_change_in_mid_stream(tmp_path: Path) -> None:
    """A connection keeps the size that it began with, and the kernel cuts what a port does not take any more."""
    with hosts(3) as bed, running_switch(bed, tmp_path, "--fail-mode", "standalone") as switch, ThreadPoolExecutor(1) as other:
        switch.add_flows("actions=NORMAL")
        assert bed.run(["ip", "link", "add", "br0", "type", "bridge"], host="h3").returncode == 0
        sent = other.submit(bed.transfer, "h1", "h2", 20 * SIZE)
        while True:
            for words, size in ((("master", "br0"), DEFAULT_BYTES), (("nomaster",), BIG_BYTES)):
                assert bed.run(["ip", "link", "set", bed["h3"].interface, *words], host="h3").returncode == 0
                until(lambda: ends(bed, "h1", "h2", "h3") == {size}, f"sizes of {size}")  # noqa: B023
            if sent.done():
                break
        assert sent.result().ok, sent.result()


def test_a_port_at_xdp_and_one_at_tc(tmp_path: Path) -> None:
    with hosts(2) as bed:
        config = tmp_path / "switch.yaml"
        one, other = bed.interfaces
        config.write_text(f"ports: [{{interface: {one}, hook: xdp}}, {other}]\nlocal: none\nfail_mode: standalone\n")
        with running_switch(bed, tmp_path, str(config), ports=()) as switch:
            assert ends(bed, "h1", "h2") == {DEFAULT_BYTES}
            assert told(switch)[1] == (False, "XDP takes no frames that are still to be cut")
            assert bed.transfer("h1", "h2", SIZE // 10).ok
            assert bed.transfer("h2", "h1", SIZE // 10).ok
