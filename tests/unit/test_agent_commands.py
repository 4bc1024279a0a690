"""What the agent answers at its control socket: the state of all that it has."""

from __future__ import annotations

import os

import pytest
from agent_support import flow_mod, frame, until

from appliance.agent.client import ControlClient, ControlError
from appliance.agent.green import in_thread
from appliance.openflow.messages import BarrierReply, BarrierRequest, PortStatus


@pytest.fixture
def ask(box):
    """A command to the agent from its own thread: the client blocks, so it runs in a native one."""
    client = ControlClient(box.config.control_socket)
    yield lambda command, **arguments: in_thread(lambda: client.request(command, **arguments))
    client.close()


def test_show(box, peer, ask):
    until(lambda: box.connected())
    shown = ask("show")
    assert shown["name"] == "ofswitch"
    assert shown["datapath_id"] == "000000000000002a"
    assert (shown["ports"], shown["flows"], shown["megaflows"], shown["faults"]) == (3, 0, 0, 0)
    assert (shown["megaflow_limit"], shown["masks"]) == (65536, 0)
    assert shown["listening"] == [f"ptcp:{box.openflow_port}"]
    (controller,) = shown["controllers"]
    assert (controller["state"], controller["version"]) == ("connected", "1.3")
    assert shown["tiers"] == {
        "packets": {"xdp": 0, "tc": 0, "slow_path": 0, "dropped": 0},
        "shares": {"xdp": 0.0, "tc": 0.0, "slow_path": 0.0, "dropped": 0.0},
        "rx_packets": 0,
        "rx_bytes": 0,
    }
    assert shown["pid"] == os.getpid()
    assert shown["integrated_controller"] is None


def test_flows_megaflows_and_tiers_agree(box, peer, ask):
    peer.send(flow_mod(2, priority=7, cookie=0xC0, idle_timeout=60), BarrierRequest())
    peer.expect(BarrierReply)
    box.inject(1, frame(2, 1))
    until(box.sent)
    until(lambda: box.datapath.port_counters()[1].forwarded_tc or box.inject(1, frame(2, 1)))
    received = box.datapath.port_counters()[1].rx_packets
    listed = ask("flows")
    assert listed["total"] == 1
    (flow,) = listed["flows"]
    assert (flow["table_id"], flow["priority"], flow["match"], flow["match_text"]) == (0, 7, [], "any")
    assert (flow["instructions"], flow["cookie"], flow["idle_timeout"]) == ("apply_actions(output:2)", "0xc0", 60)
    assert (flow["n_packets"], flow["n_bytes"]) == (received, received * 60)
    (megaflow,) = ask("megaflows")["megaflows"]
    assert (megaflow["actions"], megaflow["tier"], megaflow["match_text"]) == ("output:2", "tc", "in_port=1")
    assert megaflow["why"].startswith("port 1 is at TC (")
    assert megaflow["packets"] + megaflow["punted"] == received
    tiers = ask("tiers")
    assert tiers["packets"]["tc"] + tiers["packets"]["slow_path"] == tiers["rx_packets"] == received
    assert sum(tiers["shares"].values()) == pytest.approx(1)
    assert tiers == ask("show")["tiers"]


def test_flows_are_limited_and_of_one_table_if_so_asked(box, peer, ask):
    peer.send(*(flow_mod(2, table_id=table, priority=priority) for table in (0, 3) for priority in range(1, 400)), BarrierRequest())
    peer.expect(BarrierReply)
    assert ask("flows")["total"] == 798
    assert len(ask("flows", limit=500)["flows"]) == 500
    listed = ask("flows", table=3)
    assert listed["total"] == len(listed["flows"]) == 399
    assert {flow["table_id"] for flow in listed["flows"]} == {3}
    for wrong in (-1, "3", True, 1.5):
        with pytest.raises(ControlError, match="table must be a whole number"):
            ask("flows", table=wrong)


def test_ports(box, peer, ask):
    box.links.change(103, None)
    peer.expect(PortStatus)
    one, _, three = ask("ports")
    assert three == {"number": 3, "interface": "eth3", "state": "missing"}
    assert one["counters"] == dict.fromkeys(
        ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "xdp", "tc", "slow_path", "dropped", "tx_slow_path", "lost_copies"), 0
    )
    del one["counters"]
    assert one == {
        "number": 1,
        "interface": "eth1",
        "state": "up",
        "link": "up",
        "problem": "",
        "config": [],
        "hw_addr": "02:00:00:00:00:01",
        "mtu": 1500,
        "speed_kbps": 0,
        "hook": "tc",
        "hook_reason": "a test",
        "output": "redirect",
        "output_reason": "",
        "big_tcp": True,
        "big_tcp_reason": "frames of up to 184,997 bytes, as every port takes them whole",
    }
