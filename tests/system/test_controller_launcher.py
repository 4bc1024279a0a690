"""``python -m appliance.controller``: which apps it runs, and how it says no."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STOCK = Path(__file__).parent / "stock"
L2_LEARNING = ROOT / "ryu_apps" / "l2_learning.py"
FIREWALL = ROOT / "ryu_apps" / "firewall.py"

STOCK_RUNNER = """
import sys
from os_ken.base.app_manager import AppManager
from os_ken import cfg
import os_ken.controller.controller
cfg.CONF(args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", sys.argv[1]], project="os_ken")
AppManager.run_apps(sys.argv[2:])
"""
"""How os-ken's own documentation starts apps, with nothing of ours in the process."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(port: int, *apps: Path | str) -> list[str]:
    return [sys.executable, "-m", "appliance.controller", "--port", str(port), *map(str, apps)]


def stock(port: int, *apps: Path | str) -> list[str]:
    return [sys.executable, "-c", STOCK_RUNNER, str(port), *map(str, apps)]


@contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments: Path | str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a launcher that is expected to end by itself."""
    result = subprocess.run(
        [sys.executable, "-m", "appliance.controller", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
    return result.returncode, result.stderr


def hello(port: int, process: subprocess.Popen[str], address: str = "127.0.0.1") -> bytes:
    """The first 8 bytes that whoever listens there says: an OpenFlow header."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection((address, port), timeout=60) as connection:
                return connection.recv(8)
        except ConnectionRefusedError:
            if process.poll() is not None:
                pytest.fail(f"the controller ended: {process.communicate()}")
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.05)


OFPT_HELLO_1_3 = b"\x04\x00"
APPS = {
    "l2_learning": (L2_LEARNING,),
    "firewall and l2_learning": (FIREWALL, L2_LEARNING),
    "l2_learning and firewall": (L2_LEARNING, FIREWALL),
}


@pytest.mark.parametrize("apps", APPS.values(), ids=APPS.keys())
def test_our_apps_run_under_the_launcher(apps):
    port = free_port()
    with running(ours(port, *apps)) as process:
        assert hello(port, process)[:2] == OFPT_HELLO_1_3


@pytest.mark.parametrize("hub", ["native", "eventlet"])
@pytest.mark.parametrize("apps", APPS.values(), ids=APPS.keys())
def test_our_apps_run_under_stock_os_ken(hub, apps):
    port = free_port()
    with running(stock(port, *apps), OSKEN_HUB_TYPE=hub) as process:
        assert hello(port, process)[:2] == OFPT_HELLO_1_3


@pytest.mark.parametrize("app", ["ryu/simple_switch_13.py", "os_ken_simple_switch_13.py"])
def test_published_apps_of_either_name_run_unmodified(app):
    port = free_port()
    with running(ours(port, STOCK / app)) as process:
        assert hello(port, process)[:2] == OFPT_HELLO_1_3


def test_a_module_is_an_app_too():
    port = free_port()
    with running(ours(port, "simple_switch_13"), PYTHONPATH=str(STOCK / "ryu")) as process:
        assert hello(port, process)[:2] == OFPT_HELLO_1_3


def test_it_listens_on_loopback_alone_and_also_in_ipv6():
    port = free_port()
    with running([*ours(port, L2_LEARNING), "--address", "::1"]) as process:
        assert hello(port, process, "::1")[:2] == OFPT_HELLO_1_3
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
    code, text = run("--port", str(port), "--address", "0.0.0.0", L2_LEARNING)
    assert code == 2
    assert "0.0.0.0 is no loopback address" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_it_has_said_nothing_on_standard_error(number):
    port = free_port()
    with running(ours(port, FIREWALL, L2_LEARNING)) as process:
        hello(port, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, f"listening on 127.0.0.1 port {port}\n", "")


def test_it_dies_with_its_parent():
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([*sys.argv[1:], '--parent', str(os.getpid())])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    port = free_port()
    with running([sys.executable, "-c", script, *ours(port, L2_LEARNING)]) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        hello(port, parent)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 60
        while Path(f"/proc/{child}").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
            assert time.monotonic() < deadline, "the child lives on"
            time.sleep(0.02)


# ── faults: one clear message that names the file, and an exit code ────────────────────────────────────────────────────
BROKEN = {
    "syntax": ("import os\nx = 1 +\n", ":2: invalid syntax"),
    "import": ("import os\nimport nosuchmodule\n", ":2: ModuleNotFoundError: No module named 'nosuchmodule'"),
    "no app": ("import os\n", ": holds no Ryu app (a class derived from app_manager.RyuApp)"),
    "raises": (
        "from ryu.base import app_manager\nclass App(app_manager.RyuApp):\n    def __init__(self, *a, **k):\n        1 / 0\n",
        ":4: ZeroDivisionError: division by zero",
    ),
    "no OpenFlow": (
        "from ryu.base import app_manager\nclass App(app_manager.RyuApp):\n    pass\n",
        ": no app handles OpenFlow events, so nothing would listen",
    ),
}


@pytest.mark.parametrize(("source", "fault"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_app_is_named_in_one_line(tmp_path, source, fault):
    app = tmp_path / "app.py"
    app.write_text(source)
    assert run("--port", str(free_port()), app) == (3, f"controller: {app}{fault}\n")


def test_a_good_app_does_not_run_without_a_broken_one(tmp_path):
    app = tmp_path / "app.py"
    app.write_text("")
    assert run("--port", str(free_port()), L2_LEARNING, app)[0] == 3


@pytest.mark.parametrize("app", ["nosuch.py", "no.such.module", "nosuch"])
def test_a_missing_app_is_named_in_one_line(app):
    code, text = run("--port", str(free_port()), app)
    assert code == 3
    assert text.startswith(f"controller: {app}: ")
    assert text.count("\n") == 1


def test_a_port_in_use_is_said_in_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run("--port", str(port), L2_LEARNING) == (
            4,
            f"controller: cannot listen on 127.0.0.1 port {port}: Address already in use\n",
        )


def test_every_bad_firewall_rule_is_told_and_nothing_listens(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {action: dney}\n  - {action: deny, src: 10.0.0.1/8}\n")
    code, text = run("--port", str(free_port()), FIREWALL, L2_LEARNING, OFSWITCH_FIREWALL_RULES=str(rules))
    assert code == 3
    assert text.splitlines()[1:] == [
        f"{rules}:2: 'action' must be deny or allow",
        f"{rules}:3: 'src: 10.0.0.1/8' is no address prefix; it has bits set behind its length; write 10.0.0.0/8",
    ]
