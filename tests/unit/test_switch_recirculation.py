"""Places where packets go on that are parsed again: one number for each way on."""

from __future__ import annotations

from dataclasses import replace

from appliance.model.actions import ApplyActions, Output
from appliance.model.fields import METADATA, TUNNEL_ID
from appliance.model.megaflow import FIRST_AGAIN, PacketInReason, is_again
from appliance.model.ports import LOCAL_PORT
from appliance.pipeline.flow_table import FlowEntry
from appliance.pipeline.translation import Continuation, Origin, Stage
from appliance.switch.recirculation import MAX_PASSES, Recirculation

ENTRY = FlowEntry(instructions=(ApplyActions((Output(2),)),))
ON = Continuation(
    Stage.LOOKUP, 1, ENTRY, (), (), Origin(0, 0, PacketInReason.ACTION), METADATA.put(0, 5), submit=False, queue_id=None, copies=9
)


def test_another_way_on_is_another_number() -> None:
    places = Recirculation()
    first = places.number(1, ON, 1)
    others = [places.number(2, ON, 1), places.number(1, ON, 2), places.number(1, replace(ON, carried=METADATA.put(0, 6)), 1)]
    assert first == FIRST_AGAIN
    assert len({first, *others}) == 4
    assert places.number(1, ON, 1) == first
    place = places.get(first)
    assert place is not None
    assert (place.in_port, place.continuation, place.passes) == (1, ON, 1)
    assert all(map(is_again, (first, *others)))
    assert not is_again(LOCAL_PORT)


def test_the_tunnel_is_the_packets_own() -> None:
    places = Recirculation()
    assert places.number(1, ON, 1) == places.number(1, replace(ON, carried=TUNNEL_ID.put(ON.carried, 7)), 1)


def test_an_entry_that_changes_is_another_way_on() -> None:
    places = Recirculation()
    entry = FlowEntry(instructions=(ApplyActions((Output(2),)),))
    before = places.number(1, replace(ON, entry=entry), 1)
    entry.instructions = (ApplyActions((Output(3),)),)
    assert places.number(1, replace(ON, entry=entry), 1) != before


def test_not_too_often() -> None:
    places = Recirculation()
    assert places.number(1, ON, MAX_PASSES)
    assert places.number(1, ON, MAX_PASSES + 1) == 0


def test_what_no_megaflow_leads_to_is_forgotten_but_for_the_newest() -> None:
    places = Recirculation()
    made = [places.number(1, replace(ON, table_id=number), 1) for number in range(5000)]
    assert places.is_full
    places.forget({made[3]})
    assert not places.is_full
    assert places.get(made[3]) is not None
    assert places.get(made[4]) is None
    assert places.get(made[-1]) is not None
    assert places.number(1, replace(ON, table_id=4), 1) not in made
