"""The reader of a BPF ring buffer, against a ring that is written as the kernel writes it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.datapath.ring_buffer import RingBuffer

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Writer:
    """The kernel's half: positions in a page each, then the data, twice (which the kernel does by mapping them twice)."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self._memory = mmap.mmap(self.fd, 2 * PAGE + 2 * SIZE)
        self.written = 0

    @property
    def read(self) -> int:
        return int(struct.unpack_from("=Q", self._memory, 0)[0])

    def put(self, data: bytes, flags: int = 0) -> int | None:
        """Where the record begins; None if there is no room."""
        whole = (len(data) + 8 + 7) & ~7
        if self.written + whole - self.read > SIZE:
            return None
        start = self.written
        for n, byte in enumerate(struct.pack("=II", len(data), 0) + data):
            self._byte(start + n, byte)
        self.mark(start, len(data) | flags)
        self.written += whole
        struct.pack_into("=Q", self._memory, PAGE, self.written)
        return start

    def mark(self, start: int, header: int) -> None:
        for n, byte in enumerate(struct.pack("=I", header)):
            self._byte(start + n, byte)

    def _byte(self, position: int, byte: int) -> None:
        for half in (0, SIZE):
            self._memory[2 * PAGE + half + position % SIZE] = byte


@pytest.fixture
def writer() -> Iterator[Writer]:
    made = Writer()
    yield made
    os.close(made.fd)


def take(ring: RingBuffer, limit: int = 1000) -> list[bytes]:
    taken = [ring.memory[at : at + length] for at, length in ring.take(limit)]
    ring.release()
    return taken


@given(st.lists(st.tuples(st.binary(max_size=700), st.sampled_from((0, 0, DISCARDED)), st.integers(0, 3)), max_size=60))
def test_records_come_out_once_in_order(puts: list[tuple[bytes, int, int]]) -> None:
    """However often it goes round, and whatever is taken at a time."""
    writer = Writer()
    ring = RingBuffer(writer.fd, SIZE)
    expected: list[bytes] = []
    taken: list[bytes] = []
    for data, flags, limit in puts:
        if writer.put(data, flags) is not None and not flags:
            expected.append(data)
        taken += take(ring, limit)
    taken += take(ring)
    assert taken == expected
    assert writer.read == writer.written, "all room is free again"
    os.close(writer.fd)


def test_one_that_is_being_written_holds_up_those_behind_it(writer: Writer) -> None:
    ring = RingBuffer(writer.fd, SIZE)
    writer.put(b"first")
    busy = writer.put(b"second", BUSY)
    writer.put(b"third")
    assert busy is not None
    assert take(ring) == [b"first"]
    assert take(ring) == []
    writer.mark(busy, len(b"second"))
    assert take(ring) == [b"second", b"third"]


def test_what_is_taken_stays_until_it_is_released(writer: Writer) -> None:
    ring = RingBuffer(writer.fd, SIZE)
    writer.put(bytes(2000))
    writer.put(bytes(2000))
    (at, length), _ = ring.take(10)
    assert writer.put(bytes(2000)) is None
    assert ring.memory[at : at + length] == bytes(2000)
    ring.release()
    assert writer.put(bytes(2000)) is not None


def test_a_new_reader_goes_on_where_the_last_one_stopped(writer: Writer) -> None:
    writer.put(b"old")
    assert take(RingBuffer(writer.fd, SIZE)) == [b"old"]
    writer.put(b"new")
    assert take(RingBuffer(writer.fd, SIZE)) == [b"new"]
