"""Flow tables: adding, finding, selecting, counting, expiring."""

from __future__ import annotations

import pytest

from appliance.model.actions import ApplyActions, GotoTable, Group, Output, WriteActions
from appliance.model.fields import BY_NAME
from appliance.model.match import MATCH_ALL, Match, MatchField
from appliance.pipeline.flow_table import N_TABLES, Expiry, FlowEntry, FlowTable, Pipeline
from appliance.pipeline.xlate import Lookup, translate


def match(**fields: int) -> Match:
    return Match.of(MatchField(BY_NAME[name], value) for name, value in fields.items())


def table(*entries: FlowEntry) -> FlowTable:
    made = FlowTable(0)
    for entry in entries:
        made.add(entry)
    return made


def test_an_entry_with_the_same_match_and_priority_is_replaced() -> None:
    old = FlowEntry(5, match(in_port=1))
    new = FlowEntry(5, match(in_port=1))
    other = FlowEntry(6, match(in_port=1))
    flows = table(old, other)
    assert flows.add(new) is old
    assert old not in flows
    assert new in flows
    assert flows.active_count == len(flows) == 2
    assert flows.find(match(in_port=1), 5) is new
    assert flows.find(match(in_port=1), 7) is None
    assert flows.find(match(in_port=2), 5) is None


def test_removing_what_is_not_there_is_an_error() -> None:
    flows = table(FlowEntry(5))
    with pytest.raises(KeyError):
        flows.remove(FlowEntry(5))
    assert len(flows) == 1


def test_entries_come_by_falling_priority_and_then_by_age() -> None:
    entries = [FlowEntry(p, match(in_port=n), created_at=t) for n, (p, t) in enumerate([(1, 3.0), (9, 2.0), (1, 1.0), (5, 0.0)])]
    flows = table(*entries)
    expected = [entries[1], entries[3], entries[2], entries[0]]
    assert flows.entries() == expected
    assert flows.select() == expected


def test_select_is_non_strict() -> None:
    wide = FlowEntry(1, match(eth_type=0x0800))
    narrow = FlowEntry(2, match(eth_type=0x0800, ipv4_dst=1))
    arp = FlowEntry(3, match(eth_type=0x0806))
    flows = table(wide, narrow, arp)
    assert flows.select(match(eth_type=0x0800)) == [narrow, wide]
    assert flows.select(match(eth_type=0x0800, ipv4_dst=1)) == [narrow]
    assert flows.select(match(ipv4_dst=1)) == [narrow]


def test_select_filters_by_cookie_port_and_group() -> None:
    applied = FlowEntry(3, match(in_port=1), (ApplyActions((Output(4),)),), cookie=0x12)
    written = FlowEntry(2, match(in_port=2), (WriteActions((Output(4), Group(7))),), cookie=0x22)
    neither = FlowEntry(1, match(in_port=3), (GotoTable(4),), cookie=0x13)
    flows = table(applied, written, neither)
    assert flows.select(out_port=4) == [applied, written]
    assert flows.select(out_port=7) == []
    assert flows.select(out_group=7) == [written]
    assert flows.select(cookie=0x10, cookie_mask=0xF0) == [applied, neither]
    assert flows.select(cookie=0x12, cookie_mask=0xFF, out_port=4) == [applied]
    assert flows.select(cookie=0x99, cookie_mask=0) == [applied, written, neither]


def test_only_entries_of_the_same_priority_overlap() -> None:
    flows = table(FlowEntry(5, match(in_port=1)), FlowEntry(6, match(eth_dst=1)))
    assert flows.overlapping(match(eth_dst=9), 5) is not None
    assert flows.overlapping(match(in_port=2), 5) is None
    assert flows.overlapping(match(eth_dst=9), 6) is None
    assert flows.overlapping(MATCH_ALL, 6) is not None
    assert flows.overlapping(MATCH_ALL, 7) is None


def test_is_table_miss() -> None:
    assert FlowEntry(0).is_table_miss
    assert not FlowEntry(1).is_table_miss
    assert not FlowEntry(0, match(in_port=1)).is_table_miss


# ── expiry ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_timeouts() -> None:
    idle = FlowEntry(1, idle_timeout=10, created_at=100.0)
    hard = FlowEntry(2, hard_timeout=15, created_at=100.0)
    both = FlowEntry(3, idle_timeout=10, hard_timeout=12, created_at=100.0)
    never = FlowEntry(4, created_at=100.0)
    flows = table(idle, hard, both, never)
    assert flows.expiry_candidates(109.9) == []
    assert set(flows.expiry_candidates(110.0)) == {idle, both}
    both.last_used = 109.0
    idle.last_used = 109.5
    assert flows.expiry_candidates(111.0) == []
    assert set(flows.expiry_candidates(112.0)) == {both}
    assert both.expired(112.0) is Expiry.HARD_TIMEOUT
    assert idle.expired(112.0) is None
    assert idle.expired(119.5) is Expiry.IDLE_TIMEOUT
    assert never.expired(1e9) is None
    flows.remove(both)
    assert set(flows.expiry_candidates(1e9)) == {idle, hard}
    assert set(flows.expiry_candidates(1e9)) == {idle, hard}, "a candidate stays one until it is removed"


def test_the_hard_timeout_is_named_when_both_are_over() -> None:
    entry = FlowEntry(3, idle_timeout=10, hard_timeout=10, created_at=0.0)
    assert entry.expired(10.0) is Expiry.HARD_TIMEOUT


def test_a_removed_or_replaced_entry_never_expires_and_costs_nothing_for_ever() -> None:
    flows = FlowTable(0)
    for number in range(1000):
        entry = FlowEntry(1, match(in_port=number), idle_timeout=10)
        flows.add(entry)
        flows.remove(entry)
    replaced = FlowEntry(1, match(in_port=1), hard_timeout=1)
    flows.add(replaced)
    flows.add(FlowEntry(1, match(in_port=1)))
    assert flows.expiry_candidates(1e9) == []
    assert len(flows._deadlines) < 100
    for time in range(1000):
        flows.add(FlowEntry(1, match(in_port=1), idle_timeout=60, created_at=float(time)))
    assert len(flows._deadlines) < 100, "an entry that is sent again takes the place of the one before"


def test_an_entry_put_back_is_a_candidate_once() -> None:
    entry = FlowEntry(1, idle_timeout=1)
    flows = table(entry)
    flows.remove(entry)
    flows.add(entry)
    assert flows.expiry_candidates(5.0) == [entry]


# ── the pipeline ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_tables_are_made_when_asked_for() -> None:
    pipeline = Pipeline()
    assert pipeline.lookup(7, 0) == (None, 0)
    assert list(pipeline) == []
    last, first = pipeline.table(N_TABLES - 1), pipeline.table(0)
    assert pipeline.table(0) is first
    assert list(pipeline) == [first, last]


@pytest.mark.parametrize("table_id", [-1, 254, 255])
def test_there_is_no_other_table(table_id: int) -> None:
    with pytest.raises(ValueError, match=str(table_id)):
        Pipeline().table(table_id)


def test_counting() -> None:
    pipeline = Pipeline()
    entry = FlowEntry(0, MATCH_ALL, (GotoTable(3),), created_at=50.0)
    pipeline.table(0).add(entry)
    lookups = translate(pipeline, 0).lookups
    pipeline.count(lookups, 2, 300, 60.0)
    pipeline.count(lookups, 1, 100, 55.0)
    assert (entry.packet_count, entry.byte_count, entry.last_used) == (3, 400, 60.0)
    assert [(item.table_id, item.lookup_count, item.matched_count) for item in pipeline] == [(0, 3, 3), (3, 3, 0)]


def test_counting_no_packets_is_no_use_of_the_entry() -> None:
    pipeline = Pipeline()
    entry = FlowEntry(0, created_at=50.0)
    pipeline.table(0).add(entry)
    pipeline.count([Lookup(0, 0, 0, entry)], 0, 0, 60.0)
    assert entry.last_used == 50.0
