"""Answers to multipart requests (specification 1.3.5, section 7.3.5).

Invariant: what they promise is what flow-mods and packet-outs are held to: both read ``validate``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from appliance.model.fields import METADATA as METADATA_FIELD
from appliance.model.fields import OXM_FIELDS
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_ANY, OFPM_ALL, OFPQ_ALL, OFPTT_ALL
from appliance.openflow.errors import (
    BadRequest,
    ErrorType,
    MeterModFailed,
    ProtocolError,
    QueueOpFailed,
    TableFeaturesFailed,
)
from appliance.openflow.messages import (
    ActionsProperty,
    AggregateStats,
    AggregateStatsRequest,
    Desc,
    DescRequest,
    ExperimenterMultipart,
    FlowModFlags,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    GroupDescReply,
    GroupDescRequest,
    GroupFeatures,
    GroupFeaturesRequest,
    GroupStatsReply,
    GroupStatsRequest,
    InstructionsProperty,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeatures,
    MeterFeaturesRequest,
    MeterStatsReply,
    MeterStatsRequest,
    MultipartReplyBody,
    MultipartRequestBody,
    NextTablesProperty,
    OxmProperty,
    PortDescReply,
    PortDescRequest,
    PortStatsReply,
    PortStatsRequest,
    QueueStatsReply,
    QueueStatsRequest,
    TableFeatureProperty,
    TableFeatures,
    TableFeaturesReply,
    TableFeaturesRequest,
    TableStats,
    TableStatsReply,
    TableStatsRequest,
)
from appliance.openflow.oxm import oxm_id
from appliance.openflow.table_features import TableFeaturePropertyType as PropertyType
from appliance.pipeline.flow_table import N_TABLES, FlowEntry, FlowTable, Pipeline
from appliance.switch.duration import duration
from appliance.switch.flow_mods import MAX_ENTRIES
from appliance.switch.ports import Ports
from appliance.switch.validate import SUPPORTED_ACTIONS, SUPPORTED_INSTRUCTIONS


class Multipart:
    """Answers for one switch. Statistics are as fresh as what was stepped last."""

    def __init__(self, description: Desc, pipeline: Pipeline, ports: Ports) -> None:
        self._description = description
        self._pipeline = pipeline
        self._ports = ports

    def answer(self, request: MultipartRequestBody, now: float) -> MultipartReplyBody:
        """Raises ProtocolError for a request that has no answer."""
        match request:
            case DescRequest():
                return self._description
            case FlowStatsRequest():
                return FlowStatsReply(tuple(_flow_stats(table, entry, now) for table, entry in self._entries(request)))
            case AggregateStatsRequest():
                return _aggregate(self._entries(request))
            case TableStatsRequest():
                return TableStatsReply(tuple(self._table_stats()))
            case PortStatsRequest(port_no=number):
                return PortStatsReply(self._ports.statistics(number, now))
            case PortDescRequest():
                return PortDescReply(tuple(port.port for port in self._ports))
            case TableFeaturesRequest(tables=tables):
                if tables:
                    raise ProtocolError(ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.EPERM, "tables are as they are")
                return table_features()
            case QueueStatsRequest():
                return self._queue_stats(request)
            case _:
                return _without_groups_and_meters(request)

    def _entries(self, request: FlowStatsRequest | AggregateStatsRequest) -> Iterator[tuple[FlowTable, FlowEntry]]:
        table_id = request.table_id
        if table_id != OFPTT_ALL and not 0 <= table_id < N_TABLES:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_TABLE_ID, f"there is no table {table_id}")
        for table in self._pipeline:
            if table_id in (OFPTT_ALL, table.table_id):
                for entry in table.select(
                    request.match,
                    cookie=request.cookie,
                    cookie_mask=request.cookie_mask,
                    out_port=None if request.out_port == PortNo.ANY else request.out_port,
                    out_group=None if request.out_group == OFPG_ANY else request.out_group,
                ):
                    yield table, entry

    def _table_stats(self) -> Iterator[TableStats]:
        used = {table.table_id: table for table in self._pipeline}
        for table_id in range(N_TABLES):
            table = used.get(table_id)
            if table is None:
                yield TableStats(table_id, 0, 0, 0)
            else:
                yield TableStats(table_id, table.active_count, table.lookup_count, table.matched_count)

    def _queue_stats(self, request: QueueStatsRequest) -> QueueStatsReply:
        if request.port_no != PortNo.ANY and request.port_no not in self._ports:
            raise ProtocolError(ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT, f"there is no port {request.port_no:#x}")
        if request.queue_id != OFPQ_ALL:
            raise ProtocolError(ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_QUEUE, f"there is no queue {request.queue_id:#x}")
        return QueueStatsReply()


def _flow_stats(table: FlowTable, entry: FlowEntry, now: float) -> FlowStats:
    return FlowStats(
        table.table_id,
        *duration(entry.created_at, now),
        entry.priority,
        entry.idle_timeout,
        entry.hard_timeout,
        FlowModFlags(entry.flags),
        entry.cookie,
        entry.packet_count,
        entry.byte_count,
        entry.match,
        entry.instructions,
    )


def _aggregate(entries: Iterator[tuple[FlowTable, FlowEntry]]) -> AggregateStats:
    packets = octets = flows = 0
    for _, entry in entries:
        packets += entry.packet_count
        octets += entry.byte_count
        flows += 1
    return AggregateStats(packets, octets, flows)


def _without_groups_and_meters(request: MultipartRequestBody) -> MultipartReplyBody:
    """This switch has no groups and no meters, and says so."""
    match request:
        case GroupStatsRequest():
            return GroupStatsReply()
        case GroupDescRequest():
            return GroupDescReply()
        case GroupFeaturesRequest():
            return GroupFeatures()
        case MeterStatsRequest(meter_id=meter_id) | MeterConfigRequest(meter_id=meter_id):
            if meter_id != OFPM_ALL:
                raise ProtocolError(ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER, f"there is no meter {meter_id:#x}")
            return MeterStatsReply() if isinstance(request, MeterStatsRequest) else MeterConfigReply()
        case MeterFeaturesRequest():
            return MeterFeatures()
        case ExperimenterMultipart(experimenter=experimenter):
            raise ProtocolError(
                ErrorType.BAD_REQUEST, BadRequest.BAD_EXPERIMENTER, f"multipart request of experimenter {experimenter:#010x}"
            )
        case _:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_MULTIPART, f"multipart request {type(request).__name__}")


@cache
def table_features() -> TableFeaturesReply:
    """What flow tables can do: all the same, but that each can only go on to those behind it."""
    return TableFeaturesReply(tuple(_features(table_id) for table_id in range(N_TABLES)))


def _features(table_id: int) -> TableFeatures:
    metadata = METADATA_FIELD.max
    later = NextTablesProperty(PropertyType.NEXT_TABLES, tuple(range(table_id + 1, N_TABLES)))
    return TableFeatures(table_id, f"table {table_id}", metadata, metadata, 0, MAX_ENTRIES, (later, *_common_properties()))


@cache
def _common_properties() -> tuple[TableFeatureProperty, ...]:
    actions = tuple(SUPPORTED_ACTIONS.values())
    settable = tuple(oxm_id(field) for field in OXM_FIELDS if field.settable)
    fields = tuple(oxm_id(field, field.maskable) for field in OXM_FIELDS)
    wildcards = tuple(oxm_id(field) for field in OXM_FIELDS)
    return (
        InstructionsProperty(PropertyType.INSTRUCTIONS, tuple(SUPPORTED_INSTRUCTIONS.values())),
        ActionsProperty(PropertyType.WRITE_ACTIONS, actions),
        ActionsProperty(PropertyType.APPLY_ACTIONS, actions),
        OxmProperty(PropertyType.MATCH, fields),
        OxmProperty(PropertyType.WILDCARDS, wildcards),
        OxmProperty(PropertyType.WRITE_SETFIELD, settable),
        OxmProperty(PropertyType.APPLY_SETFIELD, settable),
    )
