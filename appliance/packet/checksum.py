"""Checksums: the ones-complement sum of IP, TCP, UDP and ICMP (RFC 1071, 1624), and SCTP's CRC32c (RFC 9260, appendix A).

Invariant: a change to a packet changes its checksums by the same amount, so that a wrong one stays wrong; nothing but
``complete`` computes one anew.

A sum is folded into 1 to 0xffff: ones-complement zero is written 0xffff. So a checksum that was updated, its complement, is never
0xffff (UDP writes its 0 so), whatever it was before and even if nothing has changed. This is what the kernel's helpers do.

A *partial* checksum is what Linux leaves in TCP and UDP of a local stack's packets (CHECKSUM_PARTIAL): the folded sum of the
pseudo-header alone, not complemented; the device is to add the rest. In SCTP it leaves 0 for the device to fill in.
"""

from __future__ import annotations

from struct import Struct

from appliance.model.fields import (
    BY_NAME,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_PROTO_TCP,
    IP_PROTO_UDP,
    Fragment,
    Layer,
)
from appliance.packet.parse import (
    ETHERNET_BYTES,
    IPV4_BYTES,
    IPV6_BYTES,
    MPLS_TYPES,
    SCTP_BYTES,
    TAG_TYPES,
    TCP_BYTES,
    UDP_BYTES,
    ParsedPacket,
)

TCP_CHECKSUM = 16
UDP_CHECKSUM = 6
SCTP_CHECKSUM = 8
"""Offsets in the layer-4 header."""

_CHECKSUMS = {IP_PROTO_TCP: TCP_CHECKSUM, IP_PROTO_UDP: UDP_CHECKSUM}
_MAY_CARRY_IP = frozenset({*TAG_TYPES, *MPLS_TYPES})
"""Behind more than Ethernet's header."""
_UNSUMMED = frozenset({IP_PROTO_ICMP, IP_PROTO_ICMPV6})
"""Nobody leaves their checksum to a device."""
_IPV4_HEADER = Struct("!HBxH5xBxxQ")
"""Ethertype, version and length, total length, protocol, both addresses as one number."""
_ETHERTYPE_AT = 12
_CRC32C = 0x82F63B78
"""The polynomial, lowest power first: bit 31 is x^0."""
_ALL_ONES = 0xFFFFFFFF
_LONGEST_SAID = 0xFFFF
"""Bytes, in 16 bits: IPv4's header counted, IPv6's not."""

_IPV4 = Layer.IPV4.value
_IPV6 = Layer.IPV6.value
_TCP = Layer.TCP.value
_UDP = Layer.UDP.value
_SCTP = Layer.SCTP.value
_IP_SRC = BY_NAME["ipv6_src"]
_IP_DST = BY_NAME["ipv6_dst"]


def fold(total: int) -> int:
    """Any integer as a ones-complement sum of 16 bits, 1 to 0xffff. A number of several 16-bit words counts as their sum."""
    return total % 0xFFFF or 0xFFFF


def ones_complement_sum(data: bytes | bytearray | memoryview) -> int:
    """The folded sum of ``data``, padded with a zero byte to whole words."""
    total = int.from_bytes(data, "big")
    return fold(total << 8 if len(data) & 1 else total)


def update(checksum: int, old: int, new: int) -> int:
    """The checksum after the covered words ``old`` have become ``new`` (RFC 1624, equation 3). Each may be many words long."""
    return fold((checksum ^ 0xFFFF) + new - old) ^ 0xFFFF


def update_partial(checksum: int, old: int, new: int) -> int:
    """A partial checksum after words of the pseudo-header have changed: the sum itself, not complemented."""
    return fold(checksum + new - old)


def l4_length(frame: bytes | bytearray, parsed: ParsedPacket) -> int:
    """Bytes from the layer-4 header on, as the IP header says: the frame may have fewer, or more (padding). May be negative.

    Linux's BIG TCP frames are longer than the IP header can say, which says 0 then: all the frame is theirs. ``parsed`` must have a
    layer-4 header.
    """
    l3, l4 = parsed.l3_offset, parsed.l4_offset
    if parsed.layers & _IPV4:
        said, counted = int.from_bytes(frame[l3 + 2 : l3 + 4], "big"), 0
    else:
        said, counted = int.from_bytes(frame[l3 + 4 : l3 + 6], "big"), IPV6_BYTES
    if not said and len(frame) - l3 - counted > _LONGEST_SAID and parsed.layers & _TCP:
        return len(frame) - l4
    return said + counted - (l4 - l3)


def is_partial(frame: bytes | bytearray, parsed: ParsedPacket) -> bool:
    """Whether TCP's or UDP's checksum is only the pseudo-header's sum. One packet in 65,536 looks so by chance.

    The packet must be whole: not a fragment, and as long as its IP header says. (A segmentation-offload frame is.)
    """
    if parsed.layers & _TCP:
        length, at = _whole_l4(frame, parsed, TCP_BYTES), parsed.l4_offset + TCP_CHECKSUM
    elif parsed.layers & _UDP:
        length, at = _whole_l4(frame, parsed, UDP_BYTES), parsed.l4_offset + UDP_CHECKSUM
    else:
        return False
    return length > 0 and int.from_bytes(frame[at : at + 2], "big") == _pseudo_header_sum(parsed, length)


def may_be_partial(frame: bytes) -> bool:
    """Whether ``mpls.finished`` might change it: a quick look at common packets, so that most need not be parsed for that."""
    octets = len(frame)
    if octets < ETHERNET_BYTES + IPV4_BYTES:
        return False
    if octets > _LONGEST_SAID:
        return True
    ethertype, header, length, protocol, addresses = _IPV4_HEADER.unpack_from(frame, _ETHERTYPE_AT)
    if ethertype == ETH_TYPE_IPV4:
        header = (header & 0xF) * 4
    elif ethertype == ETH_TYPE_IPV6 and octets >= ETHERNET_BYTES + IPV6_BYTES:
        header, length, protocol = IPV6_BYTES, (frame[18] << 8 | frame[19]) + IPV6_BYTES, frame[20]
        addresses = int.from_bytes(frame[22:54], "big")
    else:
        return ethertype in _MAY_CARRY_IP
    at = _CHECKSUMS.get(protocol)
    if at is None:
        return protocol not in _UNSUMMED
    at += ETHERNET_BYTES + header
    if at + 2 > octets:
        return True
    # The sum of the pseudo-header, folded, is what is found.
    return not (addresses + protocol + length - header - (frame[at] << 8 | frame[at + 1])) % 0xFFFF


def complete(frame: bytes, parsed: ParsedPacket) -> bytes:
    """The frame with a partial TCP or UDP checksum, or an SCTP one of 0, finished; any other as it is. ``parsed`` is of this frame.

    Finishing a checksum that was right already gives the same one, so a packet that only looks partial is not harmed.
    """
    l4 = parsed.l4_offset
    if is_partial(frame, parsed):
        at = l4 + (TCP_CHECKSUM if parsed.layers & _TCP else UDP_CHECKSUM)
        # The field holds the pseudo-header's sum, so that the sum over the packet is the sum over both.
        checksum = ones_complement_sum(frame[l4 : l4 + l4_length(frame, parsed)]) ^ 0xFFFF
        if checksum == 0 and parsed.layers & _UDP:
            checksum = 0xFFFF
        return frame[:at] + checksum.to_bytes(2, "big") + frame[at + 2 :]
    if parsed.layers & _SCTP:
        at = l4 + SCTP_CHECKSUM
        length = _whole_l4(frame, parsed, SCTP_BYTES)
        if length and frame[at : at + 4] == bytes(4):
            crc = _crc32c(frame[l4 : l4 + length], _ALL_ONES) ^ _ALL_ONES
            return frame[:at] + crc.to_bytes(4, "little") + frame[at + 4 :]
    return frame


def _whole_l4(frame: bytes | bytearray, parsed: ParsedPacket, header: int) -> int:
    """The layer-4 length if all of it lies in the frame and its IP header leaves room for ``header`` bytes; else 0."""
    length = l4_length(frame, parsed)
    if length < header or parsed.l4_offset + length > len(frame) or IP_FRAG.get(parsed.key) != Fragment.NONE.value:
        return 0
    return length


def _pseudo_header_sum(parsed: ParsedPacket, length: int) -> int:
    """The folded sum of addresses, protocol and length (RFC 9293, 3.1; RFC 8200, 8.1), from the flow key."""
    key = parsed.key
    return fold(_IP_SRC.get(key) + _IP_DST.get(key) + IP_PROTO.get(key) + length)


def update_sctp(checksum: int, delta: bytes, following: int) -> int:
    """SCTP's checksum after a change of ``delta`` (old XOR new) with ``following`` more bytes of the SCTP packet behind it.

    CRC32c is linear: the CRC with initial value 0 of the delta and as many zero bytes goes in by XOR. ``checksum`` and the result
    are the CRC's value; in the packet it is little-endian (RFC 9260, appendix A).
    """
    return checksum ^ _multiply(_crc32c(delta, 0), _power(following))


def _crc32c(data: bytes | bytearray, crc: int) -> int:
    """The CRC's register after ``data``, from the register ``crc``; not complemented."""
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_CRC32C if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials modulo CRC32c's."""
    product = 0
    bit = 1 << 31
    while bit:
        if a & bit:
            product ^= b
        b = b >> 1 ^ (_CRC32C if b & 1 else 0)
        bit >>= 1
    return product


def _power(count: int) -> int:
    """x^(8 * count) modulo CRC32c's polynomial: multiplying by it is what ``count`` zero bytes do to a CRC."""
    power = 1 << 31
    square = 1 << 23  # x^8
    while count:
        if count & 1:
            power = _multiply(power, square)
        square = _multiply(square, square)
        count >>= 1
    return power
