"""The switch under a controller of its user's, stock os-ken in a process of its own; and without it, once it has died."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.quiet import never_ask_again
from support.running_switch import RunningSwitch, running_switch
from support.waiting import SECONDS, lost, until

from appliance.lab.testbed import Testbed

pytestmark = pytest.mark.root

APP = Path(__file__).parent / "stock" / "os_ken_simple_switch_13.py"
PORT = 6653
FLAGS = ("--controller", f"tcp:127.0.0.1:{PORT}")
STOCK_RUNNER = """
import os, sys
os.environ["OSKEN_HUB_TYPE"] = "eventlet"
from os_ken.base.app_manager import AppManager
from os_ken import cfg
import os_ken.controller.controller
cfg.CONF(args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", sys.argv[1]], project="os_ken")
AppManager.run_apps(sys.argv[2:])
"""
"""How os-ken's own documentation starts apps, with nothing of ours in the process."""


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed.of(3) as bed:
        never_ask_again(bed)
        yield bed


def start_controller(bed: Testbed, app: Path = APP) -> subprocess.Popen[Any]:
    null = subprocess.DEVNULL
    return bed.start([sys.executable, "-c", STOCK_RUNNER, str(PORT), str(app)], stdout=null, stderr=null)


def states(switch: RunningSwitch) -> list[str]:
    return [controller["state"] for controller in switch.control.request("show")["controllers"]]


def until_forwarding(bed: Testbed) -> None:
    """The app installs its table-miss entry before os-ken lets it have packet-ins."""
    until(lambda: bed.ping("h1", "h2", number=1, wait=0.5).ok, "the app at work")


@contextmanager
def controlled(bed: Testbed, folder: Path, *flags: str) -> Iterator[tuple[RunningSwitch, subprocess.Popen[Any]]]:
    """A switch and its controller, connected."""
    controller = start_controller(bed)
    with running_switch(bed, folder, *FLAGS, *flags, listen=False) as switch:
        until_forwarding(bed)
        yield switch, controller


def lose(switch: RunningSwitch, controller: subprocess.Popen[Any]) -> None:
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    until(lambda: states(switch) == ["disconnected"], "the loss is seen")


def test_hosts_reach_each_other_and_the_fast_path_does_the_work(bed, tmp_path):
    with controlled(bed, tmp_path) as (switch, _):
        for result in bed.ping_all():
            assert result.ok, result
        switch.until_fast(lambda: bed.transfer("h1", "h2", 100_000).ok)
        before = switch.packets()
        transferred = bed.transfer("h1", "h2", 50_000_000)
        assert transferred.ok, transferred
        after = switch.packets()
        forwarded, punted = after["tc"] - before["tc"], after["slow_path"] - before["slow_path"]
        assert forwarded > 200
        assert punted <= 20, (before, after)
        show = switch.control.request("show")
        assert show["faults"] == 0, switch.log
        assert [controller["version"] for controller in show["controllers"]] == ["1.3"]


def test_fail_secure_keeps_the_flows_that_are_there_and_sets_up_no_others(bed, tmp_path):
    with controlled(bed, tmp_path, "--fail-mode", "secure") as (switch, controller):
        assert bed.ping("h1", "h2").ok
        flows = switch.control.request("show")["flows"]
        lose(switch, controller)
        assert switch.control.request("show")["flows"] == flows
        assert bed.ping("h1", "h2").ok
        assert bed.ping("h1", "h3", number=1, wait=0.5).received == 0
        assert not switch.control.request("show")["standalone"]


def test_fail_standalone_learns_by_itself_until_a_controller_is_back(bed, tmp_path):
    with controlled(bed, tmp_path, "--fail-mode", "standalone") as (switch, controller):
        assert bed.ping("h1", "h2").ok
        lose(switch, controller)
        assert switch.control.request("show")["standalone"]
        for result in bed.ping_all():
            assert result.ok, result
        start_controller(bed)
        until(lambda: states(switch) == ["connected"], "the controller is back")
        until_forwarding(bed)
        assert not switch.control.request("show")["standalone"]
        for result in bed.ping_all(families=(4,)):
            assert result.ok, result


def test_the_agent_may_die_packets_go_on_and_the_next_agent_takes_over(bed, tmp_path):
    with controlled(bed, tmp_path) as (first, _):
        first.until_fast(lambda: bed.ping("h1", "h2").ok)
        first.process.kill()
        first.process.wait()
        assert bed.ping("h1", "h2", number=5).ok, "nobody is there but the fast path"
        again = tmp_path / "again"
        again.mkdir()
        with running_switch(bed, again, *FLAGS, listen=False) as second:
            until(lambda: second.control.request("show")["flows"], "the table-miss entry")
            until_forwarding(bed)
            for result in bed.ping_all(families=(4,)):
                assert result.ok, result
            assert second.control.request("show")["faults"] == 0, second.log
    for name in bed.interfaces:
        assert "clsact" not in bed.run(["tc", "qdisc", "show", "dev", name]).stdout


CROSS_CONNECT = """
from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, set_ev_cls

class CrossConnect(app_manager.OSKenApp):
    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def connected(self, event):
        path = event.msg.datapath
        ofp, parser = path.ofproto, path.ofproto_parser
        for port in (1, 2):
            actions = [parser.OFPActionOutput(3 - port)]
            instructions = [parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions)]
            path.send_msg(parser.OFPFlowMod(path, match=parser.OFPMatch(in_port=port), instructions=instructions))
        path.send_msg(parser.OFPBarrierRequest(path))
"""


def test_a_crash_and_a_new_agent_lose_no_packet(bed, tmp_path):
    """The dead agent's programs go on until the controller has filled the new one's tables."""
    app, again = tmp_path / "cross_connect.py", tmp_path / "again"
    app.write_text(CROSS_CONNECT)
    again.mkdir()
    start_controller(bed, app)
    with running_switch(bed, tmp_path, *FLAGS, listen=False) as first:
        until(lambda: first.control.request("show")["flows"] == 2, "the flow entries")
        first.until_fast(lambda: bed.ping("h1", "h2").ok)
        words = ["ping", "-n", "-i", "0.01", bed["h2"].address4]
        with (tmp_path / "pings").open("wb") as out:  # no pipe, which would be full before it is read
            pinging = bed.start(words, host="h1", stdout=out)
        first.process.kill()
        first.process.wait()
        with running_switch(bed, again, *FLAGS, listen=False) as second:
            assert "the programs of an agent that died go on" in second.log
            until(lambda: "took over from an agent that died; 2 flow entries" in second.log, "the take-over")
            until(lambda: second.packets()["tc"] > 100, "packets by the new agent's programs")
            pinging.send_signal(signal.SIGINT)
            pinging.wait(SECONDS)
            assert second.control.request("show")["faults"] == 0, second.log
    assert lost((tmp_path / "pings").read_text()) == []


def test_a_barrier_ends_the_dead_agents_rules(bed, tmp_path):
    with running_switch(bed, tmp_path) as first:
        first.add_flows("in_port=1,actions=output:2", "in_port=2,actions=output:1")
        first.until_fast(lambda: bed.ping("h1", "h2").ok)
        first.process.kill()
        first.process.wait()
    again = tmp_path / "again"
    again.mkdir()
    with running_switch(bed, again) as second:
        assert bed.ping("h1", "h2", number=2).ok, "the tables are empty, the old rules go on"
        second.ofctl("add-flow", "in_port=3,actions=drop")  # with a barrier
        assert bed.ping("h1", "h2", number=1, wait=0.5).received == 0


def test_a_port_that_vanishes_is_told_and_the_others_go_on(bed, tmp_path):
    with controlled(bed, tmp_path) as (switch, _):
        assert bed.ping("h1", "h2").ok
        assert bed.run(["ip", "link", "delete", bed["h3"].switch_interface]).returncode == 0
        until(lambda: switch.control.request("ports")[2]["state"] == "missing", "the port is gone")
        assert bed.ping("h1", "h2").ok
        show = switch.control.request("show")
        assert (show["ports"], show["faults"]) == (3, 0), switch.log  # LOCAL is the third
        assert "port 3" in switch.log
