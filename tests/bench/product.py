"""ofswitch as its user starts it, on the switch's interfaces of a testbed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from kernel import BenchError

from appliance.lab.testbed import Testbed

ROOT = Path(__file__).resolve().parents[2]
PORT = 6653
LISTEN = f"ptcp:{PORT}:127.0.0.1"
CONNECT = f"tcp:127.0.0.1:{PORT}"
READY_SECONDS = 180.0
SETTLE_SECONDS = 10.0


class Product:
    """A context manager: the switch is up, and whoever speaks OpenFlow can connect to it in the switch's namespace."""

    def __init__(self, bed: Testbed, *flags: str) -> None:
        self._bed = bed
        self._flags = flags

    def __enter__(self) -> Product:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-ofswitch-")
        here = Path(self._directory.name)
        self._socket, self._log = str(here / "control"), here / "log"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
        flags = ["--name", "bench", "--listen", LISTEN, "--control-socket", self._socket, *self._bed.port_flags(), *self._flags]
        with self._log.open("wb") as log:
            self._process = self._bed.start(self._cli("run", *flags), env=environment, stdout=log, stderr=subprocess.STDOUT)
        end = time.monotonic() + READY_SECONDS
        while self._bed.run(["ovs-ofctl", "-O", "OpenFlow13", "show", CONNECT]).returncode:
            if self._process.poll() is not None or time.monotonic() > end:
                log_end = self._log.read_text(errors="replace")[-1500:]
                self.__exit__(None, None, None)
                raise BenchError(f"ofswitch did not come up:\n{log_end}")
            time.sleep(0.1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bed.stop(self._process)
        self._directory.cleanup()

    @staticmethod
    def _cli(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "appliance.cli.main", *arguments]

    def add_flows(self, flows: Sequence[str]) -> None:
        path = Path(self._directory.name) / "flows"
        path.write_text("\n".join(flows) + "\n")
        self.ofctl("add-flows", str(path))

    def ofctl(self, command: str, *arguments: str) -> str:
        """``ovs-ofctl COMMAND``, which must be accepted; what it printed."""
        done = self._bed.run(["ovs-ofctl", "-O", "OpenFlow13", command, CONNECT, *arguments], timeout=120)
        if done.returncode:
            raise BenchError(f"ofswitch refused {command}: {done.stderr.strip()}")
        return done.stdout

    def connection(self) -> socket.socket:
        """To speak OpenFlow by."""
        return self._bed.inside(None, lambda: socket.create_connection(("127.0.0.1", PORT), READY_SECONDS))

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """As if it crashed. What its programs do they go on doing, until another one takes over."""
        self._process.kill()
        self._process.wait()

    def show(self) -> dict[str, Any]:
        """What ``ofswitch show`` tells."""
        done = subprocess.run(
            self._cli("show", "--json", "--control-socket", self._socket), capture_output=True, text=True, cwd=ROOT, check=False
        )
        if done.returncode:
            raise BenchError(f"ofswitch show: {done.stderr.strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def megaflows(self) -> int:
        return int(self.show()["megaflows"])

    def came_up(self) -> int:
        """Packets that the slow path has dealt with."""
        return sum(self.show()["upcalls"].values())

    def settle(self) -> None:
        """Wait until it has made what it makes in spare time."""
        before = -1
        end = time.monotonic() + SETTLE_SECONDS
        while (made := self.megaflows()) != before and time.monotonic() < end:
            before = made
