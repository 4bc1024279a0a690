"""BPF maps by bpf(2).

Invariant: a map's file descriptor is ours alone, and the map goes with the last one.
Source: linux/bpf.h, ``union bpf_attr``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.datapath.bytecode import MapShape
from appliance.datapath.driver import DatapathError
from appliance.datapath.programs import bpf

ARRAY = 2
F_MMAPABLE = 1 << 10

_CREATE, _LOOK_UP, _UPDATE, _DELETE, _NEXT = range(5)
_NAME_BYTES = 15
_CREATION = struct.Struct("=IIIIIII16s")
_ENTRY = struct.Struct("=I4xQQQ")
_PER_CPU = {5, 6, 10, 21}
"""Hash, array, LRU hash, cgroup storage with a value for each CPU."""
_OF_MAPS = {12, 13}
_CPU_ALIGNMENT = 8


def create(name: str, shape: MapShape) -> int:
    """Make a map; its file descriptor. Raises DatapathError."""
    if shape.kind in _OF_MAPS:
        raise DatapathError(f"cannot make {name}: maps of maps are not supported")
    attribute = _CREATION.pack(
        shape.kind, shape.key_bytes, shape.value_bytes, shape.entries, shape.flags, 0, 0, name[:_NAME_BYTES].encode()
    )
    try:
        fd, _ = bpf(_CREATE, attribute)
    except OSError as error:
        size = shape.entries * (shape.key_bytes + shape.value_bytes)
        hint = "; take fewer megaflows (max_megaflows)" if error.errno in (errno.ENOMEM, errno.E2BIG) else ""
        raise DatapathError(f"cannot make {name}, {size:,} bytes: {os.strerror(error.errno or 0)}{hint}") from error
    return fd


@dataclass(frozen=True, slots=True)
class Map:
    """Keys and values have the map's sizes. ``cpus`` are those that the kernel may ever use."""

    name: str
    shape: MapShape
    fd: int
    cpus: int

    @property
    def value_bytes(self) -> int:
        """Of a look-up: in some kinds of maps one value for each CPU, each at a multiple of 8."""
        size = self.shape.value_bytes
        return -(-size // _CPU_ALIGNMENT) * _CPU_ALIGNMENT * self.cpus if self.shape.kind in _PER_CPU else size

    def update(self, key: bytes, value: bytes) -> None:
        """Write one entry. Raises DatapathError."""
        buffer = ctypes.create_string_buffer(value, len(value))
        try:
            self._call(_UPDATE, key, buffer)
        except OSError as error:
            raise DatapathError(f"cannot write {self.name}[{key.hex()}]: {error.strerror}") from error

    def delete(self, key: bytes) -> None:
        """Entries that are not there are passed over."""
        with_key = ctypes.create_string_buffer(key, len(key))
        try:
            bpf(_DELETE, _ENTRY.pack(self.fd, ctypes.addressof(with_key), 0, 0))
        except OSError:
            return

    def read(self, key: bytes) -> bytes:
        """One entry. Raises KeyError if it is not there."""
        value = ctypes.create_string_buffer(self.value_bytes)
        try:
            self._call(_LOOK_UP, key, value)
        except OSError as error:
            raise KeyError(f"{self.name}[{key.hex()}]: {error.strerror}") from error
        return value.raw

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Entries that come or go meanwhile may be told or not."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.shape.key_bytes)
        while True:
            try:
                self._call(_NEXT, key, following)
            except OSError:  # ENOENT: that was the last one
                return
            key = following.raw
            try:
                yield key, self.read(key)
            except KeyError:
                continue

    def _call(self, command: int, key: bytes | None, value: ctypes.Array[ctypes.c_char]) -> None:
        with_key = ctypes.create_string_buffer(key, len(key)) if key is not None else None
        bpf(command, _ENTRY.pack(self.fd, ctypes.addressof(with_key) if with_key is not None else 0, ctypes.addressof(value), 0))

    def close(self) -> None:
        os.close(self.fd)
