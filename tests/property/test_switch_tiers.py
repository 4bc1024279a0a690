"""One switch with a fast path and one without, told and sent the same: the same frames leave, and the same is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random
from typing import Any

from hypothesis import event, given
from support import pipeline_cases as cases
from switch_shell import Shell, port

from appliance.model.actions import (
    Action,
    ApplyActions,
    CopyTtlOut,
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
    SetQueue,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, VLAN_PRESENT
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import DropReason
from appliance.model.ports import PortNo, PortState
from appliance.model.queues import Queue
from appliance.model.tunnel import NO_TUNNEL, Tunnel, TunnelPort
from appliance.openflow.messages import (
    BarrierRequest,
    Bucket,
    Error,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowRemoved,
    FlowStatsReply,
    FlowStatsRequest,
    FragmentHandling,
    GroupDescReply,
    GroupDescRequest,
    GroupMod,
    GroupModCommand,
    GroupStatsReply,
    GroupStatsRequest,
    GroupType,
    Message,
    MeterBandDrop,
    MeterBandDscpRemark,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MeterStatsReply,
    MeterStatsRequest,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    SetConfig,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.pipeline.first_part import is_first_part
from appliance.switch.cross_product import CrossProduct
from appliance.switch.events import Event, PortChanged, Tick
from appliance.switch.prefetch import Prefetch

GROUPS = (1, 2, 3)
METERS = (1, 2)
PORTS = (1, 2, 3)
OUTPUTS = (*PORTS, *PORTS, *PORTS, PortNo.IN_PORT, PortNo.FLOOD, PortNo.CONTROLLER)
TUNNELS = {2: TunnelPort(key=7), 3: TunnelPort(remote=IPv4Address(9))}
"""The ports that are tunnels': what they leave open, actions say."""
NAMES = ("in_port", "eth_dst", "vlan_vid", "tun_dst", "metadata")
"""Fields of matches. Each set of them has a priority of its own: where entries of one priority overlap, any of them may win."""
RATES = (1, 2, 1_000_000)
"""Of meters: some drop soon."""


ANYWHERE: tuple[Action, ...] = (
    PushVlan(0x8100),
    PushVlan(0x88A8),
    PushMpls(0x8847),
    PushPbb(0x88E7),
    SetQueue(1),
    *(SetField(BY_NAME[name], value) for name in ("eth_dst", "tunnel_id", "tun_src", "tun_dst") for value in cases.POOLS[name]),
)
"""Actions that go with every match."""
IN_BUCKETS: tuple[Action, ...] = (
    *ANYWHERE,
    PopVlan(),
    PopMpls(0x0800),
    PopPbb(),
    DecNwTtl(),
    CopyTtlOut(),
    SetField(BY_NAME["vlan_vid"], VLAN_PRESENT | 5),
    SetField(BY_NAME["tcp_dst"], 80),
    SetField(BY_NAME["ipv4_src"], 0x0A000001),
)


def actions(rnd: Random, groups: tuple[int, ...], kinds: tuple[Action, ...] = ANYWHERE) -> tuple[Action, ...]:
    made: list[Action] = [rnd.choice(kinds) for _ in range(rnd.choice((0, 0, 0, 1, 2)))]
    made += [Output(rnd.choice(OUTPUTS)) for _ in range(rnd.randrange(2))]
    if groups and rnd.random() < 0.7:
        made.append(Group(rnd.choice(groups)))
    return tuple(made)


def bucket(rnd: Random, kind: GroupType, later: tuple[int, ...]) -> Bucket:
    """Groups forward to those with higher numbers only, so that most are accepted."""
    made = Bucket(
        rnd.randrange(3), actions=(*actions(rnd, later if rnd.random() < 0.4 else (), IN_BUCKETS), Output(rnd.choice(OUTPUTS)))
    )
    if kind is GroupType.FF or (kind is GroupType.SELECT and rnd.random() < 0.3):
        return replace(made, watch_port=rnd.choice(PORTS)) if rnd.random() < 0.7 else replace(made, watch_group=rnd.choice(GROUPS))
    return made


def group_mod(rnd: Random) -> GroupMod:
    number = rnd.choice(GROUPS)
    kind = rnd.choice(tuple(GroupType))
    size = 1 if kind is GroupType.INDIRECT else rnd.choice((0, 1, 2, 2, 3))
    buckets = tuple(bucket(rnd, kind, tuple(range(number + 1, len(GROUPS) + 1))) for _ in range(size))
    command = rnd.choice((GroupModCommand.ADD,) * 4 + (GroupModCommand.MODIFY,) * 4 + (GroupModCommand.DELETE,))
    return GroupMod(command, kind, number, () if command is GroupModCommand.DELETE else buckets)


def meter_mod(rnd: Random) -> MeterMod:
    bands = (MeterBandDrop(rnd.choice(RATES), rnd.choice(RATES)), MeterBandDscpRemark(rnd.choice(RATES), rnd.choice(RATES), 1))
    command = rnd.choice((MeterModCommand.ADD,) * 3 + (MeterModCommand.MODIFY,) * 3 + (MeterModCommand.DELETE,))
    return MeterMod(command, MeterFlags.PKTPS | MeterFlags.BURST, rnd.choice(METERS), bands[: rnd.randrange(3)])


def flow_mod(rnd: Random) -> FlowMod:
    table_id = rnd.randrange(2)
    if table_id == 0 and rnd.random() < 0.5:
        return entry(rnd, table_id, (WriteMetadata(rnd.randrange(4), rnd.randrange(1, 4)), GotoTable(1)))
    instructions: list[Instruction] = [ApplyActions(actions(rnd, GROUPS))]
    if rnd.random() < 0.4:
        instructions.append(WriteActions(actions(rnd, GROUPS)))
    if rnd.random() < 0.3:
        instructions.append(Meter(rnd.choice(METERS)))
    if table_id == 0 and rnd.random() < 0.5:
        instructions.append(GotoTable(1))
    return entry(rnd, table_id, tuple(instructions))


def entry(rnd: Random, table_id: int, instructions: tuple[Instruction, ...]) -> FlowMod:
    names = [name for name in NAMES if rnd.random() < 0.2]
    return FlowMod(
        table_id=table_id,
        command=rnd.choice((FlowModCommand.ADD,) * 4 + (FlowModCommand.MODIFY_STRICT, FlowModCommand.DELETE_STRICT)),
        priority=sum(1 << NAMES.index(name) for name in names),
        idle_timeout=rnd.choice((0, 0, 5)),
        flags=FlowModFlags.SEND_FLOW_REM,
        match=Match.of(MatchField(BY_NAME[name], rnd.choice(cases.POOLS[name])) for name in names),
        instructions=instructions,
    )


def alike(rnd: Random) -> list[FlowMod]:
    """One for each value of a field."""
    name = rnd.choice(NAMES[:2])
    priority = 1 << NAMES.index(name)
    matches = (Match.of([MatchField(BY_NAME[name], value)]) for value in cases.POOLS[name])
    return [flow_mod(rnd)._replace(command=FlowModCommand.ADD, match=match, priority=priority) for match in matches]


def like(in_port: int, frame: bytes) -> list[tuple[int, bytes]]:
    """The packet, and those that differ from it where entries that are ``alike`` do."""
    addresses = (value.to_bytes(6, "big") for value in cases.POOLS["eth_dst"])
    return [(in_port, frame), *((number, frame) for number in PORTS), *((in_port, address + frame[6:]) for address in addresses)]


def message(rnd: Random) -> Message:
    kind = rnd.choice((group_mod, group_mod, meter_mod, flow_mod, flow_mod))
    return SetConfig(rnd.choice((FragmentHandling.NORMAL, FragmentHandling.DROP)), 128) if rnd.random() < 0.03 else kind(rnd)


class Always(CrossProduct):
    """Ways are cut before table 1, where they can be."""

    def __init__(self) -> None:
        super().__init__()
        self.table = 1

    def made(self, megaflows: int) -> bool:
        return False

    def swept(self, live: int) -> None:
        pass


class Both:
    """The two switches."""

    def __init__(self, rnd: Random) -> None:
        queues = {1: (Queue(1),)}
        capacity = rnd.choice((3, 1000))
        self.fast = Shell(queues=queues, max_megaflows=rnd.choice((4, 1000)), capacity=capacity, tunnels=TUNNELS)
        self.slow = Shell(queues=queues, capacity=0, tunnels=TUNNELS)
        fast_path = self.fast.switch._fast_path
        if rnd.random() < 0.5:
            fast_path._cross_product = Always()
        if rnd.random() < 0.5:
            fast_path._prefetch = Prefetch(fast_path.pipeline, fewest=1)

    def receive(self, wanted: Message) -> None:
        fast, slow = (
            [(answer.type, answer.code) for answer in shell.receive(wanted) if isinstance(answer, Error)]
            for shell in (self.fast, self.slow)
        )
        assert fast == slow
        event(f"{type(wanted).__name__} {'refused' if fast else 'accepted'}")

    def step(self, happening: Event) -> None:
        for shell in (self.fast, self.slow):
            shell.step(happening)

    def wait(self, seconds: float) -> None:
        for shell in (self.fast, self.slow):
            shell.now += seconds
        self.step(Tick())

    def inject(self, in_port: int, frame: bytes, tunnel: Tunnel) -> None:
        for shell in (self.fast, self.slow):
            shell.datapath.tunnels.clear()
        sent = [shell.inject(in_port, frame, tunnel) for shell in (self.fast, self.slow)]
        tunnels = [shell.datapath.tunnels for shell in (self.fast, self.slow)]
        order: Callable[[list[Any]], list[Any]] = sorted if self._copies_in_any_order() else list
        assert order(sent[0]) == order(sent[1])
        assert order(tunnels[0]) == order(tunnels[1])
        event(f"left: {min(len(sent[0]), 3)}")

    def _copies_in_any_order(self) -> bool:
        """Copies that an ALL group makes of one packet may leave in any order (``pipeline/copies.py``)."""
        descriptions = self.slow.ask(MultipartRequest(GroupDescRequest()), MultipartReply).body
        assert isinstance(descriptions, GroupDescReply)
        return any(group.type is GroupType.ALL and len(group.buckets) > 1 for group in descriptions.entries)

    def compare(self) -> None:
        for body, kind in (
            (FlowStatsRequest(), FlowStatsReply),
            (TableStatsRequest(), TableStatsReply),
            (GroupStatsRequest(), GroupStatsReply),
            (MeterStatsRequest(), MeterStatsReply),
        ):
            fast, slow = (shell.ask(MultipartRequest(body), MultipartReply).body for shell in (self.fast, self.slow))
            assert isinstance(fast, kind)
            assert fast == slow
        for told in (PacketIn, FlowRemoved):
            fast_told, slow_told = (sorted(map(repr, shell.told(told))) for shell in (self.fast, self.slow))
            assert fast_told == slow_told


@given(cases.RANDOMS)
def test_both_tiers_do_and_count_the_same(rnd: Random) -> None:
    both = Both(rnd)
    for number in reversed(GROUPS):
        both.receive(replace(group_mod(rnd), command=GroupModCommand.ADD, group_id=number))
    for number in METERS:
        both.receive(replace(meter_mod(rnd), command=MeterModCommand.ADD, meter_id=number))
    both.receive(FlowMod(priority=0, instructions=(Meter(1), ApplyActions((Group(rnd.choice(GROUPS)),)))))
    for wanted in (*alike(rnd), flow_mod(rnd), flow_mod(rnd)):
        both.receive(wanted)
    traffic = []
    for _ in range(3):
        for in_port, frame in like(rnd.choice(PORTS), cases.frame(rnd))[: rnd.choice((1, 9))]:
            traffic.append((in_port, frame, cases.tunnel(rnd) if in_port in TUNNELS else NO_TUNNEL))
    for _ in range(12):
        for _ in range(rnd.randrange(3)):
            both.receive(message(rnd))
        both.receive(BarrierRequest())
        if rnd.random() < 0.3:
            state = rnd.choice((PortState.LINK_DOWN, PortState.LIVE))
            both.step(PortChanged(replace(port(rnd.choice(PORTS)), state=state)))
        if rnd.random() < 0.2:
            both.wait(rnd.choice((0.5, 3, 20)))
        for _ in range(rnd.randrange(6)):
            both.inject(*rnd.choice(traffic))
    both.compare()
    event(f"the fast path worked: {any(port.forwarded_tc for port in both.fast.datapath.port_counters().values())}")
    event(f"a meter dropped: {bool(both.fast.datapath.drops().get(DropReason.METER))}")
    event(f"cut: {any(is_first_part(live.translation) for live in both.fast.switch.megaflows)}")
    event(f"made ahead: {both.fast.switch.prefetched > 0}")
    event(f"a megaflow chose: {any(live.statistics.ways for live in both.fast.switch.megaflows)}")
