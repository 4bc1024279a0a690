"""Translations with meters and queues: what comes before what, and what is known behind a remark."""

from __future__ import annotations

from pipeline_support import ALL, DST, SRC, F, Setup, all_of, apply, bucket, fast, key_of, write

from appliance.model.actions import (
    Action,
    ApplyActions,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    SetQueue,
)
from appliance.model.fields import ETH_TYPE
from appliance.model.megaflow import Clone, Forward, MeterBand, PushTag
from appliance.pipeline.meter_table import MeterEntry, MeterFlags
from appliance.pipeline.xlate import Translation, resume


def metered(*instructions: Instruction, remark: int | None = None) -> Setup:
    setup = Setup(Meter(1), *instructions)
    setup.pipeline.meters.add(MeterEntry(1, MeterFlags.PKTPS, [MeterBand(10, 1, remark)]))
    return setup


def test_a_meter_comes_before_everything_else_of_its_entry() -> None:
    translation = metered(ApplyActions((Output(2),))).translate()
    assert translation.actions == (Meter(1), Forward(2))
    assert translation.meters == {1}
    assert fast(translation.actions)


def test_a_meter_runs_though_nothing_leaves() -> None:
    assert metered().translate().actions == (Meter(1),)
    assert Setup(Meter(9), ApplyActions((Output(2),))).translate().actions == (Forward(2),)


def test_a_later_meter_comes_before_changes_that_it_does_not_see() -> None:
    def later(*actions: Action) -> Translation:
        setup = Setup(ApplyActions(actions), GotoTable(1)).entry(1, Meter(1), ApplyActions((Output(2),)))
        setup.pipeline.meters.add(MeterEntry(1, MeterFlags.PKTPS, [MeterBand(10, 1)]))
        return setup.translate()

    assert later(DST, SRC).actions == (Meter(1), DST, SRC, Forward(2))
    for seen in (SetField(F["ip_dscp"], 3), SetField(ETH_TYPE, 0x1234)):
        assert later(DST, seen).actions == (DST, seen, Meter(1), Forward(2))
    assert later(PushVlan(0x8100)).actions == (PushTag(0x8100, 0), Meter(1), Forward(2))
    assert later(Output(3)).actions == (Forward(3), Meter(1), Forward(2))


def test_what_a_remark_may_have_changed_is_not_known() -> None:
    for remark, again in ((1, True), (None, False)):
        setup = metered(GotoTable(1), remark=remark).entry(1, ApplyActions((Output(2),)), priority=1, eth_type=0x0800, ip_dscp=0)
        translation = setup.translate()
        assert (translation.again is not None) is again
    setup = metered(ApplyActions((SetField(F["ip_dscp"], 5),)), GotoTable(1), remark=1)
    setup.entry(1, ApplyActions((Output(2),)), priority=1, eth_type=0x0800, ip_dscp=5)
    assert setup.translate().actions == (Meter(1), SetField(F["ip_dscp"], 5), Forward(2))


def test_more_meters_than_the_fast_path_runs_stay_on_the_slow_path() -> None:
    setup = metered(GotoTable(1))
    for table_id in range(1, 5):
        assert not setup.translate().slow_path_only
        setup.entry(table_id, Meter(1), GotoTable(table_id + 1))
    assert setup.translate().slow_path_only


# ── queues ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_queues() -> None:
    assert apply(SetQueue(1), SetQueue(2), Output(2), SetQueue(3)).translate().actions == (SetQueue(2), Forward(2))
    assert write(Output(2), SetQueue(3)).translate().actions == (SetQueue(3), Forward(2))
    one, two = bucket(SetQueue(1), Output(2)), bucket(SetQueue(2), Output(3))
    assert all_of(one, two).actions == (SetQueue(1), Forward(2), SetQueue(2), Forward(3))
    assert apply(SetQueue(7), Group(1), DST, Output(9)).group(ALL, one).translate().actions == (
        SetQueue(1),
        Forward(2),
        SetQueue(7),
        DST,
        Forward(9),
    )
    no_queue = apply(Group(1), DST, Output(9)).group(ALL, one).translate()
    assert no_queue.actions == (Clone((SetQueue(1), Forward(2))), DST, Forward(9))


def test_the_queue_goes_along_when_the_frame_is_parsed_again() -> None:
    setup = apply(SetQueue(7), PopVlan(), SetField(F["ipv4_dst"], 1), Output(2))
    first = setup.translate(key_of(1, 2, 3))
    assert first.again is not None
    second = resume(setup.pipeline, first.again, key_of(2, 3))
    assert second.actions == (SetQueue(7), SetField(F["ipv4_dst"], 1), Forward(2))
