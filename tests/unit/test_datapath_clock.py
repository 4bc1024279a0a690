"""The fast path's clock against the machine's: what is told of a tick is when it was."""

from __future__ import annotations

import time

import pytest

from appliance.datapath import clock
from appliance.datapath.clock import TickClock
from appliance.datapath.loader import Sizes

TICK = time.clock_getres(6)


def ticks(first: float = 1e6, moment: float | None = None) -> int:
    """As a kernel counts them that began long before CLOCK_MONOTONIC did; now, or at that moment."""
    return round(((time.clock_gettime(6) if moment is None else moment) + first) / TICK)


def test_now_is_now_and_never_is_never() -> None:
    told = TickClock(ticks)
    assert told.seconds(0) == 0.0
    for earlier in (0, 0, 5):
        moment = time.monotonic() - earlier
        assert told.seconds(ticks(moment=moment)) == pytest.approx(moment, abs=0.1)


def test_a_clock_that_drifts_is_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_TRUSTED_SECONDS", 0.0)
    first = 1e6
    told = TickClock(lambda: ticks(first))
    for _ in range(2):
        moment = time.monotonic()
        assert told.seconds(ticks(first, moment)) == pytest.approx(moment, abs=0.1)
        first += 100
        time.sleep(2 * TICK)


def test_there_is_room_for_the_megaflows_wanted_or_what_ebpf_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, wanted, room in ((2, 65536, 65536), (2, 65537, 131072), (2, 1, 1), (64, 1 << 20, 1 << 18), (1024, 65536, 1 << 14)):
        monkeypatch.setattr("appliance.datapath.loader.possible_cpus", lambda cpus=cpus: cpus)
        assert Sizes.for_megaflows(wanted).megaflows == room
