"""The kernel's counters of an interface as OpenFlow's port counters (specification 1.3.5, section 7.3.5.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from pyroute2 import IPRoute

from appliance.model.ports import UNKNOWN_COUNT, PortCounters

_LINK_COUNTER = {
    # PortCounters: struct rtnl_link_stats64
    "rx_packets": "rx_packets",
    "tx_packets": "tx_packets",
    "rx_bytes": "rx_bytes",
    "tx_bytes": "tx_bytes",
    "rx_dropped": "rx_dropped",
    "tx_dropped": "tx_dropped",
    "rx_errors": "rx_errors",
    "tx_errors": "tx_errors",
    "rx_frame_err": "rx_frame_errors",
    "rx_over_err": "rx_over_errors",
    "rx_crc_err": "rx_crc_errors",
    "collisions": "collisions",
}
_WRAP = (1 << 64) - 1


def read_counters(ifindexes: Iterable[int]) -> dict[int, PortCounters]:
    """Since the interface was made, by index; one that is gone is not in the answer."""
    wanted = frozenset(ifindexes)
    found: dict[int, PortCounters] = {}
    with IPRoute() as ip:
        for message in ip.get_links():
            statistics = message.get_attr("IFLA_STATS64")
            if message["index"] in wanted and statistics:
                found[message["index"]] = PortCounters(
                    **{ours: statistics.get(theirs, UNKNOWN_COUNT) for ours, theirs in _LINK_COUNTER.items()}
                )
    return found


def since(now: PortCounters, baseline: PortCounters) -> PortCounters:
    """What was counted after ``baseline``; a counter that is not kept in one of them is not kept in the result."""

    def difference(name: str) -> int:
        after, before = getattr(now, name), getattr(baseline, name)
        return UNKNOWN_COUNT if UNKNOWN_COUNT in (after, before) else (after - before) & _WRAP

    return PortCounters(**{field.name: difference(field.name) for field in fields(PortCounters)})
