"""What Open vSwitch makes of our bytes: a second peer, for what os-ken reads too kindly (table features above all)."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from appliance.model import actions as act
from appliance.model.fields import BY_NAME, MATCH_FIELDS
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import Port, PortConfig, PortCounters, PortState
from appliance.openflow import messages as m
from appliance.openflow.codec import encode
from appliance.openflow.oxm import oxm_id

pytestmark = pytest.mark.skipif(shutil.which("ovs-ofctl") is None, reason="needs ovs-ofctl (Debian: openvswitch-common)")

TYPES = m.TableFeaturePropertyType
MATCH = Match.of([MatchField(BY_NAME["in_port"], 1), MatchField(BY_NAME["eth_dst"], 2, 0xFFFFFFFFFF02)])
TUNNEL = Match.of(
    MatchField(BY_NAME[name], value)
    for name, value in (("in_port", 1), ("tunnel_id", 5), ("tun_src", 0xC0000201), ("tun_dst", 0xC0000202))
)
SETTABLE = tuple(oxm_id(field) for field in MATCH_FIELDS if field.settable)
FEATURES = m.TableFeatures(
    1,
    "acl",
    2,
    3,
    0,
    4,
    (
        m.InstructionsProperty(TYPES.INSTRUCTIONS, (1, 2, 3, 4, 5)),
        m.NextTablesProperty(TYPES.NEXT_TABLES, (2, 3)),
        m.ActionsProperty(TYPES.WRITE_ACTIONS, (0, 17, 18, 25)),
        m.ActionsProperty(TYPES.APPLY_ACTIONS, (0, 17, 18, 25)),
        m.OxmProperty(TYPES.MATCH, tuple(oxm_id(field, field.maskable) for field in MATCH_FIELDS)),
        m.OxmProperty(TYPES.WILDCARDS, tuple(oxm_id(field) for field in MATCH_FIELDS)),
        m.OxmProperty(TYPES.WRITE_SETFIELD, SETTABLE),
        m.OxmProperty(TYPES.APPLY_SETFIELD, SETTABLE),
    ),
)
CASES: dict[str, tuple[m.Message, tuple[str, ...]]] = {
    "hello": (m.Hello((4,), 4), ("version bitmap: 0x04",)),
    "features": (
        m.FeaturesReply(0xAB, 0, 254, 0, 0x7),
        ("dpid:00000000000000ab", "n_tables:254", "FLOW_STATS TABLE_STATS PORT_STATS"),
    ),
    "packet in": (
        m.PacketIn(act.OFP_NO_BUFFER, 60, PacketInReason.NO_MATCH, 2, 0x77, Match.of(MATCH.fields[:1]), bytes(60)),
        ("table_id=2", "cookie=0x77", "total_len=60", "in_port=1", "via no_match", "data_len=60 (unbuffered)"),
    ),
    "packet in from a tunnel": (
        m.PacketIn(act.OFP_NO_BUFFER, 60, PacketInReason.ACTION, 2, 0x77, TUNNEL, bytes(60)),
        ("tun_id=0x5,tun_src=192.0.2.1,tun_dst=192.0.2.2,in_port=1",),
    ),
    "flow removed": (
        m.FlowRemoved(1, 2, m.FlowRemovedReason.IDLE_TIMEOUT, 3, 4, 5, 6, 7, 8, 9, MATCH),
        ("priority=2,in_port=1,dl_dst=00:00:00:00:00:02/ff:ff:ff:ff:ff:02", "reason=idle table_id=3", "idle6 hard7 pkts8 bytes9"),
    ),
    "port status": (
        m.PortStatus(m.PortReason.DELETE, Port(3, "veth-h3", b"\x0a\0\0\0\0\3", PortConfig.PORT_DOWN, PortState.LINK_DOWN)),
        ("DEL: 3(veth-h3): addr:0a:00:00:00:00:03", "PORT_DOWN", "LINK_DOWN"),
    ),
    "flow statistics": (
        m.MultipartReply(
            m.FlowStatsReply(
                (
                    m.FlowStats(
                        table_id=1,
                        duration_sec=2,
                        duration_nsec=3,
                        priority=4,
                        idle_timeout=5,
                        hard_timeout=6,
                        flags=m.FlowModFlags.SEND_FLOW_REM,
                        cookie=7,
                        packet_count=8,
                        byte_count=9,
                        match=MATCH,
                        instructions=(
                            act.ApplyActions(
                                (
                                    act.PushVlan(0x8100),
                                    act.SetField(BY_NAME["vlan_vid"], 0x1064),
                                    act.SetField(BY_NAME["tun_dst"], 0xC0000201),
                                    act.Output(3),
                                )
                            ),
                            act.GotoTable(6),
                        ),
                    ),
                )
            )
        ),
        (
            "cookie=0x7, duration=2.000000003s, table=1, n_packets=8",
            "push_vlan:0x8100,set_field:4196->vlan_vid,set_field:192.0.2.1->tun_dst,output:3,goto_table:6",
        ),
    ),
    "aggregate": (m.MultipartReply(m.AggregateStats(1, 2, 3)), ("packet_count=1 byte_count=2 flow_count=3",)),
    "table statistics": (m.MultipartReply(m.TableStatsReply((m.TableStats(1, 2, 3, 4),))), ("active=2, lookup=3, matched=4",)),
    "port statistics": (
        m.MultipartReply(m.PortStatsReply((m.PortStats(3, PortCounters(1, 2, 3, 4, 5, 6, 7, 8), 20, 0),))),
        ("port  3: rx pkts=1, bytes=3, drop=5, errs=7, frame=?, over=?, crc=?", "tx pkts=2, bytes=4, drop=6, errs=8, coll=0"),
    ),
    "port descriptions": (
        m.MultipartReply(m.PortDescReply((Port(1, "a", bytes(6), curr_speed=10_000_000), Port(2, "b", bytes(6))))),
        (" 1(a):", "speed: 10000 Mbps now", " 2(b):"),
    ),
    "description": (m.MultipartReply(m.Desc("a", "b", "c", "d", "e")), ("Manufacturer: a", "Serial Num: d", "DP Description: e")),
    "table features": (
        m.MultipartReply(m.TableFeaturesReply((FEATURES,))),
        (
            'table 1 ("acl")',
            "metadata: match=0x2 write=0x3",
            "next tables: 2-3",
            "actions: output set_field strip_vlan push_vlan",
            "arbitrary mask: tun_{id,src,dst} metadata eth_{src,dst} vlan_vid",
            "ip_{src,dst} ipv6_{src,dst,label} arp_{spa,tpa,sha,tha}",
            "exact match or wildcard: in_port_oxm eth_type vlan_pcp",
        ),
    ),
    "group features": (m.MultipartReply(m.GroupFeatures()), ("Types:  0x0",)),
    "meter features": (m.MultipartReply(m.MeterFeatures()), ("max_meter:0",)),
    "role": (m.RoleReply(m.Role.EQUAL, 5), ("role=equal",)),
    "error": (m.Error(4, 9, encode(m.BarrierRequest(xid=5))), ("OFPBMC_BAD_PREREQ", "OFPT_BARRIER_REQUEST (OF1.3) (xid=0x5)")),
}


@pytest.mark.parametrize(("message", "expected"), CASES.values(), ids=CASES.keys())
def test_open_vswitch_reads(message: m.Message, expected: tuple[str, ...]) -> None:
    printed = subprocess.run(
        ["ovs-ofctl", "ofp-print", encode(message).hex(), "2"], capture_output=True, text=True, timeout=60, check=True
    )
    assert printed.stderr == ""
    assert "decode error" not in printed.stdout
    missing = [text for text in expected if text not in printed.stdout]
    assert not missing, printed.stdout
