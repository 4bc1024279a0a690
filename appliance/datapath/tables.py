"""Direct tables: arrays that the fast path finds without a call or a test, because the kernel puts their address in its code.

Such a table is a BPF array of one value, as the kernel keeps a program's global data (BPF_PSEUDO_MAP_VALUE), and shared memory. BCC
knows no such maps, so the code has their numbers in place of file descriptors. Invariant: a table's size here is the size there, or
the kernel refuses the program.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass

from appliance.datapath.bytecode import MapShape
from appliance.datapath.maps import ARRAY, F_MMAPABLE, create

_KEY_BYTES = 4


@dataclass(slots=True)
class DirectTable:
    """``entries`` of ``size`` bytes each."""

    name: str
    size: int
    entries: int
    fd: int
    memory: mmap.mmap

    @classmethod
    def of(cls, name: str, kind: type[ctypes.Structure], entries: int) -> DirectTable:
        """Raises DatapathError."""
        size = ctypes.sizeof(kind)
        fd = create(name, MapShape(ARRAY, _KEY_BYTES, size * entries, 1, F_MMAPABLE))
        return cls(name, size, entries, fd, mmap.mmap(fd, -(-size * entries // mmap.PAGESIZE) * mmap.PAGESIZE))

    def write(self, index: int, value: bytes) -> None:
        self.memory[index * self.size : (index + 1) * self.size] = value

    def close(self) -> None:
        os.close(self.fd)
