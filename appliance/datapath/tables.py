"""Direct tables: arrays that the fast path finds without a call or a test, because the kernel puts their address in its code.

Such a table is a BPF array of one value, as the kernel keeps a program's global data (BPF_PSEUDO_MAP_VALUE), and shared memory. BCC
knows no such maps, so they are made here before it compiles, and it gets their file descriptors as constants. Invariant: a table's
size here is the size there, or the kernel refuses the program.
Source: linux/bpf.h, BPF_MAP_CREATE.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from dataclasses import dataclass

from appliance.datapath.driver import DatapathError
from appliance.datapath.programs import bpf

_MAP_CREATE = 0
_ARRAY = 2
_MMAPABLE = 1 << 10
_KEY_BYTES = 4
_NAME_BYTES = 15
_ATTRIBUTE = struct.Struct("=IIIIIII16s")


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
        attribute = _ATTRIBUTE.pack(_ARRAY, _KEY_BYTES, size * entries, 1, _MMAPABLE, 0, 0, name[:_NAME_BYTES].encode())
        try:
            fd, _ = bpf(_MAP_CREATE, attribute)
        except OSError as error:
            hint = "; take fewer megaflows (max_megaflows)" if error.errno in (errno.ENOMEM, errno.E2BIG) else ""
            raise DatapathError(f"cannot make {name}, {size * entries:,} bytes: {os.strerror(error.errno or 0)}{hint}") from error
        return cls(name, size, entries, fd, mmap.mmap(fd, -(-size * entries // mmap.PAGESIZE) * mmap.PAGESIZE))

    def write(self, index: int, value: bytes) -> None:
        self.memory[index * self.size : (index + 1) * self.size] = value

    def close(self) -> None:
        os.close(self.fd)
