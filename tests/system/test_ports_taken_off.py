"""Somebody else takes our programs off a port's interface, as network managers and scripts do: the switch puts them back."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute
from support.running_switch import RunningSwitch, running_switch
from support.waiting import until

from appliance.datapath import netlink, programs
from appliance.lab.testbed import Testbed
from appliance.ports import xdp_features

pytestmark = pytest.mark.root

FLOWS = ("in_port=1,actions=output:2", "in_port=2,actions=output:1")
INGRESS = 0xFFFFFFF2
TC_ACT_OK, XDP_PASS = 0, 2
TAKEN = "somebody took our program off"


def taken_off(switch: RunningSwitch) -> list[str]:
    """The lines of the log that say so."""
    return [line for line in switch.log.splitlines() if TAKEN in line]


def port(switch: RunningSwitch, number: int = 1) -> Any:
    return switch.control.request("ports")[number - 1]


def run(switch: RunningSwitch, *words: str) -> None:
    result = switch.bed.run(words)
    assert result.returncode == 0, result.stderr


def ping(switch: RunningSwitch) -> bool:
    return bool(switch.bed.ping("h1", "h2", wait=1.0).ok)


def index(switch: RunningSwitch, number: int = 1) -> int:
    found: int = switch.bed.inside(None, lambda: socket.if_nametoindex(switch.bed.interfaces[number - 1]))
    return found


def there(switch: RunningSwitch) -> tuple[bool, bool]:
    """Whether port 1 has a program at XDP, and our filter at TC."""
    found = switch.bed.inside(None, lambda: netlink.attached(index(switch)))
    assert found is not None
    return bool(found[0]), found[1]


def tier(switch: RunningSwitch, hook: str) -> str:
    """Which deals with packets: TC also where XDP's redirects may not arrive, for all that a kernel before 6.3 tells of a veth."""
    features = switch.bed.inside(None, lambda: xdp_features(index(switch)))
    return "tc" if hook == "tc" or features is None else "xdp"


@pytest.fixture(params=["tc", "xdp", "xdp-generic"])
def hook(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def switch(tmp_path: Path, hook: str) -> Iterator[RunningSwitch]:
    """Two hosts whose packets go by the fast path; it ends as if nobody had done anything."""
    with Testbed.of(2) as bed:
        for host in ("h1", "h2"):  # or XDP's redirects to a veth's other end are lost, so that XDP leaves them to TC
            assert bed.run(["ethtool", "-K", "eth0", "gro", "on"], host=host).returncode == 0
        with running_switch(bed, tmp_path, "--hook", hook, "--local", "none") as made:
            made.add_flows(*FLOWS)
            made.until_fast(lambda: bed.ping("h1", "h2").ok)
            yield made
            assert made.control.request("show")["faults"] == 0, made.log
        for name in bed.interfaces:
            assert bed.inside(None, lambda name=name: netlink.attached(socket.if_nametoindex(name))) == (0, False)
            assert "clsact" not in bed.run(["tc", "qdisc", "show", "dev", name]).stdout


def commands(hook: str) -> list[tuple[str, str]]:
    """What takes off what of our programs, and the hook in words."""
    taking = [
        ("tc qdisc del dev {} clsact", "TC"),
        ("tc filter del dev {} ingress", "TC"),
        ("tc filter del dev {} ingress prio 1", "TC"),
    ]
    if hook != "tc":
        taking.append(("ip link set dev {} " + ("xdp off" if hook == "xdp" else "xdpgeneric off"), "XDP"))
    return taking


def test_what_is_taken_off_is_put_back(switch: RunningSwitch, hook: str) -> None:
    all_there = (hook != "tc", True)
    assert there(switch) == all_there
    shown = switch.ofctl("show")
    for number, (command, where) in enumerate(commands(hook), 1):
        run(switch, *command.format(switch.bed.interfaces[0]).split())
        until(lambda: there(switch) == all_there, f"our programs, after {command}")
        until(lambda number=number: len(taken_off(switch)) == number, f"the warning of {command}")
        assert f"WARNING port 1 ({switch.bed.interfaces[0]}): {TAKEN} at {where}" in taken_off(switch)[-1]
        until(lambda: ping(switch), "packets pass")
        before = switch.packets()
        switch.until_fast(lambda: ping(switch))
        assert switch.packets()[tier(switch, hook)] > before[tier(switch, hook)]
    assert taken_off(switch)[0].endswith("; it has been put back"), "at once, the first time"
    until(lambda: not port(switch)["problem"], "all is well")
    assert switch.ofctl("show") == shown


def test_where_another_has_the_place_at_tc_the_link_is_down_as_long(switch: RunningSwitch, hook: str) -> None:
    fd = programs.load(programs.SCHED_CLS, "other", programs.returns(TC_ACT_OK))
    place = {"handle": netlink.TC_HANDLE, "prio": netlink.TC_PRIORITY, "parent": INGRESS}

    def change(command: str, **more: Any) -> None:
        with IPRoute() as ip:
            ip.tc(command, "bpf", index(switch), **place, **more)

    switch.bed.inside(None, lambda: change("replace-filter", fd=fd, name="other", direct_action=True))
    os.close(fd)
    until(lambda: port(switch)["state"] == "down", "the port is dead")
    assert port(switch)["link"] == "up"
    assert "is taken by filter 'other' of another program" in port(switch)["problem"]
    assert switch.ofctl("show").count("LINK_DOWN") == 1
    assert port(switch, 2)["state"] == "up"
    assert len(taken_off(switch)) == 1
    switch.bed.inside(None, lambda: change("del-filter"))
    until(lambda: port(switch)["state"] == "up", "it is put back")
    assert port(switch)["problem"] == ""
    assert "LINK_DOWN" not in switch.ofctl("show")
    switch.until_fast(lambda: ping(switch))
    assert len(taken_off(switch)) == 1


@pytest.mark.parametrize("hook", ["xdp", "xdp-generic"], indirect=True)
def test_where_another_has_xdp_the_port_lives_by_tc(switch: RunningSwitch, hook: str) -> None:
    fd = programs.load(programs.XDP, "other", programs.returns(XDP_PASS))
    mode = netlink.XdpMode.NATIVE if hook == "xdp" else netlink.XdpMode.GENERIC

    def take() -> None:
        with IPRoute() as ip:
            ip.link("set", index=index(switch), xdp={"attrs": [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", mode.value)]})

    switch.bed.inside(None, take)
    os.close(fd)
    until(lambda: "'other' holds it" in port(switch)["problem"], "that is told")
    assert port(switch)["state"] == "up"
    before = switch.packets()["tc"]
    switch.until_fast(lambda: ping(switch))
    assert switch.packets()["tc"] > before
    run(switch, *commands(hook)[-1][0].format(switch.bed.interfaces[0]).split())
    until(lambda: port(switch)["problem"] == "", "it is put back")
    assert there(switch) == (True, True)
    before = switch.packets()
    switch.until_fast(lambda: ping(switch))
    assert switch.packets()[tier(switch, hook)] > before[tier(switch, hook)]
    assert len(taken_off(switch)) == 1


def test_who_keeps_on_taking_it_off_is_answered_ever_less_often(switch: RunningSwitch, hook: str) -> None:
    times = 0

    def seen_dead() -> bool:
        nonlocal times
        if there(switch)[1]:
            run(switch, "tc", "qdisc", "del", "dev", switch.bed.interfaces[0], "clsact")
            times += 1
        return bool(port(switch)["state"] == "down")

    until(seen_dead, "it is not put back at once any more")
    assert "as it does not stay, it is put back after a while" in port(switch)["problem"]
    until(lambda: port(switch)["state"] == "up", "it is put back")
    switch.until_fast(lambda: ping(switch))
    assert len(taken_off(switch)) == times, "one line each time"


def test_a_switch_takes_nothing_of_its_own_for_anothers_doing(tmp_path: Path, hook: str) -> None:
    """Ports that come and go, an agent that dies, and one that takes over."""
    flags = ("--hook", hook, "--local", "none")
    with Testbed.of(3) as bed:
        with running_switch(bed, tmp_path, *flags) as first:
            first.add_flows(*FLOWS)
            first.until_fast(lambda: bed.ping("h1", "h2").ok)
            run(first, "ip", "link", "set", bed.interfaces[2], "down")
            until(lambda: port(first, 3)["state"] == "down", "the link")
            run(first, "ip", "link", "set", bed.interfaces[2], "name", "other")
            until(lambda: port(first, 3)["state"] == "missing", "the port has gone")
            run(first, "ip", "link", "set", "other", "name", bed.interfaces[2])
            run(first, "ip", "link", "set", bed.interfaces[2], "up")
            until(lambda: port(first, 3)["state"] == "up", "the port")
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
            assert taken_off(first) == []
        with running_switch(bed, tmp_path, *flags) as second:
            second.add_flows(*FLOWS)
            second.until_fast(lambda: bed.ping("h1", "h2").ok)
            run(second, "ip", "link", "del", bed.interfaces[2])
            until(lambda: port(second, 3)["state"] == "missing", "the port has gone")
            assert bed.ping("h1", "h2").ok
        assert taken_off(second) == []
