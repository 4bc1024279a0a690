"""The codec and the connection on generated messages, on broken ones and on any bytes at all.

Messages are built from the types themselves: whatever the codec can say, these strategies can say.
"""

from __future__ import annotations

from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_parser, ofproto_protocol

from appliance.model import actions as act
from appliance.model.fields import BY_NAME, OXM_FIELDS, VLAN_PRESENT, Field
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import Port, PortConfig, PortCounters, PortState
from appliance.openflow import messages as m
from appliance.openflow.codec import decode, encode
from appliance.openflow.connection import Connection, ConnectionClosed, Event, State
from appliance.openflow.constants import MAX_MESSAGE_BYTES, MORE, MessageType, MultipartType
from appliance.openflow.errors import ProtocolError
from appliance.openflow.handshake import FragmentHandling
from appliance.openflow.match_templates import MatchTemplates
from appliance.openflow.oxm import decode_match, decode_oxms, encode_match, oxm_id

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
DATA = st.binary(max_size=40)


def tuples(items: st.SearchStrategy[Any], size: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=size).map(tuple)


def eighths(size: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, size).flatmap(lambda count: st.binary(min_size=count * 8, max_size=count * 8))


# ── matches ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@st.composite
def match_fields(draw: st.DrawFn, field: Field, values: tuple[int, ...] = ()) -> MatchField:
    """One OXM that is right by itself; with one of ``values`` where they are given."""
    if values:
        return MatchField(field, draw(st.sampled_from(values)))
    mask = draw(st.none() | st.integers(0, field.max)) if field.maskable else None
    value = draw(st.integers(0, field.max)) & (field.max if mask is None else mask)
    if field.name == "vlan_vid" and value and (mask is None or mask & VLAN_PRESENT):
        value |= VLAN_PRESENT
    return MatchField(field, value, mask)


@st.composite
def matches(draw: st.DrawFn, fields: list[Field] | None = None) -> Match:
    """Some fields (or these), in any order that keeps prerequisites first, each with the prerequisites that it needs."""
    chosen: dict[str, MatchField] = {}

    def add(field: Field, values: tuple[int, ...]) -> bool:
        if field.name in chosen:
            return not values or chosen[field.name].value in values
        for need in field.prerequisites:
            wanted = need.values or ((VLAN_PRESENT | 5,) if need.field == "vlan_vid" else ())
            if not add(BY_NAME[need.field], wanted):
                return False
            if not chosen[need.field].value & VLAN_PRESENT and need.field == "vlan_vid":
                return False
        chosen[field.name] = draw(match_fields(field, values))
        if field.name == "in_phy_port":
            chosen[field.name] = MatchField(field, chosen["in_port"].value)
        return True

    for field in draw(st.lists(st.sampled_from(OXM_FIELDS), max_size=6)) if fields is None else fields:
        add(field, ())
    return Match.of(chosen.values())


@given(st.data())
def test_every_field_can_be_matched(data: st.DataObject) -> None:
    """Alone but for what it needs; with a strategy that could not do it, a field would go untested."""
    for field in OXM_FIELDS:
        match = data.draw(matches([field]))
        assert match.fields[-1].field is field
        assert decode_match(encode_match(match))[0].fields == match.fields


@given(st.data())
def test_matches_are_written_as_they_were_read(data: st.DataObject) -> None:
    """Of one shape with other values too, which is then known."""
    match = data.draw(matches())
    raw = encode_match(match)
    for _ in range(3):
        known, length = decode_match(raw)
        assert length == len(raw)
        assert encode_match(known) == encode_match(Match.of(known.fields)) == raw
        changed = [
            MatchField(
                item.field,
                data.draw(st.integers(0, item.field.max)) & (item.field.max if item.mask is None else item.mask),
                item.mask,
            )
            if item.field.name not in ("eth_type", "ip_proto", "icmpv6_type", "vlan_vid", "in_port", "in_phy_port")
            else item
            for item in known.fields
        ]
        raw = encode_match(Match.of(changed))


def read(oxms: bytes, templates: MatchTemplates) -> object:
    """All that a reader of these bytes learns."""
    try:
        match = decode_oxms(oxms, 0, len(oxms), templates)
    except ProtocolError as error:
        return error.type, error.code, error.reason
    return match.fields, match.value, match.mask


@given(st.data())
def test_templates_read_what_reading_field_by_field_reads(data: st.DataObject) -> None:
    """Of matches of which some differ only in values, and some are broken in a bit or two."""
    templates = MatchTemplates()
    with_odd_rules = matches([BY_NAME["vlan_vid"], BY_NAME["vlan_pcp"]]) | matches([BY_NAME["in_phy_port"]])
    whole = [encode_match(match) for match in data.draw(st.lists(matches() | with_odd_rules, min_size=1, max_size=3))]
    right = [raw[4 : int.from_bytes(raw[2:4], "big")] for raw in whole]
    for _ in range(6):
        oxms = data.draw(st.sampled_from(right))
        flips = data.draw(st.lists(st.integers(0, len(oxms) * 8 - 1), max_size=3)) if oxms else []
        changed = int.from_bytes(oxms, "big")
        for bit in flips:
            changed ^= 1 << bit
        oxms = changed.to_bytes(len(oxms), "big")
        expected = read(oxms, MatchTemplates())
        assert read(oxms, templates) == expected
        assert read(oxms, templates) == expected, "by the template that it has become"


# ── actions and instructions ───────────────────────────────────────────────────────────────────────────────────────────
@st.composite
def set_fields(draw: st.DrawFn) -> act.SetField:
    field = draw(st.sampled_from([field for field in OXM_FIELDS if field.settable]))
    value = draw(st.integers(0, field.max))
    return act.SetField(field, value | VLAN_PRESENT if field.name == "vlan_vid" else value)


ACTIONS: st.SearchStrategy[act.Action] = st.one_of(
    st.builds(act.Output, U32, U16),
    st.builds(act.Group, U32),
    st.builds(act.SetQueue, U32),
    st.builds(act.SetMplsTtl, U8),
    st.builds(act.SetNwTtl, U8),
    st.builds(act.PushVlan, U16),
    st.builds(act.PushMpls, U16),
    st.builds(act.PopMpls, U16),
    st.builds(act.PushPbb, U16),
    st.sampled_from([act.PopVlan(), act.PopPbb(), act.DecMplsTtl(), act.DecNwTtl(), act.CopyTtlOut(), act.CopyTtlIn()]),
    set_fields(),
)
INSTRUCTIONS: st.SearchStrategy[tuple[act.Instruction, ...]] = st.lists(
    st.one_of(
        st.builds(act.GotoTable, U8),
        st.builds(act.WriteMetadata, U64, U64),
        st.builds(act.WriteActions, tuples(ACTIONS)),
        st.builds(act.ApplyActions, tuples(ACTIONS)),
        st.builds(act.ClearActions),
        st.builds(act.Meter, U32),
    ),
    unique_by=type,
    max_size=6,
).map(tuple)

# ── messages ───────────────────────────────────────────────────────────────────────────────────────────────────────────
TEXT = st.text(st.characters(exclude_characters="\0", codec="ascii"), max_size=15)
FLAGS = st.integers(0, 31).map(m.FlowModFlags)
CONFIG = st.sets(st.sampled_from(list(PortConfig))).map(lambda bits: PortConfig(sum(bits)))
HW_ADDR = st.binary(min_size=6, max_size=6)
PORTS = st.builds(Port, U32, TEXT, HW_ADDR, U32.map(PortConfig), U32.map(PortState), U32, U32, U32, U32, U32, U32)
METER_FLAGS = st.integers(0, 15).map(m.MeterFlags)
BUCKETS = tuples(st.builds(m.Bucket, U16, U32, U32, tuples(ACTIONS)))
BANDS = tuples(
    st.one_of(
        st.builds(m.MeterBandDrop, U32, U32),
        st.builds(m.MeterBandDscpRemark, U32, U32, U8),
        st.builds(m.MeterBandExperimenter, U32, U32, U32, eighths(3)),
    )
)
PAIR = st.tuples(U32, U32)
QUAD = st.tuples(U32, U32, U32, U32)
IDS = tuples(st.integers(0, 0xFFFE) | st.builds(m.ExperimenterId, U32))
OXM_IDS = tuples(
    st.builds(oxm_id, st.sampled_from(OXM_FIELDS), st.booleans()) | U32.map(lambda experimenter: 0xFFFF0208 << 32 | experimenter)
)
TYPES = m.TableFeaturePropertyType
PROPERTIES = tuples(
    st.one_of(
        st.builds(m.InstructionsProperty, st.sampled_from([TYPES(0), TYPES(1)]), IDS),
        st.builds(m.NextTablesProperty, st.sampled_from([TYPES(2), TYPES(3)]), tuples(U8)),
        st.builds(m.ActionsProperty, st.sampled_from([TYPES(4), TYPES(5), TYPES(6), TYPES(7)]), IDS),
        st.builds(m.OxmProperty, st.sampled_from([TYPES(8), TYPES(10), TYPES(12), TYPES(13), TYPES(14), TYPES(15)]), OXM_IDS),
        st.builds(m.ExperimenterProperty, st.sampled_from([TYPES(0xFFFE), TYPES(0xFFFF)]), U32, U32, DATA),
    )
)
TABLES = tuples(st.builds(m.TableFeatures, U8, TEXT, U64, U64, U32, U32, PROPERTIES), 3)
QUEUES = tuples(
    st.builds(
        m.PacketQueue,
        U32,
        U32,
        tuples(st.builds(m.QueueMinRate, U16) | st.builds(m.QueueMaxRate, U16) | st.builds(m.QueueExperimenter, U32, DATA)),
    )
)
SELECTION = (U8, U32, U32, U64, U64, matches())
EXPERIMENTER = st.builds(m.ExperimenterMultipart, U32, U32, DATA)
REQUEST_BODIES = st.one_of(
    st.sampled_from(
        [m.DescRequest(), m.TableStatsRequest(), m.GroupDescRequest(), m.GroupFeaturesRequest(), m.MeterFeaturesRequest()]
    ),
    st.just(m.PortDescRequest()),
    st.builds(m.FlowStatsRequest, *SELECTION),
    st.builds(m.AggregateStatsRequest, *SELECTION),
    st.builds(m.PortStatsRequest, U32),
    st.builds(m.QueueStatsRequest, U32, U32),
    st.builds(m.GroupStatsRequest, U32),
    st.builds(m.MeterStatsRequest, U32),
    st.builds(m.MeterConfigRequest, U32),
    st.builds(m.TableFeaturesRequest, TABLES),
    EXPERIMENTER,
)
REPLY_BODIES = st.one_of(
    st.builds(m.Desc, TEXT, TEXT, TEXT, TEXT, TEXT),
    st.builds(
        m.FlowStatsReply,
        tuples(st.builds(m.FlowStats, U8, U32, U32, U16, U16, U16, FLAGS, U64, U64, U64, matches(), INSTRUCTIONS), 3),
    ),
    st.builds(m.AggregateStats, U64, U64, U32),
    st.builds(m.TableStatsReply, tuples(st.builds(m.TableStats, U8, U32, U64, U64))),
    st.builds(m.PortStatsReply, tuples(st.builds(m.PortStats, U32, st.builds(PortCounters, *[U64] * 12), U32, U32))),
    st.builds(m.QueueStatsReply, tuples(st.builds(m.QueueStats, U32, U32, U64, U64, U64, U32, U32))),
    st.builds(
        m.GroupStatsReply,
        tuples(st.builds(m.GroupStats, U32, U32, U64, U64, U32, U32, tuples(st.builds(m.BucketCounter, U64, U64)))),
    ),
    st.builds(m.GroupDescReply, tuples(st.builds(m.GroupDesc, st.sampled_from(m.GroupType), U32, BUCKETS))),
    st.builds(m.GroupFeatures, U32, U32.map(m.GroupCapabilities), QUAD, QUAD),
    st.builds(
        m.MeterStatsReply,
        tuples(st.builds(m.MeterStats, U32, U32, U64, U64, U32, U32, tuples(st.builds(m.MeterBandStats, U64, U64)))),
    ),
    st.builds(m.MeterConfigReply, tuples(st.builds(m.MeterConfig, METER_FLAGS, U32, BANDS))),
    st.builds(m.MeterFeatures, U32, U32, U32.map(m.MeterFlags), U8, U8),
    st.builds(m.TableFeaturesReply, TABLES),
    st.builds(m.PortDescReply, tuples(PORTS)),
    EXPERIMENTER,
)
FLOW_MODS = st.builds(
    m.FlowMod,
    U64,
    U64,
    U8,
    st.sampled_from(m.FlowModCommand),
    U16,
    U16,
    U16,
    U32,
    U32,
    U32,
    FLAGS,
    matches(),
    INSTRUCTIONS,
    xid=U32,
)
MESSAGES: st.SearchStrategy[m.Message] = st.one_of(
    st.builds(m.Hello, st.sets(U8).map(lambda versions: tuple(sorted(versions))), U8, xid=U32),
    st.builds(m.Error, U16, U16, DATA, xid=U32),
    st.builds(m.EchoRequest, DATA, xid=U32),
    st.builds(m.EchoReply, DATA, xid=U32),
    st.builds(m.Experimenter, U32, U32, DATA, xid=U32),
    *(
        st.builds(kind, xid=U32)
        for kind in (m.FeaturesRequest, m.GetConfigRequest, m.BarrierRequest, m.BarrierReply, m.GetAsyncRequest)
    ),
    st.builds(m.FeaturesReply, U64, U32, U8, U8, U32, xid=U32),
    st.builds(m.GetConfigReply, st.sampled_from(FragmentHandling), U16, xid=U32),
    st.builds(m.SetConfig, st.sampled_from(FragmentHandling), U16, xid=U32),
    st.builds(m.PacketIn, U32, U16, st.sampled_from(PacketInReason), U8, U64, matches(), DATA, xid=U32),
    st.builds(m.PacketOut, U32, U32, tuples(ACTIONS), DATA, xid=U32),
    FLOW_MODS,
    st.builds(m.FlowRemoved, U64, U16, st.sampled_from(m.FlowRemovedReason), U8, U32, U32, U16, U16, U64, U64, matches(), xid=U32),
    st.builds(m.PortStatus, st.sampled_from(m.PortReason), PORTS, xid=U32),
    st.builds(m.PortMod, U32, HW_ADDR, CONFIG, CONFIG, U16, xid=U32),
    st.builds(m.GroupMod, st.sampled_from(m.GroupModCommand), st.sampled_from(m.GroupType), U32, BUCKETS, xid=U32),
    st.builds(m.MeterMod, st.sampled_from(m.MeterModCommand), METER_FLAGS, U32, BANDS, xid=U32),
    st.builds(m.TableMod, U8, st.integers(0, 3), xid=U32),
    st.builds(m.QueueGetConfigRequest, U32, xid=U32),
    st.builds(m.QueueGetConfigReply, U32, QUEUES, xid=U32),
    st.builds(m.RoleRequest, st.sampled_from(m.Role), U64, xid=U32),
    st.builds(m.RoleReply, st.sampled_from(m.Role), U64, xid=U32),
    st.builds(m.GetAsyncReply, PAIR, PAIR, PAIR, xid=U32),
    st.builds(m.SetAsync, PAIR, PAIR, PAIR, xid=U32),
    st.builds(m.MultipartRequest, REQUEST_BODIES, st.sampled_from([0, MORE]), xid=U32),
    st.builds(m.MultipartReply, REPLY_BODIES, st.sampled_from([0, MORE]), xid=U32),
)


@given(MESSAGES)
def test_what_is_written_is_read(message: m.Message) -> None:
    raw = encode(message)
    read = decode(raw)
    assert read == message
    assert encode(read) == raw  # the order of a match's fields too, which equality leaves out


@given(matches())
def test_a_matchs_integers_say_what_its_fields_say(match: Match) -> None:
    read = decode(encode(m.FlowMod(match=match)))
    assert isinstance(read, m.FlowMod)
    assert (read.match.fields, read.match.value, read.match.mask) == (match.fields, match.value, match.mask)
    assert read.match.value & ~read.match.mask == 0


DATAPATH = ofproto_protocol.ProtocolDesc(version=4)


@given(FLOW_MODS)
def test_flow_mods_mean_the_same_to_os_ken(message: m.FlowMod) -> None:
    """It reads what we write, and writes it again byte for byte."""
    raw = encode(message)
    theirs = ofproto_parser.msg(DATAPATH, 4, MessageType.FLOW_MOD, len(raw), message.xid, raw)
    theirs.serialize()
    assert bytes(theirs.buf) == raw


# ── broken messages ────────────────────────────────────────────────────────────────────────────────────────────────────
def framed(raw: bytes) -> bytes:
    """With the length that the bytes really have, so that what is behind the header gets read."""
    raw = raw[:MAX_MESSAGE_BYTES].ljust(8, b"\0")
    return raw[:2] + len(raw).to_bytes(2, "big") + raw[4:]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good message with some bytes changed, taken out or put in."""
    raw = encode(draw(MESSAGES))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(1, len(raw)))
        put_in = draw(st.binary(max_size=16) | st.sampled_from([bytes((value,)) for value in (0, 1, 4, 7, 8, 255)]))
        taken_out = draw(st.just(len(put_in)) | st.integers(0, 16))
        raw = raw[:place] + put_in + raw[place + taken_out :]
    return framed(raw)


ANYTHING = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda kind, body: framed(pack("!BBHI", 4, kind, 0, 9) + body), U8, st.binary(max_size=200)),
    st.builds(
        lambda kind, part, body: framed(pack("!BBHIHH4x", 4, kind, 0, 9, part, 0) + body),
        st.sampled_from([MessageType.MULTIPART_REQUEST, MessageType.MULTIPART_REPLY]),
        st.sampled_from(MultipartType),
        st.binary(max_size=200),
    ),
    broken(),
)


@given(ANYTHING)
def test_any_bytes_are_a_message_or_a_protocol_error(raw: bytes) -> None:
    """Nothing else is raised; and what was read can be written, and then means the same."""
    message, fault = None, None
    try:
        message = decode(raw)
    except ProtocolError as caught:
        fault = caught
    if message is None:
        assert fault is not None
        assert fault.data == raw
        assert str(fault)
    else:
        written = encode(message)
        assert encode(decode(written)) == written


# ── connections ────────────────────────────────────────────────────────────────────────────────────────────────────────
STREAMS = st.tuples(
    st.sampled_from([encode(m.Hello((4,), 4)), b""]),
    st.lists(MESSAGES.map(encode) | broken(), max_size=6),
    st.binary(max_size=20),
).map(lambda parts: parts[0] + b"".join(parts[1]) + parts[2])


@given(STREAMS, st.data())
def test_the_pieces_that_bytes_come_in_make_no_difference(stream: bytes, data: st.DataObject) -> None:
    whole, pieces = Connection(), Connection()
    expected = whole.receive_data(stream, 0.0)
    events: list[Event] = []
    rest = stream
    while rest:
        size = data.draw(st.integers(1, max(1, len(rest) // 2)))
        events += pieces.receive_data(rest[:size], 0.0)
        rest = rest[size:]
    assert events == expected
    assert pieces.data_to_send() == whole.data_to_send()
    assert pieces.state is whole.state


@given(STREAMS | st.lists(ANYTHING, max_size=4).map(b"".join), st.integers(1, 30))
def test_a_connection_stands_any_bytes(stream: bytes, size: int) -> None:
    """It ends open, or closed with one last event; every answer is a message that the peer can read."""
    connection = Connection()
    events = [
        event
        for start in range(0, len(stream), size)
        for event in [*connection.receive_data(stream[start : start + size], float(start)), *connection.tick(float(start))]
    ]
    closed = [event for event in events if isinstance(event, ConnectionClosed)]
    assert closed == (events[-1:] if connection.state is State.CLOSED else [])
    answers = connection.data_to_send()
    while answers:
        length = int.from_bytes(answers[2:4], "big")
        decode(answers[:length])
        answers = answers[length:]
