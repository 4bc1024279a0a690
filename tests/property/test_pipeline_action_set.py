"""The action set: one action of each type, one set-field for each field, and the order of section 5.10."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.actions import (
    Action,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    DecNwTtl,
    Group,
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
)
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import PacketInReason
from appliance.pipeline.action_set import ActionSet
from appliance.pipeline.translation import Origin

ORDER: tuple[tuple[type[Action], ...], ...] = (
    (CopyTtlIn,),
    (PopVlan, PopMpls, PopPbb),
    (PushMpls,),
    (PushPbb,),
    (PushVlan,),
    (CopyTtlOut,),
    (DecNwTtl, DecMplsTtl),
    (SetField, SetNwTtl, SetMplsTtl),
    (SetQueue,),
    (Group,),
    (Output,),
)
ORIGIN = Origin(3, 7, PacketInReason.ACTION)

NUMBERS = st.integers(1, 3)
ACTIONS: st.SearchStrategy[Action] = st.one_of(
    *(st.just(kind()) for kind in (CopyTtlIn, CopyTtlOut, PopVlan, PopPbb, DecNwTtl, DecMplsTtl)),
    *(st.builds(kind, NUMBERS) for kind in (PopMpls, PushMpls, PushPbb, PushVlan, SetMplsTtl, SetNwTtl, SetQueue, Group, Output)),
    st.builds(SetField, st.sampled_from([BY_NAME[name] for name in ("eth_dst", "eth_src", "tcp_dst")]), NUMBERS),
)


def slot(action: Action) -> object:
    return action.field if isinstance(action, SetField) else type(action)


@given(st.lists(st.lists(ACTIONS, max_size=6), max_size=4))
def test_the_last_of_each_type_runs_in_the_order_of_the_specification(writes: list[list[Action]]) -> None:
    action_set = ActionSet()
    for actions in writes:
        action_set.write(actions, ORIGIN)
    expected = {slot(action): action for actions in writes for action in actions}
    if Group in expected:
        expected.pop(Output, None)
    ran = [action for action, _ in action_set.in_order()]
    assert {slot(action): action for action in ran} == expected
    assert len(ran) == len(expected)
    ranks = [next(rank for rank, kinds in enumerate(ORDER) if isinstance(action, kinds)) for action in ran]
    assert ranks == sorted(ranks)
    assert ActionSet(action_set.items()).in_order() == action_set.in_order()


@given(st.lists(ACTIONS, max_size=6), st.lists(ACTIONS, max_size=6))
def test_clearing_forgets_what_was_written_before(before: list[Action], after: list[Action]) -> None:
    cleared, fresh = ActionSet(), ActionSet()
    cleared.write(before, ORIGIN)
    cleared.clear()
    cleared.write(after, ORIGIN)
    fresh.write(after, ORIGIN)
    assert cleared.in_order() == fresh.in_order()


def test_each_action_remembers_the_entry_that_wrote_it() -> None:
    action_set = ActionSet()
    other = Origin(5, 9, PacketInReason.NO_MATCH)
    action_set.write([Output(1), PopVlan()], ORIGIN)
    action_set.write([Output(2)], other)
    assert action_set.in_order() == [(PopVlan(), ORIGIN), (Output(2), other)]
