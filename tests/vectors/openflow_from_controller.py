"""Every message that a controller sends: as os-ken's controller makes it, and as ours."""

from __future__ import annotations

from typing import Any

from os_ken.ofproto import ofproto_protocol, ofproto_v1_3, ofproto_v1_3_parser
from vectors.openflow_terms import XID, applied, match, set_field

from appliance.model import actions as act
from appliance.model.ports import PortConfig, PortNo
from appliance.openflow import handshake
from appliance.openflow import messages as m

DATAPATH = ofproto_protocol.ProtocolDesc(version=4)
OFP = ofproto_v1_3
P = ofproto_v1_3_parser


def flow_mod(match: Any = None, instructions: Any = (), **fields: int) -> Any:
    fields = {"out_port": OFP.OFPP_ANY, "out_group": OFP.OFPG_ANY, **fields}
    return P.OFPFlowMod(DATAPATH, match=match or P.OFPMatch(), instructions=list(instructions), **fields)


def apply(*actions: Any) -> list[Any]:
    return [P.OFPInstructionActions(OFP.OFPIT_APPLY_ACTIONS, list(actions))]


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
