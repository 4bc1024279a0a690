"""Why a key is none of many values: the fewest bits of it, in the order of the headers, that show it.

A sorted list serves as a trie. The values that share the longest prefix with a number are its neighbours in the list, so one
bisection finds the first bit at which no value goes on as the key does. The bits are put in *stages* for that (what costs a
megaflow nothing, what tells kinds of packets apart, layer 2, layer 3, layer 4), as Open vSwitch's staged look-up does: a key that
leaves all values in one stage does not depend on the later ones. Within addresses and ports, where rules are prefixes or ranges,
the answer is to the bit (prefix tracking); of others it is the whole field, lest there be a megaflow mask for each of its bits.

Invariant: any key that agrees with this one in ``bits(key)`` is none of the values either, and gets the same bits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

from appliance.model.fields import BY_NAME, ETH_TYPE, IN_PORT, IP_PROTO, KEY_MASK, METADATA, VLAN_TCI

KINDS = METADATA.mask | IN_PORT.mask | ETH_TYPE.mask | VLAN_TCI.mask | IP_PROTO.mask
"""Fields that tell kinds of packets apart: few values, and most rules have them."""

_BY_PREFIX = ("ipv6_dst", "ipv6_src", "tcp_dst", "tcp_src")
"""Those of IPv4 and ARP, and of the other transports, lie in the same bits."""
_FIRST = ("metadata", "in_port", "eth_type", "vlan_tci", "ip_proto")
_LAYER_2 = ("tunnel_id", "tun_src", "tun_dst", "eth_dst", "eth_src", "inner_vlan_tci", "layers")
_LAYER_3 = ("ip_dscp", "ip_ecn", "ip_ttl", "ip_frag", "ipv6_flabel", "ipv6_exthdr", "arp_sha", "arp_tha", "ipv6_nd_target")


def _stages() -> tuple[tuple[int, bool], ...]:
    """Bits of the key, and whether an answer may take the upper ones of them alone. All bits, in their order."""
    fields = [(BY_NAME[name].mask, name in _BY_PREFIX) for name in (*_FIRST, *_LAYER_2, *_LAYER_3, *_BY_PREFIX)]
    rest = KEY_MASK
    for bits, _ in fields:
        rest &= ~bits
    return (*fields, (rest, False))


_STAGES = _stages()
_MANY = 64
"""So many new values are sorted together with the old ones rather than put among them one by one."""


class _Part(NamedTuple):
    """Some bits of the key and their place in the number that is sorted by: ``base`` from its bottom, without gaps below."""

    bits: int
    shift: int
    width: int
    base: int
    by_prefix: bool


def _parts(mask: int, first: int) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    base = 0
    for chosen in (mask & ~first, mask & first):
        for stage, by_prefix in reversed(_STAGES):
            bits = chosen & stage
            if bits:
                shift = (bits & -bits).bit_length() - 1
                width = bits.bit_length() - shift
                parts.append(_Part(bits, shift, width, base, by_prefix))
                base += width
    return tuple(reversed(parts))


def fields_of(mask: int) -> tuple[int, ...]:
    """The bits of each field in a mask, in the order of the stages."""
    return tuple(mask & stage for stage, _ in _STAGES if mask & stage)


class StagedIndex:
    """Of values that are different, have no bit outside ``mask``, and are at least one. The fields in ``first`` stand before all
    stages."""

    __slots__ = ("_answers", "_new", "_only", "_parts", "_sorted")

    def __init__(self, mask: int, first: int, values: Iterable[int]) -> None:
        self._parts = _parts(mask, first)
        self._only = self._parts[0] if len(self._parts) == 1 else None
        self._sorted = sorted(self._numbers(list(values)))
        self._new: dict[int, None] = {}
        """Not in ``_sorted`` yet."""
        self._answers: dict[int, int] = {}
        """By the place of the first bit that differs."""

    def add(self, value: int) -> None:
        self._new[self._number(value)] = None

    def discard(self, value: int) -> None:
        """It must be there."""
        number = self._number(value)
        if number in self._new:
            del self._new[number]
        else:
            del self._sorted[bisect_left(self._sorted, number)]

    def bits(self, key: int) -> int | None:
        """See the module. None if the key is one of the values."""
        if self._new:
            self._sort()
        if self._only is None:
            number = self._number(key)
        else:
            bits, shift, _, _, _ = self._only
            number = (key & bits) >> shift
        values = self._sorted
        at = bisect_left(values, number)
        if at == len(values):
            differs = number ^ values[-1]
        else:
            differs = number ^ values[at]
            if not differs:
                return None
            if at:
                before = number ^ values[at - 1]
                if before < differs:
                    differs = before
        place = differs.bit_length() - 1
        answer = self._answers.get(place)
        if answer is None:
            answer = self._answers[place] = self._down_to(place)
        return answer

    def _number(self, value: int) -> int:
        number = 0
        for bits, shift, width, _, _ in self._parts:
            number = number << width | (value & bits) >> shift
        return number

    def _numbers(self, values: list[int]) -> list[int]:
        numbers = [0] * len(values)
        for bits, shift, width, _, _ in self._parts:
            numbers = [number << width | (value & bits) >> shift for number, value in zip(numbers, values, strict=True)]
        return numbers

    def _sort(self) -> None:
        if len(self._new) > _MANY:
            self._sorted += self._new
            self._sorted.sort()
        else:
            for number in self._new:
                insort(self._sorted, number)
        self._new.clear()

    def _down_to(self, place: int) -> int:
        """The bits of the key from the first part's to the one at this place of the number."""
        answer = 0
        for bits, shift, _, base, by_prefix in self._parts:
            if base <= place:
                return answer | (bits & -1 << place - base + shift if by_prefix else bits)
            answer |= bits
        raise AssertionError("the number has no bit below the last part")
