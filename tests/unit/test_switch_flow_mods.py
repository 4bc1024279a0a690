"""Flow-mods, timeouts, and how soon and how exactly the fast path follows them."""

from __future__ import annotations

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import Action, ApplyActions, GotoTable, Output
from appliance.model.fields import BY_NAME, IN_PORT
from appliance.model.match import MATCH_ALL, Match, MatchField
from appliance.openflow.errors import ErrorType, FlowModFailed
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowRemoved,
    FlowRemovedReason,
    MultipartRequest,
    SetAsync,
    TableFeatures,
    TableFeaturesRequest,
)
from appliance.pipeline.flow_table import FlowEntry
from appliance.switch import switch as switch_module
from appliance.switch.effects import ReadStatistics, RemoveMegaflows, SendMessage
from appliance.switch.events import MessageReceived, Need, Quiet, Tick

ADD, MODIFY, MODIFY_STRICT, DELETE, DELETE_STRICT = FlowModCommand


def frame(src: int = 1, dst: int = 2) -> bytes:
    return frames.ethernet(0x1234, bytes(46), dst=mac(dst), src=mac(src))


def match(**fields: int) -> Match:
    return Match.of(MatchField(BY_NAME[name], value) for name, value in fields.items())


def to(*ports: int) -> tuple[ApplyActions]:
    actions: tuple[Action, ...] = tuple(Output(port) for port in ports)
    return (ApplyActions(actions),)


def entries(shell: Shell, table_id: int = 0) -> list[FlowEntry]:
    return next((table.entries() for table in shell.switch.tables if table.table_id == table_id), [])


# ── add ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_entry_takes_the_place_of_one_with_the_same_match_and_priority() -> None:
    shell = Shell()
    shell.receive(FlowMod(cookie=1, flags=FlowModFlags.SEND_FLOW_REM, instructions=to(2)))
    assert shell.inject(1, frame()) == [(2, frame())]
    assert shell.inject(1, frame()) == [(2, frame())]
    shell.now += 5
    shell.receive(FlowMod(cookie=2, instructions=to(3)))
    (entry,) = entries(shell)
    assert (entry.cookie, entry.packet_count, entry.created_at) == (2, 2, shell.now)
    assert shell.told(FlowRemoved) == []
    assert shell.inject(1, frame()) == [(3, frame())]
    shell.receive(FlowMod(flags=FlowModFlags.RESET_COUNTS, instructions=to(3)))
    assert entries(shell)[0].packet_count == 0


def test_an_entry_that_changes_nothing_for_packets_keeps_the_megaflow_and_the_counts() -> None:
    shell = Shell()
    shell.receive(FlowMod(priority=1, cookie=1, match=match(in_port=1), instructions=to(2)))
    for _ in range(3):
        shell.inject(1, frame())
    (before,) = shell.switch.megaflow_ids
    shell.receive(FlowMod(priority=2, cookie=2, match=match(in_port=1), instructions=to(2)))
    assert shell.switch.megaflow_ids == (before,)
    assert any(isinstance(effect, ReadStatistics) for effect in shell.effects)
    for _ in range(4):
        shell.inject(1, frame())
    shell.receive(FlowMod(command=MODIFY, cookie=9, cookie_mask=9, flags=FlowModFlags.RESET_COUNTS))
    assert {entry.cookie: entry.packet_count for entry in entries(shell)} == {1: 3, 2: 4}


@pytest.mark.parametrize(
    ("priority", "fields", "refused"),
    [
        (5, {"in_port": 1}, True),
        (5, {}, True),
        (5, {"eth_type": 0x0800}, True),
        (5, {"in_port": 2}, False),
        (6, {"in_port": 1}, False),
    ],
)
def test_check_overlap(priority: int, fields: dict[str, int], refused: bool) -> None:
    shell = Shell()
    shell.receive(FlowMod(priority=5, cookie=1, match=match(in_port=1)))
    mod = FlowMod(priority=priority, cookie=2, flags=FlowModFlags.CHECK_OVERLAP, match=match(**fields))
    if refused:
        assert shell.refused(mod) == (ErrorType.FLOW_MOD_FAILED, FlowModFailed.OVERLAP)
        assert [entry.cookie for entry in entries(shell)] == [1]
    else:
        assert shell.receive(mod) == []
        assert len(entries(shell)) == 2


def test_a_table_that_is_full() -> None:
    shell = Shell()
    shell.receive(MultipartRequest(TableFeaturesRequest((TableFeatures(0, max_entries=2), TableFeatures(1)))))
    for number in (1, 2):
        assert shell.receive(FlowMod(match=match(in_port=number))) == []
    assert shell.refused(FlowMod(match=match(in_port=3))) == (ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL)
    assert shell.receive(FlowMod(match=match(in_port=2), cookie=4)) == [], "in the place of another there is room"
    assert shell.receive(FlowMod(table_id=1)) == []


# ── modify and delete ──────────────────────────────────────────────────────────────────────────────────────────────────
def three(shell: Shell) -> None:
    shell.receive(FlowMod(cookie=0x11, priority=1, instructions=to(1)))
    shell.receive(FlowMod(cookie=0x12, priority=2, match=match(in_port=1), instructions=to(2)))
    shell.receive(FlowMod(cookie=0x23, priority=2, match=match(in_port=1, eth_type=0x0800), instructions=to(2)))
    shell.receive(FlowMod(cookie=0x24, priority=2, match=match(in_port=2), instructions=to(3), table_id=1))


@pytest.mark.parametrize(
    ("mod", "changed"),
    [
        (FlowMod(command=MODIFY), {0x11, 0x12, 0x23}),
        (FlowMod(command=MODIFY, match=match(in_port=1)), {0x12, 0x23}),
        (FlowMod(command=MODIFY, cookie=0x20, cookie_mask=0xF0), {0x23}),
        (FlowMod(command=MODIFY, out_port=2), {0x11, 0x12, 0x23}),
        (FlowMod(command=MODIFY_STRICT, priority=2, match=match(in_port=1)), {0x12}),
        (FlowMod(command=MODIFY_STRICT, priority=1, match=match(in_port=1)), set()),
        (FlowMod(command=MODIFY_STRICT, priority=2, match=match(in_port=1), cookie=1, cookie_mask=1), set()),
        (FlowMod(command=MODIFY, table_id=1, match=match(in_port=2)), {0x24}),
    ],
)
def test_modify(mod: FlowMod, changed: set[int]) -> None:
    shell = Shell()
    three(shell)
    assert shell.receive(FlowMod(**{**fields(mod), "instructions": (GotoTable(7),), "idle_timeout": 9})) == []
    found = {entry.cookie for table in shell.switch.tables for entry in table.entries() if entry.instructions == (GotoTable(7),)}
    assert found == changed
    assert all(not entry.idle_timeout for entry in entries(shell)), "a modify leaves timeouts, cookie and flags"
    assert sum(len(table) for table in shell.switch.tables) == 4


@pytest.mark.parametrize(
    ("mod", "gone"),
    [
        (FlowMod(command=DELETE), {0x11, 0x12, 0x23}),
        (FlowMod(command=DELETE, table_id=255), {0x11, 0x12, 0x23, 0x24}),
        (FlowMod(command=DELETE, table_id=255, out_port=2), {0x12, 0x23}),
        (FlowMod(command=DELETE, table_id=255, out_group=1), set()),
        (FlowMod(command=DELETE, match=match(in_port=1)), {0x12, 0x23}),
        (FlowMod(command=DELETE, cookie=0x10, cookie_mask=0xF0), {0x11, 0x12}),
        (FlowMod(command=DELETE_STRICT, priority=2, match=match(in_port=1)), {0x12}),
        (FlowMod(command=DELETE_STRICT, priority=2, match=match(in_port=1), out_port=3), set()),
        (FlowMod(command=DELETE_STRICT, priority=2, match=match(in_port=1), out_group=3), set()),
        (FlowMod(command=DELETE_STRICT, priority=3, match=match(in_port=1)), set()),
        (FlowMod(command=DELETE, table_id=1, buffer_id=5, instructions=(GotoTable(0),)), {0x24}),
    ],
)
def test_delete(mod: FlowMod, gone: set[int]) -> None:
    shell = Shell()
    three(shell)
    assert shell.receive(mod) == []
    left = {entry.cookie for table in shell.switch.tables for entry in table.entries()}
    assert left == {0x11, 0x12, 0x23, 0x24} - gone


def fields(mod: FlowMod) -> dict[str, object]:
    return {name: getattr(mod, name) for name in ("command", "cookie", "cookie_mask", "table_id", "priority", "out_port", "match")}


def test_a_flow_mod_that_is_refused_has_changed_nothing() -> None:
    shell = Shell()
    three(shell)
    before = [(entry, entry.instructions) for table in shell.switch.tables for entry in table.entries()]
    for command in (ADD, MODIFY, MODIFY_STRICT):
        shell.refused(FlowMod(command=command, priority=1, instructions=to(1, 0)))
    assert [(entry, entry.instructions) for table in shell.switch.tables for entry in table.entries()] == before


def test_flow_removed_goes_to_all_who_want_it() -> None:
    shell = Shell()
    shell.open(2)
    shell.open(3)
    shell.receive(SetAsync((3, 0), (7, 7), (0, 15)), 3)
    shell.receive(FlowMod(flags=FlowModFlags.SEND_FLOW_REM, idle_timeout=7, hard_timeout=8, match=match(in_port=1), priority=4))
    shell.receive(FlowMod(priority=3))
    shell.receive(FlowMod(command=DELETE), 2)
    wanted = FlowRemoved(0, 4, FlowRemovedReason.DELETE, 0, 0, 0, 7, 8, 0, 0, match(in_port=1))
    assert shell.told(FlowRemoved) == shell.told(FlowRemoved, 2) == [wanted]
    assert shell.told(FlowRemoved, 3) == []


# ── timeouts ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def tick(shell: Shell, seconds: float) -> None:
    shell.now += seconds
    shell.step(Tick())


def test_hard_timeout() -> None:
    shell = Shell()
    shell.receive(FlowMod(flags=FlowModFlags.SEND_FLOW_REM, hard_timeout=3, instructions=to(2)))
    shell.inject(1, frame())
    tick(shell, 2.9)
    assert shell.inject(1, frame()) == [(2, frame())]
    tick(shell, 0.1)
    (removed,) = shell.told(FlowRemoved)
    assert (removed.reason, removed.packet_count, removed.duration_sec) == (FlowRemovedReason.HARD_TIMEOUT, 2, 3)
    assert shell.inject(1, frame()) == []


def test_idle_timeout_is_put_off_by_what_the_fast_path_does() -> None:
    shell = Shell()
    shell.receive(FlowMod(flags=FlowModFlags.SEND_FLOW_REM, idle_timeout=3, instructions=to(2)))
    for _ in range(5):
        shell.inject(1, frame())
        tick(shell, 2)
    assert shell.told(FlowRemoved) == []
    tick(shell, 0.9)
    assert shell.told(FlowRemoved) == []
    tick(shell, 0.1)
    (removed,) = shell.told(FlowRemoved)
    assert (removed.reason, removed.packet_count) == (FlowRemovedReason.IDLE_TIMEOUT, 5)
    assert entries(shell) == []


def test_megaflows_that_nothing_uses_go() -> None:
    shell = Shell()
    shell.receive(FlowMod(cookie=1, match=match(in_port=1), instructions=to(2)))
    shell.receive(FlowMod(cookie=2, match=match(in_port=2), instructions=to(1)))
    for in_port in (1, 1, 2, 2):
        shell.inject(in_port, frame())
    tick(shell, 6)
    shell.inject(2, frame())
    tick(shell, 5)
    assert [BY_NAME["in_port"].get(megaflow.key) for megaflow in shell.datapath.megaflows] == [2]
    assert {entry.cookie: entry.packet_count for entry in entries(shell)} == {1: 2, 2: 3}
    tick(shell, 20)
    assert shell.datapath.megaflows == []


# ── what the fast path is told, and when ───────────────────────────────────────────────────────────────────────────────
def test_only_megaflows_that_a_change_concerns_go() -> None:
    shell = Shell()
    shell.receive(FlowMod(priority=1, instructions=to(3)))
    shell.receive(FlowMod(priority=2, match=match(in_port=1), instructions=to(2)))
    shell.inject(1, frame())
    shell.inject(2, frame())
    first, second = shell.switch.megaflow_ids
    shell.receive(FlowMod(command=MODIFY_STRICT, priority=2, match=match(in_port=1), instructions=to(3)))
    assert shell.switch.megaflow_ids == (second,)
    assert RemoveMegaflows((first,)) in shell.effects
    shell.receive(FlowMod(priority=9, match=match(in_port=3), instructions=to(1)))
    assert shell.switch.megaflow_ids == (second,)


@pytest.mark.parametrize("few", [0, 1])
def test_a_barrier_is_answered_when_no_packet_is_under_way_by_old_rules(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(switch_module, "_FEW_MEGAFLOWS", few)
    shell = Shell()
    shell.receive(FlowMod(instructions=to(2)))
    shell.inject(1, frame())
    megaflow_ids = shell.switch.megaflow_ids
    before = len(shell.effects)
    shell.receive(FlowMod(instructions=to(3)))
    shell.receive(BarrierRequest(xid=4))
    assert shell.effects[before:] == [RemoveMegaflows(megaflow_ids), SendMessage(1, BarrierReply(xid=4))]
    assert shell.step(MessageReceived(1, BarrierRequest(xid=5), b"")) == [SendMessage(1, BarrierReply(xid=5))]


def test_many_flow_mods_cost_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many megaflows they are looked for when something else comes."""
    monkeypatch.setattr(switch_module, "_FEW_MEGAFLOWS", 0)
    shell = Shell()
    shell.receive(FlowMod(flags=FlowModFlags.SEND_FLOW_REM, instructions=to(2)))
    shell.inject(1, frame())
    shell.inject(1, frame())
    searches = 0
    revalidate = shell.switch._megaflows.revalidate

    def counted(translate):  # type: ignore[no-untyped-def]
        nonlocal searches
        searches += 1
        return revalidate(translate)

    monkeypatch.setattr(shell.switch._megaflows, "revalidate", counted)
    shell.receive(FlowMod(command=DELETE))
    for number in range(20):
        shell.receive(FlowMod(priority=number, match=match(eth_src=number), instructions=to(3)))
    assert searches == 0
    assert shell.told(FlowRemoved) == [], "the fast path still counts for it"
    effects = shell.step(Quiet())
    assert searches == 1
    assert [type(effect) for effect in effects] == [RemoveMegaflows]
    assert shell.told(FlowRemoved)[0].packet_count == 2
    shell.receive(FlowMod(priority=99, instructions=to(3)))
    shell.inject(1, frame())
    assert searches == 1, "no megaflow is left to look for"


def test_what_has_to_be_read_before_what() -> None:
    shell = Shell()
    reset = FlowMod(command=MODIFY, flags=FlowModFlags.RESET_COUNTS)
    switch = shell.switch

    def needs(mod: FlowMod) -> Need:
        return switch.needs(MessageReceived(1, mod, b""), shell.now)

    assert needs(reset) == Need.NOTHING
    shell.receive(FlowMod(idle_timeout=20, instructions=to(2)))
    shell.inject(1, frame())
    assert needs(reset) == Need.MEGAFLOW_STATISTICS
    assert needs(FlowMod()) == needs(FlowMod(command=DELETE)) == Need.NOTHING
    assert switch.needs(Tick(), shell.now + 19) == Need.NOTHING
    assert switch.needs(Tick(), shell.now + 20) == Need.MEGAFLOW_STATISTICS, "the idle timeout may be over"


def test_a_tick_reads_only_what_counts_for_entries_that_may_expire() -> None:
    shell = Shell()
    for in_port in (1, 2, 3):
        shell.receive(FlowMod(idle_timeout=in_port * 10, match=match(in_port=in_port), instructions=to(2)))
        shell.inject(in_port, frame())
    by_port = {IN_PORT.get(live.megaflow.key): live.megaflow.id for live in shell.switch.megaflows}
    assert shell.switch.counting_for(Tick(), shell.now + 25) == (by_port[1], by_port[2])
    assert shell.switch.counting_for(Quiet(), shell.now) == shell.switch.megaflow_ids


def test_match_all_is_the_table_miss_entry_at_priority_0() -> None:
    shell = Shell()
    shell.receive(FlowMod(priority=0))
    assert entries(shell)[0].is_table_miss
    assert entries(shell)[0].match == MATCH_ALL


def test_a_flow_removed_message_does_not_wait_for_ever() -> None:
    """The last statistics of a megaflow do not come: the next event goes without."""
    shell = Shell()
    shell.receive(FlowMod(flags=FlowModFlags.SEND_FLOW_REM, instructions=to(2)))
    shell.inject(1, frame())
    effects = shell.switch.step(MessageReceived(1, FlowMod(command=DELETE), b""), shell.now)
    assert [type(effect) for effect in effects] == [RemoveMegaflows]
    (removed,) = shell.switch.step(Quiet(), shell.now)
    assert isinstance(removed, SendMessage)
    assert isinstance(removed.message, FlowRemoved)
    assert removed.message.packet_count == 1
