"""The rules of a classifier that have one mask, by value; and why none of them matches a key.

Invariant: for a key that agrees with this one in what is known and in the bits that ``absence`` returns, it returns the same, and
no rule matches that key.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import chain
from typing import Generic, Protocol, TypeVar

from appliance.model.fields import ETH_TYPE, IN_PORT, METADATA, VLAN_TCI
from appliance.model.match import Match
from appliance.pipeline.staged_index import KINDS, StagedIndex, fields_of


class Rule(Protocol):
    """What can be classified. Neither property may change while the rule is in a classifier."""

    @property
    def match(self) -> Match: ...

    @property
    def priority(self) -> int: ...


R = TypeVar("R", bound=Rule)

METADATA_BITS = METADATA.mask

_KINDS_IN_STAGES = (
    # Each includes the one before.
    METADATA_BITS | IN_PORT.mask,
    METADATA_BITS | IN_PORT.mask | ETH_TYPE.mask,
    METADATA_BITS | IN_PORT.mask | ETH_TYPE.mask | VLAN_TCI.mask,
    KINDS,
)
_MAX_INDEXES = 4
"""Each is a list of all values. One more may come: the one that no known field is first in."""


class Subtable(Generic[R]):
    """At least one rule, once the first is inserted."""

    __slots__ = (
        "_counts",
        "_fields",
        "_indexes",
        "_others",
        "_priorities",
        "_sample",
        "_whole_metadata",
        "common",
        "highest",
        "mask",
        "metadata",
        "rules",
    )

    def __init__(self, mask: int, sample: int) -> None:
        """``sample`` is the value of any rule, the first to be inserted for example."""
        self.mask = mask
        self.rules: dict[int, R] = {}
        """By value; of those of one value the one with the highest priority."""
        self.highest = -1
        """Priority."""
        self.common = mask
        """Bits in which all rules have the value of ``sample``. A removal gives none back: that is safe, only less sharp."""
        self.metadata: dict[int, int] = {}
        """How many values have each value of the metadata, if the mask has all of its bits; else empty."""
        self._sample = sample
        self._whole_metadata = not METADATA_BITS & ~mask
        self._others: dict[int, list[R]] = {}
        """The rules that are not in ``rules``: by value, the highest priority first."""
        self._counts: dict[int, int] = {}
        """How many rules have each priority."""
        self._priorities: list[int] = []
        """A heap of negated priorities; may hold some that no rule has any more, but not at its top."""
        self._fields = fields_of(mask & ~KINDS)
        """The mask without the bits of KINDS that are common."""
        self._indexes: dict[int, StagedIndex] = {}
        """Of the values as far as their ``_fields`` go: by the fields that stand first. Made when they are needed."""

    def __iter__(self) -> Iterator[R]:
        """All rules."""
        return chain(self.rules.values(), chain.from_iterable(self._others.values()))

    # ── rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    def at(self, value: int) -> tuple[R, ...]:
        """The rules of one value, the highest priority first."""
        first = self.rules.get(value)
        return () if first is None else (first, *self._others.get(value, ()))

    def has_priority(self, priority: int) -> bool:
        """Whether any rule has it."""
        return priority in self._counts

    def find(self, value: int, priority: int) -> R | None:
        rule = self.rules.get(value)
        if rule is None or rule.priority == priority:
            return rule
        for other in self._others.get(value, ()):
            if other.priority == priority:
                return other
        return None

    def insert(self, rule: R) -> R | None:
        """Returns the one with the same value and priority that it replaces."""
        priority, value = rule.priority, rule.match.value
        first = self.rules.get(value)
        if first is None:
            self.rules[value] = rule
            if (value ^ self._sample) & self.common or self._indexes or self._whole_metadata:
                self._value_added(value)
        elif first.priority < priority:
            self.rules[value] = rule
            self._others.setdefault(value, []).insert(0, first)
        elif first.priority == priority:
            self.rules[value] = rule
            return first
        else:
            others = self._others.setdefault(value, [])
            for at, other in enumerate(others):
                if other.priority == priority:
                    others[at] = rule
                    return other
                if other.priority < priority:
                    others.insert(at, rule)
                    break
            else:
                others.append(rule)
        count = self._counts.get(priority, 0)
        self._counts[priority] = count + 1
        if not count:
            heappush(self._priorities, -priority)
            self.highest = -self._priorities[0]
        return None

    def remove(self, rule: R) -> None:
        """It must be in."""
        priority, value = rule.priority, rule.match.value
        others = self._others.get(value)
        if others is None:
            del self.rules[value]
            self._value_removed(value)
        else:
            if self.rules[value] is rule:
                self.rules[value] = others.pop(0)
            else:
                others.remove(rule)
            if not others:
                del self._others[value]
        self._counts[priority] -= 1
        if not self._counts[priority]:
            del self._counts[priority]
            while self._priorities and -self._priorities[0] not in self._counts:
                heappop(self._priorities)
            self.highest = -self._priorities[0] if self._priorities else -1

    def _value_added(self, value: int) -> None:
        if self._whole_metadata:
            metadata = value & METADATA_BITS
            self.metadata[metadata] = self.metadata.get(metadata, 0) + 1
        differs = (value ^ self._sample) & self.common
        if differs:
            self.common &= ~differs
            if differs & KINDS:
                self._fields = fields_of(self.mask & ~(self.common & KINDS))
                self._indexes.clear()
        for index in self._indexes.values():
            index.add(value)

    def _value_removed(self, value: int) -> None:
        if self._whole_metadata:
            metadata = value & METADATA_BITS
            self.metadata[metadata] -= 1
            if not self.metadata[metadata]:
                del self.metadata[metadata]
        for index in self._indexes.values():
            index.discard(value)

    # ── keys ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    def absence(self, key: int, unknown: int) -> int:
        """The bits that show, with those not ``unknown``, that no rule matches ``key``. None does, and there are rules."""
        if not self.mask & unknown:
            return 0
        differs = (key ^ self._sample) & self.common
        if differs and differs & unknown != differs:
            return 0
        whole = 0
        if len(self._fields) > 1:
            for field in self._fields:
                if not field & unknown:
                    whole |= field
        bits = (self._indexes.get(whole) or self._index(whole)).bits(key)
        differs &= KINDS
        if bits is not None:
            # Also parts of fields may be known: this must be asked before anything that is not.
            if not bits & unknown:
                return 0
            if not differs:
                return self.common & KINDS | bits
        return next(self.common & stage for stage in _KINDS_IN_STAGES if differs & stage)

    def _index(self, known: int) -> StagedIndex:
        """With the fields first that are known, so that among the rules that have their values the rest is searched for."""
        if len(self._indexes) >= _MAX_INDEXES:
            known = 0
        if known not in self._indexes:
            self._indexes[known] = StagedIndex(sum(self._fields), known, self.rules)
        return self._indexes[known]
