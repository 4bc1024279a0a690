"""Packet classifier: which of many rules with wildcards matches this flow key, and which bits of the key had to be read to know.

What?
-----
A rule is a match (value and mask) with a priority; of the rules that match a key the one with the highest priority wins. Rules
that share a mask go into one *subtable*, a dictionary from masked key to rules; a look-up probes each subtable once with
``key & mask``. This is tuple-space search (Srinivasan, Suri, Varghese, SIGCOMM 1999), as in Open vSwitch. It costs one probe for
each different mask, not for each rule; changes cost one dictionary operation.

Subtables are kept in the order of the highest priority that they hold, so that a look-up ends as soon as nothing in the remaining
ones could win over the rule that it has. Those whose rules all ask for the whole of the metadata are left out of look-ups for
metadata that none of their rules has: a table that many virtual networks share is as many tables.

Un-wildcarding
--------------
The slow path does not only want the rule: it wants to tell the fast path about as many packets as it can in one megaflow. So a
look-up also returns the bits of the key that it consulted. Any key that agrees in those bits gets the same answer, hence only they
belong in the megaflow's mask. The mask of the winner is among them in any case, and some bits are known before (the packet's port,
what earlier tables consulted, what actions wrote): a subtable that is ruled out by these adds nothing. Of the others that have no
match, each adds what it takes to see that, which is mostly much less than its mask (``subtable``): so a packet that no rule for a
/32 covers depends on the shortest prefix that shows it, and a rule about TCP ports does not make megaflows for ARP depend on ports.

Which bit is consulted next depends only on the values of bits consulted or known before. Look-ups in one state of the classifier
therefore form a decision tree, and two different megaflows made of them do not overlap.

Invariant: ``lookup`` returns the same rule and the same bits for every key that agrees with this one in those and in what is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Generic

from appliance.model.fields import KEY_MASK
from appliance.model.match import Match
from appliance.pipeline.subtable import METADATA_BITS, R, Subtable

_MAX_PARTITIONS = 1024
"""Values of metadata whose subtables are remembered."""


class Classifier(Generic[R]):
    """Rules by match and priority. At most one rule for each pair."""

    __slots__ = ("_order", "_partitioned", "_partitions", "_subtables", "size")

    def __init__(self) -> None:
        self._subtables: dict[int, Subtable[R]] = {}
        self._order: list[Subtable[R]] | None = None
        """The highest priority first; None when it has to be found anew."""
        self._partitioned = False
        """Whether metadata matter to some subtable."""
        self._partitions: dict[int, list[Subtable[R]]] = {}
        """The part of ``_order`` that matters, by metadata."""
        self.size = 0
        """How many rules there are."""

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[R]:
        """All rules, in no particular order."""
        return chain.from_iterable(self._subtables.values())

    @property
    def masks(self) -> tuple[int, ...]:
        """The different masks, the one with the highest priority first: how many probes a look-up may take."""
        return tuple(subtable.mask for subtable in self._sort())

    def insert(self, rule: R) -> R | None:
        """Put a rule in; returns the rule with the same match and priority that it replaces, if there was one."""
        match = rule.match
        subtable = self._subtables.get(match.mask)
        if subtable is None:
            subtable = self._subtables[match.mask] = Subtable(match.mask, match.value)
        highest, partitions = subtable.highest, len(subtable.metadata)
        old = subtable.insert(rule)
        if subtable.highest != highest or len(subtable.metadata) != partitions:
            self._order = None
        if old is None:
            self.size += 1
        return old

    def remove(self, rule: R) -> None:
        """Take out a rule. Raises KeyError unless this very rule is in."""
        match = rule.match
        if self.find(match, rule.priority) is not rule:
            raise KeyError(rule)
        subtable = self._subtables[match.mask]
        before = subtable.highest, len(subtable.metadata)
        subtable.remove(rule)
        self.size -= 1
        if not subtable.rules:
            del self._subtables[match.mask]
        if (subtable.highest, len(subtable.metadata)) != before:
            self._order = None

    def find(self, match: Match, priority: int) -> R | None:
        """The rule with exactly this match and priority."""
        subtable = self._subtables.get(match.mask)
        return None if subtable is None else subtable.find(match.value, priority)

    def with_mask(self, mask: int) -> list[R]:
        """The rules with this mask in the order in which their values came; of each value the one with the highest priority."""
        subtable = self._subtables.get(mask)
        return [] if subtable is None else list(subtable.rules.values())

    def lookup(self, key: int, known: int = 0) -> tuple[R | None, int]:
        """The rule with the highest priority that matches, and the bits of the key that this answer depends on.

        ``known`` are bits that the caller depends on anyway. They make fewer others necessary, and need not be in the answer.
        When two of the same priority match, which one wins is not defined (specification 1.3.5, section 5.3), but it is always the
        same one.
        """
        order = self._order
        if order is None:
            order = self._sort()
        if self._partitioned and not METADATA_BITS & ~known:
            order = self._partition(order, key & METADATA_BITS)
        if len(order) == 1:  # what follows comes to the same
            mask = order[0].mask
            best = order[0].rules.get(key & mask)
            if best is not None:
                return best, mask
        best = None
        best_priority = -1
        consulted = 0
        missed = []
        for subtable in order:
            if subtable.highest <= best_priority:
                break
            mask = subtable.mask
            rule = subtable.rules.get(key & mask)
            if rule is None:
                missed.append(subtable)
            else:
                consulted = consulted | mask if consulted else mask
                if rule.priority > best_priority:
                    best = rule
                    best_priority = rule.priority
        if missed:
            unknown = KEY_MASK ^ (known | consulted)
            for subtable in missed:
                bits = subtable.absence(key, unknown)
                if bits:
                    consulted |= bits
                    unknown ^= unknown & bits
        return best, consulted

    def covered_by(self, match: Match) -> Iterator[R]:
        """Rules that match only packets that ``match`` matches too (the non-strict comparison of flow-mods and statistics)."""
        value, mask = match.value, match.mask
        for subtable in self._subtables.values():
            if mask & ~subtable.mask:
                continue
            if mask == subtable.mask:
                yield from subtable.at(value)
                continue
            for other in subtable.rules:
                if other & mask == value:
                    yield from subtable.at(other)

    def overlapping(self, match: Match, priority: int) -> Iterator[R]:
        """Rules of this priority that may match a packet that ``match`` matches too."""
        value, mask = match.value, match.mask
        for subtable in self._subtables.values():
            if not subtable.has_priority(priority):
                continue
            shared = subtable.mask & mask
            wanted = value & shared
            for other in (wanted,) if shared == subtable.mask else subtable.rules:
                if other & shared == wanted:
                    rule = subtable.find(other, priority)
                    if rule is not None:
                        yield rule

    def _sort(self) -> list[Subtable[R]]:
        self._order = sorted(self._subtables.values(), key=lambda subtable: -subtable.highest)
        self._partitions.clear()
        self._partitioned = any(subtable.metadata for subtable in self._order)
        return self._order

    def _partition(self, order: list[Subtable[R]], metadata: int) -> list[Subtable[R]]:
        """Subtables that may hold a rule for these metadata, in order."""
        partition = self._partitions.get(metadata)
        if partition is None:
            partition = [subtable for subtable in order if not subtable.metadata or metadata in subtable.metadata]
            if len(self._partitions) >= _MAX_PARTITIONS:
                self._partitions.clear()
            self._partitions[metadata] = partition
        return partition
