"""``ofswitch lab`` as people see it: what it does, step by step, a picture, and the tables."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from appliance.cli import tables
from appliance.cli.exit_status import EXIT_FAILURE, EXIT_USAGE
from appliance.cli.preflight import problems
from appliance.cli.run import print_faults
from appliance.config import ConfigError, load_lab
from appliance.lab.demonstration import FAST_PATH_SHARE, Demonstration, Outcome, Tiers
from appliance.lab.testbed import Host, LabError, PingResult
from appliance.lab.transfer import TransferResult

Json = Mapping[str, Any]

DRAWN_HOSTS = 6
_HOST_WIDTH = 18
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_lab_command(path: str, *, once: bool) -> int:
    """Exit status."""
    try:
        file = load_lab(path)
    except ConfigError as error:
        print_faults(error)
        return EXIT_USAGE
    found = problems()
    if found:
        for problem in found:
            click.echo(f"ofswitch: {problem}", err=True)
        return EXIT_FAILURE
    interruption = _Interruption()
    view = LabView(tables.console(), interruption.check)
    demonstration = Demonstration(file, view)
    before = {number: signal.signal(number, interruption.come) for number in _SIGNALS}
    try:
        demonstration.run(once=once)
    except LabError as error:
        demonstration.outcome.failures.append(str(error))
    except KeyboardInterrupt:
        demonstration.outcome.failures.append("interrupted")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    view.verdict(demonstration.outcome)
    return 0 if demonstration.outcome.ok else EXIT_FAILURE


class _Interruption:
    """The signal that ends the lab, once. What a handler raises Python may lose, in a destructor for one, and it may leave a lock
    taken for good: so it is raised where the lab asks for it."""

    def __init__(self) -> None:
        self._came = False

    def come(self, number: int, frame: FrameType | None) -> None:
        """A second signal does not disturb what the first one has begun."""
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        self._came = True

    def check(self) -> None:
        if self._came:
            self._came = False
            raise KeyboardInterrupt


class LabView:
    """``lab.demonstration.View`` on a console."""

    def __init__(self, console: Console, go_on: Callable[[], None]) -> None:
        self._console = console
        self.go_on = go_on
        self._pinged = 0

    def step(self, text: str) -> None:
        self._end_of_pings()
        self._console.print(Text("▸ ", style="bold cyan") + Text(text, style="bold"))

    def topology(self, hosts: Sequence[Host], switch: Json, ports: Sequence[Json]) -> None:
        self._console.print()
        for line in picture(hosts, switch, ports):
            self._console.print("  " + line, markup=False, no_wrap=True, overflow="ignore", crop=False)
        self._console.print()

    def ping(self, result: PingResult) -> None:
        text = Text(f"  {result.source} → {result.destination} ")
        if result.ok and result.round_trip_ms is not None:
            text.append(f"{result.round_trip_ms:.2f} ms", style="green")
        else:
            text.append(f"{result.received} of {result.sent} came back", style="red")
        self._console.print(text, end="")
        self._pinged += 1

    def _end_of_pings(self) -> None:
        if self._pinged:
            self._console.print()
            self._pinged = 0

    def transfer(self, source: str, destination: str, result: TransferResult, tiers: Tiers) -> None:
        if result.ok:
            speed = tables.quantity(result.bits_per_second, "b/s")
            self._console.print(f"  {result.received:,} bytes in {result.seconds:.2f} s ({speed}), every one as it was sent")
        else:
            self._console.print(Text(f"  {result.error or 'not all bytes arrived as they were sent'}", style="red"))
        packets = {tier: getattr(tiers, tier) for tier in tables.TIERS}
        shares = {tier: count / tiers.total if tiers.total else 0.0 for tier, count in packets.items()}
        self._console.print(tables.tiers({"packets": packets, "shares": shares}, what="the transfer's packets"))

    def blocked(self, port: int, family: int, reached: bool) -> None:
        text = Text(f"  IPv{family}: ")
        self._console.print(text + (Text("reached", style="red") if reached else Text("out of reach", style="green")))

    def answers(self, answers: Mapping[str, Any]) -> None:
        for what, answer in answers.items():
            self._console.print()
            self._console.print(Text(f"ofswitch {what}", style="bold"))
            self._console.print(tables.RENDERERS[what](answer))

    def stays_up(self, name: str) -> None:
        program = os.path.relpath(sys.argv[0]) if os.path.basename(sys.argv[0]) == "ofswitch" else "ofswitch"
        self._console.print()
        self._console.print(Text("▸ ", style="bold cyan") + Text("It stays up until Ctrl-C. From another shell:", style="bold"))
        self._console.print(f"  sudo {program} show {name}     (or flows, megaflows, ports)")
        self._console.print(f"  sudo ip netns exec ofs-{os.getpid()}-h1 ping …", markup=False)

    def log(self, lines: Sequence[str]) -> None:
        self._end_of_pings()
        self._console.print(Text("The end of the switch's log:", style="bold"))
        for line in lines:
            self._console.print(f"  {line}", markup=False)

    def verdict(self, outcome: Outcome) -> None:
        """What worked, what did not, and what is left."""
        self._end_of_pings()
        self._console.print()
        for failure in outcome.failures:
            self._console.print(Text(f"✗ {failure}", style="bold red"))
        if not outcome.failures:
            self._console.print(Text(f"✓ {_success(outcome)}", style="bold green"))
        if outcome.left_behind:
            self._console.print(Text(f"✗ left behind: {', '.join(outcome.left_behind)}", style="bold red"))
        else:
            self._console.print(Text("✓ nothing is left: namespaces, interfaces, BPF programs, processes", style="green"))


def _success(outcome: Outcome) -> str:
    share = outcome.tiers.fast_path_share if outcome.tiers is not None else 0.0
    worked = f"all {len(outcome.pings)} pings and the transfer worked"
    return f"{worked}; the fast path forwarded {share:.2%} of its packets (at least {FAST_PATH_SHARE:.1%} was asked)"


def picture(hosts: Sequence[Host], switch: Json, ports: Sequence[Json]) -> list[str]:
    """Hosts above, the switch, its controllers below; hosts that have no room are only counted."""
    drawn = hosts[:DRAWN_HOSTS]
    width = max(_HOST_WIDTH * len(drawn), 48)
    column = width // len(drawn)
    hooks = {port["number"]: port.get("hook", "missing") for port in ports}

    def row(cells: Sequence[str], fill: str = " ") -> str:
        return "".join(cell.center(column, fill) for cell in cells).rstrip(" ")

    title = f"switch {switch['name']}, datapath id {switch['datapath_id']}"
    controllers = [f"{item['target']} ({item['state']})" for item in switch["controllers"]] or ["no controller"]
    if switch["integrated_controller"] is not None:
        controllers = [
            f"integrated controller: {', '.join(os.path.basename(app) for app in switch['integrated_controller']['apps'])}"
        ]
    whole = column * len(drawn)
    floor = "└" + "┬".center(whole - 2, "─") + "┘"
    lines = [
        row([host.name for host in drawn]),
        row([host.address4 for host in drawn]),
        row([host.address6 for host in drawn]),
        row(["│"] * len(drawn)),
        row([f"port {number} ({hooks.get(number, 'missing')})" for number in range(1, len(drawn) + 1)]),
        "┌" + row(["┴"] * len(drawn), "─")[1:-1] + "┐",
        "│" + title.center(whole - 2) + "│",
        floor,
        " " * floor.index("┬") + "│ OpenFlow 1.3",
        *(text.center(whole).rstrip() for text in controllers),
    ]
    if len(hosts) > len(drawn):
        lines.append(f"and {len(hosts) - len(drawn)} more hosts")
    return lines
