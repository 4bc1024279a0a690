"""The whole switch while somebody sends packets made to explode its masks, and while a port floods it with new flows."""

from __future__ import annotations

import random
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.running_switch import RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.lab.testbed import Testbed
from appliance.switch.masks import MAX_MASKS

pytestmark = pytest.mark.root

EXPLODING = 3000
FLOODING = 5000
QUIET = 0x88B5


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    """Hosts 1 and 2 are connected; for what comes from host 3 there is a rule for each place that an address's first 1 may have."""
    with Testbed.of(3) as bed, running_switch(bed, tmp_path_factory.mktemp("switch")) as running:
        flows = ["priority=300,in_port=1,actions=output:2", "priority=300,in_port=2,actions=output:1"]
        for table, (field, then) in enumerate((("nw_src", "goto_table:1"), ("nw_dst", "drop"))):
            for place in range(1, 33):
                value, mask = (
                    socket.inet_ntoa(struct.pack(">I", number)) for number in (1 << 32 - place, (1 << 32) - (1 << 32 - place))
                )
                flows.append(f"table={table},priority={100 - place},in_port=3,ip,{field}={value}/{mask},actions={then}")
        path = Path(running.folder) / "flows"
        path.write_text("\n".join(flows) + "\n")
        running.ofctl("add-flows", str(path))
        yield running


def wire(switch: RunningSwitch, host: str, ethertype: int = 0) -> socket.socket:
    """To send, and to receive what has this ethertype."""

    def opened() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.bind((switch.bed[host].interface, ethertype))
        raw.settimeout(SECONDS)
        return raw

    made: socket.socket = switch.bed.inside(host, opened)
    return made


def address(rnd: random.Random) -> int:
    place = rnd.randrange(1, 33)
    return 1 << 32 - place | rnd.getrandbits(32 - place) if place < 32 else 1


def exploding(rnd: random.Random) -> bytes:
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 46, 0, 0, rnd.randrange(2, 256), 17, 0, address(rnd), address(rnd))
    return bytes.fromhex("020000000002") + rnd.randbytes(6) + b"\x08\x00" + ip + bytes(26)


def test_masks_stay_few_and_hosts_go_on_talking(switch: RunningSwitch) -> None:
    rnd = random.Random(1)
    with wire(switch, "h3") as raw:
        for part in range(3):
            for _ in range(EXPLODING // 3):
                raw.send(exploding(rnd))
            assert switch.bed.ping("h1", "h2").ok, f"after part {part}"
    shown = until(lambda: (show := switch.control.request("show"))["masks"] > MAX_MASKS // 2 and show, "masks")
    assert shown["masks"] <= MAX_MASKS + 2
    assert shown["faults"] == 0
    transfer = switch.bed.transfer("h1", "h2", 5_000_000, 4)
    assert transfer.ok, transfer


def test_a_port_that_floods_does_not_keep_others_from_the_slow_path(switch: RunningSwitch) -> None:
    """All that host 2 sends goes the slow way, because of a meter behind another action; host 3 sends more than the queue holds.

    The switch's process does nothing at all meanwhile.
    """
    switch.ofctl("add-meter", "meter=1,pktps,band=type=drop,rate=1000000")
    switch.add_flows(
        f"priority=400,in_port=2,dl_type={QUIET:#x},actions=push_vlan:0x8100,goto_table:9",
        "table=9,dl_vlan=0,actions=meter:1,pop_vlan,output:1",
    )
    before = switch.control.request("show")["drops"]
    rnd = random.Random(2)
    with wire(switch, "h3") as flood, wire(switch, "h2") as quiet, wire(switch, "h1", QUIET) as sink:
        sent = []
        switch.process.send_signal(signal.SIGSTOP)
        try:
            for number in range(FLOODING):
                flood.send(exploding(rnd))
                if number % 50 == 0:
                    sent.append(bytes.fromhex("020000000001020000000002") + struct.pack(">HI", QUIET, number) + bytes(46))
                    quiet.send(sent[-1])
        finally:
            switch.process.send_signal(signal.SIGCONT)
        assert [sink.recv(2048) for _ in sent] == sent
    shown = switch.control.request("megaflows", limit=1 << 16)["megaflows"]
    assert [item["tier"] for item in shown if "meter" in item["actions"]] == ["slow_path"]
    drops = switch.control.request("show")["drops"]
    assert drops.get("upcall_share", 0) - before.get("upcall_share", 0) > FLOODING // 4
    assert drops.get("upcall_full", 0) == before.get("upcall_full", 0)
