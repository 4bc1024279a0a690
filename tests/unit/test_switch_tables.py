"""Tables as controllers describe them: OFPMP_TABLE_FEATURES written and read back, and flow-mods held to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from switch_shell import Shell

from appliance.model.actions import ApplyActions, GotoTable, Instruction, Output, PopVlan, SetField, WriteActions, WriteMetadata
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField
from appliance.openflow.constants import OFPTT_ALL, ActionType, InstructionType
from appliance.openflow.errors import (
    BadAction,
    BadInstruction,
    BadMatch,
    BadRequest,
    ErrorType,
    FlowModFailed,
    TableFeaturesFailed,
    TableModFailed,
)
from appliance.openflow.messages import (
    ActionsProperty,
    Error,
    ExperimenterId,
    ExperimenterProperty,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowModFlags,
    FlowRemoved,
    FlowStatsReply,
    FlowStatsRequest,
    InstructionsProperty,
    MultipartReply,
    MultipartRequest,
    NextTablesProperty,
    OxmProperty,
    TableFeatureProperty,
    TableFeatures,
    TableFeaturesReply,
    TableFeaturesRequest,
    TableMod,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.openflow.oxm import oxm_id
from appliance.openflow.table_features import TableFeaturePropertyType as P

OUTPUT = (ApplyActions((Output(1),)),)


def write(shell: Shell, *tables: TableFeatures) -> tuple[TableFeatures, ...]:
    reply = shell.ask(MultipartRequest(TableFeaturesRequest(tables), xid=3), MultipartReply).body
    assert isinstance(reply, TableFeaturesReply)
    assert reply == shell.ask(MultipartRequest(TableFeaturesRequest()), MultipartReply).body, "it is what is read then"
    return reply.tables


def refused(*tables: TableFeatures) -> int:
    shell = Shell()
    before = shell.ask(MultipartRequest(TableFeaturesRequest()), MultipartReply).body
    kind, code = shell.refused(MultipartRequest(TableFeaturesRequest(tables)))
    assert kind == ErrorType.TABLE_FEATURES_FAILED
    assert shell.ask(MultipartRequest(TableFeaturesRequest()), MultipartReply).body == before
    return code


def of(tables: tuple[TableFeatures, ...], number: int) -> dict[P, TableFeatureProperty]:
    (table,) = (table for table in tables if table.table_id == number)
    return {item.type: item for item in table.properties}


def read(shell: Shell) -> tuple[TableFeatures, ...]:
    body = shell.ask(MultipartRequest(TableFeaturesRequest()), MultipartReply).body
    assert isinstance(body, TableFeaturesReply)
    return body.tables


def flows(shell: Shell) -> set[int]:
    body = shell.ask(MultipartRequest(FlowStatsRequest()), MultipartReply).body
    assert isinstance(body, FlowStatsReply)
    return {flow.table_id for flow in body.entries}


# ── writing ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_wildcards_may_name_a_masked_field_as_match_does() -> None:
    """They are to be a subset of it (section 7.3.5.5.2), and Faucet gives the same list twice."""
    shell = Shell()
    headers = (oxm_id(BY_NAME["in_port"]), oxm_id(BY_NAME["eth_dst"], True))
    properties = (OxmProperty(P.MATCH, headers), OxmProperty(P.WILDCARDS, headers))
    told = of(write(shell, TableFeatures(0, properties=properties)), 0)
    assert told[P.WILDCARDS] == OxmProperty(P.WILDCARDS, (oxm_id(BY_NAME["in_port"]), oxm_id(BY_NAME["eth_dst"])))


def test_oxm_headers_without_their_length_mean_the_same() -> None:
    """Ryu, and so Faucet, sends these."""
    shell = Shell()
    headers = (oxm_id(BY_NAME["in_port"]), oxm_id(BY_NAME["eth_dst"], True))
    told = of(write(shell, TableFeatures(0, properties=(OxmProperty(P.MATCH, tuple(header & ~0xFF for header in headers)),))), 0)
    assert told[P.MATCH] == OxmProperty(P.MATCH, headers)


def test_what_was_read_can_be_written_back() -> None:
    shell = Shell()
    shell.receive(FlowMod(table_id=3))
    tables = read(shell)
    assert write(shell, *tables) == tables
    assert flows(shell) == {3}, "nothing has changed, nothing is emptied"


def test_a_name_is_no_ability() -> None:
    shell = Shell()
    shell.receive(FlowMod(table_id=3))
    tables = tuple(replace(table, name=f"t{table.table_id}", config=1) for table in read(shell))
    assert write(shell, *tables) == tables
    assert flows(shell) == {3}


def test_tables_that_are_not_named_go() -> None:
    shell = Shell()
    for number in (0, 1, 5):
        shell.receive(FlowMod(table_id=number, flags=FlowModFlags.SEND_FLOW_REM))
    reply = write(shell, TableFeatures(0), TableFeatures(5))
    assert [table.table_id for table in reply] == [0, 5]
    assert of(reply, 0)[P.NEXT_TABLES] == NextTablesProperty(P.NEXT_TABLES, (5,))
    assert of(reply, 5)[P.NEXT_TABLES] == NextTablesProperty(P.NEXT_TABLES)
    assert flows(shell) == set()
    assert shell.told(FlowRemoved) == []
    assert shell.ask(FeaturesRequest(), FeaturesReply).n_tables == 2
    stats = shell.ask(MultipartRequest(TableStatsRequest()), MultipartReply).body
    assert isinstance(stats, TableStatsReply)
    assert [entry.table_id for entry in stats.entries] == [0, 5]
    assert shell.refused(FlowMod(table_id=1)) == (ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID)
    assert shell.refused(TableMod(1)) == (ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_TABLE)
    gone = MultipartRequest(FlowStatsRequest(table_id=1))
    assert shell.refused(gone) == (ErrorType.BAD_REQUEST, BadRequest.BAD_TABLE_ID)
    assert shell.refused(FlowMod(instructions=(GotoTable(1),))) == (ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_TABLE_ID)
    assert shell.receive(FlowMod(instructions=(GotoTable(5),))) == []
    assert [table.table_id for table in write(shell, TableFeatures(1), TableFeatures(0))] == [0, 1], "and may come back"


def test_packets_go_through_the_tables_as_they_are_then() -> None:
    shell = Shell()
    shell.receive(FlowMod(instructions=OUTPUT))
    raw = bytes(60)
    assert shell.inject(2, raw) == shell.inject(2, raw) == [(1, raw)]
    write(shell, TableFeatures(0, max_entries=9))
    assert shell.inject(2, raw) == [], "the entry has gone"


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (TableFeatures(254), TableFeaturesFailed.BAD_TABLE),
        (TableFeatures(255), TableFeaturesFailed.BAD_TABLE),
        (TableFeatures(0), TableFeaturesFailed.BAD_TABLE),
        (TableFeatures(1, config=4), TableFeaturesFailed.BAD_ARGUMENT),
        (TableFeatures(1, max_entries=1 << 30), TableFeaturesFailed.BAD_ARGUMENT),
    ],
)
def test_tables_that_cannot_be_had(table: TableFeatures, code: int) -> None:
    assert refused(TableFeatures(0), table) == code


def test_packets_start_in_table_0() -> None:
    assert refused(TableFeatures(1)) == TableFeaturesFailed.BAD_TABLE


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (InstructionsProperty(P.INSTRUCTIONS, (9,)), TableFeaturesFailed.BAD_ARGUMENT),
        (InstructionsProperty(P.INSTRUCTIONS_MISS, (ExperimenterId(1),)), TableFeaturesFailed.BAD_ARGUMENT),
        (ActionsProperty(P.APPLY_ACTIONS, (1,)), TableFeaturesFailed.BAD_ARGUMENT),
        (ActionsProperty(P.WRITE_ACTIONS, (ExperimenterId(1),)), TableFeaturesFailed.BAD_ARGUMENT),
        (NextTablesProperty(P.NEXT_TABLES, (0,)), TableFeaturesFailed.BAD_ARGUMENT),
        (NextTablesProperty(P.NEXT_TABLES, (2,)), TableFeaturesFailed.BAD_ARGUMENT),
        (OxmProperty(P.MATCH, (0x80001234,)), TableFeaturesFailed.BAD_ARGUMENT),
        (OxmProperty(P.MATCH, (oxm_id(BY_NAME["eth_type"], True),)), TableFeaturesFailed.BAD_ARGUMENT),
        (OxmProperty(P.WILDCARDS, (oxm_id(BY_NAME["eth_type"], True),)), TableFeaturesFailed.BAD_ARGUMENT),
        (OxmProperty(P.APPLY_SETFIELD, (oxm_id(BY_NAME["in_port"]),)), TableFeaturesFailed.BAD_ARGUMENT),
        (ExperimenterProperty(P.EXPERIMENTER, 1, 2), TableFeaturesFailed.BAD_TYPE),
    ],
)
def test_properties_that_cannot_be_had(item: TableFeatureProperty, code: int) -> None:
    assert refused(TableFeatures(0, properties=(item,)), TableFeatures(1)) == code


def test_a_property_comes_once() -> None:
    item = NextTablesProperty(P.NEXT_TABLES)
    assert refused(TableFeatures(0, properties=(item, item))) == TableFeaturesFailed.BAD_TYPE


# ── holding flow-mods to it ────────────────────────────────────────────────────────────────────────────────────────────
def entry(*instructions: Instruction, **fields: int | tuple[int, int]) -> FlowMod:
    match = Match.of(
        MatchField(BY_NAME[name], *(value if isinstance(value, tuple) else (value,))) for name, value in fields.items()
    )
    return FlowMod(match=match, priority=len(fields), instructions=instructions)


NARROW = TableFeatures(
    0,
    "narrow",
    metadata_match=0xFF,
    metadata_write=0xF0,
    max_entries=1,
    properties=(
        InstructionsProperty(
            P.INSTRUCTIONS, tuple(set(InstructionType) - {InstructionType.CLEAR_ACTIONS, InstructionType.EXPERIMENTER})
        ),
        InstructionsProperty(P.INSTRUCTIONS_MISS, (InstructionType.APPLY_ACTIONS,)),
        NextTablesProperty(P.NEXT_TABLES, (2,)),
        ActionsProperty(P.APPLY_ACTIONS, (ActionType.OUTPUT, ActionType.SET_FIELD)),
        ActionsProperty(P.WRITE_ACTIONS, (ActionType.SET_FIELD,)),
        OxmProperty(P.APPLY_SETFIELD, (oxm_id(BY_NAME["eth_dst"]),)),
        OxmProperty(P.WRITE_SETFIELD, (oxm_id(BY_NAME["eth_src"]),)),
        OxmProperty(
            P.MATCH,
            (
                oxm_id(BY_NAME["in_port"]),
                oxm_id(BY_NAME["metadata"], True),
                oxm_id(BY_NAME["eth_dst"]),
                oxm_id(BY_NAME["eth_src"], True),
            ),
        ),
        OxmProperty(P.WILDCARDS, tuple(oxm_id(BY_NAME[name]) for name in ("metadata", "eth_dst", "eth_src"))),
    ),
)


def narrow() -> Shell:
    shell = Shell()
    everything = BY_NAME["metadata"].max
    (table, *_) = write(shell, NARROW, TableFeatures(1, "", everything, everything), TableFeatures(2))
    wanted = {item.type: item for item in NARROW.properties}
    found = {item.type: item for item in table.properties}
    for kind, item in wanted.items():
        match item, found[kind]:
            case (InstructionsProperty(_, ids), InstructionsProperty(_, told)) | (OxmProperty(_, ids), OxmProperty(_, told)):
                assert set(ids) == set(told)
            case _:
                assert found[kind] == item
    assert (table.name, table.metadata_match, table.metadata_write, table.max_entries) == ("narrow", 0xFF, 0xF0, 1)
    assert found.keys() == wanted.keys(), "where the table-miss entry can do the same, nothing is said of it"
    return shell


@pytest.mark.parametrize(
    ("mod", "kind", "code"),
    [
        (
            entry(WriteActions(()), WriteMetadata(0x10, 0xF1), in_port=1),
            ErrorType.BAD_INSTRUCTION,
            BadInstruction.UNSUP_METADATA_MASK,
        ),
        (entry(WriteMetadata(0x11, 0xF0), in_port=1), ErrorType.BAD_INSTRUCTION, BadInstruction.UNSUP_METADATA),
        (entry(GotoTable(1), in_port=1), ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_TABLE_ID),
        (entry(GotoTable(2)), ErrorType.BAD_INSTRUCTION, BadInstruction.UNSUP_INST),
        (entry(ApplyActions((PopVlan(),)), in_port=1), ErrorType.BAD_ACTION, BadAction.BAD_TYPE),
        (entry(WriteActions((Output(1),)), in_port=1), ErrorType.BAD_ACTION, BadAction.BAD_TYPE),
        (entry(ApplyActions((SetField(BY_NAME["eth_src"], 1),)), in_port=1), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
        (entry(WriteActions((SetField(BY_NAME["eth_dst"], 1),)), in_port=1), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
        (entry(in_port=1, eth_type=5), ErrorType.BAD_MATCH, BadMatch.BAD_FIELD),
        (entry(in_port=1, eth_dst=(4, 4)), ErrorType.BAD_MATCH, BadMatch.BAD_MASK),
        (entry(in_port=1, metadata=(0x100, 0x100)), ErrorType.BAD_MATCH, BadMatch.BAD_MASK),
        (entry(in_port=1, metadata=1), ErrorType.BAD_MATCH, BadMatch.BAD_MASK),
        (entry(eth_dst=4), ErrorType.BAD_MATCH, BadMatch.BAD_WILDCARDS),
    ],
)
def test_a_narrow_table_refuses(mod: FlowMod, kind: ErrorType, code: int) -> None:
    assert narrow().refused(mod) == (kind, code)
    assert not any(isinstance(answer, Error) for answer in Shell().receive(mod))


@pytest.mark.parametrize(
    "mod",
    [
        entry(WriteMetadata(0x10, 0xF0), GotoTable(2), in_port=1),
        entry(ApplyActions((SetField(BY_NAME["eth_dst"], 1), Output(1))), in_port=1, eth_dst=1, eth_src=(4, 4), metadata=(1, 0xFF)),
        entry(WriteActions((SetField(BY_NAME["eth_src"], 1),)), in_port=1),
        entry(*OUTPUT),
    ],
)
def test_a_narrow_table_takes(mod: FlowMod) -> None:
    shell = narrow()
    assert shell.receive(mod) == []
    assert shell.refused(entry(in_port=9)) == (ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL)
    assert shell.receive(mod._replace(table_id=1, instructions=())) == [], "the other tables are as they were"


# ── table-mod ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_table_mod_says_nothing_that_counts() -> None:
    shell = Shell()
    shell.receive(TableMod(4, 3))
    assert {table.table_id for table in read(shell) if table.config == 3} == {4}
    shell.receive(TableMod(OFPTT_ALL, 1))
    assert {table.config for table in read(shell)} == {1}
