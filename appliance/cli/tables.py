"""The agent's answers as tables. Their schema is in ``agent.control``.

Invariant: what is not on a terminal is never cut or wrapped, so that ``ofswitch flows | grep`` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from appliance.model.ports import LOCAL_PORT

Json = Mapping[str, Any]

UNBOUNDED = 100_000
TIERS = {"xdp": "fast path, XDP", "tc": "fast path, TC", "slow_path": "slow path", "dropped": "dropped"}
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def console(stderr: bool = False) -> Console:
    """As wide as the terminal; without one, as wide as what is printed."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=UNBOUNDED)


# ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def quantity(number: float, unit: str = "") -> str:
    """Three digits and a decimal prefix: 1.23 GB, 45 kB, 999."""
    for prefix, size in _UNITS:
        if number >= size:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip()


def duration(seconds: float) -> str:
    """12.3 s, 4 min 5 s, 3 h 2 min, 5 d 1 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, name, small, small_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // small} {small_name}"
    return f"{whole} s"


@dataclass
class Records:
    """Rows under columns; where they have no room side by side, each is a paragraph of its own, and nothing is cut up.

    ``right``: columns aligned to the right. ``long``: those that get a line of their own in a paragraph.
    """

    columns: Sequence[str]
    right: Sequence[str] = ()
    long: Sequence[str] = ()
    rows: list[tuple[str | Text, ...]] = field(default_factory=list)

    def add(self, *cells: str | Text) -> None:
        self.rows.append(cells)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in self.columns:
            table.add_column(column, justify="right" if column in self.right else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _paragraphs(self, width: int) -> Iterator[RenderableType]:
        for row in self.rows:
            cells = [(column, cell) for column, cell in zip(self.columns, row, strict=False) if cell]
            line = Text()
            for part in (_named(column, cell) for column, cell in cells if column not in self.long):
                if line and line.cell_len + 2 + part.cell_len > width:
                    yield line
                    line = Text("  ")
                line.append("  " if line.plain.strip() else "").append_text(part)
            yield line
            for column, cell in cells:
                if column in self.long:
                    yield Padding(_named(column, cell), (0, 0, 0, 4))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table()
        if console.measure(table, options=options.update(max_width=UNBOUNDED)).maximum <= options.max_width:
            yield table
        else:
            yield from self._paragraphs(options.max_width)


def _named(column: str, cell: str | Text) -> Text:
    return Text(f"{column} ", style="dim").append_text(cell if isinstance(cell, Text) else Text(cell))


def _pairs(rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), value)
    return table


# ── show ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
_STATE_STYLE = {"connected": "green", "connecting": "yellow", "disconnected": "red", "up": "green", "down": "red", "missing": "red"}


def _state(state: str) -> Text:
    return Text(state, style=_STATE_STYLE.get(state, ""))


def _controller(controller: Json) -> Text:
    text = Text(f"{controller['target']}  ") + _state(controller["state"])
    if controller["state"] == "connected":
        text.append(f", OpenFlow {controller['version']}, for {duration(controller['seconds'])}")
        if controller.get("security"):
            text.append(f", {controller['security']}")
        if controller.get("dropped_packet_ins"):
            text.append(f", {controller['dropped_packet_ins']:,} packet-ins dropped: it reads too slowly")
    elif controller.get("problem"):
        text.append(f": {controller['problem']}")
    return text


def _integrated(integrated: Json) -> str:
    state = f"pid {integrated['pid']}" if integrated["pid"] is not None else "not running"
    return f"{', '.join(integrated['apps'])} ({state}, {integrated['restarts']} restarts)"


def tiers(answer: Json, what: str = "packets that came in") -> Records:
    """What became of them."""
    table = Records((what, "packets", "share"), right=("packets", "share"))
    for tier, name in TIERS.items():
        table.add(name, f"{answer['packets'][tier]:,}", f"{answer['shares'][tier]:.2%}")
    return table


def show(answer: Json) -> RenderableType:
    versions = answer["versions"]
    mode = answer["fail_mode"] + (", forwarding by itself now" if answer["standalone"] else "")
    rows: list[tuple[str, str | Text]] = [
        ("switch", Text(answer["name"], style="bold")),
        ("datapath id", answer["datapath_id"]),
        ("up for", f"{duration(answer['uptime'])} (pid {answer['pid']})"),
        ("fail mode", mode),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("ports", str(answer["ports"])),
        ("flow entries", f"{answer['flows']:,}"),
        ("megaflows", f"{answer['megaflows']:,} of at most {answer['megaflow_limit']:,}, with {answer['masks']} masks"),
    ]
    if answer["prefetched"]:
        rows.append(("made ahead", f"{answer['prefetched']:,} megaflows, before their packets came"))
    for place, controller in enumerate(answer["controllers"]):
        rows.append(("controllers" if not place else "", _controller(controller)))
    if not answer["controllers"]:
        rows.append(("controllers", "none"))
    if answer["listening"]:
        rows.append(("listening", ", ".join(answer["listening"])))
    if answer["integrated_controller"] is not None:
        rows.append(("integrated", _integrated(answer["integrated_controller"])))
    for name, counts in (("drops", answer["drops"]), ("upcalls", answer["upcalls"])):
        if counts:
            rows.append((name, ", ".join(f"{reason.replace('_', ' ')}: {count:,}" for reason, count in counts.items())))
    if answer["faults"]:
        rows.append(("faults", Text(f"{answer['faults']} of the switch itself; see its log", style="red")))
    received = f"{quantity(answer['tiers']['rx_packets'])} packets in, {quantity(answer['tiers']['rx_bytes'], 'B')}"
    rows.append(("traffic", received))
    return Group(_pairs(rows), "", tiers(answer["tiers"]))


# ── flows and megaflows ────────────────────────────────────────────────────────────────────────────────────────────────
def _more(shown: int, total: int) -> list[RenderableType]:
    return [Text(f"{shown:,} of {total:,} shown; --limit N for more", style="dim")] if shown < total else []


def _timeouts(flow: Json) -> str:
    parts = [f"{name} {flow[key]} s" for name, key in (("idle", "idle_timeout"), ("hard", "hard_timeout")) if flow[key]]
    return ", ".join(parts)


def flows(answer: Json) -> RenderableType:
    table = Records(
        ("table", "priority", "match", "instructions", "packets", "bytes", "age", "idle", "timeouts", "cookie"),
        right=("table", "priority", "packets", "bytes", "age", "idle"),
        long=("match", "instructions"),
    )
    for flow in answer["flows"]:
        table.add(
            str(flow["table_id"]),
            str(flow["priority"]),
            flow["match_text"] or "any",
            flow["instructions"] or "drop",
            f"{flow['n_packets']:,}",
            quantity(flow["n_bytes"], "B"),
            duration(flow["duration"]),
            duration(flow["idle_age"]),
            _timeouts(flow),
            flow["cookie"] if flow["cookie"] != "0x0" else "",
        )
    if not answer["flows"]:
        return Text("no flow entries")
    return Group(table, *_more(len(answer["flows"]), answer["total"]))


def megaflows(answer: Json) -> RenderableType:
    """Why each is in its tier stands below, once for all that it is true of."""
    table = Records(
        ("id", "match", "actions", "tier", "packets", "bytes", "punted", "last used"),
        right=("id", "packets", "bytes", "punted", "last used"),
        long=("match", "actions"),
    )
    reasons: dict[str, int] = {}
    for item in answer["megaflows"]:
        told = "; ".join((*([item["why"]] if item["why"] else ()), *item["exceptions"]))
        note = f" [{reasons.setdefault(told, len(reasons) + 1)}]" if told else ""
        table.add(
            str(item["id"]),
            item["match_text"] or "any",
            item["actions"] or "drop",
            Text(item["tier"].replace("_", " ") + note),
            f"{item['packets']:,}",
            quantity(item["bytes"], "B"),
            f"{item['punted']:,}",
            duration(item["last_used"]),
        )
    if not answer["megaflows"]:
        return Text("no megaflows")
    notes = [Text(f"[{number}] {reason}", style="dim") for reason, number in reasons.items()]
    return Group(table, *notes, *_more(len(answer["megaflows"]), answer["total"]))


# ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _number(port: Json) -> str:
    return "LOCAL" if port["number"] == LOCAL_PORT else str(port["number"])


def ports(answer: Sequence[Json]) -> RenderableType:
    numbers = ("packets in", "bytes in", "packets out", "bytes out", *("xdp", "tc", "slow path", "dropped"))
    table = Records(("port", "interface", "state", "speed", "hook", *numbers), right=("port", *numbers))
    reasons: dict[str, list[str]] = {}
    for port in answer:
        if port["state"] == "missing":
            table.add(_number(port), port["interface"], _state("missing"))
            continue
        counters = port["counters"]
        state = _state(port["state"])
        if port["config"]:
            state.append(f" ({', '.join(port['config'])})")
        table.add(
            _number(port),
            port["interface"],
            state,
            quantity(port["speed_kbps"] * 1000, "b/s") if port["speed_kbps"] else "",
            port["hook"],
            f"{counters['rx_packets']:,}",
            quantity(counters["rx_bytes"], "B"),
            f"{counters['tx_packets']:,}",
            quantity(counters["tx_bytes"], "B"),
            *(f"{counters[tier]:,}" for tier in TIERS),
        )
        reasons.setdefault(f"hook {port['hook']}: {port['hook_reason']}", []).append(_number(port))
        if port["output_reason"]:
            reasons.setdefault(f"output by {port['output']}: {port['output_reason']}", []).append(_number(port))
        reasons.setdefault(f"{'' if port['big_tcp'] else 'no '}BIG TCP: {port['big_tcp_reason']}", []).append(_number(port))
    problems = [Text(f"port {_number(port)}: {port['problem']}", style="red") for port in answer if port.get("problem")]
    notes = [Text(f"port {', '.join(numbers)}: {reason}", style="dim") for reason, numbers in reasons.items()]
    return Group(table, *problems, *notes)


def plugins(answer: Sequence[Json]) -> RenderableType:
    table = Records(("plug-in", "id", "state", "arguments", "plugin_bits", "counters"), right=("id",), long=("counters",))
    for plugin in answer:
        table.add(
            plugin["name"],
            str(plugin["id"] or ""),
            plugin["state"] if plugin["state"] == "works" else Text(plugin["state"], style="red"),
            " ".join(plugin["arguments"] or ()),
            plugin["plugin_bits"] or "",
            ", ".join(f"{name} {count:,}" for name, count in plugin["counters"].items()),
        )
    faults = [Text(f"{plugin['name']}: {plugin['fault']}") for plugin in answer if plugin["fault"]]
    return Group(table, *faults)


RENDERERS: dict[str, Callable[[Any], RenderableType]] = {
    "show": show,
    "flows": flows,
    "megaflows": megaflows,
    "ports": ports,
    "plugins": plugins,
}
