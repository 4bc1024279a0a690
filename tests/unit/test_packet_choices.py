"""Executing copies, the ways of groups, meters and queues."""

from __future__ import annotations

from itertools import pairwise

import pytest
from vectors import frames

from appliance.model.actions import Meter, SetField, SetQueue
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import Clone, DatapathAction, DecTtl, Failover, Forward, PopTag, PushTag, Select, Way
from appliance.packet.execute import INVALID_TTL, Emission, execute
from appliance.packet.meter import METER_DROPS, METER_PASSES
from appliance.packet.parse import parse
from appliance.packet.select import select_way, thresholds

FRAME = frames.Sample(frames.ethernet(0x0800, frames.ipv4(6, frames.tcp())), 4, 14, 34, 6).finished().frame
DST = SetField(BY_NAME["eth_dst"], 5)
CHANGED = bytes((0, 0, 0, 0, 0, 5)) + FRAME[6:]


def run(*actions: DatapathAction, **arguments: object) -> list[Emission]:
    return execute(FRAME, actions, 1, **arguments)  # type: ignore[arg-type]


def ports(emissions: list[Emission]) -> list[int]:
    return [emission.action.port for emission in emissions if isinstance(emission.action, Forward)]


# ── copies ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_is_done_to_a_copy_does_not_change_the_packet() -> None:
    emissions = run(Clone((DST, PushTag(0x8100, 1), Forward(2), Clone((PopTag(), Forward(3))), Forward(4))), Forward(5))
    assert ports(emissions) == [2, 3, 4, 5]
    assert [len(emission.frame) - len(FRAME) for emission in emissions] == [4, 0, 4, 0]
    assert emissions[1].frame == CHANGED
    assert emissions[3].frame == FRAME


def test_a_copy_has_the_packets_changes_so_far_and_stops_alone() -> None:
    assert run(DST, Clone((Forward(2),)))[0].frame == CHANGED
    set_ttl = SetField(BY_NAME["ip_ttl"], 1)
    emissions = run(Clone((set_ttl, DecTtl(), Forward(2))), Forward(3))
    assert [emission.action for emission in emissions] == [INVALID_TTL, Forward(3)]
    assert emissions[1].frame == FRAME


def test_a_partial_checksum_stays_one_in_a_copy() -> None:
    put = SetField(BY_NAME["ipv4_dst"], 9)
    partial = frames.Sample(FRAME, 4, 14, 34, 6).partial().frame
    alone = execute(partial, (put, Forward(1)), 1, partial_checksum=True)
    assert execute(partial, (Clone((put, Forward(1))),), 1, partial_checksum=True) == alone


# ── ways ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
WAYS = tuple(Way(bucket, (DST, Forward(bucket + 1)), weight=1, watch_port=bucket + 1) for bucket in range(3))


def test_select_takes_the_way_of_the_hash_of_the_packet_as_it_is() -> None:
    taken: list[tuple[object, Way]] = []
    choice = Select(7, WAYS)
    for value in range(40):
        put = SetField(BY_NAME["ipv4_src"], value)
        emissions = run(put, choice, Forward(9), chosen=lambda *way: taken.append(way))
        frame = execute(FRAME, (put, Forward(1)), 1)[0].frame
        way = select_way(parse(frame, 1).key, WAYS)
        assert way is not None
        assert ports(emissions) == [way.bucket + 1]
        assert taken.pop() == (choice, way)
    assert run(Select(7, ()), chosen=lambda *way: taken.append(way)) == []
    assert taken == []


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 3, 2), (1, 0, 9), (65535, 1, 1)])
def test_shares_are_in_proportion_to_the_weights(weights: tuple[int, ...]) -> None:
    ways = [Way(bucket, (), weight) for bucket, weight in enumerate(weights)]
    limits = [0, *thresholds(ways)]
    shares = [behind - first for first, behind in pairwise(limits)]
    assert sum(shares) == 1 << 32
    for share, weight in zip(shares, weights, strict=True):
        assert share == pytest.approx((1 << 32) * weight / sum(weights), abs=1)


def test_failover_takes_the_first_way_that_is_live() -> None:
    choice = Failover(7, WAYS)
    for live, expected in (((1, 2, 3), [1]), ((2, 3), [2]), ((3,), [3]), ((), [])):
        assert ports(run(choice, port_is_live=lambda port, live=live: port in live)) == expected
    assert ports(run(choice)) == [1]
    always = Failover(7, (WAYS[0], Way(1, (Forward(8),))))
    assert ports(run(always, port_is_live=lambda _: False)) == [8]


# ── meters ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_meter_passes_drops_or_remarks() -> None:
    seen: list[tuple[int, int]] = []

    def meter(meter_id: int, octets: int) -> int:
        seen.append((meter_id, octets))
        return {1: METER_PASSES, 2: METER_DROPS}.get(meter_id, meter_id)

    assert ports(run(Meter(1), PushTag(0x8100, 1), Meter(1), Forward(2), meter=meter)) == [2]
    assert seen == [(1, len(FRAME)), (1, len(FRAME) + 4)]
    assert ports(run(Forward(2), Meter(2), Forward(3), meter=meter)) == [2]
    assert ports(run(Clone((Meter(2), Forward(2))), Forward(3), meter=meter)) == [3]
    assert ports(run(Meter(2), Forward(2))) == [2]


@pytest.mark.parametrize(("dscp", "expected"), [(10, 14), (26, 30), (46, 46), (0, 0)])
def test_a_remark_raises_the_drop_precedence(dscp: int, expected: int) -> None:
    put = SetField(BY_NAME["ip_dscp"], dscp)
    (remarked,) = run(put, Meter(4), Forward(2), meter=lambda *_: 2)
    (direct,) = run(SetField(BY_NAME["ip_dscp"], expected), Forward(2))
    assert remarked == direct


def test_a_remark_of_something_else_than_ip_does_nothing() -> None:
    arp = frames.ethernet(0x0806, frames.arp())
    assert execute(arp, (Meter(4), Forward(2)), 1, meter=lambda *_: 1) == [Emission(Forward(2), arp)]


def test_meters_that_the_fast_path_has_run_are_not_run_again() -> None:
    seen: list[int] = []
    actions = (Meter(1), Meter(2), DST, Meter(3), Forward(2))
    run(*actions, metered=True, meter=lambda meter_id, _: seen.append(meter_id) or METER_PASSES)
    assert seen == [3]


# ── queues ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_emission_says_which_queue_the_packet_takes() -> None:
    emissions = run(
        Forward(1), SetQueue(4), Forward(2), Clone((Forward(3), SetQueue(5), Forward(4))), Select(1, (Way(0, (Forward(5),)),))
    )
    assert [emission.queue_id for emission in emissions] == [None, 4, 4, 5, 4]
