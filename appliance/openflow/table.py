"""Tables: TableMod and table statistics (specification 1.3.5, sections 7.3.3 and 7.3.5.4)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.openflow.message import Message


@dataclass(frozen=True, slots=True)
class TableMod(Message):
    """``config`` has no meaning left in OpenFlow 1.3: OFPTC_DEPRECATED_MASK."""

    table_id: int
    config: int = 0


@dataclass(frozen=True, slots=True)
class TableStatsRequest:
    pass


@dataclass(frozen=True, slots=True)
class TableStats:
    table_id: int
    active_count: int
    lookup_count: int
    matched_count: int


@dataclass(frozen=True, slots=True)
class TableStatsReply:
    entries: tuple[TableStats, ...] = ()
