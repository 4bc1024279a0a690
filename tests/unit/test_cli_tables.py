"""What the tables say of the agent's answers; the answers are of the schema in ``agent.control``."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from appliance.cli import tables


def text(what: str, answer: Any, width: int = 400) -> list[str]:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(tables.RENDERERS[what](answer))
    return [line.rstrip() for line in capture.get().splitlines()]


def cells(line: str) -> list[str]:
    """A table's row, cell by cell: columns are three spaces apart."""
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


SHOW: dict[str, Any] = {
    "name": "edge",
    "datapath_id": "00000200000000ff",
    "fail_mode": "standalone",
    "standalone": True,
    "pid": 77,
    "uptime": 3723.4,
    "versions": {"ofswitch": "0.1.0", "openflow": "1.3", "kernel": "6.1.0", "python": "3.11.2"},
    "ports": 2,
    "flows": 12345,
    "megaflows": 9,
    "megaflow_limit": 65536,
    "masks": 3,
    "prefetched": 1234,
    "controllers": [
        {
            "target": "tcp:192.0.2.1:6653",
            "state": "connected",
            "version": "1.3",
            "seconds": 61,
            "dropped_packet_ins": 3,
            "backlog": 0,
        },
        {"target": "tcp:192.0.2.2:6653", "state": "disconnected", "problem": "Connection refused"},
    ],
    "listening": ["ptcp:6654:127.0.0.1"],
    "integrated_controller": {"apps": ["ryu_apps/l2_learning.py"], "pid": None, "restarts": 4},
    "tiers": {
        "packets": {"xdp": 1, "tc": 9989, "slow_path": 8, "dropped": 2},
        "shares": {"xdp": 0.0001, "tc": 0.9989, "slow_path": 0.0008, "dropped": 0.0002},
        "rx_packets": 10000,
        "rx_bytes": 1234567,
    },
    "drops": {"no_action": 2},
    "upcalls": {"miss": 8},
    "dropped_packet_ins": 3,
    "faults": 1,
}


def test_show() -> None:
    lines = text("show", SHOW)
    found = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in lines if "  " in line}
    assert found["switch"] == "edge"
    assert found["datapath id"] == "00000200000000ff"
    assert found["up for"] == "1 h 2 min (pid 77)"
    assert found["fail mode"] == "standalone, forwarding by itself now"
    assert found["versions"] == "ofswitch 0.1.0, openflow 1.3, kernel 6.1.0, python 3.11.2"
    assert found["flow entries"] == "12,345"
    assert found["made ahead"] == "1,234 megaflows, before their packets came"
    assert "connected, OpenFlow 1.3, for 1 min 1 s, 3 packet-ins dropped: it reads too slowly" in found["controllers"]
    assert any("tcp:192.0.2.2:6653  disconnected: Connection refused" in line for line in lines)
    assert found["listening"] == "ptcp:6654:127.0.0.1"
    assert found["integrated"] == "ryu_apps/l2_learning.py (not running, 4 restarts)"
    assert found["drops"] == "no action: 2"
    assert found["upcalls"] == "miss: 8"
    assert found["faults"] == "1 of the switch itself; see its log"
    assert found["traffic"] == "10.0 k packets in, 1.23 MB"
    assert [cells(line) for line in lines[-4:]] == [
        ["fast path, XDP", "1", "0.01%"],
        ["fast path, TC", "9,989", "99.89%"],
        ["slow path", "8", "0.08%"],
        ["dropped", "2", "0.02%"],
    ]


def test_show_of_a_quiet_switch() -> None:
    quiet = {
        **SHOW,
        "controllers": [],
        "listening": [],
        "integrated_controller": None,
        "drops": {},
        "upcalls": {},
        "faults": 0,
        "prefetched": 0,
    }
    lines = text("show", {**quiet, "standalone": False})
    assert any(line.split() == ["controllers", "none"] for line in lines)
    assert not [line for line in lines if line.startswith(("listening", "integrated", "drops", "upcalls", "faults", "made"))]


FLOW = {
    "table_id": 3,
    "priority": 100,
    "match": [["in_port", "1", None]],
    "match_text": "in_port=1",
    "instructions": "apply_actions(output:2)",
    "cookie": "0x2a",
    "n_packets": 1234567,
    "n_bytes": 99,
    "duration": 12.34,
    "idle_age": 0.5,
    "idle_timeout": 60,
    "hard_timeout": 300,
    "flags": ["send_flow_rem"],
}


def test_flows() -> None:
    bare = {**FLOW, "match_text": "", "instructions": "", "cookie": "0x0", "idle_timeout": 0, "hard_timeout": 0}
    header, _, first, second, more = text("flows", {"total": 7, "flows": [FLOW, bare]})
    assert cells(header) == ["table", "priority", "match", "instructions", "packets", "bytes", "age", "idle", "timeouts", "cookie"]
    row = [
        "3",
        "100",
        "in_port=1",
        "apply_actions(output:2)",
        "1,234,567",
        "99 B",
        "12.3 s",
        "0.5 s",
        "idle 60 s, hard 300 s",
        "0x2a",
    ]
    assert cells(first) == row
    assert cells(second) == ["3", "100", "any", "drop", "1,234,567", "99 B", "12.3 s", "0.5 s"]
    assert more == "2 of 7 shown; --limit N for more"
    assert text("flows", {"total": 0, "flows": []}) == ["no flow entries"]
    assert len(text("flows", {"total": 1, "flows": [FLOW]})) == 3


def test_megaflows() -> None:
    """What keeps several from a faster tier is said once."""
    item = {"id": 5, "match": [], "match_text": "", "actions": "", "packets": 4, "bytes": 2000, "punted": 1, "last_used": 90.0}
    flooded = {**item, "tier": "tc", "why": "a flood", "exceptions": ["slow path: a third tag"]}
    fast = {**item, "tier": "xdp", "why": "", "exceptions": []}
    slow = {**item, "tier": "slow_path", "why": "PBB", "exceptions": []}
    _, _, *lines = text("megaflows", {"total": 4, "megaflows": [flooded, fast, slow, flooded]})
    assert cells(lines[0]) == ["5", "any", "drop", "tc [1]", "4", "2.00 kB", "1", "1 min 30 s"]
    assert [cells(line)[3] for line in lines[1:4]] == ["xdp", "slow path [2]", "tc [1]"]
    assert lines[4:] == ["[1] a flood; slow path: a third tag", "[2] PBB"]
    assert text("megaflows", {"total": 0, "megaflows": []}) == ["no megaflows"]


def port(number: int, **changed: Any) -> dict[str, Any]:
    counters = {"rx_packets": 10, "rx_bytes": 1000, "tx_packets": 20, "tx_bytes": 2_500_000, "xdp": 1, "tc": 2}
    return {
        "number": number,
        "interface": f"eth{number}",
        "state": "up",
        "link": "up",
        "problem": "",
        "config": [],
        "hw_addr": "02:00:00:00:00:01",
        "mtu": 1500,
        "speed_kbps": 10_000_000,
        "hook": "tc",
        "hook_reason": "veth is virtual",
        "output": "redirect",
        "output_reason": "",
        "big_tcp": False,
        "big_tcp_reason": "as configured",
        "counters": {**counters, "slow_path": 3, "dropped": 4, "tx_slow_path": 5},
        **changed,
    }


def test_ports() -> None:
    answer = [
        port(1),
        port(2, state="down", config=["port_down", "no_fwd"], speed_kbps=0, problem="somebody took our program off at TC"),
        port(3, hook="xdp", hook_reason="ixgbe has native XDP", output_reason="as configured", big_tcp=True, big_tcp_reason="so"),
        {"number": 4, "interface": "gone", "state": "missing"},
    ]
    lines = text("ports", answer)
    numbers = ["10", "1.00 kB", "20", "2.50 MB", "1", "2", "3", "4"]
    assert cells(lines[2]) == ["1", "eth1", "up", "10.0 Gb/s", "tc", *numbers]
    assert cells(lines[3]) == ["2", "eth2", "down (port_down, no_fwd)", "tc", *numbers]
    assert cells(lines[4]) == ["3", "eth3", "up", "10.0 Gb/s", "xdp", *numbers]
    assert cells(lines[5]) == ["4", "gone", "missing"]
    assert lines[6:] == [
        "port 2: somebody took our program off at TC",
        "port 1, 2: hook tc: veth is virtual",
        "port 1, 2: no BIG TCP: as configured",
        "port 3: hook xdp: ixgbe has native XDP",
        "port 3: output by redirect: as configured",
        "port 3: BIG TCP: so",
    ]


def test_on_a_narrow_terminal_an_entry_is_a_paragraph_and_nothing_is_cut_up() -> None:
    lines = text("flows", {"total": 1, "flows": [FLOW]}, width=80)
    assert lines == [
        "table 3  priority 100  packets 1,234,567  bytes 99 B  age 12.3 s  idle 0.5 s",
        "  timeouts idle 60 s, hard 300 s  cookie 0x2a",
        "    match in_port=1",
        "    instructions apply_actions(output:2)",
    ]
    long = {**FLOW, "match_text": ",".join(f"field{n}=value{n}" for n in range(30))}
    folded = "".join("".join(line.split()) for line in text("flows", {"total": 1, "flows": [long]}, width=60))
    assert f"match{long['match_text']}" in folded


def test_ports_on_a_narrow_terminal() -> None:
    answer = [port(1), {"number": 4, "interface": "gone", "state": "missing"}]
    assert text("ports", answer, width=80) == [
        "port 1  interface eth1  state up  speed 10.0 Gb/s  hook tc  packets in 10",
        "  bytes in 1.00 kB  packets out 20  bytes out 2.50 MB  xdp 1  tc 2  slow path 3",
        "  dropped 4",
        "port 4  interface gone  state missing",
        "port 1: hook tc: veth is virtual",
        "port 1: no BIG TCP: as configured",
    ]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (123_456, "123 kB"),
        (1e9, "1.00 GB"),
        (2.5e15, "2500 TB"),
    ],
)
def test_quantities(number: float, expected: str) -> None:
    assert tables.quantity(number, "B") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert tables.duration(seconds) == expected
