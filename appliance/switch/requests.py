"""What a controller asks of the switch: each message to the part that it concerns, and the answer or the error back.

Invariant: a request that is answered by an error has changed nothing.
Source: OpenFlow Switch Specification 1.3.5, section 7.3.
"""

from __future__ import annotations

from appliance.model.actions import OFP_NO_BUFFER
from appliance.openflow.constants import OFPTT_ALL
from appliance.openflow.errors import (
    BadRequest,
    ErrorType,
    ProtocolError,
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
    GetConfigReply,
    GetConfigRequest,
    GroupMod,
    Message,
    MeterMod,
    MultipartReply,
    MultipartRequest,
    PacketOut,
    PortMod,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    Role,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableFeaturesRequest,
    TableMod,
)
from appliance.openflow.table import OFPTC_DEPRECATED_MASK
from appliance.switch.controllers import Controller, Controllers, check_slave_may
from appliance.switch.effects import Effect, SendMessage
from appliance.switch.fast_path import FastPath
from appliance.switch.flow_mods import DELETES, FlowMods
from appliance.switch.group_mods import GroupMods
from appliance.switch.meter_mods import MeterMods
from appliance.switch.multipart import Multipart
from appliance.switch.packet_buffers import N_BUFFERS
from appliance.switch.packet_io import PacketIo
from appliance.switch.port_changes import PortChanges
from appliance.switch.ports import Ports
from appliance.switch.queues import Queues
from appliance.switch.tables import Tables

CAPABILITIES = (
    Capabilities.FLOW_STATS
    | Capabilities.TABLE_STATS
    | Capabilities.PORT_STATS
    | Capabilities.GROUP_STATS
    | Capabilities.QUEUE_STATS
)
_SLAVE = Role.SLAVE
_QUOTED_BYTES = 64
"""Of a message, in the error about it."""


class Requests:
    """The controllers' requests to one switch."""

    def __init__(
        self,
        datapath_id: int,
        *,
        controllers: Controllers,
        tables: Tables,
        flow_mods: FlowMods,
        groups: GroupMods,
        meters: MeterMods,
        packets: PacketIo,
        ports: Ports,
        port_changes: PortChanges,
        queues: Queues,
        fast_path: FastPath,
        multipart: Multipart,
    ) -> None:
        self._datapath_id = datapath_id
        self._controllers = controllers
        self._queues = queues
        self._tables = tables
        self._flow_mods = flow_mods
        self._groups = groups
        self._meters = meters
        self._packets = packets
        self._ports = ports
        self._port_changes = port_changes
        self._fast_path = fast_path
        self._multipart = multipart

    def handle(self, connection: int, message: Message, raw: bytes, now: float) -> list[Effect]:
        """Whatever a message that could be decoded asks for. ``raw`` is its bytes, which an error quotes.

        Nothing for a connection that is not (any more) a controller's.
        """
        controller = self._controllers.get(connection)
        if controller is None:
            return []
        try:
            if controller.role is _SLAVE:
                check_slave_may(message)
            if isinstance(message, FlowMod):  # as most are
                if message.buffer_id == OFP_NO_BUFFER or message.command in DELETES:
                    self._flow_mods.apply(message, now)
                    return []
                return self._flow_mod_with_packet(controller, message, now)
            if isinstance(message, BarrierRequest):
                return [SendMessage(connection, BarrierReply(xid=message.xid))]
            return self._request(controller, connection, message, now)
        except ProtocolError as error:
            quoted = (error.data or raw)[:_QUOTED_BYTES]
            return [SendMessage(connection, Error(error.type, error.code, quoted, xid=message.xid))]

    def _request(self, controller: Controller, connection: int, message: Message, now: float) -> list[Effect]:
        """Raises ProtocolError, having changed nothing."""
        match message:
            case PacketOut():
                return self._packets.packet_out(controller.buffers, message, now)
            case PortMod():
                return self._port_changes.configure(message, now)
            case SetConfig():
                return self._set_config(controller, message)
            case SetAsync():
                controller.set_asynchronous(message)
                return []
            case GroupMod():
                self._groups.apply(message, now)
                return []
            case MeterMod():
                return self._meters.apply(message, now, lambda: self._fast_path.revalidate(now))
            case TableMod():
                self._table_mod(message)
                return []
            case MultipartRequest(body=TableFeaturesRequest(tables=tables), xid=xid) if tables:
                for table_id in self._tables.configure(tables):
                    self._flow_mods.empty(table_id)
                return [SendMessage(connection, MultipartReply(self._tables.features(), xid=xid))]
            case Error():
                return []  # about a message of ours: there is nothing to answer
            case _:
                return [SendMessage(connection, self._answer(controller, connection, message, now))]

    def _flow_mod_with_packet(self, controller: Controller, mod: FlowMod, now: float) -> list[Effect]:
        """The packet that it names then goes through the tables as they are now (section 7.3.4.1)."""
        packet = controller.buffers.find(mod.buffer_id)
        self._flow_mods.apply(mod, now)
        controller.buffers.release(mod.buffer_id)
        return self._packets.submit(packet, now)

    def _table_mod(self, mod: TableMod) -> None:
        """Bits that may be set and mean nothing are all that can be configured in OpenFlow 1.3."""
        if mod.table_id != OFPTT_ALL and mod.table_id not in self._tables:
            raise ProtocolError(ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_TABLE, f"there is no table {mod.table_id}")
        if mod.config & ~OFPTC_DEPRECATED_MASK:
            raise ProtocolError(ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_CONFIG, f"configuration {mod.config:#x}")
        self._tables.set_config(tuple(self._tables) if mod.table_id == OFPTT_ALL else (mod.table_id,), mod.config)

    def _set_config(self, controller: Controller, config: SetConfig) -> list[Effect]:
        """Fragments are treated alike for all controllers; how much of a packet each one gets is its own affair."""
        if config.flags is FragmentHandling.REASM:
            raise ProtocolError(ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_FLAGS, "fragments are not put together")
        drop = config.flags is FragmentHandling.DROP
        if drop != self._fast_path.drops_fragments and controller.role is Role.SLAVE:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE, "a slave says what becomes of fragments")
        controller.set_miss_send_len(config.miss_send_len)
        return self._fast_path.drop_fragments(drop)

    def _answer(self, controller: Controller, connection: int, request: Message, now: float) -> Message:
        """To requests that change nothing in the tables, the ports and the fast path."""
        xid = request.xid
        match request:
            case FeaturesRequest():
                auxiliary_id = controller.auxiliary_id(connection)
                return FeaturesReply(self._datapath_id, N_BUFFERS, len(self._tables), auxiliary_id, int(CAPABILITIES), xid=xid)
            case GetConfigRequest():
                fragments = FragmentHandling.DROP if self._fast_path.drops_fragments else FragmentHandling.NORMAL
                return GetConfigReply(fragments, controller.miss_send_len, xid=xid)
            case MultipartRequest(body=body):
                return MultipartReply(self._multipart.answer(body, now), xid=xid)
            case RoleRequest():
                return self._controllers.request_role(controller, request)
            case GetAsyncRequest():
                return controller.asynchronous(xid)
            case QueueGetConfigRequest(port=port):
                return QueueGetConfigReply(port, self._queues.config(port), xid=xid)
            case Experimenter(experimenter=experimenter):
                raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_EXPERIMENTER, f"experimenter {experimenter:#010x}")
            case _:
                raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE, f"{type(request).__name__} is not for a switch")
