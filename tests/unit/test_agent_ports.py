"""The agent and its interfaces: those that come, change and go, their hooks, and the machine's own."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from agent_support import Box, Peer, flow_mod, frame, free_port, interface, mac, running, until

from appliance.agent.agent import AgentError
from appliance.agent.client import ControlClient
from appliance.agent.green import in_thread
from appliance.agent.links import Placement
from appliance.agent.unix_socket import UnixSocketError
from appliance.datapath.driver import DatapathError
from appliance.model.ports import Hook, PortNo
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    MultipartReply,
    MultipartRequest,
    PortDescRequest,
    PortReason,
    PortStatsRequest,
    PortStatus,
)
from appliance.ports import Finished, OutputMethod, PortError


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


def test_an_interface_that_another_switch_has_stays_with_it(tmp_path):
    box = Box(tmp_path)
    box.links.claimed_by_others = {"interface/102"}
    with pytest.raises(AgentError, match=r"^port 2 \(eth2\): another switch has it$"):
        box.agent.run()


def test_claims_are_kept_as_long_as_the_interface_is_a_port(box, peer):
    assert box.links.claims == {"name/ofswitch", "interface/101", "interface/102", "interface/103"}
    box.links.change(102, interface(2, name="other"))
    assert peer.expect(PortStatus).reason == PortReason.DELETE
    assert "interface/102" not in box.links.claims


def test_an_interface_that_cannot_be_asked_for_its_programs_is_not_claimed(tmp_path):
    def refuse(ifindex: int) -> bool:
        raise DatapathError("Interrupted system call")

    box = Box(tmp_path)
    box.datapath.left_behind = refuse
    with pytest.raises(AgentError, match=r"port 1 \(eth1\): Interrupted system call"):
        box.agent.start()
    assert not box.links.claims & {"interface/101", "interface/102", "interface/103"}


def test_the_local_port_of_a_switch_of_the_same_name_stays(tmp_path):
    """Also where the second one fails before it comes to its name: there it is not yet its own."""
    for claimed in ({"name/br0"}, set()):
        box = Box(tmp_path, name="br0", local="br0")
        box.links.make_local(box.agent.ports._local, 1500)  # the other's
        box.links.claimed_by_others = claimed
        if not claimed:
            (tmp_path / "control.sock").write_text("no socket")
        with pytest.raises((AgentError, UnixSocketError)):
            box.agent.run()
        assert {99, 100} <= set(box.links.known)


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
    seen, close = [], box.links.close
    box.links.restore_offloads = lambda ifindex: seen.append((ifindex, 1 in box.datapath.ports))
    box.links.close = lambda: (seen.append(("all", not box.datapath.closed)), close())
    box.agent.start()
    box.links.change(101, None)
    until(lambda: seen)
    box.agent.close()
    assert seen == [(101, False), ("all", False)], "the fast path has been taken off before"


def test_the_datapath_id_is_the_first_ports_address_unless_one_is_given(tmp_path):
    assert Box(tmp_path, datapath_id=None).agent.switch.datapath_id == int.from_bytes(mac(1), "big")
    assert Box(tmp_path, datapath_id=None, ports=("none=1", "eth3=3")).agent.switch.datapath_id == int.from_bytes(mac(3), "big")
    without = [Box(tmp_path, datapath_id=None, ports=(), name=name).agent.switch.datapath_id for name in ("a", "a", "b")]
    assert without[0] == without[1] != without[2]


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
