"""When garbage is collected: in quiet times, and in the end in any case."""

from __future__ import annotations

from appliance.agent.garbage import BUSY_SECONDS, QUIET_SECONDS, Schedule


def test_a_quiet_switch_collects_now_and_then() -> None:
    schedule = Schedule(0.0)
    assert not schedule.due(1.0, 0)
    assert not schedule.due(QUIET_SECONDS - 0.1, 0)
    assert schedule.due(QUIET_SECONDS, 0)
    assert not schedule.due(QUIET_SECONDS + 1, 0)
    assert schedule.due(2 * QUIET_SECONDS, 0)


def test_a_busy_one_waits_for_a_quiet_second() -> None:
    schedule = Schedule(0.0)
    for second in range(1, 200):
        assert not schedule.due(float(second), second)
    assert schedule.due(200.0, 199), "nothing came up in this one"


def test_one_that_is_never_quiet_collects_in_the_end() -> None:
    schedule = Schedule(0.0)
    due = [second for second in range(1, int(2 * BUSY_SECONDS) + 1) if schedule.due(float(second), second)]
    assert due == [int(BUSY_SECONDS), int(2 * BUSY_SECONDS)]
