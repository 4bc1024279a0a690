"""The switches that the tests can be run against, each started as its user would, on three interfaces of this namespace.

Invariant: stopping a target ends every process that it started, and a target whose starter dies is killed with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 10.0
_libc = ctypes.CDLL(None, use_errno=True)


class TargetError(Exception):
    """A target cannot be started; the text says why."""


class Target(ABC):
    """``ports``: interface by OpenFlow port number. ``folder`` is the target's own, for sockets and logs. ``flags``: more ones for
    its command line.

    ``pause`` is what the target is given between the barrier reply and the packet, in seconds: none if it holds what a
    barrier reply says.
    """

    name: str
    pause = 0.0

    def __init__(self, ports: Mapping[int, str], controller: str, datapath_id: int, folder: Path, flags: Sequence[str]) -> None:
        self.ports = ports
        self.controller = controller
        self.datapath_id = datapath_id
        self.folder = folder
        self.flags = flags
        self._processes: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def start(self) -> None:
        """Start it; it connects to ``controller`` some time later. Raises TargetError."""

    @staticmethod
    @abstractmethod
    def version() -> str:
        """What was measured, for the results."""

    def stop(self) -> None:
        """End it; may be called twice, or before ``start``."""
        while self._processes:
            _end(self._processes.pop())

    def alive(self) -> bool:
        return bool(self._processes) and all(process.poll() is None for process in self._processes)

    def last_words(self, lines: int = 5) -> str:
        """The end of what it logged."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return " | ".join(text.strip().splitlines()[-lines:])

    @property
    def _log(self) -> Path:
        return self.folder / "target.log"

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                env={**os.environ, **(environment or {})},
            )
        self._processes.append(process)
        return process


class Ofswitch(Target):
    """This repository's switch, `ofswitch run` with flags only."""

    name = "ofswitch"

    def start(self) -> None:
        command = [sys.executable, "-m", "appliance.cli.main", "run", "--name", "conformance", "--fail-mode", "secure"]
        command += ["--datapath-id", f"{self.datapath_id:016x}", "--controller", self.controller]
        command += ["--control-socket", str(self.folder / "switch.sock")]
        for number, interface in self.ports.items():
            command += ["--port", f"{interface}={number}"]
        self._spawn([*command, *self.flags], {"PYTHONPATH": str(ROOT)})

    @staticmethod
    def version() -> str:
        done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
        return f"ofswitch {done.stdout.strip() or 'of unknown commit'}"


class OpenVSwitch(Target):
    """Open vSwitch's userspace datapath, with a database and daemons of its own. It changes its flow cache after the barrier reply,
    up to 20 ms later; without the pause some 155 cases of OpenFlow 1.3 fail for that alone.
    """

    name = "ovs"
    pause = 0.05

    def start(self) -> None:
        for program in ("ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool"):
            if shutil.which(program) is None:
                raise TargetError(f"{program} is not here: apt-get install openvswitch-switch")
        own = {name: str(self.folder) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR")}
        database, server = self.folder / "conf.db", f"unix:{self.folder}/db.sock"
        if not database.exists():
            _run(["ovsdb-tool", "create", str(database), "/usr/share/openvswitch/vswitch.ovsschema"], own)
        self._spawn(["ovsdb-server", str(database), f"--remote=p{server}", f"--unixctl={self.folder}/ovsdb.ctl"], own)
        _await(self.folder / "db.sock")
        _run(["ovs-vsctl", f"--db={server}", "--no-wait", "init"], own)
        self._spawn(["ovs-vswitchd", server, "--disable-system", f"--unixctl={self.folder}/vswitchd.ctl", *self.flags], own)
        bridge = ["add-br", "target", "--", "set", "bridge", "target", "datapath_type=netdev", "fail_mode=secure"]
        bridge += ["protocols=OpenFlow13", f"other_config:datapath-id={self.datapath_id:016x}", "other_config:disable-in-band=true"]
        bridge += ["--", "set-controller", "target", self.controller]
        bridge += ["--", "set", "controller", "target", "max_backoff=1000", "inactivity_probe=0"]
        for number, interface in self.ports.items():
            bridge += ["--", "add-port", "target", interface]
            bridge += ["--", "set", "interface", interface, f"ofport_request={number}"]
        _run(["ovs-vsctl", f"--db={server}", "--timeout=30", *bridge], own)

    @staticmethod
    def version() -> str:
        done = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True)
        return f"Open vSwitch {done.stdout.split()[-1] if done.stdout else 'of unknown version'}, userspace datapath"


TARGETS: dict[str, type[Target]] = {target.name: target for target in (Ofswitch, OpenVSwitch)}


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise TargetError(f"{' '.join(command[:3])}…: {done.stderr.strip()}")


def _await(path: Path, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TargetError(f"{path} does not appear")
        time.sleep(0.02)
