"""Where megaflows lie in the hash table: places are unique, told when there are none, and found by the hash that C computes."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from appliance.datapath.index import Index, Place, hash_key, random_constants
from appliance.datapath.layout import BUCKET_WAYS, MAX_SUBTABLES
from appliance.model.fields import ETH_SRC, KEY_BYTES, KEY_MASK

KEYS = st.integers(0, KEY_MASK)


def test_constants_are_odd_and_new_each_time() -> None:
    first, second = random_constants(), random_constants()
    assert all(constant % 2 for constant in first)
    assert first != second


@given(KEYS)
def test_hash_is_the_sum_that_lookup_h_computes(key: int) -> None:
    constants = tuple(2 * n + 1 for n in range(16))
    raw = key.to_bytes(KEY_BYTES, "big")
    total = 0
    for n in range(16):
        word = struct.unpack_from("=Q", raw, 8 * n)[0]
        total = (total + (word ^ (word >> 32)) * constants[n]) % 2**64
    total = (total ^ (total >> 32)) * 0x9E3779B97F4A7C15 % 2**64
    assert hash_key(raw, tuple(enumerate(constants))) == total ^ (total >> 32)


def test_high_bits_of_two_words_do_not_cancel_out() -> None:
    """With a plain sum of products, two keys that differ in the top bit of two words always collide."""
    constants = random_constants()
    for flip in range(8):
        for other in range(flip):
            raw = bytearray(KEY_BYTES)
            raw[8 * flip + 7] ^= 0x80
            raw[8 * other + 7] ^= 0x80
            terms = tuple(enumerate(constants))
            assert hash_key(bytes(raw), terms) != hash_key(bytes(KEY_BYTES), terms)


def test_flows_that_count_up_find_their_places() -> None:
    """As many as there are slots, in a table with two ways for each: hardly one is refused, whatever the constants."""
    for _ in range(5):
        index = Index(256, random_constants())
        subtable = index.subtable(ETH_SRC.mask)
        assert subtable is not None
        refused = [n for n in range(1024) if index.take(subtable, ETH_SRC.put(0, n).to_bytes(KEY_BYTES, "big")) is None]
        assert len(refused) < 40


@given(st.lists(st.tuples(st.integers(1, 5), KEYS), unique=True, max_size=200))
def test_places_are_unique_and_released(keys: list[tuple[int, int]]) -> None:
    index = Index(16, random_constants())

    def take_all() -> dict[tuple[int, int], Place]:
        taken: dict[tuple[int, int], Place] = {}
        for without, key in keys:
            subtable = index.subtable(KEY_MASK ^ without)
            assert subtable is not None
            place = index.take(subtable, key.to_bytes(KEY_BYTES, "big"))
            if place is not None:
                assert place.subtable is subtable
                assert 0 <= place.bucket < 16
                assert 0 <= place.way < BUCKET_WAYS
                taken[without, key] = place
        return taken

    taken = take_all()
    ways = [(place.bucket, place.way) for place in taken.values()]
    tags = [(place.bucket, place.tag) for place in taken.values()]
    assert len(set(ways)) == len(ways)
    assert len(set(tags)) == len(tags)
    for place in taken.values():
        index.release(place)
    assert take_all() == taken


def test_a_way_that_is_free_again_is_taken() -> None:
    index = Index(1, random_constants())
    subtable = index.subtable(KEY_MASK)
    assert subtable is not None
    places = [index.take(subtable, key.to_bytes(KEY_BYTES, "big")) for key in range(BUCKET_WAYS)]
    assert [place.way for place in places if place] == list(range(BUCKET_WAYS))
    assert places[3] is not None
    index.release(places[3])
    again = index.take(subtable, (99).to_bytes(KEY_BYTES, "big"))
    assert again is not None
    assert again.way == 3


def test_a_full_bucket_and_too_many_masks_are_told() -> None:
    index = Index(1, random_constants())
    subtable = index.subtable(KEY_MASK)
    assert subtable is not None
    places = [index.take(subtable, key.to_bytes(KEY_BYTES, "big")) for key in range(BUCKET_WAYS + 1)]
    assert places.count(None) == 1
    for mask in range(2, MAX_SUBTABLES + 1):
        assert index.subtable(mask) is not None
    assert index.subtable(1000) is None
    assert len(set(index.order)) == MAX_SUBTABLES == len(index)
    index.arrange()
    assert index.order == [subtable.number], "the others are empty"
    assert index.subtable(1000) is not None


def test_subtables_that_find_most_come_first() -> None:
    index = Index(16, random_constants())
    tables = [index.subtable(mask) for mask in (1, 2, 4)]
    places = []
    for table in tables:
        assert table is not None
        place = index.take(table, bytes(KEY_BYTES))
        assert place is not None
        places.append(place)
    first, second, third = (place.subtable for place in places)
    third.hits, second.hits = 100, 10
    index.arrange()
    assert index.order == [third.number, second.number, first.number]
    index.arrange()
    assert index.order == [third.number, second.number, first.number], "as before, when nothing is found"
    first.hits += 20
    index.arrange()
    assert index.order == [third.number, first.number, second.number], "what was found before counts, but less and less"
    first.hits += 20
    index.arrange()
    assert index.order == [first.number, third.number, second.number]
    index.release(places[0])
    index.arrange()
    assert first.number not in index.order
    new = index.subtable(8)
    assert new is not None
    assert index.order[-1] == new.number
