"""What may happen to the switch. The shell makes events of bytes, timers, netlink and the fast path; ``Switch.step`` takes them.

Invariant: an event is a fact, and carries all that the switch must know of it; the switch asks for nothing but the verdicts of
meters and plug-ins while it steps.
What it wants to know it says by ``Switch.needs`` before a step, and after it by ``RemoveMegaflows`` and ``ReadStatistics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import NamedTuple

from appliance.model.megaflow import Burst, MegaflowStatistics, MeterCounters, Upcall
from appliance.model.ports import Hook, Port, PortCounters
from appliance.model.queues import QueueCounters
from appliance.openflow.connection import MessageReceived as MessageReceived  # one message from a controller
from appliance.pipeline.plain_path import Begun
from appliance.pipeline.translation import Translation


class Need(Flag):
    """What the shell must read from the fast path and step before it steps an event."""

    NOTHING = 0
    MEGAFLOW_STATISTICS = auto()
    """``StatisticsRead`` of the live megaflows that ``Switch.counting_for`` names, all at once or in parts."""
    PORT_COUNTERS = auto()
    """``PortCountersRead`` of every port."""
    METER_COUNTERS = auto()
    """``MeterCountersRead`` of every meter (``Switch.meter_ids``)."""
    QUEUE_COUNTERS = auto()
    """``QueueCountersRead`` of every queue."""


# ── connections ────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A controller's connection has agreed on a version. ``connection`` is the shell's number for it, never used again.

    ``main`` is the number of the main connection to which this is auxiliary (section 6.3.6), None if this is a main connection;
    ``auxiliary_id`` tells the auxiliary connections of one main connection apart, and is 0 for that itself.
    """

    connection: int
    version: int
    auxiliary_id: int = 0
    main: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    connection: int


# ── packets ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Upcalls:
    """Packets that the fast path sent up, oldest first."""

    upcalls: tuple[Upcall | Burst, ...]
    begun: Translation | Begun | None = None
    """If this comes of ``Switch.short_way``: how far it was followed, with no other event in between."""


class PassedOn(NamedTuple):
    """A packet that came up has been put out on ``ports``, as ``Switch.short_way`` said, with no other event in between."""

    upcall: Upcall
    translation: Translation
    ports: tuple[int, ...]


# ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class PortAdded:
    """A port of the switch appeared. ``port.config`` is what the shell wants it to start with."""

    port: Port
    hook: Hook = Hook.TC
    """Where the fast path meets its packets."""


@dataclass(frozen=True, slots=True)
class PortChanged:
    """A port's link or features changed. Its ``config`` does not count: the switch owns it (OFPT_PORT_MOD)."""

    port: Port


@dataclass(frozen=True, slots=True)
class PortRemoved:
    number: int


# ── counters ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class StatisticsRead:
    """Statistics since installation by megaflow id, of all or some of the live ones."""

    megaflows: Mapping[int, MegaflowStatistics]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The same, as part of a round through all live megaflows. What is idle goes; a few at a time, so that no part takes long."""

    megaflows: Mapping[int, MegaflowStatistics]


@dataclass(frozen=True, slots=True)
class SweepEnded:
    """All live megaflows have been in a ``Sweep`` since the last of these, which kept the shell busy for so long (CPU time).

    Wanted about once a second.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class FinalStatistics:
    """The answer to one ``RemoveMegaflows``: what the removed ones had counted. Stepped before any event but another answer."""

    megaflows: Mapping[int, MegaflowStatistics]


@dataclass(frozen=True, slots=True)
class PortCountersRead:
    """By port number."""

    counters: Mapping[int, PortCounters]


@dataclass(frozen=True, slots=True)
class MeterCountersRead:
    """By meter id: what the fast path has metered since ``SetMeter`` made the meter."""

    counters: Mapping[int, MeterCounters]


@dataclass(frozen=True, slots=True)
class QueueCountersRead:
    """By port number and queue id."""

    counters: Mapping[tuple[int, int], QueueCounters]


@dataclass(frozen=True, slots=True)
class InstallRefused:
    """The fast path had no room for a megaflow of an ``InstallMegaflow``."""

    megaflow_id: int


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Wanted about once a second: timeouts are kept to that."""


@dataclass(frozen=True, slots=True)
class FramesSent:
    """The frames of a batch of upcalls are out: now is the time to make the megaflows that it wants."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """No message waits. Flow-mods that came in a row are brought into the fast path together, now (a barrier does so too)."""


@dataclass(frozen=True, slots=True)
class SpareTime:
    """Nothing else waits: some megaflows may be made before their packets come (``Switch.looks_ahead``)."""


Event = (
    ConnectionOpened
    | ConnectionClosed
    | MessageReceived
    | Upcalls
    | PassedOn
    | PortAdded
    | PortChanged
    | PortRemoved
    | FramesSent
    | StatisticsRead
    | Sweep
    | SweepEnded
    | FinalStatistics
    | PortCountersRead
    | MeterCountersRead
    | QueueCountersRead
    | InstallRefused
    | Tick
    | Quiet
    | SpareTime
)
