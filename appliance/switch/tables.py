"""The flow tables that there are and what each can do: OFPMP_TABLE_FEATURES, read and written (specification 1.3.5, 7.3.5.5).

A controller may take tables out of the pipeline and say what it needs of the others. A table can then do what was asked for and no
more; where a request leaves a property out, or an entry count 0, it asks for nothing in particular and gets all there is.

Invariant: what is told of a table is what flow-mods are held to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from appliance.model.actions import (
    Action,
    ApplyActions,
    ExperimenterAction,
    ExperimenterInstruction,
    GotoTable,
    Instruction,
    SetField,
    WriteActions,
    WriteMetadata,
)
from appliance.model.fields import MATCH_FIELDS, METADATA, Field
from appliance.model.match import Match
from appliance.openflow.errors import (
    BadAction,
    BadInstruction,
    BadMatch,
    ErrorType,
    ProtocolError,
    TableFeaturesFailed,
)
from appliance.openflow.messages import (
    ActionsProperty,
    ExperimenterId,
    ExperimenterProperty,
    InstructionsProperty,
    NextTablesProperty,
    OxmProperty,
    TableFeatureProperty,
    TableFeatures,
    TableFeaturesReply,
)
from appliance.openflow.oxm import oxm_id
from appliance.openflow.table import OFPTC_DEPRECATED_MASK
from appliance.openflow.table_features import TableFeaturePropertyType as PropertyType
from appliance.pipeline.flow_table import N_TABLES
from appliance.switch.validate import SUPPORTED_ACTIONS, SUPPORTED_INSTRUCTIONS

MAX_ENTRIES = 1 << 20
"""Of one table."""

_INSTRUCTIONS = tuple(sorted(SUPPORTED_INSTRUCTIONS.values()))
_ACTIONS = tuple(sorted(SUPPORTED_ACTIONS.values()))
_SETTABLE = tuple(oxm_id(field) for field in MATCH_FIELDS if field.settable)
_MATCHED = tuple(oxm_id(field, field.maskable) for field in MATCH_FIELDS)
_WILDCARDS = tuple(oxm_id(field) for field in MATCH_FIELDS)
_MASKS = {oxm_id(field): oxm_id(field, True) for field in MATCH_FIELDS if field.maskable}
"""For each field that can be masked, its OXM header without a mask and with one."""
_UNMASKED = {masked: header for header, masked in _MASKS.items()}
_LENGTHS = 0xFF
_WITHOUT_LENGTH = {header & ~_LENGTHS: header for header in (*_WILDCARDS, *_MASKS.values())}
"""OXM headers as Ryu sends them in tables' features: with the length 0."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an entry may do: numbers as in the properties of these names, ascending or in the order of MATCH_FIELDS."""

    instructions: tuple[int, ...]
    next_tables: tuple[int, ...]
    write_actions: tuple[int, ...] = _ACTIONS
    apply_actions: tuple[int, ...] = _ACTIONS
    write_setfield: tuple[int, ...] = _SETTABLE
    apply_setfield: tuple[int, ...] = _SETTABLE


@dataclass(frozen=True, slots=True)
class TableLimits:
    """What one table can do. ``miss`` is for its table-miss entry, ``entries`` for all others."""

    entries: Abilities
    miss: Abilities
    matched: tuple[int, ...] = _MATCHED
    """OXM headers; those with the mask bit may come with a mask."""
    wildcards: tuple[int, ...] = _WILDCARDS
    """OXM headers without a mask of the fields that may be left out."""
    metadata_match: int = METADATA.max
    metadata_write: int = METADATA.max
    max_entries: int = MAX_ENTRIES

    def check(self, priority: int, match: Match, instructions: Iterable[Instruction]) -> None:
        """Raises ProtocolError unless the table can have such an entry."""
        is_miss = priority == 0 and not match.mask
        if not is_miss:
            _check_match(match, self)
        _check_instructions(instructions, self.miss if is_miss else self.entries, self.metadata_write)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the pipeline. ``config`` is OFPTC_DEPRECATED_MASK bits, which mean nothing."""

    name: str
    limits: TableLimits
    config: int = 0


_NAMES: dict[int, tuple[str, bool]] = {
    # Property: the name in Abilities, and whether it is for the table-miss entry.
    PropertyType.INSTRUCTIONS: ("instructions", False),
    PropertyType.INSTRUCTIONS_MISS: ("instructions", True),
    PropertyType.NEXT_TABLES: ("next_tables", False),
    PropertyType.NEXT_TABLES_MISS: ("next_tables", True),
    PropertyType.WRITE_ACTIONS: ("write_actions", False),
    PropertyType.WRITE_ACTIONS_MISS: ("write_actions", True),
    PropertyType.APPLY_ACTIONS: ("apply_actions", False),
    PropertyType.APPLY_ACTIONS_MISS: ("apply_actions", True),
    PropertyType.WRITE_SETFIELD: ("write_setfield", False),
    PropertyType.WRITE_SETFIELD_MISS: ("write_setfield", True),
    PropertyType.APPLY_SETFIELD: ("apply_setfield", False),
    PropertyType.APPLY_SETFIELD_MISS: ("apply_setfield", True),
}


@cache
def _all_there_is(table_id: int, table_ids: frozenset[int]) -> TableLimits:
    """What a table can do in a pipeline of these tables: each can only go on to those behind it."""
    later = tuple(sorted(number for number in table_ids if number > table_id))
    instructions = _INSTRUCTIONS if later else tuple(kind for kind in _INSTRUCTIONS if kind != SUPPORTED_INSTRUCTIONS[GotoTable])
    abilities = Abilities(instructions, later)
    return TableLimits(abilities, abilities)


class Tables:
    """The tables of one switch."""

    def __init__(self) -> None:
        ids = frozenset(range(N_TABLES))
        self._tables = {number: Table(f"table {number}", _all_there_is(number, ids)) for number in sorted(ids)}
        self.limits = {number: table.limits for number, table in self._tables.items()}
        """What each table can do, by its number."""
        self.narrowed: frozenset[int] = frozenset()
        """Tables that can do less than all there is: what is for them must be checked."""
        self._reply: TableFeaturesReply | None = None

    def __contains__(self, table_id: int) -> bool:
        return table_id in self._tables

    def __iter__(self) -> Iterator[int]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    # ── configuration ──────────────────────────────────────────────────────────────────────────────────────────────────
    def set_config(self, table_ids: Iterable[int], config: int) -> None:
        """OFPT_TABLE_MOD of tables that there are."""
        for table_id in table_ids:
            self._tables[table_id] = replace(self._tables[table_id], config=config)
        self._reply = None

    def features(self) -> TableFeaturesReply:
        if self._reply is None:
            self._reply = TableFeaturesReply(tuple(_features(number, table) for number, table in self._tables.items()))
        return self._reply

    def configure(self, wanted: tuple[TableFeatures, ...]) -> list[int]:
        """Have just these tables, as they are described. Raises TABLE_FEATURES_FAILED, having changed nothing.

        Returns the tables that are to be emptied: those that have gone and those that can do other things than before.
        """
        ids = frozenset(item.table_id for item in wanted)
        if len(ids) < len(wanted) or 0 not in ids or max(ids) >= N_TABLES:
            raise _failed(TableFeaturesFailed.BAD_TABLE, "tables are numbered 0 to 253, each is named once, and packets start in 0")
        tables = {item.table_id: _table(item, ids) for item in sorted(wanted, key=lambda item: item.table_id)}
        before = self._tables
        self._tables = tables
        self.limits = {number: table.limits for number, table in tables.items()}
        there_is = frozenset(range(N_TABLES))
        self.narrowed = frozenset(number for number, limits in self.limits.items() if limits != _all_there_is(number, there_is))
        self._reply = None
        return [number for number, table in before.items() if number not in tables or tables[number].limits != table.limits]


def _failed(code: TableFeaturesFailed, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.TABLE_FEATURES_FAILED, code, reason)


# ── telling ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _features(table_id: int, table: Table) -> TableFeatures:
    limits = table.limits
    properties = [
        _property(kind, getattr(limits.miss if is_miss else limits.entries, name))
        for kind, (name, is_miss) in _NAMES.items()
        if not is_miss or getattr(limits.miss, name) != getattr(limits.entries, name)
    ]
    properties.append(OxmProperty(PropertyType.MATCH, limits.matched))
    properties.append(OxmProperty(PropertyType.WILDCARDS, limits.wildcards))
    return TableFeatures(
        table_id,
        table.name,
        limits.metadata_match,
        limits.metadata_write,
        table.config,
        limits.max_entries,
        tuple(sorted(properties, key=lambda item: item.type)),
    )


def _property(kind: int, ids: tuple[int, ...]) -> TableFeatureProperty:
    type_ = PropertyType(kind)
    name = _NAMES[kind][0]
    if name == "instructions":
        return InstructionsProperty(type_, ids)
    if name == "next_tables":
        return NextTablesProperty(type_, ids)
    return ActionsProperty(type_, ids) if name.endswith("actions") else OxmProperty(type_, ids)


# ── being told ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _table(wanted: TableFeatures, table_ids: frozenset[int]) -> Table:
    """Raises TABLE_FEATURES_FAILED."""
    if wanted.config & ~OFPTC_DEPRECATED_MASK:
        raise _failed(TableFeaturesFailed.BAD_ARGUMENT, f"configuration {wanted.config:#x}")
    if wanted.max_entries > MAX_ENTRIES:
        raise _failed(TableFeaturesFailed.BAD_ARGUMENT, f"{wanted.max_entries} entries, a table holds {MAX_ENTRIES}")
    there_is = _all_there_is(wanted.table_id, table_ids)
    abilities: dict[str, tuple[int, ...]] = {}
    for_miss: dict[str, tuple[int, ...]] = {}
    rest: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()
    for item in wanted.properties:
        if item.type in seen or isinstance(item, ExperimenterProperty):
            raise _failed(TableFeaturesFailed.BAD_TYPE, f"property {item.type.name} again, or an experimenter's")
        seen.add(item.type)
        ids = _ids(item)
        if item.type is PropertyType.MATCH:
            rest["matched"] = _matched(ids)
        elif item.type is PropertyType.WILDCARDS:
            # They are to be a subset of MATCH: a mask bit there is as good here, and means nothing.
            rest["wildcards"] = _among(_WILDCARDS, tuple(_UNMASKED.get(header, header) for header in ids), item)
        else:
            name, is_miss = _NAMES[item.type]
            (for_miss if is_miss else abilities)[name] = _among(getattr(there_is.entries, name), ids, item)
    entries = replace(there_is.entries, **abilities)
    limits = replace(
        there_is,
        entries=entries,
        miss=replace(entries, **for_miss),
        metadata_match=wanted.metadata_match,
        metadata_write=wanted.metadata_write,
        max_entries=wanted.max_entries or MAX_ENTRIES,
        **rest,
    )
    return Table(wanted.name, limits, wanted.config)


def _ids(item: TableFeatureProperty) -> tuple[int, ...]:
    match item:
        case InstructionsProperty(_, ids) | ActionsProperty(_, ids):
            if any(isinstance(number, ExperimenterId) for number in ids):
                raise _failed(TableFeaturesFailed.BAD_ARGUMENT, f"{item.type.name} of an experimenter")
            return tuple(number for number in ids if not isinstance(number, ExperimenterId))
        case NextTablesProperty(_, ids):
            return ids
        case OxmProperty(_, ids):
            return tuple(_WITHOUT_LENGTH.get(header, header) for header in ids)
        case ExperimenterProperty():
            return ()


def _among(there_is: tuple[int, ...], wanted: tuple[int, ...], item: TableFeatureProperty) -> tuple[int, ...]:
    """Those wanted, in the order in which there are. Raises BAD_ARGUMENT for one that there is not."""
    unknown = set(wanted).difference(there_is)
    if unknown:
        raise _failed(
            TableFeaturesFailed.BAD_ARGUMENT, f"{item.type.name}: {', '.join(f'{number:#x}' for number in sorted(unknown))}"
        )
    return tuple(number for number in there_is if number in wanted)


def _matched(wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Each field as it is wanted: with the mask bit, or without."""
    plain = {header: oxm for oxm in _WILDCARDS for header in (oxm, _MASKS.get(oxm, oxm))}
    masked = set(wanted).intersection(_MASKS.values())
    unknown = set(wanted).difference(plain)
    if unknown:
        raise _failed(TableFeaturesFailed.BAD_ARGUMENT, f"MATCH: {', '.join(f'{number:#x}' for number in sorted(unknown))}")
    fields = {plain[header] for header in wanted}
    return tuple(_MASKS[oxm] if _MASKS.get(oxm) in masked else oxm for oxm in _WILDCARDS if oxm in fields)


# ── holding flow-mods to it ────────────────────────────────────────────────────────────────────────────────────────────
def _bad_match(code: BadMatch, field: Field) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_MATCH, code, f"{field.name} in this table")


def _check_match(match: Match, limits: TableLimits) -> None:
    for item in match.fields:
        field = item.field
        masks = oxm_id(field, True) in limits.matched if field.maskable else False
        if not masks and oxm_id(field) not in limits.matched:
            raise _bad_match(BadMatch.BAD_FIELD, field)
        bits = field.max if item.mask is None else item.mask
        if (item.mask is not None and not masks) or (field is METADATA and bits & ~limits.metadata_match):
            raise _bad_match(BadMatch.BAD_MASK, field)
    present = {item.field for item in match.fields}
    for field in MATCH_FIELDS:
        if field not in present and oxm_id(field) not in limits.wildcards and _is_matched(field, limits):
            raise _bad_match(BadMatch.BAD_WILDCARDS, field)


def _is_matched(field: Field, limits: TableLimits) -> bool:
    return oxm_id(field) in limits.matched or (field.maskable and oxm_id(field, True) in limits.matched)


def _check_instructions(instructions: Iterable[Instruction], abilities: Abilities, metadata_write: int) -> None:
    def fault(code: BadInstruction, reason: str) -> ProtocolError:
        return ProtocolError(ErrorType.BAD_INSTRUCTION, code, f"{reason} in this table")

    for instruction in instructions:
        kind = type(instruction)
        if kind is ExperimenterInstruction or SUPPORTED_INSTRUCTIONS[kind] not in abilities.instructions:
            raise fault(BadInstruction.UNSUP_INST, kind.__name__)
        match instruction:
            case GotoTable(table_id) if table_id not in abilities.next_tables:
                raise fault(BadInstruction.BAD_TABLE_ID, f"go to table {table_id}")
            case WriteMetadata(metadata, mask):
                if mask & ~metadata_write:
                    raise fault(BadInstruction.UNSUP_METADATA_MASK, f"metadata mask {mask:#x}")
                if metadata & ~metadata_write:
                    raise fault(BadInstruction.UNSUP_METADATA, f"metadata {metadata:#x}")
            case ApplyActions(actions):
                _check_actions(actions, abilities.apply_actions, abilities.apply_setfield)
            case WriteActions(actions):
                _check_actions(actions, abilities.write_actions, abilities.write_setfield)
            case _:
                pass


def _check_actions(actions: Iterable[Action], kinds: tuple[int, ...], settable: tuple[int, ...]) -> None:
    for action in actions:
        kind = type(action)
        if kind is ExperimenterAction or SUPPORTED_ACTIONS[kind] not in kinds:
            raise ProtocolError(ErrorType.BAD_ACTION, BadAction.BAD_TYPE, f"{kind.__name__} in this table")
        if isinstance(action, SetField) and oxm_id(action.field) not in settable:
            raise ProtocolError(ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE, f"set {action.field.name} in this table")
