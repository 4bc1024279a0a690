"""What a fast path sends up, one packet at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from appliance.model.megaflow import Burst, Upcall


def one_by_one(upcalls: Iterable[Upcall | Burst]) -> Iterator[Upcall]:
    for upcall in upcalls:
        if isinstance(upcall, Burst):
            yield from upcall.one_by_one()
        else:
            yield upcall
