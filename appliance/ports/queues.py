"""Queues of an interface: an HTB qdisc with a class for each (specification 1.3.5, section 5.12; tc-htb(8)).

All classes have one parent, which is as fast as the interface: queues get what they are promised (``min_rate``) and share what is
left, up to ``max_rate``. Packets that ask for no queue have a class of their own, which is promised what the queues leave.

Invariant: a qdisc that somebody else put there is neither replaced nor removed. Ours is known by its default class.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.model.queues import QUEUE_QDISC, QueueCounters, queue_class
from appliance.ports.interface import GONE, PortError

_ROOT = 0xFFFFFFFF
_QDISC = QUEUE_QDISC << 16
_PARENT = _QDISC | 0xFFFF
_DEFAULT = 0xFFFE
_SMALLEST_RATE = 1_000
"""Bytes a second, for what is promised nothing: HTB wants some rate."""
_QUANTUM = 60_000
"""Bytes that a class may borrow at a turn."""
_SMALLEST_BURST = 3_200
"""Bytes: two frames. A longer one, uncut, is sent on credit."""
_BURST_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class QueueRates:
    """Bits a second. ``min_rate`` 0: nothing is promised; ``max_rate`` 0: as fast as the interface."""

    queue_id: int
    min_rate: int = 0
    max_rate: int = 0


def set_queues(ifindex: int, queues: Sequence[QueueRates], speed: int) -> None:
    """Give the interface these queues in place of others that we gave it; none takes ours away. ``speed`` is in bits a second.

    Raises PortError: somebody else's qdisc is there, or the kernel refuses. An interface that is gone is passed over.
    """
    with IPRoute(ext_ack=True) as ip:
        try:
            there = _root(ip, ifindex)
            if _ours(there):
                ip.tc("del", "htb", ifindex, _QDISC, root=True)
            elif queues and there is not None and there["handle"]:
                what = f"a {there.get_attr('TCA_KIND')} qdisc ({there['handle'] >> 16:x}:)"
                raise PortError(f"cannot be given queues: it has {what} of somebody else; tc qdisc del takes it off")
            if queues:
                _make(ip, ifindex, queues, speed // 8)
        except NetlinkError as error:
            if error.code not in GONE:
                raise PortError(f"cannot be given queues: {os.strerror(error.code)}") from error


def _make(ip: Any, ifindex: int, queues: Sequence[QueueRates], speed: int) -> None:
    try:
        ip.tc("add", "htb", ifindex, _QDISC, default=_DEFAULT)
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            raise PortError("cannot be given queues: this kernel has no HTB (CONFIG_NET_SCH_HTB)") from error
        raise
    try:
        _class(ip, ifindex, _PARENT, _QDISC, speed, speed)
        left = speed - sum(queue.min_rate // 8 for queue in queues)
        _class(ip, ifindex, _QDISC | _DEFAULT, _PARENT, left, speed)
        for queue in queues:
            ceiling = queue.max_rate // 8 or speed
            _class(ip, ifindex, queue_class(queue.queue_id), _PARENT, min(queue.min_rate // 8, ceiling), ceiling)
    except NetlinkError:
        ip.tc("del", "htb", ifindex, _QDISC, root=True)
        raise


def _class(ip: Any, ifindex: int, handle: int, parent: int, rate: int, ceiling: int) -> None:
    """Rates in bytes a second."""
    rate = max(rate, _SMALLEST_RATE)
    bursts = [max(_SMALLEST_BURST, int(each * _BURST_SECONDS)) for each in (rate, ceiling)]
    ip.tc(
        "add-class",
        "htb",
        ifindex,
        handle,
        parent=parent,
        rate=rate,
        ceil=max(ceiling, rate),
        burst=bursts[0],
        cburst=bursts[1],
        quantum=_QUANTUM,
    )


def _root(ip: Any, ifindex: int) -> Any:
    """The root qdisc; None if the kernel tells of none."""
    return next((message for message in ip.get_qdiscs(ifindex) if message["parent"] == _ROOT), None)


def _ours(qdisc: Any) -> bool:
    if qdisc is None or qdisc["handle"] != _QDISC or qdisc.get_attr("TCA_KIND") != "htb":
        return False
    init = qdisc.get_nested("TCA_OPTIONS", "TCA_HTB_INIT")
    return bool(init) and init["defcls"] == _DEFAULT


def queue_counters(ifindex: int, queue_ids: Iterable[int]) -> dict[int, QueueCounters]:
    """By queue id, since ``set_queues``. Queues that are not there are not in the answer."""
    wanted = {queue_class(queue_id): queue_id for queue_id in queue_ids}
    found = {}
    with IPRoute() as ip:
        try:
            messages = list(ip.get_classes(ifindex))
        except NetlinkError:
            return {}
    for message in messages:
        queue_id = wanted.get(message["handle"])
        statistics = message.get_attr("TCA_STATS2")
        if queue_id is None or statistics is None:
            continue
        basic, queue = statistics.get_attr("TCA_STATS_BASIC"), statistics.get_attr("TCA_STATS_QUEUE")
        found[queue_id] = QueueCounters(basic["bytes"], basic["packets"], queue["drops"])
    return found
