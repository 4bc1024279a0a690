"""The eBPF fast path against the Python reference on generated packets and actions: one meaning of every action (invariant 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet
from support.fast_path import LIVE_PORTS, FastPath, Verdict, check_leaving
from vectors.strategies import METERS, long, packets, stacks, whole
from vectors.strategies import actions as action_lists

from appliance.datapath.compile import compile_actions
from appliance.datapath.layout import MegaflowFlag
from appliance.model.actions import DecMplsTtl, Meter, SetField
from appliance.model.fields import BY_NAME, ETH_TYPE, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_QINQ, ETH_TYPE_VLAN, KEY_MASK, VLAN_TCI
from appliance.model.megaflow import (
    Again,
    Clone,
    DatapathAction,
    DecTtl,
    Failover,
    Forward,
    MeterBand,
    MeterConfig,
    PopTag,
    PushTag,
    Select,
    UpcallReason,
)
from appliance.model.ports import Hook
from appliance.packet.execute import INVALID_TTL, execute
from appliance.packet.meter import METER_DROPS, METER_PASSES
from appliance.packet.parse import parse

pytestmark = pytest.mark.root

IN_PORT = 7
MIN_FRAME = 14
MIN_L3 = 40
"""The kernel makes no packet of less of an IP header for a test run."""


@pytest.fixture(scope="module")
def fast_path() -> Iterator[FastPath]:
    fast_path = FastPath(IN_PORT)
    for meter_id, bands in zip(METERS, ((), (MeterBand(1, 0, prec_level=1),), (MeterBand(1, 0),)), strict=True):
        fast_path.datapath.set_meter(MeterConfig(meter_id, True, bands))
        fast_path.datapath.meter(meter_id, 1_000_000, 0)  # in packets/s: the bucket is empty for days
    yield fast_path
    fast_path.close()


def runnable(frame: bytes) -> bool:
    if len(frame) < MIN_FRAME:
        return False
    return int.from_bytes(frame[12:14], "big") not in (ETH_TYPE_IPV4, ETH_TYPE_IPV6) or len(frame) >= MIN_FRAME + MIN_L3


@settings(max_examples=400)
@given(frame=packets(), hook=st.sampled_from(Hook), metadata=st.booleans())
def test_key(fast_path: FastPath, frame: bytes, hook: Hook, metadata: bool) -> None:
    assume(runnable(frame))
    key = parse(frame, IN_PORT).key
    network_tag = metadata and hook is Hook.TC and bool(VLAN_TCI.get(key))
    result = fast_path.execute(frame, hook, network_tag)
    assert f"{result.key:0256x}" == f"{key:0256x}"
    if hook is Hook.TC:
        assert [(upcall.reason, upcall.frame, upcall.in_port) for upcall in result.upcalls] == [(UpcallReason.MISS, frame, IN_PORT)]


@settings(max_examples=400)
@given(frame=packets(), actions=action_lists(), hook=st.sampled_from(Hook), metadata=st.booleans())
def test_actions(fast_path: FastPath, frame: bytes, actions: list[DatapathAction], hook: Hook, metadata: bool) -> None:
    assume(runnable(frame))
    check(fast_path, frame, tuple(actions), hook, metadata)


EDITED = ("eth_dst", "eth_src", "ip_dscp", "ip_ecn", "ip_ttl", "ipv4_src", "ipv4_dst")
PORTS = {6: ("tcp_src", "tcp_dst"), 17: ("udp_src", "udp_dst")}
CHECKSUM_AT = {6: 16, 17: 6}


@st.composite
def rewrites(draw: st.DrawFn) -> tuple[bytes, tuple[DatapathAction, ...]]:
    """A packet of TCP or UDP, with any checksums and maybe a tag, and what is done at once to one."""
    protocol = draw(st.sampled_from((6, 17)))
    layer_4 = bytearray(draw(st.binary(min_size=20, max_size=24)))
    for at, header in ((CHECKSUM_AT[protocol], layer_4), (10, ip := bytearray(draw(st.binary(min_size=20, max_size=20))))):
        if draw(st.booleans()):
            header[at : at + 2] = draw(st.sampled_from((b"\0\0", b"\xff\xff")))
    ip[0], ip[6:8], ip[9] = 0x45, b"\x40\0", protocol
    tag = draw(st.sampled_from((b"", b"\x81\0", b"\x88\xa8")))
    tci = draw(st.binary(min_size=2, max_size=2)) if tag else b""
    ethernet = draw(st.binary(min_size=12, max_size=12)) + tag + tci + b"\x08\0"
    names = draw(st.lists(st.sampled_from((*EDITED, *PORTS[protocol], "dec_ttl")), min_size=1, max_size=6))
    actions: list[DatapathAction] = []
    for name in names:
        if name != "dec_ttl":
            actions.append(SetField(BY_NAME[name], draw(st.integers(0, BY_NAME[name].max))))
        elif not any(isinstance(action, SetField) and action.field.name == "ip_ttl" for action in actions):
            actions.append(DecTtl())
    retags: list[DatapathAction] = draw(st.sampled_from(([], [PopTag()], [PushTag(0x8100, draw(st.integers(0, 0xFFFF)))])))
    if retags and isinstance(retags[0], PushTag):
        retags += [SetField(BY_NAME[name], 5) for name in draw(st.sets(st.sampled_from(("vlan_vid", "vlan_pcp"))))]
    for retag in reversed(retags):
        actions.insert(0, retag)
    return ethernet + bytes(ip) + bytes(layer_4), (*actions, Forward(2))


@settings(max_examples=400)
@given(rewrite=rewrites(), hook=st.sampled_from(Hook))
def test_rewrites_at_once(fast_path: FastPath, rewrite: tuple[bytes, tuple[DatapathAction, ...]], hook: Hook) -> None:
    frame, actions = rewrite
    assert compile_actions(actions).edit is not None
    check(fast_path, frame, actions, hook, metadata=True)


@settings(max_examples=400)
@given(frame=packets(), actions=whole(), hook=st.sampled_from(Hook), metadata=st.booleans())
def test_whole_lists(fast_path: FastPath, frame: bytes, actions: tuple[DatapathAction, ...], hook: Hook, metadata: bool) -> None:
    """With meters, copies that have changes of their own, and groups that choose."""
    assume(runnable(frame))
    check(fast_path, frame, actions, hook, metadata)


@settings(max_examples=150)
@given(frame=packets(), actions=long(), metadata=st.booleans())
def test_long_lists(fast_path: FastPath, frame: bytes, actions: tuple[DatapathAction, ...], metadata: bool) -> None:
    """That take several slots, and begin a copy in one and end it in the next."""
    assume(runnable(frame))
    check(fast_path, frame, actions, Hook.TC, metadata)


@settings(max_examples=400)
@given(
    frame=st.one_of(packets(), stacks()),
    actions=action_lists(mpls=True, encapsulations=False),
    hook=st.sampled_from(Hook),
    metadata=st.booleans(),
)
def test_mpls(fast_path: FastPath, frame: bytes, actions: list[DatapathAction], hook: Hook, metadata: bool) -> None:
    assume(runnable(frame))
    check(fast_path, frame, tuple(actions), hook, metadata)


PLACE = 0x10007


@settings(max_examples=150)
@given(frame=st.one_of(packets(), stacks()), before=action_lists(mpls=True), behind=action_lists(mpls=True), metadata=st.booleans())
def test_parsed_again(
    fast_path: FastPath,
    frame: bytes,
    before: tuple[DatapathAction, ...],
    behind: tuple[DatapathAction, ...],
    metadata: bool,
) -> None:
    """The key is that of the packet as the first list has left it, and what is beside the frame stays."""
    assume(runnable(frame))
    before = (*before, Again(PLACE))
    flags = compile_actions(before).flags | compile_actions(behind, parsed_again=True).flags
    assume(not flags & (MegaflowFlag.PUNT | MegaflowFlag.POPS))
    key = parse(frame, IN_PORT).key
    *left, last = execute(frame, before, IN_PORT)
    rest = execute(last.frame, behind, IN_PORT, tunnel=last.tunnel)
    assume(last.action == Again(PLACE) and all(emission.action != INVALID_TTL for emission in rest))
    again = parse(last.frame, PLACE, *last.tunnel).key
    network_tag = metadata and bool(VLAN_TCI.get(key))
    megaflows = [fast_path.install_for(frame, before)]
    try:
        missed = fast_path.execute(frame, Hook.TC, network_tag)
        megaflows.append(fast_path.install(behind, again, KEY_MASK))
        result = fast_path.execute(frame, Hook.TC, network_tag)
    finally:
        fast_path.datapath.remove(megaflows)
    copies = [upcall for upcall in missed.upcalls if upcall.reason is UpcallReason.COPY]
    others = [upcall for upcall in missed.upcalls if upcall.reason is not UpcallReason.COPY]
    if others and others[0].reason is UpcallReason.TTL:
        assert decrements(before)
        return
    assert [(up.in_port, up.reason, up.frame.hex(), up.octets) for up in others] == [
        (IN_PORT, UpcallReason.MISS, last.frame.hex(), len(frame))
    ]
    assert f"{others[0].key:0256x}" == f"{again:0256x}"
    check_leaving(replace(missed, upcalls=tuple(copies)), [(out.action, out.frame.hex(), out.tunnel) for out in left], megaflows[0])
    if any(upcall.reason is UpcallReason.TTL for upcall in result.upcalls):
        assert decrements(behind)
        return
    check_leaving(result, [(out.action, out.frame.hex(), out.tunnel) for out in (*left, *rest)], *megaflows)


def verdict_of(meter_id: int, octets: int) -> int:
    """What the meters do."""
    return (METER_PASSES, 1, METER_DROPS)[METERS.index(meter_id)]


def decrements(actions: Sequence[DatapathAction]) -> bool:
    """Whether they take from a TTL, in whatever part of them."""
    inner = [each for action in actions if isinstance(action, Clone) for each in action.actions]
    ways = [each for action in actions if isinstance(action, Select | Failover) for way in action.ways for each in way.actions]
    return any(isinstance(action, DecTtl | DecMplsTtl) for action in actions) or any(map(decrements, filter(None, (inner, ways))))


def check(fast_path: FastPath, frame: bytes, actions: tuple[DatapathAction, ...], hook: Hook, metadata: bool) -> None:
    key = parse(frame, IN_PORT).key
    network_tag = metadata and hook is Hook.TC and bool(VLAN_TCI.get(key))
    emissions = execute(frame, actions, IN_PORT, meter=verdict_of, port_is_live=LIVE_PORTS.__contains__)
    ttl_used_up = any(emission.action == INVALID_TTL for emission in emissions)
    flags = compile_actions(actions, dict.fromkeys(METERS, 0)).flags
    third_tag = ETH_TYPE.get(key) in (ETH_TYPE_VLAN, ETH_TYPE_QINQ)
    punted = bool(flags & MegaflowFlag.PUNT or (flags & MegaflowFlag.POPS and third_tag))
    megaflow = fast_path.install_for(frame, actions)
    try:
        result = fast_path.execute(frame, hook, network_tag)
    finally:
        fast_path.datapath.remove([megaflow])
    if hook is Hook.XDP and (punted or not flags & MegaflowFlag.XDP or result.code == Verdict.XDP_PASS):
        assert (result.code, result.outputs) == (Verdict.XDP_PASS, ())
        assert punted or not flags & MegaflowFlag.XDP or decrements(actions)
    elif punted or any(upcall.reason is not UpcallReason.COPY for upcall in result.upcalls):
        # The slow path gets the whole packet and executes all of it: nothing may have left before. Only its meters have been run.
        metered = (
            (*takewhile(lambda action: isinstance(action, Meter), actions), Forward(2)) if flags & MegaflowFlag.METERED else ()
        )
        up = [left.frame for left in execute(frame, metered, IN_PORT, meter=verdict_of)] if metered and punted else [frame]
        assert [(upcall.frame, upcall.megaflow_id) for upcall in result.upcalls] == [(frame, megaflow) for frame in up]
        assert result.outputs == ()
        # It may also punt a packet for its TTL when tags that are pushed first hide the TTL from the action, or in a way not taken.
        assert punted or (result.upcalls[0].reason is UpcallReason.TTL and decrements(actions))
    else:
        assert not ttl_used_up
        check_leaving(result, [(left.action, left.frame.hex(), left.tunnel) for left in emissions], megaflow)


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("pops", [1, 2])
def test_a_third_tag_that_comes_to_light_stays(fast_path: FastPath, pops: int, metadata: bool) -> None:
    """Found by test_long_lists: TC has it beside the frame then."""
    tags = Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3)
    frame = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / tags / V4 / UDP(sport=1, dport=2))
    check(fast_path, frame, (*[PopTag()] * pops, Forward(2)), Hook.TC, metadata)


TAGS = Dot1Q(vlan=1) / Dot1Q(vlan=2)
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fe80::1", dst="fe80::2")


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize(
    ("packet", "field"),
    [
        (V4 / UDP(sport=1, dport=2) / b"12345678", "ipv4_src"),
        (V6 / SCTP(sport=1, dport=2) / SCTPChunkData(data=b"1234"), "sctp_src"),
        (V4 / SCTP(sport=1, dport=2) / SCTPChunkData(data=b"1234"), "sctp_dst"),
    ],
)
def test_checksums_that_a_third_tag_hides(fast_path: FastPath, packet: Packet, field: str, hook: Hook) -> None:
    """Found by test_actions: the change was entered in the checksum only if no tag hid layer 4, or in SCTP's IPv6, by then."""
    frame = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / TAGS / packet)
    check(fast_path, frame, (SetField(BY_NAME[field], 99), PushTag(0x8100, 0), Forward(1)), hook, False)
