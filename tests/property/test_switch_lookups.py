"""The search for look-ups that a new flow entry may change: whatever came and went and was asked before, it finds what going
through all of them does.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.match import Match
from appliance.pipeline.flow_table import FlowEntry
from appliance.pipeline.translation import Lookup
from appliance.switch import lookups as module
from appliance.switch.lookups import Lookups

KNOWN = 0b1101
BITS = st.integers(0, 15)
FOUND = st.one_of(st.none(), st.integers(0, 3))
ENTRY = st.tuples(BITS, BITS, st.integers(0, 3))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), BITS, FOUND),
        st.tuples(st.just("remove"), st.integers(0, 100)),
        st.tuples(st.just("ask"), st.lists(ENTRY, min_size=1, max_size=3)),
    ),
    max_size=60,
)


def entry(value: int, mask: int, priority: int) -> FlowEntry:
    return FlowEntry(priority, Match((), value & mask, mask))


def obvious(live: dict[int, Lookup], entries: list[FlowEntry]) -> set[int]:
    return {
        megaflow_id
        for megaflow_id, lookup in live.items()
        for new in entries
        if not (lookup.key ^ new.match.value) & new.match.mask & KNOWN
        and (lookup.entry is None or lookup.entry.priority <= new.priority)
    }


@settings(max_examples=300)
@given(STEPS)
def test_views_find_what_going_through_all_does(steps: list[tuple]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", 0)
        patch.setattr(module, "_MAX_VIEWS", 3)
        lookups = Lookups(KNOWN)
        live: dict[int, Lookup] = {}
        views = 0
        for number, (what, *how) in enumerate(steps):
            if what == "add":
                key, found = how
                live[number] = Lookup(0, key, KNOWN, None if found is None else entry(key, 15, found))
                lookups.add(number, live[number])
            elif what == "remove" and live:
                gone = list(live)[how[0] % len(live)]
                del live[gone]
                lookups.remove(gone)
            elif what == "ask":
                entries = [entry(*item) for item in how[0]]
                assert set(lookups.changed_by(entries)) == obvious(live, entries)
            views = max(views, len(lookups._views))
        assert len(lookups) == len(live)
        assert views <= 3


def test_a_view_comes_with_the_second_question_and_goes_when_nobody_asks() -> None:
    lookups = Lookups(KNOWN)
    for number in range(module._FEW + 1):
        lookups.add(number, Lookup(0, number & KNOWN, KNOWN, None))
    new = entry(1, 1, 1)
    first = set(lookups.changed_by([new]))
    assert not lookups._views
    assert set(lookups.changed_by([new])) == first == {number for number in range(module._FEW + 1) if number & 1}
    assert lookups._views
    for number in range(1000, 1000 + module._FEW):
        lookups.add(number, Lookup(0, 0, KNOWN, None))
        lookups.remove(number)
    assert not lookups._views
    assert set(lookups.changed_by([new])) == first
