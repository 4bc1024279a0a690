"""``bpf_prog/`` in the kernel: its maps made, its programs linked with them and loaded.

Invariant: a program that does not compile or that the kernel refuses raises DatapathError with the compiler's or the verifier's own
last lines, and leaves nothing open; nothing is printed.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from appliance.datapath.build import amalgamate, build
from appliance.datapath.driver import DatapathError
from appliance.datapath.layout import (
    CACHE_WAYS,
    MAX_SUBTABLES,
    PORT_PLACES,
    Bucket,
    CacheSet,
    Ingress,
    Megaflow,
    MegaflowBody,
    MegaflowStats,
    Port,
    PortCounters,
    ProgramIndex,
    Repeated,
    Subtable,
    SubtableOrder,
)
from appliance.datapath.maps import Map, create
from appliance.datapath.programs import BPF_F_XDP_HAS_FRAGS, SCHED_CLS, XDP, call, load_verified
from appliance.datapath.ring_buffer import RingBuffer
from appliance.datapath.tables import DirectTable

TC_PROGRAM = "ofswitch_tc"
XDP_PROGRAM = "ofswitch_xdp"
INJECT_PROGRAM = "ofswitch_inject"
"""At the egress of tunnel devices."""
TAKE_PROGRAM = "ofswitch_take"
APART_PROGRAM = "ofswitch_apart"
CLOCK_PROGRAM = "ofswitch_clock"
_TC_CALLED = {
    ProgramIndex.HANDLE: "ofswitch_tc_on",
    ProgramIndex.METER: "ofswitch_meter",
    ProgramIndex.EXECUTE: "ofswitch_tc_go",
    ProgramIndex.FLOOD: "ofswitch_flood",
    ProgramIndex.DROP: "ofswitch_drop",
    ProgramIndex.EDIT: "ofswitch_edit",
    ProgramIndex.TUNNEL: "ofswitch_tunnel",
    ProgramIndex.COPY: "ofswitch_copy",
    ProgramIndex.AGAIN: "ofswitch_again",
}
_XDP_CALLED = {ProgramIndex.HANDLE: "ofswitch_xdp_on", ProgramIndex.EXECUTE: "ofswitch_xdp_go"}

_SMALL_IFINDEX = 65536
_ETHERNET_BYTES = 14
_REACHED_BYTES = 1 << 29
"""What eBPF reaches of a direct table: BPF_MAX_VAR_OFF."""


def placeholder_constants(count: int) -> list[int]:
    """In the place of the hash's constants when it is compiled: like them odd and without a pattern, so that the compiler must load
    all of their 64 bits as they are."""
    digests = (hashlib.sha256(f"HASH_{number}".encode()).digest() for number in range(count))
    return [int.from_bytes(digest[:8], "big") | 1 << 63 | 1 for digest in digests]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the maps are. Powers of two, all but ``cpus`` and ``upcall_pages``."""

    megaflows: int = 65536
    upcall_pages: int = 2048
    cpus: int = field(default_factory=lambda: possible_cpus())

    @classmethod
    def for_megaflows(cls, wanted: int) -> Sizes:
        """Room for so many: the next power of two, or fewer where eBPF does not reach so many, which takes hundreds of CPUs."""
        sizes = cls(1 << (wanted - 1).bit_length())
        while any(entries * ctypes.sizeof(kind) > _REACHED_BYTES for _, kind, entries in _direct_tables(sizes)):
            sizes = replace(sizes, megaflows=sizes.megaflows // 2)
        return sizes

    @property
    def buckets(self) -> int:
        """Ways for four times as many megaflows as there are slots: of a full table one in 7,000 finds its bucket full."""
        return max(self.megaflows // 2, 1)

    @property
    def cache_sets(self) -> int:
        """Two ways for each megaflow, on each CPU: 16 bytes."""
        return max(2 * self.megaflows // CACHE_WAYS, 1)

    @property
    def small_ifindex(self) -> int:
        return _SMALL_IFINDEX


def possible_cpus() -> int:
    """One more than the highest CPU number that the kernel may ever use."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(re.split(r"[-,]", text)[-1]) + 1


class Module:
    """A source of its own, compiled, with maps of its own: a plug-in. What becomes of its programs is for ``datapath.plugins``."""

    def __init__(self, name: str, files: Sequence[str], defines: Iterable[str], others: Mapping[str, int]) -> None:
        """``files``: see ``amalgamate``. ``others`` are file descriptors to be taken in the place of its own maps of these names.
        Raises DatapathError.
        """
        try:
            text = amalgamate(*files)
        except OSError as error:
            raise DatapathError(f"cannot read {error.filename}: {error.strerror}") from error
        self._code = build(name, text, tuple(defines))
        self._others = others
        self._maps: dict[str, Map] = {}
        cpus = possible_cpus()
        try:
            for table, shape in self._code.maps.items():
                if table not in others:
                    self._maps[table] = Map(table, shape, create(table, shape), cpus)
        except DatapathError:
            self.close()
            raise

    def instructions(self, function: str) -> bytes:
        """Of one program."""
        return self._code.programs[function].linked({**self._others, **{name: table.fd for name, table in self._maps.items()}})

    def read_on_cpus(self, table: str, key: int) -> int:
        """The sum of one 64-bit number over the CPUs. The key is there."""
        return sum(memoryview(self._maps[table].read(_raw(key))).cast("Q"))

    def items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """See ``model.plugin.Maps``. Entries that come or go meanwhile may be told or not."""
        return self._maps[name].items()

    def close(self) -> None:
        for table in self._maps.values():
            table.close()


def _raw(key: int | bytes) -> bytes:
    return key.to_bytes(4, sys.byteorder) if isinstance(key, int) else key


def _direct_tables(sizes: Sizes) -> Iterator[tuple[str, type[ctypes.Structure], int]]:
    """Name, entry and number of entries of each DIRECT_TABLE in maps.h."""
    yield "megaflows", Megaflow, sizes.megaflows
    yield "megaflow_bodies", MegaflowBody, sizes.megaflows
    yield "megaflow_stats", MegaflowStats, sizes.megaflows * sizes.cpus
    yield "buckets", Bucket, sizes.buckets
    yield "subtables", Subtable, MAX_SUBTABLES
    yield "subtable_orders", SubtableOrder, 2
    yield "cache", CacheSet, sizes.cache_sets * sizes.cpus
    yield "repeated", Repeated, sizes.cpus
    yield "ports", Port, PORT_PLACES
    yield "small_ifindex", Ingress, sizes.small_ifindex
    yield "port_counters", PortCounters, PORT_PLACES * sizes.cpus


class Programs:
    """The programs and maps, loaded. ``close`` lets them go; what is attached stays until it is detached."""

    def __init__(self, sizes: Sizes, hash_constants: tuple[int, ...], defines: tuple[str, ...] = ()) -> None:
        """Raises DatapathError."""
        placeholders = placeholder_constants(len(hash_constants))
        tables = list(_direct_tables(sizes))
        flags = [
            f"-DMAX_MEGAFLOWS={sizes.megaflows}",
            f"-DBUCKETS={sizes.buckets}",
            f"-DCACHE_SETS={sizes.cache_sets}",
            f"-DCPUS={sizes.cpus}",
            f"-DSMALL_IFINDEX={sizes.small_ifindex}",
            f"-DUPCALL_PAGES={sizes.upcall_pages}",
            *(f"-D{name}_FD={number}" for number, (name, _, _) in enumerate(tables)),
            *(f"-DHASH_{number}={placeholder:#x}ULL" for number, placeholder in enumerate(placeholders)),
            *defines,
        ]
        self._code = build("bpf_prog", amalgamate(), flags, placeholders)
        self._constants = hash_constants
        self._own_fds: list[int] = []
        """Of programs, for us to close."""
        self._direct: dict[str, DirectTable] = {}
        self._maps: dict[str, Map] = {}
        try:
            for name, kind, entries in tables:
                self._direct[name] = DirectTable.of(name, kind, entries)
            for name, shape in self._code.maps.items():
                self._maps[name] = Map(name, shape, create(name, shape), sizes.cpus)
            self._load_all()
        except DatapathError:
            self.close()
            raise

    def _load_all(self) -> None:
        self.tc_fd = self._load_tc(TC_PROGRAM)
        self.xdp_fd = self._load_xdp(XDP_PROGRAM)
        self.inject_fd = self._load_tc(INJECT_PROGRAM)
        self.take_fd = self._load_tc(TAKE_PROGRAM)
        self._clock_fd = self._load_tc(CLOCK_PROGRAM)
        self.apart_fd = self._load_tc(APART_PROGRAM)
        for index, name in _TC_CALLED.items():
            fd = self._load_tc(name)
            self.update("tc_programs", index, _raw(fd))
            if index == ProgramIndex.HANDLE:
                self.update("tc_programs", ProgramIndex.LOOK_UP, _raw(fd))
        for index, name in _XDP_CALLED.items():
            self.update("xdp_programs", index, _raw(self._load_xdp(name)))

    def instructions(self, name: str, replaced: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """Of one program, with other maps in the place of those that are keys of ``replaced``."""
        maps = {name: self._maps[replaced.get(name, name)].fd for name in self._maps}
        return self._code.programs[name].linked(maps, [table.fd for table in self._direct.values()], self._constants)

    def _load_tc(self, name: str) -> int:
        fd = load_verified(SCHED_CLS, name, name, self.instructions(name))
        self._own_fds.append(fd)
        return fd

    def _load_xdp(self, name: str, replaced: Mapping[str, str] = MappingProxyType({}), flags: int = BPF_F_XDP_HAS_FRAGS) -> int:
        """With the flag the program takes frames in pieces, so that an interface may have a long MTU."""
        fd = load_verified(XDP, name, name, self.instructions(name, replaced), flags)
        self._own_fds.append(fd)
        return fd

    @cached_property
    def generic_xdp_fd(self) -> int:
        """The program for generic XDP, which is loaded when it is first asked for. Raises DatapathError.

        It takes no frames in pieces: the kernel (6.18) then forgets how long the Ethernet header is, and TC does not see it.
        """
        # The kernel lets no map be shared between programs that take pieces and others.
        replaced = {"xdp_programs": "generic_programs", "xdp_ports": "generic_ports"}
        for index, name in _XDP_CALLED.items():
            fd = self._load_xdp(name, replaced, 0)
            self.update("generic_programs", index, _raw(fd))
        return self._load_xdp(XDP_PROGRAM, replaced, 0)

    def ticks(self) -> int:
        """The kernel's ticks (jiffies) now. Raises OSError."""
        call(self._clock_fd, bytes(_ETHERNET_BYTES))
        return int.from_bytes(self.read("ticks", 0), sys.byteorder)

    def map_fd(self, table: str) -> int:
        return self._maps[table].fd

    def update(self, table: str, key: int | bytes, value: bytes) -> None:
        """Write one entry; an int is a key of 32 bits. Raises DatapathError."""
        if table in self._direct and isinstance(key, int):
            self._direct[table].write(key, value)
        else:
            self._maps[table].update(_raw(key), value)

    def delete(self, table: str, key: int | bytes) -> None:
        """Entries that are not there are passed over."""
        self._maps[table].delete(_raw(key))

    def read(self, table: str, key: int) -> bytes:
        """One entry. Raises KeyError if it is not there."""
        return self._maps[table].read(_raw(key))

    def shared_memory(self, table: str, size: int) -> mmap.mmap:
        """The memory of a direct table, or of a map marked "shared memory" in maps.h; ``size`` is that of all entries, in bytes."""
        if table in self._direct:
            return self._direct[table].memory
        page = mmap.PAGESIZE
        return mmap.mmap(self.map_fd(table), (size + page - 1) // page * page)

    def ring_buffer(self, table: str, size: int) -> RingBuffer:
        """``size`` is that of its data, in bytes."""
        return RingBuffer(self.map_fd(table), size)

    def close(self) -> None:
        for fd in self._own_fds:
            os.close(fd)
        for table in self._maps.values():
            table.close()
        for direct in self._direct.values():
            direct.close()
