"""Every way in which a peer can get a message wrong, and the OFPT_ERROR type and code that it must get for it.

Each case is one message's bytes: a right one is asserted first where a single number makes the difference.
"""

from __future__ import annotations

from enum import IntEnum
from struct import pack

import pytest

from appliance.model.fields import BY_NAME
from appliance.model.match import MATCH_ALL
from appliance.openflow.codec import decode
from appliance.openflow.constants import MessageType, MultipartType
from appliance.openflow.errors import (
    BadAction,
    BadInstruction,
    BadMatch,
    BadRequest,
    ErrorType,
    FlowModFailed,
    GroupModFailed,
    MeterModFailed,
    PortModFailed,
    ProtocolError,
    RoleRequestFailed,
    SwitchConfigFailed,
    TableFeaturesFailed,
    TableModFailed,
    error_name,
)
from appliance.openflow.messages import FlowMod, Hello
from appliance.openflow.oxm import oxm_id


def message(kind: int, body: bytes = b"", *, version: int = 4, length: int | None = None) -> bytes:
    return pack("!BBHI", version, kind, 8 + len(body) if length is None else length, 0x99) + body


def match(*oxms: bytes, kind: int = 1, length: int | None = None) -> bytes:
    body = b"".join(oxms)
    size = 4 + len(body)
    return pack("!HH", kind, size if length is None else length) + body + bytes(-size % 8)


def oxm(name: str, value: int, mask: int | None = None) -> bytes:
    field = BY_NAME[name]
    raw = pack("!I", oxm_id(field, mask is not None and field.maskable)) + value.to_bytes(field.oxm_length, "big")
    return raw if mask is None else raw + mask.to_bytes(field.oxm_length, "big")


def flow_mod(match_: bytes = match(), instructions: bytes = b"", *, command: int = 0, flags: int = 0) -> bytes:
    head = pack("!QQBBHHHIIIH2x", 0, 0, 0, command, 0, 0, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, flags)
    return message(MessageType.FLOW_MOD, head + match_ + instructions)


def matching(*oxms: bytes) -> bytes:
    return flow_mod(match(*oxms))


def apply(actions: bytes, length: int | None = None) -> bytes:
    return flow_mod(instructions=pack("!HH4x", 4, 8 + len(actions) if length is None else length) + actions)


def instruct(instructions: bytes) -> bytes:
    return flow_mod(instructions=instructions)


def set_field(oxm_bytes: bytes, length: int | None = None) -> bytes:
    size = 4 + len(oxm_bytes)
    size += -size % 8
    return apply((pack("!HH", 25, size if length is None else length) + oxm_bytes).ljust(size, b"\0"))


def multipart(kind: int, body: bytes = b"") -> bytes:
    return message(MessageType.MULTIPART_REQUEST, pack("!HH4x", kind, 0) + body)


def table_features(properties: bytes, length: int | None = None) -> bytes:
    size = 64 + len(properties) if length is None else length
    return multipart(MultipartType.TABLE_FEATURES, pack("!HB5x32sQQII", size, 0, b"t", 0, 0, 0, 0) + properties)


def group_mod(buckets: bytes = b"", *, command: int = 0, kind: int = 0) -> bytes:
    return message(MessageType.GROUP_MOD, pack("!HBxI", command, kind, 1) + buckets)


def meter_mod(bands: bytes = b"", *, command: int = 0, flags: int = 1) -> bytes:
    return message(MessageType.METER_MOD, pack("!HHI", command, flags, 1) + bands)


def port_mod(config: int = 0, mask: int = 0, advertise: int = 0) -> bytes:
    return message(MessageType.PORT_MOD, pack("!I4x6s2xIII4x", 1, bytes(6), config, mask, advertise))


OUTPUT = pack("!HHIH6x", 0, 16, 1, 0)
ETH_IPV4 = oxm("eth_type", 0x0800)
ETH_IPV6 = oxm("eth_type", 0x86DD)
ETH_ARP = oxm("eth_type", 0x0806)

RIGHT: dict[str, bytes] = {
    "flow mod": flow_mod(),
    "match": matching(oxm("in_port", 1), ETH_IPV4, oxm("ip_proto", 6), oxm("ipv4_src", 0x0A000000, 0xFF000000), oxm("tcp_dst", 80)),
    "a match of every wildcard": matching(oxm("eth_dst", 0, 0)),
    "untagged": matching(oxm("vlan_vid", 0)),
    "untagged, by mask": matching(oxm("vlan_vid", 0, 0x1000)),
    "VID bits, tagged or not": matching(oxm("vlan_vid", 5, 0x0FFF)),
    "PCP of any VLAN": matching(oxm("vlan_vid", 0x1000, 0x1000), oxm("vlan_pcp", 3)),
    "ND over IPv6": matching(
        ETH_IPV6, oxm("ip_proto", 58), oxm("icmpv6_type", 136), oxm("ipv6_nd_target", 1), oxm("ipv6_nd_tll", 1)
    ),
    "MPLS multicast": matching(oxm("eth_type", 0x8848), oxm("mpls_label", 1)),
    "ip_dscp over IPv6": matching(ETH_IPV6, oxm("ip_dscp", 1)),
    "physical port, the same": matching(oxm("in_port", 4), oxm("in_phy_port", 4)),
    "actions": apply(OUTPUT + OUTPUT),
    "set field": set_field(oxm("vlan_vid", 0x1005)),
    "table features": table_features(pack("!HH4x", 0, 4)),
    "group mod": group_mod(pack("!HHII4x", 32, 0, 0, 0) + OUTPUT),
    "meter mod": meter_mod(pack("!HHII4x", 1, 16, 1, 1)),
    "port mod": port_mod(0x65, 0x65, 0xFFFF),
}

WRONG: dict[str, tuple[bytes, ErrorType, IntEnum]] = {
    # the header
    "no header": (b"\x04\x05\x00", ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "version 1.0": (message(MessageType.BARRIER_REQUEST, version=1), ErrorType.BAD_REQUEST, BadRequest.BAD_VERSION),
    "version 1.4": (message(MessageType.BARRIER_REQUEST, version=5), ErrorType.BAD_REQUEST, BadRequest.BAD_VERSION),
    "longer than it says": (message(MessageType.BARRIER_REQUEST, b"1234", length=8), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "shorter than it says": (message(MessageType.BARRIER_REQUEST, length=12), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "unknown type": (message(30), ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE),
    "unknown type, the last": (message(255), ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE),
    # fixed lengths
    "features request with a body": (message(MessageType.FEATURES_REQUEST, b"1234"), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "barrier with a body": (message(MessageType.BARRIER_REQUEST, bytes(8)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "set config, short": (message(MessageType.SET_CONFIG, bytes(3)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "set config, long": (message(MessageType.SET_CONFIG, bytes(5)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "error, short": (message(MessageType.ERROR, bytes(3)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "experimenter, short": (message(MessageType.EXPERIMENTER, bytes(7)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "flow mod, short": (message(MessageType.FLOW_MOD, bytes(39)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "packet out, short": (message(MessageType.PACKET_OUT, bytes(15)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "packet in, short": (message(MessageType.PACKET_IN, bytes(15)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "flow removed, short": (message(MessageType.FLOW_REMOVED, bytes(39)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "port mod, short": (message(MessageType.PORT_MOD, bytes(31)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "table mod, long": (message(MessageType.TABLE_MOD, bytes(9)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "group mod, short": (message(MessageType.GROUP_MOD, bytes(7)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "meter mod, short": (message(MessageType.METER_MOD, bytes(7)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "role request, short": (message(MessageType.ROLE_REQUEST, bytes(15)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "set async, long": (message(MessageType.SET_ASYNC, bytes(25)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "queue config, short": (message(MessageType.QUEUE_GET_CONFIG_REQUEST, bytes(4)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    # multipart
    "multipart, short": (message(MessageType.MULTIPART_REQUEST, bytes(7)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "unknown multipart": (multipart(14), ErrorType.BAD_REQUEST, BadRequest.BAD_MULTIPART),
    "unknown multipart reply": (
        message(MessageType.MULTIPART_REPLY, pack("!HH4x", 14, 0)),
        ErrorType.BAD_REQUEST,
        BadRequest.BAD_MULTIPART,
    ),
    "desc with a body": (multipart(MultipartType.DESC, b"x"), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "port desc with a body": (multipart(MultipartType.PORT_DESC, bytes(8)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "flow request, short": (multipart(MultipartType.FLOW, bytes(31)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "flow request without a match": (multipart(MultipartType.FLOW, bytes(32)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "flow request, long": (
        multipart(MultipartType.FLOW, bytes(32) + match() + bytes(8)),
        ErrorType.BAD_REQUEST,
        BadRequest.BAD_LEN,
    ),
    "aggregate request, bad match": (
        multipart(MultipartType.AGGREGATE, bytes(32) + match(oxm("tcp_dst", 1))),
        ErrorType.BAD_MATCH,
        BadMatch.BAD_PREREQ,
    ),
    "port request, long": (multipart(MultipartType.PORT_STATS, bytes(12)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "queue request, short": (multipart(MultipartType.QUEUE, bytes(4)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "group request, short": (multipart(MultipartType.GROUP, bytes(4)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "meter request, long": (multipart(MultipartType.METER, bytes(9)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "meter config request, short": (multipart(MultipartType.METER_CONFIG, bytes(7)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "experimenter request, short": (multipart(MultipartType.EXPERIMENTER, bytes(7)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    # table features
    "table, cut": (
        multipart(MultipartType.TABLE_FEATURES, bytes(63)),
        ErrorType.TABLE_FEATURES_FAILED,
        TableFeaturesFailed.BAD_LEN,
    ),
    "table of no length": (table_features(b"", 0), ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_LEN),
    "table, too long": (table_features(b"", 72), ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_LEN),
    "property of no length": (
        table_features(pack("!HH4x", 0, 0)),
        ErrorType.TABLE_FEATURES_FAILED,
        TableFeaturesFailed.BAD_LEN,
    ),
    "property without padding": (
        table_features(pack("!HH", 0, 4)),
        ErrorType.TABLE_FEATURES_FAILED,
        TableFeaturesFailed.BAD_LEN,
    ),
    "property, cut": (table_features(b"\0\0"), ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_LEN),
    "unknown property": (table_features(pack("!HH4x", 9, 4)), ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_TYPE),
    "instruction id of 8 bytes": (
        table_features(pack("!HHHH4x4x", 0, 12, 1, 8)),
        ErrorType.TABLE_FEATURES_FAILED,
        TableFeaturesFailed.BAD_LEN,
    ),
    "instruction id, cut": (
        table_features(pack("!HHH2x", 0, 6, 1)),
        ErrorType.TABLE_FEATURES_FAILED,
        TableFeaturesFailed.BAD_LEN,
    ),
    "OXM id, cut": (table_features(pack("!HHH2x", 8, 6, 0x8000)), ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_LEN),
    "experimenter property, cut": (
        table_features(pack("!HHI", 0xFFFE, 8, 1)),
        ErrorType.TABLE_FEATURES_FAILED,
        TableFeaturesFailed.BAD_LEN,
    ),
    # numbers that an enumeration or a set of flags does not have
    "flow mod command": (flow_mod(command=5), ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_COMMAND),
    "flow mod flags": (flow_mod(flags=0x20), ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_FLAGS),
    "switch config": (
        message(MessageType.SET_CONFIG, pack("!HH", 3, 0)),
        ErrorType.SWITCH_CONFIG_FAILED,
        SwitchConfigFailed.BAD_FLAGS,
    ),
    "role": (message(MessageType.ROLE_REQUEST, pack("!I4xQ", 4, 0)), ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.BAD_ROLE),
    "table config": (message(MessageType.TABLE_MOD, pack("!B3xI", 0, 4)), ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_CONFIG),
    "port config": (port_mod(config=2), ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_CONFIG),
    "port config mask": (port_mod(mask=0x80), ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_CONFIG),
    "port features": (port_mod(advertise=0x10000), ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_ADVERTISE),
    "group command": (group_mod(command=3), ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_COMMAND),
    "group type": (group_mod(kind=4), ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_TYPE),
    "meter command": (meter_mod(command=3), ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_COMMAND),
    "meter flags": (meter_mod(flags=0x10), ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_FLAGS),
    # buckets and bands
    "bucket, cut": (group_mod(bytes(8)), ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_BUCKET),
    "bucket of no length": (group_mod(bytes(16)), ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_BUCKET),
    "bucket, too long": (group_mod(pack("!HHII4x", 24, 0, 0, 0)), ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_BUCKET),
    "bucket of odd length": (
        group_mod(pack("!HHII4x", 20, 0, 0, 0) + bytes(8)),
        ErrorType.GROUP_MOD_FAILED,
        GroupModFailed.BAD_BUCKET,
    ),
    "bucket's action": (group_mod(pack("!HHII4xHH4x", 24, 0, 0, 0, 99, 8)), ErrorType.BAD_ACTION, BadAction.BAD_TYPE),
    "group of too many buckets": (
        group_mod(pack("!HHII4x", 16, 0, 0, 0) * 4093),
        ErrorType.GROUP_MOD_FAILED,
        GroupModFailed.OUT_OF_BUCKETS,
    ),
    "band, cut": (meter_mod(bytes(8)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "band of no length": (meter_mod(pack("!HHII4x", 1, 0, 1, 1)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "band of 24 bytes": (meter_mod(pack("!HHII12x", 1, 24, 1, 1)), ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "unknown band": (meter_mod(pack("!HHII4x", 3, 16, 1, 1)), ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_BAND),
    "meter of too many bands": (
        meter_mod(pack("!HHII4x", 1, 16, 1, 1) * 4093),
        ErrorType.METER_MOD_FAILED,
        MeterModFailed.OUT_OF_BANDS,
    ),
    # the match
    "standard match": (flow_mod(match(kind=0)), ErrorType.BAD_MATCH, BadMatch.BAD_TYPE),
    "match of no length": (flow_mod(match(length=0)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "match of 3 bytes": (flow_mod(match(length=3)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "match past the end": (flow_mod(match(length=9)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "match without its padding": (flow_mod(match(oxm("in_port", 1)))[:-4], ErrorType.BAD_REQUEST, BadRequest.BAD_LEN),
    "OXM header, cut": (flow_mod(match(length=6)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "OXM value, cut": (flow_mod(match(oxm("in_port", 1), length=11)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "OXM mask, cut": (flow_mod(match(oxm("eth_dst", 0, 0), length=15)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "OXM length 3": (matching(pack("!I3x", 0x80000003)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "OXM length without the mask's": (matching(pack("!I6x", 0x80000706)), ErrorType.BAD_MATCH, BadMatch.BAD_LEN),
    "OXM field 40": (matching(pack("!I4x", 0x80005004)), ErrorType.BAD_MATCH, BadMatch.BAD_FIELD),
    "OXM class NXM 1": (matching(pack("!I4x", 0x00010004)), ErrorType.BAD_MATCH, BadMatch.BAD_FIELD),
    "OXM class experimenter": (matching(pack("!II", 0xFFFF0004, 0x4F4E4600)), ErrorType.BAD_MATCH, BadMatch.BAD_FIELD),
    "a mask on in_port": (matching(pack("!III", 0x80000108, 1, 1)), ErrorType.BAD_MATCH, BadMatch.BAD_MASK),
    "a mask on eth_type": (matching(pack("!IHH", 0x80000B04, 0x800, 0xFFFF)), ErrorType.BAD_MATCH, BadMatch.BAD_MASK),
    "value outside the mask": (matching(oxm("eth_dst", 3, 1)), ErrorType.BAD_MATCH, BadMatch.BAD_WILDCARDS),
    "PCP of 4 bits": (matching(oxm("vlan_vid", 0x1001), oxm("vlan_pcp", 8)), ErrorType.BAD_MATCH, BadMatch.BAD_VALUE),
    "DSCP of 7 bits": (matching(ETH_IPV4, oxm("ip_dscp", 64)), ErrorType.BAD_MATCH, BadMatch.BAD_VALUE),
    "flow label of 21 bits": (matching(ETH_IPV6, oxm("ipv6_flabel", 1 << 20)), ErrorType.BAD_MATCH, BadMatch.BAD_VALUE),
    "flow label's mask of 21 bits": (matching(ETH_IPV6, oxm("ipv6_flabel", 0, 1 << 20)), ErrorType.BAD_MATCH, BadMatch.BAD_MASK),
    "VID without PRESENT": (matching(oxm("vlan_vid", 5)), ErrorType.BAD_MATCH, BadMatch.BAD_VALUE),
    "VID without PRESENT, full mask": (matching(oxm("vlan_vid", 5, 0x1FFF)), ErrorType.BAD_MATCH, BadMatch.BAD_VALUE),
    "VID of 14 bits": (matching(oxm("vlan_vid", 0x3001)), ErrorType.BAD_MATCH, BadMatch.BAD_VALUE),
    "another physical port": (matching(oxm("in_port", 1), oxm("in_phy_port", 2)), ErrorType.BAD_MATCH, BadMatch.BAD_VALUE),
    "physical port alone": (matching(oxm("in_phy_port", 2)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "PCP alone": (matching(oxm("vlan_pcp", 1)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "PCP of no VLAN": (matching(oxm("vlan_vid", 0), oxm("vlan_pcp", 1)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "IP protocol of ARP": (matching(ETH_ARP, oxm("ip_proto", 6)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "IPv4 address over IPv6": (matching(ETH_IPV6, oxm("ipv4_src", 1)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "TCP port without protocol": (matching(ETH_IPV4, oxm("tcp_dst", 1)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "UDP port of TCP": (matching(ETH_IPV4, oxm("ip_proto", 6), oxm("udp_dst", 1)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "ICMPv6 over IPv4": (matching(ETH_IPV4, oxm("ip_proto", 1), oxm("icmpv6_type", 1)), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "source link address in an advertisement": (
        matching(ETH_IPV6, oxm("ip_proto", 58), oxm("icmpv6_type", 136), oxm("ipv6_nd_sll", 1)),
        ErrorType.BAD_MATCH,
        BadMatch.BAD_PREREQ,
    ),
    "prerequisite after what needs it": (matching(oxm("ip_proto", 6), ETH_IPV4), ErrorType.BAD_MATCH, BadMatch.BAD_PREREQ),
    "the same field twice": (matching(oxm("in_port", 1), oxm("in_port", 1)), ErrorType.BAD_MATCH, BadMatch.DUP_FIELD),
    "the same field twice, once masked": (
        matching(oxm("eth_dst", 1), oxm("eth_dst", 0, 1)),
        ErrorType.BAD_MATCH,
        BadMatch.DUP_FIELD,
    ),
    # instructions
    "unknown instruction": (instruct(pack("!HH4x", 7, 8)), ErrorType.BAD_INSTRUCTION, BadInstruction.UNKNOWN_INST),
    "instruction 0": (instruct(pack("!HH4x", 0, 8)), ErrorType.BAD_INSTRUCTION, BadInstruction.UNKNOWN_INST),
    "instruction of no length": (instruct(pack("!HH4x", 4, 0)), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN),
    "instruction of 4 bytes": (instruct(pack("!HH4x", 5, 4)), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN),
    "instruction of 12 bytes": (instruct(pack("!HH12x", 4, 12)), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN),
    "instruction past the end": (instruct(pack("!HH4x", 4, 16)), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN),
    "instruction, cut": (instruct(b"\0\1\0\4"), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN),
    "goto table of 16 bytes": (instruct(pack("!HH12x", 1, 16)), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN),
    "write metadata of 16 bytes": (instruct(pack("!HH12x", 2, 16)), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_LEN),
    "clear actions with actions": (
        instruct(pack("!HH4x", 5, 24) + OUTPUT),
        ErrorType.BAD_INSTRUCTION,
        BadInstruction.BAD_LEN,
    ),
    "experimenter's instruction": (
        instruct(pack("!HHI", 0xFFFF, 8, 0x2320)),
        ErrorType.BAD_INSTRUCTION,
        BadInstruction.BAD_EXPERIMENTER,
    ),
    "the same instruction twice": (instruct(pack("!HH4x", 4, 8) * 2), ErrorType.BAD_INSTRUCTION, BadInstruction.UNSUP_INST),
    "a flow mod that statistics could not return": (
        apply(OUTPUT * ((0xFFF0 - 64) // 16)),
        ErrorType.BAD_ACTION,
        BadAction.TOO_MANY,
    ),
    # actions
    "unknown action": (apply(pack("!HH4x", 1, 8)), ErrorType.BAD_ACTION, BadAction.BAD_TYPE),
    "action of no length": (apply(pack("!HH4x", 18, 0)), ErrorType.BAD_ACTION, BadAction.BAD_LEN),
    "action of 4 bytes": (apply(pack("!HH4x", 18, 4)), ErrorType.BAD_ACTION, BadAction.BAD_LEN),
    "action past the end": (apply(pack("!HHI", 0, 16, 1)), ErrorType.BAD_ACTION, BadAction.BAD_LEN),
    "output of 8 bytes": (apply(pack("!HHI", 0, 8, 1)), ErrorType.BAD_ACTION, BadAction.BAD_LEN),
    "push VLAN of 16 bytes": (apply(pack("!HHH10x", 17, 16, 0x8100)), ErrorType.BAD_ACTION, BadAction.BAD_LEN),
    "action of 12 bytes": (apply(pack("!HH12x", 25, 12)), ErrorType.BAD_ACTION, BadAction.BAD_LEN),
    "experimenter's action": (apply(pack("!HHI", 0xFFFF, 8, 0x2320)), ErrorType.BAD_ACTION, BadAction.BAD_EXPERIMENTER),
    "packet out's actions past the end": (
        message(MessageType.PACKET_OUT, pack("!IIH6x", 0, 1, 16) + bytes(8)),
        ErrorType.BAD_REQUEST,
        BadRequest.BAD_LEN,
    ),
    "packet out's actions of 4 bytes": (
        message(MessageType.PACKET_OUT, pack("!IIH6x", 0, 1, 4) + bytes(8)),
        ErrorType.BAD_REQUEST,
        BadRequest.BAD_LEN,
    ),
    "packet out's action": (
        message(MessageType.PACKET_OUT, pack("!IIH6x", 0, 1, 8) + pack("!HH4x", 99, 8)),
        ErrorType.BAD_ACTION,
        BadAction.BAD_TYPE,
    ),
    # set field
    "set in_port": (set_field(oxm("in_port", 1)), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
    "set metadata": (set_field(oxm("metadata", 1)), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
    "set field 40": (set_field(pack("!I4x", 0x80005004)), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
    "set an NXM": (set_field(pack("!I4x", 0x00010004)), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
    "set with a mask": (set_field(oxm("eth_dst", 1, 1)), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
    "set ip_proto with a mask": (set_field(pack("!I2x", 0x80001502)), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
    "set eth_dst of 5 bytes": (set_field(pack("!I5x", 0x80000605)), ErrorType.BAD_ACTION, BadAction.BAD_SET_LEN),
    "set eth_dst in 8 bytes": (apply(pack("!HHI", 25, 8, 0x80000606)), ErrorType.BAD_ACTION, BadAction.BAD_SET_LEN),
    "set eth_dst in 24 bytes": (set_field(oxm("eth_dst", 1) + bytes(8)), ErrorType.BAD_ACTION, BadAction.BAD_SET_LEN),
    "set a PCP of 4 bits": (set_field(oxm("vlan_pcp", 8)), ErrorType.BAD_ACTION, BadAction.BAD_SET_ARGUMENT),
    "set a VID without PRESENT": (set_field(oxm("vlan_vid", 5)), ErrorType.BAD_ACTION, BadAction.BAD_SET_ARGUMENT),
}


@pytest.mark.parametrize("raw", RIGHT.values(), ids=RIGHT.keys())
def test_right(raw: bytes) -> None:
    decode(raw)


@pytest.mark.parametrize(("raw", "kind", "code"), WRONG.values(), ids=WRONG.keys())
def test_wrong(raw: bytes, kind: ErrorType, code: IntEnum) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(raw)
    assert error_name(caught.value.type, caught.value.code) == error_name(kind, code), str(caught.value)
    assert caught.value.data == raw
    assert caught.value.reason


def test_hello_takes_anything() -> None:
    """A Hello of any version, and elements that are unknown, ill-formed or absent (section 7.5.1)."""
    bitmap = pack("!HHI", 1, 8, 1 << 4 | 1 << 1)
    unknown = pack("!HH4x", 9, 8)
    cases = {
        b"": (),
        bitmap: (1, 4),
        unknown + bitmap: (1, 4),
        pack("!HHB3x", 9, 5, 0) + bitmap: (1, 4),  # an element is padded to 8 bytes
        pack("!HHII4x", 1, 12, 1 << 4, 1 << 1): (4, 33),
        pack("!HH", 1, 0) + bitmap: (),
        pack("!HH", 1, 99): (),
        b"\0": (),
        pack("!HHB3x", 1, 5, 0xFF): (),
        pack("!HH", 1, 4 + 4 * 64) + b"\xff" * 4 * 64: tuple(range(256)),
    }
    for body, versions in cases.items():
        assert decode(message(MessageType.HELLO, body, version=6)) == Hello(versions, 6, xid=0x99)


def test_an_error_of_another_version_can_be_read() -> None:
    """A peer that does not speak OpenFlow 1.3 says so in its own version's message."""
    assert decode(message(MessageType.ERROR, pack("!HH", 0, 0) + b"no", version=1))


def test_padding_may_hold_anything() -> None:
    padded = flow_mod(match()[:4] + b"\xff" * 4)
    assert decode(padded) == FlowMod(priority=1, match=MATCH_ALL, xid=0x99)
