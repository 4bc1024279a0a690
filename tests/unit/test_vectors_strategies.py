"""The generated action lists of tests/bpf's equivalence tests have every action and set every field that there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vectors.strategies import SETTABLE, actions, whole

from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import Again, CallPlugin, Clone, DatapathAction, Failover, Select

ELSEWHERE = {CallPlugin: "tests/bpf/test_bpf_plugins.py runs real ones", Again: "test_parsed_again puts it behind lists"}


def parts(made: Iterable[DatapathAction]) -> Iterator[DatapathAction]:
    """All actions of a list, those in copies and buckets too."""
    for action in made:
        yield action
        match action:
            case Clone(actions=inner):
                yield from parts(inner)
            case Select(ways=ways) | Failover(ways=ways):
                for way in ways:
                    yield from parts(way.actions)


def generated(lists: st.SearchStrategy[tuple[DatapathAction, ...]]) -> list[DatapathAction]:
    """All that is in some hundred lists, the same each time."""
    seen: list[DatapathAction] = []

    @settings(
        max_examples=700,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(lists)
    def draw(made: tuple[DatapathAction, ...]) -> None:
        seen.extend(parts(made))

    draw()
    return seen


def test_every_action() -> None:
    assert {type(action) for action in generated(whole())} == set(get_args(DatapathAction)) - set(ELSEWHERE)


def test_every_field_that_can_be_set() -> None:
    assert {field.name for field in SETTABLE} == {name for name, field in BY_NAME.items() if field.settable}
    assert {action.field.name for action in generated(actions()) if isinstance(action, SetField)} == {f.name for f in SETTABLE}
