"""``ofswitch lab``: hosts, the switch as its user would start it, traffic, and what became of the packets.

Invariant: however it ends, nothing is left behind, and that is looked for, not assumed.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any, Protocol

from appliance.agent.client import ControlClient, ControlError
from appliance.config import Config, LabFile, PortSpec, dump
from appliance.datapath import programs
from appliance.lab.testbed import Host, LabError, PingResult, Testbed
from appliance.lab.transfer import TransferResult
from appliance.ports import LocalSpec, remove_local

READY_SECONDS = 120.0
FIRST_FLOW_SECONDS = 5.0
POLL_SECONDS = 0.05
GONE_SECONDS = 5.0
LOG_LINES = 20
FAST_PATH_SHARE = 0.999
"""Of the transfer's packets, at least so many are to be forwarded by the fast path."""

_PRODUCT = str(Path(__file__).resolve().parents[2])

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tiers:
    """What became of the packets that came in, between two moments."""

    xdp: int
    tc: int
    slow_path: int
    dropped: int

    @classmethod
    def between(cls, before: Json, after: Json) -> Tiers:
        """Of two answers to ``tiers``."""
        return cls(**{tier: after["packets"][tier] - before["packets"][tier] for tier in ("xdp", "tc", "slow_path", "dropped")})

    @property
    def total(self) -> int:
        return self.xdp + self.tc + self.slow_path + self.dropped

    @property
    def fast_path_share(self) -> float:
        return (self.xdp + self.tc) / self.total if self.total else 0.0


@dataclass(slots=True)
class Outcome:
    """``failures`` is empty if everything worked; each is one line for the user."""

    pings: list[PingResult] = field(default_factory=list)
    transfer: TransferResult | None = None
    tiers: Tiers | None = None
    reached: list[tuple[int, int]] = field(default_factory=list)
    """Blocked TCP ports that could be reached all the same: (port, family)."""
    failures: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failures and not self.left_behind


class View(Protocol):
    """Where the demonstration shows what it does."""

    def go_on(self) -> None:
        """It is about to go on, or still waits. Raises KeyboardInterrupt if it is to end."""

    def step(self, text: str) -> None:
        """It begins with something."""

    def topology(self, hosts: Sequence[Host], switch: Json, ports: Sequence[Json]) -> None: ...

    def ping(self, result: PingResult) -> None: ...

    def transfer(self, source: str, destination: str, result: TransferResult, tiers: Tiers) -> None: ...

    def blocked(self, port: int, family: int, reached: bool) -> None: ...

    def answers(self, answers: Mapping[str, Any]) -> None:
        """What the switch answers to show, ports, flows and megaflows."""

    def stays_up(self, name: str) -> None:
        """Until ``go_on`` says that it is to end."""

    def log(self, lines: Sequence[str]) -> None:
        """The end of the switch's log, after a failure."""


class Demonstration:
    """One run of a lab. ``view`` is told of everything as it happens."""

    def __init__(self, file: LabFile, view: View) -> None:
        self._lab = file.lab
        self._config = file.config
        self._view = view
        self.outcome = Outcome()
        self._traces: list[tuple[str, Path]] = []
        """What will be gone when the switch has stopped: its name, and a path that exists while it is there."""
        self._programs: set[int] = set()

    def run(self, *, once: bool) -> Outcome:
        """Everything, and then clean up; without ``once``, stay up until KeyboardInterrupt in between.

        Raises LabError if the network cannot be built; what fails after that is in the outcome.
        """
        with tempfile.TemporaryDirectory(prefix="ofswitch-lab-") as directory:
            bed = Testbed(self._lab.hosts)
            try:
                with bed:
                    self._view.go_on()
                    self._work(bed, Path(directory), once=once)
            finally:
                self.outcome.left_behind = bed.leftovers() + self._still_there()
        return self.outcome

    # ── the switch ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _work(self, bed: Testbed, directory: Path, *, once: bool) -> None:
        view = self._view
        view.step(f"{len(bed.hosts)} hosts in network namespaces, each on a veth pair")
        view.step("The switch starts: its programs are compiled and loaded")
        log = directory / "switch.log"
        switch = self._start(bed, directory, log)
        try:
            with ControlClient(self._config.control_socket) as client:
                self._wait_until_ready(client, switch)
                self._note_traces(client, switch)
                view.topology(bed.hosts, client.request("show"), client.request("ports"))
                self._traffic(bed, client)
                view.step("What the switch says")
                view.answers({what: client.request(what) for what in ("show", "ports", "flows", "megaflows")})
            if not once:
                self._stay_up(switch)
        except ControlError as error:
            self.outcome.failures.append(f"the switch does not answer: {error}")
        except LabError as error:
            self.outcome.failures.append(str(error))
        finally:
            status = bed.stop(switch)
            if self._config.local_interface is not None:
                # The switch has done so, unless it had to be killed.
                remove_local(LocalSpec(self._config.local_interface, b"", self._config.name))
            if status != 0:
                self.outcome.failures.append(f"the switch ended with status {status}")
            if self.outcome.failures:
                view.log(log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def _start(self, bed: Testbed, directory: Path, log: Path) -> Popen[Any]:
        ports = tuple(PortSpec(interface=name, number=number) for number, name in enumerate(bed.interfaces, 1))
        path = directory / "switch.yaml"
        path.write_text(dump(Config.model_validate({**self._config.model_dump(), "ports": ports})))
        search = os.pathsep.join(filter(None, (_PRODUCT, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "appliance.cli.main", "run", str(path)]
        with log.open("wb") as output:
            return bed.start(command, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": search})

    def _wait_until_ready(self, client: ControlClient, switch: Popen[Any]) -> None:
        """The switch answers, and somebody controls it: a controller, and the first of its flows, or the switch itself."""
        end = time.monotonic() + READY_SECONDS
        problem = "it did not answer"
        while time.monotonic() < end:
            if switch.poll() is not None:
                raise LabError("the switch ended before it was ready")
            self._pause()
            try:
                answer = client.request("show")
            except ControlError as error:
                problem = str(error)
                continue
            if answer["pid"] != switch.pid:
                problem = f"another switch called {self._config.name} is running (process {answer['pid']})"
                client.close()
                continue
            if answer["standalone"] or any(controller["state"] == "connected" for controller in answer["controllers"]):
                self._wait_for_first_flow(client)
                return
            problem = "; ".join(f"{item['target']}: {item.get('problem') or item['state']}" for item in answer["controllers"])
        raise LabError(f"the switch was not ready after {READY_SECONDS:.0f} s: {problem or 'no controller has connected'}")

    def _wait_for_first_flow(self, client: ControlClient) -> None:
        """A controller connects some milliseconds before it installs its table-miss. Some install nothing."""
        end = time.monotonic() + FIRST_FLOW_SECONDS
        while time.monotonic() < end and not client.request("show")["flows"]:
            self._pause()

    def _pause(self) -> None:
        self._view.go_on()
        time.sleep(POLL_SECONDS)

    # ── traffic ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _traffic(self, bed: Testbed, client: ControlClient) -> None:
        outcome, view = self.outcome, self._view
        for family in (4, 6):
            view.step(f"Every host pings every other one, IPv{family}")
            for result in bed.ping_all([family]):
                outcome.pings.append(result)
                view.ping(result)
                view.go_on()
                if not result.ok:
                    path = f"{result.source} to {result.destination} (IPv{family})"
                    outcome.failures.append(f"ping from {path}: {result.received} of {result.sent} came back")
        self._transfer(bed, client)
        view.go_on()
        for port in self._lab.blocked_tcp_ports:
            view.step(f"TCP port {port} is to be out of reach")
            for family in (4, 6):
                reached = bed.reaches(bed.hosts[0].name, bed.hosts[1].name, port, family)
                view.blocked(port, family, reached)
                if reached:
                    outcome.reached.append((port, family))
                    outcome.failures.append(f"TCP port {port} was reached over IPv{family}, and should not be")

    def _transfer(self, bed: Testbed, client: ControlClient) -> None:
        source, destination = bed.hosts[0].name, bed.hosts[1].name
        self._view.step(f"{source} sends {self._lab.transfer_mb:,} MB to {destination} by TCP")
        before = client.request("tiers")
        result = bed.transfer(source, destination, self._lab.transfer_mb * 1_000_000)
        tiers = Tiers.between(before, client.request("tiers"))
        self.outcome.transfer, self.outcome.tiers = result, tiers
        self._view.transfer(source, destination, result, tiers)
        if not result.ok:
            what = result.error or f"{result.received:,} of {result.size:,} bytes arrived, CRC {result.received_crc:08x}"
            self.outcome.failures.append(f"the transfer failed: {what}")
        if tiers.fast_path_share < FAST_PATH_SHARE:
            share = f"{tiers.fast_path_share:.3%} of the transfer's {tiers.total:,} packets"
            self.outcome.failures.append(f"the fast path forwarded {share}; at least {FAST_PATH_SHARE:.1%} are expected")

    def _stay_up(self, switch: Popen[Any]) -> None:
        self._view.stays_up(self._config.name)
        try:
            while switch.poll() is None:
                self._pause()
        except KeyboardInterrupt:
            self._view.step("Stopping")

    # ── what must not stay behind ──────────────────────────────────────────────────────────────────────────────────────
    def _note_traces(self, client: ControlClient, switch: Popen[Any]) -> None:
        integrated = client.request("show")["integrated_controller"]
        if integrated is not None and integrated["pid"] is not None:
            self._traces.append((f"integrated controller, process {integrated['pid']}", Path(f"/proc/{integrated['pid']}")))
        self._traces.append((f"control socket {self._config.control_socket}", Path(self._config.control_socket)))
        for entry in os.scandir(f"/proc/{switch.pid}/fdinfo"):
            try:
                found = re.search(r"^prog_id:\s*(\d+)", Path(entry.path).read_text(), re.MULTILINE)
            except OSError:
                continue
            if found:
                self._programs.add(int(found[1]))

    def _still_there(self) -> list[str]:
        """The kernel takes programs apart a moment after their last user has gone."""
        end = time.monotonic() + GONE_SECONDS
        while True:
            found = [name for name, path in self._traces if path.exists()]
            found += [f"BPF program {number}" for number in sorted(self._programs) if programs.find(number) is not None]
            if not found or time.monotonic() > end:
                return found
            time.sleep(POLL_SECONDS)
