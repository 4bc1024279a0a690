"""The supervisor of the integrated controller, with real child processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agent_support import BROADCAST, frame, passed_on, running, until, until_forwarding

from appliance.agent import integrated as integrated_module
from appliance.agent.integrated import IntegratedController, find_app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(integrated_module, "FIRST_DELAY", 0.05)


@pytest.fixture
def supervised(fast):
    """Makes supervisors and stops them."""
    made: list[IntegratedController] = []

    def make(*apps: str) -> IntegratedController:
        made.append(IntegratedController(apps))
        made[-1].start()
        return made[-1]

    yield make
    for controller in made:
        controller.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_switch_works_under_it_and_again_after_it_was_killed(tmp_path, fast, caplog):
    caplog.set_level(logging.INFO)
    with running(tmp_path) as box:
        until(box.connected, what="the integrated controller")
        until_forwarding(box)
        first = box.agent.integrated.pid
        assert passed_on(box, 1, BROADCAST + frame(2, 1)[6:]) == [2, 3]
        os.kill(first, signal.SIGKILL)
        until(lambda: not box.connected(), what="the loss is seen")
        until(box.connected, what="the next controller")
        second = box.agent.integrated.pid
        assert second != first
        assert box.agent.integrated.restarts == 1
        box.inject(2, frame(1, 2))
        until(lambda: box.sent() or box.inject(2, frame(1, 2)), what="packets are dealt with again")
    assert not alive(second)
    assert "the integrated controller ended (signal 9); starting it again in" in caplog.text
    assert "listening on 127.0.0.1 port" in caplog.text


def test_firewall_and_learning_switch_work_together(tmp_path, monkeypatch):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {action: deny, protocol: udp, dst_port: 9}\n")
    monkeypatch.setenv("OFSWITCH_FIREWALL_RULES", str(rules))
    apps = {"apps": ("ryu_apps/firewall.py", "ryu_apps/l2_learning.py")}
    with running(tmp_path, integrated_controller=apps) as box:
        until(lambda: [len(table) for table in box.agent.switch.tables] == [3, 1], what="both tables")
        denied, allowed = udp(2, 1, 9), udp(2, 1, 10)
        until_forwarding(box)
        box.inject(1, denied)
        assert passed_on(box, 1, allowed) == [2, 3]
        until(lambda: box.datapath.port_counters()[1].dropped or box.inject(1, denied), what="the fast path drops")
        assert passed_on(box, 2, udp(1, 2, 10)) == [1]
        assert {table.table_id for table in box.agent.switch.tables if len(table)} == {0, 1}


def udp(eth_dst: int, eth_src: int, port: int) -> bytes:
    ip = bytes.fromhex("4500001c000000004011000000000000") + bytes([10, 0, 0, eth_dst])
    return frame(eth_dst, eth_src)[:12] + b"\x08\x00" + ip + port.to_bytes(2, "big") * 2 + b"\x00\x08\x00\x00" + bytes(18)


def test_what_it_says_is_in_the_log_at_the_level_that_it_says(tmp_path, supervised, caplog):
    caplog.set_level(logging.INFO)
    app = tmp_path / "talker.py"
    app.write_text(
        "import sys\n"
        "from ryu.base import app_manager\n"
        "from ryu.controller import ofp_event\n"
        "from ryu.controller.handler import MAIN_DISPATCHER, set_ev_cls\n"
        "class Talker(app_manager.RyuApp):\n"
        "    def __init__(self, *args, **kwargs):\n"
        "        super().__init__(*args, **kwargs)\n"
        "        self.logger.warning('careful')\n"
        "        print('plain', flush=True)\n"
        "    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)\n"
        "    def packet_in(self, ev): pass\n"
    )
    supervised(str(app))
    until(lambda: "listening" in caplog.text)
    said = {(record.levelname, record.getMessage()) for record in caplog.records if record.name == "ofswitch.controller"}
    assert said >= {("WARNING", "Talker: careful"), ("INFO", "plain")}


def test_an_app_that_cannot_be_loaded_is_told_and_tried_again_ever_more_slowly(supervised, caplog):
    controller = supervised("nosuch.py")
    until(lambda: controller.restarts == 3)
    assert ("ERROR", "controller: nosuch.py: No such file or directory") in {
        (item.levelname, item.message) for item in caplog.records
    }
    delays = [record.args[1] for record in caplog.records if "starting it again" in record.msg]
    assert delays[:3] == [0.05, 0.1, 0.2]


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, supervised, monkeypatch, caplog):
    monkeypatch.setattr(integrated_module, "STOP_SECONDS", 0.3)
    app = tmp_path / "stubborn.py"
    app.write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(60)\n"
    )
    caplog.set_level(logging.INFO)
    controller = supervised(str(app))
    until(lambda: "here" in caplog.text)
    pid = controller.pid
    began = time.monotonic()
    controller.stop()
    assert not alive(pid)
    assert time.monotonic() - began >= 0.3
    assert "ignores SIGTERM" in caplog.text


def test_it_does_not_outlive_an_agent_that_is_killed(tmp_path):
    script = (
        "from agent_support import running, until\n"
        "from pathlib import Path\n"
        "import sys, time\n"
        "with running(Path(sys.argv[1])) as box:\n"
        "    until(box.connected)\n"
        "    print(box.agent.integrated.pid, flush=True)\n"
        "    until(lambda: False, 60)\n"
    )
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "unit")))
    agent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
    )
    try:
        assert agent.stdout is not None
        child = int(agent.stdout.readline())
        assert alive(child)
    finally:
        agent.kill()
        agent.communicate()
    deadline = time.monotonic() + 60
    while alive(child) and "\nState:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline, "the controller lives on"
        time.sleep(0.02)


def test_apps_are_found_beside_the_package_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_app("ryu_apps/l2_learning.py") == str(ROOT / "ryu_apps" / "l2_learning.py")
    assert find_app("a.module") == "a.module"
    (tmp_path / "ryu_apps").mkdir()
    (tmp_path / "ryu_apps" / "l2_learning.py").write_text("")
    assert find_app("ryu_apps/l2_learning.py") == "ryu_apps/l2_learning.py"
