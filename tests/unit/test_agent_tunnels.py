"""Tunnel ports under the agent, on interfaces and a fast path in memory: devices that come and go, and what the slow path sends."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from agent_support import Box, Peer, frame, free_port, mac, running, until

from appliance.agent.agent import AgentError
from appliance.model.actions import ApplyActions, Output, SetField
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.model.ports import PortNo
from appliance.model.tunnel import Tunnel, TunnelPort
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    FlowMod,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    PacketOut,
    PortDescRequest,
    PortReason,
    PortStatus,
)
from appliance.ports import PortError, TunnelDevice

A, B = int(IPv4Address("192.0.2.1")), int(IPv4Address("192.0.2.2"))
FIXED = {"interface": "vx4", "number": 4, "type": "vxlan", "options": {"remote_ip": "192.0.2.2", "key": 42}}
FLOW = {"interface": "vx5", "number": 5, "type": "vxlan", "options": {"remote_ip": "flow", "key": "flow"}}
OTHER = {"interface": "vx6", "number": 6, "type": "geneve", "options": {"remote_ip": "flow"}}


def ports(*tunnels: dict[str, object]) -> tuple[object, ...]:
    return ("eth1=1", *tunnels)


@pytest.fixture
def box(tmp_path):
    port = free_port()
    with running(tmp_path, listen=(f"ptcp:{port}",), name="edge", ports=ports(FIXED, FLOW, OTHER)) as box:
        box.openflow_port = port
        yield box


@pytest.fixture
def peer(box):
    peer = Peer.connect(box.openflow_port)
    peer.greet()
    yield peer
    peer.close()


def barrier(peer: Peer) -> None:
    peer.send(BarrierRequest())
    peer.expect(BarrierReply)


def put(name: str, value: int) -> SetField:
    return SetField(BY_NAME[name], value)


# ── devices ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_device_carries_all_ports_of_a_kind_and_udp_port(box):
    assert sorted(device.name for device in box.links.tunnel_devices.values()) == ["geneve_of_6081", "vxlan_of_4789"]
    attached = box.datapath.ports
    assert attached[4].ifindex == attached[5].ifindex != attached[6].ifindex
    assert attached[4].tunnel == TunnelPort(remote=IPv4Address("192.0.2.2"), key=42)
    assert attached[5].tunnel == TunnelPort()
    assert (attached[5].interface, attached[6].interface) == ("vxlan_of_4789", "geneve_of_6081")
    assert box.links.promiscuous == {101}, "a tunnel device has no use for it"
    box.agent.close()
    assert box.links.tunnel_devices == {}


def test_tunnel_ports_have_names_and_addresses_of_their_own(box, peer):
    peer.send(MultipartRequest(PortDescRequest()))
    told = {port.number: port for port in peer.expect(MultipartReply).body.ports}
    assert [told[number].name for number in (4, 5, 6)] == ["vx4", "vx5", "vx6"]
    addresses = {port.hw_addr for port in told.values()}
    assert len(addresses) == 4
    assert all(told[number].hw_addr[0] & 3 == 2 for number in (4, 5, 6)), "locally administered, of one station"
    assert [(told[number].curr, told[number].curr_speed) for number in (4, 5, 6)] == [(0, 0)] * 3


def test_a_device_that_is_taken_away_is_made_again(box, peer):
    (ifindex,) = {box.datapath.ports[number].ifindex for number in (4, 5)}
    del box.links.tunnel_devices[ifindex]
    box.links.change(ifindex, None)
    told = [peer.expect(PortStatus) for _ in range(4)]
    assert [(item.reason, item.port.name) for item in told] == [
        (PortReason.DELETE, "vx4"),
        (PortReason.DELETE, "vx5"),
        (PortReason.ADD, "vx4"),
        (PortReason.ADD, "vx5"),
    ]
    assert box.datapath.ports[4].ifindex == box.datapath.ports[5].ifindex
    assert sorted(device.name for device in box.links.tunnel_devices.values()) == ["geneve_of_6081", "vxlan_of_4789"]


def test_a_link_that_goes_down_takes_all_ports_of_the_device_down(box, peer):
    ifindex = box.datapath.ports[4].ifindex
    known = box.links.known[ifindex]
    box.links.change(ifindex, type(known)(known.name, ifindex, known.mac, known.kind, known.mtu, False, False, False))
    assert {peer.expect(PortStatus).port.name for _ in range(2)} == {"vx4", "vx5"}
    assert [box.datapath.ports[number].forward for number in (4, 5, 6)] == [False, False, True]


def test_devices_that_an_earlier_run_left_are_taken_over_or_removed(tmp_path):
    box = Box(tmp_path, name="edge", ports=ports(FIXED), listen=(f"ptcp:{free_port()}",))
    mine = [box.links.make_tunnel_device(TunnelDevice("vxlan", port, "edge")) for port in (4789, 4790)]
    other = box.links.make_tunnel_device(TunnelDevice("geneve", 6081, "other"))
    try:
        box.agent.start()
        assert box.datapath.ports[4].ifindex == mine[0].ifindex
        assert set(box.links.tunnel_devices) == {mine[0].ifindex, other.ifindex}
    finally:
        box.agent.close()
    assert set(box.links.tunnel_devices) == {other.ifindex}


def test_a_device_that_cannot_be_made_is_named_and_nothing_stays(tmp_path):
    box = Box(tmp_path, name="edge", ports=ports(FIXED, OTHER), listen=(f"ptcp:{free_port()}",))
    make = box.links.make_tunnel_device

    def refuse(device):
        if device.kind == "geneve":
            raise PortError("this kernel has no geneve devices (module geneve)")
        return make(device)

    box.links.make_tunnel_device = refuse
    try:
        with pytest.raises(AgentError, match=r"^port 6 \(vx6\): this kernel has no geneve devices \(module geneve\)$"):
            box.agent.start()
    finally:
        box.agent.close()
    assert box.links.tunnel_devices == {}


# ── packets ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_a_packet_out_sets_is_where_it_goes(box, peer):
    actions = (
        Output(4),
        put("tunnel_id", 7),
        put("tun_dst", A),
        Output(5),
        Output(4),
        put("tun_dst", B),
        put("tun_src", A),
        Output(5),
    )
    peer.send(PacketOut(in_port=PortNo.CONTROLLER, actions=actions, data=frame(2, 1)))
    assert [port for port, _ in until(box.sent)] == [4, 5, 4, 5]
    assert box.datapath.tunnels == [
        (4, Tunnel(42, 0, B)),
        (5, Tunnel(7, 0, A)),
        (4, Tunnel(42, 0, B)),
        (5, Tunnel(7, A, B)),
    ]


def test_a_flood_reaches_tunnels_that_say_where_they_lead(box, peer):
    peer.send(PacketOut(in_port=PortNo.CONTROLLER, actions=(Output(PortNo.FLOOD),), data=frame(2, 1)))
    assert sorted(port for port, _ in until(box.sent)) == [1, 4]
    counted = {item.spec.number: item.sent_packets for item in box.agent.ports}
    assert counted == {1: 1, 4: 1, 5: 0, 6: 0}, "what was not sent does not count"


def test_a_packet_in_says_by_which_tunnel_and_a_flow_entry_may_ask(box, peer):
    came = Tunnel(7, B, A)
    match = Match.of(MatchField(BY_NAME[name], value) for name, value in (("tunnel_id", 7), ("tun_src", B), ("tun_dst", A)))
    to_controller = ApplyActions((put("tunnel_id", 8), Output(PortNo.CONTROLLER, 0xFFFF)))
    peer.send(FlowMod(match=match, priority=1, instructions=(to_controller,)))
    barrier(peer)
    box.datapath.inject(5, frame(1, 2), came)
    told = peer.expect(PacketIn)
    assert [(item.field.name, item.value) for item in told.match.fields] == [
        ("in_port", 5),
        ("tunnel_id", 8),
        ("tun_src", B),
        ("tun_dst", A),
    ]


def test_a_packet_does_not_go_back_by_the_tunnel_that_it_came_by(box, peer):
    """Unless an action says so: its own addresses lead to where we are. In both tiers."""
    peer.send(FlowMod(priority=1, match=Match.of([MatchField(BY_NAME["in_port"], 5)]), instructions=(ApplyActions((Output(6),)),)))
    back = ApplyActions((put("tun_dst", B), Output(PortNo.IN_PORT)))
    answered = Match.of([MatchField(BY_NAME["in_port"], 5), MatchField(BY_NAME["eth_dst"], int.from_bytes(mac(9), "big"))])
    peer.send(FlowMod(priority=2, match=answered, instructions=(back,)))
    barrier(peer)
    for destination in (1, 9, 1, 9):
        box.datapath.inject(5, frame(destination, 2), Tunnel(7, B, A))
        until(lambda: not box.datapath._upcalls)
    until(lambda: len(box.datapath.tunnels) == 2)
    assert box.datapath.tunnels == [(5, Tunnel(7, 0, B))] * 2
