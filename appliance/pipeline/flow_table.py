"""Flow entries, flow tables, and the pipeline of tables 0 to 253 (specification 1.3.5, sections 5.1 to 5.5).

Invariant: a table holds at most one entry for each pair of match and priority, and its classifier knows the same entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from appliance.model.actions import (
    Action,
    ApplyActions,
    ClearActions,
    GotoTable,
    Group,
    Instruction,
    Meter,
    Output,
    WriteActions,
    WriteMetadata,
)
from appliance.model.match import MATCH_ALL, Match
from appliance.model.plugin import Plugin
from appliance.pipeline.classifier import Classifier
from appliance.pipeline.group_table import GroupTable
from appliance.pipeline.meter_table import MeterTable

if TYPE_CHECKING:
    from appliance.pipeline.translation import Lookup

N_TABLES = 254
"""Tables are numbered 0 to 253: 0xfe is OFPTT_MAX, never used here, and 0xff OFPTT_ALL."""

SUPPORTED_INSTRUCTIONS = frozenset({Meter, ApplyActions, ClearActions, WriteActions, WriteMetadata, GotoTable})
"""Instructions that the pipeline can run. A flow-mod with another one is refused before it becomes an entry."""


class Expiry(IntEnum):
    """Why an entry's time is over: OFPRR_*, the reason in a flow-removed message."""

    IDLE_TIMEOUT = 0
    HARD_TIMEOUT = 1


class Program(NamedTuple):
    """An entry's instructions as they came, and then in the order in which they run, whatever their order in the flow-mod."""

    instructions: tuple[Instruction, ...]
    meter_id: int | None
    apply: tuple[Action, ...]
    clear: bool
    write: tuple[Action, ...]
    metadata: int
    metadata_mask: int
    goto: int | None

    @classmethod
    def of(cls, instructions: tuple[Instruction, ...]) -> Program:
        """Entries with the same tuple share one. Raises ValueError for an instruction that is not in SUPPORTED_INSTRUCTIONS."""
        known = _programs.get(id(instructions))
        if known is not None:
            return known
        apply: tuple[Action, ...] = ()
        write: tuple[Action, ...] = ()
        clear = False
        metadata = metadata_mask = 0
        meter_id: int | None = None
        goto: int | None = None
        for instruction in instructions:
            match instruction:
                case Meter(meter_id):
                    pass
                case ApplyActions(actions):
                    apply = actions
                case ClearActions():
                    clear = True
                case WriteActions(actions):
                    write = actions
                case WriteMetadata(metadata, metadata_mask):
                    metadata &= metadata_mask
                case GotoTable(table_id):
                    goto = table_id
                case _:
                    raise ValueError(f"the pipeline has no instruction {instruction}")
        program = cls(instructions, meter_id, apply, clear, write, metadata, metadata_mask, goto)
        if len(_programs) >= _MAX_PROGRAMS:
            _programs.clear()
        _programs[id(instructions)] = program
        return program


_MAX_PROGRAMS = 1024
_programs: dict[int, Program] = {}
"""By the identity of their instructions, which they keep alive."""


class FlowEntry:
    """One flow entry. Compared and hashed by identity: an entry that is deleted and added again is another one.

    Times are seconds of the clock that the caller's ``now`` comes from; timeouts are whole seconds, 0 for none. ``flags`` are
    OFPFF_* bits. ``priority`` and ``match`` must not change while the entry is in a table; ``instructions`` may.
    """

    __slots__ = (
        "byte_count",
        "cookie",
        "created_at",
        "flags",
        "hard_timeout",
        "idle_timeout",
        "last_used",
        "match",
        "packet_count",
        "priority",
        "program",
    )

    def __init__(
        self,
        priority: int = 0,
        match: Match = MATCH_ALL,
        instructions: tuple[Instruction, ...] = (),
        cookie: int = 0,
        flags: int = 0,
        idle_timeout: int = 0,
        hard_timeout: int = 0,
        created_at: float = 0.0,
    ) -> None:
        self.priority = priority
        self.match = match
        self.program = _programs.get(id(instructions)) or Program.of(instructions)
        self.cookie = cookie
        self.flags = flags
        self.idle_timeout = idle_timeout
        self.hard_timeout = hard_timeout
        self.created_at = created_at
        self.last_used = created_at
        self.packet_count = 0
        self.byte_count = 0

    def __repr__(self) -> str:
        return f"FlowEntry(priority={self.priority}, match={self.match}, instructions={self.instructions}, cookie={self.cookie:#x})"

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """As the controller sent them. Setting them raises ValueError for one that the pipeline does not have."""
        return self.program.instructions

    @instructions.setter
    def instructions(self, instructions: tuple[Instruction, ...]) -> None:
        self.program = Program.of(instructions)

    @property
    def is_table_miss(self) -> bool:
        """Priority 0 and every packet matches (specification 1.3.5, section 5.4)."""
        return self.priority == 0 and not self.match.mask

    @property
    def deadline(self) -> float | None:
        """When the entry expires if nothing uses it until then; None for never."""
        if not self.idle_timeout and not self.hard_timeout:
            return None
        idle = self.last_used + self.idle_timeout if self.idle_timeout else None
        hard = self.created_at + self.hard_timeout if self.hard_timeout else None
        if idle is None or hard is None:
            return hard if idle is None else idle
        return min(idle, hard)

    def expired(self, now: float) -> Expiry | None:
        """Which timeout is over, if one is. The hard one is named when both are."""
        if self.hard_timeout and now >= self.created_at + self.hard_timeout:
            return Expiry.HARD_TIMEOUT
        if self.idle_timeout and now >= self.last_used + self.idle_timeout:
            return Expiry.IDLE_TIMEOUT
        return None

    def outputs_to(self, port: int) -> bool:
        """Whether an Output to this port is among its actions (``out_port`` of flow-mods and statistics)."""
        return any(isinstance(action, Output) and action.port == port for action in self._actions())

    def uses_group(self, group_id: int) -> bool:
        """Whether a Group action with this group is among its actions (``out_group``)."""
        return group_id in self.groups

    @property
    def groups(self) -> frozenset[int]:
        """Ids of the groups among its actions."""
        return frozenset(action.group_id for action in self._actions() if isinstance(action, Group))

    @property
    def meter_id(self) -> int | None:
        """The meter that its packets go through."""
        return self.program.meter_id

    def _actions(self) -> tuple[Action, ...]:
        return self.program.apply + self.program.write


class FlowTable:
    """One flow table. ``lookup_count`` and ``matched_count`` are packets, counted by ``Pipeline.count``."""

    __slots__ = ("_classifier", "_deadlines", "_sequence", "lookup", "lookup_count", "matched_count", "table_id")

    def __init__(self, table_id: int) -> None:
        self.table_id = table_id
        self.lookup_count = 0
        self.matched_count = 0
        self._classifier: Classifier[FlowEntry] = Classifier()
        self.lookup = self._classifier.lookup
        """The entry that wins for a flow key, and the bits of the key that this depends on, besides those known. Counts nothing."""
        self._deadlines: list[tuple[float, int, FlowEntry]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._classifier)

    def __contains__(self, entry: FlowEntry) -> bool:
        return self._classifier.find(entry.match, entry.priority) is entry

    def __iter__(self) -> Iterator[FlowEntry]:
        """All entries, in no particular order."""
        return iter(self._classifier)

    @property
    def active_count(self) -> int:
        """How many entries the table holds."""
        return self._classifier.size

    def is_full(self, max_entries: int) -> bool:
        return self._classifier.size >= max_entries

    def add(self, entry: FlowEntry) -> FlowEntry | None:
        """Put an entry in; returns the one with the same match and priority that it replaces. Counters are not carried over."""
        old = self._classifier.insert(entry)
        if entry.idle_timeout or entry.hard_timeout:
            deadline = entry.deadline
            assert deadline is not None
            self._sequence += 1
            heappush(self._deadlines, (deadline, self._sequence, entry))
        if old is not None:
            self._forget_deadlines()
        return old

    def remove(self, entry: FlowEntry) -> None:
        """Raises KeyError unless this very entry is in the table."""
        self._classifier.remove(entry)
        self._forget_deadlines()

    def _forget_deadlines(self) -> None:
        """Those of entries that are gone, once they are many: a table that is filled and emptied must not grow, nor one whose
        entries are sent again and again."""
        if len(self._deadlines) > 2 * len(self) + 64:
            self._deadlines = [item for item in self._deadlines if item[2] in self]
            heapify(self._deadlines)

    def find(self, match: Match, priority: int) -> FlowEntry | None:
        """The entry with exactly this match and priority (strict comparison)."""
        return self._classifier.find(match, priority)

    def with_mask(self, mask: int) -> list[FlowEntry]:
        """Entries whose matches have this mask, in the order in which the matches came; of one match the highest priority."""
        return self._classifier.with_mask(mask)

    def select(
        self,
        match: Match = MATCH_ALL,
        *,
        cookie: int = 0,
        cookie_mask: int = 0,
        out_port: int | None = None,
        out_group: int | None = None,
    ) -> list[FlowEntry]:
        """Entries in order that the request covers (non-strict): ``match`` equal or wider, cookie equal under its mask, and an
        output to ``out_port`` and a use of ``out_group`` among the actions. None for OFPP_ANY and OFPG_ANY."""
        entries: Iterable[FlowEntry] = self._classifier.covered_by(match) if match.mask else self._classifier
        if cookie_mask or out_port is not None or out_group is not None:
            entries = (
                entry
                for entry in entries
                if not (entry.cookie ^ cookie) & cookie_mask
                and (out_port is None or entry.outputs_to(out_port))
                and (out_group is None or entry.uses_group(out_group))
            )
        return _ordered(entries)

    def overlapping(self, match: Match, priority: int) -> FlowEntry | None:
        """An entry of the same priority that may match a packet that ``match`` matches too (OFPFF_CHECK_OVERLAP), if any does."""
        return next(self._classifier.overlapping(match, priority), None)

    def entries(self) -> list[FlowEntry]:
        """All entries, the highest priority first, and of one priority the oldest first."""
        return _ordered(self._classifier)

    def expiry_candidates(self, now: float) -> list[FlowEntry]:
        """Entries whose time is over as far as ``last_used`` says; they stay in the table.

        The fast path may have used one since: take its statistics, set ``last_used``, and ask ``FlowEntry.expired`` again.
        """
        candidates: dict[FlowEntry, tuple[float, int, FlowEntry]] = {}
        while self._deadlines and self._deadlines[0][0] <= now:
            _, sequence, entry = heappop(self._deadlines)
            deadline = entry.deadline
            if deadline is None or entry not in self:
                continue
            item = (deadline, sequence, entry)
            if deadline <= now:
                candidates[entry] = item
            else:
                heappush(self._deadlines, item)
        for item in candidates.values():
            heappush(self._deadlines, item)
        return list(candidates)


class Pipeline:
    """Tables 0 to 253, each made when it is first asked for; the groups, the meters, and the plug-ins that there are, by id."""

    __slots__ = ("_tables", "groups", "lookups", "meters", "plugins")

    def __init__(self, plugins: Mapping[int, Plugin] | None = None) -> None:
        self.plugins = plugins or {}
        self._tables: dict[int, FlowTable] = {}
        self.lookups: dict[int, Callable[[int, int], tuple[FlowEntry | None, int]]] = {}
        """``FlowTable.lookup`` of the tables that have been asked for. In all others nothing is found."""
        self.groups = GroupTable()
        self.meters = MeterTable()

    def table(self, table_id: int) -> FlowTable:
        """Raises ValueError if there is no table of this number."""
        table = self._tables.get(table_id)
        if table is None:
            if not 0 <= table_id < N_TABLES:
                raise ValueError(f"table {table_id}: tables are numbered 0 to {N_TABLES - 1}")
            table = self._tables[table_id] = FlowTable(table_id)
            self.lookups[table_id] = table.lookup
        return table

    def __iter__(self) -> Iterator[FlowTable]:
        """Tables that have been asked for, in order; all others are empty and have counted nothing."""
        return (table for _, table in sorted(self._tables.items()))

    def lookup(self, table_id: int, key: int, known: int = 0) -> tuple[FlowEntry | None, int]:
        """Like ``FlowTable.lookup``, without making the table."""
        table = self._tables.get(table_id)
        return (None, 0) if table is None else table.lookup(key, known)

    def count(self, lookups: Sequence[Lookup], packets: int, octets: int, now: float) -> None:
        """Count packets that went this way through the tables (``Translation.lookups``), the last of them at ``now``.

        An entry that has left its table meanwhile counts too: its flow-removed message may still be to come.
        """
        for table_id, _, _, entry in lookups:
            table = self._tables.get(table_id)
            if table is None:
                table = self.table(table_id)
            table.lookup_count += packets
            if entry is not None:
                table.matched_count += packets
                entry.packet_count += packets
                entry.byte_count += octets
                if packets and now > entry.last_used:
                    entry.last_used = now

    def group_references(self) -> Counter[int]:
        """How many flow entries and groups forward to each group, directly (``ref_count``)."""
        references = self.groups.references()
        for table in self._tables.values():
            for entry in table:
                references.update(entry.groups)
        return references

    def meter_references(self) -> Counter[int]:
        """How many flow entries use each meter (``flow_count``)."""
        return Counter(entry.meter_id for table in self._tables.values() for entry in table if entry.meter_id is not None)


def _ordered(entries: Iterable[FlowEntry]) -> list[FlowEntry]:
    by_age = sorted(entries, key=attrgetter("created_at"))
    return sorted(by_age, key=attrgetter("priority"), reverse=True)
