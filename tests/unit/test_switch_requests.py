"""What a controller asks and is answered: handshake, configuration, statistics, and the error for everything that is not there."""

from __future__ import annotations

import pytest
from switch_shell import DESCRIPTION, Shell, mac

from appliance.model.actions import ApplyActions, GotoTable, Output
from appliance.model.fields import BY_NAME, MATCH_FIELDS
from appliance.model.match import Match, MatchField
from appliance.model.ports import PortCounters, PortNo
from appliance.openflow.constants import OFPG_ALL, OFPM_ALL, OFPM_CONTROLLER, OFPTT_ALL, ActionType, InstructionType
from appliance.openflow.errors import (
    BadRequest,
    ErrorType,
    SwitchConfigFailed,
)
from appliance.openflow.messages import (
    ActionsProperty,
    AggregateStats,
    AggregateStatsRequest,
    BarrierReply,
    BarrierRequest,
    Capabilities,
    DescRequest,
    Error,
    Experimenter,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowStatsReply,
    FlowStatsRequest,
    FragmentHandling,
    GetAsyncReply,
    GetAsyncRequest,
    GetConfigReply,
    GetConfigRequest,
    GroupDescReply,
    GroupDescRequest,
    GroupMod,
    GroupModCommand,
    GroupStatsReply,
    GroupStatsRequest,
    GroupType,
    InstructionsProperty,
    Message,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MeterStatsReply,
    MeterStatsRequest,
    MultipartReply,
    MultipartReplyBody,
    MultipartRequest,
    MultipartRequestBody,
    NextTablesProperty,
    OxmProperty,
    PortDescReply,
    PortDescRequest,
    PortStatsReply,
    PortStatsRequest,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    QueueStatsReply,
    QueueStatsRequest,
    SetAsync,
    SetConfig,
    TableFeaturesReply,
    TableFeaturesRequest,
    TableMod,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.openflow.oxm import oxm_id
from appliance.openflow.table_features import TableFeaturePropertyType as PropertyType
from appliance.switch.events import MessageReceived


def answer(shell: Shell, body: MultipartRequestBody) -> MultipartReplyBody:
    return shell.ask(MultipartRequest(body, xid=7), MultipartReply).body


def test_features() -> None:
    wanted = int(
        Capabilities.FLOW_STATS
        | Capabilities.TABLE_STATS
        | Capabilities.PORT_STATS
        | Capabilities.GROUP_STATS
        | Capabilities.QUEUE_STATS
    )
    assert Shell().ask(FeaturesRequest(xid=3), FeaturesReply) == FeaturesReply(0x1234, 256, 254, 0, wanted, xid=3)


def test_each_controller_has_its_configuration() -> None:
    shell = Shell()
    shell.open(2)
    assert shell.receive(SetConfig(FragmentHandling.NORMAL, 200)) == []
    assert shell.ask(GetConfigRequest(), GetConfigReply) == GetConfigReply(FragmentHandling.NORMAL, 200)
    assert shell.ask(GetConfigRequest(), GetConfigReply, 2) == GetConfigReply(FragmentHandling.NORMAL, 128)


def test_fragments_are_not_put_together() -> None:
    shell = Shell()
    assert shell.refused(SetConfig(FragmentHandling.REASM, 200)) == (ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_FLAGS)
    assert shell.ask(GetConfigRequest(), GetConfigReply) == GetConfigReply(FragmentHandling.NORMAL, 128)


def test_what_becomes_of_fragments_holds_for_all_controllers() -> None:
    shell = Shell()
    shell.open(2)
    shell.receive(SetConfig(FragmentHandling.DROP, 200))
    assert shell.ask(GetConfigRequest(), GetConfigReply, 2) == GetConfigReply(FragmentHandling.DROP, 128)


@pytest.mark.parametrize(("length", "fits"), [(0xFFE5, True), (0xFFE6, False), (0xFFFE, False), (0xFFFF, True)])
def test_miss_send_len(length: int, fits: bool) -> None:
    shell = Shell()
    if fits:
        assert shell.receive(SetConfig(FragmentHandling.NORMAL, length)) == []
    else:
        wanted = (ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_LEN)
        assert shell.refused(SetConfig(FragmentHandling.DROP, length)) == wanted
    reply = shell.ask(GetConfigRequest(), GetConfigReply)
    assert reply == GetConfigReply(FragmentHandling.NORMAL, length if fits else 128)


def test_barrier() -> None:
    assert Shell().ask(BarrierRequest(xid=9), BarrierReply) == BarrierReply(xid=9)


def test_asynchronous_configuration() -> None:
    shell = Shell()
    assert shell.ask(GetAsyncRequest(), GetAsyncReply) == GetAsyncReply((3, 0), (7, 7), (15, 0))
    shell.receive(SetAsync((4, 1), (2, 0), (0, 0)))
    assert shell.ask(GetAsyncRequest(), GetAsyncReply) == GetAsyncReply((4, 1), (2, 0), (0, 0))


# ── what there is none of ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "message",
    [
        GroupMod(GroupModCommand.DELETE, GroupType.ALL, OFPG_ALL),
        GroupMod(GroupModCommand.DELETE, GroupType.ALL, 1),
        MeterMod(MeterModCommand.DELETE, MeterFlags.KBPS, OFPM_ALL),
        MeterMod(MeterModCommand.DELETE, MeterFlags.KBPS, 1),
        MeterMod(MeterModCommand.DELETE, MeterFlags.KBPS, OFPM_CONTROLLER),
        TableMod(OFPTT_ALL, 3),
        TableMod(253),
        Error(1, 1),
    ],
)
def test_passed_over_in_silence(message: Message) -> None:
    assert Shell().receive(message) == []


@pytest.mark.parametrize(
    ("request_body", "reply"),
    [
        (GroupStatsRequest(), GroupStatsReply()),
        (GroupStatsRequest(1), GroupStatsReply()),
        (GroupDescRequest(), GroupDescReply()),
        (MeterStatsRequest(), MeterStatsReply()),
        (MeterConfigRequest(), MeterConfigReply()),
        (QueueStatsRequest(), QueueStatsReply()),
        (QueueStatsRequest(2), QueueStatsReply()),
        (DescRequest(), DESCRIPTION),
        (FlowStatsRequest(), FlowStatsReply()),
        (AggregateStatsRequest(), AggregateStats(0, 0, 0)),
    ],
)
def test_answers_of_an_empty_switch(request_body: MultipartRequestBody, reply: MultipartReplyBody) -> None:
    assert answer(Shell(), request_body) == reply


def test_queues_of_a_port() -> None:
    assert Shell().ask(QueueGetConfigRequest(2, xid=1), QueueGetConfigReply) == QueueGetConfigReply(2, xid=1)
    assert Shell().ask(QueueGetConfigRequest(), QueueGetConfigReply) == QueueGetConfigReply()


def test_an_error_quotes_the_message() -> None:
    shell = Shell()
    raw = bytes(range(200))
    shell.step(MessageReceived(1, Experimenter(1, 2, xid=77), raw))
    assert shell.told(Error) == [Error(ErrorType.BAD_REQUEST, BadRequest.BAD_EXPERIMENTER, raw[:64], xid=77)]


def test_a_message_from_a_connection_that_has_gone() -> None:
    shell = Shell()
    shell.close(1)
    assert shell.step(MessageReceived(1, FeaturesRequest(), b"")) == []


# ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_port_statistics() -> None:
    shell = Shell(2)
    shell.port_counters = {1: PortCounters(rx_packets=5), 2: PortCounters(tx_bytes=9), 3: PortCounters(1)}
    shell.now += 2.5
    reply = answer(shell, PortStatsRequest())
    assert isinstance(reply, PortStatsReply)
    assert [(item.port_no, item.counters) for item in reply.entries] == [(1, PortCounters(5)), (2, PortCounters(tx_bytes=9))]
    assert [(item.duration_sec, item.duration_nsec) for item in reply.entries] == [(2, 500_000_000)] * 2
    one = answer(shell, PortStatsRequest(2))
    assert isinstance(one, PortStatsReply)
    assert one.entries == reply.entries[1:]


def test_port_descriptions() -> None:
    reply = answer(Shell(3), PortDescRequest())
    assert isinstance(reply, PortDescReply)
    assert [(port.number, port.name, port.hw_addr) for port in reply.ports] == [
        (number, f"p{number}", mac(0xFF00 | number)) for number in (1, 2, 3)
    ]


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_table_features_are_what_flow_mods_are_held_to() -> None:
    reply = answer(Shell(), TableFeaturesRequest())
    assert isinstance(reply, TableFeaturesReply)
    assert [table.table_id for table in reply.tables] == list(range(254))
    for table in (reply.tables[0], reply.tables[9], reply.tables[253]):
        properties = {item.type: item for item in table.properties}
        later = properties[PropertyType.NEXT_TABLES]
        assert isinstance(later, NextTablesProperty)
        assert later.table_ids == tuple(range(table.table_id + 1, 254))
        instructions = properties[PropertyType.INSTRUCTIONS]
        assert isinstance(instructions, InstructionsProperty)
        absent = {InstructionType.EXPERIMENTER, *([InstructionType.GOTO_TABLE] if table.table_id == 253 else [])}
        assert set(instructions.instruction_ids) == set(InstructionType) - absent
        for kind in (PropertyType.APPLY_ACTIONS, PropertyType.WRITE_ACTIONS):
            actions = properties[kind]
            assert isinstance(actions, ActionsProperty)
            assert set(actions.action_ids) == set(ActionType) - {ActionType.EXPERIMENTER}
        matched = properties[PropertyType.MATCH]
        assert isinstance(matched, OxmProperty)
        assert len(matched.oxm_ids) == len(MATCH_FIELDS)
        assert oxm_id(BY_NAME["eth_dst"], True) in matched.oxm_ids
        assert oxm_id(BY_NAME["eth_type"]) in matched.oxm_ids
        settable = properties[PropertyType.APPLY_SETFIELD]
        assert isinstance(settable, OxmProperty)
        assert oxm_id(BY_NAME["in_port"]) not in settable.oxm_ids
        assert oxm_id(BY_NAME["tcp_dst"]) in settable.oxm_ids
        assert table.metadata_match == table.metadata_write == 0xFFFFFFFFFFFFFFFF


def test_table_statistics() -> None:
    shell = Shell()
    shell.receive(FlowMod(table_id=3))
    reply = answer(shell, TableStatsRequest())
    assert isinstance(reply, TableStatsReply)
    assert [item.table_id for item in reply.entries] == list(range(254))
    assert [item.table_id for item in reply.entries if item.active_count] == [3]


def to_port(number: int) -> tuple[ApplyActions]:
    return (ApplyActions((Output(number),)),)


def test_flow_statistics_return_what_was_sent() -> None:
    shell = Shell()
    match = Match.of(
        (
            MatchField(BY_NAME["eth_type"], 0x0800),
            MatchField(BY_NAME["ipv4_dst"], 0x0A000000, 0xFF000000),
            MatchField(BY_NAME["in_port"], 1),
        )
    )
    mod = FlowMod(
        cookie=5,
        table_id=2,
        priority=7,
        idle_timeout=10,
        hard_timeout=20,
        flags=FlowModFlags.SEND_FLOW_REM | FlowModFlags.NO_BYT_COUNTS,
        match=match,
        instructions=(GotoTable(9), *to_port(1)),
    )
    shell.receive(mod)
    shell.now += 1.25
    reply = answer(shell, FlowStatsRequest())
    assert isinstance(reply, FlowStatsReply)
    (flow,) = reply.entries
    assert (flow.table_id, flow.priority, flow.cookie, flow.flags) == (2, 7, 5, mod.flags)
    assert (flow.idle_timeout, flow.hard_timeout, flow.instructions) == (10, 20, mod.instructions)
    assert flow.match.fields == match.fields
    assert (flow.duration_sec, flow.duration_nsec) == (1, 250_000_000)


def test_statistics_of_many_flows_are_made_while_they_are_sent() -> None:
    """And are of the entries that there were when they were asked for."""
    shell = Shell()
    for number in range(1000):
        shell.receive(FlowMod(cookie=number, match=Match.of([MatchField(BY_NAME["eth_dst"], number)]), instructions=to_port(1)))
    reply = answer(shell, FlowStatsRequest())
    assert isinstance(reply, FlowStatsReply)
    assert reply.is_long
    shell.receive(FlowMod(command=FlowModCommand.DELETE))
    assert [flow.cookie for flow in reply.entries] == list(range(1000))
    assert answer(shell, FlowStatsRequest()) == FlowStatsReply()


@pytest.mark.parametrize(
    ("filters", "cookies"),
    [
        ({}, {1, 2, 3}),
        ({"table_id": 0}, {1, 2}),
        ({"table_id": 7}, set()),
        ({"out_port": 2}, {2, 3}),
        ({"out_port": PortNo.CONTROLLER}, set()),
        ({"out_group": 1}, set()),
        ({"cookie": 1, "cookie_mask": 1}, {1, 3}),
        ({"match": Match.of([MatchField(BY_NAME["in_port"], 1)])}, {1}),
    ],
)
def test_filters_of_flow_and_aggregate_statistics(filters: dict[str, object], cookies: set[int]) -> None:
    shell = Shell()
    shell.receive(FlowMod(cookie=1, match=Match.of([MatchField(BY_NAME["in_port"], 1)]), instructions=to_port(1)))
    shell.receive(FlowMod(cookie=2, match=Match.of([MatchField(BY_NAME["in_port"], 2)]), instructions=to_port(2)))
    shell.receive(FlowMod(cookie=3, table_id=1, instructions=to_port(2)))
    flows = answer(shell, FlowStatsRequest(**filters))  # type: ignore[arg-type]
    assert isinstance(flows, FlowStatsReply)
    assert {flow.cookie for flow in flows.entries} == cookies
    aggregate = answer(shell, AggregateStatsRequest(**filters))  # type: ignore[arg-type]
    assert aggregate == AggregateStats(0, 0, len(cookies))
