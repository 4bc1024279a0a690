"""The table as a picture for the README: bars, ours in one colour and what we compare with in another. Plain SVG, no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from results import Row

WIDTH, COLUMN, MARGIN = 980, 470, 20
BAR, STEP, TITLE = 13, 19, 40
LABEL, VALUE = 190, 70
PAIRS = {
    "misses.rate": "New flows a second, an entry each",
    "misses.crossed.rate": "New flows a second, by two tables",
    "misses.unforeseen.rate": "New flows a second, none foreseen",
    "misses.latency_p50": "Latency of a first packet, an entry each, median: µs, less is better",
    "flow_mods.add": "Flow entries added a second",
    "flow_mods.dump": "Flow entries dumped a second",
    "barrier.new_way": "Flow-mod and barrier to the new way: ms, less is better",
    "packet_in.window": "Packet-ins a second",
    "memory.flows": "Memory of 100,000 flow entries: MB, less is better",
    "memory.megaflows": "Memory of 100,000 megaflows: MB, less is better",
}
"""Rows that have a panel each."""
OURS, PEER, INK, FAINT, PAPER = "#d9622b", "#8fa3b8", "#1f2933", "#5f6c7b", "#ffffff"


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: float
    ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        return TITLE + STEP * len(self.bars) + 14


def panels(rows: Iterable[Row]) -> list[Panel]:
    """What the picture shows of the rows; panels without figures are left out."""
    by_id = {row.id: row for row in rows}

    def contenders(title: str, ids: Sequence[str]) -> Panel:
        bars: dict[str, Bar] = {}
        for name in ids:
            row = by_id.get(name)
            if row is None:
                continue
            label = row.name.rpartition(", ")[0] or row.name
            if row.value is not None:
                bars.setdefault(label, Bar(label, row.value, ours=True))
            if row.reference_value is not None:
                bars.setdefault(row.reference, Bar(row.reference, row.reference_value, ours=False))
        return Panel(title, sorted(bars.values(), key=lambda bar: -bar.value))

    def pairs(title: str, prefix: str) -> Panel:
        bars: list[Bar] = []
        for row in by_id.values():
            if not row.id.startswith(prefix) or row.value is None or row.reference_value is None or row.id.endswith("flood"):
                continue
            bars += [Bar(row.name.partition(" ")[2], row.value, ours=True), Bar(row.reference, row.reference_value, ours=False)]
        return Panel(title, bars)

    def pair(title: str, row: Row) -> Panel:
        figures = ((row.name.partition(", ")[0], row.value, True), (row.reference, row.reference_value, False))
        return Panel(title, [Bar(name, value, ours) for name, value, ours in figures if value is not None])

    def forwarding(key: str) -> Panel:
        rows = [row for row in by_id.values() if row.group == "forwarding rate" and row.id.endswith(f".{key}") and row.reference]
        flows = rows[0].name.rpartition(", ")[2] if rows else ""
        return contenders(f"Forwarding on one core, 64-byte frames, {flows}: Mpps", [row.id for row in rows])

    keys = sorted({row.id.rpartition(".")[2] for row in by_id.values() if row.group == "forwarding rate"})
    chosen = [
        forwarding("one"),
        *([forwarding(keys[-2])] if len(keys) > 1 and keys[-1] == "one" else []),
        contenders("TCP, 1 stream: Gb/s", ("tcp.pair.1", "tcp.minimal.1", "tcp.bridge.1", "tcp.ovs.1")),
        contenders("TCP, 8 streams: Gb/s", ("tcp.pair.8", "tcp.minimal.8", "tcp.bridge.8", "tcp.ovs.8")),
        pairs("The XDP program: ns a packet, less is better", "cost.xdp."),
        pairs("The TC program: ns a packet, less is better", "cost.tc."),
        *(pair(title, by_id[name]) for name, title in PAIRS.items() if name in by_id),
    ]
    return [panel for panel in chosen if panel.bars]


def draw(rows: Iterable[Row], caption: str) -> str:
    """The SVG: two columns, each panel in the one that is shorter so far."""
    heights = [MARGIN, MARGIN]
    body: list[str] = []
    for panel in panels(rows):
        column = 0 if heights[0] <= heights[1] else 1
        body.extend(_panel(panel, MARGIN + column * COLUMN, heights[column]))
        heights[column] += panel.height
    height = max(heights) + 26
    body.append(f'<text x="{MARGIN}" y="{height - 12}" fill="{FAINT}" font-size="11">{escape(caption)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}"/>'
    )
    return "\n".join([head, *body, "</svg>"]) + "\n"


def _panel(panel: Panel, x: int, y: int) -> Iterable[str]:
    yield f'<text x="{x}" y="{y + 24}" fill="{INK}" font-size="13" font-weight="600">{escape(panel.title)}</text>'
    longest = max(bar.value for bar in panel.bars)
    room = COLUMN - MARGIN - LABEL - VALUE
    for number, bar in enumerate(panel.bars):
        top = y + TITLE + number * STEP
        width = max(bar.value / longest * room, 1)
        text, colour = (INK, OURS) if bar.ours else (FAINT, PEER)
        yield f'<text x="{x + LABEL - 8}" y="{top + 10}" fill="{text}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect x="{x + LABEL}" y="{top}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + LABEL + width + 6:.1f}" y="{top + 10}" fill="{text}">{figure(bar.value)}</text>'


def figure(value: float) -> str:
    """Three digits that count, or a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
