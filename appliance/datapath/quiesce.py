"""The order in which the fast path sees what Python writes, and when it has seen the last of what is gone."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMBARRIER_CMD_GLOBAL = 1
_MEMBARRIER_CMD_GLOBAL_EXPEDITED = 2
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283}.get(platform.machine(), 0)
IN_ORDER = platform.machine() in ("x86_64", "i686")
"""``keep_order`` has nothing to do."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_ONLINE = Path("/sys/devices/system/cpu/online")
_URGENT = os.sched_param(os.sched_get_priority_max(os.SCHED_FIFO) - 1)


def _online_cpus() -> list[int]:
    cpus: list[int] = []
    for part in _ONLINE.read_text().strip().split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def keep_order() -> None:
    """Whoever sees a store to shared memory that comes after this sees all that came before it. The same holds for loads.

    Each is one machine instruction: CPython's memoryview copies an item of its format by a memcpy of constant size. x86 does loads
    in their order, and stores too; elsewhere the processor is told to.
    """
    if not IN_ORDER:
        _membarrier(_MEMBARRIER_CMD_GLOBAL_EXPEDITED)


def wait_for_packets_under_way() -> None:
    """Return when every packet whose handling had begun before the call has been handled.

    eBPF programs run with bottom halves disabled: no thread gets the CPU before they end. So once this thread has run on every
    CPU, all of them have ended: about 20 µs a CPU, where the kernel's own grace period (membarrier) takes some 10 ms. That is
    what is waited for where the thread may not run on every CPU, or where bottom halves can be preempted (PREEMPT_RT). The thread
    does not wait its turn on a CPU that is busy, if it may (CAP_SYS_NICE). It goes back to its own before it is one among others
    again: left on a busy CPU where none of its group had run, it has been seen to get no turn for two seconds.
    """
    allowed = os.sched_getaffinity(0)
    try:
        if "PREEMPT_RT" in platform.version() or not set(cpus := _online_cpus()) <= allowed:
            _membarrier(_MEMBARRIER_CMD_GLOBAL)
            return
        with _urgently():
            here = _LIBC.sched_getcpu()  # which has nothing under way, or this thread would not run there
            for cpu in [*(cpu for cpu in cpus if cpu != here), here]:
                os.sched_setaffinity(0, {cpu})
    except OSError:
        _membarrier(_MEMBARRIER_CMD_GLOBAL)
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def _urgently() -> Iterator[None]:
    """This thread comes before all others, for microseconds."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, _URGENT)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _membarrier(command: int) -> None:
    _LIBC.syscall(_MEMBARRIER, command, 0, 0)
