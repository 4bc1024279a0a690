"""Where packets go on that are parsed again: numbers that stand in flow keys in the place of a port (``model.megaflow.Again``).

A translation that needs its rewritten frame parsed ends there with a megaflow of its own; what follows gets others, whose keys have
the number. Invariant: a number always means the same way on; another way gets another number, also when an entry on it has changed.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from appliance.model.fields import METADATA
from appliance.model.megaflow import FIRST_AGAIN, LAST_AGAIN
from appliance.pipeline.flow_table import Program
from appliance.pipeline.translation import Continuation

MAX_PASSES = 2
"""How often a packet is parsed again in the fast path."""
_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """``continuation`` has no tunnel: the packet brings its own. ``passes`` is how often the packet has been parsed again here."""

    in_port: int
    continuation: Continuation
    passes: int
    program: Program | None
    """Of the continuation's entry when this was made: it goes on with that."""


class Recirculation:
    """All places that live megaflows may lead to."""

    def __init__(self) -> None:
        self._numbers: dict[Place, int] = {}
        self._places: dict[int, Place] = {}
        self._next = FIRST_AGAIN

    def get(self, number: int) -> Place | None:
        """What a number in the place of a port means; None for a port, and for what is forgotten."""
        return self._places.get(number)

    def number(self, in_port: int, again: Continuation, passes: int) -> int:
        """For packets of this port that go on so, parsed again for the so manieth time; 0 if that is too often."""
        if passes > MAX_PASSES or self._next > LAST_AGAIN:
            return 0
        entry = again.entry
        fixed = replace(again, carried=again.carried & METADATA.mask)
        place = Place(in_port, fixed, passes, None if entry is None else entry.program)
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = self._next
            self._places[number] = place
            self._next += 1
        return number

    @property
    def is_full(self) -> bool:
        return len(self._places) >= _KEPT

    def forget(self, used: Container[int]) -> None:
        """Keep those that are used, and the newest, whose megaflows may be still to come."""
        for number, place in list(self._places.items()):
            if number not in used and number < self._next - _KEPT // 4:
                del self._places[number], self._numbers[place]
