"""Meters: token buckets, bands, counters."""

from __future__ import annotations

import pytest

from appliance.model.actions import Meter
from appliance.model.match import MATCH_ALL
from appliance.model.megaflow import MeterBand, MeterConfig, MeterCounters
from appliance.packet.meter import METER_DROPS, METER_PASSES, TokenMeter, remarked_dscp
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.meter_table import OFPM_ALL, MeterEntry, MeterFlags, MeterTable

PACKETS = MeterFlags.PKTPS | MeterFlags.BURST
KILOBITS = MeterFlags.KBPS | MeterFlags.BURST


def at_work(flags: int, *bands: MeterBand) -> TokenMeter:
    return TokenMeter(MeterEntry(1, flags, bands).config)


def passed(meter: TokenMeter, octets: int, interval: float, seconds: float, start: float = 100.0) -> int:
    """Packets let through out of one every ``interval`` for so many seconds."""
    times = (start + n * interval for n in range(int(seconds / interval)))
    return sum(meter.run(1, octets, now) == METER_PASSES for now in times)


@pytest.mark.parametrize("rate", [100, 5_000, 20_000])
def test_packets_per_second(rate: int) -> None:
    meter = at_work(PACKETS, MeterBand(rate, 10))
    assert passed(meter, 1000, 1 / (3 * rate), 2.0) == pytest.approx(2 * rate + 10, abs=3)


@pytest.mark.parametrize("rate", [1_000, 210_000, 1_000_000])
def test_kilobits_per_second(rate: int) -> None:
    meter = at_work(KILOBITS, MeterBand(rate, 100))
    interval = 1500 * 8 / (rate * 1000 * 2)
    sent = passed(meter, 1500, interval, 2000 * interval) * 1500 * 8 / 1000
    assert sent == pytest.approx(2000 * interval * rate + 100, abs=3 * 12)


def test_below_the_rate_everything_passes() -> None:
    meter = at_work(PACKETS, MeterBand(1000, 1))
    assert passed(meter, 60, 1 / 999, 1.0) == 999


def test_a_full_bucket_lets_any_packet_through() -> None:
    meter = at_work(KILOBITS, MeterBand(8, 1))  # 1,000 bytes a second, 125 at once
    assert meter.run(1, 1000, 5.0) == METER_PASSES
    assert meter.run(1, 60, 5.5) == METER_DROPS
    assert meter.run(1, 60, 5.94) == METER_PASSES
    assert meter.run(1, 60, 5.99) == METER_DROPS


def test_a_burst_that_is_not_to_count_is_a_second_worth() -> None:
    meter = MeterEntry(1, MeterFlags.PKTPS, [MeterBand(50, 1)])
    assert meter.config == MeterConfig(1, True, (MeterBand(50, 0),))
    assert meter.bands == (MeterBand(50, 1),)
    working = TokenMeter(meter.config)
    assert sum(working.run(1, 60, 9.0) == METER_PASSES for _ in range(200)) == 50


def test_of_the_bands_exceeded_the_highest_rate_has_its_way() -> None:
    bands = (MeterBand(20, 2), MeterBand(10, 1, prec_level=2))
    assert MeterEntry(1, PACKETS, bands).remarks
    meter = at_work(PACKETS, *bands)
    assert [meter.run(1, 100, 3.0) for _ in range(4)] == [METER_PASSES, 2, METER_DROPS, METER_DROPS]
    assert meter.counters == MeterCounters(4, 400, ((2, 200), (1, 100)))


def test_a_modified_meter_keeps_its_counters_and_starts_full() -> None:
    meter = at_work(PACKETS, MeterBand(1, 1))
    assert [meter.run(1, 64, 1.0) for _ in range(2)] == [METER_PASSES, METER_DROPS]
    meter.configure(MeterConfig(1, True, (MeterBand(1, 1), MeterBand(9, 9))))
    assert meter.counters == MeterCounters(2, 128, ((1, 64), (0, 0)))
    assert meter.run(1, 64, 1.0) == METER_PASSES
    meter.configure(MeterConfig(1, True, ()))
    assert meter.counters == MeterCounters(3, 192, ())


def test_a_modified_meter_is_the_same_one() -> None:
    meters = MeterTable()
    meters.add(MeterEntry(5, PACKETS, [MeterBand(1, 1)]))
    with pytest.raises(KeyError):
        meters.add(MeterEntry(5, PACKETS, []))
    assert meters.modify(5, PACKETS, [MeterBand(1, 1), MeterBand(9, 9)]) is meters.get(5)
    with pytest.raises(KeyError):
        meters.modify(6, PACKETS, [])


def test_meters_come_and_go() -> None:
    meters = MeterTable()
    for meter_id in (9, 3, 4):
        meters.add(MeterEntry(meter_id, PACKETS, []))
    assert [meter.meter_id for meter in meters] == [3, 4, 9]
    assert [meter.meter_id for meter in meters.delete(4)] == [4]
    assert meters.delete(4) == []
    assert [meter.meter_id for meter in meters.delete(OFPM_ALL)] == [3, 9]
    assert len(meters) == 0
    assert 3 not in meters


def test_flow_entries_that_use_a_meter() -> None:
    pipeline = Pipeline()
    for table_id, meter_id in ((0, 1), (1, 1), (2, 2)):
        pipeline.table(table_id).add(FlowEntry(1, MATCH_ALL, (Meter(meter_id),)))
    pipeline.table(0).add(FlowEntry(2, MATCH_ALL, ()))
    assert pipeline.meter_references() == {1: 2, 2: 1}


@pytest.mark.parametrize(
    ("dscp", "levels", "remarked"),
    [(10, 1, 12), (12, 1, 14), (10, 2, 14), (14, 1, 14), (34, 5, 38), (0, 1, 0), (46, 1, 46), (8, 1, 8), (11, 1, 11), (42, 1, 42)],
)
def test_remarking_raises_the_drop_precedence_of_assured_forwarding(dscp: int, levels: int, remarked: int) -> None:
    assert remarked_dscp(dscp, levels) == remarked
