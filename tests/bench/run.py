"""``make bench``: the switch against the kernel's and Open vSwitch's ways, each figure beside its peer's in the same run.

    run.py [--quick] [--only GROUP ...] [--output DIRECTORY]

Prints a table, and writes DIRECTORY/DATE-KERNEL.json, latest.json and latest.svg (a quick run only if a directory is given). A full
run takes a quarter of an hour, a quick one two minutes; its figures mean little, but show that everything can be measured. Needs
root.

Invariant: everything happens in network namespaces of its own, and nothing of it is there afterwards, however it ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

import readme  # noqa: E402
from attack import Attack  # noqa: E402
from barrier import Barrier  # noqa: E402
from cost import FastPathCost  # noqa: E402
from flow_mods import FlowMods  # noqa: E402
from forwarding import Forwarding  # noqa: E402
from kernel import BenchError, Kernel, own_namespace  # noqa: E402
from megaflows import Megaflows  # noqa: E402
from memory import Memory  # noqa: E402
from meters import Meters  # noqa: E402
from misses import Misses  # noqa: E402
from packet_in import PacketIn  # noqa: E402
from report import aims, console, footer, machine, table, where, write  # noqa: E402
from restart import Restart  # noqa: E402
from results import Row  # noqa: E402
from rich.console import Console  # noqa: E402
from tcp import Tcp  # noqa: E402

from appliance.datapath.driver import DatapathError  # noqa: E402
from appliance.lab.testbed import LabError  # noqa: E402

RESULTS = ROOT / "bench" / "results"
BUSY_LOAD = 0.5


class Measurement(Protocol):
    def rows(self) -> Generator[Row, None, None]:
        """Each as it is measured, in a network namespace of its own. Raises BenchError, DatapathError, LabError."""


@dataclass(frozen=True, slots=True)
class Group:
    """A part of the table: what measures it, and how much of everything it is told to do in a full and in a quick run."""

    measurement: Callable[..., Measurement]
    """Called with the bench's own programs and the options."""
    full: dict[str, Any]
    quick: dict[str, Any]


GROUPS = {
    "cost": Group(
        FastPathCost,
        {"repeat": 200_000, "rounds": 9, "some": 10_000, "many": 100_000},
        {"repeat": 20_000, "rounds": 3, "some": 500, "many": 2_000},
    ),
    "forwarding": Group(
        Forwarding,
        {"seconds": 0.4, "rounds": 7, "flow_counts": (1, 1_000, 10_000)},
        {"seconds": 0.05, "rounds": 2, "flow_counts": (1, 500)},
    ),
    "megaflows": Group(Megaflows, {"connections": 2_000, "routes": 1_000}, {"connections": 100, "routes": 100}),
    "meters": Group(Meters, {"seconds": 2.0, "rounds": 3}, {"seconds": 0.4, "rounds": 1}),
    "misses": Group(Misses, {"side": 200, "rounds": 4, "latencies": 1_000}, {"side": 24, "rounds": 2, "latencies": 50}),
    "flow-mods": Group(FlowMods, {"entries": 100_000, "rounds": 3}, {"entries": 3_000, "rounds": 2}),
    "barrier": Group(Barrier, {"side": 100, "rounds": 30}, {"side": 20, "rounds": 4}),
    "packet-in": Group(
        PacketIn, {"packets": 20_000, "flood": 100_000, "rounds": 5}, {"packets": 1_000, "flood": 2_000, "rounds": 2}
    ),
    "memory": Group(Memory, {"entries": 50_000, "side": 140, "rounds": 3}, {"entries": 3_000, "side": 40, "rounds": 1}),
    "restart": Group(Restart, {"rounds": 3, "takeover": 2.0}, {"rounds": 1, "takeover": 2.0}),
    "tcp": Group(
        Tcp,
        {"seconds": 3, "rounds": 5, "requests": 5_000, "datagrams": 200_000},
        {"seconds": 1, "rounds": 1, "requests": 500, "datagrams": 20_000},
    ),
    "attack": Group(Attack, {"seconds": 2.0, "rounds": 5, "flows": 1_000}, {"seconds": 1.0, "rounds": 1, "flows": 100}),
}


def measure(quick: bool, only: list[str], found: Callable[[Row], None], begins: Callable[[str], None]) -> list[str]:
    """All groups, or those in ``only``. One that fails does not keep the others from being measured: what went wrong, of each."""
    programs = Kernel()
    failures = []
    try:
        for name, group in GROUPS.items():
            if only and name not in only:
                continue
            begins(name)
            options = group.quick if quick else group.full
            try:
                with own_namespace(), closing(group.measurement(programs, **options).rows()) as rows:
                    for row in rows:
                        found(row)
            except (BenchError, DatapathError, LabError, OSError, subprocess.SubprocessError) as error:
                failures.append(f"{name}: {type(error).__name__}: {error}")
    finally:
        programs.close()
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of everything: two minutes")
    parser.add_argument("--only", nargs="+", choices=tuple(GROUPS), default=[], help="only these groups")
    parser.add_argument("--output", type=Path, help=f"where to write (default: {RESULTS.relative_to(ROOT)}; a quick run: nowhere)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("the bench needs root: sudo make bench", file=sys.stderr)
        return 1
    for ending in (signal.SIGTERM, signal.SIGINT):  # so that everything is cleaned up
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    out, log = console(), Console(stderr=True)
    about = {**machine(), "quick": arguments.quick}
    if about["load"] > BUSY_LOAD:
        log.print(f"the machine is busy (load {about['load']:.1f}): ratios hold to within their spread, values do not")
    rows: list[Row] = []
    status = log.status("…")
    start = time.monotonic()

    def found(row: Row) -> None:
        rows.append(row)
        status.update(f"{row.group}: {row.name}")

    with status:
        try:
            failures = measure(arguments.quick, arguments.only, found, lambda name: log.print(f"measures {name}"))
        except (BenchError, OSError) as error:
            failures = [f"{type(error).__name__}: {error}"]
    about["seconds"] = round(time.monotonic() - start, 1)
    out.print(table(rows))
    footer(out, rows)
    out.print(f"{aims(rows)}; {about['seconds']:.0f} s, {where(about)}")
    for failure in failures:
        log.print(failure, style="red", markup=False)
    if failures:
        about["failures"] = failures
    directory = arguments.output or (None if arguments.quick or arguments.only else RESULTS)
    if directory is not None:
        written = [write(directory, rows, about), *(readme.refresh() if directory == RESULTS else ())]
        out.print(f"written: {', '.join(str(path) for path in written)}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
