"""The queues that the configuration gives the ports (specification 1.3.5, sections 7.3.5.8 and 7.3.6).

Invariant: what is told of a queue is told only while its port is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from appliance.model.ports import PortNo
from appliance.model.queues import Queue, QueueCounters
from appliance.openflow.constants import OFPQ_ALL
from appliance.openflow.errors import ErrorType, ProtocolError, QueueOpFailed
from appliance.openflow.messages import PacketQueue, QueueMaxRate, QueueMinRate, QueueProperty, QueueStats
from appliance.switch.duration import duration
from appliance.switch.ports import Ports, SwitchPort

_NOT_CONFIGURED = 0xFFFF
"""OFPQ_MIN_RATE_UNCFG and OFPQ_MAX_RATE_UNCFG."""


class Queues:
    """Queues by port number."""

    def __init__(self, queues: Mapping[int, tuple[Queue, ...]], ports: Ports) -> None:
        self._queues = queues
        self._ports = ports
        self._counters: Mapping[tuple[int, int], QueueCounters] = {}
        self.ids = frozenset(queue.queue_id for port in queues.values() for queue in port)
        """Of all ports: OFPAT_SET_QUEUE does not say which port's queue it means."""

    def count(self, counters: Mapping[tuple[int, int], QueueCounters]) -> None:
        """By port number and queue id."""
        self._counters = counters

    def config(self, port: int) -> tuple[PacketQueue, ...]:
        """Of one port, or of all for OFPP_ANY. Raises QUEUE_OP_FAILED/BAD_PORT."""
        return tuple(PacketQueue(queue.queue_id, at.port.number, _properties(queue)) for at, queue in self._of(port))

    def statistics(self, port: int, queue_id: int, now: float) -> tuple[QueueStats, ...]:
        """Of one queue or all (OFPQ_ALL) of one port or all (OFPP_ANY). Raises QUEUE_OP_FAILED."""
        found = [(at, queue) for at, queue in self._of(port) if queue_id in (OFPQ_ALL, queue.queue_id)]
        if not found and queue_id != OFPQ_ALL:
            raise ProtocolError(ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_QUEUE, f"there is no queue {queue_id:#x}")
        return tuple(self._statistics(at, queue, now) for at, queue in found)

    def _statistics(self, at: SwitchPort, queue: Queue, now: float) -> QueueStats:
        number = at.port.number
        counters = self._counters.get((number, queue.queue_id), QueueCounters())
        lasted = duration(at.added_at, now)
        return QueueStats(number, queue.queue_id, counters.tx_bytes, counters.tx_packets, counters.tx_errors, *lasted)

    def _of(self, port: int) -> Iterator[tuple[SwitchPort, Queue]]:
        if port != PortNo.ANY and port not in self._ports:
            raise ProtocolError(ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT, f"there is no port {port:#x}")
        return (
            (at, queue)
            for at in self._ports
            if port in (PortNo.ANY, at.port.number)
            for queue in self._queues.get(at.port.number, ())
        )


def _properties(queue: Queue) -> tuple[QueueProperty, ...]:
    return (
        QueueMinRate(_NOT_CONFIGURED if queue.min_rate is None else queue.min_rate),
        QueueMaxRate(_NOT_CONFIGURED if queue.max_rate is None else queue.max_rate),
    )
