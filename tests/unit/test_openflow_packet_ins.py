"""Many packet-ins at once are the same bytes as one after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.actions import OFP_NO_BUFFER
from appliance.model.fields import BY_NAME
from appliance.model.match import MATCH_ALL, Match, MatchField
from appliance.model.megaflow import PacketInReason
from appliance.openflow.codec import encode
from appliance.openflow.messages import PacketIn
from appliance.openflow.packet_ins import PacketInHead, PacketIns, encode_packet_ins

FRAMES = st.lists(st.one_of(st.binary(min_size=14, max_size=200), st.integers(14, 70_000).map(bytes)), min_size=1, max_size=20)
MATCHES = (MATCH_ALL, Match.of([MatchField(BY_NAME["in_port"], 7), MatchField(BY_NAME["metadata"], 1)]))


def packet_ins(match: Match, frames: list[bytes]) -> PacketIns:
    return PacketIns(PacketInHead(PacketInReason.NO_MATCH, 3, 0x1122334455667788, match), frames)


@given(st.sampled_from(MATCHES), FRAMES)
def test_they_are_the_bytes_of_one_after_the_other(match: Match, frames: list[bytes]) -> None:
    each = [
        encode(PacketIn(OFP_NO_BUFFER, len(frame), PacketInReason.NO_MATCH, 3, 0x1122334455667788, match, frame))
        for frame in frames
    ]
    many = packet_ins(match, frames)
    assert encode_packet_ins(many) == encode_packet_ins(many) == b"".join(each)


@given(FRAMES, st.integers(-100, 300_000))
def test_how_many_begin_in_so_many_bytes(frames: list[bytes], room: int) -> None:
    """The last of them may end beyond."""
    wanted, at = 0, 0
    for frame in frames:
        if at > room:
            break
        wanted += 1
        at += packet_ins(MATCH_ALL, frames).head.octets + len(frame)
    assert packet_ins(MATCH_ALL, frames).within(room) == wanted
