"""The fake fast path does with groups, meters and what it cannot do what the real one does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vectors import frames

from appliance.datapath.driver import DatapathError, DatapathPort
from appliance.datapath.fake import FakeDatapath
from appliance.model.actions import Meter, PopPbb, PushPbb
from appliance.model.fields import IN_PORT
from appliance.model.megaflow import (
    Burst,
    Clone,
    DatapathAction,
    DropReason,
    Failover,
    Forward,
    Megaflow,
    MeterBand,
    MeterConfig,
    MeterCounters,
    Select,
    UpcallReason,
    Way,
)
from appliance.model.ports import Hook

FRAME = frames.ethernet(0x0800, frames.ipv4(6, frames.tcp()))
IN_PORT_1 = IN_PORT.put(0, 1)
PORTS = {number: DatapathPort(number, f"p{number}", number, Hook.TC) for number in (1, 2, 3)}


def fake(*actions: DatapathAction, meters: tuple[MeterConfig, ...] = ()) -> FakeDatapath:
    """With one megaflow (id 7) for everything from port 1."""
    made = FakeDatapath(lambda: 5.0)
    for port in PORTS.values():
        made.attach(port)
    for meter in meters:
        made.set_meter(meter)
    assert made.install(Megaflow(7, IN_PORT_1, IN_PORT.mask, actions))
    made.caught_up((7,))
    return made


def counted(made: FakeDatapath) -> tuple[int, tuple[tuple[int, int], ...]]:
    statistics = made.statistics((7,))[7]
    return statistics.packets, statistics.ways


def test_failover_goes_to_the_first_live_port_at_once() -> None:
    made = fake(Failover(1, tuple(Way(bucket, (Forward(bucket + 2),), watch_port=bucket + 2) for bucket in (0, 1))))
    for live in ((2, 3), (3,), ()):
        for number in (2, 3):
            made.update(replace(PORTS[number], live=number in live))
        made.inject(1, FRAME)
    size = len(FRAME)
    assert [port for port, _ in made.sent] == [2, 3]
    assert counted(made) == (3, ((1, size), (1, size)))
    assert made.drops() == {DropReason.NO_LIVE_BUCKET: 1}


def test_select_counts_its_ways() -> None:
    made = fake(Select(1, (Way(0, (Forward(2),)), Way(1, (Forward(3),), weight=3))))
    sources = [FRAME[:6] + number.to_bytes(6, "big") + FRAME[12:] for number in range(400)]
    for frame in sources:
        made.inject(1, frame)
    packets, ways = counted(made)
    assert packets == 400
    assert [sum(1 for port, _ in made.sent if port == number) for number in (2, 3)] == [way[0] for way in ways]
    assert ways[0][0] == pytest.approx(100, abs=30)


def test_a_meter_drops_and_counts() -> None:
    made = fake(Meter(4), Forward(2), meters=(MeterConfig(4, True, (MeterBand(1, 2),)),))
    for _ in range(5):
        made.inject(1, FRAME)
    assert len(made.sent) == 2
    assert made.drops() == {DropReason.METER: 3}
    assert made.meter_counters((4, 5)) == {4: MeterCounters(5, 5 * len(FRAME), ((3, 3 * len(FRAME)),))}
    with pytest.raises(DatapathError):
        made.remove_meter(4)
    made.remove((7,))
    made.remove_meter(4)
    assert made.meter_counters((4,)) == {}


@pytest.mark.parametrize(
    "actions", [(PushPbb(0x88E7), Forward(2)), (Clone((PopPbb(), Forward(2))), Forward(3)), (Forward(2), Meter(4))]
)
def test_what_the_real_one_cannot_do_comes_up(actions: tuple[DatapathAction, ...]) -> None:
    made = fake(*actions)
    made.inject(1, FRAME)
    (upcall,) = made.upcalls(9)
    assert (upcall.reason, upcall.megaflow_id, upcall.frame) == (UpcallReason.ACTION, 7, FRAME)
    assert made.sent == []
    assert counted(made)[0] == 0


def test_meters_are_run_before_a_packet_comes_up() -> None:
    remark = MeterConfig(4, True, (MeterBand(1, 1, prec_level=1),))
    made = fake(Meter(4), PushPbb(0x88E7), Forward(2), meters=(remark,))
    af11 = frames.Sample(frames.ethernet(0x0800, frames.ipv4(6, frames.tcp(), tos=10 << 2)), 4, 14, 34, 6).finished().frame
    made.inject(1, af11)
    made.inject(1, af11)
    (burst,) = made.upcalls(9)
    assert isinstance(burst, Burst)
    first, second = burst.one_by_one()
    assert first == burst.first
    assert first.frame == af11
    assert second.frame[15] == 12 << 2
    assert made.meter_counters((4,))[4].packet_in_count == 2
