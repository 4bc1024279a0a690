"""The rest of what ovs-ofctl has for OpenFlow 1.3: groups, meters, queues, ports, tables, packets, files of flows, and watching."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.running_switch import LISTEN_PORT, RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.lab.testbed import Testbed

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("ovs-ofctl") is None, reason="apt-get install openvswitch-common"),
]

CONFIG = """
ports:
  - {interface: sw-h1, number: 1}
  - {interface: sw-h2, number: 2, queues: [{id: 0, min_rate: 100M}, {id: 1, max_rate: 20M}]}
  - {interface: sw-h3, number: 3}
"""
QUEUE_RATE = 20_000_000
SO_RCVBUFFORCE = 33
"""SO_RCVBUF beyond net.core.rmem_max (socket(7))."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    folder = tmp_path_factory.mktemp("ofctl")
    config = folder / "switch.yaml"
    config.write_text(CONFIG)
    with Testbed.of(3) as bed:
        with running_switch(bed, folder, str(config), ports=()) as switch:
            yield switch
        assert switch.process.returncode == 0
        assert "htb" not in bed.run(["tc", "qdisc", "show", "dev", "sw-h2"]).stdout
    assert bed.leftovers() == []


@pytest.fixture
def switch(running: RunningSwitch) -> Iterator[RunningSwitch]:
    """Empty, with neighbours that know each other: h1 and h2, h1 and h3."""
    for command in ("del-flows", "del-groups", "del-meters"):
        running.ofctl(command)
    for one in running.bed.hosts:
        for other in running.bed.hosts:
            if one is not other:
                words = ["ip", "neigh", "replace", other.address4, "lladdr", other.mac, "dev", one.interface]
                assert running.bed.run(words, host=one.name).returncode == 0
    yield running
    assert running.control.request("show")["faults"] == 0, running.log


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and "reply" not in line]


# ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_groups_are_added_modified_described_and_deleted(switch: RunningSwitch) -> None:
    switch.ofctl("add-group", "group_id=1,type=select,bucket=weight=3,output:2,bucket=weight=5,output:3")
    switch.ofctl("add-group", "group_id=2,type=ff,bucket=watch_port:2,output:2,bucket=watch_port:3,output:3")
    switch.ofctl("add-group", "group_id=3,type=indirect,bucket=set_field:02:00:00:00:00:09->eth_dst,output:2")
    assert lines(switch.ofctl("dump-groups")) == [
        "group_id=1,type=select,bucket=weight:3,actions=output:2,bucket=weight:5,actions=output:3",
        "group_id=2,type=ff,bucket=watch_port:2,actions=output:2,bucket=watch_port:3,actions=output:3",
        "group_id=3,type=indirect,bucket=actions=set_field:02:00:00:00:00:09->eth_dst,output:2",
    ]
    assert "OFPGMFC_GROUP_EXISTS" in switch.ofctl("add-group", "group_id=1,type=all,bucket=output:2", fails=True)
    assert "OFPGMFC_UNKNOWN_GROUP" in switch.ofctl("mod-group", "group_id=9,type=all,bucket=output:2", fails=True)
    switch.ofctl("mod-group", "group_id=1,type=all,bucket=output:2,bucket=output:3")
    switch.ofctl("add-flow", "in_port=1,actions=group:1")
    assert "ref_count=1" in next(line for line in lines(switch.ofctl("dump-group-stats")) if line.startswith("group_id=1,"))
    switch.ofctl("del-groups", "group_id=1")
    assert switch.flows() == [], "flow entries go with their group"
    assert len(lines(switch.ofctl("dump-groups"))) == 2
    features = switch.ofctl("dump-group-features")
    assert "Types:  0xf" in features
    assert all(f"{kind} group:" in features for kind in ("all", "select", "indirect", "fast failover"))


def test_a_group_of_all_gives_everybody_a_copy_and_counts(switch: RunningSwitch) -> None:
    switch.ofctl("add-group", "group_id=1,type=all,bucket=output:2,bucket=output:3")
    switch.add_flows("in_port=1,icmp,actions=group:1", "in_port=2,icmp,actions=output:1")
    before = transmitted(switch)
    assert switch.bed.ping("h1", "h2", number=5).ok
    after = transmitted(switch)
    assert [after[port] - before[port] for port in (2, 3)] == [5, 5]
    assert re.search(
        r"group_id=1,.*packet_count=5,byte_count=490,bucket0:packet_count=5,byte_count=490,bucket1:packet_count=5,byte_count=490",
        switch.ofctl("dump-group-stats"),
    )


def test_a_failover_group_leaves_a_port_that_goes_down(switch: RunningSwitch) -> None:
    switch.ofctl("add-group", "group_id=7,type=ff,bucket=watch_port:3,output:3,bucket=watch_port:2,output:2")
    switch.add_flows("in_port=1,icmp,actions=group:7", "in_port=2,icmp,actions=output:1")
    assert not switch.bed.ping("h1", "h2", number=2, wait=0.3).received, "h3's port is alive, and gets them"
    assert switch.bed.run(["ip", "link", "set", "eth0", "down"], host="h3").returncode == 0
    try:
        # The kernel tells the switch that the link is lost; until then packets go there.
        until(lambda: "LINK_DOWN" in switch.ofctl("dump-ports-desc", "3"), "the port is down")
        assert switch.bed.ping("h1", "h2", number=3).ok
    finally:
        switch.bed.run(["ip", "link", "set", "eth0", "up"], host="h3")
    until(lambda: "state:      LIVE" in switch.ofctl("dump-ports-desc", "3"), "the port is up")
    assert not switch.bed.ping("h1", "h2", number=2, wait=0.3).received


def transmitted(switch: RunningSwitch) -> dict[int, int]:
    """Packets by port."""
    found = re.findall(r"port +(\d+): rx.*?tx pkts=(\d+)", switch.ofctl("dump-ports"), re.DOTALL)
    return {int(port): int(packets) for port, packets in found}


# ── meters ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_meters_are_added_modified_described_and_deleted(switch: RunningSwitch) -> None:
    switch.ofctl("add-meter", "meter=1,pktps,burst,stats,band=type=drop,rate=100,burst_size=20")
    switch.ofctl("add-meter", "meter=2,kbps,band=type=dscp_remark,rate=1000,prec_level=1")
    assert (
        re.sub(r"\s+", " ", switch.ofctl("dump-meters"))
        .strip()
        .endswith(
            "meter=1 pktps burst stats bands= type=drop rate=100 burst_size=20 "
            "meter=2 kbps bands= type=dscp_remark rate=1000 prec_level=1"
        )
    )
    assert "OFPMMFC_METER_EXISTS" in switch.ofctl("add-meter", "meter=1,kbps,band=type=drop,rate=1", fails=True)
    assert "OFPMMFC_UNKNOWN_METER" in switch.ofctl("mod-meter", "meter=9,kbps,band=type=drop,rate=1", fails=True)
    switch.ofctl("mod-meter", "meter=2,pktps,band=type=drop,rate=7")
    assert "type=drop rate=7" in switch.ofctl("dump-meters", "meter=2")
    switch.ofctl("del-meters", "meter=1")
    assert "meter=1" not in switch.ofctl("dump-meters")
    features = switch.ofctl("meter-features")
    assert "band_types: drop dscp_remark" in features
    assert "capabilities: kbps pktps burst stats" in features


def test_a_meter_drops_what_is_too_much_and_says_how_much(switch: RunningSwitch) -> None:
    switch.ofctl("add-meter", "meter=5,pktps,burst,stats,band=type=drop,rate=1,burst_size=4")
    switch.add_flows("in_port=1,icmp,actions=meter:5,output:2", "in_port=2,icmp,actions=output:1")
    start = time.monotonic()
    switch.bed.run(["ping", "-n", "-c", "10", "-i", "0.01", "-W", "1", switch.bed["h2"].address4], host="h1")
    until(lambda: "flow_count:1 packet_in_count:10 byte_in_count:980" in switch.ofctl("meter-stats", "meter=5"), "all at the meter")
    text = switch.ofctl("meter-stats", "meter=5")
    found = re.search(r"0: packet_count:(\d+) byte_count:(\d+)", text)
    assert found, text
    dropped = int(found[1])
    assert int(found[2]) == dropped * 98
    assert 4 <= 10 - dropped <= 4 + 1 + time.monotonic() - start
    until(lambda: f"n_packets={10 - dropped}," in switch.flows("in_port=2,icmp")[0], "an answer to each of the others")


# ── queues ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_queues_are_told_as_they_are_configured(switch: RunningSwitch) -> None:
    for port in ((), ("2",)):
        assert lines(switch.ofctl("queue-get-config", *port))[1:] == ["queue 0: min_rate:1.0%", "queue 1: max_rate:0.2%"]
    assert len(lines(switch.ofctl("queue-stats"))) == 2
    assert "OFPQOFC_BAD_QUEUE" in switch.ofctl("queue-stats", "2", "9")
    assert "OFPQOFC_BAD_PORT" in switch.ofctl("queue-stats", "99")


@pytest.mark.parametrize("slow_path", [False, True], ids=["fast path", "slow path"])
def test_a_queue_sends_no_faster_than_it_may(switch: RunningSwitch, slow_path: bool) -> None:
    """UDP that would have some 60 Mb/s (in the slow path 40), of which the queue lets 20 through."""
    if slow_path:  # that is where a meter behind another action is
        switch.ofctl("add-meter", "meter=1,pktps,band=type=drop,rate=1000000")
        switch.add_flows("in_port=1,udp,actions=dec_ttl,goto_table:1", "table=1,actions=meter:1,set_queue:1,output:2")
    else:
        switch.add_flows("in_port=1,udp,actions=set_queue:1,output:2")
    slow = switch.packets()["slow_path"]
    before = queue_packets(switch)
    frame_bytes = 1000
    rate = QUEUE_RATE / (8 * frame_bytes)
    interval = frame_bytes * 8 / (40_000_000 if slow_path else 60_000_000)
    bed = switch.bed
    sender = bed.inside("h1", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver = bed.inside("h2", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        receiver.bind(("", 5000))
        receiver.setblocking(False)
        began = time.monotonic()
        sent = got = 0
        while got < 2 * rate:
            elapsed = time.monotonic() - began
            assert elapsed < SECONDS, (sent, got)
            if sent * interval < elapsed:
                sender.sendto(bytes(frame_bytes - 42), (bed["h2"].address4, 5000))
                sent += 1
            with contextlib.suppress(BlockingIOError):
                got += bool(receiver.recv(2048))
    assert got < 1.15 * rate * elapsed
    assert queue_packets(switch) - before >= got
    assert (switch.packets()["slow_path"] - slow > got // 2) is slow_path


def queue_packets(switch: RunningSwitch) -> int:
    found = re.search(r"queue 1: bytes=\d+, pkts=(\d+)", switch.ofctl("queue-stats", "2", "1"))
    assert found
    return int(found[1])


# ── ports, tables, settings ────────────────────────────────────────────────────────────────────────────────────────────
def test_a_port_forwards_and_receives_as_it_is_told(switch: RunningSwitch) -> None:
    switch.add_flows("in_port=1,icmp,actions=output:2", "in_port=2,icmp,actions=output:1")
    assert switch.bed.ping("h1", "h2").ok
    for off, on, shown in (("no-forward", "forward", "NO_FWD"), ("no-receive", "receive", "NO_RECV")):
        switch.ofctl("mod-port", "2", off)
        assert shown in switch.ofctl("dump-ports-desc", "2")
        assert not switch.bed.ping("h1", "h2", number=1, wait=0.3).ok
        switch.ofctl("mod-port", "2", on)
        assert shown not in switch.ofctl("dump-ports-desc", "2")
        assert switch.bed.ping("h1", "h2").ok


def test_tables_tell_what_they_can(switch: RunningSwitch) -> None:
    text = switch.ofctl("dump-table-features")
    assert "instructions: meter apply_actions clear_actions write_actions write_metadata goto_table" in text
    assert "next tables: 1-253" in text
    assert 'table 253 ("table 253"):' in text


def test_fragments_are_dropped_when_that_is_asked(switch: RunningSwitch) -> None:
    switch.add_flows("in_port=1,icmp,actions=output:2", "in_port=2,icmp,actions=output:1")

    def arrives(seconds: float = 5.0) -> bool:
        big = ["ping", "-n", "-c", "1", "-W", str(seconds), "-s", "3000", switch.bed["h2"].address4]
        return switch.bed.run(big, host="h1").returncode == 0

    try:
        assert switch.ofctl("get-frags").strip() == "normal"
        assert arrives()
        switch.ofctl("set-frags", "drop")
        assert switch.ofctl("get-frags").strip() == "drop"
        assert not arrives(0.5)
        assert switch.bed.ping("h1", "h2").ok
        assert "OFPSCFC_BAD_FLAGS" in switch.ofctl("set-frags", "reassemble", fails=True)
    finally:
        switch.ofctl("set-frags", "normal")
    assert arrives()


# ── packets, files, watching ───────────────────────────────────────────────────────────────────────────────────────────
def test_a_packet_out_reaches_a_host(switch: RunningSwitch) -> None:
    bed = switch.bed

    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        opened.bind((bed["h3"].interface, 0))
        opened.settimeout(SECONDS)
        return opened

    frame = bytes.fromhex("02000000000302000000000188b5") + b"a packet of the test".ljust(46, b".")
    with bed.inside("h3", listen) as opened:
        switch.ofctl("packet-out", f"in_port=controller packet={frame.hex()} actions=output:3")
        assert opened.recv(2048) == frame


def test_flows_of_a_file_replace_and_are_compared(switch: RunningSwitch, tmp_path: Path) -> None:
    switch.add_flows("priority=9,in_port=3,actions=drop", "priority=2,in_port=2,actions=output:3")
    file = tmp_path / "flows.txt"
    file.write_text("priority=1,in_port=1,actions=output:2\npriority=2,in_port=2,actions=output:1\n")
    assert "-" in switch.ofctl("diff-flows", str(file), fails=True)
    switch.ofctl("replace-flows", str(file))
    assert [line.split("priority=")[1] for line in switch.flows()] == [
        "2,in_port=2 actions=output:1",
        "1,in_port=1 actions=output:2",
    ]
    assert switch.ofctl("diff-flows", str(file)) == ""


def test_probe_ping_and_benchmark(switch: RunningSwitch) -> None:
    switch.ofctl("probe")
    assert switch.ofctl("ping", "1000").count("1000 bytes from") == 10
    assert "Sending 10 packets * 108 bytes" in switch.ofctl("benchmark", "100", "10")


def test_a_monitor_sees_packet_ins_port_changes_and_removed_flows(switch: RunningSwitch, tmp_path: Path) -> None:
    log = tmp_path / "monitor.txt"
    switch.add_flows("in_port=1,icmp,actions=controller:40")
    with log.open("wb") as out:
        command = ["ovs-ofctl", "-O", "OpenFlow13", "monitor", f"tcp:127.0.0.1:{LISTEN_PORT}", "64"]
        watching = switch.bed.start(command, stdout=out, stderr=subprocess.STDOUT, env={"OVS_RUNDIR": str(tmp_path)})
        try:

            def packet_in() -> bool:
                switch.bed.ping("h1", "h2", number=1, wait=0.3)
                return "OFPT_PACKET_IN (OF1.3)" in (text := log.read_text()) and "(via action) data_len=40" in text

            until(packet_in, "the packet-in")
            switch.ofctl("mod-port", "3", "down")
            until(lambda: "MOD: 3(sw-h3)" in log.read_text(), "the port-status")
            switch.add_flows("priority=77,in_port=2,send_flow_rem,actions=drop")
            switch.ofctl("--strict del-flows", "priority=77,in_port=2")
            until(lambda: "priority=77,in_port=2 reason=delete" in log.read_text(), "the flow-removed")
        finally:
            switch.ofctl("mod-port", "3", "up")
            switch.bed.stop(watching)


def test_who_snoops_sees_both_sides(switch: RunningSwitch, tmp_path: Path) -> None:
    log = tmp_path / "snoop.txt"
    with log.open("wb") as out:
        command = ["ovs-ofctl", "-O", "OpenFlow13", "snoop", f"unix:{switch.folder}/switch.snoop"]
        snooping = switch.bed.start(command, stdout=out, stderr=subprocess.STDOUT, env={"OVS_RUNDIR": str(tmp_path)})
        try:
            until(lambda: switch.ofctl("show") and "OFPT_FEATURES_REPLY (OF1.3)" in log.read_text(), "the features")
            switch.add_flows("priority=7,in_port=1,actions=output:2")
            switch.ofctl("add-group", "group_id=1,type=all,bucket=group:9", fails=True)
            until(lambda: "OFPGMFC_INVALID_GROUP" in log.read_text() or "OFPBAC_BAD_OUT_GROUP" in log.read_text(), "the error")
        finally:
            switch.bed.stop(snooping)
    seen = log.read_text()
    assert "OFPT_FEATURES_REQUEST (OF1.3)" in seen
    assert "OFPT_FLOW_MOD (OF1.3)" in seen
    assert "priority=7,in_port=1 actions=output:2" in seen
    assert "OFPT_ERROR (OF1.3)" in seen


def test_one_who_snoops_and_does_not_read_holds_up_nobody(switch: RunningSwitch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(f"{switch.folder}/switch.snoop")
        for _ in range(20):
            assert "OFPST_DESC reply" in switch.ofctl("dump-desc")
            assert "Sending 1000 packets" in switch.ofctl("benchmark", "60000", "1000")
