"""The packet table, and what parse promises beyond the key: offsets, layers, and that key members are where LAYOUT says."""

from __future__ import annotations

import pytest
from vectors import frames
from vectors.packets import PACKETS, PacketVector

from appliance.model.fields import BY_NAME, KEY_BYTES, LAYERS, LAYOUT, Layer
from appliance.packet.parse import parse


def _members(key: int) -> dict[str, int]:
    """The members of struct flow_key that are not 0: a difference that can be read."""
    raw = key.to_bytes(KEY_BYTES, "big")
    values = {name: int.from_bytes(raw[at : at + size], "big") for name, (at, size) in LAYOUT.items()}
    return {name: value for name, value in values.items() if value}


@pytest.mark.parametrize("vector", PACKETS, ids=[vector.name for vector in PACKETS])
def test_packet_table(vector: PacketVector) -> None:
    parsed = parse(vector.frame, vector.in_port)
    assert _members(parsed.key) == _members(vector.key)
    assert parsed.key == vector.key
    assert parsed.layers == LAYERS.get(parsed.key)


def test_the_table_has_every_layer_and_every_name_once() -> None:
    seen = Layer.NONE
    for vector in PACKETS:
        seen |= Layer(LAYERS.get(vector.key))
    assert set(Layer) <= set(seen)
    assert len({vector.name for vector in PACKETS}) == len(PACKETS)


def test_in_port_and_tunnel_are_in_every_key() -> None:
    for frame in (b"", bytes(13), bytes(14), frames.ethernet(0x0800, frames.ipv4(17, frames.udp()))):
        key = parse(frame, 0xFFFFFFF8, 0xFEDCBA9876543210, 0xC0A80001, 0xC0A800FE).key
        assert BY_NAME["in_port"].get(key) == 0xFFFFFFF8
        assert BY_NAME["tun_src"].get(key) == 0xC0A80001
        assert BY_NAME["tun_dst"].get(key) == 0xC0A800FE
        assert BY_NAME["tunnel_id"].get(key) == 0xFEDCBA9876543210


def test_any_buffer_parses_alike() -> None:
    for vector in PACKETS:
        assert parse(bytearray(vector.frame), 1) == parse(vector.frame, 1)


def test_offsets() -> None:
    tags = ((0x88A8, 1), (0x8100, 2))
    option = frames.lladdr_option(14, bytes(6)) + frames.lladdr_option(1, frames.MAC_A)
    first, headers = frames.chain((0, 60), 58)
    body = frames.nd(135, frames.IPV6_A, option)
    parsed = parse(frames.ethernet(0x86DD, frames.ipv6(first, headers + body), tags), 1)
    assert parsed.tags == 2
    assert parsed.eth_type_offset == 20
    assert parsed.l3_offset == 22
    assert parsed.ip_proto_offset == 22 + 40 + 8
    assert parsed.l4_offset == 22 + 40 + 16
    assert parsed.nd_lladdr_offset == parsed.l4_offset + 24 + 8 + 2


def test_offsets_of_ipv4() -> None:
    parsed = parse(frames.ethernet(0x0800, frames.ipv4(6, frames.tcp(), options=bytes(8))), 1)
    assert (parsed.tags, parsed.eth_type_offset, parsed.l3_offset, parsed.ip_proto_offset) == (0, 12, 14, 23)
    assert (parsed.l4_offset, parsed.nd_lladdr_offset) == (42, 0)


@pytest.mark.parametrize(
    "frame",
    [
        frames.ethernet(0x0800, frames.ipv4(17, frames.udp()[:7])),
        frames.ethernet(0x0800, frames.ipv4(17, frames.udp(), fragment=1)),
        frames.ethernet(0x86DD, frames.ipv6(50, bytes(20))),
    ],
)
def test_no_layer_4_has_no_offset(frame: bytes) -> None:
    assert parse(frame, 1).l4_offset == 0
