"""Megaflows made before their packets come: when, of what, and that they are none but those that the packets would have made."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import ApplyActions, GotoTable, Instruction, Output, WriteMetadata
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import Again, Megaflow
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
from appliance.switch.prefetch import FEWEST, Ahead

ENTRIES = 10 * FEWEST
TO_2, TO_3 = (ApplyActions((Output(2),)),), (ApplyActions((Output(3),)),)


def number_of(address: bytes) -> int:
    return int.from_bytes(address, "big")


def add(
    shell: Shell, instructions: tuple[Instruction, ...], table_id: int = 0, priority: int = 1, **fields: int | tuple[int, int]
) -> None:
    match = Match.of(
        MatchField(BY_NAME[name], *value) if isinstance(value, tuple) else MatchField(BY_NAME[name], value)
        for name, value in fields.items()
    )
    assert shell.receive(FlowMod(table_id=table_id, priority=priority, match=match, instructions=instructions)) == []


def an_entry_each(shell: Shell, entries: int = ENTRIES) -> None:
    for number in range(entries):
        add(shell, TO_2, eth_src=number_of(mac(0x1000 + number)))


def frame(src: int, dst: int = 0) -> bytes:
    return frames.ethernet(0x1234, bytes(46), dst=mac(0x2000 + dst), src=mac(0x1000 + src))


def upcalls(shell: Shell) -> int:
    return sum(shell.switch.upcalls.values())


def send(shell: Shell, sources: Iterable[int], to: int = 2, dst: int = 0, in_port: int = 1) -> None:
    for source in sources:
        assert shell.inject(in_port, frame(source, dst)) == [(to, frame(source, dst))]


def described(megaflows: Iterable[Megaflow]) -> set[tuple[object, ...]]:
    return {(megaflow.key, megaflow.mask, megaflow.actions) for megaflow in megaflows}


def test_few_megaflows_of_a_table_s_entries_foretell_the_rest() -> None:
    shell = Shell()
    an_entry_each(shell)
    send(shell, range(FEWEST - 1))
    assert len(shell.switch.megaflows) == FEWEST - 1, "nothing is foretold yet"
    send(shell, [FEWEST - 1])
    assert len(shell.switch.megaflows) == ENTRIES
    assert shell.switch.prefetched == ENTRIES - FEWEST
    assert not shell.switch.looks_ahead
    before = upcalls(shell)
    send(shell, range(ENTRIES))
    assert upcalls(shell) == before


def test_they_are_what_the_packets_would_have_made() -> None:
    ahead, one_by_one = Shell(), Shell()
    for shell in (ahead, one_by_one):
        add(shell, TO_3, priority=2, eth_type=0x0800)
        an_entry_each(shell)
    one_by_one.switch._fast_path._prefetch.came = lambda translation: None  # type: ignore[method-assign]
    for shell in (ahead, one_by_one):
        send(shell, range(FEWEST))
    assert len(one_by_one.switch.megaflows) == FEWEST
    send(one_by_one, range(ENTRIES))
    made, wanted = (described(live.megaflow for live in shell.switch.megaflows) for shell in (ahead, one_by_one))
    assert made == wanted


def test_the_next_entry_comes_first() -> None:
    """Who goes through the addresses in turn finds them made."""
    shell = Shell()
    an_entry_each(shell)
    ahead = shell.switch._fast_path._prefetch
    take, order = ahead.next, []

    def taken() -> Ahead | None:
        coming = take()
        if coming is not None:
            order.append(coming.entry.match)
        return coming

    ahead.next = taken  # type: ignore[method-assign]
    last = ENTRIES // 2
    send(shell, [*range(FEWEST - 1), last])
    expected = [*range(last + 1, ENTRIES), *range(last)]
    assert order == [Match.of([MatchField(BY_NAME["eth_src"], number_of(mac(0x1000 + number)))]) for number in expected]


def test_nothing_is_counted_before_a_packet_comes() -> None:
    shell = Shell()
    an_entry_each(shell)
    send(shell, range(FEWEST))
    send(shell, [ENTRIES - 1])
    shell.sweep()
    flows = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(flows, FlowStatsReply)
    counts = [entry.packet_count for entry in flows.entries]
    assert counts == [1] * FEWEST + [0] * (ENTRIES - FEWEST - 1) + [1]


def test_entries_that_come_to_something_else_are_left() -> None:
    """Another entry has precedence for some of them; one goes by way of another mask."""
    shell = Shell()
    an_entry_each(shell)
    for number in range(FEWEST, 2 * FEWEST):
        add(shell, TO_3, priority=2, eth_src=number_of(mac(0x1000 + number)), eth_type=0x0800)
    send(shell, range(FEWEST))
    masks = {live.megaflow.mask for live in shell.switch.megaflows}
    assert len(masks) == shell.switch.mask_count <= 2
    send(shell, range(ENTRIES))


def test_a_change_of_an_entry_holds_for_its_megaflow_made_ahead() -> None:
    shell = Shell()
    an_entry_each(shell)
    send(shell, range(FEWEST))
    match = Match.of([MatchField(BY_NAME["eth_src"], number_of(mac(0x1000 + ENTRIES - 1)))])
    shell.receive(FlowMod(command=FlowModCommand.MODIFY_STRICT, priority=1, match=match, instructions=TO_3))
    shell.ask(BarrierRequest(), BarrierReply)
    send(shell, [ENTRIES - 1], to=3)
    shell.receive(FlowMod(command=FlowModCommand.DELETE_STRICT, priority=1, match=match))
    shell.ask(BarrierRequest(), BarrierReply)
    assert shell.inject(1, frame(ENTRIES - 1)) == []


def test_ports_and_other_fields_are_those_of_a_packet_that_came() -> None:
    shell = Shell()
    an_entry_each(shell)
    send(shell, range(FEWEST))
    before = upcalls(shell)
    send(shell, [ENTRIES - 1], dst=7)
    assert upcalls(shell) == before, "its destination does not matter"
    send(shell, [ENTRIES - 1], in_port=3)
    assert upcalls(shell) == before + 1, "nothing came from that port before"


def test_what_is_made_ahead_leaves_room() -> None:
    shell = Shell(max_megaflows=4 * FEWEST)
    an_entry_each(shell)
    send(shell, range(FEWEST))
    assert len(shell.switch.megaflows) <= 3 * FEWEST
    assert not shell.switch.looks_ahead


def test_a_fast_path_that_is_full_is_not_asked_for_ever() -> None:
    shell = Shell(capacity=2 * FEWEST)
    an_entry_each(shell, 100 * FEWEST)
    before = len(shell.effects)
    send(shell, range(FEWEST))
    assert len(shell.effects) - before < 10 * FEWEST + 200
    assert not shell.switch.looks_ahead


def test_what_nobody_asks_for_goes_when_its_time_is_over() -> None:
    shell = Shell()
    an_entry_each(shell)
    send(shell, range(FEWEST))
    shell.now += 11
    while len(shell.switch.megaflows):
        before = len(shell.switch.megaflows)
        shell.sweep()
        assert len(shell.switch.megaflows) < before


def test_packets_in_no_order_through_two_tables_foretell_nothing() -> None:
    shell = Shell()
    side = 40
    for number in range(side):
        add(shell, (WriteMetadata(number, 0xFF), GotoTable(1)), eth_src=number_of(mac(0x1000 + number)))
        add(shell, TO_2, table_id=1, eth_dst=number_of(mac(0x2000 + number)))
    for number in range(4 * FEWEST):
        send(shell, [number * 7 % side], dst=number * 11 % side)
    assert shell.switch.prefetched == 0


@pytest.mark.parametrize("metadata", [False, True])
def test_first_parts_of_ways_are_foretold_too(metadata: bool) -> None:
    shell = Shell()
    side = 100
    for number in range(side):
        told = (WriteMetadata(1, 0xFF),) if metadata else ()
        add(shell, (*told, GotoTable(1)), eth_src=number_of(mac(0x1000 + number)))
        asked = {"metadata": (1, 0xFF)} if metadata else {}
        add(shell, TO_2, table_id=1, eth_dst=number_of(mac(0x2000 + number)), **asked)
    shell.switch._fast_path._cross_product.table = 1
    send(shell, range(FEWEST))
    send(shell, [0], dst=5)
    firsts = [live for live in shell.switch.megaflows if isinstance(live.megaflow.actions[-1], Again)]
    assert len(firsts) == side
    before = upcalls(shell)
    send(shell, range(side))
    assert upcalls(shell) == before
