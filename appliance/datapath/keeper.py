"""A process that does nothing but hold the program arrays, so that packets go on if the agent dies.

The kernel empties a program array when the last file descriptor of it is closed, and then no tail call leads anywhere, although the
programs stay attached. A file in bpffs would keep it too, but there need be none mounted. So ``sleep`` inherits the descriptors. It
ends with a clean stop; after a crash the next agent that has all of its interfaces (that are still there) ends it. Invariant: while
an interface has our program, somebody holds its arrays.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from appliance.datapath.driver import DatapathError

NAME = "ofswitch-keeper"
_INTERFACES = "OFSWITCH_KEEPER_INTERFACES"
"""Environment: the interfaces' indices, with commas."""


class Keeper:
    """``fds`` are the arrays' file descriptors."""

    def __init__(self, fds: Iterable[int]) -> None:
        self._fds = tuple(fds)
        self._process: subprocess.Popen[bytes] | None = None
        self._kept: set[int] = set()
        """All interfaces that it ever was for: what has left them since, an earlier agent's programs are not on them."""

    def keep(self, interfaces: Iterable[int], freed: Iterable[int] = ()) -> None:
        """Hold the arrays for these interfaces, and end keepers of earlier agents that are not needed any more. From those that
        are ``freed``, programs of earlier agents have been taken off, whether or not ours were ever on them.
        """
        indices = set(interfaces)
        self._kept |= indices | set(freed)
        before = self._process
        self._process = self._start(indices) if indices else None
        if before is not None:
            _end(before)
        for pid, theirs in _others(self._process.pid if self._process else 0):
            if theirs & {index for index, _ in socket.if_nameindex()} <= self._kept:
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _start(self, interfaces: set[int]) -> subprocess.Popen[bytes]:
        program = shutil.which("sleep")
        if program is None:
            raise DatapathError("there is no sleep command (coreutils), which holds the programs if the switch dies")
        return subprocess.Popen(
            [NAME, "infinity"],
            executable=program,
            pass_fds=self._fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, _INTERFACES: ",".join(map(str, sorted(interfaces)))},
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _others(ours: int) -> Iterator[tuple[int, set[int]]]:
    """Keepers in this network namespace, and their interfaces."""
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == ours:
            continue
        try:
            if (entry / "cmdline").read_bytes().split(b"\0", 1)[0] != NAME.encode() or (
                entry / "ns/net"
            ).stat().st_ino != namespace:
                continue
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile, or is not ours to see
        prefix = f"{_INTERFACES}=".encode()
        for item in environment:
            if item.startswith(prefix):
                yield int(entry.name), {int(index) for index in item[len(prefix) :].split(b",") if index}
