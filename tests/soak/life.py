"""One life of the switch, drawn from a seed: rounds of things that happen to it, and after each round what must hold.

Rounds come in *eras* of ERA. In the first of an era agents are killed and started again; those after that are one agent's, whose
resources are watched.

Invariant: what happens depends on the seed alone, so that a life can be had again.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from soak import checks, events
from soak.controllers import ControllerError
from soak.network import dropped_by_kernel
from soak.probes import Probes
from soak.product import Resources
from soak.rig import Rig

from appliance.agent.client import ControlError
from appliance.datapath.gates import GATE_SECONDS

ERA = 256
"""Rounds."""
RESTLESS = 32
"""In so many rounds at an era's beginning agents are killed."""
WARM = 12
"""Rounds of an agent after which it has warmed up."""
PUNTED = 1000
"""Packets of the talking hosts that may come up in one round, or after an agent was killed in it: until each megaflow is made,
which TCP does not wait for. They are a part of the thousands that a round has."""

_IMPOSSIBLE = (AssertionError, ControlError, ControllerError, OSError, subprocess.SubprocessError)
"""What is raised where something cannot be done that should be."""


@dataclass
class Round:
    """What was seen. ``failures`` is empty if all held."""

    number: int
    seconds: float = 0.0
    events: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    probes: int = 0
    probes_by_fast_path: int = 0
    streamed: int = 0
    """Packets of the talking hosts' streams."""
    dropped_by_kernel: int = 0
    """Packets that the kernel had no room for, whoever's they were; where it had not, nobody can say what a switch has lost."""
    starved: float = 0.0
    """Seconds: the agent's longest wait for a CPU."""
    punted: int = 0
    """Packets of the talking hosts that came up."""
    entries: int = 0
    megaflows: int = 0
    resources: Resources | None = None

    @property
    def is_starved(self) -> bool:
        """For so long that packets may have overtaken each other, or found the way up full."""
        return self.starved >= GATE_SECONDS


class Life:
    """A context manager. ``hook`` is that of all ports: `tc`, `xdp` or `auto`."""

    def __init__(self, seed: int, folder: Path, hook: str) -> None:
        self._seed = seed
        self._rig = Rig(folder, hook)
        self._probes = Probes(self._rig.network, self._rig.product, self._rig.controllers)
        self._agent = 0
        """Which of all agents it is."""
        self._age = 0
        """Rounds that this agent has seen to their end."""
        self._warm: Resources | None = None

    def __enter__(self) -> Life:
        self._rig.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._rig.__exit__()

    def round(self, number: int) -> Round:
        """Play it, and check. Stops at the first thing that cannot be done."""
        rig, seen = self._rig, Round(number)
        rnd, begun, streamed = Random(f"{self._seed}/{number}"), time.monotonic(), rig.talk.sent
        dropped = dropped_by_kernel()
        try:
            agent, punted = rig.product.agents, rig.punted()
            rig.starvation.longest()
            rig.talk.begin(rnd.choice((4, 6)))
            for event in events.drawn(rnd, crashes=(number - 1) % ERA < RESTLESS):
                seen.events.append(event.__name__)
                seen.events[-1] = event(rig, rnd)
            rig.until_quiet()
            wrong, lost = rig.talk.end()
            seen.failures += wrong
            seen.dropped_by_kernel, seen.starved = dropped_by_kernel() - dropped, rig.starvation.longest()
            if seen.dropped_by_kernel:
                seen.events.append(f"the kernel drops {seen.dropped_by_kernel} packets; these may be among them: {lost}")
            elif seen.is_starved:
                seen.events.append(f"the agent gets no CPU for {seen.starved:.1f} s; not held against it: {lost}")
            else:
                seen.failures += lost
            seen.failures += self._check(rnd, seen, punted if rig.product.agents == agent else 0)
        except _IMPOSSIBLE as error:
            seen.failures.append(f"{type(error).__name__}: {error}")
            if rig.product.is_running:
                seen.failures += checks.health(rig.product)
        seen.seconds, seen.streamed = time.monotonic() - begun, rig.talk.sent - streamed
        return seen

    def _check(self, rnd: Random, seen: Round, punted: int) -> Iterator[str]:
        """What does not hold, in words. ``punted``: packets of the talking hosts that had come up before."""
        rig, probes = self._rig, self._probes
        seen.punted = rig.punted() - punted
        if seen.punted > PUNTED and not seen.is_starved:
            yield f"{seen.punted} packets of the hosts that talk came up, at most {PUNTED} should"
        yield from checks.tables(rig.controllers.leader, rig.tables)
        sent, fast = probes.sent, probes.by_fast_path
        yield from probes.run(rnd, rig.tables, rnd.randint(20, 50))
        yield from checks.fates(rig.product)
        yield from checks.health(rig.product)
        seen.probes, seen.probes_by_fast_path = probes.sent - sent, probes.by_fast_path - fast
        seen.entries, seen.megaflows = len(rig.tables.rows), rig.product.ask("show")["megaflows"]
        seen.resources = rig.product.resources(len(rig.controllers))
        yield from self._watch(seen.resources)

    def _watch(self, now: Resources) -> Iterator[str]:
        """An agent that has warmed up holds no more from round to round."""
        if self._agent != self._rig.product.agents:
            self._agent, self._age, self._warm = self._rig.product.agents, 0, now
        self._age += 1
        assert self._warm is not None
        if self._age <= WARM:
            self._warm = self._warm.or_more(now)
        else:
            yield from now.exceeding(self._warm, checks.ROOM)

    def end(self) -> list[str]:
        """Stop everything; what is wrong then, in words."""
        try:
            return self._rig.stop()
        except _IMPOSSIBLE as error:
            return [f"{type(error).__name__}: {error}"]
