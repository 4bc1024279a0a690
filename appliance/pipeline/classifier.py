"""Packet classifier: which of many rules with wildcards matches this flow key, and which bits of the key had to be read to know.

What?
-----
A rule is a match (value and mask) with a priority; of the rules that match a key the one with the highest priority wins. Rules
that share a mask go into one *subtable*, a dictionary from masked key to rules; a look-up probes each subtable once with
``key & mask``. This is tuple-space search (Srinivasan, Suri, Varghese, SIGCOMM 1999), as in Open vSwitch. It costs one probe for
each different mask, not for each rule; changes cost one dictionary operation.

Subtables are kept in the order of the highest priority that they hold, so that a look-up ends as soon as nothing in the remaining
ones could win over the rule that it has.

Un-wildcarding
--------------
The slow path does not only want the rule: it wants to tell the fast path about as many packets as it can in one megaflow. So a
look-up also returns the bits of the key that it consulted. Any key that agrees in those bits gets the same answer, hence only they
belong in the megaflow's mask. A subtable that is not probed adds nothing. One that is probed adds its mask, but often less will do:
each subtable knows the bits in which all its rules agree (say ``eth_type`` 0x0800), and a key that differs there (an ARP packet)
cannot match any of them. Then only those bits are consulted, fields that tell kinds of traffic apart first, so that a rule about
TCP ports does not make megaflows for ARP depend on the ports.

Which bit is consulted next depends only on the values of bits consulted before. Look-ups in one state of the classifier therefore
form a decision tree, and two different megaflows made of them do not overlap.

Invariant: ``lookup`` returns the same rule for every key that agrees with this one in the consulted bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

from appliance.model.fields import ETH_TYPE, IN_PORT, IP_PROTO, KEY_MASK, METADATA, VLAN_TCI
from appliance.model.match import Match


class Rule(Protocol):
    """What can be classified. Neither property may change while the rule is in a classifier."""

    @property
    def match(self) -> Match: ...

    @property
    def priority(self) -> int: ...


R = TypeVar("R", bound=Rule)

_KINDS = METADATA.mask | IN_PORT.mask
_STAGES = (
    # Each includes the one before. Metadata and in_port cost a megaflow nothing: one is not in its mask, the other always is.
    _KINDS,
    _KINDS | ETH_TYPE.mask,
    _KINDS | ETH_TYPE.mask | VLAN_TCI.mask,
    _KINDS | ETH_TYPE.mask | VLAN_TCI.mask | IP_PROTO.mask,
    KEY_MASK,
)


class _Subtable(Generic[R]):
    """The rules of one mask."""

    __slots__ = ("common", "counts", "highest", "mask", "priorities", "rules", "sample")

    def __init__(self, mask: int, sample: int) -> None:
        self.mask = mask
        self.rules: dict[int, list[R]] = {}
        """By value; the rules of one value with the highest priority first."""
        self.sample = sample
        self.common = mask
        """Bits in which all rules have the value of ``sample``. A removal gives none back: that is safe, only less sharp."""
        self.counts: dict[int, int] = {}
        """How many rules have each priority."""
        self.priorities: list[int] = []
        """A heap of negated priorities; may hold some that no rule has any more, but not at its top."""
        self.highest = -1

    def insert(self, rule: R) -> R | None:
        priority, value = rule.priority, rule.match.value
        rules = self.rules.get(value)
        if rules is None:
            self.rules[value] = [rule]
            self.common &= ~(value ^ self.sample)
        else:
            for at, other in enumerate(rules):
                if other.priority == priority:
                    rules[at] = rule
                    return other
                if other.priority < priority:
                    rules.insert(at, rule)
                    break
            else:
                rules.append(rule)
        count = self.counts.get(priority, 0)
        self.counts[priority] = count + 1
        if not count:
            heappush(self.priorities, -priority)
            self.highest = -self.priorities[0]
        return None

    def remove(self, rule: R) -> None:
        rules = self.rules[rule.match.value]
        rules[:] = [other for other in rules if other is not rule]
        if not rules:
            del self.rules[rule.match.value]
        self.counts[rule.priority] -= 1
        if not self.counts[rule.priority]:
            del self.counts[rule.priority]
            while self.priorities and -self.priorities[0] not in self.counts:
                heappop(self.priorities)
            self.highest = -self.priorities[0] if self.priorities else -1


class Classifier(Generic[R]):
    """Rules by match and priority. At most one rule for each pair."""

    __slots__ = ("_order", "_size", "_sorted", "_subtables")

    def __init__(self) -> None:
        self._subtables: dict[int, _Subtable[R]] = {}
        self._order: list[_Subtable[R]] = []
        self._sorted = True
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[R]:
        """All rules, in no particular order."""
        for subtable in self._subtables.values():
            for rules in subtable.rules.values():
                yield from rules

    @property
    def masks(self) -> tuple[int, ...]:
        """The different masks, the one with the highest priority first: how many probes a look-up may take."""
        self._sort()
        return tuple(subtable.mask for subtable in self._order)

    def insert(self, rule: R) -> R | None:
        """Put a rule in; returns the rule with the same match and priority that it replaces, if there was one."""
        mask = rule.match.mask
        subtable = self._subtables.get(mask)
        if subtable is None:
            subtable = self._subtables[mask] = _Subtable(mask, rule.match.value)
            self._order.append(subtable)
        highest = subtable.highest
        old = subtable.insert(rule)
        if subtable.highest != highest:
            self._sorted = False
        self._size += old is None
        return old

    def remove(self, rule: R) -> None:
        """Take out a rule. Raises KeyError unless this very rule is in."""
        match = rule.match
        if self.find(match, rule.priority) is not rule:
            raise KeyError(rule)
        subtable = self._subtables[match.mask]
        highest = subtable.highest
        subtable.remove(rule)
        self._size -= 1
        if not subtable.rules:
            del self._subtables[match.mask]
            self._order.remove(subtable)
        elif subtable.highest != highest:
            self._sorted = False

    def find(self, match: Match, priority: int) -> R | None:
        """The rule with exactly this match and priority."""
        subtable = self._subtables.get(match.mask)
        if subtable is not None:
            for rule in subtable.rules.get(match.value, ()):
                if rule.priority == priority:
                    return rule
        return None

    def lookup(self, key: int) -> tuple[R | None, int]:
        """The rule with the highest priority that matches, and the bits of the key that this answer depends on.

        When two of the same priority match, which one wins is not defined (specification 1.3.5, section 5.3), but it is always the
        same one.
        """
        if not self._sorted:
            self._sort()
        best: R | None = None
        best_priority = -1
        consulted = 0
        for subtable in self._order:
            if subtable.highest <= best_priority:
                break
            differs = (key ^ subtable.sample) & subtable.common
            if differs:
                for stage in _STAGES:
                    if differs & stage:
                        consulted |= subtable.common & stage
                        break
                continue
            mask = subtable.mask
            consulted |= mask
            rules = subtable.rules.get(key & mask)
            if rules is not None and rules[0].priority > best_priority:
                best = rules[0]
                best_priority = best.priority
        return best, consulted

    def covered_by(self, match: Match) -> Iterator[R]:
        """Rules that match only packets that ``match`` matches too (the non-strict comparison of flow-mods and statistics)."""
        value, mask = match.value, match.mask
        for subtable in self._subtables.values():
            if mask & ~subtable.mask:
                continue
            for other, rules in subtable.rules.items():
                if other & mask == value:
                    yield from rules

    def overlapping(self, match: Match, priority: int) -> Iterator[R]:
        """Rules of this priority that may match a packet that ``match`` matches too."""
        value, mask = match.value, match.mask
        for subtable in self._subtables.values():
            if priority not in subtable.counts:
                continue
            shared = subtable.mask & mask
            wanted = value & shared
            for other, rules in subtable.rules.items():
                if other & shared == wanted:
                    for rule in rules:
                        if rule.priority == priority:
                            yield rule

    def _sort(self) -> None:
        if not self._sorted:
            self._order.sort(key=lambda subtable: -subtable.highest)
            self._sorted = True
