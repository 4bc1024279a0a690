"""Shorthand for messages of OpenFlow in tables."""

from __future__ import annotations

from appliance.model import actions as act
from appliance.model.fields import BY_NAME
from appliance.model.match import Match, MatchField

XID = 0x01020304


def match(**fields: int | tuple[int, int]) -> Match:
    items = [(BY_NAME[name], value) for name, value in fields.items()]
    return Match.of(MatchField(field, *(value if isinstance(value, tuple) else (value,))) for field, value in items)


def set_field(name: str, value: int) -> act.SetField:
    return act.SetField(BY_NAME[name], value)


def applied(*actions: act.Action) -> tuple[act.Instruction, ...]:
    return (act.ApplyActions(actions),)
