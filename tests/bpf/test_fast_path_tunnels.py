"""Tunnel ports in eBPF against ``model/tunnel.py``: which port a packet came by, where it leaves to, and by which fields."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fast_path import LOOPBACK_IFINDEX, FastPath, Verdict
from vectors import frames

from appliance.datapath.driver import DatapathPort
from appliance.datapath.layout import NO_OTHER_END, Port, PortFlag, tunnel_ingress
from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME, IN_PORT
from appliance.model.megaflow import FIRST_AGAIN, Again, DatapathAction, DropReason, Forward
from appliance.model.ports import Hook
from appliance.model.tunnel import Tunnel, TunnelPort, tunnel_of
from appliance.packet.execute import execute

pytestmark = pytest.mark.root

PLAIN_PORT = 1
FIRST = 10
"""The lowest number of a tunnel port."""
UDP = frames.ethernet(0x0800, frames.ipv4(17, frames.udp(), ttl=9, tos=0xB9))
ARP = frames.ethernet(0x0806, frames.arp())
A, B, C = (IPv4Address(f"192.0.2.{n}") for n in (1, 2, 3))


@pytest.fixture(scope="module")
def fast_path() -> Iterator[FastPath]:
    fast_path = FastPath(PLAIN_PORT)
    yield fast_path
    fast_path.close()


@contextmanager
def tunnel_ports(fast_path: FastPath, *ports: TunnelPort, came: Tunnel | None = None) -> Iterator[None]:
    """On one device, which is the one that frames come in on if they ``came`` by a tunnel; numbered from FIRST."""
    tunnels, programs = fast_path.datapath.ports.tunnels, fast_path.datapath.programs
    flags = PortFlag.FORWARD | PortFlag.RECEIVE | PortFlag.TUNNEL
    numbered = dict(enumerate(ports, FIRST))
    for number, port in numbered.items():
        tunnels.add(DatapathPort(number, "lo", LOOPBACK_IFINDEX, Hook.TC, tunnel=port))
        programs.update("ports", number, struct.pack("=IIIIqQ", LOOPBACK_IFINDEX, flags, 1 << 16, 0, NO_OTHER_END, 0))
    if came is not None:
        ingress = tunnel_ingress(tunnels.ways(LOOPBACK_IFINDEX))
        programs.update("small_ifindex", LOOPBACK_IFINDEX, ingress)
    fast_path.came = came
    try:
        yield
    finally:
        fast_path.came = None
        fast_path._come_in_on(PLAIN_PORT)
        for number in numbered:
            programs.update("ports", number, bytes(ctypes.sizeof(Port)))
            tunnels.remove(number)


def put(name: str, value: int | IPv4Address) -> SetField:
    return SetField(BY_NAME[name], int(value))


# ── coming in ──────────────────────────────────────────────────────────────────────────────────────────────────────────
addresses = st.sampled_from((A, B, C))
keys = st.sampled_from((0, 1, 0xFFFFFF))
ends = st.builds(TunnelPort, remote=st.none() | addresses, local=st.none() | addresses, key=st.none() | keys)
tunnels = st.builds(Tunnel, keys, addresses.map(int), addresses.map(int))


@given(
    ports=st.lists(ends, min_size=1, max_size=8, unique_by=lambda port: (port.remote, port.local, port.key)),
    came=tunnels,
    frame=st.sampled_from((UDP, ARP)),
)
def test_a_packet_comes_by_the_port_that_has_most_fixed(
    fast_path: FastPath, ports: list[TunnelPort], came: Tunnel, frame: bytes
) -> None:
    takers = {port.precision: number for number, port in enumerate(ports, FIRST) if port.takes(came)}
    drops = fast_path.datapath.drops()[DropReason.NOT_A_PORT]
    with tunnel_ports(fast_path, *ports, came=came):
        result = fast_path.execute(frame, Hook.TC)
    assert tunnel_of(result.key) == came
    if takers:
        (upcall,) = result.upcalls
        assert IN_PORT.get(upcall.key) == upcall.in_port == takers[max(takers)]
        assert tunnel_of(upcall.key) == came
    else:
        assert (result.code, result.upcalls) == (Verdict.TC_SHOT, ())
        assert fast_path.datapath.drops()[DropReason.NOT_A_PORT] > drops


def test_a_packet_that_came_by_no_tunnel_at_all_is_nobodys(fast_path: FastPath) -> None:
    """What the kernel itself may put on a tunnel device."""
    drops = fast_path.datapath.drops()[DropReason.NOT_A_PORT]
    with tunnel_ports(fast_path, TunnelPort(), came=Tunnel()):
        fast_path.came = None
        assert fast_path.execute(UDP, Hook.TC).code == Verdict.TC_SHOT
    assert fast_path.datapath.drops()[DropReason.NOT_A_PORT] > drops


def test_a_packet_of_another_device_comes_by_none_of_the_ports(fast_path: FastPath) -> None:
    port = TunnelPort(remote=A)
    with tunnel_ports(fast_path, came=Tunnel(0, int(A), int(B))):
        fast_path.datapath.ports.tunnels.add(DatapathPort(FIRST, "other", 77, Hook.TC, tunnel=port))
        try:
            fast_path.datapath.programs.update("small_ifindex", LOOPBACK_IFINDEX, tunnel_ingress(0xFF))
            assert fast_path.execute(UDP, Hook.TC).code == Verdict.TC_SHOT
        finally:
            fast_path.datapath.ports.tunnels.remove(FIRST)


# ── leaving ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def leaves(
    fast_path: FastPath, frame: bytes, actions: tuple[DatapathAction, ...], ports: dict[int, TunnelPort], came: Tunnel | None
) -> None:
    """Every output to one of the ports goes by the tunnel that the reference says."""
    fast_path.install(actions, 0, 0)
    result = fast_path.execute(frame, Hook.TC)
    began = came or Tunnel()
    expected = execute(frame, actions, 1, tunnel=began)
    assert [(output.action, output.frame, output.tunnel) for output in result.outputs] == [
        (emission.action, emission.frame, emission.tunnel) for emission in expected
    ]
    for output in result.outputs:
        assert isinstance(output.action, Forward)
        port = ports.get(output.action.port)
        if port is not None:
            assert (None if output.left is None else output.left.tunnel) == port.sends(output.tunnel.set_since(began))


changes = st.one_of(
    keys.map(lambda key: put("tunnel_id", key)),
    st.tuples(st.sampled_from(("tun_src", "tun_dst")), st.just(0) | addresses.map(int)).map(lambda item: put(*item)),
)
steps = st.lists(changes | st.sampled_from((Forward(FIRST), Forward(FIRST + 1), Forward(2))), max_size=12)


@given(steps=steps, first=ends, second=ends, came=st.none() | tunnels, frame=st.sampled_from((UDP, ARP)))
def test_a_packet_leaves_by_what_the_port_fixes_and_the_actions_set(
    fast_path: FastPath, steps: list[DatapathAction], first: TunnelPort, second: TunnelPort, came: Tunnel | None, frame: bytes
) -> None:
    """Also by the express way (no change at all), several times with other fields, and from tunnel to tunnel."""
    end = TunnelPort() if came is not None else replace(first, key=0xABC)
    ports = {FIRST: first, FIRST + 1: second, FIRST + 2: end}
    if len({(port.remote, port.local, port.key) for port in ports.values()}) < len(ports):
        return
    actions = (*steps, Forward(FIRST))
    with tunnel_ports(fast_path, *ports.values(), came=came):
        try:
            leaves(fast_path, frame, actions, ports, came)
        finally:
            fast_path.datapath.remove(list(fast_path.datapath.megaflows.installed))


@given(came=st.none() | tunnels, changed=st.lists(changes, max_size=3))
def test_a_packet_that_is_parsed_again_comes_up_with_the_tunnel_that_it_came_by(
    fast_path: FastPath, came: Tunnel | None, changed: list[DatapathAction]
) -> None:
    began = came or Tunnel()
    with tunnel_ports(fast_path, TunnelPort(), came=came):
        try:
            in_port = PLAIN_PORT if came is None else FIRST
            fast_path.install((*changed, Again(FIRST_AGAIN)), IN_PORT.put(0, in_port))
            (missed,) = fast_path.execute(UDP, Hook.TC).upcalls
        finally:
            fast_path.datapath.remove(list(fast_path.datapath.megaflows.installed))
    (left,) = execute(UDP, (*changed, Forward(2)), 1, tunnel=began)
    assert IN_PORT.get(missed.key) == FIRST_AGAIN
    assert tunnel_of(missed.key) == left.tunnel
    assert missed.came == began._replace(id=0)


@pytest.mark.parametrize(
    ("port", "frame", "tos", "ttl"),
    [
        (TunnelPort(remote=A), UDP, 0, 64),
        (TunnelPort(remote=A, tos=0x12, ttl=3), UDP, 0x12, 3),
        (TunnelPort(remote=A, tos=None, ttl=None), UDP, 0xB8, 9),
        (TunnelPort(remote=A, tos=None, ttl=None), ARP, 0, 64),
        (TunnelPort(remote=A, keyless=True), UDP, 0, 64),
    ],
)
def test_type_of_service_and_time_to_live(fast_path: FastPath, port: TunnelPort, frame: bytes, tos: int, ttl: int) -> None:
    with tunnel_ports(fast_path, port):
        megaflow = fast_path.install((Forward(FIRST),))
        (output,) = fast_path.execute(frame, Hook.TC).outputs
        fast_path.datapath.remove([megaflow])
    assert output.left == (Tunnel(0, 0, int(A)), tos, ttl)


def test_ipv6_ends(fast_path: FastPath) -> None:
    """Their addresses are in no field; they go to the kernel all the same."""
    near, far = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
    with tunnel_ports(fast_path, TunnelPort(remote=far, local=near, key=7)):
        megaflow = fast_path.install((Forward(FIRST),))
        (output,) = fast_path.execute(UDP, Hook.TC).outputs
        fast_path.datapath.remove([megaflow])
    assert output.left is not None
