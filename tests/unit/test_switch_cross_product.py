"""Tables that multiply: when a packet's way through them is cut in two, and that nothing but the megaflows is different then."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import ApplyActions, GotoTable, Instruction, Output, SetField, WriteMetadata
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import Again, Forward
from appliance.model.ports import Hook
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    FlowMod,
    FlowModCommand,
    FlowStatsReply,
    FlowStatsRequest,
    MultipartReply,
    MultipartRequest,
)
from appliance.switch.cross_product import FEWEST
from appliance.switch.events import PortAdded, PortRemoved
from appliance.switch.megaflows import LiveMegaflow

SOURCES = DESTINATIONS = 40
PARTS = SOURCES + DESTINATIONS


def add(shell: Shell, table_id: int, priority: int, instructions: Iterable[Instruction], **fields: int) -> None:
    match = Match.of(MatchField(BY_NAME[name], value) for name, value in fields.items())
    assert shell.receive(FlowMod(table_id=table_id, priority=priority, match=match, instructions=tuple(instructions))) == []


def change(shell: Shell, table_id: int, instructions: tuple[Instruction, ...], **fields: int) -> None:
    match = Match.of(MatchField(BY_NAME[name], value) for name, value in fields.items())
    command = FlowModCommand.MODIFY_STRICT
    shell.receive(FlowMod(table_id=table_id, command=command, priority=1, match=match, instructions=instructions))
    shell.ask(BarrierRequest(), BarrierReply)


def number_of(address: bytes) -> int:
    return int.from_bytes(address, "big")


def source(number: int) -> bytes:
    return mac(0x1000 + number)


def destination(number: int) -> bytes:
    return mac(0x2000 + number)


def frame(src: int, dst: int) -> bytes:
    return frames.ethernet(0x1234, bytes(46), dst=destination(dst), src=source(src))


def two_tables(shell: Shell, first: Iterable[Instruction] = (), metadata: bool = False) -> None:
    """The first asks for the source, the next for the destination."""
    for number in range(SOURCES):
        told = (WriteMetadata(number, 0xFF),) if metadata else ()
        add(shell, 0, 1, (*told, *first, GotoTable(1)), eth_src=number_of(source(number)))
    for number in range(DESTINATIONS):
        add(shell, 1, 1, (ApplyActions((Output(2 + number % 2),)),), eth_dst=number_of(destination(number)))


def traffic(shell: Shell, sources: Iterable[int] = range(SOURCES), in_port: int = 1) -> None:
    for src in sources:
        for dst in range(DESTINATIONS):
            assert shell.inject(in_port, frame(src, dst)) == [(2 + dst % 2, frame(src, dst))]


def packets(shell: Shell) -> list[tuple[int, int]]:
    """Table and packet count of each entry."""
    flows = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(flows, FlowStatsReply)
    return [(entry.table_id, entry.packet_count) for entry in flows.entries]


def first_parts(shell: Shell) -> list[LiveMegaflow]:
    return [live for live in shell.switch.megaflows if any(isinstance(action, Again) for action in live.megaflow.actions)]


def test_tables_that_multiply_take_as_many_megaflows_as_they_have_entries() -> None:
    shell = Shell()
    two_tables(shell)
    traffic(shell)
    assert len(shell.switch.megaflows) <= FEWEST + PARTS
    made = len(shell.switch.megaflows)
    traffic(shell)
    assert len(shell.switch.megaflows) <= made + PARTS, "of those that are cut there are no more to come"
    shell.sweep()
    assert packets(shell) == [(0, 2 * DESTINATIONS)] * SOURCES + [(1, 2 * SOURCES)] * DESTINATIONS


def test_the_slow_path_sees_a_new_pair_no_more() -> None:
    shell = Shell()
    two_tables(shell)
    traffic(shell)
    upcalls = sum(shell.switch.upcalls.values())
    assert first_parts(shell)
    last = SOURCES - 1
    # Every one of this source's packets has met both parts by now; its megaflows may go, the others' stay.
    traffic(shell, [last])
    assert sum(shell.switch.upcalls.values()) - upcalls <= 2


def test_a_change_of_either_table_holds_at_once() -> None:
    shell = Shell()
    two_tables(shell)
    traffic(shell)
    last = SOURCES - 1
    change(shell, 1, (ApplyActions((Output(3),)),), eth_dst=number_of(destination(0)))
    assert shell.inject(1, frame(last, 0)) == [(3, frame(last, 0))]
    change(shell, 0, (), eth_src=number_of(source(last)))
    assert shell.inject(1, frame(last, 0)) == []
    assert shell.inject(1, frame(last - 1, 0)) == [(3, frame(last - 1, 0))]


def test_a_change_that_does_not_matter_to_a_first_part_leaves_it() -> None:
    shell = Shell()
    two_tables(shell)
    traffic(shell)
    before = {live.megaflow.id for live in first_parts(shell)}
    assert before
    add(shell, 0, 0, (), eth_type=0x1234)  # they find something of a higher priority
    add(shell, 0, 5, (GotoTable(1),), eth_src=number_of(source(SOURCES - 1)))  # this one meets another entry, and goes on as before
    shell.ask(BarrierRequest(), BarrierReply)
    assert {live.megaflow.id for live in first_parts(shell)} == before
    traffic(shell, [SOURCES - 1])


def pairs_of_their_own(shell: Shell) -> None:
    """Each source has one destination: nothing multiplies."""
    for number in range(FEWEST + 100):
        add(shell, 0, 1, (GotoTable(1),), eth_src=number_of(source(number)))
        add(shell, 1, 1, (ApplyActions((Output(2),)),), eth_dst=number_of(destination(number)))
    for number in range(FEWEST + 100):
        assert shell.inject(1, frame(number, number))


def told_by_metadata(shell: Shell) -> None:
    """What the second table finds is not the same for all sources: it is told which it was."""
    two_tables(shell, metadata=True)
    traffic(shell)


def changed_before(shell: Shell) -> None:
    two_tables(shell, [ApplyActions((SetField(BY_NAME["eth_src"], 1),))])
    for src in range(SOURCES):
        for dst in range(DESTINATIONS):
            assert shell.inject(1, frame(src, dst))


def at_xdp(shell: Shell) -> None:
    """XDP would leave it to TC."""
    described = next(port for port in shell.switch.ports if port.number == 1)
    shell.step(PortRemoved(1))
    shell.step(PortAdded(described, Hook.XDP))
    two_tables(shell)
    traffic(shell)


@pytest.mark.parametrize("case", [pairs_of_their_own, told_by_metadata, changed_before, at_xdp])
def test_where_nothing_is_gained_ways_stay_whole(case) -> None:  # type: ignore[no-untyped-def]
    shell = Shell()
    case(shell)
    assert len(shell.switch.megaflows) > FEWEST
    assert first_parts(shell) == []


def test_few_megaflows_are_not_cut() -> None:
    shell = Shell()
    two_tables(shell)
    traffic(shell, range(20))
    assert first_parts(shell) == []
    assert all(live.megaflow.actions in ((Forward(2),), (Forward(3),)) for live in shell.switch.megaflows)


def test_when_there_are_few_again_new_ways_are_whole() -> None:
    shell = Shell()
    two_tables(shell)
    traffic(shell)
    assert first_parts(shell)
    for _ in range(100):
        shell.now += 11
        shell.sweep()
    assert len(shell.switch.megaflows) == 0
    shell.inject(1, frame(0, 0))
    assert [live.megaflow.actions for live in shell.switch.megaflows] == [(Forward(2),)]
