"""What flow-mods and packet-outs may ask for: every error type and code of instructions and actions."""

from __future__ import annotations

import pytest

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    DecNwTtl,
    ExperimenterAction,
    ExperimenterInstruction,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    PopMpls,
    PopPbb,
    PopVlan,
    PushMpls,
    PushPbb,
    PushVlan,
    SetField,
    SetMplsTtl,
    SetNwTtl,
    SetQueue,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, VLAN_PRESENT
from appliance.model.match import Match, MatchField
from appliance.model.ports import MAX_PORT_NUMBER, PortNo
from appliance.openflow.constants import OFPM_ALL, OFPM_CONTROLLER, OFPM_SLOWPATH
from appliance.openflow.errors import BadAction, BadInstruction, ErrorType, MeterModFailed, ProtocolError
from appliance.pipeline import xlate
from appliance.pipeline.flow_table import SUPPORTED_INSTRUCTIONS as PIPELINE_INSTRUCTIONS
from appliance.switch.validate import SUPPORTED_ACTIONS, SUPPORTED_INSTRUCTIONS, Validator


def match(**fields: int | tuple[int, int]) -> Match:
    return Match.of(MatchField(BY_NAME[name], *(value if isinstance(value, tuple) else (value,))) for name, value in fields.items())


def put(name: str, value: int) -> SetField:
    return SetField(BY_NAME[name], value)


TCP = {"eth_type": 0x0800, "ip_proto": 6}
TAGGED = VLAN_PRESENT | 5


VALIDATOR = Validator(groups={7}, meters={8}, queues={9})


def check(instruction: Instruction, table_id: int = 0, **fields: int | tuple[int, int]) -> None:
    VALIDATOR.check_instructions((instruction,), match(**fields), table_id)


def refusal(*instructions: Instruction, table_id: int = 0, **fields: int | tuple[int, int]) -> tuple[ErrorType, int]:
    with pytest.raises(ProtocolError) as caught:
        VALIDATOR.check_instructions(instructions, match(**fields), table_id)
    return caught.value.type, caught.value.code


@pytest.mark.parametrize(
    ("instruction", "table_id", "code"),
    [
        (GotoTable(0), 0, BadInstruction.BAD_TABLE_ID),
        (GotoTable(3), 3, BadInstruction.BAD_TABLE_ID),
        (GotoTable(2), 3, BadInstruction.BAD_TABLE_ID),
        (GotoTable(254), 3, BadInstruction.BAD_TABLE_ID),
        (GotoTable(255), 3, BadInstruction.BAD_TABLE_ID),
        (ExperimenterInstruction(1, b""), 0, BadInstruction.BAD_EXPERIMENTER),
    ],
)
def test_instructions_that_are_refused(instruction: Instruction, table_id: int, code: BadInstruction) -> None:
    assert refusal(instruction, table_id=table_id) == (ErrorType.BAD_INSTRUCTION, code)


@pytest.mark.parametrize("kind", [ApplyActions, WriteActions])
@pytest.mark.parametrize(
    ("action", "code"),
    [
        (Output(0), BadAction.BAD_OUT_PORT),
        (Output(MAX_PORT_NUMBER + 1), BadAction.BAD_OUT_PORT),
        (Output(PortNo.MAX), BadAction.BAD_OUT_PORT),
        (Output(PortNo.TABLE), BadAction.BAD_OUT_PORT),
        (Output(PortNo.ANY), BadAction.BAD_OUT_PORT),
        (Group(1), BadAction.BAD_OUT_GROUP),
        (PushVlan(0x0800), BadAction.BAD_ARGUMENT),
        (ExperimenterAction(1, b""), BadAction.BAD_EXPERIMENTER),
        (SetQueue(1), BadAction.BAD_QUEUE),
        (PushMpls(0x0800), BadAction.BAD_ARGUMENT),
        (PushPbb(0x8847), BadAction.BAD_ARGUMENT),
        (Output(PortNo.CONTROLLER, 0xFFE6), BadAction.BAD_ARGUMENT),
        (Output(PortNo.CONTROLLER, 0xFFFE), BadAction.BAD_ARGUMENT),
        (PopMpls(0x0800), BadAction.MATCH_INCONSISTENT),
        (SetMplsTtl(1), BadAction.MATCH_INCONSISTENT),
        (DecMplsTtl(), BadAction.MATCH_INCONSISTENT),
        (PopPbb(), BadAction.MATCH_INCONSISTENT),
        (CopyTtlIn(), BadAction.MATCH_INCONSISTENT),
        (CopyTtlOut(), BadAction.MATCH_INCONSISTENT),
        (put("mpls_label", 1), BadAction.MATCH_INCONSISTENT),
        (put("pbb_isid", 1), BadAction.MATCH_INCONSISTENT),
        (DecNwTtl(), BadAction.MATCH_INCONSISTENT),
        (SetNwTtl(1), BadAction.MATCH_INCONSISTENT),
        (put("ipv4_src", 1), BadAction.MATCH_INCONSISTENT),
        (put("tcp_src", 1), BadAction.MATCH_INCONSISTENT),
        (put("vlan_pcp", 1), BadAction.MATCH_INCONSISTENT),
        (put("in_port", 1), BadAction.BAD_SET_TYPE),
        (put("metadata", 1), BadAction.BAD_SET_TYPE),
        (put("ip_ttl", 1), BadAction.BAD_SET_TYPE),
        (put("vlan_vid", 5), BadAction.BAD_SET_ARGUMENT),
        (put("eth_src", 1 << 48), BadAction.BAD_SET_ARGUMENT),
    ],
)
def test_actions_that_are_refused(kind: type[ApplyActions], action: Action, code: BadAction) -> None:
    assert refusal(kind((Output(1), action))) == (ErrorType.BAD_ACTION, code)


@pytest.mark.parametrize(
    "port",
    [1, MAX_PORT_NUMBER, PortNo.IN_PORT, PortNo.NORMAL, PortNo.FLOOD, PortNo.ALL, PortNo.CONTROLLER, PortNo.LOCAL],
)
def test_ports_that_may_be_output_to(port: int) -> None:
    check(ApplyActions((Output(port),)))
    check(WriteActions((Output(port),)))


@pytest.mark.parametrize(
    ("fields", "actions"),
    [
        ({"eth_type": 0x0800}, (put("ipv4_src", 1), DecNwTtl(), put("ip_dscp", 3))),
        ({"eth_type": 0x86DD}, (put("ipv6_dst", 1), SetNwTtl(9), put("ipv6_flabel", 3))),
        (TCP, (put("tcp_dst", 80),)),
        ({"eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": 135}, (put("ipv6_nd_sll", 1),)),
        ({"vlan_vid": TAGGED}, (put("vlan_vid", TAGGED), put("vlan_pcp", 7), PopVlan())),
        ({"vlan_vid": (VLAN_PRESENT, VLAN_PRESENT)}, (put("vlan_pcp", 7), PopVlan())),
        ({}, (put("vlan_vid", TAGGED), PopVlan(), put("eth_dst", 1), put("tunnel_id", 1))),
        ({"vlan_vid": 0}, (PushVlan(0x8100), put("vlan_vid", TAGGED), put("vlan_pcp", 1), PopVlan())),
        ({}, (PushVlan(0x88A8), PushVlan(0x88A8), put("vlan_pcp", 1))),
        ({}, (put("eth_type", 0x0800), put("ip_proto", 17), put("udp_src", 53))),
        ({}, (Group(7), SetQueue(9), Output(PortNo.CONTROLLER, 0xFFE5), Output(PortNo.CONTROLLER, 0xFFFF))),
        ({}, (PushMpls(0x8848), put("mpls_tc", 1), SetMplsTtl(3), PopMpls(0x0800), DecNwTtl())),
        ({}, (PushPbb(0x88E7), put("pbb_isid", 1), PushVlan(0x88A8), put("vlan_pcp", 2), PopPbb())),
        ({"eth_type": 0x8848}, (CopyTtlIn(), CopyTtlOut(), DecMplsTtl(), PopMpls(0x8847), PopMpls(0x86DD), SetNwTtl(1))),
        ({"eth_type": 0x86DD}, (CopyTtlOut(),)),
    ],
)
def test_actions_whose_prerequisites_are_there(fields: dict[str, int], actions: tuple[Action, ...]) -> None:
    check(ApplyActions(actions), **fields)


@pytest.mark.parametrize(
    ("fields", "actions"),
    [
        ({"eth_type": 0x0806}, (put("ipv4_src", 1),)),
        ({"eth_type": 0x0806}, (DecNwTtl(),)),
        ({"eth_type": 0x0800, "ip_proto": 17}, (put("tcp_dst", 80),)),
        ({"eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": 136}, (put("ipv6_nd_sll", 1),)),
        ({"vlan_vid": 0}, (PopVlan(),)),
        ({"vlan_vid": 0}, (put("vlan_vid", TAGGED),)),
        ({"vlan_vid": (5, 0xFFF)}, (put("vlan_pcp", 1),)),
        ({"vlan_vid": TAGGED}, (PopVlan(), put("vlan_pcp", 1))),
        (TCP, (put("ip_proto", 17), put("tcp_dst", 80))),
        (TCP, (PushMpls(0x8847), put("tcp_dst", 80))),
        (TCP, (PushMpls(0x8847), PopMpls(0x0800), put("tcp_dst", 80))),
        (TCP, (PushMpls(0x8847), DecNwTtl())),
        ({"eth_type": 0x8847}, (PopMpls(0x0800), DecMplsTtl())),
        ({"eth_type": 0x8847}, (PopMpls(0x0800), PopMpls(0x0800))),
        ({"eth_type": 0x0806}, (CopyTtlOut(),)),
        ({"eth_type": 0x0800, "vlan_vid": TAGGED}, (PushPbb(0x88E7), PopVlan())),
        ({"eth_type": 0x0800}, (PushPbb(0x88E7), PopPbb(), DecNwTtl())),
        ({"eth_type": 0x88E7, "vlan_vid": TAGGED}, (PopPbb(), put("vlan_pcp", 1))),
    ],
)
def test_actions_that_do_not_go_with_the_match(fields: dict[str, int], actions: tuple[Action, ...]) -> None:
    assert refusal(ApplyActions(actions), **fields) == (ErrorType.BAD_ACTION, BadAction.MATCH_INCONSISTENT)


def test_an_action_set_is_checked_in_the_order_in_which_it_runs() -> None:
    check(WriteActions((put("vlan_pcp", 1), PushVlan(0x8100))), vlan_vid=0)
    assert refusal(ApplyActions((put("vlan_pcp", 1), PushVlan(0x8100))), vlan_vid=0)[1] == BadAction.MATCH_INCONSISTENT


def test_an_action_set_comes_after_the_applied_actions() -> None:
    pushed = ApplyActions((PushVlan(0x8100),))
    write = WriteActions((put("vlan_pcp", 1),))
    VALIDATOR.check_instructions((write, pushed, ClearActions(), WriteMetadata(1, 1), GotoTable(1)), match(vlan_vid=0), 0)
    assert refusal(write, vlan_vid=0)[1] == BadAction.MATCH_INCONSISTENT


def test_a_packet_out_is_checked_against_its_packet() -> None:
    tcp = match(**TCP).value
    VALIDATOR.check_packet_out((put("tcp_dst", 80), DecNwTtl(), Output(PortNo.TABLE)), tcp)
    with pytest.raises(ProtocolError) as caught:
        VALIDATOR.check_packet_out((put("udp_dst", 80),), tcp)
    assert caught.value.code == BadAction.MATCH_INCONSISTENT


def test_what_passes_is_what_the_pipeline_can_do() -> None:
    assert set(SUPPORTED_ACTIONS) == xlate.SUPPORTED_ACTIONS
    assert set(SUPPORTED_INSTRUCTIONS) == PIPELINE_INSTRUCTIONS


@pytest.mark.parametrize(
    ("meter_id", "code"),
    [(1, MeterModFailed.UNKNOWN_METER), (0, MeterModFailed.INVALID_METER)]
    + [(number, MeterModFailed.INVALID_METER) for number in (OFPM_SLOWPATH, OFPM_CONTROLLER, OFPM_ALL)],
)
def test_meters_that_there_are_not(meter_id: int, code: MeterModFailed) -> None:
    check(Meter(8))
    assert refusal(Meter(meter_id)) == (ErrorType.METER_MOD_FAILED, code)


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (Group(1), BadAction.BAD_OUT_GROUP),
        (Output(PortNo.TABLE), BadAction.BAD_OUT_PORT),
        (SetQueue(1), BadAction.BAD_QUEUE),
        (put("eth_type", 1 << 16), BadAction.BAD_SET_ARGUMENT),
    ],
)
def test_buckets_are_checked(action: Action, code: BadAction) -> None:
    VALIDATOR.check_bucket((Group(7), put("tcp_dst", 80), PopMpls(0x0800), Output(1)))
    with pytest.raises(ProtocolError) as caught:
        VALIDATOR.check_bucket((action,))
    assert (caught.value.type, caught.value.code) == (ErrorType.BAD_ACTION, code)
