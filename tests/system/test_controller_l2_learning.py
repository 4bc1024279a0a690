"""ryu_apps/l2_learning.py: what it tells a switch about the frames that the switch sends it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from os_ken.base import app_manager  # noqa: F401  first: os-ken's own import order
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

PATH = Path(__file__).parents[2] / "ryu_apps" / "l2_learning.py"
SPEC = importlib.util.spec_from_file_location("ryu_apps_l2_learning", PATH)
assert SPEC is not None
assert SPEC.loader is not None
l2_learning: Any = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = l2_learning
SPEC.loader.exec_module(l2_learning)

A, B, C = (bytes([2, 0, 0, 0, 0, n]) for n in (10, 11, 12))
BROADCAST = b"\xff" * 6
IPV4 = b"\x08\x00"
NO_BUFFER = ofp.OFP_NO_BUFFER


def text(address: bytes) -> str:
    return address.hex(":")


class Switch:
    """A connected switch that keeps what it is sent, told in words."""

    ofproto = ofp
    ofproto_parser = parser
    id = 1

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def send_msg(self, message: Any) -> None:
        message.xid = 0
        message.serialize()
        self.messages.append(message)

    def said(self) -> list[tuple[Any, ...]]:
        """What it was sent since the last call."""
        told = [self._tell(message) for message in self.messages]
        self.messages.clear()
        return told

    def _tell(self, message: Any) -> tuple[Any, ...]:
        if isinstance(message, parser.OFPPacketOut):
            return ("out", message.in_port, [action.port for action in message.actions])
        match = dict(message.match.items())
        if message.command == ofp.OFPFC_DELETE:
            return ("delete", match) if message.out_port == ofp.OFPP_ANY else ("delete", match, message.out_port)
        return ("add", message.table_id, message.priority, match, [action.port for action in message.instructions[0].actions])


@pytest.fixture
def app() -> Any:
    return l2_learning.L2Learning()


@pytest.fixture
def switch(app) -> Switch:
    switch = Switch()
    app.switch_features(SimpleNamespace(msg=SimpleNamespace(datapath=switch)))
    assert switch.said() == [("delete", {}), ("add", 0, 0, {}, [ofp.OFPP_CONTROLLER])]
    return switch


def deliver(app: Any, switch: Switch, port: int, frame: bytes, table_id: int = 0, buffer_id: int = NO_BUFFER) -> None:
    msg = SimpleNamespace(datapath=switch, match={"in_port": port}, data=frame, table_id=table_id, buffer_id=buffer_id)
    app.packet_in(SimpleNamespace(msg=msg))


def packet_in(app: Any, switch: Switch, port: int, frame: bytes, table_id: int = 0) -> list[tuple[Any, ...]]:
    """What the app says to a packet-in."""
    deliver(app, switch, port, frame, table_id)
    return switch.said()


def frame(eth_dst: bytes, eth_src: bytes, eth_type: bytes = IPV4) -> bytes:
    return eth_dst + eth_src + eth_type + bytes(46)


def flow(in_port: int, eth_src: bytes, eth_dst: bytes, out: list[int], table_id: int = 0) -> tuple[Any, ...]:
    return ("add", table_id, 1, {"in_port": in_port, "eth_src": text(eth_src), "eth_dst": text(eth_dst)}, out)


def test_an_unknown_or_group_address_is_flooded_without_a_flow_entry(app, switch):
    assert packet_in(app, switch, 1, frame(B, A)) == [("out", 1, [ofp.OFPP_FLOOD])]
    assert packet_in(app, switch, 1, frame(BROADCAST, A)) == [("out", 1, [ofp.OFPP_FLOOD])]
    packet_in(app, switch, 2, frame(BROADCAST, BROADCAST[:-1] + b"\xfe"))
    assert packet_in(app, switch, 1, frame(BROADCAST[:-1] + b"\xfe", A)) == [("out", 1, [ofp.OFPP_FLOOD])]


def test_a_known_address_gets_a_flow_entry_before_the_packet_goes_out(app, switch):
    packet_in(app, switch, 1, frame(B, A))
    assert packet_in(app, switch, 2, frame(A, B)) == [flow(2, B, A, [1]), ("out", 2, [1])]
    assert packet_in(app, switch, 1, frame(B, A)) == [flow(1, A, B, [2]), ("out", 1, [2])]


def test_flow_entries_idle_out_after_a_minute_and_the_table_miss_entry_never(app, switch):
    packet_in(app, switch, 1, frame(B, A))
    deliver(app, switch, 2, frame(A, B))
    entry = switch.messages[0]
    assert (entry.idle_timeout, entry.hard_timeout) == (60, 0)
    app.switch_features(SimpleNamespace(msg=SimpleNamespace(datapath=switch)))
    assert (switch.messages[-1].idle_timeout, switch.messages[-1].hard_timeout) == (0, 0)


def test_a_buffered_packet_goes_out_from_its_buffer(app, switch):
    deliver(app, switch, 1, frame(B, A), buffer_id=7)
    assert (switch.messages[0].buffer_id, switch.messages[0].data) == (7, None)


def test_when_a_host_moves_the_old_flow_entries_go_before_the_new_one_comes(app, switch):
    packet_in(app, switch, 1, frame(B, A))
    packet_in(app, switch, 2, frame(A, B))
    assert packet_in(app, switch, 3, frame(B, A)) == [
        ("delete", {"eth_dst": text(A)}),
        ("delete", {"eth_src": text(A)}),
        flow(3, A, B, [2]),
        ("out", 3, [2]),
    ]
    assert packet_in(app, switch, 2, frame(A, B)) == [flow(2, B, A, [3]), ("out", 2, [3])]


def test_it_deletes_its_own_flow_entries_only(app, switch):
    packet_in(app, switch, 1, frame(B, A))
    deliver(app, switch, 2, frame(B, A))
    for message in switch.messages[:2]:
        assert (message.cookie, message.cookie_mask) == (l2_learning.COOKIE, l2_learning.COOKIE_MASK)


def test_frames_to_a_host_behind_the_same_port_are_dropped_by_a_flow_entry(app, switch):
    packet_in(app, switch, 1, frame(BROADCAST, A))
    packet_in(app, switch, 1, frame(BROADCAST, B))
    assert packet_in(app, switch, 1, frame(A, B)) == [flow(1, B, A, [])]


@pytest.mark.parametrize(
    "ignored",
    [
        frame(bytes.fromhex("0180c200000e"), A, b"\x88\xcc"),
        frame(BROADCAST, A, b"\x88\xcc"),
        frame(bytes.fromhex("0180c2000000"), A, b"\x00\x26"),
        frame(B, bytes([3]) + A[1:]),
        b"",
        frame(B, A)[:13],
    ],
    ids=["LLDP", "LLDP to anyone", "spanning tree", "from a group address", "empty", "runt"],
)
def test_what_it_ignores_it_neither_forwards_nor_learns_from(app, switch, ignored):
    assert packet_in(app, switch, 1, ignored) == []
    assert app.ports[switch] == {}


def test_packets_from_other_tables_are_not_for_it(app, switch):
    assert packet_in(app, switch, 1, frame(B, A), table_id=3) == []
    app.table_id = 1
    packet_in(app, switch, 1, frame(B, A), table_id=1)
    assert packet_in(app, switch, 2, frame(A, B), table_id=1) == [flow(2, B, A, [1], table_id=1), ("out", 2, [1])]


def port_status(reason: int, number: int, state: int = 0, config: int = 0) -> dict[str, Any]:
    return {"reason": reason, "desc": SimpleNamespace(port_no=number, state=state, config=config)}


@pytest.mark.parametrize(
    "change",
    [
        port_status(ofp.OFPPR_DELETE, 1),
        port_status(ofp.OFPPR_MODIFY, 1, state=ofp.OFPPS_LINK_DOWN),
        port_status(ofp.OFPPR_MODIFY, 1, config=ofp.OFPPC_PORT_DOWN),
    ],
)
def test_hosts_behind_a_port_that_is_gone_are_forgotten(app, switch, change):
    packet_in(app, switch, 1, frame(B, A))
    packet_in(app, switch, 2, frame(A, B))
    app.port_status(SimpleNamespace(msg=SimpleNamespace(datapath=switch, **change)))
    assert switch.said() == [("delete", {}, 1), ("delete", {"in_port": 1})]
    assert packet_in(app, switch, 2, frame(A, B)) == [("out", 2, [ofp.OFPP_FLOOD])]


def test_a_port_that_comes_up_changes_nothing(app, switch):
    packet_in(app, switch, 1, frame(B, A))
    app.port_status(SimpleNamespace(msg=SimpleNamespace(datapath=switch, **port_status(ofp.OFPPR_MODIFY, 1, state=ofp.OFPPS_LIVE))))
    assert switch.said() == []


def test_switches_do_not_share_addresses(app, switch):
    other = Switch()
    other.id = 2
    app.switch_features(SimpleNamespace(msg=SimpleNamespace(datapath=other)))
    other.said()
    packet_in(app, switch, 1, frame(B, A))
    assert packet_in(app, other, 2, frame(A, B)) == [("out", 2, [ofp.OFPP_FLOOD])]


def test_memory_is_bounded_and_who_is_forgotten_is_forgotten_by_the_switch_too(app, switch, monkeypatch):
    monkeypatch.setattr(l2_learning, "MAX_ADDRESSES", 2)
    for port, address in ((1, A), (2, B)):
        packet_in(app, switch, port, frame(BROADCAST, address))
    assert packet_in(app, switch, 3, frame(BROADCAST, C)) == [
        ("delete", {"eth_dst": text(A)}),
        ("delete", {"eth_src": text(A)}),
        ("out", 3, [ofp.OFPP_FLOOD]),
    ]
    assert app.ports[switch] == {B: 2, C: 3}


def test_a_switch_that_goes_is_forgotten(app, switch):
    app.switch_gone(SimpleNamespace(datapath=switch))
    assert app.ports == {}
