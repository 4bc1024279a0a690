"""The controllers that are connected: what each has asked to be told, and the messages that go to all of them.

Invariant: a controller gets an asynchronous message only if its masks (OFPT_SET_ASYNC) let that reason through.
Source: OpenFlow Switch Specification 1.3.5, sections 6.3.4, 7.3.9, 7.3.10 and 7.4.
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.model.actions import OFP_NO_BUFFER, OFPCML_NO_BUFFER
from appliance.model.fields import IN_PORT, METADATA, TUNNEL_ID
from appliance.model.match import Match, MatchField
from appliance.model.megaflow import Controller as ControllerAction
from appliance.model.megaflow import PacketInReason
from appliance.openflow.errors import ErrorType, ProtocolError, RoleRequestFailed
from appliance.openflow.flow import FlowRemovedReason
from appliance.openflow.messages import (
    FlowRemoved,
    FragmentHandling,
    GetAsyncReply,
    GetConfigReply,
    Message,
    PacketIn,
    PortStatus,
    Role,
    RoleReply,
    RoleRequest,
    SetAsync,
)
from appliance.openflow.port import PortReason
from appliance.switch.effects import SendMessage

DEFAULT_MISS_SEND_LEN = 128
_UNDEFINED_GENERATION = 0xFFFFFFFFFFFFFFFF


def _bits(*reasons: int) -> int:
    return sum(1 << reason for reason in reasons)


_NO_MATCH_OR_ACTION = _bits(PacketInReason.NO_MATCH, PacketInReason.ACTION)
_ANY_CHANGE = _bits(*PortReason)
_ANY_REMOVAL = _bits(*FlowRemovedReason)


class Controller:
    """One connection, in the role EQUAL. Each mask is a pair as in SetAsync: for master or equal, and for slave."""

    __slots__ = ("connection", "flow_removed_mask", "miss_send_len", "packet_in_mask", "port_status_mask", "version")

    def __init__(self, connection: int, version: int) -> None:
        self.connection = connection
        self.version = version
        self.miss_send_len = DEFAULT_MISS_SEND_LEN
        self.packet_in_mask = (_NO_MATCH_OR_ACTION, 0)
        self.port_status_mask = (_ANY_CHANGE, _ANY_CHANGE)
        self.flow_removed_mask = (_ANY_REMOVAL, 0)

    def config(self, xid: int) -> GetConfigReply:
        return GetConfigReply(FragmentHandling.NORMAL, self.miss_send_len, xid=xid)

    def asynchronous(self, xid: int) -> GetAsyncReply:
        return GetAsyncReply(self.packet_in_mask, self.port_status_mask, self.flow_removed_mask, xid=xid)

    def set_asynchronous(self, message: SetAsync) -> None:
        self.packet_in_mask = message.packet_in_mask
        self.port_status_mask = message.port_status_mask
        self.flow_removed_mask = message.flow_removed_mask


def answer_role(request: RoleRequest) -> RoleReply:
    """Every controller is EQUAL. Raises ROLE_REQUEST_FAILED/UNSUP for a controller that wants to be more or less."""
    if request.role not in (Role.NOCHANGE, Role.EQUAL):
        raise ProtocolError(ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.UNSUP, f"role {request.role.name}")
    return RoleReply(Role.EQUAL, _UNDEFINED_GENERATION, xid=request.xid)


class Controllers:
    """All connected controllers by connection number."""

    def __init__(self) -> None:
        self._controllers: dict[int, Controller] = {}

    def __len__(self) -> int:
        return len(self._controllers)

    def __iter__(self) -> Iterator[Controller]:
        return iter(self._controllers.values())

    def get(self, connection: int) -> Controller | None:
        return self._controllers.get(connection)

    def open(self, connection: int, version: int) -> None:
        self._controllers[connection] = Controller(connection, version)

    def close(self, connection: int) -> None:
        self._controllers.pop(connection, None)

    # ── messages to all ────────────────────────────────────────────────────────────────────────────────────────────────
    def packet_in(self, action: ControllerAction, frame: bytes, key: int) -> Iterator[SendMessage]:
        """``frame`` is the packet as it is now; ``key`` the flow key that it came in with.

        A frame is cut to the action's ``max_len``, or where no action sent it (an invalid TTL) to ``miss_send_len``.
        """
        fields = [MatchField(IN_PORT, IN_PORT.get(key))]
        if action.metadata:
            fields.append(MatchField(METADATA, action.metadata))
        if TUNNEL_ID.get(key):
            fields.append(MatchField(TUNNEL_ID, TUNNEL_ID.get(key)))
        match = Match.of(fields)
        for controller in self._wanting(action.reason):
            length = controller.miss_send_len if action.reason is PacketInReason.INVALID_TTL else action.max_len
            data = frame if length == OFPCML_NO_BUFFER else frame[:length]
            message = PacketIn(OFP_NO_BUFFER, len(frame), action.reason, action.table_id, action.cookie, match, data)
            yield SendMessage(controller.connection, message)

    def _wanting(self, reason: PacketInReason) -> Iterator[Controller]:
        return (controller for controller in self if controller.packet_in_mask[0] >> reason & 1)

    def flow_removed(self, message: FlowRemoved) -> Iterator[SendMessage]:
        for controller in self:
            if controller.flow_removed_mask[0] >> message.reason & 1:
                yield SendMessage(controller.connection, message)

    def port_status(self, message: PortStatus) -> Iterator[SendMessage]:
        for controller in self:
            if controller.port_status_mask[0] >> message.reason & 1:
                yield SendMessage(controller.connection, message)

    def answer(self, connection: int, message: Message) -> Iterator[SendMessage]:
        """To one controller, unless it has gone."""
        if connection in self._controllers:
            yield SendMessage(connection, message)
