"""``ofswitch lab`` as its user runs it, in a network namespace of the test's own; and what it does when something fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import ended

from appliance.lab import namespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def home() -> Iterator[str]:
    """A namespace in which the lab, and with it the switch's ends, is. A lab that still runs afterwards is ended."""
    name = f"ofs-test-{os.getpid()}"
    namespace.create(name)
    try:
        namespace.inside(name, lambda: subprocess.run(["ip", "link", "set", "lo", "up"], check=True))
        yield name
    finally:
        while started:
            ended(started.pop())
        namespace.remove(name)


started: list[subprocess.Popen[str]] = []


def write(tmp_path: Path, name: str, transfer_mb: int = 200, more: str = "") -> str:
    path = tmp_path / f"{name}.yaml"
    hosts = "\n".join(f"    - {{name: h{n}, address4: 10.0.0.{n}/24, address6: 'fd00::{n}/64'}}" for n in (1, 2, 3))
    text = f"name: {name}\ncontrol_socket: {tmp_path}/{name}.sock\nlab:\n  transfer_mb: {transfer_mb}\n  hosts:\n{hosts}\n{more}"
    path.write_text(text)
    return str(path)


def start(home: str, path: str, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "appliance.cli.main", "lab", path, *flags]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": ENVIRONMENT, "cwd": ROOT}
    started.append(namespace.inside(home, lambda: subprocess.Popen(command, **options)))
    return started[-1]


def left(process: subprocess.Popen[str], home: str) -> list[str]:
    """Namespaces and interfaces of a lab that has ended."""
    links = namespace.inside(home, lambda: subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout)
    names = [line.split(": ")[1].split("@")[0] for line in links.splitlines()]
    return [name for name in names if name != "lo"] + namespaces(process)


def namespaces(process: subprocess.Popen[str]) -> list[str]:
    return [entry for entry in os.listdir("/run/netns") if re.search(rf"-{process.pid}(?!\d)", entry)]


def test_once_works_and_leaves_nothing(home: str, tmp_path: Path) -> None:
    process = start(home, write(tmp_path, "once"), "--once")
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    assert output.count(" → ") == 2 * 6
    assert "200,000,000 bytes in" in output
    assert "✓ all 12 pings and the transfer worked; the fast path forwarded" in output
    assert "✓ nothing is left" in output
    assert "ofswitch megaflows" in output
    assert left(process, home) == []
    assert not (tmp_path / "once.sock").exists()


def test_the_firewall_lab_blocks_what_it_should(home: str, tmp_path: Path) -> None:
    text = (
        (ROOT / "configs" / "firewall.yaml")
        .read_text()
        .replace("name: firewall", f"name: wall\ncontrol_socket: {tmp_path}/wall.sock")
    )
    path = tmp_path / "wall.yaml"
    path.write_text(text)
    process = start(home, str(path), "--once")
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    assert output.count("out of reach\n") == 1 + 2  # the heading says "to be out of reach"


def test_a_port_that_should_be_blocked_and_is_not_is_a_failure(home: str, tmp_path: Path) -> None:
    path = write(tmp_path, "open", 20)
    Path(path).write_text(Path(path).read_text().replace("transfer_mb: 20", "transfer_mb: 20\n  blocked_tcp_ports: [23]"))
    process = start(home, path, "--once")
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 1
    assert "✗ TCP port 23 was reached over IPv4, and should not be" in output
    assert left(process, home) == []


def test_it_stays_up_until_a_signal_and_answers_meanwhile(home: str, tmp_path: Path) -> None:
    process = start(home, write(tmp_path, "stay", 10))
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "stays up until Ctrl-C" in line:
            break
    else:
        pytest.fail("".join(lines))
    asked = [sys.executable, "-m", "appliance.cli.main", "flows", "--json", "--control-socket", f"{tmp_path}/stay.sock"]
    flows = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout)
    assert flows["total"] >= 2
    assert len(namespaces(process)) == 3
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "✓ nothing is left" in output
    assert left(process, home) == []


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_a_signal_at_any_moment_leaves_nothing(home: str, tmp_path: Path, seconds: float) -> None:
    process = start(home, write(tmp_path, "early"))
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # Python may lose one while it starts
        output, _ = process.communicate(timeout=60)
    # Where the switch starts quickly, all has been shown by the later moment, and Ctrl-C is the proper end.
    assert process.returncode in (1, -signal.SIGINT) or (process.returncode == 0 and "✓ nothing is left" in output)
    assert left(process, home) == []


def test_a_switch_that_cannot_start_is_a_failure_with_its_log(home: str, tmp_path: Path) -> None:
    (tmp_path / "broken.sock").mkdir()
    process = start(home, write(tmp_path, "broken"), "--once")
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 1
    assert "✗ the switch ended before it was ready" in output
    assert "The end of the switch's log:" in output
    assert "broken.sock" in output
    assert left(process, home) == []
