"""The short way through the tables, and what is remembered of last entries, against the long way."""

from __future__ import annotations

from random import Random

from hypothesis import event, given, settings
from support import pipeline_cases as cases

from appliance.model.actions import (
    ApplyActions,
    ClearActions,
    DecNwTtl,
    GotoTable,
    Instruction,
    Meter,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import BY_NAME, IN_PORT, KEY_MASK, METADATA
from appliance.model.match import Match
from appliance.model.megaflow import Forward
from appliance.model.ports import PortNo
from appliance.pipeline.first_part import first_part, is_first_part
from appliance.pipeline.flow_table import FlowEntry, Pipeline, Program
from appliance.pipeline.last_entry import LastEntries, is_last
from appliance.pipeline.plain_path import Begun, begin
from appliance.pipeline.translation import Translation
from appliance.pipeline.xlate import _Walk, translate, translate_again

PORTS = (*cases.IN_PORTS, 4, PortNo.FLOOD, PortNo.ALL, PortNo.IN_PORT)
OTHER_PORTS = (PortNo.CONTROLLER, PortNo.NORMAL, PortNo.TABLE, PortNo.LOCAL)
MANY = settings(max_examples=5 * settings.default.max_examples)


def plain(rnd: Random, table_id: int) -> tuple[Instruction, ...]:
    """Instructions that change no packet."""
    ports = PORTS if rnd.random() < 0.9 else OTHER_PORTS
    instructions: list[Instruction] = []
    if rnd.random() < 0.4:
        instructions.append(ApplyActions(tuple(Output(rnd.choice(ports)) for _ in range(rnd.randint(0, 3)))))
    if rnd.random() < 0.4:
        instructions.append(WriteActions(tuple(Output(rnd.choice(ports)) for _ in range(rnd.randint(0, 2)))))
    if rnd.random() < 0.2:
        instructions.append(ClearActions())
    if rnd.random() < 0.4:
        mask = rnd.randrange(1, 4)
        instructions.append(WriteMetadata(rnd.randrange(4) & mask, mask))
    if table_id + 1 < cases.TABLES and rnd.random() < 0.75:
        instructions.append(GotoTable(rnd.randrange(table_id + 1, cases.TABLES)))
    return tuple(instructions)


def mostly_plain(rnd: Random, everything: bool) -> Pipeline:
    pipeline = cases.pipeline(rnd, everything)
    for table in pipeline:
        for entry in table:
            if rnd.random() < 0.9:
                entry.instructions = plain(rnd, table.table_id)
    return pipeline


def step_by_step(pipeline: Pipeline, key: int) -> Translation:
    """From the first table on as the rest is done."""
    walk = _Walk(pipeline, key, None, None, one_packet=False)
    return walk.run(walk.tables)


@given(cases.RANDOMS)
@MANY
def test_the_short_way_is_the_long_one(rnd: Random) -> None:
    everything = rnd.random() < 0.5
    pipeline = mostly_plain(rnd, everything)
    for _ in range(4):
        key = cases.flow_key(rnd, everything)
        long = step_by_step(pipeline, key)
        begun = begin(pipeline, key)
        short = isinstance(begun, Translation)
        event(f"short: {short}, tables {len(long.lookups)}, outputs {min(len(long.actions), 3)}")
        assert translate(pipeline, key) == long
        assert not short or begun == long


@given(cases.RANDOMS)
@MANY
def test_what_the_last_entry_did_to_others_is_done_to_packets_that_it_is_right_for(rnd: Random) -> None:
    """Packets one after another that differ in some bits: tags, headers that are there or not, used-up TTLs."""
    everything = rnd.random() < 0.3
    pipeline = mostly_plain(rnd, everything) if rnd.random() < 0.5 else cases.pipeline(rnd, everything)
    key = cases.flow_key(rnd, everything)
    for _ in range(6):
        assert translate(pipeline, key) == step_by_step(pipeline, key)
        key = cases.flip(rnd, key, KEY_MASK & ~METADATA.mask)


def test_a_router_follows_its_actions_once() -> None:
    """Until the packet has no IP header, or comes from the port that it goes to."""
    set_and_send = (ApplyActions((DecNwTtl(), SetField(BY_NAME["eth_dst"], 7), Output(2))),)
    entry = FlowEntry(1, Match(), set_and_send)
    begun = Begun(entry, 0, IN_PORT.mask, ((0, 0, entry),), (), None)
    last = LastEntries()
    assert is_last(entry.program)
    assert last.find(begun, 1, 5) is None
    last.learn(begun, 1, 5, (4, (Forward(2),)))
    assert last.find(begun, 1, 5 | 8) == (4, (Forward(2),))
    assert last.find(begun, 1, 1) is None
    assert last.find(begun, 2, 5) is None
    assert last.find(begun._replace(in_set=(Output(3), 0, entry)), 1, 5) is None
    assert not is_last(Program.of((GotoTable(3),)))
    assert not is_last(Program.of((Meter(1), *set_and_send)))
    assert not is_last(Program.of((ApplyActions((Output(PortNo.CONTROLLER),)),)))
    assert not is_last(Program.of((WriteActions((PopVlan(),)),)))


def test_packets_share_what_the_last_entry_does_and_not_how_they_came_to_it() -> None:
    pipeline = Pipeline()
    for name in ("eth_src", "vlan_pcp"):
        field = BY_NAME[name]
        pipeline.table(0).add(FlowEntry(field.bits, Match((), field.mask, field.mask), (GotoTable(1),)))
    pipeline.table(1).add(FlowEntry(1, Match(), (ApplyActions((SetField(BY_NAME["eth_dst"], 7), Output(2))),)))
    for key in (BY_NAME["eth_src"].mask, BY_NAME["vlan_pcp"].mask):
        translation = translate(pipeline, key)
        assert translation == step_by_step(pipeline, key)
        assert len(translation.actions) == 2
    assert translation.mask & BY_NAME["eth_src"].mask == BY_NAME["eth_src"].mask, "the better rule was looked for"
    pipeline.table(0).remove(pipeline.table(0).entries()[0])
    assert not translate(pipeline, BY_NAME["vlan_pcp"].mask).mask & BY_NAME["eth_src"].mask


def test_what_is_remembered_is_bounded() -> None:
    entry = FlowEntry(1, Match(), (ApplyActions((PushVlan(0x8100), Output(2))),))
    begun = Begun(entry, 0, IN_PORT.mask, ((0, 0, entry),), (), None)
    last = LastEntries()
    for key in range(1000):
        last.learn(begun, 1, key, (0xFFFF, ()))
    assert sum(last.find(begun, 1, key) is not None for key in range(1000)) <= 64
    assert last.find(begun, 1, 999) is not None


def test_entries_that_change_nothing_are_met_on_the_short_way() -> None:
    rnd = Random(1)
    for _ in range(100):
        pipeline = cases.pipeline(rnd)
        for table in pipeline:
            for entry in table:
                entry.instructions = (
                    *(instruction for instruction in plain(rnd, table.table_id) if not _has_other_port(instruction)),
                )
        assert isinstance(begin(pipeline, cases.flow_key(rnd)), Translation)


def _has_other_port(instruction: Instruction) -> bool:
    return isinstance(instruction, ApplyActions | WriteActions) and any(
        isinstance(action, Output) and action.port in OTHER_PORTS for action in instruction.actions
    )


@MANY
@given(cases.RANDOMS)
def test_a_way_in_two_parts_is_the_whole_way(rnd: Random) -> None:
    pipeline = mostly_plain(rnd, everything=False)
    key = cases.flow_key(rnd)
    table_id = rnd.randrange(1, cases.TABLES)
    first = first_part(pipeline, key, table_id)
    event(f"cut: {first is not None}")
    if first is None:
        return
    assert first.again is not None
    assert is_first_part(first)
    # For all packets that agree in its mask.
    other = cases.flip(rnd, key, KEY_MASK & ~first.mask & ~METADATA.mask)
    again = first_part(pipeline, other, table_id)
    assert again is not None
    assert (again.mask, entries(again)) == (first.mask, entries(first))
    # And with what follows it does what the whole does.
    rest = translate_again(pipeline, first.again, key)
    whole = translate(pipeline, key)
    assert entries(first) + entries(rest) == entries(whole)
    assert (rest.actions, rest.slow_path_only, rest.again is None) == (whole.actions, whole.slow_path_only, whole.again is None)
    assert (rest.hits, rest.groups, rest.meters) == (whole.hits, whole.groups, whole.meters)


def entries(translation: Translation) -> list[tuple[int, FlowEntry | None]]:
    return [(lookup.table_id, lookup.entry) for lookup in translation.lookups]
