"""OFPT_FLOW_MOD and timeouts: how the entries of the flow tables come and go (specification 1.3.5, sections 5.5, 6.4 and 7.3.4.1).

Invariant: a flow-mod is done as a whole or refused as a whole, and the live megaflows are told of every change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_ANY, OFPTT_ALL
from appliance.openflow.errors import ErrorType, FlowModFailed, ProtocolError
from appliance.openflow.messages import FlowMod, FlowModCommand, FlowModFlags, FlowRemoved, FlowRemovedReason
from appliance.pipeline.flow_table import Expiry, FlowEntry, FlowTable, Pipeline
from appliance.switch.duration import duration
from appliance.switch.megaflows import Megaflows
from appliance.switch.tables import Tables
from appliance.switch.validate import Validator

# IntFlag members as plain integers: an operation on IntFlag costs a microsecond.
_SEND_FLOW_REM = FlowModFlags.SEND_FLOW_REM.value
_CHECK_OVERLAP = FlowModFlags.CHECK_OVERLAP.value
_RESET_COUNTS = FlowModFlags.RESET_COUNTS.value
_UNKNOWN_FLAGS = ~sum(flag.value for flag in FlowModFlags)
_ADD = FlowModCommand.ADD
DELETES = (FlowModCommand.DELETE, FlowModCommand.DELETE_STRICT)
_STRICT = (FlowModCommand.MODIFY_STRICT, FlowModCommand.DELETE_STRICT)


class _RemovedEntry(NamedTuple):
    """An entry whose controllers want to know that it has gone, and why and when (seconds) it went."""

    table_id: int
    entry: FlowEntry
    reason: FlowRemovedReason
    at: float

    def message(self) -> FlowRemoved:
        """With its counters as they are now."""
        entry = self.entry
        return FlowRemoved(
            entry.cookie,
            entry.priority,
            self.reason,
            self.table_id,
            *duration(entry.created_at, self.at),
            entry.idle_timeout,
            entry.hard_timeout,
            entry.packet_count,
            entry.byte_count,
            entry.match,
        )


class FlowMods:
    """Changes the tables of a pipeline and keeps its megaflows told."""

    def __init__(self, pipeline: Pipeline, megaflows: Megaflows, tables: Tables, validator: Validator) -> None:
        self._pipeline = pipeline
        self._megaflows = megaflows
        self._tables = tables
        self._validator = validator
        self.removed: list[_RemovedEntry] = []
        """Of which no controller has been told yet."""

    def apply(self, mod: FlowMod, now: float) -> None:
        """Do it. Raises ProtocolError, having changed nothing."""
        flags = int(mod.flags)
        if flags & _UNKNOWN_FLAGS:
            raise _failed(FlowModFailed.BAD_FLAGS, f"flags {flags:#x}")
        if mod.command in DELETES:
            self._delete(mod, now)
            return
        table_id = mod.table_id
        limits = self._tables.limits.get(table_id)
        if limits is None:
            raise _failed(FlowModFailed.BAD_TABLE_ID, f"there is no table {table_id}")
        self._validator.check_instructions(mod.instructions, mod.match, table_id)
        if table_id in self._tables.narrowed:
            limits.check(mod.priority, mod.match, mod.instructions)
        if mod.command == _ADD:
            self._add(mod, flags, limits.max_entries, now)
        else:
            self._modify(mod, flags)

    def _add(self, mod: FlowMod, flags: int, max_entries: int, now: float) -> None:
        table = self._pipeline.table(mod.table_id)
        if flags & _CHECK_OVERLAP and table.overlapping(mod.match, mod.priority) is not None:
            raise _failed(FlowModFailed.OVERLAP, f"an entry of priority {mod.priority} in table {mod.table_id} overlaps")
        if table.is_full(max_entries) and table.find(mod.match, mod.priority) is None:
            raise _failed(FlowModFailed.TABLE_FULL, f"table {mod.table_id} has {len(table)} entries")
        # By position: with names it would take twice as long.
        entry = FlowEntry(mod.priority, mod.match, mod.instructions, mod.cookie, flags, mod.idle_timeout, mod.hard_timeout, now)
        old = table.add(entry)
        if old is not None:
            self._megaflows.entry_changed(old)
            if not flags & _RESET_COUNTS:
                entry.packet_count, entry.byte_count = old.packet_count, old.byte_count
                self._megaflows.inherit(old, entry)
        self._megaflows.entry_added(mod.table_id, entry)

    def _modify(self, mod: FlowMod, flags: int) -> None:
        table = self._pipeline.table(mod.table_id)
        for entry in self._covered(table, mod):
            if flags & _RESET_COUNTS:
                entry.packet_count = entry.byte_count = 0
            if entry.instructions != mod.instructions:
                entry.instructions = mod.instructions
                self._megaflows.entry_changed(entry)

    def _delete(self, mod: FlowMod, now: float) -> None:
        if mod.table_id == OFPTT_ALL:
            tables = list(self._pipeline)
        elif mod.table_id in self._tables:
            tables = [self._pipeline.table(mod.table_id)]
        else:
            raise _failed(FlowModFailed.BAD_TABLE_ID, f"there is no table {mod.table_id}")
        for table in tables:
            for entry in self._covered(table, mod):
                self._remove(table, entry, FlowRemovedReason.DELETE, now)

    def _covered(self, table: FlowTable, mod: FlowMod) -> list[FlowEntry]:
        """The entries that a modify or a delete means."""
        out_port = out_group = None
        if mod.command in DELETES:
            out_port = None if mod.out_port == PortNo.ANY else mod.out_port
            out_group = None if mod.out_group == OFPG_ANY else mod.out_group
        if mod.command not in _STRICT:
            return table.select(mod.match, cookie=mod.cookie, cookie_mask=mod.cookie_mask, out_port=out_port, out_group=out_group)
        entry = table.find(mod.match, mod.priority)
        if (
            entry is None
            or (entry.cookie ^ mod.cookie) & mod.cookie_mask
            or (out_port is not None and not entry.outputs_to(out_port))
            or (out_group is not None and not entry.uses_group(out_group))
        ):
            return []
        return [entry]

    def _remove(self, table: FlowTable, entry: FlowEntry, reason: FlowRemovedReason, now: float) -> None:
        table.remove(entry)
        self._megaflows.entry_changed(entry)
        if entry.flags & _SEND_FLOW_REM:
            self.removed.append(_RemovedEntry(table.table_id, entry, reason, now))

    def remove_where(self, fits: Callable[[FlowEntry], bool], reason: FlowRemovedReason, now: float) -> None:
        """Remove every entry that fits."""
        for table in self._pipeline:
            for entry in [entry for entry in table if fits(entry)]:
                self._remove(table, entry, reason, now)

    def empty(self, table_id: int) -> None:
        """Take out all entries of a table, of which no controller is told."""
        table = self._pipeline.table(table_id)
        for entry in list(table):
            table.remove(entry)
            self._megaflows.entry_changed(entry)

    def may_expire(self, now: float) -> list[FlowEntry]:
        """Entries whose idle time may be over: only fresh statistics can tell."""
        candidates = (entry for table in self._pipeline for entry in table.expiry_candidates(now))
        return [entry for entry in candidates if entry.expired(now) is Expiry.IDLE_TIMEOUT]

    def expire(self, now: float) -> None:
        """Take out entries whose time is over, as far as has been counted."""
        for table in self._pipeline:
            for entry in table.expiry_candidates(now):
                expiry = entry.expired(now)
                if expiry is not None:
                    self._remove(table, entry, FlowRemovedReason(expiry), now)

    def flow_removed(self) -> Iterator[FlowRemoved]:
        """The messages about entries that have gone and had OFPFF_SEND_FLOW_REM, once nothing more can be counted for them."""
        waiting = []
        for removed in self.removed:
            if self._megaflows.owes(removed.entry):
                waiting.append(removed)
            else:
                yield removed.message()
        self.removed = waiting


def _failed(code: FlowModFailed, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.FLOW_MOD_FAILED, code, reason)
