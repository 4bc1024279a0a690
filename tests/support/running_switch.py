"""The whole product as its user starts it: `ofswitch run` in a process of its own, on a testbed's interfaces."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.waiting import until

from appliance.agent.client import ControlClient, ControlError
from appliance.lab.testbed import Testbed

READY_SECONDS = 180.0
STOP_SECONDS = 60.0
LISTEN_PORT = 16653
"""In the switch's own namespace: nobody else can have it."""


class RunningSwitch:
    def __init__(
        self, bed: Testbed, process: subprocess.Popen[Any], control: ControlClient, log: Path, listen_port: int = LISTEN_PORT
    ) -> None:
        self.bed = bed
        self._listen_port = listen_port
        self.process = process
        self.control = control
        self._log = log
        self.folder = log.parent
        """Where its sockets are, and its log."""

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ofctl(self, command: str, *arguments: str, fails: bool = False) -> str:
        """`ovs-ofctl -O OpenFlow13 COMMAND tcp:127.0.0.1:PORT ARGUMENTS`; what it printed. ``COMMAND`` may begin with options.

        With ``fails`` it must be refused.
        """
        target = f"tcp:127.0.0.1:{self._listen_port}"
        result = self.bed.run(["ovs-ofctl", "-O", "OpenFlow13", *command.split(), target, *arguments])
        assert (result.returncode != 0) is fails, f"ovs-ofctl {command}: {result.stdout}{result.stderr}"
        return result.stdout + result.stderr

    def flows(self, *words: str) -> list[str]:
        """One line a flow entry, as ovs-ofctl prints it, without what changes with time."""
        lines = [line.strip() for line in self.ofctl("dump-flows", *words).splitlines()]
        return [re.sub(r" duration=[^ ]*,", "", line) for line in lines if line.startswith("cookie=")]

    def add_flows(self, *flows: str) -> None:
        for flow in flows:
            self.ofctl("add-flow", flow)

    def packets(self) -> Mapping[str, int]:
        """By tier, since the start."""
        packets: Mapping[str, int] = self.control.request("tiers")["packets"]
        return packets

    def until_fast(self, traffic: Callable[[], object]) -> None:
        """Send it again, which works each time, until none of it takes the slow path: there are megaflows, and they let it pass."""

        def passed() -> bool:
            before = self.packets()
            assert traffic()
            after = self.packets()
            return after != before and after["slow_path"] == before["slow_path"]

        until(passed, "traffic by the fast path alone")


@contextmanager
def running_switch(
    bed: Testbed,
    folder: Path,
    *flags: str,
    listen: bool = True,
    name: str = "switch",
    ports: Sequence[str] | None = None,
    listen_port: int = LISTEN_PORT,
) -> Iterator[RunningSwitch]:
    """``bed`` must be isolated. With ``listen``, controllers connect to ``listen_port``, and none is integrated.

    ``ports`` in place of all the hosts', ``name`` and ``listen_port`` are for several switches on one testbed.
    """
    path, log = folder / f"{name}.sock", folder / f"{name}.log"
    attached = bed.port_flags() if ports is None else [part for port in ports for part in ("--port", port)]
    command = [sys.executable, "-m", "appliance.cli.main", "run", "--name", name, "--control-socket", str(path), *attached, *flags]
    if listen:
        command += ["--listen", f"ptcp:{listen_port}"]
    with log.open("wb") as out:
        process = bed.start(command, stdout=out, stderr=out)
    try:
        with ControlClient(path) as control:
            deadline = time.monotonic() + READY_SECONDS
            while True:
                try:
                    control.request("show")
                    break
                except ControlError:
                    assert process.poll() is None, log.read_text(errors="replace")
                    assert time.monotonic() < deadline, log.read_text(errors="replace")
                    time.sleep(0.05)
            yield RunningSwitch(bed, process, control, log, listen_port)
    finally:
        bed.stop(process, STOP_SECONDS)
