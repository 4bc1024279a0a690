"""What translating one packet gives: the one typed output of ``xlate`` and of ``mac_table.normal``.

Invariant: every packet whose flow key agrees with ``key`` in the bits of ``mask`` gets an equal translation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from appliance.model.actions import Action
from appliance.model.megaflow import DatapathAction, PacketInReason
from appliance.pipeline.flow_table import FlowEntry


class Lookup(NamedTuple):
    """One look-up in one table.

    ``key`` is the flow key as it was at that table, with metadata and rewritten fields. ``known`` are the bits of it that are the
    same for all packets of the megaflow: no packet of it can have matched what differs from ``key`` there. ``entry`` is None when
    nothing matched.
    """

    table_id: int
    key: int
    known: int
    entry: FlowEntry | None


class Origin(NamedTuple):
    """What a packet-in says about the entry that sent the packet to the controller."""

    table_id: int
    cookie: int
    reason: PacketInReason


class Stage(Enum):
    """Where in its way through the pipeline a packet is."""

    PACKET_OUT = 0
    """In the action list of a packet-out."""
    LOOKUP = 1
    """Before the look-up in a table."""
    APPLY = 2
    """In the Apply-Actions of an entry."""
    ACTION_SET = 3
    """In the action set, after the last table."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """How to go on with a packet once it has been parsed again. Opaque: made by ``xlate``, handed to ``xlate.resume``."""

    stage: Stage
    table_id: int
    entry: FlowEntry | None
    pending: tuple[Action, ...]
    action_set: tuple[tuple[Action, Origin], ...]
    origin: Origin
    carried: int
    """Metadata and tunnel id: bits of the key that are not in the frame."""
    submit: bool
    """A packet-out's list ends with an output to OFPP_TABLE."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What becomes of a packet, and of all packets like it.

    ``key`` is the packet's flow key, ``mask`` the megaflow's mask: 1 where a bit of the packet was consulted; it has no bit that a
    packet does not carry (metadata). ``actions`` are for the datapath; none means drop.

    ``lookups`` are for counting (``Pipeline.count``) and for finding the megaflows that a change of the tables affects.
    ``normal_keys`` are the flow keys at each output to OFPP_NORMAL: learn from them, and see ``MacChange.affects``.

    ``slow_path_only``: make no megaflow of it. ``again``: what follows depends on headers that are known only once the frame has
    been rewritten. Run ``actions`` on the frame, parse what results with the same in_port, and ``xlate.resume`` with that key;
    unless the TTL was used up on the way: then that was all.

    ``also``: further translations, each to run on its own copy of the frame as it was in the beginning. Only packet-outs that go on
    after an output to OFPP_TABLE have any.
    """

    key: int
    mask: int
    actions: tuple[DatapathAction, ...]
    lookups: tuple[Lookup, ...] = ()
    normal_keys: tuple[int, ...] = ()
    slow_path_only: bool = False
    again: Continuation | None = None
    also: tuple[Translation, ...] = ()
