"""What flow-mods do to the flow tables: the specification's sentences, one by one, on a list.

Source: OpenFlow Switch Specification 1.3.5, section 6.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.model.actions import Action, ApplyActions, Group, Instruction, Output, WriteActions
from appliance.model.match import Match
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPTT_ALL
from appliance.openflow.messages import FlowMod, FlowModCommand, FlowModFlags

ADD, MODIFY, MODIFY_STRICT, DELETE, DELETE_STRICT = FlowModCommand


@dataclass(eq=False)
class Row:
    """One flow entry: the flow-mod that added it, when (seconds), and the instructions that it has by now."""

    mod: FlowMod
    at: float
    instructions: tuple[Instruction, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.instructions = self.mod.instructions

    def actions(self) -> list[Action]:
        lists = [item.actions for item in self.instructions if isinstance(item, ApplyActions | WriteActions)]
        return [action for actions in lists for action in actions]

    def outputs(self) -> set[int]:
        return {action.port for action in self.actions() if isinstance(action, Output)}

    def groups(self) -> set[int]:
        return {action.group_id for action in self.actions() if isinstance(action, Group)}


class FlowModModel:
    """``removed``: what was deleted and asked for a flow-removed message."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.removed: list[FlowMod] = []

    def apply(self, mod: FlowMod, now: float) -> bool:
        """Whether it is accepted."""
        if mod.command == ADD:
            same = [row for row in self.rows if row.mod.table_id == mod.table_id and row.mod.priority == mod.priority]
            if mod.flags & FlowModFlags.CHECK_OVERLAP and any(overlap(row.mod.match, mod.match) for row in same):
                return False
            self.rows = [row for row in self.rows if not (row in same and row.mod.match == mod.match)]
            self.rows.append(Row(mod, now))
            return True
        for row in [row for row in self.rows if self.covers(mod, row)]:
            if mod.command in (MODIFY, MODIFY_STRICT):
                row.instructions = mod.instructions
            else:
                self.remove(row)
        return True

    def remove(self, row: Row) -> None:
        self.rows.remove(row)
        if row.mod.flags & FlowModFlags.SEND_FLOW_REM:
            self.removed.append(row.mod)

    @staticmethod
    def covers(mod: FlowMod, row: Row) -> bool:
        if mod.table_id not in (OFPTT_ALL, row.mod.table_id) or (row.mod.cookie ^ mod.cookie) & mod.cookie_mask:
            return False
        if mod.command in (DELETE, DELETE_STRICT) and mod.out_port != PortNo.ANY and mod.out_port not in row.outputs():
            return False
        if mod.command in (MODIFY_STRICT, DELETE_STRICT):
            return row.mod.match == mod.match and row.mod.priority == mod.priority
        wide, narrow = of(mod.match), of(row.mod.match)
        return all(name in narrow and inside(narrow[name], wide[name]) for name in wide)


def of(match: Match) -> dict[str, tuple[int, int]]:
    """Value and mask of each field."""
    return {item.field.name: (item.value, item.field.max if item.mask is None else item.mask) for item in match.fields}


def inside(narrow: tuple[int, int], wide: tuple[int, int]) -> bool:
    """Whether what fits ``narrow`` always fits ``wide`` too."""
    return not wide[1] & ~narrow[1] and not (narrow[0] ^ wide[0]) & wide[1]


def overlap(a: Match, b: Match) -> bool:
    ours, theirs = of(a), of(b)
    both = ours.keys() & theirs.keys()
    return not any((ours[name][0] ^ theirs[name][0]) & ours[name][1] & theirs[name][1] for name in both)
