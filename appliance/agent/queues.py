"""The configured queues as the kernel wants them, in bits a second, and as OpenFlow tells them, in shares of the port's speed."""

from __future__ import annotations

from appliance.agent.links import Links
from appliance.config import Config, PortSpec
from appliance.model.queues import QUEUE_RATE_MAX, Queue
from appliance.ports import Interface, QueueRates

UNKNOWN_SPEED = 10_000_000_000
"""Bits a second, for a port whose driver tells none."""


def port_speed(links: Links, interface: Interface) -> int:
    """Bits a second."""
    return links.describe(interface, 0).curr_speed * 1000 or UNKNOWN_SPEED


def rates(spec: PortSpec) -> tuple[QueueRates, ...]:
    return tuple(QueueRates(queue.id, queue.min_rate or 0, queue.max_rate or 0) for queue in spec.queues)


def configured_queues(config: Config, links: Links) -> dict[int, tuple[Queue, ...]]:
    """By port number, of the ports that have some. Shares are of the speed that the port has now."""
    by_name = {interface.name: interface for interface in links.known.values()}
    found = {}
    for spec in config.ports:
        if spec.queues:
            interface = by_name.get(spec.interface)
            found[spec.number] = _shares(spec, UNKNOWN_SPEED if interface is None else port_speed(links, interface))
    return found


def _shares(spec: PortSpec, speed: int) -> tuple[Queue, ...]:
    """``speed`` is in bits a second."""
    return tuple(Queue(queue.id, _share(queue.min_rate, speed), _share(queue.max_rate, speed)) for queue in spec.queues)


def _share(rate: int | None, speed: int) -> int | None:
    """Never 0 for a rate that is not: that would say that there is none."""
    if rate is None:
        return None
    return min(max(round(rate * QUEUE_RATE_MAX / speed), 1), QUEUE_RATE_MAX)
