"""The flow entries by which hosts 4 and 5 talk, and their groups and meters: of each kind one, a *stream*.

Invariant: no random change touches them (``draw``), and no random packet is for them.
"""

from __future__ import annotations

from soak.draw import NEVER, PROTECTED
from soak.network import TALKING

from appliance.model.actions import (
    Action,
    ApplyActions,
    DecNwTtl,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    PushVlan,
    SetField,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, VLAN_PRESENT
from appliance.model.match import Match, MatchField
from appliance.openflow.messages import (
    Bucket,
    FlowMod,
    GroupMod,
    GroupModCommand,
    GroupType,
    Message,
    MeterBandDrop,
    MeterFlags,
    MeterMod,
    MeterModCommand,
)

PRIORITY = 0xFF00
USED_SECONDS = 60
"""The idle timeout of all of these entries: they are used more often, and so must last."""
_INDIRECT, _SELECT, _FAST_FAILOVER, _ALL, _METER = 101, 102, 103, 104, 101
"""Above the numbers of random groups and meters. One for each direction: the second's are 10 greater."""
FIRST_UDP_PORT = 7001
STREAMS = ("plain", "tag", "indirect group", "select group", "fast failover group", "all group", "meter", "three tables")


def _match(port: int, **fields: int) -> Match:
    wanted = {"in_port": port, **fields}
    return Match.of(MatchField(BY_NAME[name], value) for name, value in wanted.items())


def _entry(match: Match, *instructions: Instruction, table_id: int = 0) -> FlowMod:
    return FlowMod(
        cookie=PROTECTED, table_id=table_id, priority=PRIORITY, idle_timeout=USED_SECONDS, match=match, instructions=instructions
    )


def _actions(*actions: Action) -> ApplyActions:
    return ApplyActions(actions)


def messages() -> list[Message]:
    """What makes the groups, meters and entries."""
    made: list[Message] = []
    for port, out in (TALKING, TALKING[::-1]):
        more = 10 * (port - TALKING[0])
        output = Output(out)
        made += [
            GroupMod(GroupModCommand.ADD, GroupType.INDIRECT, _INDIRECT + more, (Bucket(actions=(output,)),)),
            GroupMod(GroupModCommand.ADD, GroupType.SELECT, _SELECT + more, (Bucket(1, actions=(output,)),) * 2),
            GroupMod(GroupModCommand.ADD, GroupType.FF, _FAST_FAILOVER + more, (Bucket(watch_port=out, actions=(output,)),)),
            GroupMod(GroupModCommand.ADD, GroupType.ALL, _ALL + more, (Bucket(actions=(DecNwTtl(), output)),)),
            MeterMod(MeterModCommand.ADD, MeterFlags.PKTPS | MeterFlags.BURST, _METER + more, (MeterBandDrop(NEVER, NEVER),)),
        ]
        tag = (PushVlan(0x8100), SetField(BY_NAME["vlan_vid"], VLAN_PRESENT | 77), output)
        by_stream: tuple[tuple[Instruction, ...], ...] = (
            (_actions(output),),
            (_actions(*tag),),
            (_actions(Group(_INDIRECT + more)),),
            (_actions(Group(_SELECT + more)),),
            (_actions(Group(_FAST_FAILOVER + more)),),
            (_actions(Group(_ALL + more)),),
            (Meter(_METER + more), _actions(output)),
            (_actions(DecNwTtl()), WriteMetadata(port, 0xFF), GotoTable(1)),
        )
        made += [
            _entry(_match(port, eth_type=0x0800, ip_proto=17, udp_dst=FIRST_UDP_PORT + stream), *instructions)
            for stream, instructions in enumerate(by_stream)
        ]
        made += [
            _entry(Match.of([MatchField(BY_NAME["metadata"], port)]), WriteActions((output,)), GotoTable(2), table_id=1),
            _entry(_match(port, metadata=port, eth_type=0x0800), WriteActions((SetField(BY_NAME["ip_dscp"], 10),)), table_id=2),
            _entry(_match(port, eth_type=0x0806), _actions(output)),
            _entry(_match(port, eth_type=0x0800, ip_proto=1), _actions(output)),
            _entry(_match(port, eth_type=0x0800, ip_proto=6), WriteMetadata(port, 0xFF), GotoTable(1)),
            _entry(_match(port, eth_type=0x86DD), _actions(output)),
        ]
    return made
