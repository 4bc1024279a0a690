"""Our programs stay on the ports' interfaces: what somebody else takes off, as ``tc qdisc del dev NAME clsact`` or ``ip link set
dev NAME xdp off`` does, is put back.

It is what is there that counts, not who is said to have changed something; so there is nothing to be done about our own changes.
Invariant: between two tries for a port lies a delay, which doubles while its programs do not stay; so whoever keeps on taking them
off takes nothing from the other ports.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from appliance.datapath.driver import Datapath, DatapathError
from appliance.model.ports import Hook

LOG = logging.getLogger("ofswitch.ports")

LOOK_SECONDS = 1.0
"""From one look at a port's interface to the next, however often something is heard of it."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""From one try to the next. The first try of all is at once."""
STEADY_SECONDS = 60.0
"""What has stayed so long is forgotten: the next delay is the first again."""


@dataclass(slots=True)
class _State:
    """Of one port. Times are those of the caller."""

    title: str
    to_look: bool = False
    look_from: float = -math.inf
    tried_at: float = -math.inf
    delay: float = 0.0
    problem: str = ""
    dead: bool = False


class Hooks:
    """Of the ports of one datapath, by number. ``now`` is in seconds of one clock, which goes forward."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._states: dict[int, _State] = {}

    def problem(self, number: int) -> str:
        """What is missing and why, in words; empty if nothing is."""
        state = self._states.get(number)
        return "" if state is None else state.problem

    def dead(self, number: int) -> bool:
        """Whether the port's packets do not come to the switch."""
        state = self._states.get(number)
        return state is not None and state.dead

    def heard(self, number: int, title: str) -> None:
        """Something has happened at the port's interface. ``title`` is what the port is called in the log."""
        self._states.setdefault(number, _State(title)).to_look = True

    def put_back(self, now: float) -> list[int]:
        """What is missing, as far as it is time; the ports for which ``dead`` is another now.

        Wanted after ``heard``, and about once a second.
        """
        return [number for number, state in self._states.items() if self._look_in_time(number, state, now)]

    def gone(self, number: int) -> None:
        """It is no port any more."""
        self._states.pop(number, None)

    def _look_in_time(self, number: int, state: _State, now: float) -> bool:
        if not state.to_look or now < state.look_from:
            return False
        was_dead = state.dead
        state.to_look, state.look_from = False, now + LOOK_SECONDS
        try:
            self._look_at(number, state, now)
        except (DatapathError, OSError) as error:
            state.to_look = True
            self._trouble(state, f"whether our programs are still on its interface cannot be told: {error}")
        return state.dead != was_dead

    def _look_at(self, number: int, state: _State, now: float) -> None:
        """Raises DatapathError or OSError if the kernel does not say what is there."""
        missing = self._datapath.missing(number)
        if missing:
            taken = f"somebody took our program off at {' and '.join(hook.name for hook in Hook if hook in missing)}"
            next_try = state.tried_at + state.delay
            if now < next_try:
                self._trouble(state, f"{taken} again; as it does not stay, it is put back after a while")
            else:
                steady = now >= state.tried_at + STEADY_SECONDS
                state.delay = FIRST_DELAY if steady else min(2 * state.delay, LONGEST_DELAY)
                state.tried_at, next_try = now, now + state.delay
                missing = self._try(number, state, taken)
            if missing:
                state.to_look, state.look_from = True, next_try
        elif state.problem:
            LOG.info("%s: our programs are all there again", state.title)
            state.problem = ""
        state.dead = Hook.TC in missing

    def _try(self, number: int, state: _State, taken: str) -> frozenset[Hook]:
        """What is missing then. Raises DatapathError or OSError if the kernel does not say what is there."""
        try:
            self._datapath.put_back(number)
        except (DatapathError, OSError) as error:
            self._trouble(state, f"{taken}, and it cannot be put back: {error}")
            return self._datapath.missing(number)
        if state.problem:
            LOG.info("%s: our programs are all there again", state.title)
        else:
            LOG.warning("%s: %s; it has been put back", state.title, taken)
        state.problem = ""
        return frozenset()

    def _trouble(self, state: _State, problem: str) -> None:
        """In the log once, while it stays the same."""
        if problem != state.problem:
            LOG.warning("%s: %s", state.title, problem)
        state.problem = problem
