"""A BPF ring buffer, read through shared memory (linux/kernel/bpf/ringbuf.c): no call into C for a record.

The kernel shows how far the ring has been written and Python how far it has been read, both as ever growing positions; a record
begins with a word that has its length and whether it is still being written. Invariant: a record is handed out once, whole, and
in order.
"""

from __future__ import annotations

import mmap

from appliance.datapath.quiesce import IN_ORDER, keep_order

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_LENGTH = _DISCARDED - 1
_HEADER_BYTES = 8
_PAGE = mmap.PAGESIZE


class RingBuffer:
    """``size`` is that of its data: a power of two."""

    def __init__(self, fd: int, size: int) -> None:
        self._read = memoryview(mmap.mmap(fd, _PAGE)).cast("Q")
        # The data are there twice, one behind the other, so that no record is in two pieces.
        self.memory = mmap.mmap(fd, _PAGE + 2 * size, prot=mmap.PROT_READ, offset=_PAGE)
        self._written = memoryview(self.memory)[:_PAGE].cast("Q")
        self._headers = memoryview(self.memory)[_PAGE:].cast("I")
        self._mask = size - 1
        self._taken = self._read[0]

    def take(self, limit: int) -> list[tuple[int, int]]:
        """The next records, at most ``limit``: where each is in ``memory``, and its bytes. They are there until ``release``."""
        at, end = self._taken, self._written[0]
        headers, mask = self._headers, self._mask
        found: list[tuple[int, int]] = []
        while at < end and len(found) < limit:
            offset = at & mask
            header = headers[offset >> 2]
            if header & _BUSY:
                break
            length = header & _LENGTH
            if not header & _DISCARDED:
                found.append((_PAGE + offset + _HEADER_BYTES, length))
            at += (length + _HEADER_BYTES + 7) & ~7
        self._taken = at
        if not IN_ORDER:
            keep_order()
        return found

    def release(self) -> None:
        """What was taken has been read."""
        if not IN_ORDER:
            keep_order()
        self._read[0] = self._taken
