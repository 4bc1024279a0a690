"""Supervises the integrated controller: a child process that runs Ryu apps and that the switch connects to like to any other.

Invariant: the child never outlives the agent, however either of them ends; and its death costs the switch nothing but a
reconnection.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import appliance
from appliance.agent.green import Greenlet, Signal, Timeout, sleep, spawn, wait_readable
from appliance.controller.launcher import EXIT_LISTEN

LOG = logging.getLogger("ofswitch.controller")

ADDRESS = "127.0.0.1"
FIRST_DELAY, LONGEST_DELAY = 0.2, 8.0
STEADY_SECONDS = 10.0
"""A child that lived so long is started again at once when it ends."""
STOP_SECONDS = 3.0
LISTENING = b"listening on "
"""What the launcher says when it is ready."""
LONGEST_LINE = 1 << 16
"""Bytes of the child's output that are logged at the latest, newline or not."""

_LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.ERROR,
}


def find_app(app: str) -> str:
    """The app's path, or ``app`` itself (a module's name). A path that is not found from here is looked for beside the package."""
    beside = Path(appliance.__file__).resolve().parent.parent / app
    return str(beside) if not Path(app).exists() and beside.exists() else app


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


class IntegratedController:
    """One child at a time, from ``start`` to ``stop``."""

    def __init__(self, apps: Sequence[str]) -> None:
        self._apps = [find_app(app) for app in apps]
        self.restarts = 0
        self._port = free_port()
        """It stays the same unless somebody else takes it while the child is down."""
        self._listening = Signal()
        self._child: subprocess.Popen[bytes] | None = None
        self._supervisor: Greenlet | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return None if self._child is None else self._child.pid

    def listening_port(self) -> int:
        """Where the child listens, on ADDRESS; waits until it does."""
        self._listening.wait()
        return self._port

    def describe(self) -> dict[str, Any]:
        """For ``show``: see ``control``."""
        return {"apps": list(self._apps), "pid": self.pid, "restarts": self.restarts}

    def start(self) -> None:
        self._supervisor = spawn(self._supervise)

    def stop(self) -> None:
        """End the child: SIGTERM, and SIGKILL if it does not follow."""
        if self._supervisor is not None:
            self._supervisor.kill()
            self._supervisor = None
        if self._child is None:
            return
        self._child.terminate()
        ended = False
        with Timeout(STOP_SECONDS, False):
            _wait(self._child)
            ended = True
        if not ended:
            LOG.warning("the integrated controller (pid %d) ignores SIGTERM; it is killed", self._child.pid)
            self._child.kill()
        self._child.wait()
        self._child = None

    # ── the supervisor's greenlet ──────────────────────────────────────────────────────────────────────────────────────
    def _supervise(self) -> None:
        delay = FIRST_DELAY
        while True:
            began = time.monotonic()
            code = self._run_once()
            if time.monotonic() - began >= STEADY_SECONDS:
                delay = FIRST_DELAY
            if code == EXIT_LISTEN:
                self._port = free_port()
            LOG.error("the integrated controller ended (%s); starting it again in %.1f s", _reason(code), delay)
            sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, LONGEST_DELAY)
            self.restarts += 1

    def _run_once(self) -> int:
        """Start the child, log what it says, and return its exit code."""
        command = [sys.executable, "-m", "appliance.controller", "--port", str(self._port), "--address", ADDRESS]
        command += ["--parent", str(os.getpid()), "--", *self._apps]
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for the agent, which ends the child itself
            env={**os.environ, "PYTHONPATH": _python_path(), "PYTHONUNBUFFERED": "1"},
        )
        self._child = child
        # A line with no level is what an app prints, or on standard error why the child cannot go on.
        readers = [spawn(self._log_output, child.stdout, logging.INFO), spawn(self._log_output, child.stderr, logging.ERROR)]
        try:
            _wait(child)
        finally:
            # What it wrote last has been read when its ends of the pipes are closed, unless a child of its own holds them.
            with Timeout(1.0, False):
                for reader in readers:
                    reader.wait()
            for reader in readers:
                reader.kill()
        code = child.wait()
        self._child = None
        self._listening.clear()
        return code

    def _log_output(self, pipe: IO[bytes], level: int) -> None:
        """Log the child's lines, each at the level that it begins with, else at ``level``."""
        descriptor = pipe.fileno()
        os.set_blocking(descriptor, False)
        with pipe:
            rest = b""
            while True:
                wait_readable(descriptor)
                data = os.read(descriptor, 1 << 16)
                *lines, rest = (rest + data).split(b"\n") if data and len(rest) < LONGEST_LINE else (rest + data, b"")
                for line in lines:
                    if line.startswith(LISTENING):
                        self._listening.set()
                    _log_line(line.decode(errors="replace").rstrip(), level)
                if not data:
                    return


def _python_path() -> str:
    """The child must find this same ``appliance``, wherever it runs from."""
    here = str(Path(appliance.__file__).resolve().parent.parent)
    before = os.environ.get("PYTHONPATH")
    return here if not before else f"{here}{os.pathsep}{before}"


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Wait for the child's end without stopping the other greenlets."""
    if child.poll() is not None:
        return
    descriptor = os.pidfd_open(child.pid)
    try:
        wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _log_line(line: str, level: int) -> None:
    if line:
        word, _, text = line.partition(" ")
        known = _LEVELS.get(word)
        LOG.log(known or level, "%s", text if known else line)


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
