"""``run.py --quick`` measures everything that there is to measure. Not how fast: that would be a test of the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.processes import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(3000)]

RUN = Path(__file__).with_name("run.py")

COST = {f"cost.{hook}.{case}" for hook in ("xdp", "tc") for case in ("harness", "redirect")} | {
    f"cost.{hook}.{case}"
    for hook in ("xdp", "tc")
    for case in ("one", "some", "many", "many_4", "many_16", "many_64", "vlan", "nat", "drop")
}
FORWARDING = {
    f"forward.{row}.{flows}"
    for row in (
        "xdp_minimal",
        "xdp_lookup",
        "xdp_bridge",
        "xdp_ovs",
        "xdp_ovs_afxdp",
        "tc_minimal",
        "tc_bridge",
        "tc_ovs",
        "tc_ovs_afxdp",
    )
    for flows in ("one", "many_1")
}
MISSES = {f"misses{kind}.{row}" for kind in ("", ".crossed", ".unforeseen") for row in ("rate", "latency_p50", "latency_p99")}
MEGAFLOWS = {"megaflows.four_rules", "megaflows.firewall", "megaflows.routes"}
METERS = {f"meters.{rate}" for rate in ("pktps_100", "pktps_10k", "kbps_1m", "kbps_100m", "kbps_1g")}
CONTROL = {"flow_mods.add", "flow_mods.dump", "barrier.new_way", "barrier.reply", "packet_in.window", "packet_in.flood"}
PROCESS = {"memory.flows", "memory.megaflows", "memory.start", "memory.maps", "restart.lost"}
ATTACK = {"attack.udp", "attack.tcp"}
TCP = {
    f"tcp.{reference}.{what}" for reference in ("minimal", "bridge", "bridge_big", "ovs", "pair") for what in ("1", "8", "rtt")
} | {f"tcp.{reference}.way" for reference in ("minimal", "bridge")}


def is_difference(row: str) -> bool:
    """Of two measurements, and so below 0 where the machine was slower just then."""
    return row.startswith("cost.") or row.endswith(".way")


def test_every_row_is_measured_or_says_what_is_missing(tmp_path: Path) -> None:
    done = run([sys.executable, str(RUN), "--quick", "--output", str(tmp_path)], 2900)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "latest.json").read_text())
    rows = {row["id"]: row for row in result["rows"]}
    alone = {"cost.tc.flood", "cost.tc.parts", "forward.minimal_xdp.one"}
    assert set(rows) == COST | FORWARDING | alone | MEGAFLOWS | METERS | MISSES | CONTROL | PROCESS | TCP | ATTACK
    for row in rows.values():
        if not row["samples"] or (row["reference"] and not row["reference_samples"]):
            assert "not installed" in row["note"] or "no /dev/net/tun" in row["note"] or "without AF_XDP" in row["note"], row
        elif row["reference"] and not is_difference(row["id"]):
            assert row["ratio"] > 0, row
        if row["aim"] is not None and row["ratio"] is not None:
            assert row["met"] in (True, False), row
        assert row["name"] in done.stdout
    drawing = ElementTree.parse(tmp_path / "latest.svg")
    assert len(drawing.findall(".//{http://www.w3.org/2000/svg}rect")) > 30
