"""What the switch's tables must hold after all that it was told: flow entries on a list, groups and meters as they were sent.

Invariant: entries that are there only for seconds are on the list until ``expire``; whether the switch still has them is not known.
"""

from __future__ import annotations

from support.flow_mod_model import FlowModModel, Row

from appliance.agent import render
from appliance.model.actions import ApplyActions, Group, Instruction, Meter, WriteActions
from appliance.openflow.messages import FlowMod, FlowModCommand, FlowStats, GroupMod, GroupModCommand, MeterMod, MeterModCommand
from appliance.pipeline import group_table
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import GroupEntry
from appliance.pipeline.meter_table import MeterEntry

LONG_SECONDS = 1000
"""A timeout of so much or more is never over while a round lasts."""

Change = FlowMod | GroupMod | MeterMod


def entry_key(table_id: int, entry: FlowMod | FlowStats | FlowEntry) -> str:
    """Table, match and priority, in words: no two entries have the same."""
    return f"table {table_id}, priority {entry.priority}, {render.one_line(render.match_fields(entry.match)) or 'any packet'}"


def is_short_lived(mod: FlowMod) -> bool:
    return any(0 < seconds < LONG_SECONDS for seconds in (mod.idle_timeout, mod.hard_timeout))


def groups_of(instructions: tuple[Instruction, ...]) -> set[int]:
    lists = [item.actions for item in instructions if isinstance(item, ApplyActions | WriteActions)]
    return {action.group_id for actions in lists for action in actions if isinstance(action, Group)}


def meters_of(instructions: tuple[Instruction, ...]) -> set[int]:
    return {item.meter_id for item in instructions if isinstance(item, Meter)}


class Tables(FlowModModel):
    """The tables of one switch, as its controllers have made them."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[int, GroupMod] = {}
        self.meters: dict[int, MeterMod] = {}

    # ── changing ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def change(self, message: Change) -> bool:
        """Do it; whether the switch must accept it."""
        match message:
            case FlowMod():
                return self._flow_mod(message)
            case GroupMod():
                return self._group_mod(message)
            case MeterMod():
                return self._meter_mod(message)

    def _flow_mod(self, mod: FlowMod) -> bool:
        changes = mod.command not in (FlowModCommand.DELETE, FlowModCommand.DELETE_STRICT)
        if changes and not (
            groups_of(mod.instructions) <= self.groups.keys() and meters_of(mod.instructions) <= self.meters.keys()
        ):
            return False
        return self.apply(mod, 0.0)

    def _group_mod(self, mod: GroupMod) -> bool:
        """Sections 6.5 and 7.3.4.2: a group takes the entries that use it along, and stays while another forwards to it."""
        if mod.command is GroupModCommand.DELETE:
            if any(mod.group_id in forwards_to(other) for other in self.groups.values()):
                return False
            self.groups.pop(mod.group_id, None)
            for row in [row for row in self.rows if mod.group_id in groups_of(row.instructions)]:
                self.remove(row)
            return True
        exists = mod.group_id in self.groups
        if exists is (mod.command is GroupModCommand.ADD) or not forwards_to(mod) <= self.groups.keys():
            return False
        self.groups[mod.group_id] = mod
        return True

    def _meter_mod(self, mod: MeterMod) -> bool:
        """Section 6.6: a meter takes the entries that use it along."""
        if mod.command is MeterModCommand.DELETE:
            self.meters.pop(mod.meter_id, None)
            for row in [row for row in self.rows if mod.meter_id in meters_of(row.instructions)]:
                self.remove(row)
            return True
        exists = mod.meter_id in self.meters
        if exists is (mod.command is MeterModCommand.ADD):
            return False
        self.meters[mod.meter_id] = mod
        return True

    @property
    def short_lived(self) -> list[Row]:
        return [row for row in self.rows if is_short_lived(row.mod)]

    def expire(self) -> None:
        """The time of all short-lived entries is over."""
        self.rows = [row for row in self.rows if not is_short_lived(row.mod)]

    # ── telling ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def messages(self) -> list[Change]:
        """What makes an empty switch have these tables."""
        groups = [
            GroupMod(GroupModCommand.ADD, mod.type, mod.group_id, mod.buckets)
            for mod in sorted(self.groups.values(), key=lambda mod: -mod.group_id)  # they forward to those with greater ids
        ]
        meters = [MeterMod(MeterModCommand.ADD, mod.flags, mod.meter_id, mod.bands) for mod in self.meters.values()]
        flows = [row.mod._replace(instructions=row.instructions) for row in self.rows]
        return [*groups, *meters, *flows]

    def pipeline(self) -> Pipeline:
        """The same for the interpreter."""
        made = Pipeline()
        for mod in self.groups.values():
            buckets = [
                group_table.Bucket(item.actions, weight=item.weight, watch_port=item.watch_port, watch_group=item.watch_group)
                for item in mod.buckets
            ]
            made.groups.add(GroupEntry(mod.group_id, group_table.GroupType(mod.type), buckets))
        for meter in self.meters.values():
            made.meters.add(MeterEntry(meter.meter_id, meter.flags, ()))
        for row in self.rows:
            made.table(row.mod.table_id).add(FlowEntry(row.mod.priority, row.mod.match, row.instructions, row.mod.cookie))
        return made


def forwards_to(mod: GroupMod) -> set[int]:
    return {action.group_id for bucket in mod.buckets for action in bucket.actions if isinstance(action, Group)}
