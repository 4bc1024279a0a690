"""Where megaflows lie in the fast path's hash table: the Python half of ``bpf_prog/lookup.h``.

A megaflow is found by the hash of its masked key: low bits choose one of the buckets, high bits are a tag beside its slot number.
Invariant: no two megaflows in one bucket have the same tag, because eBPF compares one megaflow a bucket and subtable. A place that
cannot be had is told, never taken: that megaflow is not installed, and its packets stay in the slow path.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from appliance.datapath.layout import BUCKET_WAYS, KEY_WORDS, MAX_SUBTABLES, words

_WORDS = struct.Struct(f"={KEY_WORDS}Q")
_64_BITS = (1 << 64) - 1
_32_BITS = (1 << 32) - 1
_ALL_WAYS = (1 << BUCKET_WAYS) - 1
_HASH_FINAL = 0x9E3779B97F4A7C15
_new = tuple.__new__


def random_constants() -> tuple[int, ...]:
    """One odd constant for each word of the key, new at each start, so that nobody can make keys that collide."""
    return tuple(secrets.randbits(64) | 1 for _ in range(KEY_WORDS))


def hash_key(raw: bytes, terms: Iterable[tuple[int, int]]) -> int:
    """``hash_masked`` of lookup.h: the 64-bit hash of a masked key's 128 bytes.

    ``terms`` are numbers and constants of the words in which the mask has bits: all others add nothing.
    """
    words = _WORDS.unpack(raw)
    total = 0
    for number, constant in terms:
        word = words[number]
        total += (word ^ word >> 32) * constant
    total &= _64_BITS
    total = (total ^ total >> 32) * _HASH_FINAL & _64_BITS
    return total ^ total >> 32


@dataclass(slots=True)
class Subtable:
    """One mask. ``number`` is its place in the fast path's table of subtables."""

    number: int
    mask: int
    terms: tuple[tuple[int, int], ...]
    """See ``hash_key``."""
    is_wide: bool
    """Whether the mask has bits in others than the common words (``layout.words``)."""
    megaflows: int = 0
    hits: int = 0
    """Packets that it found a megaflow for, the older ones counting less: for the caller to add to."""
    plans: dict[int, Any] = field(default_factory=dict)
    """What the caller has worked out for megaflows with this mask."""


class Place(NamedTuple):
    subtable: Subtable
    bucket: int
    way: int
    tag: int


@dataclass(slots=True)
class Index:
    """Subtables and buckets, as the fast path sees them. Changes nothing there: its caller writes what changed."""

    buckets: int
    constants: tuple[int, ...]
    _ways: dict[int, int] = field(default_factory=dict)
    """Those in use, as bits, by bucket."""
    _tags: set[int] = field(default_factory=set)
    """Those in use, each behind the number of its bucket."""
    _subtables: dict[int, Subtable] = field(default_factory=dict)
    _last: Subtable | None = None
    """Asked for last."""
    _free_numbers: list[int] = field(default_factory=lambda: list(range(MAX_SUBTABLES - 1, -1, -1)))

    @property
    def order(self) -> list[int]:
        """Numbers of the subtables, in the order in which they are to be probed."""
        return [subtable.number for subtable in self._subtables.values()]

    def __len__(self) -> int:
        return len(self._subtables)

    def subtable(self, mask: int) -> Subtable | None:
        """The subtable for a mask, made, and the last in order, if there is none; None if there are too many masks."""
        last = self._last
        if last is not None and last.mask == mask:
            return last  # quicker than to hash the mask
        self._last = subtable = self._subtables.get(mask)
        if subtable is None and self._free_numbers:
            raw = mask.to_bytes(_WORDS.size, "big")
            terms = tuple((number, self.constants[number]) for number, word in enumerate(_WORDS.unpack(raw)) if word)
            subtable = self._subtables[mask] = Subtable(self._free_numbers.pop(), mask, terms, any(words(raw)[1]))
        return subtable

    def arrange(self) -> None:
        """Put the subtables that find most in front, and forget those that have no megaflows any more."""
        self._free_numbers += [subtable.number for subtable in self._subtables.values() if not subtable.megaflows]
        kept = [subtable for subtable in self._subtables.values() if subtable.megaflows]
        kept.sort(key=lambda subtable: -subtable.hits)
        self._subtables = {subtable.mask: subtable for subtable in kept}
        self._last = None
        for subtable in kept:
            subtable.hits //= 2

    def take(self, subtable: Subtable, raw_key: bytes) -> Place | None:
        """A way for the megaflow with this masked key; None if its bucket is full or has its tag already."""
        key_hash = hash_key(raw_key, subtable.terms)
        bucket = ((key_hash & _32_BITS) + subtable.number & _32_BITS) & (self.buckets - 1)
        tag = key_hash >> 32 | 1
        ways = self._ways
        used = ways.get(bucket, 0)
        tagged = bucket << 32 | tag
        if used == _ALL_WAYS or tagged in self._tags:
            return None
        free = ~used & used + 1
        ways[bucket] = used | free
        self._tags.add(tagged)
        subtable.megaflows += 1
        return _new(Place, (subtable, bucket, free.bit_length() - 1, tag))

    def release(self, place: Place) -> None:
        """Frees the way."""
        left = self._ways[place.bucket] & ~(1 << place.way)
        if left:
            self._ways[place.bucket] = left
        else:
            del self._ways[place.bucket]
        self._tags.remove(place.bucket << 32 | place.tag)
        place.subtable.megaflows -= 1
