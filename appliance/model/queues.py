"""Queues of ports (specification 1.3.5, sections 5.12 and 7.3.6)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model.ports import UNKNOWN_COUNT

QUEUE_RATE_MAX = 1000
"""Rates are in tenths of a per cent of the port's speed."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that the configuration gives a port.

    Rates are in tenths of a per cent of the port's speed, None for not configured.
    """

    queue_id: int
    min_rate: int | None = None
    max_rate: int | None = None


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """OFPMP_QUEUE counters since the queue was made; all ones for one that is not kept."""

    tx_bytes: int = UNKNOWN_COUNT
    tx_packets: int = UNKNOWN_COUNT
    tx_errors: int = UNKNOWN_COUNT


QUEUE_QDISC = 1
"""The major number of the qdisc on every port that has queues."""
MAX_QUEUE_ID = 0xFFF0
"""The minor number of a queue's traffic class is 16 bits, and some are the qdisc's own."""


def queue_class(queue_id: int) -> int:
    """The traffic class of a queue, as in skb->priority: minor number 0 is the qdisc itself."""
    return QUEUE_QDISC << 16 | queue_id + 1 & 0xFFFF
