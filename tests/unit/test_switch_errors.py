"""Every error that OpenFlow 1.3 has: what raises it from this switch, bytes in and bytes out, or why it never does.

``RAISED`` and ``NEVER`` are one table: together they have each type and code of the specification (section 7.4.4) once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import pytest
from switch_shell import Shell, mac, port

from appliance.model.actions import (
    ApplyActions,
    DecNwTtl,
    ExperimenterAction,
    GotoTable,
    Group,
    Output,
    SetField,
    SetQueue,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.model.plugin import EXPERIMENTER_ID
from appliance.model.ports import PortNo
from appliance.model.queues import Queue
from appliance.openflow.codec import decode, encode
from appliance.openflow.connection import Connection
from appliance.openflow.connection import MessageReceived as Received
from appliance.openflow.constants import MORE, OFPG_MAX, InstructionType, MultipartType
from appliance.openflow.errors import (
    BadAction,
    BadInstruction,
    BadMatch,
    BadRequest,
    ErrorType,
    FlowModFailed,
    GroupModFailed,
    HelloFailed,
    MeterModFailed,
    PortModFailed,
    QueueOpFailed,
    RoleRequestFailed,
    SwitchConfigFailed,
    TableFeaturesFailed,
    TableModFailed,
)
from appliance.openflow.messages import (
    BarrierRequest,
    Bucket,
    Error,
    Experimenter,
    FeaturesRequest,
    FlowMod,
    FlowModFlags,
    FlowStatsRequest,
    FragmentHandling,
    GroupMod,
    GroupModCommand,
    GroupType,
    Hello,
    InstructionsProperty,
    Message,
    MeterBandDrop,
    MeterBandDscpRemark,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MeterStatsRequest,
    MultipartRequest,
    OxmProperty,
    PacketOut,
    PortMod,
    PortStatsRequest,
    QueueGetConfigRequest,
    QueueStatsRequest,
    Role,
    RoleRequest,
    SetConfig,
    TableFeatures,
    TableFeaturesRequest,
    TableMod,
)
from appliance.openflow.oxm import oxm_id
from appliance.openflow.table_features import TableFeaturePropertyType as P

CODES: dict[ErrorType, type[IntEnum]] = {
    ErrorType.HELLO_FAILED: HelloFailed,
    ErrorType.BAD_REQUEST: BadRequest,
    ErrorType.BAD_ACTION: BadAction,
    ErrorType.BAD_INSTRUCTION: BadInstruction,
    ErrorType.BAD_MATCH: BadMatch,
    ErrorType.FLOW_MOD_FAILED: FlowModFailed,
    ErrorType.GROUP_MOD_FAILED: GroupModFailed,
    ErrorType.PORT_MOD_FAILED: PortModFailed,
    ErrorType.TABLE_MOD_FAILED: TableModFailed,
    ErrorType.QUEUE_OP_FAILED: QueueOpFailed,
    ErrorType.SWITCH_CONFIG_FAILED: SwitchConfigFailed,
    ErrorType.ROLE_REQUEST_FAILED: RoleRequestFailed,
    ErrorType.METER_MOD_FAILED: MeterModFailed,
    ErrorType.TABLE_FEATURES_FAILED: TableFeaturesFailed,
}


@dataclass(frozen=True)
class Raised:
    """What was there before, and the message that is refused: none of what comes before it may be."""

    message: Message | bytes
    before: tuple[Message | bytes, ...] = ()
    prepare: Callable[[Shell], None] = lambda shell: None


# ── making messages ────────────────────────────────────────────────────────────────────────────────────────────────────
XID = 0x01020304


def patched(message: Message, **places: int) -> bytes:
    """The message with other bytes: ``at_N=value`` for one byte, ``at_N_16=value`` for two."""
    raw = bytearray(encode(message))
    for place, value in places.items():
        _, at, *width = place.split("_")
        size = int(width[0]) // 8 if width else 1
        raw[int(at) : int(at) + size] = value.to_bytes(size, "big")
    return bytes(raw)


def flow(*instructions: object, **fields: int) -> FlowMod:
    match = Match.of(MatchField(BY_NAME[name], value) for name, value in fields.items())
    return FlowMod(match=match, priority=len(fields), instructions=instructions)  # type: ignore[arg-type]


def apply(*actions: object, **fields: int) -> FlowMod:
    return flow(ApplyActions(actions), **fields)  # type: ignore[arg-type]


INSTRUCTIONS_AT = 8 + 40 + 8
"""Of a flow-mod without a match."""
ACTIONS_AT = INSTRUCTIONS_AT + 8
MATCH_AT = 8 + 40


def group(command: GroupModCommand, number: int, *buckets: Bucket, kind: GroupType = GroupType.ALL) -> GroupMod:
    return GroupMod(command, kind, number, buckets)


def meter(command: MeterModCommand, number: int, *bands: MeterBandDrop | MeterBandDscpRemark, flags: int = 0) -> MeterMod:
    return MeterMod(command, MeterFlags(flags), number, bands)


def tables(*features: TableFeatures) -> MultipartRequest:
    return MultipartRequest(TableFeaturesRequest(features))


def ask(body: object) -> MultipartRequest:
    return MultipartRequest(body)  # type: ignore[arg-type]


def part(number: int, length: int) -> bytes:
    """One part, not the last, of a multipart request."""
    body = MultipartType.TABLE_FEATURES.to_bytes(2, "big") + MORE.to_bytes(2, "big") + bytes(4) + bytes(length - 16)
    return bytes((4, 18)) + length.to_bytes(2, "big") + number.to_bytes(4, "big") + body


def a_packet_is_kept(shell: Shell) -> None:
    shell.receive(apply(Output(PortNo.CONTROLLER, 10)))
    shell.inject(1, bytes(60))


def room_for_one_group(shell: Shell) -> None:
    shell.switch._group_mods.max_groups = 1


ADD, MODIFY, DELETE = GroupModCommand
ADD_METER, MODIFY_METER, DELETE_METER = MeterModCommand
BAND = MeterBandDrop(1000)
TABLE = TableFeatures(0, max_entries=1)
NARROW = TableFeatures(
    0,
    metadata_match=0xFF,
    metadata_write=0xF0,
    properties=(
        InstructionsProperty(P.INSTRUCTIONS, (InstructionType.GOTO_TABLE, InstructionType.WRITE_METADATA)),
        OxmProperty(P.MATCH, (oxm_id(BY_NAME["in_port"]),)),
        OxmProperty(P.WILDCARDS),
    ),
)
TABLES = (tables(NARROW, TableFeatures(1)),)
HW = port(1).hw_addr

# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────────
RAISED: dict[tuple[ErrorType, IntEnum], Raised] = {
    (ErrorType.HELLO_FAILED, HelloFailed.INCOMPATIBLE): Raised(patched(Hello(), at_0=1)),
    # bad request
    (ErrorType.BAD_REQUEST, BadRequest.BAD_VERSION): Raised(patched(BarrierRequest(), at_0=1)),
    (ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE): Raised(patched(BarrierRequest(), at_1=30)),
    (ErrorType.BAD_REQUEST, BadRequest.BAD_MULTIPART): Raised(patched(ask(PortStatsRequest()), at_8_16=99)),
    (ErrorType.BAD_REQUEST, BadRequest.BAD_EXPERIMENTER): Raised(Experimenter(1, 2)),
    (ErrorType.BAD_REQUEST, BadRequest.BAD_LEN): Raised(patched(FeaturesRequest(), at_2_16=12) + bytes(4)),
    (ErrorType.BAD_REQUEST, BadRequest.BUFFER_EMPTY): Raised(PacketOut(0, 1), (PacketOut(0, 1),), a_packet_is_kept),
    (ErrorType.BAD_REQUEST, BadRequest.BUFFER_UNKNOWN): Raised(PacketOut(1, 1), (), a_packet_is_kept),
    (ErrorType.BAD_REQUEST, BadRequest.BAD_TABLE_ID): Raised(ask(FlowStatsRequest(table_id=254))),
    (ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE): Raised(FlowMod(), (RoleRequest(Role.SLAVE, 1),)),
    (ErrorType.BAD_REQUEST, BadRequest.BAD_PORT): Raised(ask(PortStatsRequest(9))),
    (ErrorType.BAD_REQUEST, BadRequest.BAD_PACKET): Raised(PacketOut(data=bytes(13))),
    (ErrorType.BAD_REQUEST, BadRequest.MULTIPART_BUFFER_OVERFLOW): Raised(part(16, 65528), (part(16, 65528),) * 16),
    # bad action
    (ErrorType.BAD_ACTION, BadAction.BAD_TYPE): Raised(patched(apply(Output(1)), **{f"at_{ACTIONS_AT}_16": 1})),
    (ErrorType.BAD_ACTION, BadAction.BAD_LEN): Raised(patched(apply(Output(1)), **{f"at_{ACTIONS_AT + 2}_16": 8})),
    (ErrorType.BAD_ACTION, BadAction.BAD_EXPERIMENTER): Raised(patched(apply(Output(1)), **{f"at_{ACTIONS_AT}_16": 0xFFFF})),
    (ErrorType.BAD_ACTION, BadAction.BAD_EXP_TYPE): Raised(
        apply(ExperimenterAction(EXPERIMENTER_ID, bytes((0, 9, 0, 0, 1, 2, 3, 4))))
    ),
    (ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT): Raised(apply(Output(0))),
    (ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT): Raised(apply(Output(PortNo.CONTROLLER, 0xFFF0))),
    (ErrorType.BAD_ACTION, BadAction.TOO_MANY): Raised(apply(*[Output(1)] * 4091)),
    (ErrorType.BAD_ACTION, BadAction.BAD_QUEUE): Raised(apply(SetQueue(8)), (apply(SetQueue(7)),)),
    (ErrorType.BAD_ACTION, BadAction.BAD_OUT_GROUP): Raised(apply(Group(8)), (group(ADD, 7), apply(Group(7)))),
    (ErrorType.BAD_ACTION, BadAction.MATCH_INCONSISTENT): Raised(apply(DecNwTtl()), (apply(DecNwTtl(), eth_type=0x0800),)),
    (ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE): Raised(
        patched(apply(SetField(BY_NAME["eth_dst"], 1)), **{f"at_{ACTIONS_AT + 6}": 99 << 1})
    ),
    (ErrorType.BAD_ACTION, BadAction.BAD_SET_LEN): Raised(
        patched(apply(SetField(BY_NAME["eth_dst"], 1)), **{f"at_{ACTIONS_AT + 7}": 5})
    ),
    (ErrorType.BAD_ACTION, BadAction.BAD_SET_ARGUMENT): Raised(
        apply(SetField(BY_NAME["vlan_vid"], 5), vlan_vid=0x1001), (apply(SetField(BY_NAME["vlan_vid"], 0x1005), vlan_vid=0x1001),)
    ),
    # bad instruction
    (ErrorType.BAD_INSTRUCTION, BadInstruction.UNKNOWN_INST): Raised(
        patched(flow(GotoTable(1)), **{f"at_{INSTRUCTIONS_AT}_16": 9})
    ),
    (ErrorType.BAD_INSTRUCTION, BadInstruction.UNSUP_INST): Raised(apply(Output(1), in_port=1), TABLES),
    (ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_TABLE_ID): Raised(flow(GotoTable(0))),
    (ErrorType.BAD_INSTRUCTION, BadInstruction.UNSUP_METADATA): Raised(flow(WriteMetadata(1, 0x10), in_port=1), TABLES),
    (ErrorType.BAD_INSTRUCTION, BadInstruction.UNSUP_METADATA_MASK): Raised(
        flow(WriteMetadata(0x100, 0x100), in_port=1), (*TABLES, flow(WriteMetadata(0x10, 0xF0), in_port=1))
    ),
    (ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_EXPERIMENTER): Raised(
        patched(flow(GotoTable(1)), **{f"at_{INSTRUCTIONS_AT}_16": 0xFFFF})
    ),
    (ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN): Raised(
        patched(flow(GotoTable(1)), **{f"at_{INSTRUCTIONS_AT + 2}_16": 16})
    ),
    # bad match
    (ErrorType.BAD_MATCH, BadMatch.BAD_TYPE): Raised(patched(flow(), **{f"at_{MATCH_AT}_16": 0})),
    (ErrorType.BAD_MATCH, BadMatch.BAD_LEN): Raised(patched(flow(), **{f"at_{MATCH_AT + 2}_16": 3})),
    (ErrorType.BAD_MATCH, BadMatch.BAD_WILDCARDS): Raised(FlowMod(priority=5), TABLES),
    (ErrorType.BAD_MATCH, BadMatch.BAD_FIELD): Raised(patched(flow(in_port=1), **{f"at_{MATCH_AT + 6}": 99 << 1})),
    (ErrorType.BAD_MATCH, BadMatch.BAD_VALUE): Raised(flow(vlan_vid=0x1001, vlan_pcp=9), (flow(vlan_vid=0x1001, vlan_pcp=7),)),
    (ErrorType.BAD_MATCH, BadMatch.BAD_MASK): Raised(
        FlowMod(match=Match.of([MatchField(BY_NAME["metadata"], 1, 1)])), (tables(TableFeatures(0)),)
    ),
    (ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ): Raised(flow(tcp_dst=80)),
    (ErrorType.BAD_MATCH, BadMatch.DUP_FIELD): Raised(
        FlowMod(match=Match(tuple([MatchField(BY_NAME["in_port"], 1)] * 2))), (flow(in_port=1),)
    ),
    # flow-mod
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL): Raised(flow(in_port=2), (tables(TABLE), flow())),
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID): Raised(FlowMod(table_id=254)),
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.OVERLAP): Raised(
        FlowMod(flags=FlowModFlags.CHECK_OVERLAP, match=Match.of([MatchField(BY_NAME["in_port"], 1)])), (FlowMod(),)
    ),
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_COMMAND): Raised(patched(FlowMod(), at_25=5)),
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_FLAGS): Raised(patched(FlowMod(), at_44_16=0x20)),
    # group-mod
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.GROUP_EXISTS): Raised(group(ADD, 1), (group(ADD, 1),)),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.INVALID_GROUP): Raised(group(ADD, OFPG_MAX + 1), (group(ADD, OFPG_MAX),)),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.OUT_OF_GROUPS): Raised(group(ADD, 2), (group(ADD, 1),), room_for_one_group),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.OUT_OF_BUCKETS): Raised(
        group(ADD, 1, *[Bucket()] * 1025), (group(ADD, 2, *[Bucket()] * 1024),)
    ),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.WATCH_UNSUPPORTED): Raised(
        group(ADD, 1, Bucket(watch_port=1)), (group(ADD, 2, Bucket(watch_port=0, watch_group=0)),)
    ),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.LOOP): Raised(
        group(MODIFY, 1, Bucket(actions=(Group(2),))), (group(ADD, 1), group(ADD, 2, Bucket(actions=(Group(1),))))
    ),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.UNKNOWN_GROUP): Raised(group(MODIFY, 1), (group(DELETE, 1),)),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.CHAINED_GROUP): Raised(
        group(DELETE, 1), (group(ADD, 1), group(ADD, 2, Bucket(actions=(Group(1),))))
    ),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_TYPE): Raised(patched(group(ADD, 1), at_10=4)),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_COMMAND): Raised(patched(group(ADD, 1), at_9=3)),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_BUCKET): Raised(patched(group(ADD, 1, Bucket()), at_17=8)),
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_WATCH): Raised(
        group(ADD, 1, Bucket(), kind=GroupType.FF), (group(ADD, 2, Bucket(watch_port=1), kind=GroupType.FF),)
    ),
    # port-mod, table-mod, queues, configuration, roles
    (ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_PORT): Raised(PortMod(9, HW)),
    (ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_HW_ADDR): Raised(PortMod(1, mac(5)), (PortMod(1, HW),)),
    (ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_CONFIG): Raised(patched(PortMod(1, HW), at_31=2)),
    (ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_ADVERTISE): Raised(PortMod(1, HW, advertise=1)),
    (ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_TABLE): Raised(TableMod(254), (TableMod(253),)),
    (ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_CONFIG): Raised(TableMod(0, 4), (TableMod(0, 3),)),
    (ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT): Raised(QueueGetConfigRequest(9), (QueueGetConfigRequest(1),)),
    (ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_QUEUE): Raised(ask(QueueStatsRequest(1, 8)), (ask(QueueStatsRequest(1, 7)),)),
    (ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_FLAGS): Raised(SetConfig(FragmentHandling.REASM, 100)),
    (ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_LEN): Raised(SetConfig(FragmentHandling.NORMAL, 0xFFE6)),
    (ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.STALE): Raised(RoleRequest(Role.SLAVE, 4), (RoleRequest(Role.MASTER, 5),)),
    (ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.BAD_ROLE): Raised(patched(RoleRequest(Role.SLAVE, 4), at_11=4)),
    # meter-mod
    (ErrorType.METER_MOD_FAILED, MeterModFailed.METER_EXISTS): Raised(meter(ADD_METER, 1), (meter(ADD_METER, 1),)),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.INVALID_METER): Raised(meter(ADD_METER, 0)),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER): Raised(ask(MeterStatsRequest(1)), (meter(DELETE_METER, 1),)),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_COMMAND): Raised(patched(meter(ADD_METER, 1), at_9=3)),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_FLAGS): Raised(meter(ADD_METER, 1, flags=3), (meter(ADD_METER, 2, flags=13),)),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_RATE): Raised(meter(ADD_METER, 1, MeterBandDrop(0))),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_BURST): Raised(
        meter(ADD_METER, 1, BAND, flags=5), (meter(ADD_METER, 2, BAND),)
    ),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_BAND): Raised(patched(meter(ADD_METER, 1, BAND), at_17=9)),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_BAND_VALUE): Raised(
        meter(ADD_METER, 1, MeterBandDscpRemark(1)), (meter(ADD_METER, 2, MeterBandDscpRemark(1, 0, 1)),)
    ),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.OUT_OF_METERS): Raised(
        meter(ADD_METER, 1025), tuple(meter(ADD_METER, number) for number in range(1, 1025))
    ),
    (ErrorType.METER_MOD_FAILED, MeterModFailed.OUT_OF_BANDS): Raised(
        meter(ADD_METER, 1, *[BAND] * 9), (meter(ADD_METER, 2, *[BAND] * 8),)
    ),
    # table features
    (ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_TABLE): Raised(tables(TABLE, TableFeatures(254))),
    (ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_TYPE): Raised(patched(tables(NARROW), at_80_16=9)),
    (ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_LEN): Raised(patched(tables(NARROW), at_82_16=3)),
    (ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_ARGUMENT): Raised(
        tables(TableFeatures(0, properties=(InstructionsProperty(P.INSTRUCTIONS, (9,)),)))
    ),
}

_NO_EXPERIMENTER = "no experimenter is known, so that its types do not matter"
_NO_PERMISSIONS = "every controller that may connect may do everything; slaves have IS_SLAVE"
NEVER: dict[tuple[ErrorType, IntEnum], str] = {
    (ErrorType.HELLO_FAILED, HelloFailed.EPERM): "who may connect is TLS's business",
    (ErrorType.BAD_REQUEST, BadRequest.BAD_EXP_TYPE): _NO_EXPERIMENTER,
    (ErrorType.BAD_REQUEST, BadRequest.EPERM): _NO_PERMISSIONS,
    (ErrorType.BAD_ACTION, BadAction.EPERM): _NO_PERMISSIONS,
    (ErrorType.BAD_ACTION, BadAction.UNSUPPORTED_ORDER): "a list of actions is run in any order",
    (ErrorType.BAD_ACTION, BadAction.BAD_TAG): "all tags of the specification are supported; another ethertype is a BAD_ARGUMENT",
    (ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_EXP_TYPE): _NO_EXPERIMENTER,
    (ErrorType.BAD_INSTRUCTION, BadInstruction.EPERM): _NO_PERMISSIONS,
    (ErrorType.BAD_MATCH, BadMatch.BAD_TAG): "all tags of the specification can be matched",
    (ErrorType.BAD_MATCH, BadMatch.BAD_DL_ADDR_MASK): "any mask of an Ethernet address can be matched",
    (ErrorType.BAD_MATCH, BadMatch.BAD_NW_ADDR_MASK): "any mask of a network address can be matched",
    (ErrorType.BAD_MATCH, BadMatch.EPERM): _NO_PERMISSIONS,
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.UNKNOWN): "every fault has a name",
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.EPERM): _NO_PERMISSIONS,
    (ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TIMEOUT): "any timeout of 16 bits is kept",
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.WEIGHT_UNSUPPORTED): "weights are supported where they mean something",
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.CHAINING_UNSUPPORTED): "groups may forward to groups",
    (ErrorType.GROUP_MOD_FAILED, GroupModFailed.EPERM): _NO_PERMISSIONS,
    (ErrorType.PORT_MOD_FAILED, PortModFailed.EPERM): _NO_PERMISSIONS,
    (ErrorType.TABLE_MOD_FAILED, TableModFailed.EPERM): _NO_PERMISSIONS,
    (ErrorType.QUEUE_OP_FAILED, QueueOpFailed.EPERM): _NO_PERMISSIONS,
    (ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.EPERM): _NO_PERMISSIONS,
    (ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.UNSUP): "all roles are supported",
    (ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN): "every fault has a name",
    (ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_METADATA): "all bits of metadata can be matched and written",
    (ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.EPERM): _NO_PERMISSIONS,
}


def test_the_table_has_every_error_of_the_specification_once() -> None:
    every = {(kind, code) for kind, codes in CODES.items() for code in codes}
    assert len(every) == 111
    assert RAISED.keys() | NEVER.keys() == every
    assert not RAISED.keys() & NEVER.keys()
    assert set(ErrorType) - CODES.keys() == {ErrorType.EXPERIMENTER}, "which has no codes, and is an experimenter's"


# ── the test ───────────────────────────────────────────────────────────────────────────────────────────────────────────
class Peer:
    """A controller at the end of a wire: bytes to the connection, its messages to the switch, and errors back from either."""

    def __init__(self, shell: Shell, *, hello: bool = True) -> None:
        self.shell = shell
        self.wire = Connection()
        self.wire.data_to_send()
        if hello:
            self.errors(encode(Hello()))

    def errors(self, raw: bytes) -> list[Error]:
        answers: list[Message] = []
        for event in self.wire.receive_data(raw, 0.0):
            if isinstance(event, Received):
                answers += self.shell.receive(event.message)
        sent = self.wire.data_to_send()
        while sent:
            length = int.from_bytes(sent[2:4], "big")
            answers.append(decode(sent[:length]))
            sent = sent[length:]
        return [answer for answer in answers if isinstance(answer, Error)]


def name(row: tuple[ErrorType, IntEnum]) -> str:
    return f"{row[0].name}/{row[1].name}"


def raw_of(message: Message | bytes) -> bytes:
    raw = bytearray(message if isinstance(message, bytes) else encode(message))
    if raw[1] != 18 or not isinstance(message, bytes):
        raw[4:8] = XID.to_bytes(4, "big")
    return bytes(raw)


@pytest.mark.parametrize("row", RAISED, ids=name)
def test_raised(row: tuple[ErrorType, IntEnum]) -> None:
    case = RAISED[row]
    shell = Shell(queues={1: (Queue(7),)})
    case.prepare(shell)
    peer = Peer(shell, hello=row[0] is not ErrorType.HELLO_FAILED)
    for message in case.before:
        assert peer.errors(raw_of(message)) == []
    raw = raw_of(case.message)
    (error,) = peer.errors(raw)
    assert (error.type, error.code) == row
    assert error.xid == int.from_bytes(raw[4:8], "big")
    if row[0] is not ErrorType.HELLO_FAILED:
        assert error.data == raw[:64]
