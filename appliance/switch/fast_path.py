"""The switch's hold on the fast path: what packets mean now, and the effects that keep the live megaflows in line with it.

Invariant: the ids in ``InstallMegaflow`` and ``RemoveMegaflows`` effects, in their order, make up the live megaflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from appliance.model.fields import IN_PORT, IP_FRAG
from appliance.model.megaflow import FIRST_AGAIN, LAST_AGAIN, Again, MegaflowStatistics, is_again
from appliance.pipeline import group_table, mac_table, xlate
from appliance.pipeline.first_part import first_part, is_first_part
from appliance.pipeline.flow_table import Pipeline
from appliance.pipeline.mac_table import MacChange, MacTable
from appliance.pipeline.plain_path import Begun, begin
from appliance.pipeline.translation import Continuation, Translation
from appliance.switch.cross_product import CrossProduct, Parts
from appliance.switch.effects import Effect, InstallMegaflow, ReadStatistics, RemoveMegaflows
from appliance.switch.megaflows import LiveMegaflow, Megaflows, installable
from appliance.switch.prefetch import Prefetch
from appliance.switch.recirculation import Recirculation

_IN_PORT_SHIFT = IN_PORT.shift
_IN_PORT_ONES = IN_PORT.mask >> IN_PORT.shift
_AHEAD, _LOOKED_AT = 32, 256
"""Megaflows that are made ahead in one step, and entries that are looked at for it: half a millisecond at most."""


class FastPath:
    """Translates keys and keeps megaflows. While ``standalone``, the switch learns by itself and its tables say nothing."""

    def __init__(
        self, pipeline: Pipeline, megaflows: Megaflows, port_is_live: Callable[[int], bool], *, standalone: bool = False
    ) -> None:
        self.pipeline = pipeline
        self.port_is_live = port_is_live
        self.megaflows = megaflows
        self.mac_table = MacTable()
        self._recirculation = Recirculation()
        self._cross_product = CrossProduct()
        self._prefetch = Prefetch(pipeline)
        self.prefetched = 0
        """Megaflows that were made before their packets came."""
        self._at_xdp: set[int] = set()
        """Ports whose packets the fast path meets at XDP, which leaves looking up twice to TC: their ways are not cut."""
        self.standalone = standalone
        self.drops_fragments = False
        """OFPC_FRAG_DROP: fragments of IP packets do not come to the tables."""
        self.asked: list[tuple[Translation, int, int]] = []
        """Packets that came up and want a megaflow: see ``want``."""
        self._made: dict[int, LiveMegaflow] = {}
        """Live for the switch, but not told to the fast path yet (``install``)."""

    # ── translating ────────────────────────────────────────────────────────────────────────────────────────────────────
    def normal(self, now: float) -> xlate.Normal:
        """What OFPP_NORMAL does at this time."""
        return lambda key: mac_table.normal(key, self.mac_table, now)

    def translate(self, key: int, now: float, *, one_packet: bool = False, begun: Translation | Begun | None = None) -> Translation:
        """What becomes of a packet with this flow key that comes in. ``one_packet``: see ``xlate.translate``. ``begun`` is what
        ``plain_path`` has said of it."""
        if FIRST_AGAIN <= key >> _IN_PORT_SHIFT & _IN_PORT_ONES <= LAST_AGAIN:
            return self._translate_again(key, now, one_packet=one_packet)
        if self.drops_fragments and IP_FRAG.get(key):
            return Translation(key, IP_FRAG.mask | IN_PORT.mask, ())
        if self.standalone:
            translation = mac_table.normal(key, self.mac_table, now)
        else:
            begun = begun or begin(self.pipeline, key)
            if isinstance(begun, Translation) and not (one_packet or self.drops_fragments):
                return begun  # as most are
            translation = xlate.translate(
                self.pipeline, key, self.normal(now), self.port_is_live, one_packet=one_packet, begun=begun
            )
        if translation.again is not None:
            translation = self._placed(translation, IN_PORT.get(key), 1)
        return self._of_no_fragment(translation)

    def plain_path(self, key: int) -> Translation | Begun | None:
        """What ``translate`` says of a packet that has not been parsed again, or how far the short way through the tables leads."""
        return None if self.standalone or self.drops_fragments else begin(self.pipeline, key)

    def _translate_again(self, key: int, now: float, *, one_packet: bool) -> Translation:
        """Of a packet that has been parsed again."""
        place = self._recirculation.get(IN_PORT.get(key))
        if place is None:
            return Translation(key, IN_PORT.mask, (), slow_path_only=True)  # its way on is forgotten
        own = IN_PORT.put(key, place.in_port)
        rest = xlate.translate_again(
            self.pipeline, place.continuation, own, self.normal(now), self.port_is_live, one_packet=one_packet
        )
        return self._placed(rest, place.in_port, place.passes + 1)._replace(key=key)

    def _of_no_fragment(self, translation: Translation) -> Translation:
        return translation._replace(mask=translation.mask | IP_FRAG.mask) if self.drops_fragments else translation

    def _cut(self, key: int, table_id: int, now: float) -> Parts | None:
        """The way of a packet that comes in, in two parts."""
        first = self._first_part(key, table_id)
        return None if first is None else Parts(first, self._rest(first, now))

    def _rest(self, first: Translation, now: float) -> Translation:
        return self.translate(IN_PORT.put(first.key, first.recirculation), now)

    def _first_part(self, key: int, table_id: int) -> Translation | None:
        if is_again(IN_PORT.get(key)) or IN_PORT.get(key) in self._at_xdp:
            return None
        first = first_part(self.pipeline, key, table_id)
        if first is None:
            return None
        first = self._placed(first, IN_PORT.get(key), 1)
        return self._of_no_fragment(first) if first.recirculation else None

    def _as_before(self, old: Translation, now: float) -> Translation:
        """The packet of this translation again, as far as that went."""
        if old.again is not None and is_first_part(old) and not self.standalone:
            first = self._first_part(old.key, old.again.table_id)
            if first is not None:
                return first
        return self.translate(old.key, now)

    def _placed(self, translation: Translation, in_port: int, passes: int) -> Translation:
        """With a place where its packets go on, if they are to be parsed again and the fast path can do that."""
        if translation.again is None or translation.forks or translation.slow_path_only:
            return translation
        if self._recirculation.is_full:
            places = {action.place for live in self.megaflows for action in live.megaflow.actions if isinstance(action, Again)}
            self._recirculation.forget(places | {IN_PORT.get(live.megaflow.key) for live in self.megaflows})
        return translation._replace(recirculation=self._recirculation.number(in_port, translation.again, passes))

    def resume(self, again: Continuation, key: int, now: float) -> Translation:
        return xlate.resume(self.pipeline, again, key, self.normal(now), self.port_is_live)

    # ── megaflows ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def conclude(self, now: float) -> None:
        """What was wanted has been made by now, or else something went wrong: it will not be made of what may not hold any more.
        Its packets are counted all the same."""
        if self.asked:
            self._take_asked(now)

    def want(self, translation: Translation, key: int, octets: int) -> bool:
        """A packet with this key and translation came up, for which none is known to be live: it counts for one that ``install``
        makes, if there is to be one. Whether that may be for other packets too; if so, and unless ``octets`` is 0, the packet is
        counted then, which need not be before it is sent. What takes the plain path may be put among the ``asked`` unseen."""
        if not installable(translation):
            return False
        self.asked.append((translation, key, octets))
        return True

    def _in_parts(
        self, asked: Iterable[tuple[Translation, int, int]], table_id: int, now: float
    ) -> Iterator[tuple[Translation, int, int]]:
        """In the place of a way through this table its first part, and if that is new, the rest: else that may well be there, or
        comes up by itself."""
        known: dict[int, set[int]] = {}
        """First parts that are asked for: by mask, the masked keys."""
        for translation, key, _ in asked:
            if all(lookup.table_id != table_id for lookup in translation.lookups):
                yield translation, key, 0
                continue
            if any(key & mask in regions for mask, regions in known.items()):
                continue
            first = self._first_part(key, table_id)
            if first is None:
                yield translation, key, 0
                continue
            if self.megaflows.at(self.megaflows.masks.choose(first.mask), key) is None:
                rest = self._rest(first, now)
                if not installable(rest):
                    yield translation, key, 0
                    continue
                yield rest, rest.key, 0
            yield first, key, 0
            known.setdefault(first.mask, set()).add(key & first.mask)

    @property
    def is_wanted(self) -> bool:
        """Whether ``install`` has something to do."""
        return bool(self.asked or self._made)

    def install(self, now: float) -> list[Effect]:
        """Make the megaflows that were wanted, and tell the fast path of those that still are."""
        effects = self._make(now)
        effects += [InstallMegaflow(live.megaflow) for live in self._made.values()]
        self._made.clear()
        return effects

    def _make(self, now: float) -> list[Effect]:
        """Before anything changes that their translations depend on. The effects make room."""
        effects: list[Effect] = []
        megaflows = self.megaflows
        before = len(self._made)
        choose = megaflows.masks.choose
        asked, table_id = self._take_asked(now), self._cross_product.table
        if table_id is not None and not self.standalone:
            asked = list(self._in_parts(asked, table_id, now))
        for translation, key, _ in asked:
            new = megaflows.came_up(translation, key, now, self._made)
            if new is not None:
                if new:
                    self._prefetch.came(translation)
                continue
            mask = choose(translation.mask)
            live = megaflows.at(mask, key)
            if live is None:
                if mask != translation.mask and not megaflows.earned(mask, key):
                    continue
                excess = megaflows.excess(1, now)
                if excess:
                    effects += self.remove(excess)
                    mask = choose(translation.mask)
                live = megaflows.add(translation, key, now, mask)
                self._made[live.megaflow.id] = live
                if mask == translation.mask:
                    self._prefetch.came(translation)
            megaflows.punted(live, now)
        self._judge_ways(len(self._made) - before, now)
        return effects

    def _judge_ways(self, made: int, now: float) -> None:
        if self._cross_product.made(made):
            newest = (live.translation for live in self.megaflows.newest_first())
            self._cross_product.judge(newest, lambda key, table_id: self._cut(key, table_id, now))

    @property
    def looks_ahead(self) -> bool:
        """Whether ``prefetch`` has something to do."""
        return bool(self._prefetch)

    def prefetch(self, now: float) -> list[Effect]:
        """Make some megaflows before their packets come, if it has been seen which will be wanted."""
        ahead, megaflows = self._prefetch, self.megaflows
        if len(megaflows) + _AHEAD > megaflows.limit.now * 3 // 4:
            ahead.stop()
        before = len(self._made)
        for _ in range(_LOOKED_AT):
            coming = ahead.next() if len(self._made) - before < _AHEAD else None
            if coming is None:
                break
            key, entry, like = coming
            if megaflows.at(like.mask, key) is None:
                translation = self._as_before(like._replace(key=key), now)
                if translation.mask == like.mask and installable(translation) and translation.meets(entry):
                    live = megaflows.add(translation, key, now, translation.mask)
                    self._made[live.megaflow.id] = live
                    ahead.made()
                else:
                    ahead.unfit()
        made = len(self._made) - before
        self.prefetched += made
        self._judge_ways(made, now)
        return self.install(now)

    def _take_asked(self, now: float) -> list[tuple[Translation, int, int]]:
        """Counted."""
        asked = self.asked[:]
        self.asked.clear()
        count = self.pipeline.count
        for translation, _, octets in asked:
            if octets:
                count(translation.lookups, 1, octets, now)
                if translation.hits:
                    group_table.count(translation.hits, 1, octets)
        return asked

    def refused(self, megaflow_id: int, now: float) -> list[Effect]:
        """The fast path found no place for a megaflow. With a finer mask it may, which is something for packets like this one."""
        self._prefetch.refused()
        finer = self.megaflows.replace_refused(megaflow_id, now)
        return [] if finer is None else [InstallMegaflow(finer.megaflow)]

    def remove(self, megaflow_ids: Iterable[int]) -> list[Effect]:
        """Remove live megaflows."""
        ids = tuple(megaflow_ids)
        self.megaflows.remove(ids)
        return self._removed(ids)

    def remove_all(self) -> list[Effect]:
        self._prefetch.stop()
        return self.remove(self.megaflows.ids())

    def drop_fragments(self, drop: bool) -> list[Effect]:
        """OFPC_FRAG_DROP or OFPC_FRAG_NORMAL from now on."""
        if drop == self.drops_fragments:
            return []
        self.drops_fragments = drop
        return self.remove_all()

    def revalidate(self, now: float) -> list[Effect]:
        """Bring the live megaflows in line with the tables and the addresses learned."""
        if not self.megaflows.stale:
            return []
        removed, to_read = self.megaflows.revalidate(lambda old: self._as_before(old, now))
        effects = self._removed(removed)
        to_read = tuple(megaflow_id for megaflow_id in to_read if megaflow_id not in self._made)
        if to_read:
            effects.append(ReadStatistics(to_read))
        return effects

    def _removed(self, megaflow_ids: Sequence[int]) -> list[Effect]:
        known = tuple(megaflow_id for megaflow_id in megaflow_ids if self._made.pop(megaflow_id, None) is None)
        return [RemoveMegaflows(known)] if known else []

    # ── learning ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def learn(self, translation: Translation, now: float) -> tuple[bool, list[Effect]]:
        """Learn addresses from one packet with this translation. Whether that changed anything, and what follows from it."""
        if not translation.normal_keys:
            return False, []
        effects = self._make(now)
        changes = [change for key in translation.normal_keys if (change := self.mac_table.learn(key, now)) is not None]
        return bool(changes), effects + self._addresses_changed(changes, now)

    def meets_at_xdp(self, number: int, at_xdp: bool) -> None:
        """Where a new port's packets are met."""
        if at_xdp:
            self._at_xdp.add(number)
        else:
            self._at_xdp.discard(number)

    def forget_port(self, number: int, now: float) -> list[Effect]:
        """A port went down or away."""
        return self._addresses_changed(self.mac_table.forget_port(number), now)

    def _addresses_changed(self, changes: Iterable[MacChange], now: float) -> list[Effect]:
        gone: set[int] = set()
        for change in changes:
            gone.update(self.megaflows.address_changed(change))
        return self.remove(sorted(gone)) + self.revalidate(now)

    # ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    def sweep(self, read: Mapping[int, MegaflowStatistics], now: float) -> list[Effect]:
        """Count, and remove some of these that are idle, or of all if they are too many."""
        self.count(read)
        gone = self.megaflows.idle(read, now) or self.megaflows.excess(0, now)
        return self.remove(gone) if gone else []

    def swept(self, seconds: float, now: float) -> list[Effect]:
        """All live megaflows have been looked at, which took so long: it is known which addresses were heard of."""
        self.megaflows.limit.swept(seconds, len(self.megaflows))
        self._cross_product.swept(len(self.megaflows))
        return self._addresses_changed(self.mac_table.expire(now), now)

    # ── counting ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def count(self, read: Mapping[int, MegaflowStatistics]) -> None:
        self.megaflows.count(read, self.pipeline, self.mac_table)

    def count_final(self, read: Mapping[int, MegaflowStatistics]) -> None:
        self.megaflows.count_final(read, self.pipeline, self.mac_table)
