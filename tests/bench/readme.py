"""The README's figures: made from what is in bench/results/, so that no claim is without its run.

It writes the parts of README.md between `<!-- NAME -->` and `<!-- /NAME -->`, and bench/results/latest.md. With ``--check``
it only says what would change, and fails if anything would. The benches that write to bench/results/ do the first themselves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from picture import figure
from report import ROOT, aims, where
from results import Row

README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"

SHOWN = (
    *("cost.xdp.one", "cost.tc.one", "cost.xdp.many_16", "cost.tc.many_16", "cost.tc.vlan", "cost.xdp.nat"),
    *("forward.xdp_lookup.one", "forward.xdp_bridge.one", "forward.xdp_ovs.one", "forward.xdp_ovs_afxdp.one"),
    *("forward.tc_minimal.one", "forward.tc_bridge.one", "forward.tc_ovs.one", "forward.tc_ovs_afxdp.one"),
    *("tcp.bridge.1", "tcp.bridge.8", "tcp.bridge_big.1", "tcp.bridge_big.8", "tcp.bridge.rtt", "tcp.ovs.1"),
    *("megaflows.four_rules", "megaflows.firewall", "megaflows.routes"),
    *("misses.rate", "misses.latency_p50", "misses.latency_p99", "misses.crossed.rate", "misses.crossed.latency_p50"),
    *("misses.unforeseen.rate", "misses.unforeseen.latency_p50"),
    *("flow_mods.add", "flow_mods.dump"),
    *("barrier.new_way", "packet_in.window", "memory.flows", "memory.megaflows", "memory.start"),
    *("meters.pktps_10k", "meters.kbps_1g", "restart.lost"),
)
"""Of the rows of `make bench`, those in the README; and all of the group ATTACK."""
ATTACK = "attack"
MET = {True: "yes", False: "**no**", None: ""}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def rows_of(run: dict[str, Any]) -> list[Row]:
    return [Row.from_json(row) for row in run["rows"]]


def table(rows: Iterable[Row]) -> list[str]:
    """In Markdown, each group under its name."""
    lines = ["| | ofswitch | beside | its figure | ratio | aim | met |", "|---|---:|---|---:|---:|---:|---|"]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(f"| **{group}** | | | | | | |")
        name = row.name.removeprefix("ofswitch, ")
        cells = (
            name[0].upper() + name[1:],
            _figure(row.value, row.unit),
            row.reference,
            _figure(row.reference_value, row.unit) if row.reference else "",
            f"{row.ratio:.2f}" if row.ratio is not None else "",
            str(row.aim or ""),
            MET[row.met],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _figure(value: float | None, unit: str) -> str:
    return f"{figure(value)} {unit}".rstrip() if value is not None else "–"


def bench_part(run: dict[str, Any]) -> list[str]:
    rows = rows_of(run)
    kind = "quick run (its figures mean little)" if run["quick"] else "full run"
    return [
        f"A {kind} of {run['date'][:10]}, {run['seconds'] / 60:.0f} min, {where(run)}: {aims(rows)}.",
        "",
        *table(row for row in rows if row.id in SHOWN or row.group == ATTACK),
    ]


def guest_part(run: dict[str, Any]) -> list[str]:
    lines = [f"Of {run['date'][:10]}, commit {run['commit']}:"]
    for guest in run["guests"]:
        rows = rows_of(guest)
        lines += ["", f"Linux {guest['kernel']}, Open vSwitch {guest['open_vswitch']}", "", *table(rows)]
    return lines


def kernels_part(run: dict[str, Any]) -> list[str]:
    head = [f"Of {run['date'][:10]}, commit {run['commit']}:", "", "| kernel | passed | failed | skipped |", "|---|---:|---:|---:|"]
    return head + [
        f"| Linux {kernel['kernel']} | {kernel['passed']} | {kernel['failed']} | {kernel['skipped']} |" for kernel in run["kernels"]
    ]


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """``text`` with the part of that name anew."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(first)
    _, also, after = rest.partition(last)
    if not (found and also):
        raise SystemExit(f"{README.name}: no part between {first} and {last}")
    return "\n".join([before + first, *lines, last + after])


def made() -> dict[Path, str]:
    """What the files should be."""
    run = read(RESULTS / "latest.json")
    readme = README.read_text()
    for name, part, source in (
        ("bench", bench_part, run),
        ("bench-guest", guest_part, read(RESULTS / "instructions.json")),
        ("guest-test", kernels_part, read(RESULTS / "guest-tests.json")),
    ):
        readme = replaced(readme, name, part(source))
    rows = rows_of(run)
    whole = [f"# All rows of `make bench`, {run['date'][:10]}", "", f"{where(run)}: {aims(rows)}.", "", *table(rows)]
    return {README: readme, RESULTS / "latest.md": "\n".join(whole) + "\n"}


def outdated() -> dict[Path, str]:
    """Those files that are not what they should be, and what they should."""
    return {path: text for path, text in made().items() if not path.exists() or path.read_text() != text}


def refresh() -> list[Path]:
    """Write what is outdated; which files those were."""
    files = outdated()
    for path, text in files.items():
        path.write_text(text)
    return list(files)


def main() -> int:
    if "--check" in sys.argv:
        files = outdated()
        for path in files:
            print(f"{path.relative_to(ROOT)} is not what the results say: python tests/bench/readme.py", file=sys.stderr)
        return 1 if files else 0
    for path in refresh():
        print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
