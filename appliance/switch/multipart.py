"""Answers to multipart requests (specification 1.3.5, section 7.3.5).

Invariant: an answer changes nothing (a request that would set table features is ``requests``' business).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_ANY, OFPTT_ALL
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError
from appliance.openflow.flow import flow_mod_flags
from appliance.openflow.messages import (
    AggregateStats,
    AggregateStatsRequest,
    Desc,
    DescRequest,
    ExperimenterMultipart,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    GroupDescReply,
    GroupDescRequest,
    GroupFeaturesRequest,
    GroupStatsReply,
    GroupStatsRequest,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeaturesRequest,
    MeterStatsReply,
    MeterStatsRequest,
    MultipartReplyBody,
    MultipartRequestBody,
    PortDescReply,
    PortDescRequest,
    PortStatsReply,
    PortStatsRequest,
    QueueStatsReply,
    QueueStatsRequest,
    TableFeaturesRequest,
    TableStats,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.switch.duration import nanoseconds
from appliance.switch.group_mods import GroupMods
from appliance.switch.meter_mods import MeterMods
from appliance.switch.ports import Ports
from appliance.switch.queues import Queues
from appliance.switch.tables import Tables

_AT_ONCE = 512
"""Flow entries; statistics of more are made while they are sent, so that packets need not wait until all are."""


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Of flow entries, as they are when they are asked for."""

    tables: list[tuple[int, list[FlowEntry]]]
    """Those of each table, with its id."""
    now: float

    def __len__(self) -> int:
        return sum(len(entries) for _, entries in self.tables)

    def __iter__(self) -> Iterator[FlowStats]:
        for table_id, entries in self.tables:
            yield from map(_flow_stats, repeat(table_id), entries, repeat(self.now))


class Multipart:
    """Answers for one switch. Statistics are as fresh as what was stepped last."""

    def __init__(
        self,
        description: Desc,
        pipeline: Pipeline,
        *,
        tables: Tables,
        ports: Ports,
        queues: Queues,
        groups: GroupMods,
        meters: MeterMods,
    ) -> None:
        self._description = description
        self._pipeline = pipeline
        self._tables = tables
        self._ports = ports
        self._queues = queues
        self._groups = groups
        self._meters = meters

    def answer(self, request: MultipartRequestBody, now: float) -> MultipartReplyBody:
        """Raises ProtocolError for a request that has no answer."""
        match request:
            case DescRequest():
                return self._description
            case FlowStatsRequest():
                statistics = _Statistics(list(self._entries(request)), now)
                return FlowStatsReply(tuple(statistics) if len(statistics) <= _AT_ONCE else statistics)
            case AggregateStatsRequest():
                return _aggregate(entry for _, entries in self._entries(request) for entry in entries)
            case TableStatsRequest():
                return TableStatsReply(tuple(self._table_stats()))
            case PortStatsRequest(port_no=number):
                return PortStatsReply(self._ports.statistics(number, now))
            case PortDescRequest():
                return PortDescReply(tuple(port.port for port in self._ports))
            case TableFeaturesRequest():
                return self._tables.features()
            case QueueStatsRequest(port_no=number, queue_id=queue_id):
                return QueueStatsReply(self._queues.statistics(number, queue_id, now))
            case GroupStatsRequest(group_id=group_id):
                return GroupStatsReply(self._groups.statistics(group_id, now))
            case GroupDescRequest():
                return GroupDescReply(self._groups.descriptions())
            case GroupFeaturesRequest():
                return self._groups.features()
            case MeterStatsRequest(meter_id=meter_id):
                return MeterStatsReply(self._meters.statistics(meter_id, now))
            case MeterConfigRequest(meter_id=meter_id):
                return MeterConfigReply(self._meters.configurations(meter_id))
            case MeterFeaturesRequest():
                return self._meters.features()
            case ExperimenterMultipart(experimenter=experimenter):
                raise ProtocolError(
                    ErrorType.BAD_REQUEST, BadRequest.BAD_EXPERIMENTER, f"multipart request of experimenter {experimenter:#010x}"
                )

    def _entries(self, request: FlowStatsRequest | AggregateStatsRequest) -> Iterator[tuple[int, list[FlowEntry]]]:
        """Those that are meant, by the id of their table."""
        table_id = request.table_id
        if table_id != OFPTT_ALL and table_id not in self._tables:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_TABLE_ID, f"there is no table {table_id}")
        for table in self._pipeline:
            if table_id in (OFPTT_ALL, table.table_id):
                entries = table.select(
                    request.match,
                    cookie=request.cookie,
                    cookie_mask=request.cookie_mask,
                    out_port=None if request.out_port == PortNo.ANY else request.out_port,
                    out_group=None if request.out_group == OFPG_ANY else request.out_group,
                )
                yield table.table_id, entries

    def _table_stats(self) -> Iterator[TableStats]:
        used = {table.table_id: table for table in self._pipeline}
        for table_id in self._tables:
            table = used.get(table_id)
            if table is None:
                yield TableStats(table_id, 0, 0, 0)
            else:
                yield TableStats(table_id, table.active_count, table.lookup_count, table.matched_count)


def _flow_stats(table_id: int, entry: FlowEntry, now: float) -> FlowStats:
    lasted = nanoseconds(entry.created_at, now)
    return FlowStats(
        table_id,
        lasted // 1_000_000_000,
        lasted % 1_000_000_000,
        entry.priority,
        entry.idle_timeout,
        entry.hard_timeout,
        flow_mod_flags(entry.flags),
        entry.cookie,
        entry.packet_count,
        entry.byte_count,
        entry.match,
        entry.instructions,
    )


def _aggregate(entries: Iterator[FlowEntry]) -> AggregateStats:
    packets = octets = flows = 0
    for entry in entries:
        packets += entry.packet_count
        octets += entry.byte_count
        flows += 1
    return AggregateStats(packets, octets, flows)
