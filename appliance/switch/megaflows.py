"""The live megaflows: what the fast path has been told, what it has counted, and which of it a change of the tables makes wrong.

Which megaflows does a change touch?
------------------------------------
Each megaflow remembers the look-ups of its translation. An entry that goes or changes touches the megaflows that it won a look-up
for: an index knows them. An entry that is new touches those that looked into its table with a key that it may match and found
nothing of a higher priority (``lookups``). Nothing is translated to find that out.

What was found is translated again. A megaflow stays if its actions are the same and its mask is still wide enough to tell them;
others are removed, and their packets come up and make new ones. So two live megaflows may overlap after a change, one of them
with more bits in its mask than it needs by now; where they do, their actions are equal.

Who counts a packet?
--------------------
The entries that a megaflow's packets met when the fast path dealt with them. After a change a megaflow may stay but belong to
other entries; what it counted until then is still the old ones' (``credit``), until its statistics have been read once more.

Invariant: after ``revalidate`` every live megaflow does with each packet within it what a new translation would.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, zip_longest
from typing import TypeVar

from appliance.model.fields import ETH_DST, ETH_SRC, IN_PORT
from appliance.model.megaflow import Megaflow, MegaflowStatistics
from appliance.pipeline import group_table
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.mac_table import MacChange, MacTable
from appliance.pipeline.translation import Lookup, Translation
from appliance.switch.ageing import Limit, Order
from appliance.switch.lookups import Lookups
from appliance.switch.masks import EXACT, MAX_MASKS, Masks

MAX_MEGAFLOWS = 65536
IDLE_SECONDS = 10.0
"""A megaflow that was unused for so long goes: its packets, should they come again, make a new one."""

_PROVING_SECONDS = 2.0
"""So long a new megaflow has time to be used again before others are preferred: two sweeps."""
_REMEMBERED = 8192
_SPARE = 32
"""Removed for each new one while there are too many: so there are soon fewer, however many come."""
_AT_ONCE = 256
"""Removing so many takes a millisecond or two."""

_new = tuple.__new__
_NONE: dict[int, int] = {}
_NOTHING_COUNTED = MegaflowStatistics(0, 0, 0.0)

Translate = Callable[[Translation], Translation]
"""The same packet's translation by what holds now."""
_K = TypeVar("_K")


class LiveMegaflow:
    """One megaflow in the fast path. ``statistics`` is what was read last, ``punted`` how many of its packets came up."""

    __slots__ = ("credit", "last_punted", "megaflow", "punted", "statistics", "translation")

    def __init__(self, megaflow: Megaflow, translation: Translation, now: float) -> None:
        self.megaflow = megaflow
        self.translation = translation
        self.credit = translation
        """Whose lookups and hits the packets are that have been counted since ``statistics``."""
        self.statistics = _NOTHING_COUNTED
        self.punted = 0
        self.last_punted = now

    @property
    def last_used(self) -> float:
        return max(self.statistics.last_used, self.last_punted)

    @property
    def packets(self) -> int:
        """Packets that it fitted, whichever tier dealt with them."""
        return self.statistics.packets + self.punted


class Megaflows:
    """All live megaflows. ``limit`` is how many there may be at most, with about ``masks`` different masks.

    More than ``translations`` touched at once are removed unseen.
    """

    def __init__(
        self,
        limit: int = MAX_MEGAFLOWS,
        translations: int = 10_000,
        idle_seconds: float = IDLE_SECONDS,
        masks: int = MAX_MASKS,
    ) -> None:
        self.limit = Limit(limit)
        self.translations = translations
        self.idle_seconds = idle_seconds
        self.masks = Masks(masks)
        self._last_id = 0
        self._live: dict[int, LiveMegaflow] = {}
        self._order = Order()
        self._seen_once: OrderedDict[int, bool] = OrderedDict()
        """What came once and did not get a megaflow, by hashes (``earned``); the oldest first."""
        self._leaving: dict[int, LiveMegaflow] = {}
        """Removed; their last statistics are still to come."""
        self._credit_changed: set[int] = set()
        """Their ``credit`` is not that of their translation."""
        self._by_mask: dict[int, dict[int, int]] = {}
        """By mask and masked key. To hash such a number takes as long as fifteen bytecodes: the last mask is asked for once."""
        self._last_mask = -1
        self._of_last_mask: dict[int, int] = {}
        self._by_entry: dict[FlowEntry, set[int]] = {}
        """Whose translation or credit has the entry, also of those that are leaving."""
        self._by_table: dict[int, dict[int, Lookups]] = {}
        """By table and known bits."""
        self._last_lookups: dict[int, tuple[int, Lookups]] = {}
        """Those that were added to last, by table."""
        self._by_address: dict[int, set[int]] = {}
        """MAC addresses in the translation's ``normal_keys``."""
        self._by_group: dict[int, set[int]] = {}
        self._by_meter: dict[int, set[int]] = {}
        self._by_watched_port: dict[int, set[int]] = {}
        """Whose translation depends on these."""
        self._touched: set[int] = set()
        self._added: dict[int, dict[FlowEntry, None]] = {}
        """New entries by table since the last revalidation."""
        self.stale = False
        """Whether there are changes that no revalidation has seen."""

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveMegaflow]:
        return iter(self._live.values())

    def newest_first(self) -> Iterator[LiveMegaflow]:
        return reversed(self._live.values())

    def __contains__(self, megaflow_id: int) -> bool:
        return megaflow_id in self._live

    def ids(self) -> tuple[int, ...]:
        return tuple(self._live)

    def get(self, megaflow_id: int) -> LiveMegaflow | None:
        return self._live.get(megaflow_id)

    def at(self, mask: int, key: int) -> LiveMegaflow | None:
        """The live megaflow that ``add`` would make for this packet with this mask, if there is one."""
        megaflow_id = self._by_mask.get(mask, _NONE).get(key & mask)
        return None if megaflow_id is None else self._live[megaflow_id]

    def earned(self, mask: int, key: int) -> bool:
        """Whether a packet with this key is to get a megaflow with this mask, which is finer than it needs, as there is none yet.

        That is for few packets, and worth its place when the second of them comes.
        """
        region = hash((mask, key & mask))
        if self._seen_once.pop(region, False):
            return True
        self._seen_once[region] = True
        if len(self._seen_once) > _REMEMBERED:
            self._seen_once.popitem(last=False)
        return False

    # ── coming and going ───────────────────────────────────────────────────────────────────────────────────────────────
    def add(self, translation: Translation, key: int, now: float, mask: int) -> LiveMegaflow:
        """A new megaflow, for a packet with this key and those that the translation is for, or fewer: ``mask`` is what
        ``masks`` chose for it.

        There must be none ``at`` the same place, and room for it (``excess``).
        """
        self._last_id = megaflow_id = self._last_id + 1
        if mask != translation.mask and translation.key != key:
            translation = translation._replace(key=key)  # it was another packet's, for which this megaflow is not
        regions = self._by_mask.get(mask)
        if regions is None:
            regions = self._by_mask[mask] = {}
            self.masks.take(mask)
        masked = key & mask
        regions[masked] = megaflow_id
        return self._add(megaflow_id, masked, mask, translation, now)

    def _add(self, megaflow_id: int, masked: int, mask: int, translation: Translation, now: float) -> LiveMegaflow:
        """One that has its place."""
        actions = translation.for_fast_path if translation.recirculation else translation.actions
        live = LiveMegaflow(_new(Megaflow, (megaflow_id, masked, mask, actions)), translation, now)
        self._live[megaflow_id] = live
        self._order.add(megaflow_id)
        self._index_translation(megaflow_id, translation)
        return live

    def came_up(self, translation: Translation, key: int, now: float, made: dict[int, LiveMegaflow]) -> bool | None:
        """A packet with this key and translation came up: it counts for the live megaflow that it is in, which is added here and to
        ``made`` if there is none. Whether it is new; None if that takes more thought, because of the mask or for want of room:
        nothing is done then."""
        mask = translation.mask
        if mask != self._last_mask:
            if mask not in self._by_mask:
                return None
            self._last_mask, self._of_last_mask = mask, self._by_mask[mask]
        if len(self._live) >= self.limit.now:
            return None
        megaflow_id = self._last_id + 1
        masked = key & mask
        found = self._of_last_mask.setdefault(masked, megaflow_id)
        if found != megaflow_id:
            self.punted(self._live[found], now)
            return False
        self._last_id = megaflow_id
        made[megaflow_id] = live = self._add(megaflow_id, masked, mask, translation, now)
        live.punted = 1
        return True

    def remove(self, megaflow_ids: Iterable[int]) -> None:
        """They are no longer live; ``count_final`` or ``conclude`` closes their accounts. Each must be live."""
        for megaflow_id in megaflow_ids:
            live = self._live.pop(megaflow_id)
            self._order.remove(megaflow_id)
            self._leaving[megaflow_id] = live
            self._credit_changed.discard(megaflow_id)
            self._touched.discard(megaflow_id)
            _, masked, mask, _ = live.megaflow
            regions = self._by_mask[mask]
            del regions[masked]
            if not regions:
                del self._by_mask[mask]
                self.masks.release(mask)
                self._last_mask = -1
            self._unindex_translation(megaflow_id, live.translation)
            self._index_entries(megaflow_id, live.credit.lookups)

    def replace_refused(self, megaflow_id: int, now: float) -> LiveMegaflow | None:
        """It never got into the fast path: one for a single kind of packets takes its place, if it was for more and one came."""
        live = self._live.get(megaflow_id)
        if live is None:
            return None
        self.remove((megaflow_id,))
        self._close(megaflow_id)
        if not live.punted or live.megaflow.mask == EXACT or self.at(EXACT, live.translation.key) is not None:
            return None
        return self.add(live.translation, live.translation.key, now, EXACT)

    def excess(self, wanted: int, now: float) -> list[int]:
        """Megaflows to remove now for ``wanted`` more to have room: not very many at once, but some to spare if any is wanted."""
        excess = len(self._live) + wanted - self.limit.now
        if excess <= 0:
            return []
        excess = _SPARE if wanted else min(excess, _AT_ONCE)
        found = self._order.first(excess, self._unused_since(now - _PROVING_SECONDS))
        if len(found) < excess:
            known = set(found)
            others = self._order.first(excess, lambda _: True)
            found += [megaflow_id for megaflow_id in others if megaflow_id not in known][: excess - len(found)]
        return found

    def idle(self, among: Iterable[int], now: float) -> list[int]:
        """Those that nothing has used for ``idle_seconds``, if their statistics have just been read: not very many."""
        unused = self._unused_since(now - self.idle_seconds)
        return list(islice((megaflow_id for megaflow_id in among if megaflow_id in self._live and unused(megaflow_id)), _AT_ONCE))

    def _unused_since(self, since: float) -> Callable[[int], bool]:
        return lambda megaflow_id: self._live[megaflow_id].last_used <= since

    # ── counting ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def punted(self, live: LiveMegaflow, now: float, packets: int = 1) -> None:
        """Some of its packets came up. The first is what it was made for."""
        live.punted += packets
        live.last_punted = now
        if live.punted > 1:
            self._order.used(live.megaflow.id)

    def count(self, read: Mapping[int, MegaflowStatistics], pipeline: Pipeline, mac_table: MacTable) -> None:
        """Credit what live megaflows have counted since the last time. Ids that are not live are passed over."""
        for megaflow_id, statistics in read.items():
            live = self._live.get(megaflow_id)
            if live is not None:
                if statistics.packets != live.statistics.packets:
                    self._order.used(megaflow_id)
                _credit(live, statistics, pipeline, mac_table)
                if megaflow_id in self._credit_changed:
                    self._settle_credit(megaflow_id, live)

    def count_final(self, read: Mapping[int, MegaflowStatistics], pipeline: Pipeline, mac_table: MacTable) -> None:
        """The same for megaflows that have been removed."""
        for megaflow_id, statistics in read.items():
            live = self._leaving.get(megaflow_id)
            if live is not None:
                _credit(live, statistics, pipeline, mac_table)
                self._close(megaflow_id)

    def conclude(self) -> None:
        """No more answers come to what was asked: close the accounts that are still open."""
        if self._leaving:
            for megaflow_id in tuple(self._leaving):
                self._close(megaflow_id)
        if self._credit_changed:
            for megaflow_id in tuple(self._credit_changed):
                self._settle_credit(megaflow_id, self._live[megaflow_id])

    def counting_for(self, entries: Iterable[FlowEntry]) -> tuple[int, ...]:
        """Live megaflows whose packets count for any of these."""
        found: set[int] = set()
        for entry in entries:
            found.update(self._by_entry.get(entry, ()))
        return tuple(sorted(found & self._live.keys()))

    def owes(self, entry: FlowEntry) -> bool:
        """Whether packets may yet be counted for this entry."""
        return entry in self._by_entry

    def inherit(self, old: FlowEntry, new: FlowEntry) -> None:
        """``new`` has taken ``old``'s place and its counters: what would yet be counted for ``old`` goes to it."""
        for megaflow_id in self._by_entry.pop(old, ()):
            live = self._live.get(megaflow_id) or self._leaving[megaflow_id]
            lookups = live.credit.lookups
            if any(lookup.entry is old for lookup in lookups):
                heirs = tuple(lookup._replace(entry=new) if lookup.entry is old else lookup for lookup in lookups)
                live.credit = live.credit._replace(lookups=heirs)
                self._by_entry.setdefault(new, set()).add(megaflow_id)

    def _settle_credit(self, megaflow_id: int, live: LiveMegaflow) -> None:
        self._credit_changed.discard(megaflow_id)
        self._unindex_entries(megaflow_id, live.credit.lookups)
        live.credit = live.translation
        self._index_entries(megaflow_id, live.credit.lookups)

    def _close(self, megaflow_id: int) -> None:
        self._unindex_entries(megaflow_id, self._leaving.pop(megaflow_id).credit.lookups)

    # ── what a change touches ──────────────────────────────────────────────────────────────────────────────────────────
    def entry_added(self, table_id: int, entry: FlowEntry) -> None:
        if self._live:
            self._added.setdefault(table_id, {})[entry] = None
            self.stale = True

    def entry_changed(self, entry: FlowEntry) -> None:
        """Its instructions have changed, or it has gone. To be said before ``inherit``."""
        counting = self._by_entry.get(entry)
        if counting:
            self._touch(megaflow_id for megaflow_id in counting if megaflow_id in self._live)

    def group_changed(self, group_id: int) -> None:
        """It is new, has other buckets, or has gone."""
        self._touch(self._by_group.get(group_id, ()))

    def meter_changed(self, meter_id: int) -> None:
        """It is new, has other bands, or has gone."""
        self._touch(self._by_meter.get(meter_id, ()))

    def port_liveness_changed(self, number: int) -> None:
        self._touch(self._by_watched_port.get(number, ()))

    def address_changed(self, change: MacChange) -> list[int]:
        """A MAC address has moved. Returns the megaflows to remove: only their packets coming up would show that it moves back."""
        gone = []
        for megaflow_id in self._by_address.get(change.mac, ()):
            for key in self._live[megaflow_id].translation.normal_keys:
                if change.affects(key):
                    self._touch((megaflow_id,))
                    if ETH_SRC.get(key) == change.mac and IN_PORT.get(key) != change.port:
                        gone.append(megaflow_id)
                        break
        return gone

    def _touch(self, megaflow_ids: Iterable[int]) -> None:
        self._touched.update(megaflow_ids)
        self.stale = bool(self._touched or self._added)

    def revalidate(self, translate: Translate) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Bring the live megaflows in line with all changes since the last time.

        Returns the ids of those removed, and of those that stay but whose statistics have to be read (``credit``).
        """
        touched = self._touched
        for table_id, entries in self._added.items():
            for lookups in self._by_table.get(table_id, {}).values():
                touched.update(lookups.changed_by(entries))
        self._touched = set()
        self._added = {}
        self.stale = False
        if len(touched) > self.translations:
            removed = tuple(sorted(touched))
        else:
            removed = tuple(megaflow_id for megaflow_id in sorted(touched) if not self._still_right(megaflow_id, translate))
        self.remove(removed)
        return removed, tuple(sorted(touched & self._credit_changed))

    def _still_right(self, megaflow_id: int, translate: Translate) -> bool:
        live = self._live[megaflow_id]
        new = translate(live.translation)
        if new.for_fast_path != live.megaflow.actions or new.mask & ~live.megaflow.mask or not installable(new):
            return False
        self._unindex_translation(megaflow_id, live.translation)
        live.translation = new
        self._index_translation(megaflow_id, new)
        if _accounts(new) == _accounts(live.credit):
            live.credit = new
        else:
            self._credit_changed.add(megaflow_id)
            self._index_entries(megaflow_id, live.credit.lookups)
        return True

    # ── indexes ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _index_translation(self, megaflow_id: int, translation: Translation) -> None:
        by_entry, last_lookups = self._by_entry, self._last_lookups
        for lookup in translation.lookups:
            table_id, _, known, entry = lookup
            if entry is not None:
                ids = by_entry.get(entry)
                if ids is None:
                    by_entry[entry] = {megaflow_id}
                else:
                    ids.add(megaflow_id)
            last = last_lookups.get(table_id)
            if last is None or last[0] != known:
                last = last_lookups[table_id] = known, self._lookups(table_id, known)
            last[1].add(megaflow_id, lookup)
        for key in translation.normal_keys:
            for address in (ETH_SRC.get(key), ETH_DST.get(key)):
                self._by_address.setdefault(address, set()).add(megaflow_id)
        if translation.groups or translation.meters or translation.watched_ports:
            for index, numbers in self._dependencies(translation):
                for number in numbers:
                    index.setdefault(number, set()).add(megaflow_id)

    def _lookups(self, table_id: int, known: int) -> Lookups:
        groups = self._by_table.get(table_id)
        if groups is None:
            groups = self._by_table[table_id] = {}
        group = groups.get(known)
        if group is None:
            group = groups[known] = Lookups(known)
        return group

    def _unindex_translation(self, megaflow_id: int, translation: Translation) -> None:
        self._unindex_entries(megaflow_id, translation.lookups)
        for lookup in translation.lookups:
            groups = self._by_table[lookup.table_id]
            group = groups[lookup.known]
            group.remove(megaflow_id)
            if not group:
                del groups[lookup.known]
                self._last_lookups.pop(lookup.table_id, None)
        for key in translation.normal_keys:
            for address in (ETH_SRC.get(key), ETH_DST.get(key)):
                _discard(self._by_address, address, megaflow_id)
        for index, numbers in self._dependencies(translation):
            for number in numbers:
                _discard(index, number, megaflow_id)

    def _dependencies(self, translation: Translation) -> tuple[tuple[dict[int, set[int]], frozenset[int]], ...]:
        """Each index of what else than entries and addresses the translation depends on, with its keys."""
        return (
            (self._by_group, translation.groups),
            (self._by_meter, translation.meters),
            (self._by_watched_port, translation.watched_ports),
        )

    def _index_entries(self, megaflow_id: int, lookups: Iterable[Lookup]) -> None:
        for _, _, _, entry in lookups:
            if entry is not None:
                ids = self._by_entry.get(entry)
                if ids is None:
                    self._by_entry[entry] = {megaflow_id}
                else:
                    ids.add(megaflow_id)

    def _unindex_entries(self, megaflow_id: int, lookups: Iterable[Lookup]) -> None:
        for lookup in lookups:
            if lookup.entry is not None:
                _discard(self._by_entry, lookup.entry, megaflow_id)


def installable(translation: Translation) -> bool:
    """Whether the fast path may be told: the rest of the packet's way does not have to be found on its bytes."""
    goes_on = translation.again is not None and not translation.recirculation
    return not (translation.slow_path_only or goes_on or translation.forks or translation.also)


def _credit(live: LiveMegaflow, statistics: MegaflowStatistics, pipeline: Pipeline, mac_table: MacTable) -> None:
    if statistics is live.statistics:
        return  # which is what a fast path returns while nothing was counted
    packets = statistics.packets - live.statistics.packets
    octets = statistics.bytes - live.statistics.bytes
    before, live.statistics = live.statistics, statistics
    dropped = list(_differences(statistics.dropped, before.dropped))
    if packets > 0 or any(count for count, _ in dropped):
        for lookups, hits, reached, reached_octets in live.credit.shares(packets, octets, dropped):
            pipeline.count(lookups, reached, reached_octets, statistics.last_used)
            group_table.count(hits, reached, reached_octets)
        for key in live.translation.normal_keys:
            mac_table.refresh(key, statistics.last_used)
    for hits, way in zip(live.credit.hits_of_ways, _differences(statistics.ways, before.ways), strict=False):
        group_table.count(hits, *way)


def _differences(now: Iterable[tuple[int, int]], before: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Packets and bytes counted since, item by item; there were none before if ``before`` is shorter."""
    for (packets, octets), (old_packets, old_octets) in zip_longest(now, before, fillvalue=(0, 0)):
        yield packets - old_packets, octets - old_octets


def _accounts(translation: Translation) -> tuple[object, ...]:
    """Who counts its packets."""
    entries = [(lookup.table_id, lookup.entry) for lookup in translation.lookups]
    return entries, translation.hits, translation.hits_of_ways, translation.met


def _discard(index: dict[_K, set[int]], at: _K, megaflow_id: int) -> None:
    ids = index.get(at)
    if ids is not None:
        ids.discard(megaflow_id)
        if not ids:
            del index[at]
