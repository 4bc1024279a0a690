"""What the fast path does by itself, what it leaves to the slow path, and what XDP leaves to TC. That the ops do the right thing is
tests/bpf's to show."""

from __future__ import annotations

import struct

import pytest

from appliance.datapath.compile import PUNTED, compile_actions, in_slots
from appliance.datapath.crc import shift_tables
from appliance.datapath.layout import CRC_SHIFTS, MAX_OPS, MegaflowFlag, OpCode
from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, PopMpls, PopPbb, PushMpls, PushPbb, SetField
from appliance.model.fields import BY_NAME, MATCH_FIELDS
from appliance.model.megaflow import (
    Again,
    CallPlugin,
    Clone,
    Controller,
    DatapathAction,
    DecTtl,
    Failover,
    Flood,
    Forward,
    PacketInReason,
    PopTag,
    PushTag,
    Select,
    Way,
)

OUT = Forward(2)
TO_CONTROLLER = Controller(PacketInReason.ACTION, 0, 0, 0xFFFF)
NOT_YET = {"pbb_isid"}


def put(name: str, value: int = 1) -> SetField:
    return SetField(BY_NAME[name], value)


def codes(*actions: DatapathAction) -> list[OpCode]:
    ops = compile_actions(actions).ops
    return [OpCode(code) for code, *_ in struct.iter_unpack("=BBHI", ops)]


@pytest.mark.parametrize("field", [field for field in MATCH_FIELDS if field.settable], ids=lambda field: field.name)
def test_every_settable_field_but_that_of_pbb(field: object) -> None:
    name = field.name  # type: ignore[attr-defined]
    assert (compile_actions((put(name), OUT)) == PUNTED) is (name in NOT_YET)


def test_the_last_output_takes_the_packet_and_others_copies() -> None:
    assert codes(Forward(1), Forward(2)) == [OpCode.OUTPUT, OpCode.FORWARD, OpCode.END]
    assert codes(Forward(1), Flood()) == [OpCode.FLOOD, OpCode.FORWARD, OpCode.END]
    assert codes(Flood(), put("eth_dst"), OUT) == [OpCode.FLOOD, OpCode.SET_ETH_DST, OpCode.FORWARD, OpCode.END]
    assert codes() == [OpCode.END]


COPY = [OpCode.OPERAND_0, OpCode.OPERAND_1, OpCode.CONTROLLER]


def test_the_controllers_get_a_copy_before_the_packet_leaves() -> None:
    assert codes(OUT, TO_CONTROLLER) == [*COPY, OpCode.FORWARD, OpCode.END]
    assert codes(TO_CONTROLLER, put("ipv4_src"), TO_CONTROLLER, Flood()) == [
        *COPY,
        OpCode.SET_IPV4_SRC,
        OpCode.CHECKSUMS,
        *COPY,
        OpCode.FLOOD,
        OpCode.END,
    ]


def test_a_group_that_chooses_is_not_what_its_buckets_are() -> None:
    """Found by the equivalence test: a bucket that only sends made the express way drop the packet."""
    for choice in (Select(1, (Way(0, (OUT,)), Way(1, ()))), Failover(1, (Way(0, (OUT,)),))):
        compiled = compile_actions((choice,))
        assert compiled.flags == MegaflowFlag(0)
        assert compiled.xdp_port == 0


def test_a_copy_with_changes_of_its_own_is_done_between_save_and_restore() -> None:
    assert codes(put("ipv4_dst", 5), Clone((put("ipv4_src"), Forward(1))), OUT) == [
        OpCode.SET_IPV4_DST,
        OpCode.CHECKSUMS,
        OpCode.SAVE,
        OpCode.SET_IPV4_SRC,
        OpCode.CHECKSUMS,
        OpCode.OUTPUT,
        OpCode.RESTORE,
        OpCode.FORWARD,
        OpCode.END,
    ]


def test_parsed_again_at_the_end_with_programs_left_for_what_follows() -> None:
    assert codes(put("ipv4_src"), OUT, Again(0x10000)) == [
        OpCode.SET_IPV4_SRC,
        OpCode.CHECKSUMS,
        OpCode.OUTPUT,
        OpCode.AGAIN,
        OpCode.END,
    ]
    outputs = tuple(Forward(number) for number in range(1, 100))
    assert compile_actions(outputs) != PUNTED
    assert compile_actions(outputs, parsed_again=True) == compile_actions((*outputs, Again(0x10000))) == PUNTED


def test_a_ttl_must_last_for_each_copy() -> None:
    thrice = Clone((DecTtl(), DecTtl(), DecTtl(), OUT))
    assert compile_actions((DecTtl(), thrice, DecTtl(), OUT)).ttl_needed == 4
    assert compile_actions((thrice, *[DecTtl()] * 5, OUT)).ttl_needed == 5


@pytest.mark.parametrize(
    "copied",
    [
        (PopMpls(0x0800), OUT),
        (CallPlugin(1, bytes(12)), OUT),
        (Clone((put("eth_dst"), OUT)), OUT),
        (Failover(1, ()),),
        (*[PushTag(0x8100, 1)] * 7, OUT),
    ],
)
def test_copies_for_the_slow_path(copied: tuple[DatapathAction, ...]) -> None:
    assert compile_actions((Clone(copied), OUT)) == PUNTED


def test_as_many_programs_as_the_kernel_lets_call_each_other() -> None:
    assert compile_actions((*[Flood()] * 10, OUT)) != PUNTED
    assert compile_actions((*[Flood()] * 12, OUT)) == PUNTED


def test_checksums_are_entered_once_before_each_output() -> None:
    assert codes(put("ipv4_src"), put("tcp_dst"), Forward(1), put("eth_dst"), Forward(2)) == [
        OpCode.SET_IPV4_SRC,
        OpCode.SET_L4_DST,
        OpCode.CHECKSUMS,
        OpCode.OUTPUT,
        OpCode.SET_ETH_DST,
        OpCode.FORWARD,
        OpCode.END,
    ]


@pytest.mark.parametrize(
    "actions",
    [
        (TO_CONTROLLER,),
        (put("ipv4_src"), TO_CONTROLLER),
        (put("eth_type"), put("ipv4_src"), OUT),
        (put("ip_proto"), DecTtl(), OUT),
        (put("icmpv6_type"), put("ipv6_nd_sll"), OUT),
        (put("ip_ttl"), DecTtl(), OUT),
        (CopyTtlOut(), DecMplsTtl(), OUT),
        (PushTag(0x8100, 5), PushMpls(0x8847), DecMplsTtl(), OUT),
        (PopMpls(0x0800), DecTtl(), OUT),
        (PopMpls(0x8100), PopTag(), OUT),
        (PushMpls(0x8847), CallPlugin(1, bytes(12)), OUT),
        (PushPbb(0x88E7), OUT),
        (PopPbb(), OUT),
        (put("ip_ttl", 0), DecTtl()),
        tuple(Forward(number) for number in range(1, 126)),
        (*[DecTtl()] * 32, OUT),
    ],
)
def test_left_to_the_slow_path(actions: tuple[DatapathAction, ...]) -> None:
    assert compile_actions(actions) == PUNTED


def test_what_xdp_can_do() -> None:
    for actions, port in (((), 0), ((OUT,), 2), ((put("eth_dst"), PushTag(0x8100, 5), OUT), 2)):
        compiled = compile_actions(actions)
        assert compiled.flags & MegaflowFlag.XDP
        assert compiled.xdp_port == port
    for actions in ((Flood(),), (OUT, Forward(3)), (OUT, DecTtl())):
        assert not compile_actions(actions).flags & MegaflowFlag.XDP


@pytest.mark.parametrize(
    ("actions", "needed"),
    [
        ((DecTtl(), OUT, DecTtl(), OUT), (2, 0, 0)),
        ((DecMplsTtl(), OUT), (0, 1, 0)),
        ((DecTtl(), PushMpls(0x8847), DecMplsTtl(), DecMplsTtl(), OUT), (3, 2, 2)),
        ((PushMpls(0x8847), DecTtl(), OUT), (0, 0, 0)),
    ],
)
def test_how_often_a_packet_of_ip_of_mpls_and_of_neither_loses_from_its_ttl(
    actions: tuple[DatapathAction, ...], needed: tuple[int, int, int]
) -> None:
    ip, mpls, other = needed
    assert compile_actions(actions).ttl_needed == ip | mpls << 5 | other << 10


def test_what_a_third_tag_spoils_is_announced() -> None:
    """What looks behind the tags once one was popped, which eBPF has not parsed."""
    assert not compile_actions((PopTag(), PopTag(), PushTag(0x8100, 5), OUT)).flags & MegaflowFlag.POPS
    for action in (DecTtl(), put("ipv4_src"), put("eth_type"), PushMpls(0x8847), CopyTtlIn()):
        assert compile_actions((PopTag(), action, OUT)).flags & MegaflowFlag.POPS


@pytest.mark.parametrize("outputs", [1, 30, 31, 32, 61, 62, 63, 93, 94, 124])
def test_ops_that_one_slot_does_not_hold_go_in_others(outputs: int) -> None:
    compiled = compile_actions(tuple(Forward(number) for number in range(1, outputs + 1)))
    further = range(100, 100 + compiled.further_slots)
    slots = [compiled.ops] if not further else in_slots(compiled.linked(None, ()), further)
    assert all(len(slot) == MAX_OPS * 8 for slot in slots[:-1])
    assert 0 < len(slots[-1]) <= MAX_OPS * 8
    ops = [list(struct.iter_unpack("=BBHI", slot)) for slot in slots]
    assert [(slot[-1][0], slot[-1][3]) for slot in ops[:-1]] == [(OpCode.NEXT, number) for number in further]
    chained = [op for slot in ops[:-1] for op in slot[:-1]] + ops[-1]
    assert [arg for _, _, _, arg in chained[:-1]] == list(range(1, outputs + 1))
    assert chained[-1][0] == OpCode.END


def test_crc_tables_append_zero_bytes() -> None:
    polynomial = 0x82F63B78
    tables = [struct.unpack("=1024I", table) for table in shift_tables()]
    assert len(tables) == CRC_SHIFTS
    crc = 0x12345678
    for power in (0, 1, 5):
        table, appended, expected = tables[power], 0, crc
        for byte in range(4):
            appended ^= table[256 * byte + (crc >> 8 * byte & 0xFF)]
        for _ in range(8 * 2**power):
            expected = expected >> 1 ^ (polynomial if expected & 1 else 0)
        assert appended == expected
