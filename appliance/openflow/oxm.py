"""OXM: match fields on the wire (specification 1.3.5, section 7.2.3), some of Open vSwitch's own among them. All of it is read from
``model.fields``.

Invariant: a Match that comes out of here holds every rule that its bytes can be judged by (prerequisites, duplicates, masks), so
that its two integers say the same as its fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from appliance.model.fields import BY_OXM, MATCH_FIELDS, OFPXMC_EXPERIMENTER, PLUGIN_BITS, VLAN_PRESENT, VLAN_VID, Field
from appliance.model.match import Match, MatchField
from appliance.model.plugin import EXPERIMENTER_ID
from appliance.openflow.constants import MATCH_HEADER_BYTES, OXM_EXPERIMENTER_BYTES, OXM_HEADER_BYTES
from appliance.openflow.errors import BadMatch, ErrorType, ProtocolError
from appliance.openflow.match_templates import MatchLayouts, MatchTemplates
from appliance.openflow.wire import TYPE_LENGTH, pad

OFPMT_OXM = 1

_HEADER = Struct("!I")


class Oxm(NamedTuple):
    """What an OXM header announces. ``length`` is that of the value, in bytes; a mask is as long again."""

    field: Field
    has_mask: bool
    length: int
    max: int
    shift: int


def oxm_id(field: Field, has_mask: bool = False) -> int:
    """The 32-bit OXM header of a field. ValueError for one that cannot be matched."""
    if field.oxm < 0:
        raise ValueError(f"{field.name} cannot be matched")
    length = field.oxm_length * 2 if has_mask else field.oxm_length
    return field.oxm_class << 16 | field.oxm << 9 | has_mask << 8 | length


def _oxms() -> Iterator[tuple[int, Oxm]]:
    for field in MATCH_FIELDS:
        for has_mask in (False, True) if field.maskable else (False,):
            yield oxm_id(field, has_mask), Oxm(field, has_mask, field.oxm_length, field.max, field.shift)


PLUGIN_OXMS: dict[int, Oxm] = {
    OFPXMC_EXPERIMENTER << 16 | has_mask << 8 | OXM_EXPERIMENTER_BYTES + PLUGIN_BITS.oxm_length * (1 + has_mask): Oxm(
        PLUGIN_BITS, has_mask, PLUGIN_BITS.oxm_length, PLUGIN_BITS.max, PLUGIN_BITS.shift
    )
    for has_mask in (False, True)
}
"""Headers of the only experimenter's field that there is; the experimenter's id comes behind them (section 7.2.3.3)."""
BY_HEADER: dict[int, Oxm] = dict(_oxms())
"""Every OXM header that is right, so that reading one is a look-up; what is not here is wrong, and ``_wrong_header`` says how."""

_HEADER_BYTES: dict[tuple[int, int, bool], bytes] = {
    (oxm.field.oxm_class, oxm.field.oxm, oxm.has_mask): _HEADER.pack(header) for header, oxm in BY_HEADER.items()
} | {
    (OFPXMC_EXPERIMENTER, oxm.field.oxm, oxm.has_mask): _HEADER.pack(header) + _HEADER.pack(EXPERIMENTER_ID)
    for header, oxm in PLUGIN_OXMS.items()
}
"""By class, number, and whether there is a mask; an experimenter's with its id."""

_TEMPLATES = MatchTemplates()
_LAYOUTS = MatchLayouts()


def _bad_match(code: BadMatch, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_MATCH, code, reason)


def _wrong_header(header: int) -> ProtocolError:
    """What is wrong with an OXM header that is not in BY_HEADER."""
    field = BY_OXM.get((header >> 16, header >> 9 & 0x7F))
    if field is None:
        return _bad_match(BadMatch.BAD_FIELD, f"OXM {header:#010x} is not a field that can be matched")
    has_mask = bool(header >> 8 & 1)
    if header & 0xFF != field.oxm_length << has_mask:
        return _bad_match(BadMatch.BAD_LEN, f"{field.name} of {header & 0xFF} bytes")
    return _bad_match(BadMatch.BAD_MASK, f"{field.name} cannot be masked")


def _experimenter_oxm(header: int, experimenter: bytes) -> Oxm:
    """What the header of an OXM announces that is not in BY_HEADER: with our experimenter's id behind it, plug-ins' bits.

    ``length`` is then that of the value alone. Raises BAD_MATCH.
    """
    if header >> 16 != OFPXMC_EXPERIMENTER or int.from_bytes(experimenter, "big") != EXPERIMENTER_ID or header >> 9 & 0x7F:
        raise _wrong_header(header)
    oxm = PLUGIN_OXMS.get(header)
    if oxm is None:
        raise _bad_match(BadMatch.BAD_LEN, f"{PLUGIN_BITS.name} of {header & 0xFF} bytes")
    return oxm


def _check_mask(field: Field, value: int, mask: int) -> None:
    if mask > field.max:
        raise _bad_match(BadMatch.BAD_MASK, f"{field.name} has {field.bits} bits: mask {mask:#x}")
    if value & ~mask:
        raise _bad_match(BadMatch.BAD_WILDCARDS, f"{field.name} has bits of {value:#x} outside the mask {mask:#x}")


def _check_vlan_vid(value: int, mask: int) -> None:
    """A VLAN number needs OFPVID_PRESENT, unless the mask leaves that bit out (section 7.2.3.8, table 13)."""
    if mask & VLAN_PRESENT and value and not value & VLAN_PRESENT:
        raise _bad_match(BadMatch.BAD_VALUE, f"vlan_vid {value:#x} without OFPVID_PRESENT")


def _check_prerequisites(field: Field, seen: dict[str, int]) -> None:
    """They must come before the field that needs them (section 7.2.3.6)."""
    for need in field.prerequisites:
        value = seen.get(need.field)
        if value is None:
            raise _bad_match(BadMatch.BAD_PREREQ, f"{field.name} needs {need.field} before it")
        if need.values:
            if value not in need.values:
                raise _bad_match(BadMatch.BAD_PREREQ, f"{field.name} does not go with {need.field}={value:#x}")
        elif need.field == VLAN_VID.name and not value & VLAN_PRESENT:
            raise _bad_match(BadMatch.BAD_PREREQ, f"{field.name} needs a VLAN tag")


def decode_oxms(data: bytes, position: int, end: int, templates: MatchTemplates = _TEMPLATES) -> Match:
    """The match of the OXMs between two positions. Raises BAD_MATCH with the code that fits."""
    oxms, length = int.from_bytes(data[position:end], "big"), end - position
    match = templates.match(oxms, length)
    if match is None:
        match = _decode_oxms(data, position, end)
        templates.learn(match, oxms, length)
    return match


def _decode_oxms(data: bytes, position: int, end: int) -> Match:
    fields: list[MatchField] = []
    seen: dict[str, int] = {}
    match_value = match_mask = 0
    while position < end:
        start = position + OXM_HEADER_BYTES
        if start > end:
            raise _bad_match(BadMatch.BAD_LEN, "the match ends inside an OXM header")
        header = int.from_bytes(data[position:start], "big")
        oxm = BY_HEADER.get(header)
        if oxm is None:
            oxm = _experimenter_oxm(header, data[start : min(start + OXM_EXPERIMENTER_BYTES, end)])
            start += OXM_EXPERIMENTER_BYTES
        field, has_mask, length, maximum, shift = oxm
        position = start + length
        value = int.from_bytes(data[start:position], "big")
        if has_mask:
            position += length
            mask = int.from_bytes(data[position - length : position], "big")
        else:
            mask = maximum
        if position > end:
            raise _bad_match(BadMatch.BAD_LEN, f"the match ends inside {field.name}")
        if value > maximum:
            raise _bad_match(BadMatch.BAD_VALUE, f"{field.name} has {field.bits} bits: value {value:#x}")
        if has_mask:
            _check_mask(field, value, mask)
        if field is VLAN_VID:
            _check_vlan_vid(value, mask)
        if field.name in seen:
            raise _bad_match(BadMatch.DUP_FIELD, f"{field.name} twice")
        value_in_key = value << shift
        mask_in_key = mask << shift
        if field.prerequisites:
            _check_prerequisites(field, seen)
            if (match_value ^ value_in_key) & match_mask & mask_in_key:
                # Only in_port and in_phy_port can be in one match and share bits: this switch's ports are their own physical ports.
                raise _bad_match(BadMatch.BAD_VALUE, f"{field.name} contradicts {field.prerequisites[0].field}")
        seen[field.name] = value
        fields.append(MatchField(field, value, mask if has_mask else None))
        match_value |= value_in_key
        match_mask |= mask_in_key
    return Match(tuple(fields), match_value, match_mask)


def decode_match(data: bytes, offset: int = 0, end: int | None = None) -> tuple[Match, int]:
    """The ``ofp_match`` at ``offset`` of ``data[:end]``, and its length in bytes with padding."""
    if end is None:
        end = len(data)
    begin = offset + MATCH_HEADER_BYTES
    if begin > end:
        raise _bad_match(BadMatch.BAD_LEN, "no room for a match")
    kind, length = TYPE_LENGTH.unpack_from(data, offset)
    if kind != OFPMT_OXM:
        raise _bad_match(BadMatch.BAD_TYPE, f"match type {kind}")
    padded = length + (-length & 7)
    if length < MATCH_HEADER_BYTES or offset + padded > end:
        raise _bad_match(BadMatch.BAD_LEN, f"match of {length} bytes")
    stop = offset + length
    match = _TEMPLATES.match(int.from_bytes(data[begin:stop], "big"), length - MATCH_HEADER_BYTES)
    return match or decode_oxms(data, begin, stop), padded


def encode_oxm(field: Field, value: int, mask: int | None = None) -> bytes:
    """One OXM. ValueError for a field that cannot be matched; OverflowError for a value that is too wide."""
    header = _HEADER_BYTES.get((field.oxm_class, field.oxm, mask is not None))
    if header is None:
        raise ValueError(f"{field.name} cannot be matched{' with a mask' if mask is not None else ''}")
    raw = header + value.to_bytes(field.oxm_length, "big")
    return raw if mask is None else raw + mask.to_bytes(field.oxm_length, "big")


def encode_match(match: Match) -> bytes:
    """The ``ofp_match`` with its padding: the fields in their order. ValueError if the match was made without fields."""
    raw = _LAYOUTS.write(match)
    if raw is None:
        raw = _encode_match(match)
        _LAYOUTS.learn(match, raw)
    return raw


def _encode_match(match: Match) -> bytes:
    if match.mask and not match.fields:
        raise ValueError("a match made of integers alone cannot be encoded: its fields are not known")
    oxms = b"".join([encode_oxm(item.field, item.value, item.mask) for item in match.fields])
    length = MATCH_HEADER_BYTES + len(oxms)
    return TYPE_LENGTH.pack(OFPMT_OXM, length) + oxms + bytes(pad(length))
