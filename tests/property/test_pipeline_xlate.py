"""Translation against itself: on keys changed outside the mask, and after changes that it does not depend on."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st
from support import pipeline_cases as cases

from appliance.model.actions import Output
from appliance.model.fields import BY_NAME, ETH_SRC, IN_PORT, METADATA
from appliance.model.ports import PortNo
from appliance.pipeline.flow_table import FlowEntry
from appliance.pipeline.mac_table import MacTable, normal
from appliance.pipeline.translation import Continuation
from appliance.pipeline.xlate import Lookup, Translation, translate, translate_actions

MANY = settings(max_examples=5 * settings.default.max_examples)

MAC_TABLE = MacTable()
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 2), 0x020000000001), 0.0)
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 3), 0x020000000002), 0.0)


def normal_port(key: int) -> Translation:
    return normal(key, MAC_TABLE, 1.0)


def some_ports_live(port: int) -> bool:
    return port in (2, PortNo.LOCAL)


# ── mask safety ────────────────────────────────────────────────────────────────────────────────────────────────────────
def same_way_on(one: Continuation | None, other: Continuation | None) -> bool:
    """But for the tunnel id, which the packet carries along."""
    if one is None or other is None:
        return one is other
    return replace(one, carried=0) == replace(other, carried=0)


def assert_same(first: Translation, second: Translation) -> None:
    assert second.actions == first.actions
    assert second.mask == first.mask
    assert second.slow_path_only == first.slow_path_only
    assert same_way_on(first.again, second.again)
    assert len(second.forks) == len(first.forks)
    assert all(same_way_on(*pair) for pair in zip(first.forks, second.forks, strict=True))
    assert (second.hits, second.way_hits) == (first.hits, first.way_hits)
    assert (second.groups, second.meters, second.watched_ports) == (first.groups, first.meters, first.watched_ports)
    assert len(second.lookups) == len(first.lookups)
    for one, other in zip(first.lookups, second.lookups, strict=True):
        assert (other.table_id, other.entry, other.known) == (one.table_id, one.entry, one.known)
        assert not (other.key ^ one.key) & one.known
    for one_key, other_key in zip(first.normal_keys, second.normal_keys, strict=True):
        assert not (one_key ^ other_key) & (ETH_SRC.mask | BY_NAME["eth_dst"].mask | BY_NAME["vlan_vid"].mask)


EVERYTHING = st.booleans()


@given(cases.RANDOMS, EVERYTHING)
@MANY
def test_bits_outside_the_mask_change_nothing(rnd: Random, everything: bool) -> None:
    pipeline, key = cases.pipeline(rnd, everything), cases.flow_key(rnd, everything)
    first = translate(pipeline, key, normal_port, some_ports_live)
    assert first.mask & IN_PORT.mask == IN_PORT.mask
    assert not first.mask & METADATA.mask
    event(f"tables {len(first.lookups)}")
    event(f"parse again: {first.again is not None}")
    for _ in range(5):
        other = cases.flip(rnd, key, ~first.mask & ~METADATA.mask)
        assert_same(first, translate(pipeline, other, normal_port, some_ports_live))


@given(cases.RANDOMS, EVERYTHING)
@MANY
def test_bits_outside_the_mask_change_no_packet_out(rnd: Random, everything: bool) -> None:
    pipeline, key = cases.pipeline(rnd, everything), cases.flow_key(rnd, everything)
    actions = cases.actions(rnd, 6, everything)
    if rnd.random() < 0.5:
        actions = (*actions, Output(PortNo.TABLE))
    first = translate_actions(pipeline, key, actions, normal_port)
    for _ in range(5):
        other = cases.flip(rnd, key, ~first.mask & ~METADATA.mask)
        assert_same(first, translate_actions(pipeline, other, actions, normal_port))


# ── what a change of a table affects ───────────────────────────────────────────────────────────────────────────────────
def changed_by(lookup: Lookup, added: FlowEntry) -> bool:
    """Whether adding this entry could change the look-up's result for some packet of the megaflow, as far as ``known`` says."""
    if lookup.entry is not None and lookup.entry.priority > added.priority:
        return False
    return not (lookup.key ^ added.match.value) & added.match.mask & lookup.known


@given(cases.RANDOMS, EVERYTHING)
@MANY
def test_an_added_entry_that_changes_a_translation_changes_one_of_its_lookups(rnd: Random, everything: bool) -> None:
    pipeline, key = cases.pipeline(rnd, everything), cases.flow_key(rnd, everything)
    before = translate(pipeline, key, normal_port)
    table = pipeline.table(rnd.randrange(cases.TABLES))
    added = cases.flow_entry(rnd, table.table_id, rnd.choice((100, 2, 0)), everything)
    table.add(added)
    affected = any(changed_by(lookup, added) for lookup in before.lookups if lookup.table_id == table.table_id)
    event(f"affected: {affected}")
    if before.again is None and not before.forks and not affected:
        after = translate(pipeline, cases.flip(rnd, key, ~before.mask & ~METADATA.mask), normal_port)
        if after.again is None and not after.forks:
            # (Otherwise more was asked for than had to be, to know that the entry does not match.)
            assert after.actions == before.actions
            assert [lookup.entry for lookup in after.lookups] == [lookup.entry for lookup in before.lookups]


# ── what else a translation depends on ─────────────────────────────────────────────────────────────────────────────────
@given(cases.RANDOMS)
@MANY
def test_only_groups_and_ports_that_it_depends_on_change_a_translation(rnd: Random) -> None:
    pipeline, key = cases.pipeline(rnd, True), cases.flow_key(rnd, True)
    live = {port for port in (1, 2, 3, PortNo.LOCAL) if rnd.random() < 0.5}
    before = translate(pipeline, key, normal_port, live.__contains__)
    event(f"groups {len(before.groups)}, ports {len(before.watched_ports)}")
    for group in pipeline.groups:
        if group.group_id not in before.groups:
            if rnd.random() < 0.3:
                pipeline.groups.delete(group.group_id)
            else:
                other = cases.group(rnd, group.group_id)
                pipeline.groups.modify(group.group_id, other.type, other.buckets)
    live ^= {port for port in (1, 2, 3, PortNo.LOCAL) if port not in before.watched_ports and rnd.random() < 0.5}
    assert_same(before, translate(pipeline, key, normal_port, live.__contains__))


@given(cases.RANDOMS)
@MANY
def test_only_meters_that_it_depends_on_change_a_translation(rnd: Random) -> None:
    pipeline, key = cases.pipeline(rnd, True), cases.flow_key(rnd, True)
    before = translate(pipeline, key, normal_port)
    for meter_id in (cases.REMARKING_METER, cases.DROPPING_METER):
        if meter_id not in before.meters:
            pipeline.meters.delete(meter_id)
    assert_same(before, translate(pipeline, key, normal_port))
