"""Frames with right checksums, put together and summed up plainly: what tests compare against. Nothing of appliance.packet is used.

``from vectors.frames import …`` (tests/conftest.py puts tests/ on the path).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import pairwise

MAC_A = bytes.fromhex("020000000001")
MAC_B = bytes.fromhex("020000000002")
IPV4_A = bytes((192, 0, 2, 1))
IPV4_B = bytes((198, 51, 100, 2))
IPV6_A = bytes.fromhex("20010db8000000000000000000000001")
IPV6_B = bytes.fromhex("20010db80000000000000000000000ff")

CHECKSUM_AT = {6: 16, 17: 6, 132: 8, 1: 2, 58: 2}
"""IP protocol: where its header has its checksum."""


def plain_sum(data: bytes) -> int:
    """The ones-complement sum of RFC 1071, word by word."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack(">H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def plain_crc32c(data: bytes) -> int:
    """CRC32c, bit by bit (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Sample:
    """An IP packet whose structure is known because it was built so. Offsets count from the frame's start."""

    frame: bytes
    version: int
    l3: int
    l4: int
    proto: int
    """Number of the layer-4 header at ``l4``."""
    pseudo_proto: int | None = None
    """The number in the pseudo-header, if it is another one."""
    final_dst: bytes | None = None
    """The destination in the pseudo-header, if it is not the one in the IP header (a routing header)."""

    def payload(self) -> bytes:
        """The layer-4 packet, as long as the IP header says."""
        at = self.l3 + (2 if self.version == 4 else 4)
        end = self.l3 + int.from_bytes(self.frame[at : at + 2], "big") + (0 if self.version == 4 else 40)
        return self.frame[self.l4 : end]

    def pseudo_header(self) -> bytes:
        at, size = (self.l3 + 12, 4) if self.version == 4 else (self.l3 + 8, 16)
        src, dst = self.frame[at : at + size], self.frame[at + size : at + 2 * size]
        proto = self.proto if self.pseudo_proto is None else self.pseudo_proto
        return src + (self.final_dst or dst) + struct.pack(">II", len(self.payload()), proto)

    def finished(self, *, l4: bool = True) -> Sample:
        """The same with all checksums computed anew from nothing; without ``l4`` that of the IPv4 header alone."""
        frame = bytearray(self.frame)
        if self.version == 4:
            header_end = self.l3 + (frame[self.l3] & 15) * 4
            frame[self.l3 + 10 : self.l3 + 12] = bytes(2)
            checksum = plain_sum(bytes(frame[self.l3 : header_end])) ^ 0xFFFF
            frame[self.l3 + 10 : self.l3 + 12] = checksum.to_bytes(2, "big")
        if l4 and self.proto in CHECKSUM_AT:
            at = self.l4 + CHECKSUM_AT[self.proto]
            size = 4 if self.proto == 132 else 2
            frame[at : at + size] = bytes(size)
            cleared = replace(self, frame=bytes(frame))
            frame[at : at + size] = cleared._l4_checksum()
        return replace(self, frame=bytes(frame))

    def partial(self) -> Sample:
        """The same as a local stack leaves TCP and UDP: the pseudo-header's sum in place of the checksum."""
        at = self.l4 + CHECKSUM_AT[self.proto]
        total = plain_sum(self.pseudo_header()).to_bytes(2, "big")
        return replace(self, frame=self.frame[:at] + total + self.frame[at + 2 :])

    def _l4_checksum(self) -> bytes:
        if self.proto == 132:
            return plain_crc32c(self.payload()).to_bytes(4, "little")
        pseudo = b"" if self.proto == 1 else self.pseudo_header()
        checksum = plain_sum(pseudo + self.payload()) ^ 0xFFFF
        if checksum in (0, 0xFFFF):
            # Both are right. UDP must have 0xffff; an ICMP message of zeros alone, computed anew, gives 0xffff, but updated 0.
            checksum = 0xFFFF if self.proto == 17 else 0
        return checksum.to_bytes(2, "big")


def ethernet(
    eth_type: int, payload: bytes, tags: tuple[tuple[int, int], ...] = (), dst: bytes = MAC_B, src: bytes = MAC_A
) -> bytes:
    """``tags``: pairs of type and TCI, outermost first."""
    return dst + src + b"".join(struct.pack(">HH", *tag) for tag in tags) + struct.pack(">H", eth_type) + payload


def ipv4(
    proto: int,
    payload: bytes,
    *,
    src: bytes = IPV4_A,
    dst: bytes = IPV4_B,
    tos: int = 0,
    ttl: int = 64,
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """Header and payload; the header's checksum is 0. ``fragment`` is the word of flags and offset."""
    header = 20 + len(options)
    head = struct.pack(">BBHHHBBH", 0x40 | header // 4, tos, header + len(payload), 0x1234, fragment, ttl, proto, 0)
    return head + src + dst + options + payload


def ipv6(
    next_header: int,
    payload: bytes,
    *,
    src: bytes = IPV6_A,
    dst: bytes = IPV6_B,
    tclass: int = 0,
    flabel: int = 0,
    hop_limit: int = 64,
) -> bytes:
    return struct.pack(">IHBB", 6 << 28 | tclass << 20 | flabel, len(payload), next_header, hop_limit) + src + dst + payload


def tcp(src: int = 1000, dst: int = 2000, *, flags: int = 0x002, payload: bytes = b"", checksum: int = 0) -> bytes:
    return struct.pack(">HHIIHHHH", src, dst, 1, 2, 0x5000 | flags, 8192, checksum, 0) + payload


def udp(src: int = 1000, dst: int = 2000, *, payload: bytes = b"", checksum: int = 0) -> bytes:
    return struct.pack(">HHHH", src, dst, 8 + len(payload), checksum) + payload


def sctp(src: int = 1000, dst: int = 2000, *, payload: bytes = b"", checksum: int = 0) -> bytes:
    return struct.pack(">HHII", src, dst, 0xCAFE, checksum) + payload


def icmp(kind: int, code: int, *, payload: bytes = bytes(4), checksum: int = 0) -> bytes:
    return struct.pack(">BBH", kind, code, checksum) + payload


def nd(kind: int, target: bytes, *options: bytes, code: int = 0) -> bytes:
    return icmp(kind, code, payload=bytes(4) + target + b"".join(options))


def lladdr_option(kind: int, address: bytes, length: int = 1) -> bytes:
    return bytes((kind, length)) + address + bytes(max(0, length - 1) * 8)


def arp(op: int = 1, sha: bytes = MAC_A, spa: bytes = IPV4_A, tha: bytes = bytes(6), tpa: bytes = IPV4_B) -> bytes:
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, op) + sha + spa + tha + tpa


def extension(number: int, next_header: int, units: int = 0, *, fragment: int = 0) -> bytes:
    """One IPv6 extension header; ``units`` is its length byte, ``fragment`` the word of offset and M of a FRAG."""
    if number == 44:
        return struct.pack(">BBHI", next_header, 0, fragment, 0x55AA55AA)
    size = (units + 2) * 4 if number == 51 else (units + 1) * 8
    return bytes((next_header, units)) + bytes(size - 2)


def chain(numbers: tuple[int, ...], last: int, *, units: int = 0, fragment: int = 0) -> tuple[int, bytes]:
    """(first next header, extension headers) for ``numbers`` followed by ``last``."""
    whole = (*numbers, last)
    return whole[0], b"".join(extension(number, after, units, fragment=fragment) for number, after in pairwise(whole))
