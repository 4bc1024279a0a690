"""The generated action lists of tests/bpf's equivalence tests have every action and set every field that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
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


class AllSeenError(Exception):
    """No more lists are needed."""


def generated(
    lists: st.SearchStrategy[tuple[DatapathAction, ...]], of: Callable[[DatapathAction], object], wanted: set[object]
) -> set[object]:
    """``of`` the actions in lists, until all that is wanted has been seen; in so many that it is, whatever Hypothesis prefers."""
    seen: set[object] = set()

    @settings(
        max_examples=7000,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(lists)
    def draw(made: tuple[DatapathAction, ...]) -> None:
        seen.update(map(of, parts(made)))
        if seen >= wanted:
            raise AllSeenError

    with suppress(AllSeenError):
        draw()
    return seen


def test_every_action() -> None:
    wanted = set(get_args(DatapathAction)) - set(ELSEWHERE)
    assert generated(whole(), type, wanted) == wanted


def test_every_field_that_can_be_set() -> None:
    assert {field.name for field in SETTABLE} == {name for name, field in BY_NAME.items() if field.settable}
    wanted = {None, *(field.name for field in SETTABLE)}
    assert generated(actions(), lambda action: action.field.name if isinstance(action, SetField) else None, wanted) == wanted
