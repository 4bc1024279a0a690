"""A network namespace of one's own with three veth pairs in it: the target's ports 1, 2, 3 and the tester's.

Invariant: the namespace has no name, so it and all in it vanish with the last process inside, however that ends.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from pathlib import Path

PORTS = (1, 2, 3)
"""The cases name these numbers."""

MTU = 2000  # the cases' largest frames have 1,514 bytes, to which the target adds tags

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter_own_namespace() -> None:
    """For the rest of this process's life. Raises OSError without the rights for it."""
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace of one's own")
    _ip("link", "set", "lo", "up")


def make_links() -> tuple[Mapping[int, str], Mapping[int, str]]:
    """The target's interfaces and the tester's, by port number. Nobody but target and tester sends on them."""
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")  # else the kernel sends router solicitations
    target = {number: f"target{number}" for number in PORTS}
    tester = {number: f"tester{number}" for number in PORTS}
    for number in PORTS:
        _ip("link", "add", target[number], "type", "veth", "peer", "name", tester[number])
        for name in (target[number], tester[number]):
            _ip("link", "set", name, "mtu", str(MTU), "arp", "off", "up")
    return target, tester


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
