"""Matches by the thousand are of few shapes: what was learned of one is enough to read or write the next like it at once.

A match that has been read and found right becomes a *template*: which bits of its OXMs must be the same for all the rules about
OXMs to hold again (headers, masks, fields that others require, bits that must be 0), and where the bits lie that may differ. The
match of any bytes that fit is made by a few shifts, and shares everything but its value with the others. To write one whose shape
has been written before, the value is put in its places.

Invariant: bytes that fit a template are read as ``oxm.decode_oxms`` without templates would read them, and what is written is what
``oxm.encode_match`` without layouts would write.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from appliance.model.fields import MATCH_FIELDS, OFPXMC_EXPERIMENTER, VLAN_PRESENT, VLAN_VID
from appliance.model.match import Match, MatchField, MatchShape
from appliance.openflow.constants import MATCH_HEADER_BYTES, OXM_EXPERIMENTER_BYTES, OXM_HEADER_BYTES

_REQUIRED = frozenset(need.field for field in MATCH_FIELDS for need in field.prerequisites if need.values)
"""Fields whose value decides what other fields a match may have."""
_MAX_OF_ONE_LENGTH = 16
"""Templates; with one more all of that length are forgotten."""
_MAX_SHAPES = 256


class _Template(NamedTuple):
    fixed: int
    """The value of the bits in ``fixed_mask``; the OXMs count as one big-endian number."""
    fixed_mask: int
    moves: tuple[tuple[int, int, int], ...]
    """Bits that may differ: their place in the OXMs, the bits, their place in the flow key."""
    value: int
    """Of the match, without those."""
    shape: MatchShape
    mask: int

    @classmethod
    def of(cls, match: Match, oxms: int, length: int) -> _Template:
        fixed_mask = (1 << length * 8) - 1
        value = 0
        moves: list[tuple[int, int, int]] = []
        for item, place in _places(match, length * 8):
            field = item.field
            free = field.max if item.mask is None else item.mask
            if field.name in _REQUIRED:
                free = 0
            elif field is VLAN_VID:
                free = free & ~VLAN_PRESENT if item.value & VLAN_PRESENT else 0
            value |= (item.value & ~free) << field.shift
            if free:
                fixed_mask ^= free << place
                moves.append((place, free, field.shift))
        shape = MatchShape(tuple([(item.field, item.mask) for item in match.fields]))
        return cls(oxms & fixed_mask, fixed_mask, tuple(moves), value, shape, match.mask)


def _places(match: Match, end: int) -> Iterator[tuple[MatchField, int]]:
    """Each field of a match with the place of its value in the OXMs, which begin below bit ``end`` of a big-endian number."""
    for item in match.fields:
        header = OXM_HEADER_BYTES + (OXM_EXPERIMENTER_BYTES if item.field.oxm_class == OFPXMC_EXPERIMENTER else 0)
        value = item.field.oxm_length
        end -= 8 * (header + value)
        yield item, end
        if item.mask is not None:
            end -= 8 * value


class MatchTemplates:
    """Bounded, whatever matches come."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[_Template]] = {}

    def match(self, oxms: int, length: int) -> Match | None:
        """The match of OXMs of so many bytes; None if no template fits."""
        for fixed, fixed_mask, moves, value, shape, mask in self._by_length.get(length, ()):
            if oxms & fixed_mask == fixed:
                for place, bits, shift in moves:
                    value |= (oxms >> place & bits) << shift
                return Match(shape, value, mask)
        return None

    def learn(self, match: Match, oxms: int, length: int) -> None:
        """``match`` is what these OXMs, which fit no template, were read as."""
        bits = [item.field.mask for item in match.fields]
        if any(one & other for at, one in enumerate(bits) for other in bits[:at]):
            return  # fields that share bits (in_port and in_phy_port) must not contradict each other
        templates = self._by_length.setdefault(length, [])
        if len(templates) >= _MAX_OF_ONE_LENGTH:
            templates.clear()
        templates.insert(0, _Template.of(match, oxms, length))


class _Layout(NamedTuple):
    rest: int
    """The match without values, as one big-endian number."""
    moves: tuple[tuple[int, int, int], ...]
    """Of each value: its place in the flow key, its bits, its place in the match."""
    length: int


class MatchLayouts:
    """Bounded, whatever matches are written."""

    def __init__(self) -> None:
        self._by_shape: dict[MatchShape, _Layout] = {}
        self._last: tuple[MatchShape, _Layout] | None = None
        """Many of one shape come one behind the other."""

    def write(self, match: Match) -> bytes | None:
        """The ``ofp_match`` with its padding; None if none of its shape was learned."""
        shape = match.shape
        last = self._last
        if last is not None and last[0] is shape:
            number, moves, length = last[1]
        else:
            layout = None if shape is None else self._by_shape.get(shape)
            if shape is None or layout is None:
                return None
            self._last = shape, layout
            number, moves, length = layout
        value = match.value
        for shift, bits, place in moves:
            number |= (value >> shift & bits) << place
        return number.to_bytes(length, "big")

    def learn(self, match: Match, raw: bytes) -> None:
        """``raw`` is what ``match`` was written as."""
        if match.shape is None:
            return
        number = int.from_bytes(raw, "big")
        moves: list[tuple[int, int, int]] = []
        for item, place in _places(match, 8 * (len(raw) - MATCH_HEADER_BYTES)):
            number &= ~(item.field.max << place)
            moves.append((item.field.shift, item.field.max, place))
        if len(self._by_shape) >= _MAX_SHAPES:
            self._by_shape.clear()
        self._by_shape[match.shape] = _Layout(number, tuple(moves), len(raw))
