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


def test_udp() -> None:
    frame = bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(DATA))
    segments = segment(frame, 1000)
    assert [again(part) for part in segments] == segments
    assert b"".join(bytes(Ether(part)[UDP].payload) for part in segments) == DATA


def test_what_needs_none() -> None:
    short = bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2) / Raw(b"abc"))
    assert segment(short, 1448) == [short]
    assert segment(short, 0) == [short]
    other = bytes(ETH / Raw(DATA))
    assert segment(other, 1448) == [other]
