"""The agent on a fast path in memory, under controllers that speak over TCP."""

from __future__ import annotations

import logging
import os
import signal

import pytest
from agent_support import (
    BROADCAST,
    Box,
    Listener,
    Peer,
    flow_mod,
    frame,
    free_port,
    interface,
    passed_on,
    running,
    stock_controller,
    until,
    until_forwarding,
)

from appliance.agent import agent as agent_module
from appliance.agent.agent import AgentError
from appliance.agent.client import ControlClient
from appliance.agent.green import in_thread, spawn
from appliance.agent.unix_socket import UnixSocketError
from appliance.config import Config
from appliance.datapath.driver import DatapathError
from appliance.model.ports import PortNo
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    Desc,
    DescRequest,
    FeaturesReply,
    FeaturesRequest,
    MultipartReply,
    MultipartRequest,
    PacketIn,
)
from appliance.switch.events import Upcalls


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


# ── life ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_stop_takes_back_what_an_agent_that_died_has_changed_and_nothing_else(tmp_path):
    box = Box(tmp_path)
    box.links.promiscuous = {101, 102}
    box.datapath.left = {101}
    box.agent.start()
    assert box.links.promiscuous == {101, 102, 103}
    box.agent.close()
    assert box.links.promiscuous == {102}


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
