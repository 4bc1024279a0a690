"""Statistics of slots, read by chunks: what is in memory, whatever was there before."""

from __future__ import annotations

import mmap
import struct
import sys

from hypothesis import given
from hypothesis import strategies as st

from appliance.datapath.slot_statistics import NOTHING, SlotStatistics
from appliance.model.fields import BY_NAME, KEY_BYTES

CPUS = 3
SLOTS = 150
"""Not a whole number of chunks."""


def word_with(tcp_flags: int) -> int:
    """Word 11 of a flow key, as eBPF has it in a register."""
    raw = BY_NAME["tcp_flags"].put(0, tcp_flags).to_bytes(KEY_BYTES, "big")
    return int.from_bytes(raw[88:96], sys.byteorder)


def put(memory: mmap.mmap, cpu: int, slot: int, *counters: int) -> None:
    struct.pack_into("=4Q", memory, 32 * (slot + cpu * SLOTS), *counters)


COUNTED = st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 62), st.integers(0, 0x1FF))
CHANGES = st.lists(st.tuples(st.integers(0, CPUS - 1), st.integers(0, SLOTS - 1), COUNTED), max_size=20)


@given(st.lists(CHANGES, max_size=4))
def test_sums_are_over_all_cpus(rounds: list[list[tuple[int, int, tuple[int, int, int, int]]]]) -> None:
    memory = mmap.mmap(-1, SLOTS * CPUS * 32)
    statistics = SlotStatistics(memory, SLOTS, CPUS)
    expected: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    for changes in rounds:
        for cpu, slot, (packets, octets, last_used, flags) in changes:
            expected[cpu, slot] = packets, octets, last_used, flags
            put(memory, cpu, slot, packets, octets, last_used, word_with(flags))
        statistics.look()
        for slot in range(SLOTS):
            counted = [expected.get((cpu, slot), NOTHING) for cpu in range(CPUS)]
            packets, octets, last_used, flags = statistics.read(slot)
            assert (packets, octets) == (sum(item[0] for item in counted), sum(item[1] for item in counted))
            assert last_used == max(item[2] for item in counted)
            assert flags == counted[0][3] | counted[1][3] | counted[2][3]
            assert statistics.read_one(slot) == statistics.read(slot)


def test_what_has_not_changed_is_the_same_object() -> None:
    memory = mmap.mmap(-1, SLOTS * CPUS * 32)
    statistics = SlotStatistics(memory, SLOTS, CPUS)
    put(memory, 1, 70, 5, 500, 9, 0)
    first = statistics.read(70)
    assert first == (5, 500, 9, 0)
    put(memory, 2, 70, 1, 100, 3, 0)
    assert statistics.read(70) is first, "not looked at since"
    statistics.look()
    changed = statistics.read(70)
    assert changed == (6, 600, 9, 0)
    put(memory, 0, 3, 1, 1, 1, 1)
    statistics.look()
    assert statistics.read(70) is changed, "what changed is far away"


def test_a_slot_begins_anew() -> None:
    memory = mmap.mmap(-1, SLOTS * CPUS * 32)
    statistics = SlotStatistics(memory, SLOTS, CPUS)
    for cpu in range(CPUS):
        put(memory, cpu, 149, 1, 1, 1, word_with(2))
        put(memory, cpu, 148, 1, 1, 1, word_with(2))
    assert statistics.read(149) == (3, 3, 1, 2)
    statistics.clear(149)
    assert statistics.read(149) == NOTHING
    assert statistics.read(148) == (3, 3, 1, 2)


def test_a_few_slots_far_apart_are_read_one_by_one() -> None:
    statistics = SlotStatistics(mmap.mmap(-1, SLOTS * CPUS * 32), SLOTS, CPUS)
    assert statistics.reader([1, 70, 149]) == statistics.read_one
    assert statistics.reader(range(SLOTS)) == statistics.read
