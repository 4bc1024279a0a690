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
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.datapath.driver import DatapathError
from appliance.datapath.layout import CACHE_WAYS, ProgramIndex
from appliance.datapath.ring_buffer import RingBuffer

SOURCES = Path(__file__).resolve().parents[2] / "bpf_prog"
MAIN_SOURCE = "datapath.c"

TC_PROGRAM = "ofswitch_tc"
XDP_PROGRAM = "ofswitch_xdp"
TAKE_PROGRAM = "ofswitch_take"

_INCLUDE = re.compile(r'#include "(\w+\.h)"')
_REPORTED_LINES = 12
_SMALL_IFINDEX = 65536


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the maps are. Powers of two, all but ``cpus`` and ``upcall_pages``."""

    megaflows: int = 65536
    upcall_pages: int = 2048
    cpus: int = field(default_factory=lambda: possible_cpus())

    @property
    def buckets(self) -> int:
        """Ways for twice as many megaflows as there are slots."""
        return max(self.megaflows // 4, 1)

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


def amalgamate(name: str = MAIN_SOURCE, sources: Path = SOURCES) -> str:
    """The main file with its own headers put in by text, each line still known by its file and number."""
    lines: list[str] = []

    def add(file: str) -> None:
        lines.append(f'#line 1 "{file}"')
        for number, line in enumerate((sources / file).read_text().splitlines(), 1):
            included = _INCLUDE.match(line)
            if included:
                add(included[1])
                lines.append(f'#line {number + 1} "{file}"')
            else:
                lines.append("" if line.strip() == "#pragma once" else line)

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
    errors = [n for n, line in enumerate(lines) if " error: " in line]
    shown = lines[errors[0] :][:_REPORTED_LINES] if errors else lines[-_REPORTED_LINES:]
    return "\n".join("  " + line for line in shown)


class Programs:
    """The programs and maps, loaded. ``close`` lets them go; what is attached stays until it is detached."""

    def __init__(self, sizes: Sizes, hash_constants: tuple[int, ...], defines: tuple[str, ...] = ()) -> None:
        """Raises DatapathError."""
        try:
            import bcc
        except ImportError as error:
            raise DatapathError("BCC's Python module is missing: apt-get install python3-bpfcc") from error
        self._lib = bcc.lib
        stub = SOURCES / "stub"
        flags = [
            f"-I{stub / 'include'}",
            f"-DMAX_MEGAFLOWS={sizes.megaflows}",
            f"-DBUCKETS={sizes.buckets}",
            f"-DCACHE_SETS={sizes.cache_sets}",
            f"-DCPUS={sizes.cpus}",
            f"-DSMALL_IFINDEX={sizes.small_ifindex}",
            f"-DUPCALL_PAGES={sizes.upcall_pages}",
            *(f"-DHASH_{n}={constant:#x}ULL" for n, constant in enumerate(hash_constants)),
            *defines,
        ]
        previous = os.environ.get("BCC_KERNEL_SOURCE")
        os.environ["BCC_KERNEL_SOURCE"] = str(stub)
        try:
            with os.fdopen(os.memfd_create("stderr"), "w+b") as stderr:
                self._bpf = self._attempt("compile bpf_prog", stderr, lambda: bcc.BPF(text=amalgamate().encode(), cflags=flags))
                tc, xdp = bcc.BPF.SCHED_CLS, bcc.BPF.XDP
                self.tc_fd = self._load(TC_PROGRAM, tc, stderr)
                self.xdp_fd = self._load(XDP_PROGRAM, xdp, stderr)
                self.take_fd = self._load(TAKE_PROGRAM, tc, stderr)
                called = [
                    ("tc_programs", ProgramIndex.HANDLE, self._load("ofswitch_tc_on", tc, stderr)),
                    ("tc_programs", ProgramIndex.METER, self._load("ofswitch_meter", tc, stderr)),
                    ("tc_programs", ProgramIndex.EXECUTE, self._load("ofswitch_tc_go", tc, stderr)),
                    ("tc_programs", ProgramIndex.FLOOD, self._load("ofswitch_flood", tc, stderr)),
                    ("xdp_programs", ProgramIndex.HANDLE, self._load("ofswitch_xdp_on", xdp, stderr)),
                    ("xdp_programs", ProgramIndex.EXECUTE, self._load("ofswitch_xdp_go", xdp, stderr)),
                ]
        finally:
            if previous is None:
                del os.environ["BCC_KERNEL_SOURCE"]
            else:
                os.environ["BCC_KERNEL_SOURCE"] = previous
        for table, index, fd in called:
            self.update(table, index, fd.to_bytes(4, sys.byteorder))

    @staticmethod
    def _attempt(what: str, stderr: Any, attempt: Callable[[], Any]) -> Any:
        stderr.seek(0)
        stderr.truncate()
        try:
            with _stderr_to(stderr):
                return attempt()
        except Exception as error:  # BCC raises nothing more precise
            raise DatapathError(f"cannot {what}: {error}\n{_complaint(stderr)}".rstrip()) from error

    def _load(self, name: str, kind: int, stderr: Any) -> int:
        function = self._attempt(f"load {name}", stderr, lambda: self._bpf.load_func(name.encode(), kind))
        return int(function.fd)

    def map_fd(self, table: str) -> int:
        return int(self._bpf[table.encode()].map_fd)

    def update(self, table: str, key: int, value: bytes) -> None:
        """Write one entry of a map whose keys are 32-bit numbers. Raises DatapathError."""
        index = ctypes.c_uint32(key)
        if self._lib.bpf_update_elem(self.map_fd(table), ctypes.byref(index), value, 0) < 0:
            code = ctypes.get_errno()
            raise DatapathError(f"cannot write {table}[{key}]: {os.strerror(code)}")

    def delete(self, table: str, key: int) -> None:
        """Entries that are not there are passed over."""
        index = ctypes.c_uint32(key)
        self._lib.bpf_delete_elem(self.map_fd(table), ctypes.byref(index))

    def read(self, table: str, key: int, size: int) -> bytes:
        """One entry of ``size`` bytes. Raises DatapathError."""
        index, value = ctypes.c_uint32(key), ctypes.create_string_buffer(size)
        if self._lib.bpf_lookup_elem(self.map_fd(table), ctypes.byref(index), value) < 0:
            raise DatapathError(f"cannot read {table}[{key}]: {os.strerror(ctypes.get_errno())}")
        return value.raw

    def shared_memory(self, table: str, size: int) -> mmap.mmap:
        """The memory of a map that is marked "shared memory" in maps.h; ``size`` is that of all its entries, in bytes."""
        page = mmap.PAGESIZE
        return mmap.mmap(self.map_fd(table), (size + page - 1) // page * page)

    def ring_buffer(self, table: str, size: int) -> RingBuffer:
        """``size`` is that of its data, in bytes."""
        return RingBuffer(self.map_fd(table), size)

    def close(self) -> None:
        self._bpf.cleanup()
