"""The agent on a fast path in memory, under controllers that speak over TCP."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace

import pytest
from agent_support import (
    BROADCAST,
    Box,
    Listener,
    Peer,
    frame,
    free_port,
    interface,
    mac,
    passed_on,
    running,
    stock_controller,
    until,
    until_forwarding,
)

from appliance.agent import agent as agent_module
from appliance.agent.agent import AgentError
from appliance.agent.client import ControlClient, ControlError
from appliance.agent.green import in_thread, spawn
from appliance.agent.links import Placement
from appliance.agent.unix_socket import UnixSocketError
from appliance.config import Config
from appliance.datapath.driver import DatapathError
from appliance.model.actions import ApplyActions, Output
from appliance.model.match import MATCH_ALL
from appliance.model.ports import Hook, PortNo
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    Desc,
    DescRequest,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    PortDescRequest,
    PortReason,
    PortStatsRequest,
    PortStatus,
)
from appliance.ports import Finished, OutputMethod, PortError
from appliance.switch.events import Upcalls


def flow_mod(output: int, **more: object) -> FlowMod:
    return FlowMod(match=MATCH_ALL, instructions=(ApplyActions((Output(output),)),), **more)  # type: ignore[arg-type]


@pytest.fixture
def box(tmp_path):
    """An agent that listens, so that a test may be its controller."""
    port = free_port()
    with running(tmp_path, listen=(f"ptcp:{port}",)) as box:
        box.openflow_port = port
        yield box


@pytest.fixture
def peer(box):
    peer = Peer.connect(box.openflow_port)
    peer.greet()
    yield peer
    peer.close()


# ── with os-ken ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_stock_controller_gets_packet_ins_and_sets_up_flows(tmp_path):
    port = free_port()
    with stock_controller(port), running(tmp_path, controllers=(f"tcp:127.0.0.1:{port}",)) as box:
        until_forwarding(box)
        assert passed_on(box, 1, frame(2, 1)) == [2, 3]
        assert passed_on(box, 2, frame(1, 2)) == [1]
        until(lambda: len(box.agent.switch.tables[0]) == 2, what="the flow entry")
        box.inject(2, frame(1, 2))
        until(box.sent)
        until(lambda: box.datapath.megaflows, what="the megaflow")
        until(lambda: box.datapath.port_counters()[2].forwarded_tc or box.inject(2, frame(1, 2)), what="the fast path takes over")


def test_it_connects_again_after_the_controller_has_died(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    port = free_port()
    with running(tmp_path, controllers=(f"tcp:127.0.0.1:{port}",)) as box:
        with stock_controller(port) as controller:
            until(box.connected, what="the first connection")
            controller.send_signal(signal.SIGKILL)
            until(lambda: not box.connected(), what="the loss is seen")
        with stock_controller(port):
            until(box.connected, what="the second connection")
    assert f"tcp:127.0.0.1:{port}: connected, OpenFlow 1.3" in caplog.text
    assert f"tcp:127.0.0.1:{port}: not connected: " in caplog.text


# ── controllers ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_controller_may_connect_to_it_and_is_answered(box, peer):
    peer.send(FeaturesRequest(xid=7))
    assert peer.expect(FeaturesReply) == FeaturesReply(0x2A, 256, 254, 0, 0x4F, xid=7)
    peer.send(MultipartRequest(DescRequest(), xid=8))
    described = peer.expect(MultipartReply).body
    assert isinstance(described, Desc)
    assert described.dp_desc == "ofswitch"


def test_two_controllers_both_get_packet_ins_and_one_that_leaves_takes_nothing_along(box, peer):
    other = Peer.connect(box.openflow_port)
    other.greet()
    peer.send(flow_mod(PortNo.CONTROLLER), BarrierRequest())
    peer.expect(BarrierReply)
    box.inject(1, frame(2, 1))
    assert peer.expect(PacketIn).data == other.expect(PacketIn).data == frame(2, 1)
    other.close()
    until(lambda: len(box.connected()) == 1)
    box.inject(1, frame(3, 1))
    assert peer.expect(PacketIn).data == frame(3, 1)


def test_a_flow_mod_takes_effect_also_without_a_barrier(box, peer, monkeypatch):
    monkeypatch.setattr(agent_module, "TICK_SECONDS", 3600.0)
    peer.send(flow_mod(2), BarrierRequest())
    peer.expect(BarrierReply)
    box.inject(1, frame(2, 1))
    until(lambda: box.datapath.megaflows)
    peer.send(flow_mod(3))
    until(lambda: not box.datapath.megaflows, 0.8, "the megaflow goes")


def test_a_barrier_is_answered_when_the_fast_path_has_let_go(box, peer):
    peer.send(flow_mod(2), BarrierRequest())
    peer.expect(BarrierReply)
    box.inject(1, frame(2, 1))
    until(lambda: box.datapath.megaflows)
    peer.send(flow_mod(3), BarrierRequest())
    peer.expect(BarrierReply)
    assert box.datapath.megaflows == []


def test_what_a_removed_megaflow_counted_is_not_lost(box, peer):
    peer.send(flow_mod(2), BarrierRequest())
    peer.expect(BarrierReply)
    box.inject(1, frame(2, 1))
    until(lambda: box.datapath.megaflows)
    until(lambda: box.datapath.port_counters()[1].forwarded_tc or box.inject(1, frame(2, 1)))
    packets = box.datapath.port_counters()[1].rx_packets
    (entry,) = box.agent.switch.tables[0].entries()
    peer.send(flow_mod(3, priority=40000), BarrierRequest())
    peer.expect(BarrierReply)
    assert entry.packet_count == packets


# ── packets ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_switch_alone_learns_and_the_fast_path_takes_over(tmp_path):
    # Somebody is named who could control it, and is not there.
    with running(tmp_path, fail_mode="standalone", controllers=(f"tcp:127.0.0.1:{free_port()}",)) as box:
        box.inject(1, BROADCAST + frame(2, 1)[6:])
        assert [port for port, _ in until(box.sent)] == [2, 3]
        box.inject(2, frame(1, 2))
        assert [port for port, _ in until(box.sent)] == [1]
        until(lambda: box.datapath.port_counters()[2].forwarded_tc or box.inject(2, frame(1, 2)))
        punted = box.datapath.port_counters()[2].punted
        box.inject(2, frame(1, 2))
        assert box.datapath.port_counters()[2].punted == punted


def test_a_burst_is_forwarded_whole_and_in_order(box, peer):
    peer.send(flow_mod(2), BarrierRequest())
    peer.expect(BarrierReply)
    burst = [frame(2, 1, bytes([place >> 8, place & 255])) for place in range(1000)]
    for place, item in enumerate(burst):
        box.inject(1, item)
        if place % 100 == 99:
            until(lambda: box.datapath.sent)
    until(lambda: len(box.datapath.sent) == 1000)
    assert [item for _, item in box.sent()] == burst


def test_the_fast_path_refusing_a_megaflow_costs_speed_only(tmp_path):
    with running(tmp_path, fail_mode="standalone", controllers=(f"tcp:127.0.0.1:{free_port()}",)) as box:
        box.datapath._capacity = 0
        for _ in range(3):
            box.inject(1, frame(2, 1))
            assert [port for port, _ in until(box.sent)] == [2, 3]
        assert box.agent.switch.megaflow_ids == ()


# ── faults ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_event_that_fails_is_logged_and_counted_and_the_next_goes_on(tmp_path, caplog):
    box = Box(tmp_path, fail_mode="standalone", controllers=(f"tcp:127.0.0.1:{free_port()}",))
    step = box.agent.switch.step

    def fail_once(event, now):
        if isinstance(event, Upcalls):
            box.agent.switch.step = step
            raise ZeroDivisionError
        return step(event, now)

    box.agent.switch.step = fail_once
    box.agent.start()
    try:
        box.inject(1, frame(2, 1))
        until(lambda: box.agent.faults == 1)
        assert box.sent() == []
        assert "Upcalls failed" in caplog.text
        assert "Traceback" in caplog.text
        box.inject(1, frame(2, 1))
        assert [port for port, _ in until(box.sent)] == [2, 3]
    finally:
        box.agent.close()


def test_what_goes_wrong_with_one_interface_keeps_no_other_from_its_port(tmp_path):
    """Several change at once, and one of them is gone again before it is looked at."""
    box = Box(tmp_path)
    described = box.links.describe

    def describe(interface, number):
        if number == 1:
            raise OSError(19, "No such device")
        return described(interface, number)

    box.agent.start()
    try:
        box.links.describe = describe
        box.links.change(101, interface(1, up=False))
        box.links.change(102, None)
        until(lambda: sorted(box.datapath.ports) == [1, 3])
        assert box.agent.faults == 1
    finally:
        box.agent.close()


def test_an_effect_that_fails_does_not_keep_the_others_from_being_done(tmp_path):
    box = Box(tmp_path, fail_mode="standalone", controllers=(f"tcp:127.0.0.1:{free_port()}",))
    send = box.datapath.send

    def fail_on_port_2(port, *arguments):
        if port == 2:
            raise DatapathError("no")
        return send(port, *arguments)

    box.datapath.send = fail_on_port_2
    box.agent.start()
    try:
        box.inject(1, frame(2, 1))
        assert until(box.sent) == [(3, frame(2, 1))]
        assert box.agent.faults == 1
    finally:
        box.agent.close()


# ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_link_changes_reach_the_controller_and_the_fast_path(box, peer):
    box.links.change(102, interface(2, up=False))
    status = peer.expect(PortStatus)
    assert (status.reason, status.port.number, status.port.up) == (PortReason.MODIFY, 2, False)
    assert not box.datapath.ports[2].forward
    assert not box.datapath.ports[2].live
    box.links.change(102, interface(2))
    assert peer.expect(PortStatus).port.up
    assert box.datapath.ports[2].forward
    assert box.datapath.ports[2].live


def test_a_dead_port_is_left_before_anything_else_is_asked_of_its_interface(box, peer):
    described = box.links.describe

    def describe(interface, number):
        assert not box.datapath.ports[2].live
        return described(interface, number)

    box.links.describe = describe
    box.links.change(102, interface(2, up=False))
    assert peer.expect(PortStatus).port.number == 2


def test_an_interface_that_vanishes_is_a_port_status_and_comes_back_as_the_same_port(box, peer):
    box.links.change(102, None)
    status = peer.expect(PortStatus)
    assert (status.reason, status.port.number) == (PortReason.DELETE, 2)
    assert sorted(box.datapath.ports) == [1, 3]
    other = interface(7, name="eth2")
    box.links.change(other.ifindex, other)
    status = peer.expect(PortStatus)
    assert (status.reason, status.port.number, status.port.hw_addr) == (PortReason.ADD, 2, mac(7))
    assert box.datapath.ports[2].ifindex == other.ifindex


def test_an_interface_that_is_renamed_is_no_port_any_more(box, peer):
    box.links.change(102, interface(2, name="other"))
    assert peer.expect(PortStatus).reason == PortReason.DELETE
    assert 102 not in box.links.promiscuous


def test_port_statistics_count_what_both_paths_saw(box, peer):
    peer.send(flow_mod(2), BarrierRequest())
    peer.expect(BarrierReply)
    box.inject(1, frame(2, 1))
    until(box.sent)
    until(lambda: box.datapath.port_counters()[1].forwarded_tc or box.inject(1, frame(2, 1)))
    rx = box.datapath.port_counters()[1].rx_packets
    peer.send(MultipartRequest(PortStatsRequest(2)))
    (entry,) = peer.expect(MultipartReply).body.entries
    assert (entry.counters.tx_packets, entry.counters.tx_bytes) == (rx, rx * 60)
    assert entry.counters.rx_errors == 0, "only what the kernel counted since the port was added"


def test_a_missing_interface_is_taken_when_it_appears(tmp_path):
    with running(tmp_path, ports=("eth1=1", "late=9")) as box:
        assert sorted(box.datapath.ports) == [1]
        late = interface(9, name="late")
        box.links.change(late.ifindex, late)
        until(lambda: 9 in box.datapath.ports)


def test_a_port_that_the_kernel_refuses_keeps_the_switch_from_starting(tmp_path):
    box = Box(tmp_path)

    def refuse(port, *, wait):
        raise DatapathError("Device or resource busy: program 7 of other holds XDP")

    box.datapath.attach = refuse
    with pytest.raises(AgentError, match=r"(?s)port 1 \(eth1\): Device or resource busy.*port 3 \(eth3\)"):
        box.agent.run()
    assert box.datapath.closed
    assert not os.path.exists(box.config.control_socket)


class RefusesXdp:
    """Interfaces that the choice of hook thinks fit for XDP, and a fast path that is refused it."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.attach = box.datapath.attach
        box.links.place = self.place
        box.datapath.attach = self.refuse

    def place(self, interface, requested):
        return Placement(Hook.XDP if requested == "auto" else Hook(requested), "a test")

    def refuse(self, port, *, wait):
        if port.hook is Hook.XDP:
            raise DatapathError("attach to eth1 at XDP (native): Invalid argument (MTU too large)")
        return self.attach(port, wait=wait)


def test_a_port_that_may_choose_its_hook_takes_tc_where_xdp_is_refused_and_says_so(tmp_path, caplog):
    box = Box(tmp_path)
    RefusesXdp(box)
    try:
        box.agent.start()
        assert {port.hook for port in box.datapath.ports.values()} == {Hook.TC}
        assert "port 1 (eth1): XDP is refused, so TC it is: attach to eth1 at XDP (native)" in caplog.text
        (reason,) = {attached.reason for attached in box.agent.ports}
        assert reason.startswith("XDP was refused: ")
        assert reason.endswith("(MTU too large)")
    finally:
        box.agent.close()


def test_a_port_that_must_have_xdp_and_is_refused_it_keeps_the_switch_from_starting(tmp_path):
    box = Box(tmp_path, ports=({"interface": "eth1", "hook": "xdp"}, "eth2"))
    RefusesXdp(box)
    with pytest.raises(
        AgentError, match=r"^port 1 \(eth1\): attach to eth1 at XDP \(native\): Invalid argument \(MTU too large\)$"
    ):
        box.agent.run()


@pytest.mark.parametrize(
    ("hook", "placed", "reason"),
    [
        ("auto", Hook.TC, "a test, but a tag may be beside a frame"),
        ("xdp", Hook.XDP, "a test, but it passes all on to TC: a tag may be beside a frame"),
    ],
)
def test_xdp_is_left_or_passes_on_where_frames_are_not_whole(tmp_path, hook, placed, reason):
    box = Box(tmp_path, ports=({"interface": "eth1", "hook": hook},))
    box.links.place = lambda interface, requested: Placement(Hook.XDP, "a test")
    box.links.finish_frames = lambda interface, generic: Finished(False, "a tag may be beside a frame")
    restored = []
    box.links.restore_offloads = restored.append
    box.agent.start()
    (attached,) = box.agent.ports
    assert (attached.port.hook, attached.port.finished, attached.reason) == (placed, placed is Hook.TC, reason)
    assert restored == [101]
    box.agent.close()


def test_offloads_that_were_off_for_xdp_are_on_again_when_it_has_stopped(tmp_path):
    box = Box(tmp_path, ports=({"interface": "eth1", "hook": "xdp"},))
    box.links.place = lambda interface, requested: Placement(Hook.XDP, "a test")
    seen = []
    box.links.restore_offloads = lambda ifindex: seen.append((ifindex, box.datapath.ports[1].finished))
    box.agent.start()
    assert box.datapath.ports[1].finished
    box.agent.close()
    assert seen == [(101, False)], "from then on XDP passes all on, until it is taken off"


def test_the_datapath_id_is_the_first_ports_address_unless_one_is_given(tmp_path):
    assert Box(tmp_path, datapath_id=None).agent.switch.datapath_id == int.from_bytes(mac(1), "big")
    assert Box(tmp_path, datapath_id=None, ports=("none=1", "eth3=3")).agent.switch.datapath_id == int.from_bytes(mac(3), "big")
    without = [Box(tmp_path, datapath_id=None, ports=(), name=name).agent.switch.datapath_id for name in ("a", "a", "b")]
    assert without[0] == without[1] != without[2]


# ── life ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_stop_leaves_nothing(tmp_path):
    box = Box(tmp_path, listen=(f"ptcp:{(port := free_port())}",))
    ready = []
    agent = spawn(box.agent.run, lambda: ready.append(True))
    until(lambda: ready)
    peer = Peer.connect(port)
    peer.greet()
    assert box.links.promiscuous == {101, 102, 103}
    box.agent.stop()
    peer.ended()
    agent.wait()
    assert box.datapath.closed
    assert box.links.closed
    assert box.links.promiscuous == set()
    assert not os.path.exists(box.config.control_socket)
    with pytest.raises(ConnectionRefusedError):
        Peer.connect(port)


def test_a_second_agent_of_the_same_name_does_not_start_and_does_not_harm_the_first(tmp_path, box):
    second = Box(tmp_path)
    with pytest.raises(UnixSocketError, match="another switch answers there"):
        second.agent.run()
    assert second.datapath.ports == {}
    assert os.path.exists(box.config.control_socket)


def test_a_port_to_listen_on_that_is_taken_is_told(tmp_path):
    listener = Listener()
    box = Box(tmp_path, listen=(f"ptcp:{listener.port}",))
    with pytest.raises(AgentError, match=f"ptcp:{listener.port}: cannot listen there: Address already in use"):
        box.agent.run()
    listener.close()


# ── the control socket ─────────────────────────────────────────────────────────────────────────────────────────────────
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


def test_frames_go_straight_to_the_other_end_as_long_as_that_is_right(tmp_path):
    straight, queued = OutputMethod(mac(82), "its other end is elsewhere"), OutputMethod(b"", "its qdisc is to see them")
    specs = ({"interface": "eth1", "number": 1}, {"interface": "eth2", "number": 2, "direct_to_peer": False})
    with running(tmp_path, ports=specs) as box, ControlClient(box.config.control_socket) as client:
        for output, how in ((straight, "redirect_peer"), (queued, "redirect"), (straight, "redirect_peer")):
            for number in (1, 2):
                box.links.outputs[100 + number] = output
                box.links.change(100 + number, interface(number))  # nothing of its own is different
            until(lambda: box.datapath.ports[1].other_end == output.other_end)  # noqa: B023
            assert not box.datapath.ports[2].other_end
            one, two = in_thread(lambda: client.request("ports"))
            assert (one["output"], one["output_reason"]) == (how, output.reason)
            assert (two["output"], two["output_reason"]) == ("redirect", "as configured")


# ── the local port ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_machines_own_interface_is_the_local_port(tmp_path):
    with running(tmp_path, local=None, name="edge", listen=(f"ptcp:{(port := free_port())}",)) as box:
        peer = Peer.connect(port)
        peer.greet()
        peer.send(MultipartRequest(PortDescRequest()))
        *_, local = peer.expect(MultipartReply).body.ports
        assert (local.number, local.name, local.up) == (PortNo.LOCAL, "edge", False)
        assert local.hw_addr[0] & 3 == 2, "of one station, locally administered"
        assert not box.datapath.ports[PortNo.LOCAL].forward
        host, end = (next(known for known in box.links.known.values() if known.name == name) for name in ("edge", "edge-sw"))
        assert host.mac == local.hw_addr
        box.links.change(end.ifindex, replace(end, carrier=True))
        status = peer.expect(PortStatus)
        assert (status.reason, status.port.number, status.port.up) == (PortReason.MODIFY, PortNo.LOCAL, True)
        assert box.datapath.ports[PortNo.LOCAL].forward
        box.links.change(host.ifindex, replace(host, mac=mac(77)))
        assert peer.expect(PortStatus).port.hw_addr == mac(77)
        box.links.change(end.ifindex, None)
        status = peer.expect(PortStatus)
        assert (status.reason, status.port.number) == (PortReason.DELETE, PortNo.LOCAL)
        peer.close()
    assert [known.name for known in box.links.known.values()] == ["eth1", "eth2", "eth3"]


def test_the_local_port_has_the_same_address_for_a_datapath_id(tmp_path):
    def address(datapath_id):
        with running(tmp_path, local="br0", datapath_id=datapath_id) as box:
            return next(known.mac for known in box.links.known.values() if known.name == "br0")

    assert address(1) == address(1) != address(2)


@pytest.mark.parametrize(("local", "starts"), [(None, True), ("br0", False)])
def test_a_local_port_that_cannot_be_made_matters_only_if_it_was_asked_for(tmp_path, caplog, local, starts):
    box = Box(tmp_path, local=local)

    def refuse(spec, mtu):
        raise PortError("it is taken")

    box.links.make_local = refuse
    try:
        if starts:
            box.agent.start()
            assert "there is no port LOCAL: it is taken" in caplog.text
        else:
            with pytest.raises(AgentError, match="port LOCAL: it is taken"):
                box.agent.start()
    finally:
        box.agent.close()


def test_stop_by_command(tmp_path):
    box = Box(tmp_path)
    agent = spawn(box.agent.run)
    until(lambda: box.datapath.ports)
    with ControlClient(box.config.control_socket) as client:
        assert in_thread(client.request, "stop") is None
    agent.wait()


def test_a_configuration_without_controllers_has_the_integrated_one(tmp_path):
    assert Box(tmp_path).agent.integrated is not None
    assert Box(tmp_path, controllers=("tcp:192.0.2.1:6653",)).agent.integrated is None
    assert Box(tmp_path, listen=("ptcp:6653",)).agent.integrated is None
    assert Config(name="x").control_socket == "/run/ofswitch/x.sock"
