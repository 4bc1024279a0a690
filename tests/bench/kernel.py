"""The bench's own eBPF programs (programs.c), and BPF_PROG_TEST_RUN: the clock of every figure about the fast path.

Invariant: what is measured runs unchanged; whatever the measuring needs is around it, in programs.c.
Source: linux/bpf.h, ``union bpf_attr``, BPF_PROG_TEST_RUN; Documentation/bpf/bpf_prog_run.rst for live frames.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcc

from appliance.datapath.build import SOURCES
from appliance.datapath.loader import possible_cpus
from appliance.datapath.programs import BPF_F_XDP_HAS_FRAGS, SCHED_CLS, XDP, load_verified
from appliance.lab import namespace

BPF_PROG_TEST_RUN = 10
CLONE_NEWNET = 0x40000000
LIVE_FRAMES = 1 << 1
BATCH = 64
"""Live frames that the kernel makes at a time."""

XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT = 0, 1, 2, 4
TC_SHOT, TC_STOLEN, TC_REDIRECT = 2, 4, 7

SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[os.uname().machine]
_ATTRIBUTE = struct.Struct("=IIIIQQIIIIQQIIII")
_SOURCE = struct.Struct("=QIIIIQQQ")
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that is measured does not do its job, or cannot be set up: a figure for it would mean nothing."""


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """This thread keeps to the last CPU that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def own_namespace() -> Iterator[None]:
    """In a network namespace of its own. It is the main thread that goes there, so that a signal can end what it does."""
    name = f"ofs-bench-{os.getpid()}"
    namespace.create(name)
    try:
        here, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(here)
            os.close(there)
            os.close(here)
    finally:
        namespace.remove(name)


@contextmanager
def hosts_namespace() -> Iterator[str]:
    """The name of a network namespace for the hosts' ends, as containers have it."""
    name = f"ofs-bench-{os.getpid()}-hosts"
    namespace.create(name)
    try:
        yield name
    finally:
        namespace.remove(name)


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def test_run(fd: int, frame: bytes, repeat: int) -> tuple[int, float]:
    """Run a program ``repeat`` times on one frame; what it returned at the end, and nanoseconds a run.

    They are those of this thread on the CPU, not the kernel's own figure, which is cut to whole ones.
    """
    data = ctypes.create_string_buffer(frame, len(frame))
    attribute = _ATTRIBUTE.pack(fd, 0, len(frame), 0, ctypes.addressof(data), 0, repeat, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    start = time.thread_time_ns()
    returned = _call(attribute)
    return returned, (time.thread_time_ns() - start) / repeat


def send_live(fd: int, frame: bytes, count: int) -> None:
    """Make ``count`` frames and let an XDP program redirect them: they are real from there on."""
    data = ctypes.create_string_buffer(frame, len(frame))
    attribute = _ATTRIBUTE.pack(fd, 0, len(frame), 0, ctypes.addressof(data), 0, count, 0, 0, 0, 0, 0, LIVE_FRAMES, 0, BATCH, 0)
    _call(attribute)


def _call(attribute: bytes) -> int:
    """What the program returned."""
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    while _libc.syscall(SYSTEM_CALL, BPF_PROG_TEST_RUN, buffer, len(attribute)) < 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, f"BPF_PROG_TEST_RUN: {os.strerror(code)}")
    return int(struct.unpack_from("=I", buffer.raw, 4)[0])


class Kernel:
    """programs.c, compiled; programs are loaded when they are asked for. ``close`` lets all go."""

    def __init__(self) -> None:
        self._cpus = possible_cpus()
        stub = SOURCES / "stub"
        os.environ["BCC_KERNEL_SOURCE"] = str(stub)
        text = (Path(__file__).parent / "programs.c").read_bytes()
        flags = [f"-I{stub / 'include'}", f"-DCPUS={self._cpus}"]
        self._bpf = _quietly("compile programs.c", lambda: bcc.BPF(text=text, cflags=flags))
        self._fds: dict[str, int] = {}
        self._sunk = memoryview(mmap.mmap(self._map("sunk"), mmap.PAGESIZE)).cast("Q")

    def program(self, name: str) -> int:
        """The file descriptor of ``xdp_…`` or ``tc_…``. Those of XDP take frames in pieces, as ours do: they can call no others."""
        if name not in self._fds:
            kind, flags = (XDP, BPF_F_XDP_HAS_FRAGS) if name.startswith("xdp_") else (SCHED_CLS, 0)
            function, module = name.encode(), self._bpf.module
            code = ctypes.string_at(bcc.lib.bpf_function_start(module, function), bcc.lib.bpf_function_size(module, function))
            self._fds[name] = load_verified(kind, name, name, code, flags)
        return self._fds[name]

    def _map(self, table: str) -> int:
        return int(self._bpf[table.encode()].map_fd)

    def write(self, table: str, key: bytes, value: bytes) -> None:
        """One entry of a map."""
        if bcc.lib.bpf_update_elem(self._map(table), key, value, 0) < 0:
            raise BenchError(f"cannot write {table}: {os.strerror(ctypes.get_errno())}")

    def measure(self, fd: int, *, tc: bool) -> None:
        """The wrapper of this kind goes on with this program."""
        self.write("tc_measured" if tc else "xdp_measured", word(0), word(fd))

    def set_source(self, flows: int, device: int = 0, delay: int = 0) -> None:
        """Frames are of so many flows, drawn at random, always the same ones.

        Live ones go to a place in ``devices``, each after so many turns of an empty loop.
        """
        self.write("source", word(0), _SOURCE.pack(0x9E3779B97F4A7C15, flows, device, delay, 0, 0, 0, 0))

    def source_times(self) -> tuple[float, float]:
        """When the first live frame since ``set_source`` was made, and the last one but 63 at most."""
        value = ctypes.create_string_buffer(_SOURCE.size)
        bcc.lib.bpf_lookup_elem(self._map("source"), word(0), value)
        *_, first, last = _SOURCE.unpack(value.raw)
        return first / 1e9, last / 1e9

    def add_tuple(self, key: bytes, device: int, ifindex: int) -> None:
        self.write("tuples", key, struct.pack("=II", device, ifindex))

    def arrived(self, sink: int = 0) -> int:
        """Frames that came to ``xdp_sink`` or ``tc_sink`` so far; with 1, to ``xdp_other_sink``."""
        return sum(self._sunk[8 * (cpu + sink * self._cpus)] for cpu in range(self._cpus))

    def last_arrival(self) -> float:
        """When the last frame came to a sink; 63 may have come after it, unless it was ``xdp_timed_sink``."""
        return max(self._sunk[8 * cpu + 1] for cpu in range(self._cpus)) / 1e9

    def close(self) -> None:
        self._bpf.cleanup()
        for fd in self._fds.values():
            os.close(fd)


def word(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _quietly(what: str, attempt: Any) -> Any:
    """libbcc complains on file descriptor 2: shown only if it fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)
        try:
            return attempt()
        except Exception as error:  # BCC raises nothing more precise
            complaints.seek(0)
            raise BenchError(f"cannot {what}: {error}\n{complaints.read().decode(errors='replace')[-2000:]}") from error
        finally:
            os.dup2(saved, 2)
            os.close(saved)
