"""Matches by the thousand are of few shapes: what was learned of one is enough to read the next like it at once.

A match that has been read and found right becomes a *template*: which bits of its OXMs must be the same for all the rules about
OXMs to hold again (headers, masks, fields that others require, bits that must be 0), and where the bits lie that may differ. The
match of any bytes that fit is made by a few shifts, and shares everything but its value with the others.

Invariant: bytes that fit a template are read as ``oxm.decode_oxms`` without templates would read them.
"""

from __future__ import annotations

from typing import NamedTuple

from appliance.model.fields import MATCH_FIELDS, OFPXMC_EXPERIMENTER, VLAN_PRESENT, VLAN_VID
from appliance.model.match import Match, MatchShape
from appliance.openflow.constants import OXM_EXPERIMENTER_BYTES, OXM_HEADER_BYTES

_REQUIRED = frozenset(need.field for field in MATCH_FIELDS for need in field.prerequisites if need.values)
"""Fields whose value decides what other fields a match may have."""
_MAX_OF_ONE_LENGTH = 16
"""Templates; with one more all of that length are forgotten."""


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
        place = length * 8
        fixed_mask = value = 0
        moves: list[tuple[int, int, int]] = []
        for item in match.fields:
            field = item.field
            header_bits = 8 * OXM_HEADER_BYTES
            if field.oxm_class == OFPXMC_EXPERIMENTER:
                header_bits += 8 * OXM_EXPERIMENTER_BYTES
            place -= header_bits
            fixed_mask |= (1 << header_bits) - 1 << place
            value_bits = field.oxm_length * 8
            place -= value_bits
            free = field.max if item.mask is None else item.mask
            if field.name in _REQUIRED:
                free = 0
            elif field is VLAN_VID:
                free = free & ~VLAN_PRESENT if item.value & VLAN_PRESENT else 0
            fixed_mask |= ((1 << value_bits) - 1 & ~free) << place
            value |= (item.value & ~free) << field.shift
            if free:
                moves.append((place, free, field.shift))
            if item.mask is not None:
                place -= value_bits
                fixed_mask |= (1 << value_bits) - 1 << place
        shape = MatchShape(tuple([(item.field, item.mask) for item in match.fields]))
        return cls(oxms & fixed_mask, fixed_mask, tuple(moves), value, shape, match.mask)


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
