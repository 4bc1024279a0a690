"""Compiling and loading ``bpf_prog/`` with BCC: the only module that imports it.

No kernel headers are needed: BCC is pointed at ``bpf_prog/stub``. The sources are joined into one text first, with ``#line``,
because BCC rewrites map calls in the main file only. Invariant: a program that does not compile or that the kernel refuses raises
DatapathError with the compiler's or the verifier's own last lines; nothing is printed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
    Subtable,
    SubtableOrder,
)
from appliance.datapath.programs import BPF_F_XDP_HAS_FRAGS, XDP, call, load_verified
from appliance.datapath.ring_buffer import RingBuffer
from appliance.datapath.tables import DirectTable

SOURCES = Path(__file__).resolve().parents[2] / "bpf_prog"
MAIN_SOURCE = "datapath.c"

TC_PROGRAM = "ofswitch_tc"
XDP_PROGRAM = "ofswitch_xdp"
INJECT_PROGRAM = "ofswitch_inject"
"""At the egress of tunnel devices."""
TAKE_PROGRAM = "ofswitch_take"
APART_PROGRAM = "ofswitch_apart"
CLOCK_PROGRAM = "ofswitch_clock"
_XDP_CALLED = {ProgramIndex.HANDLE: "ofswitch_xdp_on", ProgramIndex.EXECUTE: "ofswitch_xdp_go"}

_STUB = SOURCES / "stub"
_INCLUDES = f"-I{_STUB / 'include'}"
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_64 = 0x18
_PSEUDO_MAP_FD = 1
_INCLUDE = re.compile(r'#include "(\w+\.h)"')
_COMPILER_ERROR = re.compile(r":\d+: error: ")
_REPORTED_LINES = 30
"""Since Linux 7.x the verifier explains itself in as many."""
_SMALL_IFINDEX = 65536
_ETHERNET_BYTES = 14
_REACHED_BYTES = 1 << 29
"""What eBPF reaches of a direct table: BPF_MAX_VAR_OFF."""


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


def amalgamate(*files: str, sources: Path = SOURCES) -> str:
    """These files (by default the main one) with our headers put in by text, each line still known by its file and number.

    Raises OSError.
    """
    lines: list[str] = []

    def add(file: str) -> None:
        lines.append(f'#line 1 "{file}"')
        for number, line in enumerate((sources / file).read_text(errors="replace").splitlines(), 1):
            included = _INCLUDE.match(line)
            if included:
                add(included[1])
                lines.append(f'#line {number + 1} "{file}"')
            else:
                lines.append("" if line.strip() == "#pragma once" else line)

    for name in files or (MAIN_SOURCE,):
        add(name)
    return "\n".join(lines) + "\n"


@contextmanager
def _stderr_to(file: Any) -> Iterator[None]:
    """libbcc and its compiler write their complaints to file descriptor 2."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _complaint(file: Any) -> str:
    file.seek(0)
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    # The compiler's first error explains the others; the verifier gives up at its last line.
    errors = [n for n, line in enumerate(lines) if _COMPILER_ERROR.search(line)]
    shown = lines[errors[0] :][:_REPORTED_LINES] if errors else lines[-_REPORTED_LINES:]
    return "\n".join("  " + line for line in shown)


def _raw(key: int | bytes) -> bytes:
    return key.to_bytes(4, sys.byteorder) if isinstance(key, int) else key


def _shown(key: int | bytes) -> str:
    return str(key) if isinstance(key, int) else key.hex()


@contextmanager
def _compiler() -> Iterator[Any]:
    """BCC finds our stub in the place of the kernel's headers. Yields a file for what it complains of."""
    previous = os.environ.get("BCC_KERNEL_SOURCE")
    os.environ["BCC_KERNEL_SOURCE"] = str(_STUB)
    try:
        with os.fdopen(os.memfd_create("stderr"), "w+b") as stderr:
            yield stderr
    finally:
        if previous is None:
            del os.environ["BCC_KERNEL_SOURCE"]
        else:
            os.environ["BCC_KERNEL_SOURCE"] = previous


def _attempt(what: str, stderr: Any, attempt: Callable[[], Any]) -> Any:
    stderr.seek(0)
    stderr.truncate()
    try:
        with _stderr_to(stderr):
            return attempt()
    except Exception as error:  # BCC raises nothing more precise
        raise DatapathError(f"cannot {what}: {error}\n{_complaint(stderr)}".rstrip()) from error


def _instructions(bpf: Any, lib: Any, function: str, replaced: Mapping[int, int]) -> bytes:
    """Of one compiled program, with other file descriptors of maps in the place of those that are keys of ``replaced``."""
    start = lib.bpf_function_start(bpf.module, function.encode())
    raw = bytearray(ctypes.string_at(start, lib.bpf_function_size(bpf.module, function.encode())))
    for at in range(0, len(raw), _INSTRUCTION.size):
        code, registers, offset, number = _INSTRUCTION.unpack_from(raw, at)
        if code == _LOAD_64 and registers >> 4 == _PSEUDO_MAP_FD and number in replaced:
            _INSTRUCTION.pack_into(raw, at, code, registers, offset, replaced[number])
    return bytes(raw)


class Module:
    """A source of its own, compiled, with maps of its own: a plug-in. What becomes of its programs is for ``datapath.plugins``."""

    def __init__(self, name: str, files: Sequence[str], defines: Iterable[str]) -> None:
        """``files``: see ``amalgamate``. Raises DatapathError."""
        import bcc

        self._lib = bcc.lib
        try:
            text = amalgamate(*files).encode()
        except OSError as error:
            raise DatapathError(f"cannot read {error.filename}: {error.strerror}") from error
        with _compiler() as stderr:
            self._bpf = _attempt(f"compile {name}", stderr, lambda: bcc.BPF(text=text, cflags=[_INCLUDES, *defines]))

    def instructions(self, function: str, others: Mapping[str, int]) -> bytes:
        """Of one program, with the file descriptors ``others`` in the place of those of its own maps of these names."""
        return _instructions(self._bpf, self._lib, function, {self.map_fd(name): fd for name, fd in others.items()})

    def map_fd(self, table: str) -> int:
        """Raises KeyError."""
        return int(self._bpf[table.encode()].map_fd)

    def read_on_cpus(self, table: str, key: int, cpus: int) -> int:
        """The sum of one 64-bit number over the CPUs. The key is there."""
        value = (ctypes.c_uint64 * cpus)()
        self._lib.bpf_lookup_elem(self.map_fd(table), ctypes.byref(ctypes.c_uint32(key)), value)
        return sum(value)

    def items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """See ``model.plugin.Maps``. Entries that come or go meanwhile may be told or not."""
        table = self._bpf[name.encode()]
        fd = int(table.map_fd)
        key = ctypes.create_string_buffer(ctypes.sizeof(table.Key))
        value = ctypes.create_string_buffer(ctypes.sizeof(table.Leaf))
        more = self._lib.bpf_get_first_key(fd, key, len(key)) == 0
        while more:
            if self._lib.bpf_lookup_elem(fd, key, value) == 0:
                yield key.raw, value.raw
            more = self._lib.bpf_get_next_key(fd, key, key) == 0

    def close(self) -> None:
        self._bpf.cleanup()


def _direct_tables(sizes: Sizes) -> Iterator[tuple[str, type[ctypes.Structure], int]]:
    """Name, entry and number of entries of each DIRECT_TABLE in maps.h."""
    yield "megaflows", Megaflow, sizes.megaflows
    yield "megaflow_bodies", MegaflowBody, sizes.megaflows
    yield "megaflow_stats", MegaflowStats, sizes.megaflows * sizes.cpus
    yield "buckets", Bucket, sizes.buckets
    yield "subtables", Subtable, MAX_SUBTABLES
    yield "subtable_orders", SubtableOrder, 2
    yield "cache", CacheSet, sizes.cache_sets * sizes.cpus
    yield "ports", Port, PORT_PLACES
    yield "small_ifindex", Ingress, sizes.small_ifindex
    yield "port_counters", PortCounters, PORT_PLACES * sizes.cpus


class Programs:
    """The programs and maps, loaded. ``close`` lets them go; what is attached stays until it is detached."""

    def __init__(self, sizes: Sizes, hash_constants: tuple[int, ...], defines: tuple[str, ...] = ()) -> None:
        """Raises DatapathError."""
        try:
            import bcc
        except ImportError as error:
            raise DatapathError("BCC's Python module is missing: apt-get install python3-bpfcc") from error
        self._lib = bcc.lib
        self._own_fds: list[int] = []
        """Of programs, for us to close."""
        self._direct = {table[0]: DirectTable.of(*table) for table in _direct_tables(sizes)}
        flags = [
            _INCLUDES,
            f"-DMAX_MEGAFLOWS={sizes.megaflows}",
            f"-DBUCKETS={sizes.buckets}",
            f"-DCACHE_SETS={sizes.cache_sets}",
            f"-DCPUS={sizes.cpus}",
            f"-DSMALL_IFINDEX={sizes.small_ifindex}",
            f"-DUPCALL_PAGES={sizes.upcall_pages}",
            *(f"-D{table.name}_FD={table.fd}" for table in self._direct.values()),
            *(f"-DHASH_{n}={constant:#x}ULL" for n, constant in enumerate(hash_constants)),
            *defines,
        ]
        with _compiler() as stderr:
            self._bpf = _attempt("compile bpf_prog", stderr, lambda: bcc.BPF(text=amalgamate().encode(), cflags=flags))
            tc = bcc.BPF.SCHED_CLS
            self.tc_fd = self._load(TC_PROGRAM, tc, stderr)
            self.xdp_fd = self._load_xdp(XDP_PROGRAM)
            self.inject_fd = self._load(INJECT_PROGRAM, tc, stderr)
            self.take_fd = self._load(TAKE_PROGRAM, tc, stderr)
            self._clock_fd = self._load(CLOCK_PROGRAM, tc, stderr)
            self.apart_fd = self._load(APART_PROGRAM, tc, stderr)
            after_parsing = self._load("ofswitch_tc_on", tc, stderr)
            called = [
                ("tc_programs", ProgramIndex.HANDLE, after_parsing),
                ("tc_programs", ProgramIndex.LOOK_UP, after_parsing),
                ("tc_programs", ProgramIndex.METER, self._load("ofswitch_meter", tc, stderr)),
                ("tc_programs", ProgramIndex.EXECUTE, self._load("ofswitch_tc_go", tc, stderr)),
                ("tc_programs", ProgramIndex.FLOOD, self._load("ofswitch_flood", tc, stderr)),
                ("tc_programs", ProgramIndex.DROP, self._load("ofswitch_drop", tc, stderr)),
                ("tc_programs", ProgramIndex.EDIT, self._load("ofswitch_edit", tc, stderr)),
                ("tc_programs", ProgramIndex.TUNNEL, self._load("ofswitch_tunnel", tc, stderr)),
                ("tc_programs", ProgramIndex.COPY, self._load("ofswitch_copy", tc, stderr)),
                ("tc_programs", ProgramIndex.AGAIN, self._load("ofswitch_again", tc, stderr)),
                *(("xdp_programs", index, self._load_xdp(name)) for index, name in _XDP_CALLED.items()),
            ]
        for table, index, fd in called:
            self.update(table, index, fd.to_bytes(4, sys.byteorder))

    def _load(self, name: str, kind: int, stderr: Any) -> int:
        function = _attempt(f"load {name}", stderr, lambda: self._bpf.load_func(name.encode(), kind))
        return int(function.fd)

    def _load_xdp(self, name: str, replaced: Mapping[int, int] = MappingProxyType({}), flags: int = BPF_F_XDP_HAS_FRAGS) -> int:
        """BCC does not know the flag: the program takes frames in pieces, so that an interface may have a long MTU."""
        fd = load_verified(XDP, name, name, _instructions(self._bpf, self._lib, name, replaced), flags)
        self._own_fds.append(fd)
        return fd

    @cached_property
    def generic_xdp_fd(self) -> int:
        """The program for generic XDP, which is loaded when it is first asked for. Raises DatapathError.

        It takes no frames in pieces: the kernel (6.18) then forgets how long the Ethernet header is, and TC does not see it.
        """
        # The kernel lets no map be shared between programs that take pieces and others.
        others = {"xdp_programs": "generic_programs", "xdp_ports": "generic_ports"}
        replaced = {self.map_fd(name): self.map_fd(other) for name, other in others.items()}
        for index, name in _XDP_CALLED.items():
            fd = self._load_xdp(name, replaced, 0)
            self.update("generic_programs", index, fd.to_bytes(4, sys.byteorder))
        return self._load_xdp(XDP_PROGRAM, replaced, 0)

    def ticks(self) -> int:
        """The kernel's ticks (jiffies) now. Raises OSError."""
        call(self._clock_fd, bytes(_ETHERNET_BYTES))
        return int.from_bytes(self.read("ticks", 0, 8), sys.byteorder)

    def map_fd(self, table: str) -> int:
        return int(self._bpf[table.encode()].map_fd)

    def update(self, table: str, key: int | bytes, value: bytes) -> None:
        """Write one entry; an int is a key of 32 bits. Raises DatapathError."""
        if table in self._direct and isinstance(key, int):
            self._direct[table].write(key, value)
            return
        if self._lib.bpf_update_elem(self.map_fd(table), _raw(key), value, 0) < 0:
            code = ctypes.get_errno()
            raise DatapathError(f"cannot write {table}[{_shown(key)}]: {os.strerror(code)}")

    def delete(self, table: str, key: int | bytes) -> None:
        """Entries that are not there are passed over."""
        self._lib.bpf_delete_elem(self.map_fd(table), _raw(key))

    def read(self, table: str, key: int, size: int) -> bytes:
        """One entry of ``size`` bytes. Raises DatapathError."""
        index, value = ctypes.c_uint32(key), ctypes.create_string_buffer(size)
        if self._lib.bpf_lookup_elem(self.map_fd(table), ctypes.byref(index), value) < 0:
            raise DatapathError(f"cannot read {table}[{key}]: {os.strerror(ctypes.get_errno())}")
        return value.raw

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
        self._bpf.cleanup()
        for fd in self._own_fds:
            os.close(fd)
        for table in self._direct.values():
            table.close()
