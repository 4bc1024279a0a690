"""Whether this machine lets us run BPF at all, asked before anything is touched, and what to do if not.

Invariant: an empty answer means that a small program of the kind that we need was loaded.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

from appliance.datapath import programs

OLDEST_KERNEL = (5, 15)
_CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}
_NEEDED = ("BPF", "PERFMON", "NET_ADMIN", "NET_RAW")
_COVERED_BY_SYS_ADMIN = ("BPF", "PERFMON")
_INSTALL_BCC = (
    "the Python module bcc is missing, which loads the eBPF programs.\n"
    "  Debian, Ubuntu: apt-get install python3-bpfcc     Fedora: dnf install python3-bcc\n"
    "  A virtual environment must be made from the distribution's own Python: /usr/bin/python3 -m venv --system-site-packages .venv"
)
_GRANT = (
    "run it as root (sudo), or grant the capabilities BPF, PERFMON, NET_ADMIN and NET_RAW (SYS_ADMIN stands for the first two).\n"
    "  systemd: AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_NET_RAW\n"
    "  docker:  --cap-add BPF --cap-add PERFMON --cap-add NET_ADMIN --cap-add NET_RAW\n"
    "           (before Docker 23: SYS_ADMIN in place of the first two)"
)


def effective_capabilities() -> int:
    """The bits of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return int(found[1], 16) if found else 0


def lockdown() -> str:
    """none, integrity or confidentiality; none where the kernel does not say."""
    try:
        text = Path("/sys/kernel/security/lockdown").read_text(encoding="ascii")
    except OSError:
        return "none"
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen[1] if chosen else "none"


def missing_capabilities(effective: int) -> list[str]:
    has = {name for name, bit in _CAPABILITIES.items() if effective >> bit & 1}
    if "SYS_ADMIN" in has:
        has.update(_COVERED_BY_SYS_ADMIN)
    return [name for name in _NEEDED if name not in has]


def problems(
    release: str | None = None,
    capabilities: int | None = None,
    load: Callable[[], None] = programs.load_trivial,
    locked: str | None = None,
    has_bcc: bool | None = None,
) -> list[str]:
    """Why the switch cannot run here, each with what to do about it. The arguments stand for what is asked of the machine."""
    found = []
    if not (importlib.util.find_spec("bcc") is not None if has_bcc is None else has_bcc):
        found.append(_INSTALL_BCC)
    release = os.uname().release if release is None else release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_KERNEL:
        found.append(f"Linux {release} is too old; {OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]} or later is needed")
    missing = missing_capabilities(effective_capabilities() if capabilities is None else capabilities)
    if missing:
        found.append(f"not permitted: {', '.join(missing)} missing; {_GRANT}")
        return found
    try:
        load()
    except OSError as error:
        found.append(_refusal(error, lockdown() if locked is None else locked))
    return found


def _refusal(error: OSError, locked: str) -> str:
    """The kernel refused although the capabilities are there."""
    if error.errno == errno.ENOSYS:
        return "this kernel has no BPF (CONFIG_BPF_SYSCALL), or something answers for it: a sandbox such as gVisor"
    if error.errno in (errno.EPERM, errno.EACCES):
        if locked != "none":
            return f"the kernel is locked down ({locked}), which forbids BPF; turn off Secure Boot, or boot with lockdown=none"
        return (
            "the kernel refuses BPF although the capabilities are there: a seccomp profile (docker: --security-opt seccomp=...), "
            "a user namespace, or a security module forbids it"
        )
    return f"the kernel refuses a trivial BPF program: {error.strerror}"
