"""What a controller asks of the switch: each message to the part that it concerns, and the answer or the error back.

Invariant: a request that is answered by an error has changed nothing.
Source: OpenFlow Switch Specification 1.3.5, section 7.3.
"""

from __future__ import annotations

from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_MAX, OFPM_MAX, OFPTT_ALL
from appliance.openflow.errors import (
    BadRequest,
    ErrorType,
    GroupModFailed,
    MeterModFailed,
    ProtocolError,
    QueueOpFailed,
    SwitchConfigFailed,
    TableModFailed,
)
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    Capabilities,
    Error,
    Experimenter,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FragmentHandling,
    GetAsyncRequest,
    GetConfigRequest,
    GroupMod,
    GroupModCommand,
    Message,
    MeterMod,
    MeterModCommand,
    MultipartReply,
    MultipartRequest,
    PacketOut,
    PortMod,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableMod,
)
from appliance.pipeline.flow_table import N_TABLES
from appliance.switch.controllers import Controller, answer_role
from appliance.switch.effects import Effect, SendMessage, SyncDatapath
from appliance.switch.fast_path import FastPath
from appliance.switch.flow_mods import FlowMods
from appliance.switch.multipart import Multipart
from appliance.switch.packet_io import PacketIo
from appliance.switch.port_changes import PortChanges
from appliance.switch.ports import Ports

CAPABILITIES = Capabilities.FLOW_STATS | Capabilities.TABLE_STATS | Capabilities.PORT_STATS
_TABLE_CONFIG = 3
"""OFPTC_DEPRECATED_MASK: bits that may be set and mean nothing."""
_QUOTED_BYTES = 64
"""Of a message, in the error about it."""


class Requests:
    """The controllers' requests to one switch."""

    def __init__(
        self,
        datapath_id: int,
        *,
        flow_mods: FlowMods,
        packets: PacketIo,
        ports: Ports,
        port_changes: PortChanges,
        fast_path: FastPath,
        multipart: Multipart,
    ) -> None:
        self._datapath_id = datapath_id
        self._flow_mods = flow_mods
        self._packets = packets
        self._ports = ports
        self._port_changes = port_changes
        self._fast_path = fast_path
        self._multipart = multipart

    def handle(self, controller: Controller, message: Message, raw: bytes, now: float) -> list[Effect]:
        """Whatever a message that could be decoded asks for. ``raw`` is its bytes, which an error quotes."""
        try:
            return self._request(controller, message, now)
        except ProtocolError as error:
            quoted = (error.data or raw)[:_QUOTED_BYTES]
            return [SendMessage(controller.connection, Error(error.type, error.code, quoted, xid=message.xid))]

    def _request(self, controller: Controller, message: Message, now: float) -> list[Effect]:
        """Raises ProtocolError, having changed nothing."""
        match message:
            case FlowMod():
                self._flow_mods.apply(message, now)
                return []
            case PacketOut():
                return self._packets.packet_out(message, now)
            case PortMod():
                return self._port_changes.announce(self._ports.configure(message), now)
            case BarrierRequest(xid=xid):
                sync: list[Effect] = [SyncDatapath()] if self._fast_path.unsynced else []
                self._fast_path.unsynced = False
                return [*sync, SendMessage(controller.connection, BarrierReply(xid=xid))]
            case SetConfig(flags=flags, miss_send_len=length):
                if flags != FragmentHandling.NORMAL:
                    raise ProtocolError(
                        ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_FLAGS, f"fragments are not treated apart: {flags!r}"
                    )
                controller.miss_send_len = length
                return []
            case SetAsync():
                controller.set_asynchronous(message)
                return []
            case GroupMod():
                _check_group_mod(message)
                return []
            case MeterMod():
                _check_meter_mod(message)
                return []
            case TableMod():
                _check_table_mod(message)
                return []
            case Error():
                return []  # about a message of ours: there is nothing to answer
            case _:
                return [SendMessage(controller.connection, self._answer(controller, message, now))]

    def _answer(self, controller: Controller, request: Message, now: float) -> Message:
        """To requests that change nothing."""
        xid = request.xid
        match request:
            case FeaturesRequest():
                return FeaturesReply(self._datapath_id, 0, N_TABLES, 0, int(CAPABILITIES), xid=xid)
            case GetConfigRequest():
                return controller.config(xid)
            case MultipartRequest(body=body):
                return MultipartReply(self._multipart.answer(body, now), xid=xid)
            case RoleRequest():
                return answer_role(request)
            case GetAsyncRequest():
                return controller.asynchronous(xid)
            case QueueGetConfigRequest(port=port):
                if port != PortNo.ANY and port not in self._ports:
                    raise ProtocolError(ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT, f"there is no port {port:#x}")
                return QueueGetConfigReply(port, xid=xid)
            case Experimenter(experimenter=experimenter):
                raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_EXPERIMENTER, f"experimenter {experimenter:#010x}")
            case _:
                raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE, f"{type(request).__name__} is not for a switch")


def _check_group_mod(mod: GroupMod) -> None:
    """There are no groups and no room for any; to delete what is not there is no error (section 6.5)."""
    if mod.command == GroupModCommand.ADD:
        if mod.group_id > OFPG_MAX:
            raise ProtocolError(ErrorType.GROUP_MOD_FAILED, GroupModFailed.INVALID_GROUP, f"group {mod.group_id:#x}")
        raise ProtocolError(ErrorType.GROUP_MOD_FAILED, GroupModFailed.OUT_OF_GROUPS, "groups are not supported")
    if mod.command == GroupModCommand.MODIFY:
        raise ProtocolError(ErrorType.GROUP_MOD_FAILED, GroupModFailed.UNKNOWN_GROUP, f"there is no group {mod.group_id:#x}")


def _check_meter_mod(mod: MeterMod) -> None:
    """There are no meters and no room for any; to delete what is not there is no error (section 6.6)."""
    if mod.command == MeterModCommand.ADD:
        if not 1 <= mod.meter_id <= OFPM_MAX:
            raise ProtocolError(ErrorType.METER_MOD_FAILED, MeterModFailed.INVALID_METER, f"meter {mod.meter_id:#x}")
        raise ProtocolError(ErrorType.METER_MOD_FAILED, MeterModFailed.OUT_OF_METERS, "meters are not supported")
    if mod.command == MeterModCommand.MODIFY:
        raise ProtocolError(ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER, f"there is no meter {mod.meter_id:#x}")


def _check_table_mod(mod: TableMod) -> None:
    """Nothing about a table can be configured in OpenFlow 1.3."""
    if mod.table_id != OFPTT_ALL and not 0 <= mod.table_id < N_TABLES:
        raise ProtocolError(ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_TABLE, f"there is no table {mod.table_id}")
    if mod.config & ~_TABLE_CONFIG:
        raise ProtocolError(ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_CONFIG, f"configuration {mod.config:#x}")
