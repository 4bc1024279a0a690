"""Real traffic through MPLS between two switches, all of it in the fast path: what a local stack leaves to the device (checksums,
segments) comes out right behind labels, wherever the frames are cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.running_switch import LISTEN_PORT, RunningSwitch, running_switch

from appliance.lab.testbed import Testbed

pytestmark = pytest.mark.root

SIZE, FIRST = 30_000_000, 100_000
TRUNK = ("trunk-a", "trunk-b")
IP = {4: ("ip", "0x0800"), 6: ("ipv6", "0x86dd")}


@pytest.fixture(scope="module")
def switches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningSwitch]]:
    """h1 – first switch – trunk – second switch – h2; on both the host's port is 1 and the trunk's 2."""
    with Testbed.of(2) as bed, ExitStack() as stack:
        commands = [
            (None, f"ip link add {TRUNK[0]} mtu 1600 type veth peer {TRUNK[1]} mtu 1600"),
            *((None, f"ip link set {end} up") for end in TRUNK),
        ]
        for host, other in (("h1", bed["h2"]), ("h2", bed["h1"])):
            for family in (4, 6):
                neighbour = f"{other.address(family)} lladdr {other.mac} dev {bed[host].interface}"
                commands.append((host, f"ip -{family} neigh replace {neighbour}"))
        for place, command in commands:
            result = bed.run(command.split(), host=place)
            assert result.returncode == 0, (command, result.stderr)
        folder = tmp_path_factory.mktemp("switches")
        yield [
            stack.enter_context(
                running_switch(
                    bed,
                    folder,
                    name=f"switch{number}",
                    ports=(f"{bed[host].switch_interface}=1", f"{TRUNK[number]}=2"),
                    listen_port=LISTEN_PORT + number,
                )
            )
            for number, host in enumerate(("h1", "h2"))
        ]


@pytest.fixture(autouse=True)
def clean(switches: list[RunningSwitch]) -> None:
    for switch in switches:
        switch.ofctl("del-flows")


@pytest.fixture(params=["whole", "cut"])
def trunk(request: pytest.FixtureRequest, switches: list[RunningSwitch]) -> str:
    """Whether segmentation-offload frames cross the trunk whole, or the kernel cuts them on their way out."""
    whole = "on" if request.param == "whole" else "off"
    for end in TRUNK:
        assert switches[0].bed.run(["ethtool", "-K", end, "tso", whole]).returncode == 0
    return str(request.param)


def transfer(switches: list[RunningSwitch], family: int = 4, *, mostly: bool = True) -> None:
    """All bytes arrive, through the fast path of both switches; ``mostly``: it has ten times the slow path's packets."""
    bed = switches[0].bed
    if mostly:
        for switch in switches:
            switch.until_fast(lambda: bed.transfer("h1", "h2", FIRST, family).ok)
    before = [switch.packets() for switch in switches]
    result = bed.transfer("h1", "h2", SIZE, family)
    assert result.ok, result
    for switch, then in zip(switches, before, strict=True):
        now = switch.packets()
        forwarded = now["tc"] - then["tc"]
        assert forwarded > 200
        assert not mostly or forwarded > 10 * (now["slow_path"] - then["slow_path"]), (then, now)


@pytest.mark.parametrize("family", [4, 6])
def test_a_label(switches: list[RunningSwitch], trunk: str, family: int) -> None:
    ip, ethertype = IP[family]
    for switch in switches:
        switch.add_flows(
            f"in_port=1,{ip},actions=dec_ttl,push_mpls:0x8847,set_field:77->mpls_label,output:2",
            f"in_port=2,mpls,mpls_label=77,actions=pop_mpls:{ethertype},output:1",
        )
    transfer(switches, family)


def test_two_labels(switches: list[RunningSwitch], trunk: str) -> None:
    for switch in switches:
        switch.add_flows(
            "in_port=1,ip,actions=push_mpls:0x8847,set_field:77->mpls_label,push_mpls:0x8847,set_field:78->mpls_label,"
            "set_mpls_ttl:9,dec_mpls_ttl,output:2",
            "in_port=2,mpls,mpls_label=78,actions=dec_mpls_ttl,pop_mpls:0x8847,goto_table:1",
            "table=1,in_port=2,mpls,mpls_label=77,actions=pop_mpls:0x0800,output:1",
        )
    transfer(switches, mostly=False)


def test_a_label_before_a_tag(switches: list[RunningSwitch], trunk: str) -> None:
    for switch in switches:
        switch.add_flows(
            "in_port=1,ip,actions=push_vlan:0x8100,set_field:4196->vlan_vid,push_mpls:0x8847,output:2",
            "in_port=2,mpls,actions=pop_mpls:0x8100,goto_table:1",
            "table=1,in_port=2,dl_vlan=100,actions=pop_vlan,output:1",
        )
    transfer(switches, mostly=False)


def test_a_tag_before_a_label(switches: list[RunningSwitch], trunk: str) -> None:
    for switch in switches:
        switch.add_flows(
            "in_port=1,ip,actions=push_mpls:0x8847,push_vlan:0x8100,set_field:4196->vlan_vid,output:2",
            "in_port=2,dl_vlan=100,mpls,actions=pop_mpls:0x0800,pop_vlan,output:1",
        )
    transfer(switches)
