"""A match is two integers: a packet with flow key ``key`` matches when ``key & mask == value``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from appliance.model.fields import Field


@dataclass(frozen=True, slots=True)
class MatchField:
    """One OXM as a controller sent it. ``value`` and ``mask`` are not shifted; ``mask`` is None for an OXM without a mask."""

    field: Field
    value: int
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The fields in the order in which they came (flow statistics return them so), and the two integers made of them.

    Two matches are equal when they match the same packets: the order of the fields does not count.
    """

    fields: tuple[MatchField, ...] = field(default=(), compare=False)
    value: int = 0
    mask: int = 0

    @classmethod
    def of(cls, fields: Iterable[MatchField]) -> Match:
        """The match for fields that have been checked (prerequisites, duplicates, no value bit outside the mask)."""
        fields = tuple(fields)
        value = mask = 0
        for item in fields:
            bits = item.field.max if item.mask is None else item.mask
            value |= (item.value & bits) << item.field.shift
            mask |= bits << item.field.shift
        return cls(fields, value, mask)

    def matches(self, key: int) -> bool:
        return key & self.mask == self.value

    def covers(self, other: Match) -> bool:
        """Whether every packet that matches ``other`` matches this one too (the non-strict comparison of flow-mods)."""
        return not self.mask & ~other.mask and other.value & self.mask == self.value

    def overlaps(self, other: Match) -> bool:
        """Whether some packet may match both (OFPFF_CHECK_OVERLAP)."""
        return not (self.value ^ other.value) & self.mask & other.mask


MATCH_ALL = Match()
