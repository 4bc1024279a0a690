"""Real TCP, with all that offloads do to it, through flows that rewrite packets: checksums and segments come out right.

Partial checksums and segmentation-offload frames are what makes "ping works, TCP does not" (platform-facts).
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.running_switch import RunningSwitch, running_switch
from support.waiting import SECONDS

from appliance.lab.testbed import Testbed

pytestmark = pytest.mark.root

SIZE, FIRST = 30_000_000, 100_000
MACS = {1: "02:00:00:00:00:01", 2: "02:00:00:00:00:02"}


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    with Testbed.of(2) as bed:
        for host, other in (("h1", 2), ("h2", 1)):
            device = bed[host].interface
            for family, address in ((4, f"10.0.0.{other}"), (6, f"fd00::{other}"), (4, "10.0.0.9"), (6, "fd00::9")):
                command = ["ip", f"-{family}", "neigh", "replace", address, "lladdr", MACS[other], "dev", device]
                assert bed.run(command, host=host).returncode == 0
        with running_switch(bed, tmp_path_factory.mktemp("switch")) as running:
            yield running


@pytest.fixture(autouse=True)
def clean(switch: RunningSwitch) -> None:
    switch.ofctl("del-flows")


def transfer(switch: RunningSwitch, family: int) -> None:
    """h1 sends to h2: all bytes arrive as they were sent, and once there are megaflows the fast path does the work."""
    switch.until_fast(lambda: switch.bed.transfer("h1", "h2", FIRST, family).ok)
    before = switch.packets()
    result = switch.bed.transfer("h1", "h2", SIZE, family)
    after = switch.packets()
    assert result.ok, result
    assert after["slow_path"] - before["slow_path"] <= 20, (before, after)
    assert after["tc"] - before["tc"] > 200


def nat(family: int) -> tuple[str, ...]:
    ip, src, dst = ("tcp", "ip_src", "ip_dst") if family == 4 else ("tcp6", "ipv6_src", "ipv6_dst")
    one, hidden = ("10.0.0.1", "10.0.0.9") if family == 4 else ("fd00::1", "fd00::9")
    there = f"set_field:{hidden}->{src},set_field:02:00:00:00:00:99->eth_src,set_field:02:00:00:00:00:02->eth_dst"
    back = f"set_field:{one}->{dst},set_field:02:00:00:00:00:01->eth_dst"
    return (
        f"in_port=1,{ip},actions={there},dec_ttl,output:2",
        f"in_port=2,{ip},{dst.replace('ip_', 'nw_')}={hidden},actions={back},dec_ttl,output:1",
    )


@pytest.mark.parametrize("family", [4, 6])
def test_addresses_and_ttl(switch: RunningSwitch, family: int) -> None:
    """A translated source address: TCP's checksum covers it through the pseudo-header."""
    switch.add_flows(*nat(family))
    transfer(switch, family)


@pytest.mark.parametrize("family", [4, 6])
def test_ports(switch: RunningSwitch, family: int) -> None:
    """h1 connects to port 80 and gets h2's port 5001: TCP's own checksum covers that."""
    ip = "tcp" if family == 4 else "tcp6"
    switch.add_flows(
        f"in_port=1,{ip},tcp_dst=80,actions=set_field:5001->tcp_dst,output:2",
        f"in_port=2,{ip},tcp_src=5001,actions=set_field:80->tcp_src,output:1",
    )
    bed, data = switch.bed, random.Random(1).randbytes(20_000_000)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    listener = bed.inside("h2", lambda: socket.create_server((bed["h2"].address(family), 5001), family=kind))
    with listener, bed.inside("h1", lambda: socket.create_connection((bed["h2"].address(family), 80), SECONDS)) as client:
        server, _ = listener.accept()
        with server, ThreadPoolExecutor(1) as sender:
            sent = sender.submit(lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
            server.settimeout(SECONDS)
            received = bytearray()
            while chunk := server.recv(1 << 20):
                received += chunk
            sent.result()
    assert received == data


@pytest.mark.parametrize("family", [4, 6])
def test_tags_pushed_rewritten_and_popped(switch: RunningSwitch, family: int) -> None:
    """Through two tables, with QinQ in between: what h2 sees is what h1 sent."""
    for one, other in ((1, 2), (2, 1)):
        switch.add_flows(
            f"in_port={one},actions=push_vlan:0x8100,set_field:4196->vlan_vid,push_vlan:0x88a8,set_field:4200->vlan_vid,goto_table:1",
            f"table=1,in_port={one},dl_vlan=104,actions=pop_vlan,goto_table:2",
            f"table=2,in_port={one},dl_vlan=100,actions=pop_vlan,output:{other}",
        )
    transfer(switch, family)


def test_several_outputs_with_different_rewrites(switch: RunningSwitch) -> None:
    """A copy with another address goes back first: it must not spoil what is forwarded."""
    for one, other in ((1, 2), (2, 1)):
        switch.add_flows(
            f"in_port={one},actions=set_field:02:00:00:00:00:77->eth_dst,in_port,set_field:{MACS[other]}->eth_dst,output:{other}"
        )
    transfer(switch, 4)


@pytest.mark.parametrize("family", [4, 6])
def test_copies_with_changes_of_their_own(switch: RunningSwitch, family: int) -> None:
    """The buckets of a group: each packet goes back twice, changed, and comes out at the other side as it was."""
    ip, dst = ("ip", "ip_dst") if family == 4 else ("ipv6", "ipv6_dst")
    addresses = ("10.0.0.77", "10.0.0.78") if family == 4 else ("fd00::77", "fd00::78")
    for one, other in ((1, 2), (2, 1)):
        copies = ",".join(
            f"bucket=set_field:{address}->{dst},set_field:02:00:00:00:00:77->eth_dst,dec_ttl,push_vlan:0x8100,in_port"
            for address in addresses
        )
        switch.ofctl("add-group", f"group_id={one},type=all,{copies}")
        switch.add_flows(f"in_port={one},{ip},actions=group:{one},output:{other}")
    transfer(switch, family)
    assert any("clone(" in megaflow["actions"] for megaflow in switch.control.request("megaflows")["megaflows"])
    switch.ofctl("del-groups")


def test_copies_for_a_controller(switch: RunningSwitch) -> None:
    for one, other in ((1, 2), (2, 1)):
        switch.add_flows(f"in_port={one},actions=set_field:02:00:00:00:00:66->eth_src,output:{other},controller:64")
    transfer(switch, 4)


@pytest.mark.parametrize("family", [4, 6])
def test_all_in_the_slow_path(switch: RunningSwitch, family: int) -> None:
    """What the fast path leaves to Python arrives too: segments and checksums are made by the kernel on the way out."""
    for one, other in ((1, 2), (2, 1)):
        there = f"set_field:02:00:00:00:00:66->eth_src,output:{other}"
        back = "set_field:02:00:00:00:00:77->eth_dst,in_port"
        # Two groups that choose: a megaflow can have but one.
        for group, bucket in ((one, there), (one + 10, back)):
            switch.ofctl("add-group", f"group_id={group},type=select,bucket=weight:1,{bucket},bucket=weight:2,{bucket}")
        switch.add_flows(f"in_port={one},actions=group:{one},group:{one + 10}")
    before = switch.packets()
    result = switch.bed.transfer("h1", "h2", 2_000_000, family)
    assert result.ok, result
    assert switch.packets()["slow_path"] - before["slow_path"] > 50
    switch.ofctl("del-groups")


@pytest.mark.parametrize("family", [4, 6])
def test_through_mpls(switch: RunningSwitch, family: int) -> None:
    """A label is pushed and popped again, and what comes to light is matched: the packet is parsed again in the fast path."""
    ip = "ip" if family == 4 else "ipv6"
    ethertype = "0x0800" if family == 4 else "0x86dd"
    for one, other in ((1, 2), (2, 1)):
        switch.add_flows(
            f"in_port={one},{ip},actions=push_mpls:0x8847,set_field:77->mpls_label,goto_table:1",
            f"table=1,in_port={one},mpls,mpls_label=77,actions=pop_mpls:{ethertype},goto_table:2",
            f"table=2,in_port={one},{ip},actions=output:{other}",
        )
    transfer(switch, family)


def test_a_ttl_that_was_set_and_is_hidden_is_decremented(switch: RunningSwitch) -> None:
    """A label takes over the TTL that was set before; the fast path parses the packet again to know it."""
    for one, other in ((1, 2), (2, 1)):
        switch.add_flows(
            f"in_port={one},ip,actions=mod_nw_ttl:9,push_mpls:0x8847,dec_mpls_ttl,goto_table:1",
            f"table=1,in_port={one},mpls,actions=pop_mpls:0x0800,output:{other}",
        )
    transfer(switch, 4)
