"""The agent may die; packets go on, and a new agent takes over what it left (invariant 5)."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from support.running_switch import LISTEN_PORT, READY_SECONDS, running_switch
from support.waiting import lost, until

from appliance.datapath import keeper, netlink
from appliance.lab.testbed import Testbed

pytestmark = pytest.mark.root

FLOWS = ("in_port=1,actions=output:2", "in_port=2,actions=output:1")


def test_packets_go_on_without_an_agent_and_a_new_one_takes_over(tmp_path: Path) -> None:
    with Testbed.of(2) as bed:
        with running_switch(bed, tmp_path) as switch:
            switch.add_flows(*FLOWS)
            switch.until_fast(lambda: bed.ping("h1", "h2").ok)
            os.kill(switch.process.pid, signal.SIGKILL)
            switch.process.wait()
            # Longer than any timer of the agent: nobody is there, and nothing is lost.
            result = bed.run(["ping", "-n", "-c", "150", "-i", "0.02", bed["h2"].address(4)], host="h1")
            assert lost(result.stdout) == []
        with running_switch(bed, tmp_path) as switch:
            switch.add_flows(*FLOWS)
            assert bed.ping("h1", "h2", number=3).ok
            assert switch.packets()["tc"] > 0
            filters = bed.inside(None, lambda: [netlink.tc_filters(socket.if_nametoindex(name)) for name in bed.interfaces])
            assert [len(of_port) for of_port in filters] == [1, 1]
        assert bed.inside(None, lambda: [netlink.tc_filters(socket.if_nametoindex(name)) for name in bed.interfaces]) == [[], []]
        assert "PROMISC" not in bed.run(["ip", "link", "show"]).stdout


def test_an_agent_that_stops_before_it_took_over_leaves_nothing(tmp_path: Path) -> None:
    with Testbed.of(2) as bed:
        with running_switch(bed, tmp_path) as switch:
            switch.add_flows(*FLOWS)
            switch.until_fast(lambda: bed.ping("h1", "h2").ok)
            os.kill(switch.process.pid, signal.SIGKILL)
            switch.process.wait()
        with running_switch(bed, tmp_path):
            assert bed.ping("h1", "h2").ok, "the dead one's programs"
        assert not bed.ping("h1", "h2", number=1, wait=0.3).received
        until(lambda: bed.inside(None, lambda: list(keeper._others(0))) == [], "the end of the keeper")


def test_a_second_switch_takes_nothing_from_one_that_runs(tmp_path: Path) -> None:
    with Testbed.of(2) as bed, running_switch(bed, tmp_path) as switch:
        switch.add_flows(*FLOWS)
        assert bed.ping("h1", "h2").ok
        local = bed.run(["ip", "-o", "link", "show", "switch"]).stdout
        command = [sys.executable, "-m", "appliance.cli.main", "run", *bed.port_flags(), "--listen", "ptcp:16654"]
        command += ["--control-socket", str(tmp_path / "second.sock")]
        for name, wanted in (("switch", "the name switch"), ("other", f"port 1 ({bed.interfaces[0]})")):
            second = bed.run([*command, "--name", name], timeout=READY_SECONDS)
            assert second.returncode != 0
            assert f"{wanted}: another switch that runs here has it" in second.stderr
            assert bed.ping("h1", "h2").ok
        assert bed.run(["ip", "-o", "link", "show", "switch"]).stdout == local


def test_a_port_that_vanishes_is_a_port_status_and_not_a_crash(tmp_path: Path) -> None:
    with Testbed.of(3) as bed, running_switch(bed, tmp_path) as switch:
        switch.add_flows(*FLOWS)
        monitor = tmp_path / "monitor.log"
        with monitor.open("wb") as out:
            command = ["ovs-ofctl", "-O", "OpenFlow13", "monitor", f"tcp:127.0.0.1:{LISTEN_PORT}", "64"]
            watching = bed.start(command, stdout=out, stderr=out, env={**os.environ, "OVS_RUNDIR": str(tmp_path)})
            until(
                lambda: any(controller["state"] == "connected" for controller in switch.control.request("show")["controllers"]),
                "the monitor",
            )
            assert bed.ping("h1", "h2").ok
            assert bed.run(["ip", "link", "del", bed.interfaces[2]]).returncode == 0
            until(lambda: "OFPT_PORT_STATUS" in monitor.read_text(), "the port-status")
            assert bed.ping("h1", "h2").ok
            bed.stop(watching)
        assert bed.interfaces[2] not in switch.ofctl("show")
        assert switch.process.poll() is None
