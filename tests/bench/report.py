"""What the measurements are shown as: the table, JSON and where it all comes from."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import picture
from results import Row
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 150
LEGEND = (
    "Value: the median. Ratio: the median of the ratios of samples taken one after the other; spread: half its interquartile range."
)


def console() -> Console:
    """To standard output; wide enough for the table if that is no terminal."""
    result = Console()
    if not result.is_terminal:
        result.width = WIDTH
    return result


def table(rows: Sequence[Row]) -> Table:
    result = Table(title_justify="left", header_style="bold", pad_edge=False)
    for heading, options in (
        ("measure", {"no_wrap": True}),
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


def aims(rows: Sequence[Row]) -> str:
    """How many of them are met."""
    judged = [row.met for row in rows if row.met is not None]
    return f"{sum(judged)} of {len(judged)} aims are met"


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What rows have to say besides figures; the table refers to them by number."""
    return list(dict.fromkeys(row.note for row in rows if row.note))


def _figure(value: float | None, unit: str) -> str:
    return f"{picture.figure(value)} {unit}" if value is not None else "–"


def footer(to: Console, rows: Sequence[Row]) -> None:
    """What the table's numbers and columns mean."""
    for number, note in enumerate(footnotes(rows), 1):
        to.print(f"({number}) {note}", style="dim", markup=False, highlight=False)
    to.print(LEGEND, style="dim", highlight=False)


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
        "open_vswitch": open_vswitch_version(),
        **commit(),
    }


def open_vswitch_version() -> str:
    return _output("ovs-vswitchd", "--version").partition("\n")[0].rpartition(" ")[2]


def commit() -> dict[str, Any]:
    """What is measured; ``changed`` says that the code differs from it."""
    return {
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


def write(directory: Path, rows: Sequence[Row], about: dict[str, Any]) -> Path:
    """The JSON, twice, and the picture; where the JSON is."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**about, "rows": [row.to_json() for row in rows]}, indent=1, ensure_ascii=False) + "\n"
    path = directory / f"{about['date'][:10]}-{about['kernel']}.json"
    path.write_text(text)
    (directory / "latest.json").write_text(text)
    (directory / "latest.svg").write_text(picture.draw(rows, f"{about['date'][:10]}, {where(about)}"))
    return path
