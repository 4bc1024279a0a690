"""Random changes of the tables, and random packets: all that a round needs dice for.

Values come from small pools, so that entries and packets meet each other often (``support.pipeline_cases``). Where entries of one
priority overlap, any of them may win, and nobody could say where a packet goes: so each set of fields has a priority of its own.

Invariant: what is drawn depends on nothing but the Random; and no change touches an entry that has PROTECTED in its cookie.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from support import pipeline_cases as cases
from vectors import frames

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    CopyTtlOut,
    DecNwTtl,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    PopMpls,
    PopVlan,
    PushMpls,
    PushPbb,
    PushVlan,
    SetField,
    SetNwTtl,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, VLAN_PRESENT
from appliance.model.match import Match, MatchField
from appliance.model.ports import PortNo
from appliance.openflow.messages import (
    Bucket,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    GroupMod,
    GroupModCommand,
    GroupType,
    MeterBandDrop,
    MeterBandDscpRemark,
    MeterFlags,
    MeterMod,
    MeterModCommand,
)

PROTECTED = 1 << 63
"""The bit of a cookie that says: not for these changes."""
TABLES = 3
GROUPS = (1, 2, 3, 4)
METERS = (1, 2)
PORTS = (1, 2, 3)
OUTPUTS = (*PORTS, *PORTS, *PORTS, 4, 5, PortNo.IN_PORT, PortNo.FLOOD, PortNo.ALL, PortNo.CONTROLLER)
SHORTEST_FRAME = 24
"""Bytes. Of shorter frames with a tag the kernel drops some."""
NEVER = 2**31
"""A meter's rate (packets/s or kb/s) and burst that no packet exceeds."""
MANY = 64
"""Entries that differ in one address only, to be foretold from each other (``switch/prefetch.py``)."""
_MANY_NET = 0x0A010000
_WHOLE = None

SHAPES: tuple[tuple[tuple[str, int | None], ...], ...] = (
    (),
    (("in_port", _WHOLE),),
    (("eth_dst", _WHOLE),),
    (("in_port", _WHOLE), ("eth_src", _WHOLE)),
    (("eth_type", 0x86DD), ("ipv6_dst", _WHOLE)),
    (("vlan_vid", _WHOLE),),
    (("metadata", _WHOLE),),
    (("eth_type", 0x0800), ("ipv4_dst", _WHOLE)),
    (("eth_type", 0x0800), ("ip_proto", 6), ("tcp_src", _WHOLE)),
    (("eth_type", 0x0800), ("ip_proto", 17), ("udp_dst", _WHOLE)),
    (("in_port", _WHOLE), ("eth_type", 0x0806)),
    (("eth_dst", _WHOLE), ("vlan_vid", _WHOLE)),
    (("metadata", _WHOLE), ("eth_type", 0x0800), ("ipv4_src", _WHOLE)),
)
"""Fields of matches, each with the one value that it has there, or any of its pool. A shape's place is its priority."""
_IPV4_DST = 7

_ETHERNET: tuple[Action, ...] = tuple(
    SetField(BY_NAME[name], value) for name in ("eth_dst", "eth_src") for value in cases.POOLS[name]
)
_IPV4: tuple[Action, ...] = (
    *(SetField(BY_NAME[name], value) for name in ("ipv4_src", "ipv4_dst") for value in cases.POOLS[name]),
    SetField(BY_NAME["ip_dscp"], 10),
    SetNwTtl(7),
    DecNwTtl(),
)
_PUSHES: tuple[tuple[Action, ...], ...] = (
    (PushVlan(0x8100), SetField(BY_NAME["vlan_vid"], VLAN_PRESENT | 5)),
    (PushVlan(0x88A8),),
    (PushMpls(0x8847), SetField(BY_NAME["mpls_label"], 16)),
    (PushPbb(0x88E7),),
)
_IN_BUCKETS: tuple[Action, ...] = (
    *_ETHERNET,
    PushVlan(0x8100),
    PushMpls(0x8847),
    PopVlan(),
    PopMpls(0x0800),
    CopyTtlOut(),
    SetField(BY_NAME["vlan_vid"], VLAN_PRESENT | 5),
    SetField(BY_NAME["tcp_dst"], 80),
    SetField(BY_NAME["ipv4_src"], 0x0A000001),
)


# ── flow entries ───────────────────────────────────────────────────────────────────────────────────────────────────────
def match_of(rnd: Random, shape: int) -> Match:
    return Match.of(
        MatchField(BY_NAME[name], rnd.choice(cases.POOLS[name]) if value is None else value) for name, value in SHAPES[shape]
    )


def _outputs(rnd: Random, groups: Sequence[int]) -> list[Action]:
    made: list[Action] = [Output(rnd.choice(OUTPUTS)) for _ in range(rnd.choice((0, 1, 1, 2)))]
    if groups and rnd.random() < 0.3:
        made.append(Group(rnd.choice(groups)))
    return made


def _applied(rnd: Random, match: Match, groups: Sequence[int]) -> ApplyActions:
    """Actions that go with every packet that fits the match; headers are pushed after all fields have been set."""
    known = {item.field.name: item.value for item in match.fields}
    kinds = [*_ETHERNET]
    if known.get("eth_type") == 0x0800:
        kinds += _IPV4
    made: list[Action] = [rnd.choice(kinds) for _ in range(rnd.choice((0, 0, 0, 1, 2)))]
    if known.get("vlan_vid") and rnd.random() < 0.3:
        made.append(PopVlan())
    if rnd.random() < 0.2:
        made += rnd.choice(_PUSHES)
    return ApplyActions((*made, *_outputs(rnd, groups)))


def _written(rnd: Random, groups: Sequence[int]) -> WriteActions:
    made: list[Action] = [rnd.choice((*_ETHERNET, PushVlan(0x8100))) for _ in range(rnd.choice((0, 0, 1)))]
    return WriteActions((*made, *_outputs(rnd, groups)))


def instructions(rnd: Random, table_id: int, match: Match, groups: Sequence[int], meters: Sequence[int]) -> tuple[Instruction, ...]:
    """``groups`` and ``meters`` are those that there are; now and then one that there is not."""
    groups = GROUPS if rnd.random() < 0.05 else tuple(groups)
    meters = METERS if rnd.random() < 0.05 else tuple(meters)
    made: list[Instruction] = []
    if meters and rnd.random() < 0.15:
        made.append(Meter(rnd.choice(meters)))
    if rnd.random() < 0.8:
        made.append(_applied(rnd, match, groups))
    if rnd.random() < 0.05:
        made.append(ClearActions())
    if rnd.random() < 0.3:
        made.append(_written(rnd, groups))
    if rnd.random() < 0.3:
        made.append(WriteMetadata(rnd.randrange(4), 3))
    if table_id + 1 < TABLES and rnd.random() < 0.6:
        made.append(GotoTable(rnd.randrange(table_id + 1, TABLES)))
    return tuple(made)


def flow_mod(rnd: Random, groups: Sequence[int], meters: Sequence[int]) -> FlowMod:
    command = rnd.choice((FlowModCommand.ADD,) * 6 + tuple(FlowModCommand))
    table_id, shape = rnd.randrange(TABLES), rnd.randrange(len(SHAPES))
    match = match_of(rnd, shape)
    idle, hard = rnd.choice(((0, 0),) * 5 + ((1000, 0), (0, 2000), (1, 0), (0, 1), (1, 2)))
    strict = command in (FlowModCommand.MODIFY_STRICT, FlowModCommand.DELETE_STRICT)
    adds = command is FlowModCommand.ADD
    deletes = command in (FlowModCommand.DELETE, FlowModCommand.DELETE_STRICT)
    return FlowMod(
        # The lowest two bits are what others go by.
        cookie=rnd.getrandbits(32) if adds else rnd.randrange(4),
        cookie_mask=0 if adds else PROTECTED | (0 if strict else rnd.choice((0, 1, 3))),
        table_id=table_id,
        command=command,
        idle_timeout=idle,
        hard_timeout=hard,
        priority=shape,
        out_port=rnd.choice((PortNo.ANY, PortNo.ANY, *PORTS)) if deletes else PortNo.ANY,
        flags=rnd.choice((FlowModFlags.NONE, FlowModFlags.SEND_FLOW_REM, FlowModFlags.CHECK_OVERLAP))
        if adds
        else FlowModFlags.NONE,
        match=match,
        instructions=() if deletes else instructions(rnd, table_id, match, groups, meters),
    )


def wipe(table_id: int) -> FlowMod:
    """Delete all of a table but what is protected."""
    return FlowMod(cookie_mask=PROTECTED, table_id=table_id, command=FlowModCommand.DELETE)


def many(rnd: Random) -> list[FlowMod]:
    """An entry for each of many addresses, in one table."""
    table_id, ports = rnd.randrange(TABLES), [rnd.choice(PORTS) for _ in range(3)]
    return [
        FlowMod(
            cookie=rnd.getrandbits(32),
            table_id=table_id,
            priority=_IPV4_DST,
            match=Match.of((MatchField(BY_NAME["eth_type"], 0x0800), MatchField(BY_NAME["ipv4_dst"], _MANY_NET + number))),
            instructions=(ApplyActions((Output(rnd.choice(ports)),)),),
        )
        for number in range(MANY)
    ]


# ── groups and meters ──────────────────────────────────────────────────────────────────────────────────────────────────
def _bucket(rnd: Random, kind: GroupType, later: Sequence[int]) -> Bucket:
    made: list[Action] = list(dict.fromkeys(rnd.choice(_IN_BUCKETS) for _ in range(rnd.choice((0, 0, 1, 2)))))
    if later and rnd.random() < 0.25:
        made.append(Group(rnd.choice(later)))
    bucket = Bucket(rnd.randrange(3), actions=(*made, Output(rnd.choice(OUTPUTS))))
    if kind is GroupType.FF or (kind is GroupType.SELECT and rnd.random() < 0.3):
        if rnd.random() < 0.7:
            return Bucket(bucket.weight, watch_port=rnd.choice(PORTS), actions=bucket.actions)
        return Bucket(bucket.weight, watch_group=rnd.choice(GROUPS), actions=bucket.actions)
    return bucket


def group_mod(rnd: Random, groups: Sequence[int]) -> GroupMod:
    """Groups forward to those with greater numbers only, of which there is no circle."""
    group_id, kind = rnd.choice(GROUPS), rnd.choice(tuple(GroupType))
    known: tuple[GroupModCommand, ...] = (GroupModCommand.MODIFY,) * 3 + (GroupModCommand.DELETE,)
    unknown: tuple[GroupModCommand, ...] = (GroupModCommand.ADD,) * 6
    command = rnd.choice((known if group_id in groups else unknown) + tuple(GroupModCommand))
    size = 1 if kind is GroupType.INDIRECT else rnd.choice((0, 1, 2, 2, 3))
    later = [number for number in groups if number > group_id]
    buckets = tuple(_bucket(rnd, kind, later) for _ in range(size))
    return GroupMod(command, kind, group_id, () if command is GroupModCommand.DELETE else buckets)


def meter_mod(rnd: Random, meters: Sequence[int]) -> MeterMod:
    """None of them drops or changes anything, so that nothing depends on time; all of them count."""
    meter_id = rnd.choice(METERS)
    flags = rnd.choice((MeterFlags.PKTPS, MeterFlags.KBPS)) | MeterFlags.BURST | MeterFlags.STATS
    bands = (MeterBandDrop(NEVER, NEVER), MeterBandDscpRemark(NEVER, NEVER, 1))[: rnd.randrange(3)]
    known: tuple[MeterModCommand, ...] = (MeterModCommand.MODIFY, MeterModCommand.MODIFY, MeterModCommand.DELETE)
    command = rnd.choice((known if meter_id in meters else (MeterModCommand.ADD,) * 6) + tuple(MeterModCommand))
    return MeterMod(command, flags, meter_id, () if command is MeterModCommand.DELETE else bands)


# ── packets ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def frame(rnd: Random) -> bytes:
    """One that tables may know: mostly plain, sometimes with four tags, labels, cut short, or for one of ``many`` addresses."""
    if rnd.random() < 0.3:
        address = (_MANY_NET + rnd.randrange(MANY)).to_bytes(4, "big")
        packet = frames.ipv4(17, frames.udp(rnd.choice((1000, 2000)), 80, payload=b"data"), dst=address)
        return frames.Sample(frames.ethernet(0x0800, packet), 4, 14, 34, 17).finished().frame
    return cases.frame(rnd, everything=rnd.random() < 0.2).ljust(SHORTEST_FRAME, b"\0")
