"""The action set: what Write-Actions gathers on the way through the tables, run when no Goto-Table follows.

Invariant: it holds at most one action of each type, one set-field for each field, and one action of each plug-in (specification
1.3.5, section 5.10).
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.model.actions import (
    Action,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    DecNwTtl,
    ExperimenterAction,
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
from appliance.model.plugin import plugin_of
from appliance.pipeline.translation import Origin

_RANK: dict[type[Action], int] = {
    # The order of execution, whatever the order of writing. Tags are popped from the outside in.
    CopyTtlIn: 1,
    PopPbb: 2,
    PopVlan: 3,
    PopMpls: 4,
    PushMpls: 5,
    PushPbb: 6,
    PushVlan: 7,
    CopyTtlOut: 8,
    DecMplsTtl: 9,
    DecNwTtl: 9,
    SetField: 10,
    SetMplsTtl: 10,
    SetNwTtl: 10,
    ExperimenterAction: 11,
    SetQueue: 12,
    Group: 13,
    Output: 14,
}

_Slot = tuple[int, object]


def _slot(action: Action) -> _Slot:
    kind = type(action)
    if isinstance(action, SetField):
        return _RANK[kind], action.field.name
    return _RANK[kind], plugin_of(action.data) if isinstance(action, ExperimenterAction) else kind


class ActionSet:
    """The action set of one packet. Each action comes with its origin: the entry that wrote it."""

    __slots__ = ("_slots",)

    def __init__(self, items: Iterable[tuple[Action, Origin]] = ()) -> None:
        self._slots: dict[_Slot, tuple[Action, Origin]] = {_slot(action): (action, origin) for action, origin in items}

    def write(self, actions: Iterable[Action], origin: Origin) -> None:
        """Add actions; each takes the place of one of the same type, or of the same field."""
        for action in actions:
            self._slots[_slot(action)] = (action, origin)

    def clear(self) -> None:
        self._slots.clear()

    def items(self) -> tuple[tuple[Action, Origin], ...]:
        """What it holds, in no defined order: enough to make an equal one."""
        return tuple(self._slots.values())

    def in_order(self) -> list[tuple[Action, Origin]]:
        """In the order of execution. An output is left out when there is a group (which then decides)."""
        slots = sorted(self._slots, key=lambda slot: slot[0])
        if slots and (_RANK[Group], Group) in self._slots:
            slots = [slot for slot in slots if slot[1] is not Output]
        return [self._slots[slot] for slot in slots]
