"""Open vSwitch's own command line tool as the controller of a running switch: what it prints, and what traffic then does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.quiet import never_ask_again
from support.running_switch import RunningSwitch, running_switch
from support.waiting import until

from appliance.lab.testbed import Testbed

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("ovs-ofctl") is None, reason="apt-get install openvswitch-common"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    """With three hosts. It listens on loopback of a namespace of its own, and nobody controls it."""
    with Testbed.of(3) as bed:
        never_ask_again(bed)
        with running_switch(bed, tmp_path_factory.mktemp("ofctl"), name="ofctl") as switch:
            yield switch
        assert switch.process.returncode == 0
    assert bed.leftovers() == []


@pytest.fixture
def switch(running: RunningSwitch) -> RunningSwitch:
    """Without flow entries, and without hosts that still look for each other because of the test before."""
    running.ofctl("del-flows")
    for host in running.bed.hosts:
        for family in ("-4", "-6"):
            running.bed.run(["ip", family, "neigh", "flush", "all"], host=host.name)
    assert running.flows() == []
    return running


def test_show(switch: RunningSwitch) -> None:
    text = switch.ofctl("show")
    assert f"dpid:{switch.control.request('show')['datapath_id']}" in text
    assert "n_tables:254, n_buffers:256" in text
    assert "FLOW_STATS TABLE_STATS PORT_STATS GROUP_STATS QUEUE_STATS" in text
    for number, name in enumerate(switch.bed.interfaces, 1):
        (block,) = re.findall(rf"^ {number}\({name}\): (.*?)(?=^ \d+\(|^OFPT)", text, re.MULTILINE | re.DOTALL)
        assert f"addr:{switch.bed.hosts[number - 1].switch_mac}" in block
        assert re.search(r"state:\s+LIVE", block)
        assert "speed: 10000 Mbps now" in block
    assert "frags=normal" in text


def test_dump_desc(switch: RunningSwitch) -> None:
    text = switch.ofctl("dump-desc")
    assert "Manufacturer: ofswitch" in text
    assert "DP Description: ofctl" in text


def test_added_flows_are_dumped_as_they_were_given_and_forward(switch: RunningSwitch) -> None:
    assert not switch.bed.ping("h1", "h2", number=1, wait=0.3).ok, "no flow entry, no forwarding"
    switch.ofctl("add-flow", "cookie=0x2a,priority=10,in_port=1,actions=output:2")
    switch.ofctl("add-flow", "priority=10,in_port=2,idle_timeout=60,hard_timeout=600,actions=output:1")
    switch.ofctl("add-flow", "table=3,priority=7,tcp,nw_dst=10.0.0.0/24,tp_dst=80,actions=set_field:2->ip_dscp,goto_table:4")
    given = [re.sub(r" n_packets=\d+, n_bytes=\d+,", "", flow) for flow in switch.flows()]  # who was pinged is asked for again
    assert given == [
        "cookie=0x2a, table=0, priority=10,in_port=1 actions=output:2",
        "cookie=0x0, table=0, idle_timeout=60, hard_timeout=600, priority=10,in_port=2 actions=output:1",
        "cookie=0x0, table=3, priority=7,tcp,nw_dst=10.0.0.0/24,tp_dst=80 actions=set_field:2->ip_dscp,goto_table:4",
    ]
    for family in (4, 6):
        assert switch.bed.ping("h1", "h2", family).ok
        assert not switch.bed.ping("h1", "h3", family, number=1, wait=0.3).ok


def test_the_fields_of_tunnels(switch: RunningSwitch) -> None:
    """Where there is no tunnel port, set ones do nothing, and a packet has none."""
    put = "set_field:0x64->tun_id,set_field:192.0.2.1->tun_src,set_field:192.0.2.2->tun_dst"
    flow = f"priority=10,in_port=1 actions={put},goto_table:1"
    later = "priority=1,tun_id=0x64/0xff,tun_src=192.0.2.0/24,tun_dst=192.0.2.2 actions=output:2"
    switch.ofctl("add-flow", flow)
    switch.ofctl("add-flow", f"table=1,{later}")
    switch.ofctl("add-flow", "priority=10,in_port=2,tun_id=0,tun_src=0.0.0.0,actions=output:1")
    flows = switch.flows()
    assert [text for text in (flow, later) if not any(shown.endswith(text) for shown in flows)] == [], flows
    assert switch.bed.ping("h1", "h2").ok


def test_every_packet_is_counted_once_by_flow_table_and_port(switch: RunningSwitch) -> None:
    """Whichever tier handled it: the first of a megaflow comes up, the rest do not."""
    before = ports(switch)
    tables = lookups(switch)
    switch.ofctl("add-flow", "priority=10,arp,actions=FLOOD")
    switch.ofctl("add-flow", "priority=10,in_port=1,icmp,actions=output:2")
    switch.ofctl("add-flow", "priority=10,in_port=2,icmp,actions=output:1")
    assert switch.bed.ping("h1", "h2", number=5).ok
    found = {line.split("priority=")[1].split(" ")[0]: counts(line) for line in switch.flows()}
    echo = 14 + 20 + 8 + 56
    assert found["10,icmp,in_port=1"] == found["10,icmp,in_port=2"] == (5, 5 * echo)
    arps = found["10,arp"][0]
    assert arps >= 2
    after = ports(switch)
    difference = {number: [a - b for a, b in zip(after[number], before[number], strict=True)] for number in after}
    received = sum(difference[number][0] for number in difference)
    assert difference[1][2] + difference[2][2] == 10 + arps, "each frame left at the other port"
    assert difference[3][2] == arps, "and a flooded one at the third, too"
    now = lookups(switch)
    assert now[0] - tables[0] == received, "every frame that came in was looked up"
    assert now[1] - tables[1] == 10 + arps, "those that matched are those that the flow entries counted"
    assert received >= 10 + arps


def ports(switch: RunningSwitch) -> dict[int, list[int]]:
    """rx packets, rx bytes, tx packets, tx bytes."""
    text = switch.ofctl("dump-ports")
    assert "reply (OF1.3)" in text
    found = re.findall(r"port +(\d+): rx pkts=(\d+), bytes=(\d+), drop.*?tx pkts=(\d+), bytes=(\d+)", text, re.DOTALL)
    assert len(found) == 3
    return {int(number): [int(value) for value in values] for number, *values in found}


def lookups(switch: RunningSwitch) -> tuple[int, int]:
    """Lookups and matches in table 0."""
    found = re.search(r"table 0:\s+active=\d+, lookup=(\d+), matched=(\d+)", switch.ofctl("dump-tables"))
    assert found
    return int(found[1]), int(found[2])


def counts(line: str) -> tuple[int, int]:
    found = re.search(r"n_packets=(\d+), n_bytes=(\d+)", line)
    assert found
    return int(found[1]), int(found[2])


def test_one_port_of_dump_ports(switch: RunningSwitch) -> None:
    text = switch.ofctl("dump-ports", "2")
    assert "1 ports" in text
    assert "port  2:" in text
    assert "duration=" in text


def test_tables_and_aggregate(switch: RunningSwitch) -> None:
    switch.ofctl("add-flow", "table=253,priority=1,actions=drop")
    switch.ofctl("add-flow", "table=0,priority=1,actions=drop")
    assert re.search(r"table 253:\s+active=1, lookup=0, matched=0", switch.ofctl("dump-tables"))
    assert "flow_count=2" in switch.ofctl("dump-aggregate")
    assert "flow_count=1" in switch.ofctl("dump-aggregate", "table=253")


def test_flows_are_modified_and_deleted_strictly_and_loosely(switch: RunningSwitch) -> None:
    switch.ofctl("add-flow", "priority=10,in_port=1,actions=output:2")
    switch.ofctl("add-flow", "priority=10,in_port=2,actions=output:1")
    switch.ofctl("add-flow", "priority=20,in_port=2,ip,actions=output:1")
    assert switch.bed.ping("h1", "h2").ok

    switch.ofctl("mod-flows", "in_port=2,actions=drop")
    assert not switch.bed.ping("h1", "h2", number=1, wait=0.3).ok, "the megaflows of the changed entries are gone"
    assert [line.split("priority=")[1] for line in switch.flows("in_port=2")] == [
        "20,ip,in_port=2 actions=drop",
        "10,in_port=2 actions=drop",
    ]

    switch.ofctl("mod-flows", "in_port=2,actions=output:1")
    assert switch.bed.ping("h1", "h2").ok

    switch.ofctl("--strict del-flows", "priority=20,in_port=2,ip")
    assert len(switch.flows()) == 2
    switch.ofctl("del-flows", "out_port=1")
    assert [line.split("priority=")[1] for line in switch.flows()] == ["10,in_port=1 actions=output:2"]
    assert not switch.bed.ping("h1", "h2", number=1, wait=0.3).ok


def test_rewriting_flows_rewrite(switch: RunningSwitch) -> None:
    """h1 reaches 10.0.0.99, which is h2 behind the switch: addresses rewritten both ways, checksums with them."""
    other = switch.bed["h2"]
    switch.bed.run(["ip", "neigh", "replace", "10.0.0.99", "lladdr", "02:00:00:00:00:99", "dev", "eth0"], host="h1")
    switch.bed.run(["ip", "neigh", "replace", "10.0.0.1", "lladdr", switch.bed["h1"].mac, "dev", "eth0"], host="h2")
    switch.ofctl(
        "add-flow",
        f"priority=5,ip,nw_dst=10.0.0.99,actions=set_field:{other.mac}->eth_dst,set_field:{other.address4}->ip_dst,dec_ttl,output:2",
    )
    switch.ofctl(
        "add-flow",
        "priority=5,ip,nw_src=10.0.0.2,actions=set_field:02:00:00:00:00:99->eth_src,set_field:10.0.0.99->ip_src,output:1",
    )
    for _ in range(3):
        done = switch.bed.run(["ping", "-n", "-c", "1", "-W", "5", "10.0.0.99"], host="h1")
        assert "ttl=64" in done.stdout, "the answer's is as it was"


def test_what_cannot_be_is_refused_with_the_specifications_error(switch: RunningSwitch) -> None:
    assert "OFPBAC_BAD_OUT_GROUP" in switch.ofctl("add-flow", "in_port=1,actions=group:77", fails=True)
    assert "OFPMMFC_UNKNOWN_METER" in switch.ofctl("add-flow", "in_port=1,actions=meter:77,output:2", fails=True)
    assert switch.flows() == []


def test_a_port_goes_down_and_up(switch: RunningSwitch) -> None:
    switch.ofctl("add-flow", "actions=FLOOD")
    assert switch.bed.ping("h1", "h2").ok
    switch.ofctl("mod-port", "2", "down")
    assert "PORT_DOWN" in switch.ofctl("show")
    assert not switch.bed.ping("h1", "h2", number=1, wait=0.3).ok
    switch.ofctl("mod-port", "2", "up")
    assert "PORT_DOWN" not in switch.ofctl("show")
    until(lambda: switch.bed.ping("h1", "h2", number=1, wait=0.5).ok, "the link is up")


def test_many_flows_come_back_over_several_messages(switch: RunningSwitch, tmp_path: Path) -> None:
    number = 3000
    file = tmp_path / "flows.txt"
    file.write_text(
        "".join(f"priority={n},in_port=1,ipv6,ipv6_dst=fd00::{n:x},tcp,tp_dst={n},actions=output:2\n" for n in range(1, number + 1))
    )
    switch.ofctl("add-flows", str(file))
    assert len(set(switch.flows())) == number
    assert switch.control.request("show")["flows"] == number


def test_the_control_socket_tells_the_same(switch: RunningSwitch) -> None:
    switch.ofctl("add-flow", "priority=10,in_port=1,actions=output:2")
    (flow,) = switch.control.request("flows")["flows"]
    assert (flow["table_id"], flow["priority"], flow["match_text"]) == (0, 10, "in_port=1")
    assert "output:2" in flow["instructions"]
