"""``make bench``: the switch against the kernel's and Open vSwitch's ways, each figure beside its peer's in the same run.

    run.py [--quick] [--only GROUP ...] [--output DIRECTORY]

Prints a table, and writes DIRECTORY/DATE-KERNEL.json, latest.json and latest.svg (a quick run only if a directory is given). A full
run takes some minutes, a quick one less than one; its figures mean little, it shows that everything can be measured. Needs root.

Invariant: everything happens in network namespaces of its own, and nothing of it is there afterwards, however it ends.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

import picture  # noqa: E402
from cost import FastPathCost  # noqa: E402
from forwarding import Forwarding  # noqa: E402
from kernel import BenchError, Kernel, own_namespace  # noqa: E402
from misses import Misses  # noqa: E402
from results import Row  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from tcp import Tcp  # noqa: E402

from appliance.datapath.driver import DatapathError  # noqa: E402
from appliance.lab.testbed import LabError  # noqa: E402

RESULTS = ROOT / "bench" / "results"
BUSY_LOAD = 0.5
LEGEND = (
    "Value: the median. Ratio: the median of the ratios of samples taken one after the other; spread: half its interquartile range."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything; see the classes that take it."""

    cost: dict[str, int]
    forwarding: dict[str, Any]
    misses: dict[str, int]
    tcp: dict[str, int]


FULL = Plan(
    cost={"repeat": 200_000, "rounds": 9, "some": 10_000, "many": 100_000},
    forwarding={"seconds": 0.4, "rounds": 7, "flow_counts": (1, 1_000, 10_000)},
    misses={"side": 200, "rounds": 4, "latencies": 1_000},
    tcp={"seconds": 3, "rounds": 5, "requests": 5_000},
)
QUICK = Plan(
    cost={"repeat": 20_000, "rounds": 3, "some": 500, "many": 2_000},
    forwarding={"seconds": 0.05, "rounds": 2, "flow_counts": (1, 500)},
    misses={"side": 24, "rounds": 2, "latencies": 50},
    tcp={"seconds": 1, "rounds": 1, "requests": 500},
)


def measure(plan: Plan, only: list[str], found: Callable[[Row], None], begins: Callable[[str], None]) -> None:
    """All groups, or those in ``only``. Raises BenchError, DatapathError, LabError."""
    programs = Kernel()
    groups: dict[str, Callable[[], Generator[Row, None, None]]] = {
        "cost": FastPathCost(programs, **plan.cost).rows,
        "forwarding": Forwarding(programs, **plan.forwarding).rows,
        "misses": Misses(programs, **plan.misses).rows,
        "tcp": Tcp(programs, **plan.tcp).rows,
    }
    try:
        for name, group in groups.items():
            if only and name not in only:
                continue
            begins(name)
            with own_namespace(), closing(group()) as rows:
                for row in rows:
                    found(row)
    finally:
        programs.close()


# ── what comes of it ───────────────────────────────────────────────────────────────────────────────────────────────────
def table(rows: list[Row]) -> Table:
    result = Table(title_justify="left", header_style="bold", pad_edge=False)
    for heading, options in (
        ("measure", {}),
        ("value", {"justify": "right"}),
        ("reference", {}),
        ("its value", {"justify": "right"}),
        ("ratio", {"justify": "right"}),
        ("spread", {"justify": "right"}),
        ("aim", {"justify": "right"}),
        ("met", {}),
    ):
        result.add_column(heading, **options)  # type: ignore[arg-type]
    group, notes = "", footnotes(rows)
    for row in rows:
        if row.group != group:
            group = row.group
            result.add_section()
            result.add_row(f"[bold]{group}[/]")
        result.add_row(
            row.name + (f" [dim]({notes.index(row.note) + 1})[/]" if row.note else ""),
            _figure(row.value, row.unit),
            row.reference,
            _figure(row.reference_value, row.unit) if row.reference else "",
            f"{row.ratio:.2f}" if row.ratio is not None else "",
            f"±{row.spread:.0%}" if row.spread is not None else "",
            str(row.aim or ""),
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.met],
        )
    return result


def footnotes(rows: list[Row]) -> list[str]:
    """What rows have to say besides figures; the table refers to them by number."""
    return list(dict.fromkeys(row.note for row in rows if row.note))


def _figure(value: float | None, unit: str) -> str:
    return f"{picture.figure(value)} {unit}" if value is not None else "–"


def machine() -> dict[str, Any]:
    """Where and of what the figures are."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "open_vswitch": _output("ovs-vswitchd", "--version").partition("\n")[0].rpartition(" ")[2],
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD").strip(),
        "changed": bool(_output("git", "-C", str(ROOT), "status", "--porcelain", "--", "appliance", "bpf_prog").strip()),
    }


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20).stdout
    except FileNotFoundError:
        return ""


def where(about: dict[str, Any]) -> str:
    return f"Linux {about['kernel']}, {about['cpu']}, {about['cpus']} CPUs, commit {about['commit']}"


def write(directory: Path, rows: list[Row], about: dict[str, Any]) -> Path:
    """The JSON, twice, and the picture; where the JSON is."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**about, "rows": [row.to_json() for row in rows]}, indent=1, ensure_ascii=False) + "\n"
    path = directory / f"{about['date'][:10]}-{about['kernel']}.json"
    path.write_text(text)
    (directory / "latest.json").write_text(text)
    (directory / "latest.svg").write_text(picture.draw(rows, f"{about['date'][:10]}, {where(about)}"))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of everything: less than a minute")
    parser.add_argument("--only", nargs="+", choices=("cost", "forwarding", "misses", "tcp"), default=[], help="only these groups")
    parser.add_argument("--output", type=Path, help=f"where to write (default: {RESULTS.relative_to(ROOT)}; a quick run: nowhere)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("the bench needs root: sudo make bench", file=sys.stderr)
        return 1
    for ending in (signal.SIGTERM, signal.SIGINT):  # so that everything is cleaned up
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    console, log = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 150
    about = {**machine(), "quick": arguments.quick}
    if about["load"] > BUSY_LOAD:
        log.print(f"the machine is busy (load {about['load']:.1f}): ratios hold to within their spread, values do not")
    rows: list[Row] = []
    status = log.status("…")
    start = time.monotonic()
    failure = ""

    def found(row: Row) -> None:
        rows.append(row)
        status.update(f"{row.group}: {row.name}")

    with status:
        try:
            measure(
                QUICK if arguments.quick else FULL,
                arguments.only,
                found,
                lambda name: log.print(f"measures {name}"),
            )
        except (BenchError, DatapathError, LabError, OSError) as error:
            failure = f"{type(error).__name__}: {error}"
    about["seconds"] = round(time.monotonic() - start, 1)
    console.print(table(rows))
    for number, note in enumerate(footnotes(rows), 1):
        console.print(f"({number}) {note}", style="dim", markup=False, highlight=False)
    console.print(LEGEND, style="dim", highlight=False)
    console.print(f"{about['seconds']:.0f} s, {where(about)}")
    if failure:
        log.print(failure, style="red", markup=False)
        return 1
    directory = arguments.output or (None if arguments.quick or arguments.only else RESULTS)
    if directory is not None:
        console.print(f"written: {write(directory, rows, about)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
