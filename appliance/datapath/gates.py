"""Gates: packets that hit a new megaflow still queue up for the slow path while earlier ones of it are there.

``ticket`` in the megaflow's slot counts those in the queue (eBPF), ``served`` those sent on (Python), both plus the one that
stands for the misses before the megaflow was installed. The gate opens when they are equal; or after GATE_SECONDS, or when
MAX_WAITING packets wait (eBPF): a flow too fast for the slow path is let through although packets may overtake. Invariant: but
for those, one flow's packets leave in the order in which they came.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from appliance.datapath.layout import MegaflowFlag
from appliance.datapath.slots import Slots

GATE_SECONDS = 0.1
_GATED = int(MegaflowFlag.GATED)


_Gate = tuple[int, int, float, int]
"""Slot, flags when it is open (MegaflowFlag), when it was closed, how many have been served."""


class Gates:
    """Those that are closed, by the megaflow's id."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._closed: dict[int, _Gate] = {}

    def close(self, megaflow_id: int, slot: int, flags: int, now: float) -> int:
        """For a slot that is about to be put to use: returns the flags that it has until the gate opens."""
        self._closed[megaflow_id] = slot, flags, now, 0
        return flags | _GATED

    def served(self, megaflow_ids: Iterable[int]) -> None:
        """One packet of each of these, or all of its misses, have been sent on. Ids without a closed gate are passed over."""
        closed, serve = self._closed, self._slots.serve
        late = time.monotonic() - GATE_SECONDS
        for megaflow_id in megaflow_ids:
            gate = closed.get(megaflow_id)
            if gate is None:
                continue
            slot, flags, closed_at, served = gate
            served += 1
            if serve(slot, served, flags, at_last=closed_at < late):
                del closed[megaflow_id]
            else:
                closed[megaflow_id] = slot, flags, closed_at, served

    def forget(self, megaflow_id: int) -> None:
        """The megaflow is gone."""
        self._closed.pop(megaflow_id, None)
