"""Our codec against os-ken's, written by other people: what its controller sends we read, and what we send it reads.

One table for each direction. The first is compared byte for byte, both ways; the second through the attributes that os-ken makes
of our bytes, because os-ken cannot serialise a switch's messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Any

import pytest
from os_ken.ofproto import nicira_ext, ofproto_parser, ofproto_protocol, ofproto_v1_3, ofproto_v1_3_parser

from appliance.model import actions as act
from appliance.model.fields import BY_NAME, EXTENSION_FIELDS, OXM_FIELDS
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import Port, PortConfig, PortCounters, PortNo, PortState
from appliance.openflow import constants, errors, flow, group, handshake, meter, queue, role, table_features
from appliance.openflow import messages as m
from appliance.openflow.codec import HEADER, decode, encode
from appliance.openflow.oxm import oxm_id

DATAPATH = ofproto_protocol.ProtocolDesc(version=4)
OFP = ofproto_v1_3
P = ofproto_v1_3_parser
XID = 0x01020304
OPENFLOW_BASIC = 0x8000


def match(**fields: int | tuple[int, int]) -> Match:
    items = [(BY_NAME[name], value) for name, value in fields.items()]
    return Match.of(MatchField(field, *(value if isinstance(value, tuple) else (value,))) for field, value in items)


def set_field(name: str, value: int) -> act.SetField:
    return act.SetField(BY_NAME[name], value)


# ── what os-ken's controller sends ─────────────────────────────────────────────────────────────────────────────────────
def flow_mod(match: Any = None, instructions: Any = (), **fields: int) -> Any:
    fields = {"out_port": OFP.OFPP_ANY, "out_group": OFP.OFPG_ANY, **fields}
    return P.OFPFlowMod(DATAPATH, match=match or P.OFPMatch(), instructions=list(instructions), **fields)


def apply(*actions: Any) -> list[Any]:
    return [P.OFPInstructionActions(OFP.OFPIT_APPLY_ACTIONS, list(actions))]


def applied(*actions: act.Action) -> tuple[act.Instruction, ...]:
    return (act.ApplyActions(actions),)


MAC = "00:00:00:00:00:01"
ALL_ONES_MAC = "ff:ff:ff:ff:ff:00"

FROM_CONTROLLER: dict[str, tuple[Any, m.Message]] = {
    "hello": (
        P.OFPHello(DATAPATH),
        m.Hello(version=4, xid=XID),  # os-ken forgets the bitmap
    ),
    "error": (P.OFPErrorMsg(DATAPATH, 4, 9, b"x" * 64), m.Error(4, 9, b"x" * 64, xid=XID)),
    "echo request": (P.OFPEchoRequest(DATAPATH, b"ping"), m.EchoRequest(b"ping", xid=XID)),
    "echo reply": (P.OFPEchoReply(DATAPATH, b"pong"), m.EchoReply(b"pong", xid=XID)),
    "experimenter": (P.OFPExperimenter(DATAPATH, 0x2320, 7, b"12345"), m.Experimenter(0x2320, 7, b"12345", xid=XID)),
    "features request": (P.OFPFeaturesRequest(DATAPATH), m.FeaturesRequest(xid=XID)),
    "get config request": (P.OFPGetConfigRequest(DATAPATH), m.GetConfigRequest(xid=XID)),
    "set config": (P.OFPSetConfig(DATAPATH, 1, 128), m.SetConfig(handshake.FragmentHandling.DROP, 128, xid=XID)),
    "barrier request": (P.OFPBarrierRequest(DATAPATH), m.BarrierRequest(xid=XID)),
    "barrier reply": (P.OFPBarrierReply(DATAPATH), m.BarrierReply(xid=XID)),
    "packet out": (
        P.OFPPacketOut(DATAPATH, OFP.OFP_NO_BUFFER, 3, [P.OFPActionOutput(OFP.OFPP_TABLE, 0)], b"frame"),
        m.PacketOut(act.OFP_NO_BUFFER, 3, (act.Output(PortNo.TABLE, 0),), b"frame", xid=XID),
    ),
    "packet out, no actions, no data": (
        P.OFPPacketOut(DATAPATH, 7, OFP.OFPP_CONTROLLER, [], None),
        m.PacketOut(7, PortNo.CONTROLLER, (), b"", xid=XID),
    ),
    "flow mod, empty": (flow_mod(), m.FlowMod(xid=XID)),
    "flow mod, every number": (
        flow_mod(
            cookie=0x1122334455667788,
            cookie_mask=0xFFEEDDCCBBAA9988,
            table_id=5,
            command=OFP.OFPFC_DELETE_STRICT,
            idle_timeout=10,
            hard_timeout=20,
            priority=30,
            buffer_id=40,
            out_port=50,
            out_group=60,
            flags=OFP.OFPFF_SEND_FLOW_REM | OFP.OFPFF_NO_BYT_COUNTS,
        ),
        m.FlowMod(
            cookie=0x1122334455667788,
            cookie_mask=0xFFEEDDCCBBAA9988,
            table_id=5,
            command=m.FlowModCommand.DELETE_STRICT,
            idle_timeout=10,
            hard_timeout=20,
            priority=30,
            buffer_id=40,
            out_port=50,
            out_group=60,
            flags=m.FlowModFlags.SEND_FLOW_REM | m.FlowModFlags.NO_BYT_COUNTS,
            xid=XID,
        ),
    ),
    "flow mod, layer 2": (
        flow_mod(
            P.OFPMatch(
                in_port=1, eth_dst=MAC, eth_src=("0a:00:00:00:00:00", ALL_ONES_MAC), eth_type=0x806, vlan_vid=0x1064, vlan_pcp=5
            ),
            apply(P.OFPActionPopVlan(), P.OFPActionOutput(2, 0xFFFF)),
        ),
        m.FlowMod(
            match=match(in_port=1, eth_dst=1, eth_src=(0x0A << 40, 0xFFFFFFFFFF00), eth_type=0x806, vlan_vid=0x1064, vlan_pcp=5),
            instructions=applied(act.PopVlan(), act.Output(2)),
            xid=XID,
        ),
    ),
    "flow mod, any VLAN, physical port, metadata": (
        flow_mod(P.OFPMatch(in_port=9, in_phy_port=9, metadata=(0x100, 0xFF00), vlan_vid=(0x1000, 0x1000), tunnel_id=(4, 6))),
        m.FlowMod(
            match=match(in_port=9, in_phy_port=9, metadata=(0x100, 0xFF00), vlan_vid=(0x1000, 0x1000), tunnel_id=(4, 6)), xid=XID
        ),
    ),
    "flow mod, a tunnel's addresses": (
        flow_mod(
            P.OFPMatch(tun_ipv4_src=("192.0.2.0", "255.255.255.0"), tun_ipv4_dst="192.0.2.9"),
            apply(P.OFPActionSetField(tun_ipv4_dst="192.0.2.1")),
        ),
        m.FlowMod(
            match=match(tun_src=(0xC0000200, 0xFFFFFF00), tun_dst=0xC0000209),
            instructions=applied(set_field("tun_dst", 0xC0000201)),
            xid=XID,
        ),
    ),
    "flow mod, TCP over IPv4": (
        flow_mod(
            P.OFPMatch(
                eth_type=0x800,
                ip_dscp=46,
                ip_ecn=1,
                ip_proto=6,
                ipv4_src=("10.0.0.0", "255.0.0.0"),
                ipv4_dst="192.0.2.1",
                tcp_dst=80,
            )
        ),
        m.FlowMod(
            match=match(
                eth_type=0x800,
                ip_dscp=46,
                ip_ecn=1,
                ip_proto=6,
                ipv4_src=(0x0A000000, 0xFF000000),
                ipv4_dst=0xC0000201,
                tcp_dst=80,
            ),
            xid=XID,
        ),
    ),
    "flow mod, neighbour discovery": (
        flow_mod(
            P.OFPMatch(
                eth_type=0x86DD,
                ip_proto=58,
                ipv6_src=("2001:db8::", "ffff:ffff::"),
                ipv6_flabel=(0x12345, 0xFFFFF),
                icmpv6_type=135,
                icmpv6_code=0,
                ipv6_nd_target="2001:db8::1",
                ipv6_nd_sll=MAC,
                ipv6_exthdr=(0x40, 0x40),
            )
        ),
        m.FlowMod(
            match=match(
                eth_type=0x86DD,
                ip_proto=58,
                ipv6_src=(0x20010DB8 << 96, 0xFFFFFFFF << 96),
                ipv6_flabel=(0x12345, 0xFFFFF),
                icmpv6_type=135,
                icmpv6_code=0,
                ipv6_nd_target=0x20010DB8 << 96 | 1,
                ipv6_nd_sll=1,
                ipv6_exthdr=(0x40, 0x40),
            ),
            xid=XID,
        ),
    ),
    "flow mod, ARP": (
        flow_mod(
            P.OFPMatch(
                eth_type=0x806, arp_op=1, arp_spa="10.0.0.1", arp_tpa=("10.0.0.0", "255.255.255.0"), arp_sha=MAC, arp_tha=MAC
            )
        ),
        m.FlowMod(
            match=match(eth_type=0x806, arp_op=1, arp_spa=0x0A000001, arp_tpa=(0x0A000000, 0xFFFFFF00), arp_sha=1, arp_tha=1),
            xid=XID,
        ),
    ),
    "flow mod, MPLS": (
        flow_mod(P.OFPMatch(eth_type=0x8847, mpls_label=0xABCDE, mpls_tc=3, mpls_bos=1)),
        m.FlowMod(match=match(eth_type=0x8847, mpls_label=0xABCDE, mpls_tc=3, mpls_bos=1), xid=XID),
    ),
    "flow mod, PBB": (
        flow_mod(P.OFPMatch(eth_type=0x88E7, pbb_isid=(0x123400, 0xFFFF00))),
        m.FlowMod(match=match(eth_type=0x88E7, pbb_isid=(0x123400, 0xFFFF00)), xid=XID),
    ),
    "flow mod, every instruction": (
        flow_mod(
            None,
            [
                P.OFPInstructionMeter(3),
                *apply(),
                P.OFPInstructionActions(OFP.OFPIT_CLEAR_ACTIONS, []),
                P.OFPInstructionActions(OFP.OFPIT_WRITE_ACTIONS, [P.OFPActionGroup(8)]),
                P.OFPInstructionWriteMetadata(0x1234, 0xFFFF),
                P.OFPInstructionGotoTable(7),
            ],
        ),
        m.FlowMod(
            instructions=(
                act.Meter(3),
                act.ApplyActions(()),
                act.ClearActions(),
                act.WriteActions((act.Group(8),)),
                act.WriteMetadata(0x1234, 0xFFFF),
                act.GotoTable(7),
            ),
            xid=XID,
        ),
    ),
    "flow mod, every action": (
        flow_mod(
            None,
            apply(
                P.OFPActionOutput(OFP.OFPP_CONTROLLER, 128),
                P.OFPActionCopyTtlOut(),
                P.OFPActionCopyTtlIn(),
                P.OFPActionSetMplsTtl(9),
                P.OFPActionDecMplsTtl(),
                P.OFPActionPushVlan(0x88A8),
                P.OFPActionPopVlan(),
                P.OFPActionPushMpls(0x8847),
                P.OFPActionPopMpls(0x800),
                P.OFPActionSetQueue(4),
                P.OFPActionGroup(5),
                P.OFPActionSetNwTtl(64),
                P.OFPActionDecNwTtl(),
                P.OFPActionSetField(eth_dst=MAC),
                P.OFPActionSetField(vlan_vid=0x1002),
                P.OFPActionSetField(vlan_pcp=7),
                P.OFPActionSetField(ipv4_src="192.0.2.9"),
                P.OFPActionSetField(ipv6_dst="::2"),
                P.OFPActionSetField(tcp_src=443),
                P.OFPActionSetField(tunnel_id=77),
                P.OFPActionPushPbb(0x88E7),
                P.OFPActionPopPbb(),
            ),
        ),
        m.FlowMod(
            instructions=applied(
                act.Output(PortNo.CONTROLLER, 128),
                act.CopyTtlOut(),
                act.CopyTtlIn(),
                act.SetMplsTtl(9),
                act.DecMplsTtl(),
                act.PushVlan(0x88A8),
                act.PopVlan(),
                act.PushMpls(0x8847),
                act.PopMpls(0x800),
                act.SetQueue(4),
                act.Group(5),
                act.SetNwTtl(64),
                act.DecNwTtl(),
                set_field("eth_dst", 1),
                set_field("vlan_vid", 0x1002),
                set_field("vlan_pcp", 7),
                set_field("ipv4_src", 0xC0000209),
                set_field("ipv6_dst", 2),
                set_field("tcp_src", 443),
                set_field("tunnel_id", 77),
                act.PushPbb(0x88E7),
                act.PopPbb(),
            ),
            xid=XID,
        ),
    ),
    "group mod": (
        P.OFPGroupMod(
            DATAPATH,
            OFP.OFPGC_MODIFY,
            OFP.OFPGT_FF,
            11,
            [P.OFPBucket(0, 3, OFP.OFPG_ANY, [P.OFPActionOutput(3, 0)]), P.OFPBucket(2, OFP.OFPP_ANY, 12, [])],
        ),
        m.GroupMod(
            m.GroupModCommand.MODIFY,
            m.GroupType.FF,
            11,
            (m.Bucket(watch_port=3, actions=(act.Output(3, 0),)), m.Bucket(weight=2, watch_group=12)),
            xid=XID,
        ),
    ),
    "port mod": (
        P.OFPPortMod(DATAPATH, 3, MAC, OFP.OFPPC_PORT_DOWN, OFP.OFPPC_PORT_DOWN | OFP.OFPPC_NO_FWD, 0x2820),
        m.PortMod(3, bytes(5) + b"\1", PortConfig.PORT_DOWN, PortConfig.PORT_DOWN | PortConfig.NO_FWD, 0x2820, xid=XID),
    ),
    "table mod": (P.OFPTableMod(DATAPATH, 255, 3), m.TableMod(255, 3, xid=XID)),
    "meter mod": (
        P.OFPMeterMod(
            DATAPATH,
            OFP.OFPMC_ADD,
            OFP.OFPMF_KBPS | OFP.OFPMF_BURST,
            7,
            [P.OFPMeterBandDrop(1000, 100), P.OFPMeterBandDscpRemark(500, 50, 2), P.OFPMeterBandExperimenter(1, 2, 3)],
        ),
        m.MeterMod(
            m.MeterModCommand.ADD,
            m.MeterFlags.KBPS | m.MeterFlags.BURST,
            7,
            (m.MeterBandDrop(1000, 100), m.MeterBandDscpRemark(500, 50, 2), m.MeterBandExperimenter(1, 2, 3)),
            xid=XID,
        ),
    ),
    "queue get config request": (P.OFPQueueGetConfigRequest(DATAPATH, 5), m.QueueGetConfigRequest(5, xid=XID)),
    "role request": (P.OFPRoleRequest(DATAPATH, OFP.OFPCR_ROLE_MASTER, 1 << 63), m.RoleRequest(m.Role.MASTER, 1 << 63, xid=XID)),
    "get async request": (P.OFPGetAsyncRequest(DATAPATH), m.GetAsyncRequest(xid=XID)),
    "set async": (P.OFPSetAsync(DATAPATH, [7, 1], [6, 2], [5, 3]), m.SetAsync((7, 1), (6, 2), (5, 3), xid=XID)),
    "desc request": (P.OFPDescStatsRequest(DATAPATH), m.MultipartRequest(m.DescRequest(), xid=XID)),
    "flow stats request": (
        P.OFPFlowStatsRequest(DATAPATH, 0, 3, 4, 5, 6, 7, P.OFPMatch(in_port=8)),
        m.MultipartRequest(m.FlowStatsRequest(3, 4, 5, 6, 7, match(in_port=8)), xid=XID),
    ),
    "aggregate stats request": (
        P.OFPAggregateStatsRequest(DATAPATH, 0, 0xFF, OFP.OFPP_ANY, OFP.OFPG_ANY, 0, 0, P.OFPMatch(eth_type=0x800)),
        m.MultipartRequest(m.AggregateStatsRequest(match=match(eth_type=0x800)), xid=XID),
    ),
    "table stats request": (P.OFPTableStatsRequest(DATAPATH), m.MultipartRequest(m.TableStatsRequest(), xid=XID)),
    "port stats request": (P.OFPPortStatsRequest(DATAPATH, 0, 3), m.MultipartRequest(m.PortStatsRequest(3), xid=XID)),
    "queue stats request": (P.OFPQueueStatsRequest(DATAPATH, 0, 3, 4), m.MultipartRequest(m.QueueStatsRequest(3, 4), xid=XID)),
    "group stats request": (P.OFPGroupStatsRequest(DATAPATH, 0, 3), m.MultipartRequest(m.GroupStatsRequest(3), xid=XID)),
    "group desc request": (P.OFPGroupDescStatsRequest(DATAPATH), m.MultipartRequest(m.GroupDescRequest(), xid=XID)),
    "group features request": (P.OFPGroupFeaturesStatsRequest(DATAPATH), m.MultipartRequest(m.GroupFeaturesRequest(), xid=XID)),
    "meter stats request": (P.OFPMeterStatsRequest(DATAPATH, 0, 3), m.MultipartRequest(m.MeterStatsRequest(3), xid=XID)),
    "meter config request": (P.OFPMeterConfigStatsRequest(DATAPATH, 0, 3), m.MultipartRequest(m.MeterConfigRequest(3), xid=XID)),
    "meter features request": (P.OFPMeterFeaturesStatsRequest(DATAPATH), m.MultipartRequest(m.MeterFeaturesRequest(), xid=XID)),
    "table features request, asking": (
        P.OFPTableFeaturesStatsRequest(DATAPATH),
        m.MultipartRequest(m.TableFeaturesRequest(), xid=XID),
    ),
    "table features request, setting": (
        P.OFPTableFeaturesStatsRequest(
            DATAPATH,
            body=[
                P.OFPTableFeaturesStats(
                    2,
                    b"routes",
                    3,
                    4,
                    0,
                    5,
                    [
                        P.OFPTableFeaturePropInstructions(0, instruction_ids=[P.OFPInstructionId(1), P.OFPInstructionId(4)]),
                        P.OFPTableFeaturePropNextTables(2, table_ids=[3, 4, 5]),
                        P.OFPTableFeaturePropActions(6, action_ids=[P.OFPActionId(0)]),
                        P.OFPTableFeaturePropOxm(8, oxm_ids=[]),
                        P.OFPTableFeaturePropExperimenter(0xFFFE, experimenter=6, exp_type=7, data=[8]),
                    ],
                )
            ],
        ),
        m.MultipartRequest(
            m.TableFeaturesRequest(
                (
                    m.TableFeatures(
                        2,
                        "routes",
                        3,
                        4,
                        0,
                        5,
                        (
                            m.InstructionsProperty(m.TableFeaturePropertyType.INSTRUCTIONS, (1, 4)),
                            m.NextTablesProperty(m.TableFeaturePropertyType.NEXT_TABLES, (3, 4, 5)),
                            m.ActionsProperty(m.TableFeaturePropertyType.APPLY_ACTIONS, (0,)),
                            m.OxmProperty(m.TableFeaturePropertyType.MATCH),
                            m.ExperimenterProperty(m.TableFeaturePropertyType.EXPERIMENTER, 6, 7, bytes((0, 0, 0, 8))),
                        ),
                    ),
                )
            ),
            xid=XID,
        ),
    ),
    "port desc request": (P.OFPPortDescStatsRequest(DATAPATH), m.MultipartRequest(m.PortDescRequest(), xid=XID)),
    "experimenter request": (
        P.OFPExperimenterStatsRequest(DATAPATH, 0, 0x2320, 4, b"abcd"),
        m.MultipartRequest(m.ExperimenterMultipart(0x2320, 4, b"abcd"), xid=XID),
    ),
}


@pytest.mark.parametrize(("theirs", "ours"), FROM_CONTROLLER.values(), ids=FROM_CONTROLLER.keys())
def test_controllers_messages(theirs: Any, ours: m.Message) -> None:
    theirs.set_xid(XID)
    theirs.serialize()
    raw = bytes(theirs.buf)
    decoded = decode(raw)
    assert decoded == ours
    assert _fields(decoded) == _fields(ours)
    assert encode(ours) == raw


def _fields(message: m.Message) -> tuple[MatchField, ...]:
    """The order of a match's fields, which equality of matches leaves out."""
    if isinstance(message, m.FlowMod):
        return message.match.fields
    if isinstance(message, m.MultipartRequest) and isinstance(message.body, m.FlowStatsRequest | m.AggregateStatsRequest):
        return message.body.match.fields
    return ()


def test_every_field_of_the_table_is_the_peers() -> None:
    """Number, length and name of all 40 fields, from a match and from an OXM header."""
    for field in OXM_FIELDS:
        number, _, _ = OFP.oxm_from_user(field.name, None)
        assert number == OPENFLOW_BASIC << 7 | field.oxm, field.name
        raw = bytearray()
        OFP.oxm_serialize(number, b"\1" * field.oxm_length, None, raw, 0)
        assert int.from_bytes(raw[:4], "big") == oxm_id(field)
    assert [oxm_id(field) for field in EXTENSION_FIELDS] == [nicira_ext.NXM_NX_TUN_IPV4_SRC, nicira_ext.NXM_NX_TUN_IPV4_DST]


# ── what os-ken's controller reads ─────────────────────────────────────────────────────────────────────────────────────
def peer(message: m.Message) -> Any:
    """os-ken's reading of the first message that ours becomes."""
    raw = encode(message)
    version, kind, length, xid = HEADER.unpack_from(raw)
    parsed = ofproto_parser.msg(DATAPATH, version, kind, length, xid, raw)
    assert parsed is not None
    assert parsed.xid == message.xid
    return parsed


PORT = Port(
    3,
    "veth-h3",
    bytes.fromhex("0a0000000003"),
    PortConfig.NO_RECV,
    PortState.LIVE,
    0x840,
    0x841,
    0x842,
    0x843,
    10_000_000,
    40_000_000,
)
PEER_PORT = (3, "0a:00:00:00:00:03", b"veth-h3", 4, 4, 0x840, 0x841, 0x842, 0x843, 10_000_000, 40_000_000)
COUNTERS = PortCounters(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
PROPERTY = m.TableFeaturePropertyType


def _stats(entry: Any, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(entry, name) for name in names)


def _port(port: Any) -> tuple[Any, ...]:
    return (port.port_no, port.hw_addr, port.name.rstrip(b"\0"), *tuple(port)[3:])


FLOW_STATS = m.FlowStats(
    1,
    2,
    3,
    4,
    5,
    6,
    m.FlowModFlags.SEND_FLOW_REM,
    7,
    8,
    9,
    match(in_port=1, eth_dst=2),
    (*applied(act.Output(3), set_field("ipv4_dst", 4)), act.GotoTable(6)),
)

TO_CONTROLLER: dict[str, tuple[m.Message, Callable[[Any], Any], Any]] = {
    # ours, what to look at in theirs, what must be there
    "hello": (m.Hello((1, 4), 4, xid=1), lambda t: [element.versions for element in t.elements], [[1, 4]]),
    "error": (m.Error(4, 9, b"abc", xid=1), lambda t: (t.type, t.code, t.data), (4, 9, b"abc")),
    "echo request": (m.EchoRequest(b"x", xid=1), lambda t: t.data, b"x"),
    "echo reply": (m.EchoReply(b"x", xid=1), lambda t: t.data, b"x"),
    "experimenter": (m.Experimenter(1, 2, b"abc"), lambda t: (t.experimenter, t.exp_type, t.data), (1, 2, b"abc")),
    "features reply": (
        m.FeaturesReply(0x1122334455667788, 256, 254, 1, 0x4F, xid=9),
        lambda t: (t.datapath_id, t.n_buffers, t.n_tables, t.auxiliary_id, t.capabilities),
        (0x1122334455667788, 256, 254, 1, 0x4F),
    ),
    "get config reply": (
        m.GetConfigReply(handshake.FragmentHandling.DROP, 128),
        lambda t: (t.flags, t.miss_send_len),
        (1, 128),
    ),
    "packet in": (
        m.PacketIn(0xFFFFFFFF, 60, PacketInReason.ACTION, 2, 0x77, match(in_port=3, metadata=4), b"\1" * 60),
        lambda t: (t.buffer_id, t.total_len, t.reason, t.table_id, t.cookie, t.match["in_port"], t.match["metadata"], t.data),
        (0xFFFFFFFF, 60, 1, 2, 0x77, 3, 4, b"\1" * 60),
    ),
    "flow removed": (
        m.FlowRemoved(1, 2, m.FlowRemovedReason.HARD_TIMEOUT, 3, 4, 5, 6, 7, 8, 9, match(eth_type=0x800, ipv4_dst=1)),
        lambda t: (
            *_stats(t, "cookie", "priority", "reason", "table_id", "duration_sec", "duration_nsec", "idle_timeout", "hard_timeout"),
            *_stats(t, "packet_count", "byte_count"),
            t.match["ipv4_dst"],
        ),
        (1, 2, 1, 3, 4, 5, 6, 7, 8, 9, "0.0.0.1"),
    ),
    "port status": (m.PortStatus(m.PortReason.MODIFY, PORT), lambda t: (t.reason, _port(t.desc)), (2, PEER_PORT)),
    "role reply": (m.RoleReply(m.Role.SLAVE, 5), lambda t: (t.role, t.generation_id), (3, 5)),
    "get async reply": (
        m.GetAsyncReply((1, 2), (3, 4), (5, 6)),
        lambda t: (t.packet_in_mask, t.port_status_mask, t.flow_removed_mask),
        ([1, 2], [3, 4], [5, 6]),
    ),
    "queue get config reply": (
        m.QueueGetConfigReply(1, (m.PacketQueue(2, 1, (m.QueueMinRate(100), m.QueueMaxRate(900), m.QueueExperimenter(5, b"ab"))),)),
        lambda t: (
            t.port,
            [(q.queue_id, q.port, [type(p).__name__ for p in q.properties]) for q in t.queues],
            t.queues[0].properties[1].rate,
        ),
        (1, [(2, 1, ["OFPQueuePropMinRate", "OFPQueuePropMaxRate", "OFPQueuePropExperimenter"])], 900),
    ),
    "barrier reply": (m.BarrierReply(xid=3), lambda t: type(t), P.OFPBarrierReply),
    "desc": (
        m.MultipartReply(m.Desc("maker", "hardware", "software", "serial", "datapath")),
        lambda t: tuple(t.body),
        (b"maker", b"hardware", b"software", b"serial", b"datapath"),
    ),
    "flow stats": (
        m.MultipartReply(m.FlowStatsReply((FLOW_STATS, FLOW_STATS))),
        lambda t: [
            (
                *_stats(s, "table_id", "duration_sec", "duration_nsec", "priority", "idle_timeout", "hard_timeout", "flags"),
                *_stats(s, "cookie", "packet_count", "byte_count"),
                (s.match["in_port"], s.match["eth_dst"]),
                s.instructions[0].actions[0].port,
                s.instructions[0].actions[1].value,
                s.instructions[1].table_id,
            )
            for s in t.body
        ],
        [(1, 2, 3, 4, 5, 6, 1, 7, 8, 9, (1, "00:00:00:00:00:02"), 3, "0.0.0.4", 6)] * 2,
    ),
    "flow stats, none": (m.MultipartReply(m.FlowStatsReply()), lambda t: t.body, []),
    "aggregate stats": (
        m.MultipartReply(m.AggregateStats(1, 2, 3)),
        lambda t: (t.body.packet_count, t.body.byte_count, t.body.flow_count),
        (1, 2, 3),
    ),
    "table stats": (
        m.MultipartReply(m.TableStatsReply((m.TableStats(1, 2, 3, 4), m.TableStats(5, 6, 7, 8)))),
        lambda t: [tuple(s) for s in t.body],
        [(1, 2, 3, 4), (5, 6, 7, 8)],
    ),
    "port stats": (
        m.MultipartReply(m.PortStatsReply((m.PortStats(3, COUNTERS, 20, 30),))),
        lambda t: [tuple(s) for s in t.body],
        [(3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 30)],
    ),
    "queue stats": (
        m.MultipartReply(m.QueueStatsReply((m.QueueStats(1, 2, 3, 4, 5, 6, 7),))),
        lambda t: [tuple(s) for s in t.body],
        [(1, 2, 3, 4, 5, 6, 7)],
    ),
    "group stats": (
        m.MultipartReply(m.GroupStatsReply((m.GroupStats(1, 2, 3, 4, 5, 6, (m.BucketCounter(7, 8), m.BucketCounter(9, 10))),))),
        lambda t: [
            (
                *_stats(s, "group_id", "ref_count", "packet_count", "byte_count", "duration_sec", "duration_nsec"),
                [(b.packet_count, b.byte_count) for b in s.bucket_stats],
            )
            for s in t.body
        ],
        [(1, 2, 3, 4, 5, 6, [(7, 8), (9, 10)])],
    ),
    "group desc": (
        m.MultipartReply(m.GroupDescReply((m.GroupDesc(m.GroupType.SELECT, 5, (m.Bucket(weight=3, actions=(act.Output(4),)),)),))),
        lambda t: [(s.type, s.group_id, [(b.weight, b.watch_port, b.actions[0].port) for b in s.buckets]) for s in t.body],
        [(1, 5, [(3, OFP.OFPP_ANY, 4)])],
    ),
    "group features": (
        m.MultipartReply(m.GroupFeatures(0xF, m.GroupCapabilities.CHAINING, (1, 2, 3, 4), (5, 6, 7, 8))),
        lambda t: (t.body.types, t.body.capabilities, t.body.max_groups, t.body.actions),
        (0xF, 4, [1, 2, 3, 4], [5, 6, 7, 8]),
    ),
    "meter stats": (
        m.MultipartReply(m.MeterStatsReply((m.MeterStats(1, 2, 3, 4, 5, 6, (m.MeterBandStats(7, 8),)),))),
        lambda t: [
            (
                *_stats(s, "meter_id", "flow_count", "packet_in_count", "byte_in_count", "duration_sec", "duration_nsec"),
                [(b.packet_band_count, b.byte_band_count) for b in s.band_stats],
            )
            for s in t.body
        ],
        [(1, 2, 3, 4, 5, 6, [(7, 8)])],
    ),
    "meter config": (
        m.MultipartReply(
            m.MeterConfigReply((m.MeterConfig(m.MeterFlags.PKTPS, 2, (m.MeterBandDrop(3, 4), m.MeterBandDscpRemark(5, 6, 7))),))
        ),
        lambda t: [(s.flags, s.meter_id, [(b.rate, b.burst_size) for b in s.bands], s.bands[1].prec_level) for s in t.body],
        [(2, 2, [(3, 4), (5, 6)], 7)],
    ),
    "meter features": (
        m.MultipartReply(m.MeterFeatures(1, 6, m.MeterFlags.KBPS | m.MeterFlags.STATS, 2, 3)),
        lambda t: [tuple(s) for s in t.body],
        [(1, 6, 9, 2, 3)],
    ),
    "table features": (
        m.MultipartReply(
            m.TableFeaturesReply(
                (
                    m.TableFeatures(
                        1,
                        "acl",
                        2,
                        3,
                        0,
                        4,
                        (
                            m.InstructionsProperty(PROPERTY.INSTRUCTIONS, (1, 2, 3, 4, 5)),
                            m.NextTablesProperty(PROPERTY.NEXT_TABLES, (2, 3)),
                            m.ActionsProperty(PROPERTY.APPLY_ACTIONS, (0, 17, 18, 25)),
                            m.OxmProperty(PROPERTY.MATCH, (oxm_id(BY_NAME["in_port"]), oxm_id(BY_NAME["eth_dst"], True))),
                            m.ExperimenterProperty(PROPERTY.EXPERIMENTER, 5, 6, b""),
                        ),
                    ),
                )
            )
        ),
        lambda t: [
            (
                *_stats(s, "table_id", "name", "metadata_match", "metadata_write", "config", "max_entries"),
                [i.type for i in s.properties[0].instruction_ids],
                s.properties[1].table_ids,
                [i.type for i in s.properties[2].action_ids],
                [(i.type, i.hasmask, i.length) for i in s.properties[3].oxm_ids],
                (s.properties[4].experimenter, s.properties[4].exp_type),
            )
            for s in t.body
        ],
        [(1, b"acl", 2, 3, 0, 4, [1, 2, 3, 4, 5], [2, 3], [0, 17, 18, 25], [("in_port", 0, 4), ("eth_dst", 1, 12)], (5, 6))],
    ),
    "port desc": (m.MultipartReply(m.PortDescReply((PORT,))), lambda t: [_port(p) for p in t.body], [PEER_PORT]),
    "experimenter reply": (
        m.MultipartReply(m.ExperimenterMultipart(1, 2, b"abc")),
        lambda t: (t.body.experimenter, t.body.exp_type, bytes(t.body.data)),
        (1, 2, b"abc"),
    ),
}


@pytest.mark.parametrize(("ours", "look", "expected"), TO_CONTROLLER.values(), ids=TO_CONTROLLER.keys())
def test_switchs_messages(ours: m.Message, look: Callable[[Any], Any], expected: Any) -> None:
    assert look(peer(ours)) == expected
    assert decode(encode(ours)) == ours


def test_the_tables_leave_no_message_out() -> None:
    """Whatever a message is called, it is in one table or the other."""
    messages = [ours for _, ours in FROM_CONTROLLER.values()] + [ours for ours, _, _ in TO_CONTROLLER.values()]
    assert {type(message).__name__ for message in messages} == {kind.__name__ for kind in m.Message.__subclasses__()}
    assert {encode(message)[1] for message in messages} == set(constants.MessageType)
    for kind in (m.MultipartRequest, m.MultipartReply):
        bodies = {int.from_bytes(encode(message)[8:10], "big") for message in messages if isinstance(message, kind)}
        assert bodies == set(constants.MultipartType)


# ── constants ──────────────────────────────────────────────────────────────────────────────────────────────────────────
ENUMERATIONS: list[tuple[type[IntEnum] | type[IntFlag], str]] = [
    (constants.MessageType, "OFPT_"),
    (constants.MultipartType, "OFPMP_"),
    (constants.ActionType, "OFPAT_"),
    (constants.InstructionType, "OFPIT_"),
    (errors.ErrorType, "OFPET_"),
    (errors.HelloFailed, "OFPHFC_"),
    (errors.BadRequest, "OFPBRC_"),
    (errors.BadAction, "OFPBAC_"),
    (errors.BadInstruction, "OFPBIC_"),
    (errors.BadMatch, "OFPBMC_"),
    (errors.FlowModFailed, "OFPFMFC_"),
    (errors.GroupModFailed, "OFPGMFC_"),
    (errors.PortModFailed, "OFPPMFC_"),
    (errors.TableModFailed, "OFPTMFC_"),
    (errors.QueueOpFailed, "OFPQOFC_"),
    (errors.SwitchConfigFailed, "OFPSCFC_"),
    (errors.RoleRequestFailed, "OFPRRFC_"),
    (errors.MeterModFailed, "OFPMMFC_"),
    (errors.TableFeaturesFailed, "OFPTFFC_"),
    (flow.FlowModCommand, "OFPFC_"),
    (flow.FlowModFlags, "OFPFF_"),
    (flow.FlowRemovedReason, "OFPRR_"),
    (group.GroupModCommand, "OFPGC_"),
    (group.GroupType, "OFPGT_"),
    (group.GroupCapabilities, "OFPGFC_"),
    (meter.MeterModCommand, "OFPMC_"),
    (meter.MeterFlags, "OFPMF_"),
    (meter.MeterBandType, "OFPMBT_"),
    (queue.QueuePropertyType, "OFPQT_"),
    (role.Role, "OFPCR_ROLE_"),
    (table_features.TableFeaturePropertyType, "OFPTFPT_"),
    (m.PortReason, "OFPPR_"),
]


@pytest.mark.parametrize(("enumeration", "prefix"), ENUMERATIONS, ids=[prefix for _, prefix in ENUMERATIONS])
def test_enumerations_are_the_peers(enumeration: type[IntEnum] | type[IntFlag], prefix: str) -> None:
    theirs = {name.removeprefix(prefix): value for name, value in vars(OFP).items() if re.match(prefix + "[A-Z]", name)}
    ours = {name: int(value) for name, value in enumeration.__members__.items() if name != "NONE"}
    assert ours == theirs


def test_there_are_111_error_codes_of_15_types() -> None:
    """As the specification has them; EXPERIMENTER has none of its own."""
    codes = [kind for kind, prefix in ENUMERATIONS if prefix.endswith("C_") and kind.__module__ == errors.__name__]
    assert len(errors.ErrorType) == 15
    assert sum(len(kind) for kind in codes) == 111
