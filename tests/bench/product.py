"""ofswitch as its user starts it, on the switch's interfaces of a testbed."""

from __future__ import annotations

import json
import os
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
LISTEN = "ptcp:6653:127.0.0.1"
CONNECT = "tcp:127.0.0.1:6653"
READY_SECONDS = 30.0


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
        done = self._bed.run(["ovs-ofctl", "-O", "OpenFlow13", "add-flows", CONNECT, str(path)], timeout=120)
        if done.returncode:
            raise BenchError(f"ofswitch refused flow entries: {done.stderr.strip()}")

    def ofctl(self, command: str, *arguments: str) -> None:
        """``ovs-ofctl COMMAND``, which must be accepted."""
        done = self._bed.run(["ovs-ofctl", "-O", "OpenFlow13", command, CONNECT, *arguments])
        if done.returncode:
            raise BenchError(f"ofswitch refused {command}: {done.stderr.strip()}")

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
