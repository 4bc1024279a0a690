"""The action table, partial checksums, and what execute refuses."""

from __future__ import annotations

import pytest
from vectors import frames
from vectors.encapsulations import ENCAPSULATIONS
from vectors.executions import EXECUTIONS, ExecutionVector
from vectors.frames import Sample
from vectors.packets import PACKETS

from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import DatapathAction, DecTtl, Forward, PopTag, PushTag
from appliance.packet.execute import Emission, execute
from appliance.packet.parse import parse

OUT = Forward(1)


def _put(field: str, value: int) -> SetField:
    return SetField(BY_NAME[field], value)


def _run(frame: bytes, *actions: DatapathAction, partial: bool = False) -> bytes:
    (emission,) = execute(frame, (*actions, OUT), 1, partial_checksum=partial)
    return emission.frame


TABLE = [*EXECUTIONS, *ENCAPSULATIONS]


@pytest.mark.parametrize("vector", TABLE, ids=[vector.name for vector in TABLE])
def test_action_table(vector: ExecutionVector) -> None:
    emissions = execute(vector.frame, vector.actions, vector.in_port)
    assert [(e.action, e.frame.hex(), e.tunnel) for e in emissions] == vector.leaving


def test_the_table_sets_every_field_that_can_be_set() -> None:
    """And each of them changes a frame somewhere, or the tunnel."""
    changed = set()
    for vector in TABLE:
        if vector.emissions and (vector.frame != vector.emissions[-1][1] or vector.tunnels):
            changed |= {action.field.name for action in vector.actions if isinstance(action, SetField)}
    assert changed == {field.name for field in BY_NAME.values() if field.settable}
    assert all(len({vector.name for vector in part}) == len(part) for part in (EXECUTIONS, ENCAPSULATIONS))


@pytest.mark.parametrize("name", ["in_port", "metadata", "ipv6_exthdr", "inner_vlan_tci", "layers", "ip_frag"])
def test_a_field_that_nothing_can_set(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        execute(bytes(60), [_put(name, 1)], 1)


@pytest.mark.parametrize(("name", "value"), [("eth_dst", 1 << 48), ("ip_dscp", 64), ("vlan_vid", 1 << 13), ("udp_dst", -1)])
def test_a_value_that_does_not_fit(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        execute(bytes(60), [_put(name, value)], 1)


def test_the_frame_that_came_in_is_not_changed() -> None:
    frame = frames.ethernet(0x0800, frames.ipv4(17, frames.udp()))
    before = bytes(frame)
    execute(frame, [_put("eth_dst", 1), PushTag(0x8100, 1), OUT], 1)
    assert frame == before


def test_outputs_of_an_unchanged_packet_share_one_frame() -> None:
    frame = PACKETS[-1].frame
    assert execute(frame, [Forward(1), Forward(2)], 1) == [Emission(Forward(1), frame), Emission(Forward(2), frame)]


# ── partial checksums ──────────────────────────────────────────────────────────────────────────────────────────────────
def _partial(version: int, proto: int, **address: bytes) -> Sample:
    body = frames.tcp(payload=b"abc") if proto == 6 else frames.udp(payload=b"abc")
    if version == 4:
        sample = Sample(frames.ethernet(0x0800, frames.ipv4(proto, body, **address)), 4, 14, 34, proto)
    else:
        sample = Sample(frames.ethernet(0x86DD, frames.ipv6(proto, body, **address)), 6, 14, 54, proto)
    return sample.finished(l4=False).partial()


PARTIAL = [(4, 6), (4, 17), (6, 6), (6, 17)]


@pytest.mark.parametrize(("version", "proto"), PARTIAL)
def test_partial_addresses_change_the_sum(version: int, proto: int) -> None:
    size = 4 if version == 4 else 16
    new = bytes(range(200, 200 + size))
    for end in ("src", "dst"):
        got = _run(_partial(version, proto).frame, _put(f"ipv{version}_{end}", int.from_bytes(new, "big")), partial=True)
        assert got == _partial(version, proto, **{end: new}).frame


@pytest.mark.parametrize(("version", "proto"), PARTIAL)
def test_partial_ports_do_not(version: int, proto: int) -> None:
    before = _partial(version, proto)
    got = _run(before.frame, _put("tcp_dst" if proto == 6 else "udp_dst", 0xABCD), partial=True)
    at = before.l4 + 2
    assert got == before.frame[:at] + b"\xab\xcd" + before.frame[at + 2 :]


@pytest.mark.parametrize(("version", "proto"), PARTIAL)
def test_partial_protocol_changes_the_sum(version: int, proto: int) -> None:
    before = _partial(version, proto)
    at = 23 if version == 4 else 20
    renamed = Sample(before.frame[:at] + b"\x63" + before.frame[at + 1 :], version, 14, before.l4, proto, pseudo_proto=0x63)
    assert _run(before.frame, _put("ip_proto", 0x63), partial=True) == renamed.finished(l4=False).partial().frame


def test_partial_says_nothing_of_icmp_and_sctp() -> None:
    echo = Sample(frames.ethernet(0x86DD, frames.ipv6(58, frames.icmp(128, 0))), 6, 14, 54, 58).finished()
    moved = Sample(frames.ethernet(0x86DD, frames.ipv6(58, frames.icmp(128, 0), dst=frames.IPV6_A)), 6, 14, 54, 58).finished()
    put = _put("ipv6_dst", int.from_bytes(frames.IPV6_A, "big"))
    assert _run(echo.frame, put, partial=True) == moved.frame
    sctp = Sample(frames.ethernet(0x0800, frames.ipv4(132, frames.sctp())), 4, 14, 34, 132).finished()
    moved = Sample(frames.ethernet(0x0800, frames.ipv4(132, frames.sctp(dst=9))), 4, 14, 34, 132).finished()
    assert _run(sctp.frame, _put("sctp_dst", 9), partial=True) == moved.frame


def test_partial_holds_through_tags_and_ttl() -> None:
    before = _partial(4, 6)
    got = _run(before.frame, PushTag(0x8100, 5), DecTtl(), PopTag(), _put("ip_ttl", 64), partial=True)
    assert got == before.frame


# ── checksums that no longer have the one right value ──────────────────────────────────────────────────────────────────
def test_a_tcp_checksum_of_all_ones_becomes_zero() -> None:
    """Both say the same; updated ones are written so, changed or not (as the kernel's helpers do)."""
    frame = bytearray(frames.ethernet(0x0800, frames.ipv4(6, frames.tcp(dst=80))))
    frame[50:52] = b"\xff\xff"
    assert _run(bytes(frame), _put("tcp_dst", 80))[50:52] == b"\0\0"


@pytest.mark.parametrize("length", [0, 19, 23])
def test_sctp_with_a_length_of_nonsense_keeps_its_checksum(length: int) -> None:
    frame = bytearray(Sample(frames.ethernet(0x0800, frames.ipv4(132, frames.sctp())), 4, 14, 34, 132).finished().frame)
    frame[16:18] = length.to_bytes(2, "big")
    got = _run(bytes(frame), _put("sctp_src", 1))
    assert got == bytes(frame[:34]) + b"\0\1" + bytes(frame[36:])


def test_reparse_after_the_type_of_an_echo_becomes_a_solicitation() -> None:
    body = frames.icmp(128, 0, payload=bytes(4) + frames.IPV6_A + frames.lladdr_option(1, frames.MAC_A))
    sample = Sample(frames.ethernet(0x86DD, frames.ipv6(58, body)), 6, 14, 54, 58).finished()
    got = _run(sample.frame, _put("icmpv6_type", 135), _put("ipv6_nd_sll", 0xAABBCCDDEEFF))
    assert BY_NAME["ipv6_nd_sll"].get(parse(got, 1).key) == 0xAABBCCDDEEFF
    assert Sample(got, 6, 14, 54, 58).finished().frame == got
