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
from appliance.openflow.errors import BadAction, BadInstruction, ErrorType, ProtocolError
from appliance.pipeline import xlate
from appliance.pipeline.flow_table import SUPPORTED_INSTRUCTIONS as PIPELINE_INSTRUCTIONS
from appliance.switch.validate import SUPPORTED_ACTIONS, SUPPORTED_INSTRUCTIONS, check_instructions, check_packet_out


def match(**fields: int | tuple[int, int]) -> Match:
    return Match.of(MatchField(BY_NAME[name], *(value if isinstance(value, tuple) else (value,))) for name, value in fields.items())


def put(name: str, value: int) -> SetField:
    return SetField(BY_NAME[name], value)


TCP = {"eth_type": 0x0800, "ip_proto": 6}
TAGGED = VLAN_PRESENT | 5


def check(instruction: Instruction, table_id: int = 0, **fields: int | tuple[int, int]) -> None:
    check_instructions((instruction,), match(**fields), table_id)


def refusal(*instructions: Instruction, table_id: int = 0, **fields: int | tuple[int, int]) -> tuple[ErrorType, int]:
    with pytest.raises(ProtocolError) as caught:
        check_instructions(instructions, match(**fields), table_id)
    return caught.value.type, caught.value.code


@pytest.mark.parametrize(
    ("instruction", "table_id", "code"),
    [
        (GotoTable(0), 0, BadInstruction.BAD_TABLE_ID),
        (GotoTable(3), 3, BadInstruction.BAD_TABLE_ID),
        (GotoTable(2), 3, BadInstruction.BAD_TABLE_ID),
        (GotoTable(254), 3, BadInstruction.BAD_TABLE_ID),
        (GotoTable(255), 3, BadInstruction.BAD_TABLE_ID),
        (Meter(1), 0, BadInstruction.UNSUP_INST),
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
        (Output(PortNo.LOCAL), BadAction.BAD_OUT_PORT),
        (Output(PortNo.ANY), BadAction.BAD_OUT_PORT),
        (Group(1), BadAction.BAD_OUT_GROUP),
        (PushVlan(0x0800), BadAction.BAD_ARGUMENT),
        (ExperimenterAction(1, b""), BadAction.BAD_EXPERIMENTER),
        (SetQueue(1), BadAction.BAD_TYPE),
        (PushMpls(0x8847), BadAction.BAD_TYPE),
        (PopMpls(0x0800), BadAction.BAD_TYPE),
        (SetMplsTtl(1), BadAction.BAD_TYPE),
        (DecMplsTtl(), BadAction.BAD_TYPE),
        (PushPbb(0x88E7), BadAction.BAD_TYPE),
        (PopPbb(), BadAction.BAD_TYPE),
        (CopyTtlIn(), BadAction.BAD_TYPE),
        (CopyTtlOut(), BadAction.BAD_TYPE),
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


@pytest.mark.parametrize("port", [1, MAX_PORT_NUMBER, PortNo.IN_PORT, PortNo.NORMAL, PortNo.FLOOD, PortNo.ALL, PortNo.CONTROLLER])
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
    check_instructions((write, pushed, ClearActions(), WriteMetadata(1, 1), GotoTable(1)), match(vlan_vid=0), 0)
    assert refusal(write, vlan_vid=0)[1] == BadAction.MATCH_INCONSISTENT


def test_a_packet_out_is_checked_against_its_packet() -> None:
    tcp = match(**TCP).value
    check_packet_out((put("tcp_dst", 80), DecNwTtl(), Output(PortNo.TABLE)), tcp)
    with pytest.raises(ProtocolError) as caught:
        check_packet_out((put("udp_dst", 80),), tcp)
    assert caught.value.code == BadAction.MATCH_INCONSISTENT


def test_what_passes_is_what_the_pipeline_can_do() -> None:
    assert set(SUPPORTED_ACTIONS) == xlate.SUPPORTED_ACTIONS
    assert set(SUPPORTED_INSTRUCTIONS) == PIPELINE_INSTRUCTIONS
