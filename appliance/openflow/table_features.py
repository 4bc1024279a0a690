"""Table features: what each table can do (specification 1.3.5, section 7.3.5.5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class TableFeaturePropertyType(IntEnum):
    """OFPTFPT_*. One with _MISS is for the table-miss entry; where it is left out, the other holds for both."""

    INSTRUCTIONS = 0
    INSTRUCTIONS_MISS = 1
    NEXT_TABLES = 2
    NEXT_TABLES_MISS = 3
    WRITE_ACTIONS = 4
    WRITE_ACTIONS_MISS = 5
    APPLY_ACTIONS = 6
    APPLY_ACTIONS_MISS = 7
    MATCH = 8
    WILDCARDS = 10
    WRITE_SETFIELD = 12
    WRITE_SETFIELD_MISS = 13
    APPLY_SETFIELD = 14
    APPLY_SETFIELD_MISS = 15
    EXPERIMENTER = 0xFFFE
    EXPERIMENTER_MISS = 0xFFFF


@dataclass(frozen=True, slots=True)
class ExperimenterId:
    """An experimenter's instruction or action in a list of types."""

    experimenter: int


@dataclass(frozen=True, slots=True)
class InstructionsProperty:
    type: TableFeaturePropertyType
    instruction_ids: tuple[int | ExperimenterId, ...] = ()
    """OFPIT_* numbers."""


@dataclass(frozen=True, slots=True)
class NextTablesProperty:
    type: TableFeaturePropertyType
    table_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ActionsProperty:
    type: TableFeaturePropertyType
    action_ids: tuple[int | ExperimenterId, ...] = ()
    """OFPAT_* numbers."""


@dataclass(frozen=True, slots=True)
class OxmProperty:
    type: TableFeaturePropertyType
    oxm_ids: tuple[int, ...] = ()
    """OXM headers as 32-bit integers (``oxm.oxm_id(field, hasmask)``), of 64 bits in the experimenter's class."""


@dataclass(frozen=True, slots=True)
class ExperimenterProperty:
    type: TableFeaturePropertyType
    experimenter: int
    exp_type: int
    data: bytes = b""


TableFeatureProperty = InstructionsProperty | NextTablesProperty | ActionsProperty | OxmProperty | ExperimenterProperty


@dataclass(frozen=True, slots=True)
class TableFeatures:
    table_id: int
    name: str = ""
    metadata_match: int = 0
    metadata_write: int = 0
    config: int = 0
    max_entries: int = 0
    properties: tuple[TableFeatureProperty, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFeaturesRequest:
    """An empty request asks; one with tables would set them."""

    tables: tuple[TableFeatures, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFeaturesReply:
    tables: tuple[TableFeatures, ...] = ()
