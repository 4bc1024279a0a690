"""What the codec does with good messages beyond reading and writing them: splitting, limits, texts, order, speed."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest

from appliance.model import actions as act
from appliance.model.fields import BY_NAME, ETH_DST, ETH_SRC, IN_PORT, OXM_FIELDS
from appliance.model.match import MATCH_ALL, Match, MatchField
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import Port
from appliance.openflow import messages as m
from appliance.openflow.codec import HEADER, decode, encode
from appliance.openflow.constants import MAX_MESSAGE_BYTES, MORE
from appliance.openflow.errors import ErrorType, FlowModFailed, ProtocolError, error_name
from appliance.openflow.message import MessageBase
from appliance.openflow.oxm import decode_match, encode_match, oxm_id


def split(raw: bytes) -> list[bytes]:
    """The messages in a string of them."""
    messages = []
    while raw:
        _, _, length, _ = HEADER.unpack_from(raw)
        messages.append(raw[:length])
        raw = raw[length:]
    return messages


def flow_stats(cookie: int, actions: int = 2) -> m.FlowStats:
    match = Match.of([MatchField(IN_PORT, 1), MatchField(ETH_DST, cookie)])
    outputs = tuple(act.Output(port) for port in range(1, actions + 1))
    return m.FlowStats(0, 1, 2, 3, 0, 0, m.FlowModFlags.NONE, cookie, 4, 5, match, (act.ApplyActions(outputs),))


# ── long replies ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_long_reply_is_split_between_entries() -> None:
    entries = tuple(flow_stats(cookie) for cookie in range(2000))
    raw = split(encode(m.MultipartReply(m.FlowStatsReply(entries), xid=7)))
    parts = [decode(message) for message in raw]
    assert len(raw) > 1
    assert all(isinstance(part, m.MultipartReply) and part.xid == 7 for part in parts)
    assert [part.flags for part in parts] == [MORE] * (len(parts) - 1) + [0]
    assert tuple(entry for part in parts for entry in part.body.entries) == entries
    # as full as can be: no message would have had room for the first entry of the next
    entry_bytes = (len(raw[0]) - 16) // len(parts[0].body.entries)
    assert all(len(message) + entry_bytes > MAX_MESSAGE_BYTES for message, _ in pairwise(raw))


@pytest.mark.parametrize("count", [0, 1, 1023, 1024])
def test_a_reply_that_just_fits_is_one_message(count: int) -> None:
    """1,023 ports of 64 bytes and 16 of header are 65,488 bytes; one more is 65,552."""
    ports = tuple(Port(number, f"p{number}", bytes(6)) for number in range(1, count + 1))
    raw = split(encode(m.MultipartReply(m.PortDescReply(ports))))
    assert len(raw) == (2 if count == 1024 else 1)
    assert tuple(port for message in raw for port in decode(message).body.ports) == ports


def test_a_long_request_is_split_too() -> None:
    tables = tuple(m.TableFeatures(number, "x" * 31) for number in range(200)) * 8
    raw = split(encode(m.MultipartRequest(m.TableFeaturesRequest(tables), xid=3)))
    assert [decode(message).flags for message in raw] == [MORE, 0]


# ── what was accepted can be returned ──────────────────────────────────────────────────────────────────────────────────
def test_the_longest_flow_mod_fits_in_flow_statistics() -> None:
    actions = (act.Output(1),) * 4090
    mod = m.FlowMod(match=Match.of([MatchField(IN_PORT, 1)]), instructions=(act.ApplyActions(actions),))
    assert 65519 - 16 < len(encode(mod)) <= 65519
    taken = decode(encode(mod))
    stats = m.FlowStats(0, 0, 0, 0, 0, 0, taken.flags, 0, 0, 0, taken.match, taken.instructions)
    reply = m.MultipartReply(m.FlowStatsReply((stats,)))
    assert decode(encode(reply)) == reply


def test_the_longest_group_mod_fits_in_its_replies() -> None:
    taken = decode(encode(m.GroupMod(m.GroupModCommand.ADD, m.GroupType.ALL, 1, (m.Bucket(),) * 4092)))
    stats = m.GroupStats(1, 0, 0, 0, 0, 0, (m.BucketCounter(0, 0),) * len(taken.buckets))
    for body in (m.GroupStatsReply((stats,)), m.GroupDescReply((m.GroupDesc(taken.type, 1, taken.buckets),))):
        assert decode(encode(m.MultipartReply(body))).body == body


def test_the_longest_meter_mod_fits_in_its_replies() -> None:
    taken = decode(encode(m.MeterMod(m.MeterModCommand.ADD, m.MeterFlags.KBPS, 1, (m.MeterBandDrop(1),) * 4092)))
    stats = m.MeterStats(1, 0, 0, 0, 0, 0, (m.MeterBandStats(0, 0),) * len(taken.bands))
    for body in (m.MeterStatsReply((stats,)), m.MeterConfigReply((m.MeterConfig(taken.flags, 1, taken.bands),))):
        assert decode(encode(m.MultipartReply(body))).body == body


def test_a_packet_in_of_a_huge_frame_is_cut() -> None:
    """A segmentation-offload frame of 64 KB and its headers are more than a message can hold."""
    frame = bytes(range(256)) * 257
    match = Match.of([MatchField(IN_PORT, 1)])
    raw = encode(m.PacketIn(act.OFP_NO_BUFFER, len(frame), PacketInReason.ACTION, 0, 0, match, frame))
    assert len(raw) == MAX_MESSAGE_BYTES
    packet_in = decode(raw)
    assert packet_in.total_len == 0xFFFF
    assert packet_in.data == frame[: len(packet_in.data)]
    assert len(packet_in.data) > 65_000


# ── our own faults ─────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "message",
    [
        m.FlowMod(priority=1 << 16),
        m.FlowMod(match=Match.of([MatchField(IN_PORT, 1 << 32)])),
        m.FlowMod(match=Match((), 1, 1)),
        m.FlowMod(match=Match.of([MatchField(BY_NAME["ip_ttl"], 1)])),
        m.FlowMod(match=Match.of([MatchField(IN_PORT, 1, 1)])),
        m.FlowMod(instructions=(act.ApplyActions((act.SetField(BY_NAME["ip_ttl"], 1),)),)),
        m.EchoRequest(bytes(65528)),
        m.MultipartReply(m.DescRequest()),  # type: ignore[arg-type]
        m.MultipartReply(m.ExperimenterMultipart(1, 2, bytes(65512))),
        MessageBase(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_cannot_be_encoded_is_a_value_error(message: m.Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(message)


def test_the_longest_echo_can_be_answered() -> None:
    assert len(encode(m.EchoReply(bytes(65527)))) == MAX_MESSAGE_BYTES


# ── texts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_texts_are_cut_between_characters_and_end_in_nul() -> None:
    desc = m.Desc("ä" * 200, "h", "s", "0123456789" * 4, "d" * 256)
    read = decode(encode(m.MultipartReply(desc))).body
    assert read == m.Desc("ä" * 127, "h", "s", ("0123456789" * 4)[:31], "d" * 255)


def test_a_port_name_of_15_bytes_is_whole() -> None:
    port = Port(1, "enp0s31f6np1s22", bytes(6))
    assert decode(encode(m.PortStatus(m.PortReason.ADD, port))).port == port


def test_bytes_that_are_no_text_are_read() -> None:
    raw = bytearray(encode(m.MultipartReply(m.PortDescReply((Port(1, "abc", bytes(6)),)))))
    raw[raw.index(b"abc")] = 0xFF
    assert decode(bytes(raw)).body.ports[0].name == "\ufffdbc"


# ── matches ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_match_keeps_the_order_and_the_masks_that_came() -> None:
    """Flow statistics return a match as it was sent: also a mask of all ones or of none."""
    fields = (MatchField(ETH_SRC, 1, ETH_SRC.max), MatchField(ETH_DST, 0, 0), MatchField(IN_PORT, 2))
    raw = encode_match(Match.of(fields))
    match, length = decode_match(raw)
    assert match.fields == fields
    assert length == len(raw) == 48
    assert match.mask == IN_PORT.mask | ETH_SRC.mask
    assert encode_match(match) == raw


def test_a_match_in_the_middle_of_other_bytes() -> None:
    raw = encode_match(Match.of([MatchField(IN_PORT, 2)]))
    assert decode_match(b"before" + raw + b"after", 6) == (Match.of([MatchField(IN_PORT, 2)]), 16)
    with pytest.raises(ProtocolError):
        decode_match(b"before" + raw + b"after", 6, 6 + 15)


@pytest.mark.parametrize(("count", "length"), [(0, 8), (1, 16), (2, 24), (3, 32), (4, 32)])
def test_the_padding_of_a_match(count: int, length: int) -> None:
    """ofp_match ends at a multiple of 8 bytes, whatever its length field says (section 7.2.3.1)."""
    names = ("in_port", "in_phy_port", "eth_type", "vlan_vid")[:count]
    values = (1, 1, 0x800, 0)
    raw = encode_match(Match.of(MatchField(BY_NAME[name], value) for name, value in zip(names, values, strict=False)))
    assert len(raw) == length
    assert decode_match(raw)[1] == length


def test_fields_have_the_specifications_headers() -> None:
    """Some OXM headers as every implementation writes them."""
    assert oxm_id(IN_PORT) == 0x80000004
    assert oxm_id(ETH_DST, True) == 0x8000070C
    assert oxm_id(BY_NAME["eth_type"]) == 0x80000A02
    assert oxm_id(BY_NAME["vlan_vid"]) == 0x80000C02
    assert oxm_id(BY_NAME["ipv6_exthdr"], True) == 0x80004F04
    assert len(OXM_FIELDS) == 40
    with pytest.raises(ValueError, match="tcp_flags"):
        oxm_id(BY_NAME["tcp_flags"])


# ── the rest ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_error_names() -> None:
    assert error_name(ErrorType.FLOW_MOD_FAILED, FlowModFailed.OVERLAP) == "FLOW_MOD_FAILED/OVERLAP"
    assert error_name(5, 99) == "FLOW_MOD_FAILED/99"
    assert error_name(14, 1) == "14/1"
    assert error_name(0xFFFF, 1) == "EXPERIMENTER/1"


def test_the_empty_match_is_the_models() -> None:
    assert decode(encode(m.FlowMod())).match == MATCH_ALL


def test_a_layer_2_flow_mod_is_read_in_few_steps() -> None:
    """Once a match of its shape has been read. Steps are calls of Python functions: what they take is tests/bench's matter."""
    fields = [MatchField(IN_PORT, 1), MatchField(ETH_DST, 2), MatchField(ETH_SRC, 3)]
    raw = encode(m.FlowMod(match=Match.of(fields), instructions=(act.ApplyActions((act.Output(2),)),)))
    decode(raw)
    calls: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        decode(raw)
    finally:
        sys.setprofile(before)
    assert 0 < len(calls) <= 14, calls
