"""Waiting for packets under way leaves the thread as it was: where it may run, and how urgently."""

from __future__ import annotations

import os
from typing import Any

import pytest

from appliance.datapath import quiesce


def scheduling() -> tuple[Any, ...]:
    return os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.nice(0)


def test_the_thread_is_as_it_was() -> None:
    before = scheduling()
    quiesce.wait_for_packets_under_way()
    assert scheduling() == before


def test_it_is_urgent_where_it_may_be() -> None:
    before = scheduling()
    with quiesce._urgently():
        assert os.sched_getscheduler(0) in (os.SCHED_FIFO, before[1])
    assert scheduling() == before


def test_it_is_back_on_its_cpu_before_it_is_no_longer_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus: list[int] = []
    change = os.sched_setscheduler

    def changed(pid: int, policy: int, parameters: os.sched_param) -> None:
        if policy != os.SCHED_FIFO:
            cpus.append(quiesce._LIBC.sched_getcpu())
        change(pid, policy, parameters)
        if policy == os.SCHED_FIFO:
            cpus.append(quiesce._LIBC.sched_getcpu())

    monkeypatch.setattr(os, "sched_setscheduler", changed)
    quiesce.wait_for_packets_under_way()
    assert len(cpus) in (0, 2), "0 without the right to be urgent"
    assert len(set(cpus)) <= 1


def test_without_the_right_to_be_urgent_it_waits_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    before = scheduling()
    monkeypatch.setattr(os, "sched_setscheduler", refused)
    quiesce.wait_for_packets_under_way()
    assert scheduling() == before


def test_a_thread_that_may_not_run_everywhere_stays_where_it_may() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        before = scheduling()
        quiesce.wait_for_packets_under_way()
        assert scheduling() == before
    finally:
        os.sched_setaffinity(0, allowed)
