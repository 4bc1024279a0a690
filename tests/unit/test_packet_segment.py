"""Segmentation in software: payloads in order, checksums right, flags and numbers as a network card sets them."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from appliance.packet.segment import segment

ETH = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
DATA = bytes(n % 251 for n in range(5000))


def again(frame: bytes) -> bytes:
    """The frame with lengths and checksums computed by scapy."""
    packet = Ether(frame)
    for layer in (IP, IPv6, TCP, UDP):
        if packet.haslayer(layer):
            for name in ("len", "plen", "chksum"):
                if name in packet[layer].fields:
                    delattr(packet[layer], name)
    return bytes(packet)


@pytest.mark.parametrize("ip", [IP(src="10.0.0.1", dst="10.0.0.2", id=65535), IPv6(src="fd00::1", dst="fd00::2")], ids=["v4", "v6"])
@pytest.mark.parametrize("tag", [ETH, ETH / Dot1Q(vlan=5)], ids=["untagged", "tagged"])
def test_tcp(ip: Packet, tag: Packet) -> None:
    frame = bytes(tag / ip / TCP(sport=1, dport=2, seq=2**32 - 1000, flags="FPAC", options=[("NOP", None)] * 4) / Raw(DATA))
    segments = segment(frame, 1448)
    assert [again(part) for part in segments] == segments
    parsed = [Ether(part) for part in segments]
    assert b"".join(bytes(part[TCP].payload) for part in parsed) == DATA
    assert [part[TCP].seq for part in parsed] == [(2**32 - 1000 + 1448 * n) % 2**32 for n in range(4)]
    assert [str(part[TCP].flags) for part in parsed] == ["AC", "A", "A", "FPA"]
    if IP in parsed[0]:
        assert [part[IP].id for part in parsed] == [65535, 0, 1, 2]


def test_tcp_longer_than_its_header_can_say() -> None:
    """Linux's BIG TCP: the total length is 0."""
    data = DATA * 37
    frame = bytearray(bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2", len=0) / TCP(sport=1, dport=2, seq=1, flags="PA") / Raw(data)))
    segments = segment(bytes(frame), 1448)
    assert [again(part) for part in segments] == segments
    parsed = [Ether(part) for part in segments]
    assert b"".join(bytes(part[TCP].payload) for part in parsed) == data
    assert [part[IP].len for part in parsed] == [1488] * (len(data) // 1448) + [40 + len(data) % 1448]


def test_udp() -> None:
    frame = bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(DATA))
    segments = segment(frame, 1000)
    assert [again(part) for part in segments] == segments
    assert b"".join(bytes(Ether(part)[UDP].payload) for part in segments) == DATA


@pytest.mark.parametrize("tags", [(), (Dot1Q(vlan=5, prio=2),), (Dot1Q(vlan=5), Dot1Q(vlan=6))], ids=["untagged", "tagged", "QinQ"])
@pytest.mark.parametrize("ip", [IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")], ids=["v4", "v6"])
def test_behind_labels(ip: Packet, tags: tuple[Packet, ...]) -> None:
    """As if there were none; also where MPLS was pushed before tags, which lost their own type to it."""
    packet = ETH
    for tag in tags:
        packet = packet / tag
    frame = bytes(packet / ip / TCP(sport=1, dport=2) / Raw(DATA))
    labels = bytes.fromhex("8847 00001040 00002140")
    behind = [bytes(part)[:12] + labels + part[14:] for part in segment(frame, 1448)]
    assert segment(frame[:12] + labels + frame[14:], 1448) == behind
    assert segment(behind[-1], 1448) == behind[-1:]


def test_labels_before_what_is_no_ip() -> None:
    for carried in (b"", b"\x45", bytes(ETH / Raw(DATA)), b"\x45" + bytes(100), b"\x60" + bytes(20)):
        frame = bytes(ETH)[:12] + bytes.fromhex("8847 00001140") + carried
        assert segment(frame, 1448) == [frame]
    endless = bytes(ETH)[:12] + bytes.fromhex("8847 00001040") + bytes(40)
    assert segment(endless, 1448) == [endless]


def test_what_needs_none() -> None:
    short = bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2) / Raw(b"abc"))
    assert segment(short, 1448) == [short]
    assert segment(short, 0) == [short]
    other = bytes(ETH / Raw(DATA))
    assert segment(other, 1448) == [other]
