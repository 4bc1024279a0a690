"""How many megaflows it takes for much traffic: tens, where every mask that is looked at in full would make thousands."""

from __future__ import annotations

import pytest
from vectors import rule_sets
from vectors.rule_sets import Packet, Rule

from appliance.model.fields import IN_PORT
from appliance.packet.parse import parse
from appliance.pipeline.flow_table import Pipeline
from appliance.pipeline.xlate import translate

ROUTES = rule_sets.routes_and_ports(1000)


def megaflows(pipeline: Pipeline, packets: list[Packet]) -> int:
    """Made as the switch makes them: a packet that one covers makes no other."""
    made: dict[int, set[int]] = {}
    for in_port, frame in packets:
        key = parse(frame, in_port).key
        if not any(key & mask in values for mask, values in made.items()):
            translation = translate(pipeline, key)
            made.setdefault(translation.mask, set()).add(key & translation.mask)
    return sum(map(len, made.values()))


def naive_megaflows(pipeline: Pipeline, packets: list[Packet]) -> int:
    """With all bits of the rules that are not worse than the one that matches, in each table."""
    made: set[tuple[int, int]] = set()
    for in_port, frame in packets:
        key = parse(frame, in_port).key
        mask = IN_PORT.mask
        for lookup in translate(pipeline, key).lookups:
            for entry in pipeline.table(lookup.table_id):
                if lookup.entry is None or entry.priority >= lookup.entry.priority:
                    mask |= entry.match.mask
        made.add((mask, key & mask))
    return len(made)


@pytest.mark.parametrize(
    ("rules", "packets", "most"),
    [
        (rule_sets.FOUR_RULES, rule_sets.connections_for_four_rules(2000), 2),
        (ROUTES, rule_sets.connections_for_routes(ROUTES, 2000), 40),
    ],
    ids=["four rules", "routes and ports"],
)
def test_connections_by_the_thousand_take_megaflows_by_the_ten(rules: list[Rule], packets: list[Packet], most: int) -> None:
    pipeline = rule_sets.pipeline(rules)
    assert megaflows(pipeline, packets) <= most
    assert naive_megaflows(pipeline, packets[:600]) > 10 * most
