"""The switch as its user runs it, in a process of its own, through its crashes; and what that process holds.

Invariant: at most one agent runs; while there is none, its programs go on.
"""

from __future__ import annotations

import re
import signal
import socket
from contextlib import ExitStack, suppress
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from soak.network import Network
from support.running_switch import LISTEN_PORT, RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.datapath import programs

MAX_MEGAFLOWS = 2048
"""Few, so that floods fill the fast path in every round."""
_LISTED = 1_000_000


@dataclass(frozen=True, slots=True)
class Resources:
    """What the agent holds: memory in MB, the rest as numbers. Each stays as it is once the agent has warmed up."""

    resident: float
    descriptors: int
    threads: int
    maps: int
    programs: int
    children: int

    def exceeding(self, before: Resources, room: Resources) -> list[str]:
        """What is more than ``before``, and than there is room for."""
        now, then, more = asdict(self), asdict(before), asdict(room)
        return [
            f"{name}: {now[name]:g}, which was {then[name]:g}; {more[name]:g} more are allowed"
            for name in now
            if now[name] > then[name] + more[name]
        ]

    def or_more(self, other: Resources) -> Resources:
        """The greater of each."""
        return Resources(*map(max, astuple(self), astuple(other)))


def resources(pid: int) -> Resources:
    """Of a process. An object of the kernel that two descriptors lead to counts once."""
    status = Path(f"/proc/{pid}/status").read_text()

    def figure(name: str) -> int:
        return int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]

    descriptors = _descriptors(pid)
    maps, held = _ids("map_id", descriptors), _ids("prog_id", descriptors)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return Resources(figure("VmRSS") / 1000, len(descriptors), figure("Threads"), len(maps), len(held), len(children))


def _descriptors(pid: int) -> list[str]:
    """What the kernel says of each (proc_pid_fdinfo(5))."""
    told = []
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):  # if it has been closed meanwhile
            told.append(path.read_text())
    return told


def _ids(kind: str, descriptors: list[str]) -> set[int]:
    return {int(found) for text in descriptors for found in re.findall(rf"^{kind}:\s+(\d+)", text, re.MULTILINE)}


class Product:
    """A context manager; ``start`` starts the agent. ``flags`` are more for `ofswitch run`."""

    def __init__(self, network: Network, folder: Path, *flags: str) -> None:
        self._network = network
        self._folder = folder
        config = folder / "switch.yaml"
        config.write_text(f"max_megaflows: {MAX_MEGAFLOWS}\n")
        self._flags = (str(config), *flags)
        self._stack = ExitStack()
        self._running: RunningSwitch | None = None
        self.agents = 0
        """How many have been started."""

    def __enter__(self) -> Product:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ── life ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def running(self) -> RunningSwitch:
        assert self._running is not None, "there is no agent"
        return self._running

    @property
    def is_running(self) -> bool:
        return self._running is not None and self._running.process.poll() is None

    @property
    def pid(self) -> int | None:
        """The agent's; None while there is none."""
        running = self._running
        return None if running is None else running.process.pid

    def start(self) -> None:
        self.agents += 1
        folder = self._folder / f"agent-{self.agents}"
        folder.mkdir()
        self._running = self._stack.enter_context(running_switch(self._network.bed, folder, *self._flags))

    def kill(self) -> None:
        """SIGKILL."""
        process = self.running.process
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._running = None
        self._stack.close()

    def connect(self) -> socket.socket:
        """As a controller."""
        return self._network.bed.inside(None, lambda: socket.create_connection(("127.0.0.1", LISTEN_PORT), SECONDS))

    def until_taken_over(self) -> None:
        """From the agent that died."""
        until(lambda: "took over from an agent that died" in self.running.log, "the new agent takes over")

    def stop(self) -> list[str]:
        """SIGTERM; what is wrong with how it ended, and what is left, in words."""
        process, path = self.running.process, Path(self.running.control.path)
        held = _ids("prog_id", _descriptors(process.pid))
        log = self.running.log
        self._stack.close()
        wrong = [f"the agent ended with status {process.returncode}"] if process.returncode else []
        wrong += self.complaints(log)
        if path.exists():
            wrong.append(f"{path} is left")
        until(lambda: not any(programs.find(number) is not None for number in held), f"the kernel lets go of {len(held)} programs")
        self._running = None
        return wrong

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def ask(self, command: str) -> Any:
        """What ``ofswitch COMMAND`` would tell."""
        return self.running.control.request(command, limit=_LISTED)

    def ports(self) -> list[dict[str, Any]]:
        """The ports, as ``ofswitch ports`` would tell of them."""
        shown: list[dict[str, Any]] = self.ask("ports")
        return shown

    def counters(self) -> dict[int, dict[str, int]]:
        """Those of each port by its number."""
        return {item["number"]: item["counters"] for item in self.ports() if "counters" in item}

    def complaints(self, log: str | None = None) -> list[str]:
        """What the agent has logged as errors."""
        lines = (self.running.log if log is None else log).splitlines()
        return [f"logged: {line}" for line in lines if " ERROR " in line or " CRITICAL " in line or "Traceback" in line]

    def resources(self, controllers: int) -> Resources:
        """Without the descriptors of so many controllers' connections."""
        held = resources(self.running.process.pid)
        return replace(held, descriptors=held.descriptors - controllers)
