"""The controllers that are connected: their connections and roles, what each has asked to be told, and the messages to all of them.

A controller has one main connection and maybe auxiliary ones. It may ask and order by any of them and is answered there; what the
switch tells of itself goes out by the main one, but packet-ins are spread over the auxiliary ones, those of a flow by the same.

Invariant: at most one controller is MASTER; and a controller gets an asynchronous message only if its masks for its role
(OFPT_SET_ASYNC) let that reason through.
Source: OpenFlow Switch Specification 1.3.5, sections 6.3.4 to 6.3.6, 7.3.9, 7.3.10 and 7.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from appliance.model.actions import OFP_NO_BUFFER, OFPCML_NO_BUFFER
from appliance.model.fields import IN_PORT, METADATA, TUN_DST, TUN_SRC, TUNNEL_ID
from appliance.model.match import Match, MatchField, MatchShape
from appliance.model.megaflow import Controller as ControllerAction
from appliance.model.megaflow import PacketInReason
from appliance.model.tunnel import Tunnel
from appliance.openflow.constants import OFPCML_MAX
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError, RoleRequestFailed, SwitchConfigFailed
from appliance.openflow.flow import FlowRemovedReason
from appliance.openflow.messages import (
    FlowMod,
    FlowRemoved,
    GetAsyncReply,
    GroupMod,
    Message,
    MeterMod,
    MultipartRequest,
    PacketIn,
    PacketOut,
    PortMod,
    PortStatus,
    Role,
    RoleReply,
    RoleRequest,
    SetAsync,
    TableFeaturesRequest,
    TableMod,
)
from appliance.openflow.packet_ins import PacketInHead, PacketIns
from appliance.openflow.port import PortReason
from appliance.packet.select import select_hash
from appliance.switch.effects import SendMessage, SendPacketIns
from appliance.switch.packet_buffers import BufferedPacket, PacketBuffers

DEFAULT_MISS_SEND_LEN = 128
UNDEFINED_GENERATION = 0xFFFFFFFFFFFFFFFF
_TUNNEL_FIELDS = (TUNNEL_ID, TUN_SRC, TUN_DST)
_HALF_OF_GENERATIONS = 1 << 63
_GENERATION_MASK = (1 << 64) - 1


def _bits(*reasons: int) -> int:
    return sum(1 << reason for reason in reasons)


_NO_MATCH_OR_ACTION = _bits(PacketInReason.NO_MATCH, PacketInReason.ACTION)
_ANY_CHANGE = _bits(*PortReason)
_ANY_REMOVAL = _bits(*FlowRemovedReason)


class Controller:
    """One controller. ``connection`` is its main one; each mask is a pair as in SetAsync: for master or equal, and for slave."""

    __slots__ = (
        "auxiliary",
        "buffers",
        "connection",
        "flow_removed_mask",
        "miss_send_len",
        "packet_in_mask",
        "port_status_mask",
        "role",
        "version",
    )

    def __init__(self, connection: int, version: int) -> None:
        self.connection = connection
        self.version = version
        self.auxiliary: dict[int, int] = {}
        """Auxiliary ids by connection."""
        self.role = Role.EQUAL
        self.buffers = PacketBuffers()
        self.miss_send_len = DEFAULT_MISS_SEND_LEN
        self.packet_in_mask = (_NO_MATCH_OR_ACTION, 0)
        self.port_status_mask = (_ANY_CHANGE, _ANY_CHANGE)
        self.flow_removed_mask = (_ANY_REMOVAL, 0)

    def auxiliary_id(self, connection: int) -> int:
        """0 for the main connection."""
        return self.auxiliary.get(connection, 0)

    def wants(self, mask: tuple[int, int], reason: int) -> bool:
        return bool(mask[self.role is Role.SLAVE] >> reason & 1)

    def asynchronous(self, xid: int) -> GetAsyncReply:
        return GetAsyncReply(self.packet_in_mask, self.port_status_mask, self.flow_removed_mask, xid=xid)

    def set_asynchronous(self, message: SetAsync) -> None:
        self.packet_in_mask = message.packet_in_mask
        self.port_status_mask = message.port_status_mask
        self.flow_removed_mask = message.flow_removed_mask

    def set_miss_send_len(self, length: int) -> None:
        """Raises SWITCH_CONFIG_FAILED/BAD_LEN for one that is neither a length nor OFPCML_NO_BUFFER."""
        if OFPCML_MAX < length != OFPCML_NO_BUFFER:
            raise ProtocolError(ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_LEN, f"miss_send_len {length:#x}")
        self.miss_send_len = length

    def packet_in_connection(self, key: int) -> int:
        """The connection for packet-ins of packets with this flow key."""
        if not self.auxiliary:
            return self.connection
        return tuple(self.auxiliary)[select_hash(key) % len(self.auxiliary)]

    def cuts(self, action: ControllerAction, octets: int) -> bool:
        """Whether a packet-in may have less than all of a packet of this length."""
        return self._shown_of(action) < octets and self._shown_of(action) != OFPCML_NO_BUFFER

    def packet_in(self, action: ControllerAction, frame: bytes, head: PacketInHead, kept: BufferedPacket, now: float) -> PacketIn:
        """See ``Controllers.packet_in``."""
        message = head.message(frame)
        if self.cuts(action, len(frame)):
            buffer_id = self.buffers.keep(kept, now)
            if buffer_id != OFP_NO_BUFFER:
                return replace(message, buffer_id=buffer_id, data=frame[: self._shown_of(action)])
        return message

    def _shown_of(self, action: ControllerAction) -> int:
        """Bytes of a packet."""
        return self.miss_send_len if action.reason is PacketInReason.INVALID_TTL else action.max_len


@lru_cache(maxsize=1024)
def _head(action: ControllerAction, in_port: int, tunnel: Tunnel) -> PacketInHead:
    """There are few of them, and thousands of packets of each."""
    fields = [MatchField(IN_PORT, in_port)]
    if action.metadata:
        fields.append(MatchField(METADATA, action.metadata))
    fields += [MatchField(field, value) for field, value in zip(_TUNNEL_FIELDS, tunnel, strict=True) if value]
    whole = Match.of(fields)
    match = Match(MatchShape(tuple([(item.field, item.mask) for item in fields])), whole.value, whole.mask)
    return PacketInHead(action.reason, action.table_id, action.cookie, match)


def check_slave_may(message: Message) -> None:
    """Raises BAD_REQUEST/IS_SLAVE for what a slave may not do: send packets and change the switch (section 6.3.5)."""
    if _changes_the_switch(message):
        raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE, f"{type(message).__name__} from a slave")


def _changes_the_switch(message: Message) -> bool:
    match message:
        case FlowMod() | GroupMod() | MeterMod() | PortMod() | TableMod() | PacketOut():
            return True
        case MultipartRequest(body=TableFeaturesRequest(tables=tables)):
            return bool(tables)
        case _:
            return False


class Controllers:
    """All connected controllers."""

    def __init__(self) -> None:
        self._controllers: dict[int, Controller] = {}
        """By main connection."""
        self._by_connection: dict[int, Controller] = {}
        """By connection, main or auxiliary."""
        self.get = self._by_connection.get
        """Whose connection it is; None if it is nobody's (any more)."""
        self._generation_id: int | None = None

    def __len__(self) -> int:
        return len(self._controllers)

    def __iter__(self) -> Iterator[Controller]:
        return iter(self._controllers.values())

    def open(self, connection: int, version: int) -> None:
        self._controllers[connection] = self._by_connection[connection] = Controller(connection, version)

    def open_auxiliary(self, connection: int, auxiliary_id: int, main: int) -> None:
        """Passed over if there is no such main connection (any more)."""
        controller = self._controllers.get(main)
        if controller is not None:
            controller.auxiliary[connection] = auxiliary_id
            self._by_connection[connection] = controller

    def close(self, connection: int) -> None:
        """With a main connection its auxiliary ones are over too."""
        controller = self._by_connection.pop(connection, None)
        if controller is None:
            return
        if controller.connection == connection:
            del self._controllers[connection]
            for auxiliary in controller.auxiliary:
                del self._by_connection[auxiliary]
        else:
            del controller.auxiliary[connection]

    # ── roles ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    def request_role(self, controller: Controller, request: RoleRequest) -> RoleReply:
        """OFPT_ROLE_REQUEST. Raises ROLE_REQUEST_FAILED/STALE, having changed nothing."""
        if request.role in (Role.MASTER, Role.SLAVE):
            self._check_generation(request.generation_id)
            self._generation_id = request.generation_id
        if request.role is Role.MASTER:
            for other in self:
                if other.role is Role.MASTER:
                    other.role = Role.SLAVE
        if request.role is not Role.NOCHANGE:
            controller.role = request.role
        generation_id = UNDEFINED_GENERATION if self._generation_id is None else self._generation_id
        return RoleReply(controller.role, generation_id, xid=request.xid)

    def _check_generation(self, generation_id: int) -> None:
        """A request of an older generation was overtaken on its way: generations are compared round the clock of 64 bits."""
        if self._generation_id is not None and (generation_id - self._generation_id) & _GENERATION_MASK >= _HALF_OF_GENERATIONS:
            raise ProtocolError(
                ErrorType.ROLE_REQUEST_FAILED,
                RoleRequestFailed.STALE,
                f"generation {generation_id:#x}, {self._generation_id:#x} has been seen",
            )

    # ── messages to all ────────────────────────────────────────────────────────────────────────────────────────────────
    def packet_in(
        self, action: ControllerAction, frame: bytes, key: int, kept: BufferedPacket, now: float
    ) -> Iterator[SendMessage | SendPacketIns]:
        """``frame`` is the packet as it is now; ``key`` the flow key that it came in with; ``kept`` is for the buffer.

        A frame longer than the action's ``max_len``, or where no action sent it (an invalid TTL) than ``miss_send_len``, is cut
        and kept, if there is a buffer free.
        """
        head = _head(action, IN_PORT.get(key), kept.tunnel)
        for controller in self:
            if controller.wants(controller.packet_in_mask, action.reason):
                connection = controller.packet_in_connection(key)
                if controller.cuts(action, len(frame)):
                    yield SendMessage(connection, controller.packet_in(action, frame, head, kept, now))
                else:
                    yield SendPacketIns(connection, PacketIns(head, [frame]))

    def packet_ins(
        self, action: ControllerAction, frames: list[bytes], in_port: int, tunnel: Tunnel, now: float
    ) -> Iterator[SendMessage | SendPacketIns]:
        """``packet_in`` of several packets that came in by the same port and tunnel, while no controller ``is_spread``."""
        head = _head(action, in_port, tunnel)
        longest = max(map(len, frames))
        for controller in self:
            if not controller.wants(controller.packet_in_mask, action.reason):
                continue
            if controller.cuts(action, longest):
                for frame in frames:
                    kept = BufferedPacket(frame, in_port, 0, tunnel)
                    yield SendMessage(controller.connection, controller.packet_in(action, frame, head, kept, now))
            else:
                yield SendPacketIns(controller.connection, PacketIns(head, frames))

    @property
    def is_spread(self) -> bool:
        """Whether packet-ins of different flows may go by different connections to the same controller."""
        return len(self._by_connection) > len(self._controllers)

    def flow_removed(self, message: FlowRemoved) -> Iterator[SendMessage]:
        for controller in self:
            if controller.wants(controller.flow_removed_mask, message.reason):
                yield SendMessage(controller.connection, message)

    def port_status(self, message: PortStatus) -> Iterator[SendMessage]:
        for controller in self:
            if controller.wants(controller.port_status_mask, message.reason):
                yield SendMessage(controller.connection, message)
