"""Queues that the configuration gives ports."""

from __future__ import annotations

import pytest
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import ApplyActions, Output, SetQueue
from appliance.model.ports import UNKNOWN_COUNT, PortNo
from appliance.model.queues import Queue, QueueCounters
from appliance.openflow.constants import OFPQ_ALL
from appliance.openflow.errors import BadAction, ErrorType, QueueOpFailed
from appliance.openflow.messages import (
    FlowMod,
    MultipartReply,
    MultipartRequest,
    PacketOut,
    PacketQueue,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    QueueMaxRate,
    QueueMinRate,
    QueueStats,
    QueueStatsReply,
    QueueStatsRequest,
)
from appliance.switch.effects import SendFrame
from appliance.switch.events import PortRemoved

QUEUES = {1: (Queue(0, 100), Queue(5, None, 300)), 3: (Queue(5, 250, 1000),), 9: (Queue(7),)}
FRAME = frames.ethernet(0x1234, bytes(46), dst=mac(2), src=mac(1))
UNSET = 0xFFFF
DESCRIBED = (
    PacketQueue(0, 1, (QueueMinRate(100), QueueMaxRate(UNSET))),
    PacketQueue(5, 1, (QueueMinRate(UNSET), QueueMaxRate(300))),
    PacketQueue(5, 3, (QueueMinRate(250), QueueMaxRate(1000))),
)
NEVER = (UNKNOWN_COUNT,) * 3


def shell() -> Shell:
    return Shell(queues=QUEUES)


def stats(switch: Shell, port: int, queue: int) -> tuple[QueueStats, ...]:
    body = switch.ask(MultipartRequest(QueueStatsRequest(port, queue)), MultipartReply).body
    assert isinstance(body, QueueStatsReply)
    return body.entries


@pytest.mark.parametrize(("port", "found"), [(PortNo.ANY, DESCRIBED), (1, DESCRIBED[:2]), (3, DESCRIBED[2:]), (2, ())])
def test_configuration(port: int, found: tuple[PacketQueue, ...]) -> None:
    assert shell().ask(QueueGetConfigRequest(port, xid=4), QueueGetConfigReply) == QueueGetConfigReply(port, found, xid=4)


def test_a_port_that_goes_takes_its_queues_along() -> None:
    switch = shell()
    switch.step(PortRemoved(3))
    assert switch.ask(QueueGetConfigRequest(), QueueGetConfigReply).queues == DESCRIBED[:2]
    assert switch.refused(QueueGetConfigRequest(3)) == (ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT)


@pytest.mark.parametrize(
    ("port", "queue", "found"),
    [
        (PortNo.ANY, OFPQ_ALL, [(1, 0), (1, 5), (3, 5)]),
        (PortNo.ANY, 5, [(1, 5), (3, 5)]),
        (1, OFPQ_ALL, [(1, 0), (1, 5)]),
        (1, 5, [(1, 5)]),
        (2, OFPQ_ALL, []),
    ],
)
def test_which_statistics(port: int, queue: int, found: list[tuple[int, int]]) -> None:
    assert [(item.port_no, item.queue_id) for item in stats(shell(), port, queue)] == found


@pytest.mark.parametrize(
    ("port", "queue", "code"),
    [(9, OFPQ_ALL, QueueOpFailed.BAD_PORT), (2, 5, QueueOpFailed.BAD_QUEUE), (PortNo.ANY, 7, QueueOpFailed.BAD_QUEUE)],
)
def test_statistics_that_there_are_not(port: int, queue: int, code: QueueOpFailed) -> None:
    assert shell().refused(MultipartRequest(QueueStatsRequest(port, queue))) == (ErrorType.QUEUE_OP_FAILED, code)


def test_counters_and_age() -> None:
    switch = shell()
    switch.now += 1.5
    switch.queue_counters = {(1, 5): QueueCounters(60, 1, 0)}
    assert stats(switch, 1, OFPQ_ALL) == (QueueStats(1, 0, *NEVER, 1, 500_000_000), QueueStats(1, 5, 60, 1, 0, 1, 500_000_000))


def test_set_queue_goes_with_the_frame_in_the_slow_path() -> None:
    switch = shell()
    actions = (Output(2), SetQueue(5), Output(1), SetQueue(0), Output(3))
    switch.receive(PacketOut(actions=actions, data=FRAME))
    sent = [effect for effect in switch.effects if isinstance(effect, SendFrame)]
    assert sent == [SendFrame(2, FRAME), SendFrame(1, FRAME, 0, 5), SendFrame(3, FRAME, 0, 0)]


def test_a_queue_that_no_port_has() -> None:
    switch = shell()
    assert switch.receive(FlowMod(instructions=(ApplyActions((SetQueue(5), Output(2))),))) == []
    bad = FlowMod(instructions=(ApplyActions((SetQueue(6), Output(2))),))
    assert switch.refused(bad) == (ErrorType.BAD_ACTION, BadAction.BAD_QUEUE)
