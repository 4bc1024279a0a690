"""What translating one packet gives: the one typed output of ``xlate`` and of ``mac_table.normal``.

Invariant: every packet whose flow key agrees with ``key`` in the bits of ``mask`` gets an equal translation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from appliance.model.actions import Action
from appliance.model.megaflow import Again, DatapathAction, Failover, PacketInReason, Select
from appliance.pipeline.flow_table import FlowEntry
from appliance.pipeline.group_table import GroupHit


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


class Met(NamedTuple):
    """What a packet has met when it comes to a meter or a plug-in: so many of the translation's lookups and hits."""

    lookups: int
    hits: int


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
    BUCKET = 4
    """In a bucket of a group, on a copy of the packet: nothing comes after."""


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
    queue_id: int | None
    """The queue that the packet takes."""
    copies: int
    """How many copies groups may still make of it."""


NO_WAYS: Mapping[tuple[int, int], tuple[GroupHit, ...]] = MappingProxyType({})


class Translation(NamedTuple):
    """What becomes of a packet, and of all packets like it.

    ``key`` is the packet's flow key, ``mask`` the megaflow's mask: 1 where a bit of the packet was consulted; it has no bit that a
    packet does not carry (metadata). ``actions`` are for the datapath; none means drop.

    ``lookups`` are for counting (``Pipeline.count``) and for finding the megaflows that a change of the tables affects.
    ``normal_keys`` are the flow keys at each output to OFPP_NORMAL: learn from them, and see ``MacChange.affects``.

    ``slow_path_only``: make no megaflow of it. ``again``: what follows depends on headers that are known only once the frame has
    been rewritten. Run ``actions`` on the frame, parse what results with the same in_port, and ``xlate.resume`` with that key;
    unless the packet stopped on the way (its TTL was used up, a meter dropped it): then that was all. ``forks`` are the same for
    copies of the packet that a group has made: each is run on its own copy of the frame as ``actions`` left it, before ``again``.

    ``also``: further translations, each to run on its own copy of the frame as it was in the beginning. Only packet-outs that go on
    after an output to OFPP_TABLE have any.

    ``hits`` are for counting too (``group_table.count``): groups and buckets that every packet meets. ``way_hits``, by group id and
    place of the bucket in it, are those that it meets besides when it takes that way of a Select or Failover. Whoever executes the
    actions is told of the ways taken (``packet.execute``); what the fast path has counted is for ``hits_of_ways``.

    ``met`` has an item for each meter and plug-in of the packet's own actions (``actions`` may have more, of copies, behind them):
    what is dropped there counts for nothing that comes after (``shares``).

    Besides on tables (``lookups``) the translation depends on the groups and meters with these ids, be they there or not, and on
    whether each of ``watched_ports`` is live.
    """

    key: int
    mask: int
    actions: tuple[DatapathAction, ...]
    lookups: tuple[Lookup, ...] = ()
    normal_keys: tuple[int, ...] = ()
    slow_path_only: bool = False
    again: Continuation | None = None
    also: tuple[Translation, ...] = ()
    forks: tuple[Continuation, ...] = ()
    hits: tuple[GroupHit, ...] = ()
    way_hits: Mapping[tuple[int, int], tuple[GroupHit, ...]] = NO_WAYS
    met: tuple[Met, ...] = ()
    groups: frozenset[int] = frozenset()
    meters: frozenset[int] = frozenset()
    watched_ports: frozenset[int] = frozenset()
    recirculation: int = 0
    """Not 0: a megaflow may be made of it all the same, whose packets go on at this place once parsed ``again``."""

    @property
    def for_fast_path(self) -> tuple[DatapathAction, ...]:
        """The actions of a megaflow."""
        return (*self.actions, Again(self.recirculation)) if self.recirculation else self.actions

    def meets(self, entry: FlowEntry) -> bool:
        """Whether its packets do."""
        return any(lookup.entry is entry for lookup in self.lookups)

    def met_at(self, stop: int | None) -> Met:
        """What a packet has met that was dropped at this one of the actions' meters and plug-ins, or (None) not at all."""
        return self.met[stop] if stop is not None and stop < len(self.met) else Met(len(self.lookups), len(self.hits))

    def shares(
        self, packets: int, octets: int, dropped: Iterable[tuple[int, int]]
    ) -> Iterator[tuple[tuple[Lookup, ...], tuple[GroupHit, ...], int, int]]:
        """Who counts how many of these packets and bytes, if each meter and plug-in, in order, has dropped so many of them."""
        lookups = hits = 0
        for met, (dropped_packets, dropped_octets) in zip(self.met, dropped, strict=False):
            yield self.lookups[lookups : met.lookups], self.hits[hits : met.hits], packets, octets
            lookups, hits = met
            packets -= dropped_packets
            octets -= dropped_octets
        yield self.lookups[lookups:], self.hits[hits:], packets, octets

    @property
    def hits_of_ways(self) -> tuple[tuple[GroupHit, ...], ...]:
        """For each way of the Select or Failover that the actions end with (``MegaflowStatistics.ways``): what its packets meet."""
        last = self.actions[-1] if self.actions else None
        if not isinstance(last, Select | Failover):
            return ()
        return tuple(self.way_hits[last.group_id, way.bucket] for way in last.ways)
