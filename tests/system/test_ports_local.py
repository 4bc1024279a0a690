"""OFPP_LOCAL: the machine's own interface at the switch, its traffic, and what is left of it."""

from __future__ import annotations

import os
import re
import signal
import socket
from functools import partial
from pathlib import Path

import own_namespace
import pytest
from pyroute2 import IPRoute
from support.running_switch import LISTEN_PORT, RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.lab.testbed import Testbed
from appliance.lab.transfer import transfer
from appliance.ports import LocalSpec, PortError, find, interface_names, make_local, remove_local

pytestmark = pytest.mark.root

LOCAL_ADDRESS = "10.0.0.254"
MEGABYTES = 30_000_000
SPEC = LocalSpec("br0", bytes.fromhex("02000000aa01"), "edge")


# ── the pair of interfaces ─────────────────────────────────────────────────────────────────────────────────────────────
def test_the_pair_is_made_taken_over_and_removed() -> None:
    with own_namespace.entered():
        end = make_local(SPEC, 1400)
        host = find("br0")
        assert host is not None
        assert (host.mac, host.mtu, host.admin_up) == (SPEC.mac, 1400, False)
        assert (end.name, end.mtu, end.admin_up, end.carrier) == ("br0-sw", 1400, True, False)
        with IPRoute() as ip:
            ip.link("set", index=host.ifindex, state="up")
            assert not ip.get_addr(index=end.ifindex), "the switch's end would speak for itself"
        again = make_local(SPEC, 9000)
        assert (again.ifindex, again.mtu, again.carrier) == (end.ifindex, 1400, True)
        remove_local(SPEC)
        assert interface_names() == ["lo"]
        remove_local(SPEC)


def test_what_is_somebody_elses_is_neither_taken_nor_removed() -> None:
    with own_namespace.entered():
        make_local(SPEC, 1500)
        other = LocalSpec("br0", SPEC.mac, "another switch")
        with pytest.raises(PortError, match="there is an interface br0 already, which is not this switch's"):
            make_local(other, 1500)
        remove_local(other)
        assert sorted(interface_names()) == ["br0", "br0-sw", "lo"]


def test_switches_in_one_namespace_have_one_each() -> None:
    with own_namespace.entered():
        for name in ("left", "right"):
            make_local(LocalSpec(name, SPEC.mac, name), 1500)
        assert sorted(interface_names()) == ["left", "left-sw", "lo", "right", "right-sw"]


def test_a_name_that_the_kernel_refuses_is_told_and_leaves_nothing() -> None:
    with own_namespace.entered():
        with pytest.raises(PortError, match="cannot make the interface all: Invalid argument"):
            make_local(LocalSpec("all", SPEC.mac, "edge"), 1500)  # /proc/sys/net/ipv6/conf/all is taken
        assert interface_names() == ["lo"]


# ── traffic ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def configure(switch: RunningSwitch) -> None:
    """As a user does it: an address, and up. The interface has the switch's name."""
    for words in (["addr", "add", f"{LOCAL_ADDRESS}/24"], ["link", "set", "up"]):
        assert switch.bed.run(["ip", *words, "dev", "switch"]).returncode == 0


def pings(bed: Testbed, address: str, host: str | None, *options: str, wait: float = 5.0) -> bool:
    """Whether three echo requests, each by a ping of its own, were all answered."""
    command = ["ping", "-q", "-c1", f"-W{wait}", *options, address]
    return all(" 0% packet loss" in bed.run(command, host=host).stdout for _ in range(3))


def port_counters(switch: RunningSwitch) -> dict[str, int]:
    text = switch.ofctl("dump-ports", "LOCAL")
    rx, tx = (re.search(rf"{way} pkts=(\d+)", text) for way in ("rx", "tx"))
    assert rx, text
    assert tx, text
    return {"rx": int(rx[1]), "tx": int(tx[1])}


def test_the_machine_is_on_the_network_by_its_local_port(tmp_path: Path) -> None:
    flags = ("--listen", f"ptcp:{LISTEN_PORT}:0.0.0.0")
    with Testbed.of(2) as bed:
        with running_switch(bed, tmp_path, *flags, listen=False) as switch:
            assert re.search(r"LOCAL\(switch\): addr:[0-9a-f:]{17}\n\s+config: +0\n\s+state: +LINK_DOWN", switch.ofctl("show"))
            switch.add_flows("actions=NORMAL")
            configure(switch)
            until(lambda: re.search(r"LOCAL\(switch\).*\n.*config: +0\n.*state: +LIVE", switch.ofctl("show")), "up")
            assert pings(bed, LOCAL_ADDRESS, "h1")
            assert pings(bed, LOCAL_ADDRESS, "h2", "-s", "4000"), "in fragments"
            assert pings(bed, bed["h2"].address4, None)
            # Both ways by TCP, with segmentation and checksum offload on all interfaces, in the fast path.
            home, h1 = str(bed.switch_namespace), bed["h1"]
            switch.until_fast(lambda: transfer(home, h1.namespace, h1.address4, 100_000).ok)
            before = switch.packets()
            for result in (
                transfer(home, h1.namespace, h1.address4, MEGABYTES),
                transfer(h1.namespace, home, LOCAL_ADDRESS, MEGABYTES),
            ):
                assert result.ok, result
            after = switch.packets()
            assert after["tc"] - before["tc"] > 200
            assert after["slow_path"] - before["slow_path"] < 50
            assert after["dropped"] == before["dropped"]

            # What the machine sent before the switch was told that the port is up (IPv6's first words) counts as well.
            def counted_alike() -> bool:
                counted, kernel = port_counters(switch), bed.inside(None, partial(kernel_counters, "switch"))
                return counted == {"rx": kernel["tx"], "tx": kernel["rx"]}

            until(counted_alike, "the kernel's counters and the switch's")
            # In-band: a tool on a host reaches the switch's OpenFlow port through the switch.
            shown = bed.run(["ovs-ofctl", "-O", "OpenFlow13", "show", f"tcp:{LOCAL_ADDRESS}:{LISTEN_PORT}"], host="h2")
            assert "LOCAL(switch)" in shown.stdout, shown.stderr
            local = next(port for port in switch.control.request("ports") if port["interface"] == "switch")
            assert (local["number"], local["state"], local["hook"]) == (0xFFFFFFFE, "up", "tc")
        assert not {"switch", "switch-sw"} & set(bed.inside(None, interface_names)), "a clean stop leaves nothing"


def kernel_counters(name: str) -> dict[str, int]:
    with IPRoute() as ip:
        statistics = ip.link("get", ifname=name)[0].get_attr("IFLA_STATS64")
        return {"rx": statistics["rx_packets"], "tx": statistics["tx_packets"]}


def listening(interface: str) -> socket.socket:
    """For frames of an experimental type, which nobody else sends."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
    opened.bind((interface, 0x88B5))
    opened.settimeout(SECONDS)
    return opened


def test_flows_name_the_local_port_and_port_mod_closes_it(tmp_path: Path) -> None:
    with Testbed.of(2) as bed, running_switch(bed, tmp_path) as switch:
        configure(switch)
        switch.add_flows("in_port=1,actions=LOCAL", "in_port=LOCAL,actions=output:1")
        switch.until_fast(lambda: pings(bed, LOCAL_ADDRESS, "h1"))
        megaflows = switch.control.request("megaflows")["megaflows"]
        assert {item["actions"] for item in megaflows if "in_port=LOCAL" in item["match_text"]} == {"output:1"}
        assert {item["actions"] for item in megaflows if "in_port=1" in item["match_text"]} == {"output:LOCAL"}
        assert not pings(bed, LOCAL_ADDRESS, "h2", wait=0.5)
        assert any("in_port=LOCAL" in line and "output:1" in line for line in switch.flows()), switch.flows()
        frame = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)
        with bed.inside(None, partial(listening, "switch")) as opened:
            switch.ofctl("packet-out", "CONTROLLER", "LOCAL", frame.hex())
            assert opened.recv(2048) == frame
        switch.ofctl("mod-port", "switch", "down")
        assert not pings(bed, LOCAL_ADDRESS, "h1", wait=0.5)
        assert "PORT_DOWN" in switch.ofctl("show")
        switch.ofctl("mod-port", "switch", "up")
        until(lambda: pings(bed, LOCAL_ADDRESS, "h1", wait=0.5), "the link is up")


def test_a_flood_reaches_the_machine_and_its_frames_are_flooded(tmp_path: Path) -> None:
    with Testbed.of(3) as bed, running_switch(bed, tmp_path) as switch:
        configure(switch)
        for action in ("FLOOD", "ALL"):
            switch.ofctl("del-flows")
            switch.add_flows(f"actions={action}")
            assert pings(bed, LOCAL_ADDRESS, "h1")
            assert pings(bed, bed["h3"].address4, None)
            assert pings(bed, bed["h2"].address4, "h1")


def test_packets_go_on_without_an_agent_and_the_next_one_keeps_the_address(tmp_path: Path) -> None:
    with Testbed.of(2) as bed:
        with running_switch(bed, tmp_path) as switch:
            switch.add_flows("actions=NORMAL")
            configure(switch)
            switch.until_fast(lambda: pings(bed, LOCAL_ADDRESS, "h1"))
            os.kill(switch.process.pid, signal.SIGKILL)
            switch.process.wait()
            assert pings(bed, LOCAL_ADDRESS, "h1")
        with running_switch(bed, tmp_path) as switch:
            switch.add_flows("actions=NORMAL")
            assert pings(bed, LOCAL_ADDRESS, "h1")
        assert "switch" not in bed.inside(None, interface_names)


def test_without_a_local_port_there_is_none(tmp_path: Path) -> None:
    with Testbed.of(2) as bed, running_switch(bed, tmp_path, "--local", "none") as switch:
        assert "LOCAL" not in switch.ofctl("show")
        assert "switch" not in bed.inside(None, interface_names)
