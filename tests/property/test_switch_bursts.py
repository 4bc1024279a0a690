"""Packets that come up together are to the controllers, and to all that counts, what they are one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bursts import one_by_one
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import (
    OFPCML_NO_BUFFER,
    ApplyActions,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    SetField,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME
from appliance.model.match import MATCH_ALL, Match, MatchField
from appliance.model.megaflow import Burst
from appliance.model.ports import PortConfig, PortNo
from appliance.openflow.messages import (
    Bucket,
    FlowMod,
    FlowModCommand,
    FlowStatsRequest,
    FragmentHandling,
    GroupMod,
    GroupModCommand,
    GroupStatsRequest,
    GroupType,
    Message,
    MeterBandDscpRemark,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MultipartReply,
    MultipartRequest,
    PortMod,
    Role,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableStatsRequest,
)
from appliance.switch.events import Upcalls

UP = Output(PortNo.CONTROLLER, OFPCML_NO_BUFFER)
CUT = Output(PortNo.CONTROLLER, 60)
RULES: dict[str, tuple[Instruction, ...]] = {
    "whole": (ApplyActions((UP,)),),
    "cut": (ApplyActions((CUT,)),),
    "twice": (ApplyActions((CUT, UP)),),
    "metadata": (WriteMetadata(5, 0xFF), GotoTable(1)),
    "group": (ApplyActions((Group(1),)),),
    "changed": (ApplyActions((SetField(BY_NAME["eth_src"], 9), UP)),),
    "metered": (Meter(1), ApplyActions((UP,))),
    "beside": (ApplyActions((UP, Output(3))),),
    "learning": (ApplyActions((Output(PortNo.NORMAL), UP)),),
    "learned": (ApplyActions((UP, Output(PortNo.NORMAL))),),
    "forwarded": (ApplyActions((Output(3),)),),
}


def udp(payload: bytes, *, partial: bool = False) -> bytes:
    raw = frames.ethernet(0x0800, frames.ipv4(17, frames.udp(payload=payload), tos=10 << 2), dst=mac(2), src=mac(1))
    whole = frames.Sample(raw, 4, 14, 34, 17).finished()
    return (whole.partial() if partial else whole).frame


FRAMES = (udp(b"a"), udp(bytes(100)), udp(b"partial", partial=True), frames.ethernet(0x1234, bytes(46), dst=mac(2), src=mac(1)))
PACKETS = st.lists(st.tuples(st.sampled_from((1, 1, 1, 2)), st.sampled_from(FRAMES)), min_size=1, max_size=12)
STEPS = st.lists(
    st.one_of(PACKETS, st.sampled_from(tuple(RULES)), st.sampled_from(("delete", "silence", "slave", "miss"))),
    min_size=1,
    max_size=8,
)


def set_up(auxiliary: bool) -> Shell:
    """One controller is told of everything, one nearly nothing, one as slave nothing; one asked for more."""
    shell = Shell(3)
    shell.open(2)
    shell.open(3)
    if auxiliary:
        shell.open_auxiliary(11, 1)
        shell.open_auxiliary(12, 2)
    shell.receive(SetAsync((1, 0), (7, 7), (15, 0)), 2)
    shell.receive(SetConfig(FragmentHandling.NORMAL, 20), 3)
    band = MeterBandDscpRemark(2, 2, 1)
    shell.receive(MeterMod(MeterModCommand.ADD, MeterFlags.PKTPS | MeterFlags.BURST, 1, (band,)))
    shell.receive(GroupMod(GroupModCommand.ADD, GroupType.ALL, 1, (Bucket(actions=(UP,)),)))
    shell.receive(FlowMod(cookie=4, table_id=1, priority=0, instructions=(ApplyActions((UP,)),)))
    return shell


def told(shell: Shell) -> dict[int, list[Message]]:
    """All messages by connection; the last are statistics."""
    for body in (FlowStatsRequest(), TableStatsRequest(), GroupStatsRequest()):
        shell.ask(MultipartRequest(body), MultipartReply)
    return {connection: [message for to, message in shell.messages if to == connection] for connection in (1, 2, 3, 11, 12)}


def used(shell: Shell) -> list[tuple[int, float]]:
    return [(live.packets, live.last_used) for live in shell.switch.megaflows]


def do(shell: Shell, step: object, number: int) -> None:
    match step:
        case "delete":
            shell.receive(FlowMod(command=FlowModCommand.DELETE, table_id=0, match=MATCH_ALL))
        case "silence":
            shell.receive(PortMod(1, mac(0xFF01), PortConfig.NO_PACKET_IN, PortConfig.NO_PACKET_IN))
        case "miss":
            shell.receive(FlowMod(cookie=number, priority=0, instructions=RULES["whole"]))
        case "slave":
            shell.receive(RoleRequest(Role.SLAVE, number), 3)
        case str():
            one = Match.of([MatchField(BY_NAME["in_port"], 1)]) if number % 2 else MATCH_ALL
            shell.receive(FlowMod(cookie=number, priority=number % 3, match=one, instructions=RULES[step]))


@given(STEPS, st.booleans(), st.booleans())
def test_a_burst_is_its_packets(steps: list[object], auxiliary: bool, waits: bool) -> None:
    """``waits``: they are in the queue while the next step is done."""
    check(["whole", *steps], auxiliary, waits)


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("rule", [*RULES, "miss"])
def test_a_burst_of_each_rule(rule: str, auxiliary: bool) -> None:
    several = [(1, frame) for frame in FRAMES * 2]
    check([rule, several[:1], several, [*several, (2, FRAMES[0])], "silence", several, "delete", several], auxiliary, False)


def check(steps: list[object], auxiliary: bool, waits: bool) -> None:
    together, apart = set_up(auxiliary), set_up(auxiliary)
    for number, step in enumerate(steps, 1):
        for shell in (together, apart):
            if isinstance(step, list):
                for in_port, frame in step:
                    shell.datapath.inject(in_port, frame)
            else:
                do(shell, step, number)
            shell.now += 1.0
        if not waits or not isinstance(step, list):
            work_off(together, apart)
    work_off(together, apart)
    assert told(together) == told(apart)
    assert together.switch.upcalls == apart.switch.upcalls
    assert used(together) == used(apart)
    assert together.datapath.sent == apart.datapath.sent


def work_off(together: Shell, apart: Shell) -> None:
    while upcalls := together.datapath.upcalls(64):
        together.step(Upcalls(tuple(upcalls)))
        apart.step(Upcalls(tuple(one_by_one(apart.datapath.upcalls(64)))))
    for shell in (together, apart):
        shell.datapath.caught_up(shell.switch.megaflow_ids)


def test_bursts_come_up_at_all() -> None:
    shell = set_up(auxiliary=False)
    do(shell, "whole", 1)
    shell.inject(1, FRAMES[0])
    for frame in FRAMES:
        shell.datapath.inject(1, frame)
    (burst,) = shell.datapath.upcalls(64)
    assert isinstance(burst, Burst)
    assert burst.frames == list(FRAMES)
