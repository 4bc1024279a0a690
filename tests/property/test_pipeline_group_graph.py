"""Chained and watched groups against plain recursion; meters against the sum that they may let through."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import frames

from appliance.model.actions import Group
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import MeterBand, MeterConfig, Way
from appliance.model.ports import PortNo
from appliance.packet.meter import METER_PASSES, TokenMeter
from appliance.packet.parse import parse
from appliance.packet.select import select_way
from appliance.pipeline.group_table import OFPG_ANY, Bucket, GroupEntry, GroupTable, GroupType

UDP = parse(frames.ethernet(0x0800, frames.ipv4(17, frames.udp())), 1).key
IDS = st.integers(1, 6)
FORWARDS = st.dictionaries(IDS, st.lists(st.lists(IDS, max_size=2), max_size=3), max_size=6)
"""By group id: for each bucket the groups that it forwards to. Circles too, which a group table never has."""
WATCHES = st.dictionaries(
    IDS, st.lists(st.tuples(st.sampled_from((PortNo.ANY, 1, 2, 3)), st.sampled_from((OFPG_ANY, 1, 2, 3, 4, 5, 6))), max_size=3)
)


def forwarding(*group_ids: int) -> Bucket:
    return Bucket(tuple(Group(group_id) for group_id in group_ids))


@given(FORWARDS, IDS, st.lists(IDS, max_size=3))
def test_a_loop_is_a_way_back_to_the_group(forwards: dict[int, list[list[int]]], group_id: int, wanted: list[int]) -> None:
    groups = GroupTable()
    for other, buckets in forwards.items():
        groups.add(GroupEntry(other, GroupType.ALL, [forwarding(*bucket) for bucket in buckets]))

    def reaches(start: int, seen: frozenset[int]) -> bool:
        if start == group_id:
            return True
        behind = {other for bucket in forwards.get(start, []) for other in bucket}
        return any(reaches(other, seen | {start}) for other in behind - seen)

    assert groups.loops(group_id, [forwarding(other) for other in wanted]) == any(reaches(other, frozenset()) for other in wanted)


@given(WATCHES, IDS, st.sets(st.integers(1, 3)))
def test_a_group_is_live_while_something_that_it_watches_is(
    watches: dict[int, list[tuple[int, int]]], group_id: int, live: set[int]
) -> None:
    groups = GroupTable()
    for other, buckets in watches.items():
        groups.add(GroupEntry(other, GroupType.FF, [Bucket(watch_port=port, watch_group=group) for port, group in buckets]))

    def group_is_live(other: int, watching: frozenset[int]) -> bool:
        return other not in watching and any(
            (port == PortNo.ANY and group == OFPG_ANY) or port in live or group_is_live(group, watching | {other})
            for port, group in watches.get(other, [])
        )

    assert groups.is_live(group_id, live.__contains__) == group_is_live(group_id, frozenset())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from(("eth_src", "eth_dst", "ipv4_src", "ipv4_dst")))
@settings(max_examples=20)
def test_flows_are_shared_by_weight(weights: list[int], counted: str) -> None:
    """Addresses that differ as little as they do when a test counts them up."""
    ways = [Way(at, (), weight) for at, weight in enumerate(weights)]
    total = 3000
    taken = [0] * len(ways)
    for number in range(total):
        way = select_way(BY_NAME[counted].put(UDP, number), ways)
        assert way is not None
        taken[way.bucket] += 1
    for count, weight in zip(taken, weights, strict=True):
        assert count == pytest.approx(total * weight / sum(weights), abs=200)


@given(
    st.integers(1, 1000),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 0.1, allow_subnormal=False), st.integers(60, 1500)), min_size=1, max_size=200),
    st.booleans(),
)
def test_a_meter_lets_through_its_rate_and_a_burst(
    rate: int, burst: int, packets: list[tuple[float, int]], in_packets: bool
) -> None:
    meter = TokenMeter(MeterConfig(1, in_packets, (MeterBand(rate, burst),)))
    now, passed, largest = 50.0, 0.0, 0.0
    for gap, octets in packets:
        now += gap
        amount = 1.0 if in_packets else octets * 8 / 1000
        largest = max(largest, amount)
        if meter.run(1, octets, now) == METER_PASSES:
            passed += amount
    # Each time the bucket is full, a packet larger than the burst may go; the next ones wait for it.
    assert passed <= (now - 50.0) * rate * 1.001 + max(burst, largest) + 1e-6 * len(packets)
