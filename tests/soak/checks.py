"""What must hold when a round is over and nobody changes anything: what the switch says that it has is what it was told.

Each check says in words what does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from soak import draw
from soak.controllers import Controller
from soak.draw import PROTECTED
from soak.product import Product, Resources
from soak.tables import Tables, entry_key, is_short_lived
from support.waiting import in_time, until

from appliance.openflow.messages import (
    AggregateStatsRequest,
    FlowStatsRequest,
    GroupDescRequest,
    MeterConfigRequest,
)

ROOM = Resources(resident=24.0, descriptors=4, threads=2, maps=0, programs=0, children=0)
"""By so much an agent's resources may exceed those of when it had warmed up. Memory in MB: Python's allocator gives little back."""
QUIET_MEGAFLOWS = 64
"""So many, at most, do the protected streams need; all others go when no packet has come for a while (``switch/megaflows.py``)."""
FATES = ("xdp", "tc", "slow_path", "dropped")


def until_expired(controller: Controller) -> None:
    """Entries with short timeouts have gone; nobody uses them now."""

    def gone() -> bool:
        return not any(map(is_short_lived, controller.entries(FlowStatsRequest(cookie_mask=PROTECTED))))

    until(gone, "entries whose time is over go")


def tables(controller: Controller, wanted: Tables) -> Iterator[str]:
    """Flow entries, groups and meters. None of the entries is short-lived."""
    entries = controller.entries(FlowStatsRequest(cookie_mask=PROTECTED))
    yield from _differences(
        "entry",
        {entry_key(entry.table_id, entry): _shown(entry, entry.instructions) for entry in entries},
        {entry_key(row.mod.table_id, row.mod): _shown(row.mod, row.instructions) for row in wanted.rows},
    )
    (total,) = controller.request(AggregateStatsRequest(cookie_mask=PROTECTED))
    if (total.flow_count, len(entries)) != (len(wanted.rows), len(wanted.rows)):
        yield f"{total.flow_count} entries all in all, of which {len(entries)} are told; {len(wanted.rows)} were made"
    groups, meters = controller.entries(GroupDescRequest()), controller.entries(MeterConfigRequest())
    yield from _differences(
        "group",
        {item.group_id: (item.type, item.buckets) for item in groups if item.group_id in draw.GROUPS},
        {mod.group_id: (mod.type, mod.buckets) for mod in wanted.groups.values()},
    )
    yield from _differences(
        "meter",
        {item.meter_id: (item.flags, item.bands) for item in meters if item.meter_id in draw.METERS},
        {mod.meter_id: (mod.flags, mod.bands) for mod in wanted.meters.values()},
    )


def _shown(entry: Any, instructions: object) -> tuple[object, ...]:
    return entry.cookie, entry.flags, entry.idle_timeout, entry.hard_timeout, instructions


def _differences(name: str, found: dict[Any, object], wanted: dict[Any, object]) -> Iterator[str]:
    for key in found.keys() | wanted.keys():
        if found.get(key) != wanted.get(key):
            yield f"{name} {key} is {found.get(key)}, not {wanted.get(key)}"


def fates(product: Product) -> Iterator[str]:
    """Every packet that came in on a port has met one fate (DESIGN, invariant 4). Read again while packets come in."""

    def wrong() -> list[str]:
        return [
            f"port {port}: {counters['rx_packets']} packets came in, fates {[counters[fate] for fate in FATES]}"
            for port, counters in product.counters().items()
            if counters["rx_packets"] != sum(counters[fate] for fate in FATES)
        ]

    if not in_time(lambda: not wrong()):
        yield from wrong()


def health(product: Product) -> Iterator[str]:
    """No faults, nothing logged as an error."""
    if faults := product.ask("show")["faults"]:
        yield f"{faults} faults"
    yield from product.complaints()


def settled_megaflows(product: Product) -> Iterator[str]:
    """Those that nobody uses any more go."""
    if not in_time(lambda: product.ask("show")["megaflows"] <= QUIET_MEGAFLOWS):
        live = product.ask("megaflows")["megaflows"]
        yield f"{len(live)} megaflows are left, such as {live[-1]['match_text']}"
