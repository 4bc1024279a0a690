"""The short way through the tables against the long one."""

from __future__ import annotations

from random import Random

import pipeline_cases as cases
from hypothesis import event, given, settings

from appliance.model.actions import ApplyActions, ClearActions, GotoTable, Instruction, Output, WriteActions, WriteMetadata
from appliance.model.ports import PortNo
from appliance.pipeline.flow_table import Pipeline
from appliance.pipeline.plain_path import begin
from appliance.pipeline.translation import Translation
from appliance.pipeline.xlate import _Walk, translate

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
