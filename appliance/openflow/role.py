"""Controller roles and asynchronous configuration (specification 1.3.5, sections 7.3.9 and 7.3.10)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from appliance.openflow.constants import HEADER_BYTES, MessageType
from appliance.openflow.errors import ErrorType, RoleRequestFailed
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import Codec, empty_message, exactly, member

_ROLE = Struct("!I4xQ")
_ASYNC = Struct("!6I")


class Role(IntEnum):
    """OFPCR_ROLE_*."""

    NOCHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


@dataclass(frozen=True, slots=True)
class RoleRequest(MessageBase):
    role: Role
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class RoleReply(MessageBase):
    role: Role
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class GetAsyncRequest(MessageBase):
    pass


@dataclass(frozen=True, slots=True)
class GetAsyncReply(MessageBase):
    """Each mask is a pair of bitmaps of 1 << reason: for the roles master or equal, and for slave."""

    packet_in_mask: tuple[int, int] = (0, 0)
    port_status_mask: tuple[int, int] = (0, 0)
    flow_removed_mask: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class SetAsync(MessageBase):
    """As GetAsyncReply."""

    packet_in_mask: tuple[int, int] = (0, 0)
    port_status_mask: tuple[int, int] = (0, 0)
    flow_removed_mask: tuple[int, int] = (0, 0)


def _decode_role(data: bytes) -> tuple[Role, int]:
    exactly(data, HEADER_BYTES + _ROLE.size)
    role, generation_id = _ROLE.unpack_from(data, HEADER_BYTES)
    return member(Role, role, ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.BAD_ROLE), generation_id


def encode_role(message: RoleRequest | RoleReply) -> bytes:
    return _ROLE.pack(message.role, message.generation_id)


def _decode_async(data: bytes) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    exactly(data, HEADER_BYTES + _ASYNC.size)
    p0, p1, s0, s1, f0, f1 = _ASYNC.unpack_from(data, HEADER_BYTES)
    return (p0, p1), (s0, s1), (f0, f1)


def encode_async(message: GetAsyncReply | SetAsync) -> bytes:
    return _ASYNC.pack(*message.packet_in_mask, *message.port_status_mask, *message.flow_removed_mask)


CODECS = (
    Codec(MessageType.ROLE_REQUEST, RoleRequest, lambda data, xid: RoleRequest(*_decode_role(data), xid=xid), encode_role),
    Codec(MessageType.ROLE_REPLY, RoleReply, lambda data, xid: RoleReply(*_decode_role(data), xid=xid), encode_role),
    empty_message(MessageType.GET_ASYNC_REQUEST, GetAsyncRequest),
    Codec(MessageType.GET_ASYNC_REPLY, GetAsyncReply, lambda data, xid: GetAsyncReply(*_decode_async(data), xid=xid), encode_async),
    Codec(MessageType.SET_ASYNC, SetAsync, lambda data, xid: SetAsync(*_decode_async(data), xid=xid), encode_async),
)
