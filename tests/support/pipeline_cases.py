"""Random pipelines, flow keys and frames that meet each other often: values come from small pools that all of them draw from.

Each function takes the Random to draw from. ``RANDOMS`` is a seeded one, which is fast; to have a failure shrunk, change it to
``st.randoms(use_true_random=False)``. With ``everything`` there are groups, meters, queues, MPLS and PBB too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st
from vectors import frames

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    DecNwTtl,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    PopMpls,
    PopPbb,
    PopVlan,
    PushMpls,
    PushPbb,
    PushVlan,
    SetField,
    SetMplsTtl,
    SetNwTtl,
    SetQueue,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, KEY_BITS, METADATA, VLAN_PRESENT, Layer
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import MeterBand
from appliance.model.ports import PortNo
from appliance.model.tunnel import NO_TUNNEL, Tunnel
from appliance.packet.meter import METER_DROPS, METER_PASSES
from appliance.packet.parse import parse
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import OFPG_ANY, Bucket, GroupEntry, GroupType
from appliance.pipeline.meter_table import MeterEntry, MeterFlags

RANDOMS = st.randoms(use_true_random=True)

IN_PORTS = (1, 2, 3)
TABLES = 4
GROUPS = 5
REMARKING_METER, DROPPING_METER, MISSING_METER = 1, 2, 3

_MACS = (0x020000000001, 0x020000000002, 0xFFFFFFFFFFFF, 0x0180C2000003)
_IPV4 = tuple(int.from_bytes(address, "big") for address in (frames.IPV4_A, frames.IPV4_B))
_IPV6 = tuple(int.from_bytes(address, "big") for address in (frames.IPV6_A, frames.IPV6_B))
_PORTS = (1000, 2000, 80)
_TCIS = (0, 0x0064, 0x6064, 0x2005)
_LAYERS = (Layer.NONE, Layer.ARP, Layer.IPV4, Layer.IPV4 | Layer.TCP, Layer.IPV6 | Layer.UDP, Layer.IPV6 | Layer.ICMP | Layer.ND)

POOLS: dict[str, tuple[int, ...]] = {
    "in_port": IN_PORTS,
    "metadata": (0, 1, 2, 3),
    "tunnel_id": (0, 7),
    "tun_src": (0, 1),
    "tun_dst": (0, 1, 2),
    "eth_dst": _MACS,
    "eth_src": _MACS,
    "eth_type": (0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x8847, 0x1234),
    "vlan_vid": (0, *(tci & 0xFFF | VLAN_PRESENT for tci in _TCIS)),
    "vlan_pcp": (0, 1, 3),
    "inner_vlan_tci": (0, *(tci | VLAN_PRESENT for tci in _TCIS)),
    "ip_proto": (1, 6, 17, 58, 132, 0, 44, 60),
    "ip_dscp": (0, 10),
    "ip_ecn": (0, 1),
    "ip_ttl": (0, 1, 2, 64),
    "ip_frag": (0, 1, 2),
    "ipv4_src": _IPV4,
    "ipv4_dst": _IPV4,
    "ipv6_src": _IPV6,
    "ipv6_dst": _IPV6,
    "ipv6_flabel": (0, 5),
    "arp_op": (1, 2),
    "arp_spa": _IPV4,
    "arp_tha": (0, *_MACS),
    "tcp_src": _PORTS,
    "tcp_dst": _PORTS,
    "udp_dst": _PORTS,
    "icmpv4_type": (0, 8),
    "icmpv6_type": (128, 135, 136),
    "icmpv6_code": (0, 1),
    "ipv6_nd_target": _IPV6,
    "ipv6_nd_sll": _MACS,
    "mpls_label": (0, 16),
    "tcp_flags": (0, 2),
    "layers": tuple(int(layers) for layers in _LAYERS),
}
_SETTABLE = tuple(name for name in POOLS if BY_NAME[name].settable and name != "ip_ttl")
_OFTEN_SET = (*_SETTABLE, "vlan_vid", "vlan_vid", "vlan_pcp", "ip_proto", "eth_type", "eth_dst")
PREFIXES = frozenset({"ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst", "arp_spa", "tcp_src", "tcp_dst", "udp_dst"})
"""Fields that rules match on by prefixes (of ports: aligned ranges)."""
_OFTEN_MATCHED = (*POOLS, "vlan_vid", "vlan_vid", "eth_type", "in_port", "eth_dst", "metadata", "ipv4_dst", "ipv6_src", "tcp_dst")
_ENCAPSULATIONS: dict[str, tuple[int, ...]] = {
    "eth_type": (0x8847, 0x8848, 0x88E7, 0x0800),
    "mpls_label": (0, 16, 17),
    "mpls_tc": (0, 3),
    "mpls_bos": (0, 1),
    "mpls_ttl": (0, 1, 64),
    "pbb_isid": (0, 7),
    "layers": (int(Layer.MPLS), int(Layer.PBB)),
    "ip_dscp": (10, 12, 14),
}
_OUTPUT_PORTS = (1, 2, 3, 4, PortNo.IN_PORT, PortNo.ALL, PortNo.FLOOD, PortNo.CONTROLLER, PortNo.NORMAL, PortNo.LOCAL)


def subset(rnd: Random, bits: int) -> int:
    """Some of these bits: few, many or all."""
    kind = rnd.randrange(4)
    some = rnd.getrandbits(KEY_BITS)
    if kind == 0:
        return bits
    if kind == 1:
        some &= rnd.getrandbits(KEY_BITS) & rnd.getrandbits(KEY_BITS)
    return bits & some


def near(rnd: Random, name: str) -> int:
    """A value for this field from its pool; an address or port may be another one with the same first bits."""
    value = rnd.choice(POOLS[name])
    return value ^ 1 << rnd.randrange(BY_NAME[name].bits) if name in PREFIXES and rnd.random() < 0.4 else value


def prefix(rnd: Random, bits: int) -> int:
    """The mask of a prefix of a value of so many bits. Half of them are those that many rules have."""
    length = rnd.choice((bits, bits * 3 // 4, bits // 2)) if rnd.random() < 0.5 else rnd.randint(1, bits)
    return (1 << length) - 1 << bits - length


def match(rnd: Random, everything: bool = False) -> Match:
    """Up to three fields. They may share bits: then the later one gives the value."""
    fields = []
    value = mask = 0
    for _ in range(rnd.choice((0, 1, 1, 1, 2, 2, 3))):
        pool = _ENCAPSULATIONS if everything and rnd.random() < 0.3 else POOLS
        name = rnd.choice(_OFTEN_MATCHED if pool is POOLS else tuple(_ENCAPSULATIONS))
        field = BY_NAME[name]
        bits = field.max
        if name in PREFIXES:
            bits = prefix(rnd, field.bits)
        elif rnd.random() < 0.2:
            bits = subset(rnd, field.max)
        fields.append(MatchField(field, (near(rnd, name) if pool is POOLS else rnd.choice(pool[name])) & bits, bits))
        value = value & ~(bits << field.shift) | fields[-1].value << field.shift
        mask |= bits << field.shift
    return Match(tuple(fields), value, mask)


def output(rnd: Random) -> Output:
    return Output(rnd.choice(_OUTPUT_PORTS), rnd.choice((0, 128)))


def action(rnd: Random) -> Action:
    kind = rnd.randrange(10)
    if kind < 2:
        return output(rnd)
    if kind < 6:
        name = rnd.choice(_OFTEN_SET)
        value = rnd.choice(POOLS[name])
        return SetField(BY_NAME[name], value | VLAN_PRESENT if name == "vlan_vid" else value)
    if kind == 6:
        return PushVlan(rnd.choice((0x8100, 0x88A8)))
    if kind == 7:
        return PopVlan()
    return DecNwTtl() if kind == 8 else SetNwTtl(rnd.randrange(4))


def rare_action(rnd: Random, groups: Sequence[int]) -> Action:
    """One of those that ``action`` does not make; a group only of these."""
    kind = rnd.randrange(12)
    if kind < 4 and groups:
        return Group(rnd.choice(groups))
    if kind == 4:
        return PushMpls(rnd.choice((0x8847, 0x8848)))
    if kind == 5:
        return PopMpls(rnd.choice((0x0800, 0x86DD, 0x8847, 0x8100, 0x1234)))
    if kind == 6:
        name = rnd.choice(("mpls_label", "mpls_tc", "mpls_bos", "pbb_isid", "ip_dscp"))
        return SetField(BY_NAME[name], rnd.choice(_ENCAPSULATIONS[name]))
    if kind == 7:
        return rnd.choice((SetMplsTtl(rnd.randrange(3)), DecMplsTtl()))
    if kind == 8:
        return rnd.choice((PushPbb(0x88E7), PopPbb()))
    if kind == 9:
        return rnd.choice((CopyTtlIn(), CopyTtlOut()))
    return SetQueue(rnd.randrange(3))


def actions(
    rnd: Random, most: int = 5, everything: bool = False, groups: Sequence[int] = range(1, GROUPS + 2)
) -> tuple[Action, ...]:
    """Mostly with an output at the end, so that the changes are seen."""
    rare = 0.35 if everything else 0
    made = tuple(rare_action(rnd, groups) if rnd.random() < rare else action(rnd) for _ in range(rnd.randrange(most)))
    return (*made, output(rnd)) if rnd.random() < 0.7 else made


def group(rnd: Random, group_id: int) -> GroupEntry:
    """It forwards only to groups with greater ids, but watches any."""
    buckets = [
        Bucket(
            actions(rnd, 4, True, range(group_id + 1, GROUPS + 2)),
            weight=rnd.choice((0, 1, 1, 5)),
            watch_port=rnd.choice((PortNo.ANY, PortNo.ANY, 1, 2, 3, PortNo.LOCAL)),
            watch_group=rnd.choice((OFPG_ANY, OFPG_ANY, OFPG_ANY, rnd.randint(1, GROUPS + 1))),
        )
        for _ in range(rnd.randrange(4))
    ]
    return GroupEntry(group_id, rnd.choice(tuple(GroupType)), buckets)


def meter(meter_id: int, octets: int) -> int:
    """What the meters of ``pipeline`` say to a packet of this size (as ``RunMeter``)."""
    if octets % 3:
        return METER_PASSES
    return 1 if meter_id == REMARKING_METER else METER_DROPS


def flow_entry(rnd: Random, table_id: int, priority: int, everything: bool = False) -> FlowEntry:
    instructions: list[Instruction] = []
    if everything and rnd.random() < 0.3:
        instructions.append(Meter(rnd.choice((REMARKING_METER, DROPPING_METER, MISSING_METER))))
    if rnd.random() < 0.7:
        instructions.append(ApplyActions(actions(rnd, everything=everything)))
    if rnd.random() < 0.5:
        instructions.append(WriteActions(actions(rnd, everything=everything)))
    if rnd.random() < 0.1:
        instructions.append(ClearActions())
    if rnd.random() < 0.4:
        mask = rnd.randrange(1, 4)
        instructions.append(WriteMetadata(rnd.randrange(4) & mask, mask))
    if table_id + 1 < TABLES and rnd.random() < 0.75:
        instructions.append(GotoTable(rnd.randrange(table_id + 1, TABLES)))
    rnd.shuffle(instructions)
    wanted = Match() if priority == 0 else match(rnd, everything)
    return FlowEntry(priority, wanted, tuple(instructions), cookie=table_id << 8 | priority)


def pipeline(rnd: Random, everything: bool = False) -> Pipeline:
    """Priorities are different in one table, so that the winner is defined. Most tables have a table-miss entry."""
    made = Pipeline()
    if everything:
        for group_id in range(1, GROUPS + 1):
            made.groups.add(group(rnd, group_id))
        made.meters.add(MeterEntry(REMARKING_METER, MeterFlags.PKTPS, [MeterBand(10, 1, prec_level=1)]))
        made.meters.add(MeterEntry(DROPPING_METER, MeterFlags.PKTPS, [MeterBand(10, 1)]))
    for table_id in range(TABLES):
        lowest = rnd.choice((0, 0, 0, 1))
        for priority in range(lowest, lowest + rnd.choice((rnd.randint(1, 5), rnd.randint(1, 5), 20))):
            made.table(table_id).add(flow_entry(rnd, table_id, priority, everything))
    return made


def _layer_4(rnd: Random) -> tuple[int, bytes]:
    """IP protocol, and the rest."""
    src = rnd.choice(_PORTS)
    return rnd.choice(
        (
            (6, frames.tcp(src, 80, payload=b"data")),
            (17, frames.udp(src, 80, payload=b"data")),
            (132, frames.sctp(src, 80, payload=b"data")),
            (1, frames.icmp(rnd.choice((0, 8)), 0, payload=bytes(range(16)))),
            (58, frames.icmp(rnd.choice((128, 135, 136)), rnd.randrange(2), payload=bytes(4) + frames.IPV6_B)),
            (58, frames.nd(135, frames.IPV6_B, frames.lladdr_option(1, frames.MAC_A))),
            (58, frames.nd(136, frames.IPV6_B, frames.lladdr_option(rnd.choice((1, 2)), frames.MAC_B))),
            (60, bytes((6, 0)) + bytes(6) + frames.tcp(src, 80)),
        )
    )


def _encapsulated(rnd: Random, packet: bytes) -> bytes:
    """In one or two MPLS entries (which may be lying), or PBB."""
    if rnd.random() < 0.3:
        return packet[:12] + bytes.fromhex("88e740000007") + packet
    entries = b"".join(
        struct.pack("!I", rnd.choice((0, 16, 17)) << 12 | rnd.choice((0, 3)) << 9 | bos << 8 | rnd.choice((0, 1, 2, 64)))
        for bos in rnd.choice(((1,), (0, 1), (0,)))
    )
    return packet[:12] + rnd.choice((b"\x88\x47", b"\x88\x48")) + entries + packet[14:]


def frame(rnd: Random, everything: bool = False) -> bytes:
    """A frame with right checksums and up to four tags; sometimes cut short."""
    if everything and rnd.random() < 0.3:
        return _encapsulated(rnd, frame(rnd))
    tags = tuple((rnd.choice((0x8100, 0x88A8)), rnd.choice(_TCIS)) for _ in range(rnd.choice((0, 0, 1, 1, 2, 2, 3, 4))))
    l3 = 14 + 4 * len(tags)
    kind = rnd.choice(("ipv4", "ipv4", "ipv6", "ipv6", "arp", "mpls", "other"))
    proto, payload = _layer_4(rnd)
    ttl = rnd.choice((0, 1, 2, 64, 64))
    if kind == "ipv4":
        fragment = rnd.choice((0, 0, 0, 0x2000, 0x0010))
        packet = frames.ipv4(proto, payload, ttl=ttl, fragment=fragment)
        made = frames.Sample(frames.ethernet(0x0800, packet, tags), 4, l3, l3 + 20, proto).finished(l4=fragment == 0).frame
    elif kind == "ipv6":
        packet = frames.ipv6(proto, payload, hop_limit=ttl)
        made = frames.Sample(frames.ethernet(0x86DD, packet, tags), 6, l3, l3 + 40, proto).finished().frame
    elif kind == "arp":
        made = frames.ethernet(0x0806, frames.arp(), tags)
    elif kind == "mpls":
        made = frames.ethernet(0x8847, bytes.fromhex("00010140") + bytes(20), tags)
    else:
        made = frames.ethernet(0x1234, b"payload", tags)
    return made[: rnd.randrange(14, 60)] if rnd.random() < 0.15 else made


def tunnel(rnd: Random) -> Tunnel:
    """Of a packet that came by one, or by none."""
    return Tunnel(*(rnd.choice(POOLS[name]) for name in ("tunnel_id", "tun_src", "tun_dst"))) if rnd.random() < 0.3 else NO_TUNNEL


def flow_key(rnd: Random, everything: bool = False) -> int:
    """Keys of frames, keys made of fields that go together or not, and any bits at all."""
    kind = rnd.randrange(5)
    if kind == 0:
        return rnd.getrandbits(KEY_BITS) & ~METADATA.mask
    in_port = rnd.choice(IN_PORTS)
    if kind < 4:
        return parse(frame(rnd, everything), in_port).key
    return change_fields(rnd, BY_NAME["in_port"].put(0, in_port), tuple(POOLS), ~METADATA.mask)


def change_fields(rnd: Random, key: int, names: Sequence[str], free: int) -> int:
    """The key with new values for these fields, as far as their bits are in ``free``."""
    for name in names:
        key ^= (BY_NAME[name].put(key, near(rnd, name)) ^ key) & free
    return key


def flip(rnd: Random, key: int, free: int) -> int:
    """The key with some of the ``free`` bits changed: any, one of an address or port, or fields to values that pipelines know."""
    kind = rnd.randrange(5)
    if kind < 2:
        return key ^ subset(rnd, free)
    if kind == 2:
        field = BY_NAME[rnd.choice(tuple(PREFIXES))]
        return key ^ 1 << field.shift + rnd.randrange(field.bits) & free
    return change_fields(rnd, key, rnd.sample(tuple(POOLS), rnd.randint(1, 6)), free)
