"""Tunnel devices come with the switch and go with it; they outlive an agent that dies, and a new one takes them over."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from support.overlay import Overlay, ip, tunnel, underlay4
from support.running_switch import READY_SECONDS, RunningSwitch
from support.waiting import SECONDS, lost, until

from appliance.datapath import keeper, netlink
from appliance.ports import PortError
from appliance.ports.tunnel import TunnelDevice, TunnelKind, make_tunnel_device

pytestmark = pytest.mark.root

DEVICE = "vxlan_of_4789"
FLOWS = ("in_port=1,actions=output:2", "in_port=2,actions=output:1")


def device(overlay: Overlay, site: int) -> dict[str, object]:
    """As `ip` shows it; empty if there is none."""
    inside = overlay.beds[site - 1].switch_namespace
    links = json.loads(ip("-j", "link", inside=inside))  # not -d: what Ubuntu 24.04 says of a VXLAN device is no JSON
    return next((link for link in links if link["ifname"] == DEVICE), {})


def port(to: int) -> str:
    return tunnel(f"to{to}", 2, remote_ip=underlay4(to), key=5)


def kill(switch: RunningSwitch) -> None:
    os.kill(switch.process.pid, signal.SIGKILL)
    switch.process.wait()


def test_packets_go_on_without_an_agent_and_a_new_one_takes_the_device_over(tmp_path: Path) -> None:
    with Overlay(2) as overlay, overlay.switch(2, tmp_path, port(1)) as other:
        other.add_flows(*FLOWS)
        with overlay.switch(1, tmp_path, port(2)) as switch:
            switch.add_flows(*FLOWS)
            for each in (switch, other):
                each.until_fast(lambda: overlay.ping("a1", "b1") == 3)
            made = device(overlay, 1)
            assert made["ifalias"] == "ofswitch site1: tunnels"
            assert " external " in ip("-d", "link", "show", DEVICE, inside=overlay.beds[0].switch_namespace)
            kill(switch)
        address = overlay.beds[1]["b1"].address(4)
        result = overlay.beds[0].run(["ping", "-n", "-c", "150", "-i", "0.02", address], host="a1")
        assert lost(result.stdout) == []
        assert device(overlay, 1)["ifindex"] == made["ifindex"]
        # Another one, with another tunnel besides: the device stays, the one that is new comes.
        more = port(2) + tunnel("second", 3, remote_ip=underlay4(2), dst_port=4790)
        with (tmp_path / "pings").open("wb") as out:  # no pipe, which would be full before it is read
            pinging = overlay.beds[0].start(["ping", "-n", "-i", "0.02", address], host="a1", stdout=out, stderr=out)
        with overlay.switch(1, tmp_path, more) as switch:
            # Both ways in one flow entry: ovs-ofctl has a barrier behind each, and with the first the new agent takes over.
            switch.add_flows("actions=output:1,output:2")
            assert overlay.ping("a1", "b1") == 3
            pinging.send_signal(signal.SIGINT)
            pinging.wait(SECONDS)
            assert lost((tmp_path / "pings").read_text()) == []
            assert device(overlay, 1)["ifindex"] == made["ifindex"]
            assert "vxlan_of_4790" in ip("link", inside=overlay.beds[0].switch_namespace)
            assert switch.packets()["tc"] > 0
            # The slow path sends by a mark of the new agent's.
            with overlay.seen(2) as seen:
                switch.ofctl("packet-out", f"in_port=controller,packet={'ff' * 6}02000000aa0188b5{'00' * 46},actions=output:2")
                until(
                    lambda: any(packet[32:35] == b"\0\0\5" and packet[48:50] == b"\x88\xb5" for packet in seen()), "the packet-out"
                )
                assert overlay.ping("a1", "b1") == 3
        assert device(overlay, 1) == {}
        assert "_of_" not in ip("link", inside=overlay.beds[0].switch_namespace)


def test_a_device_that_no_port_needs_any_more_goes_with_the_next_start(tmp_path: Path) -> None:
    with Overlay(1) as overlay:
        with overlay.switch(1, tmp_path, port(2)) as switch:
            kill(switch)
        assert device(overlay, 1)
        with overlay.switch(1, tmp_path, ""):
            assert device(overlay, 1) == {}


def test_an_agent_that_stops_before_it_took_over_leaves_no_device(tmp_path: Path) -> None:
    """Nor the dead one's keeper, which held its programs for a device that is gone now."""
    with Overlay(2) as overlay, overlay.switch(2, tmp_path, port(1)) as other:
        other.add_flows(*FLOWS)
        bed = overlay.beds[0]
        with overlay.switch(1, tmp_path, port(2)) as switch:
            switch.add_flows(*FLOWS)
            switch.until_fast(lambda: overlay.ping("a1", "b1") == 3)
            kill(switch)
        with overlay.switch(1, tmp_path, port(2)):
            assert overlay.ping("a1", "b1") == 3, "the dead one's programs"
        assert device(overlay, 1) == {}
        assert bed.inside(None, lambda: netlink.tc_filters(socket.if_nametoindex(bed.interfaces[0]))) == []
        until(lambda: bed.inside(None, lambda: list(keeper._others(0))) == [], "the end of the keeper")


def test_a_device_that_is_taken_away_comes_back(tmp_path: Path) -> None:
    with Overlay(2) as overlay, overlay.switch(1, tmp_path, port(2)) as one, overlay.switch(2, tmp_path, port(1)) as other:
        one.add_flows(*FLOWS)
        other.add_flows(*FLOWS)
        assert overlay.ping("a1", "b1") == 3
        before = device(overlay, 1)
        ip("link", "del", DEVICE, inside=overlay.beds[0].switch_namespace)
        assert overlay.ping("a1", "b1", number=20) >= 10
        after = device(overlay, 1)
        assert after["ifindex"] != before["ifindex"]
        filters = overlay.beds[0].inside(None, lambda: netlink.tc_filters(int(str(after["ifindex"]))))
        assert sorted(item.ingress for item in filters) == [False, True]
        assert one.control.request("show")["faults"] == 0


def test_programs_that_are_taken_off_a_device_come_back(tmp_path: Path) -> None:
    """Those of all its ports at once; and the one at egress, which only frames of the slow path need."""
    ports = port(2) + tunnel("second", 3, remote_ip=underlay4(2), key=6)
    with Overlay(2) as overlay, overlay.switch(1, tmp_path, ports) as one, overlay.switch(2, tmp_path, port(1)) as other:
        one.add_flows(*FLOWS)
        other.add_flows(*FLOWS)
        assert overlay.ping("a1", "b1") == 3
        bed, index = overlay.beds[0], int(str(device(overlay, 1)["ifindex"]))
        for number, command in enumerate((f"qdisc del dev {DEVICE} clsact", f"filter del dev {DEVICE} egress"), 1):
            assert bed.run(["tc", *command.split()]).returncode == 0
            until(lambda: bed.inside(None, lambda: netlink.attached(index, egress=True)) == (0, True), "both programs")
            until(lambda number=number: one.log.count("somebody took our program off at TC") == number, "one warning")
            assert overlay.ping("a1", "b1") == 3
        assert one.control.request("show")["faults"] == 0


@pytest.mark.parametrize(
    ("ports", "fault"),
    [
        (
            tunnel("vx1", 2, dst_port=4999),
            "port 2 (vx1): vxlan on UDP port 4999 is taken in this network namespace by another device or program; "
            "choose another dst_port",
        ),
        (tunnel("vx1", 2, dst_port=4998), "port 2 (vx1): there is an interface vxlan_of_4998 already, which is not this switch's"),
    ],
)
def test_a_device_that_cannot_be_made_is_named_and_nothing_stays(tmp_path: Path, ports: str, fault: str) -> None:
    with Overlay(1) as overlay:
        bed = overlay.beds[0]
        ip("link", "add", "theirs", "up", "type", "vxlan", "external", "dstport", "4999", inside=bed.switch_namespace)
        ip("link", "add", "vxlan_of_4998", "type", "veth", inside=bed.switch_namespace)
        path = tmp_path / "bad.yaml"
        path.write_text(f"local: none\nports:\n  - {bed.interfaces[0]}\n{port(2).replace('number: 2', 'number: 3')}{ports}")
        command = [sys.executable, "-m", "appliance.cli.main", "run", "--control-socket", str(tmp_path / "bad.sock"), str(path)]
        result = bed.run(command, timeout=READY_SECONDS)
        assert result.returncode != 0
        assert fault in result.stderr.replace("\n", " "), result.stderr
        assert device(overlay, 1) == {}, "the other one was made, and is gone again"
        assert "theirs" in ip("link", inside=bed.switch_namespace)


@pytest.mark.parametrize(("kind", "module"), [("geneve", "geneve"), ("gre", "ip_gre")])
def test_a_kernel_without_such_tunnels_is_named(tmp_path: Path, kind: TunnelKind, module: str) -> None:
    with Overlay(1) as overlay:
        bed = overlay.beds[0]
        probe = TunnelDevice(kind, 0 if kind == "gre" else 9999, "probe")
        try:
            bed.inside(None, lambda: make_tunnel_device(probe))
        except PortError:
            pass
        else:
            pytest.skip(f"this kernel has {kind}")
        path = tmp_path / "bad.yaml"
        path.write_text("local: none\nports:\n" + port(2) + tunnel("other", 3, kind, remote_ip=underlay4(2)))
        command = [sys.executable, "-m", "appliance.cli.main", "run", "--control-socket", str(tmp_path / "bad.sock"), str(path)]
        result = bed.run(command, timeout=READY_SECONDS)
        assert result.returncode != 0
        assert f"port 3 (other): this kernel has no {kind} devices (module {module})" in result.stderr
        assert device(overlay, 1) == {}
