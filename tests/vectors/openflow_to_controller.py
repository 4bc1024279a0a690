"""Every message that a switch sends: ours, how to look at what os-ken makes of its bytes, and what is to be seen there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser
from vectors.openflow_terms import applied, match, set_field

from appliance.model import actions as act
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import Port, PortConfig, PortCounters, PortState
from appliance.openflow import handshake
from appliance.openflow import messages as m
from appliance.openflow.oxm import oxm_id

OFP = ofproto_v1_3

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
    "barrier reply": (m.BarrierReply(xid=3), lambda t: type(t), ofproto_v1_3_parser.OFPBarrierReply),
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
