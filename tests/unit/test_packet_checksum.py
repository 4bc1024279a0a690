"""Sums against the plain ones, finishing partial checksums, and the CRC's known answer."""

from __future__ import annotations

import pytest
from vectors import frames
from vectors.frames import Sample

from appliance.packet import checksum
from appliance.packet.parse import ParsedPacket, parse

TAGS = ((), ((0x8100, 5),), ((0x88A8, 5), (0x8100, 6)))


def _sample(version: int, proto: int, tags: tuple[tuple[int, int], ...] = (), payload: bytes = b"abc") -> Sample:
    body = {6: frames.tcp, 17: frames.udp, 132: frames.sctp}[proto](payload=payload)
    l3 = 14 + 4 * len(tags)
    if version == 4:
        packet = frames.ipv4(proto, body, options=bytes(4))
        return Sample(frames.ethernet(0x0800, packet, tags), 4, l3, l3 + 24, proto).finished()
    first, headers = frames.chain((0, 60), proto)
    packet = frames.ipv6(first, headers + body)
    return Sample(frames.ethernet(0x86DD, packet, tags), 6, l3, l3 + 56, proto).finished()


def _complete(frame: bytes) -> bytes:
    return checksum.complete(frame, parse(frame, 1))


def test_sum_is_that_of_rfc_1071() -> None:
    # The example of RFC 1071, section 3.
    assert checksum.ones_complement_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert checksum.ones_complement_sum(b"\x01") == 0x0100
    assert checksum.ones_complement_sum(b"\xff\xff\xff\xff") == 0xFFFF


def test_update_is_that_of_rfc_1624() -> None:
    # The example of RFC 1624, section 4: equation 3 gives 0x0000 where the older ones give 0xffff.
    assert checksum.update(0xDD2F, 0x5555, 0x3285) == 0x0000


def test_crc32c_known_answer() -> None:
    """RFC 3720, appendix B.4: 32 bytes of zeros, and of ones. The change from one to the other is the delta's CRC."""
    zeros, ones = 0x8A9136AA, 0x62A8AB43
    assert frames.plain_crc32c(bytes(32)) == zeros
    assert frames.plain_crc32c(b"\xff" * 32) == ones
    assert checksum.update_sctp(zeros, b"\xff" * 32, 0) == ones
    first_half = checksum.update_sctp(zeros, b"\xff" * 16, 16)
    assert checksum.update_sctp(first_half, b"\xff" * 16, 0) == ones


@pytest.mark.parametrize("following", [0, 1, 2, 255, 256, 1499, 65535])
def test_crc32c_of_a_change_far_from_the_end(following: int) -> None:
    before, after = b"\1\2\3\4" + b"x" * following, b"\1\2\xff\4" + b"x" * following
    expected = frames.plain_crc32c(after) ^ frames.plain_crc32c(before)
    assert checksum.update_sctp(0, b"\0\0\xfc\0", following) == expected


@pytest.mark.parametrize("payload", [b"", b"a", b"ab", bytes(1400)])
@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize(("version", "proto"), [(4, 6), (4, 17), (6, 6), (6, 17)])
def test_complete_finishes_a_partial_checksum(version: int, proto: int, tags: tuple[tuple[int, int], ...], payload: bytes) -> None:
    right = _sample(version, proto, tags, payload)
    partial = right.partial().frame
    assert partial != right.frame
    assert checksum.is_partial(partial, parse(partial, 1))
    assert _complete(partial) == right.frame
    assert _complete(partial + bytes(7)) == right.frame + bytes(7)


@pytest.mark.parametrize(("version", "proto"), [(4, 6), (4, 17), (6, 6), (6, 17)])
def test_a_common_packet_with_a_whole_checksum_is_known_at_a_glance(version: int, proto: int) -> None:
    body = {6: frames.tcp, 17: frames.udp}[proto](payload=b"abc")
    packet = frames.ipv4(proto, body) if version == 4 else frames.ipv6(proto, body)
    l4 = 34 if version == 4 else 54
    right = Sample(frames.ethernet(0x0800 if version == 4 else 0x86DD, packet), version, 14, l4, proto).finished()
    assert not checksum.may_be_partial(right.frame)
    assert checksum.may_be_partial(right.partial().frame)


@pytest.mark.parametrize("version", [4, 6])
def test_complete_fills_in_an_sctp_checksum_of_zero(version: int) -> None:
    right = _sample(version, 132)
    at = right.l4 + 8
    unfinished = right.frame[:at] + bytes(4) + right.frame[at + 4 :]
    assert not checksum.is_partial(unfinished, parse(unfinished, 1))
    assert _complete(unfinished) == right.frame
    assert _complete(unfinished + bytes(7)) == right.frame + bytes(7)
    wrong = right.frame[:at] + b"\0\0\0\1" + right.frame[at + 4 :]
    assert _complete(wrong) == wrong


@pytest.mark.parametrize(("version", "proto"), [(4, 6), (4, 17), (6, 6), (6, 17)])
def test_complete_leaves_others_alone(version: int, proto: int) -> None:
    right = _sample(version, proto)
    at = right.l4 + frames.CHECKSUM_AT[proto]
    for field in (b"\0\0", b"\xff\xff", b"\x12\x34"):
        frame = right.frame[:at] + field + right.frame[at + 2 :]
        assert _complete(frame) == frame
    assert _complete(right.frame) == right.frame


def _fragmented(sample: Sample) -> bytes:
    return sample.frame[:20] + b"\x20\x00" + sample.frame[22:]


@pytest.mark.parametrize(
    "frame",
    [
        _sample(4, 6).partial().frame[:-1],  # shorter than the IP header says
        _fragmented(_sample(4, 6).partial()),
        frames.ethernet(0x0800, frames.ipv4(47, bytes(40))),
        frames.ethernet(0x0806, frames.arp()),
        b"",
    ],
)
def test_what_cannot_be_partial(frame: bytes) -> None:
    assert not checksum.is_partial(frame, parse(frame, 1))
    assert _complete(frame) == frame


def test_a_length_shorter_than_the_header_is_not_partial() -> None:
    """Though the field is the sum of such a pseudo-header."""
    sample = _sample(4, 17, payload=b"")
    frame = bytearray(sample.frame)
    frame[16:18] = (24 + 7).to_bytes(2, "big")
    short = Sample(bytes(frame), 4, 14, sample.l4, 17)
    assert not checksum.is_partial(short.partial().frame, parse(short.partial().frame, 1))


def test_udp_checksum_that_comes_out_zero_is_written_all_ones() -> None:
    sample = _sample(4, 17, payload=bytes(2))
    value = sample.frame[sample.l4 + 6 : sample.l4 + 8]
    sample = _sample(4, 17, payload=value)
    assert sample.frame[sample.l4 + 6 : sample.l4 + 8] == b"\xff\xff"
    assert _complete(sample.partial().frame) == sample.frame


def test_l4_length_is_the_ip_headers() -> None:
    sample = _sample(4, 17)
    assert checksum.l4_length(sample.frame + bytes(10), parse(sample.frame, 1)) == 11
    sample = _sample(6, 17)
    parsed: ParsedPacket = parse(sample.frame, 1)
    assert checksum.l4_length(sample.frame, parsed) == 11
    nonsense = bytearray(sample.frame)
    nonsense[18:20] = b"\0\0"
    assert checksum.l4_length(nonsense, parse(nonsense, 1)) == -16


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", TAGS)
def test_a_frame_longer_than_its_header_can_say(version: int, tags: tuple[tuple[int, int], ...]) -> None:
    """Linux's BIG TCP: the IP header says 0, the pseudo-header counts all (``tcp_v4_send_check``)."""
    right = _sample(version, 6, tags, b"abc")
    grown = bytearray(right.frame + bytes(n % 251 for n in range(100_000)))
    at = right.l3 + (2 if version == 4 else 4)
    grown[at : at + 2] = bytes(2)
    addresses = bytes(grown[right.l3 + 12 : right.l3 + 20] if version == 4 else grown[right.l3 + 8 : right.l3 + 40])
    partial = sum(addresses[n] << 8 | addresses[n + 1] for n in range(0, len(addresses), 2)) + 6 + len(grown) - right.l4
    while partial > 0xFFFF:
        partial = (partial & 0xFFFF) + (partial >> 16)
    grown[right.l4 + 16 : right.l4 + 18] = partial.to_bytes(2, "big")
    frame = bytes(grown)
    assert checksum.l4_length(frame, parse(frame, 1)) == len(frame) - right.l4
    assert checksum.is_partial(frame, parse(frame, 1))
    assert not checksum.is_partial(frame + b"a", parse(frame, 1))
    finished = _complete(frame)
    pseudo = addresses + (6).to_bytes(4, "big") + (len(frame) - right.l4).to_bytes(4, "big")
    assert checksum.ones_complement_sum(pseudo + finished[right.l4 :]) == 0xFFFF
