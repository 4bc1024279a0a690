"""A match is two integers: a packet with flow key ``key`` matches when ``key & mask == value``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance.model.fields import Field


@dataclass(frozen=True, slots=True)
class MatchField:
    """One OXM as a controller sent it. ``value`` and ``mask`` are not shifted; ``mask`` is None for an OXM without a mask."""

    field: Field
    value: int
    mask: int | None = None


class MatchShape(NamedTuple):
    """What matches have in common that differ only in values: fields in their order, each with its mask as in MatchField."""

    masks: tuple[tuple[Field, int | None], ...]

    def fields(self, value: int) -> tuple[MatchField, ...]:
        """Those of the match of this shape that has this value."""
        return tuple([MatchField(field, field.get(value), mask) for field, mask in self.masks])


class Match:
    """The fields in the order in which they came (flow statistics return them so), and the two integers made of them. Constant.

    Two matches are equal when they match the same packets: the order of the fields does not count.
    """

    __slots__ = ("_fields", "mask", "value")

    def __init__(self, fields: tuple[MatchField, ...] | MatchShape = (), value: int = 0, mask: int = 0) -> None:
        """A shape in place of the fields takes no memory of its own: ``fields`` makes them when they are asked for."""
        self._fields: Final = fields
        self.value: Final = value
        self.mask: Final = mask

    def __repr__(self) -> str:
        return f"Match({self.fields!r}, {self.value:#x}, {self.mask:#x})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Match):
            return NotImplemented
        return self.value == other.value and self.mask == other.mask

    def __hash__(self) -> int:
        return hash((self.value, self.mask))

    @property
    def shape(self) -> MatchShape | None:
        return self._fields if isinstance(self._fields, MatchShape) else None

    @property
    def fields(self) -> tuple[MatchField, ...]:
        return self._fields.fields(self.value) if isinstance(self._fields, MatchShape) else self._fields

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
