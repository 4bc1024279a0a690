"""Meters with real traffic: rates from 100 packets/s to 1 Gb/s, remarks of DSCP, and one bucket for all tiers.

What may pass is reckoned from the times at which packets were sent, so a slow machine makes no difference. What passed is counted
by the receiver's kernel, not by the switch.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from support import waiting
from support.running_switch import RunningSwitch, running_switch

from appliance.lab.testbed import Testbed
from appliance.packet.meter import remarked_dscp

pytestmark = pytest.mark.root

UDP_SEGMENT = 103
PORT = 9
HEADERS = 42
SECONDS = 1.5


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    with Testbed.of(2) as bed:
        for host, other in (("h1", 2), ("h2", 1)):
            for family, address in ((4, f"10.0.0.{other}"), (6, f"fd00::{other}")):
                mac = f"02:00:00:00:00:{other:02x}"
                command = ["ip", f"-{family}", "neigh", "replace", address, "lladdr", mac, "dev", bed[host].interface]
                assert bed.run(command, host=host).returncode == 0
        with running_switch(bed, tmp_path_factory.mktemp("switch")) as running:
            yield running


@pytest.fixture(autouse=True)
def clean(switch: RunningSwitch) -> None:
    switch.ofctl("del-flows")
    switch.ofctl("del-meters")


def meter(switch: RunningSwitch, bands: str, *flows: str) -> None:
    """Meter 1, and flow entries; by default one that sends all of port 1 through it to port 2."""
    switch.ofctl("add-meter", f"meter=1,{bands}")
    switch.add_flows(*(flows or ("in_port=1,actions=meter:1,output:2",)), "in_port=2,actions=output:1")


def udp(switch: RunningSwitch, host: str, family: int = 4) -> socket.socket:
    """Bound to PORT at h2 so that no ICMP error comes back; connected to it at h1."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        address = (switch.bed["h2"].address(family), PORT)
        if host == "h2":
            made.bind(address)
        else:
            made.connect(address)
        return made

    return switch.bed.inside(host, make)


def arrived(switch: RunningSwitch) -> tuple[int, int]:
    """Packets and bytes that h2's interface has received, by its kernel's counters."""
    told = switch.bed.run(["ip", "-json", "-s", "link", "show", "dev", switch.bed["h2"].interface], host="h2")
    rx = json.loads(told.stdout)[0]["stats64"]["rx"]
    return rx["packets"], rx["bytes"]


def offer(send: Callable[[], object], each: float, rate: float) -> float:
    """Offer three times a meter's rate, ``each`` at a time, until clearly more was offered than may pass.

    Returns what may: what a bucket lets through that holds a second of the rate, and is full at the beginning.
    """
    start = before = time.monotonic()
    sent = allowed = 0.0
    tokens = rate
    while (elapsed := (now := time.monotonic()) - start) < SECONDS or sent < 1.2 * allowed:
        assert elapsed < waiting.SECONDS, "too little was offered to tell"
        if sent > elapsed * 3 * rate:
            time.sleep(0.0005)
            continue
        tokens, before = min(rate, tokens + rate * (now - before)), now
        if tokens >= each:
            tokens, allowed = tokens - each, allowed + each
        send()
        sent += each
    return allowed


def warm(switch: RunningSwitch, source: socket.socket) -> None:
    """One packet makes the megaflow; the bucket is as good as full again afterwards."""
    source.send(b"")
    waiting.until(
        lambda: any("in_port=1" in item["match_text"] for item in switch.control.request("megaflows")["megaflows"]), "the megaflow"
    )


def within(passed: float, allowed: float, granule: float) -> None:
    """``granule`` is what comes in one piece."""
    print(f"passed {passed:.0f} of {allowed:.0f} allowed: {passed / allowed - 1:+.2%}")
    assert 0.95 * allowed - 2 * granule <= passed <= 1.03 * allowed + 2 * granule


@pytest.mark.parametrize("rate", [100, 1_000, 10_000])
def test_packets_per_second(switch: RunningSwitch, rate: int) -> None:
    meter(switch, f"pktps,burst,stats,band=type=drop,rate={rate},burst_size={rate}")
    with udp(switch, "h2"), udp(switch, "h1") as source:
        warm(switch, source)
        before, _ = arrived(switch)
        allowed = offer(lambda: source.send(bytes(100)), 1, rate)
        after, _ = arrived(switch)
    within(after - before, allowed, 1)


@pytest.mark.parametrize("rate", [1_000, 100_000, 1_000_000], ids=["1 Mb/s", "100 Mb/s", "1 Gb/s"])
def test_kilobits_per_second(switch: RunningSwitch, rate: int) -> None:
    """The faster ones with segmentation offload: one packet to the switch is many on a wire, and its bytes count."""
    segments = {1_000: 1, 100_000: 10, 1_000_000: 44}[rate]
    meter(switch, f"kbps,burst,stats,band=type=drop,rate={rate},burst_size={rate}")
    size = 1400 * segments if segments > 1 else 1000
    kilobits = (size + HEADERS) * 8 / 1000
    with udp(switch, "h2"), udp(switch, "h1") as source:
        if segments > 1:
            source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1400)
        warm(switch, source)
        _, before = arrived(switch)
        allowed = offer(lambda: source.send(bytes(size)), kilobits, rate)
        _, after = arrived(switch)
    within((after - before) * 8 / 1000, allowed, kilobits)


@pytest.mark.parametrize("family", [4, 6])
def test_dscp_remark(switch: RunningSwitch, family: int) -> None:
    """What exceeds the rate arrives with a higher drop precedence, if its class has one; checksums are right, or it would not."""
    meter(switch, "pktps,burst,stats,band=type=dscp_remark,rate=1,burst_size=1,prec_level=1")
    each = 8
    level, receive, mark = (
        (socket.IPPROTO_IP, socket.IP_RECVTOS, socket.IP_TOS)
        if family == 4
        else (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, socket.IPV6_TCLASS)
    )
    start = time.monotonic()
    unmarked = 0
    with udp(switch, "h2", family) as sink, udp(switch, "h1", family) as source:
        sink.setsockopt(level, receive, 1)
        sink.settimeout(waiting.SECONDS)
        for dscp in (0, 8, 10, 12, 14, 18, 26, 34, 38, 46):
            source.setsockopt(level, mark, dscp << 2)
            for _ in range(each):
                source.send(bytes([dscp]))
            seen: Counter[int] = Counter()
            for _ in range(each):
                data, notes, _, _ = sink.recvmsg(1, 64)
                assert data == bytes([dscp])
                ((_, _, tos),) = notes
                assert len(tos) in (1, 4)
                seen[(tos[0] if len(tos) == 1 else struct.unpack("=I", tos)[0]) >> 2] += 1
            expected = remarked_dscp(dscp, 1)
            assert set(seen) <= {dscp, expected}, seen
            if expected != dscp:
                assert seen[expected], seen
                unmarked += seen[dscp]
    assert unmarked <= 1 + 1 + time.monotonic() - start


def counted(switch: RunningSwitch, number: int = 1) -> tuple[int, int]:
    """Packets that came to the meter, and that its band had."""
    told = switch.ofctl("meter-stats", f"meter={number}")
    found = re.search(r"packet_in_count:(\d+).*0: packet_count:(\d+)", told, re.DOTALL)
    assert found, told
    return int(found[1]), int(found[2])


def test_new_flows_take_from_the_same_bucket(switch: RunningSwitch) -> None:
    """Each flow's first packets are the slow path's, the others the fast path's: together they get one burst and the rate."""
    switch.ofctl("add-meter", "meter=1,pktps,burst,stats,band=type=drop,rate=5,burst_size=60")
    switch.add_flows("in_port=1,actions=meter:1,goto_table:1", "in_port=2,actions=output:1")
    switch.add_flows(*(f"table=1,udp,udp_src={5000 + number},actions=output:2" for number in range(20)))
    slow, start = switch.packets()["slow_path"], time.monotonic()
    packets, _ = arrived(switch)
    with udp(switch, "h2"):
        for number in range(20):
            source = switch.bed.inside("h1", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with source:
                source.bind(("", 5000 + number))
                for _ in range(10):
                    source.sendto(bytes(20), (switch.bed["h2"].address4, PORT))
                    time.sleep(0.002)
        waiting.until(lambda: counted(switch)[0] >= 200, "all packets at the meter")
    came, dropped = counted(switch)
    waiting.until(lambda: arrived(switch)[0] - packets >= came - dropped, "what the meter let through")
    passed, elapsed = arrived(switch)[0] - packets, time.monotonic() - start
    assert switch.packets()["slow_path"] - slow >= 20
    assert 60 <= passed <= 60 + 5 * elapsed + 3
    assert came - dropped == passed
    # What the meter dropped came to table 0 and not to table 1.
    (first,) = switch.flows("table=0,in_port=1")
    assert f"n_packets={came}," in first
    behind = [int(found[1]) for flow in switch.flows("table=1") if (found := re.search(r"n_packets=(\d+)", flow))]
    assert sum(behind) == passed
