"""PacketIn and PacketOut (specification 1.3.5, sections 7.4.1 and 7.3.7)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from appliance.model.actions import OFP_NO_BUFFER, Action
from appliance.model.match import Match
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import PortNo
from appliance.openflow.actions import decode_actions, encode_actions
from appliance.openflow.constants import HEADER_BYTES, MAX_MESSAGE_BYTES, MessageType
from appliance.openflow.errors import BadRequest, ErrorType
from appliance.openflow.message import MessageBase
from appliance.openflow.oxm import decode_match, encode_match
from appliance.openflow.wire import Codec, at_least, bad_length, member

_PACKET_IN = Struct("!IHBBQ")
_PACKET_IN_PAD = 2
_PACKET_OUT = Struct("!IIH6x")


@dataclass(frozen=True, slots=True)
class PacketIn(MessageBase):
    """``total_len`` is the frame's whole length, of which ``data`` may be only the start.

    A message has 65,535 bytes at most and ``total_len`` 16 bits: encoding cuts what a larger frame has more.
    """

    buffer_id: int
    total_len: int
    reason: PacketInReason
    table_id: int
    cookie: int
    match: Match
    data: bytes


@dataclass(frozen=True, slots=True)
class PacketOut(MessageBase):
    buffer_id: int = OFP_NO_BUFFER
    in_port: int = PortNo.CONTROLLER
    actions: tuple[Action, ...] = ()
    data: bytes = b""


def decode_packet_in(data: bytes, xid: int) -> PacketIn:
    start = HEADER_BYTES + _PACKET_IN.size
    at_least(data, start)
    buffer_id, total_len, reason, table_id, cookie = _PACKET_IN.unpack_from(data, HEADER_BYTES)
    match, length = decode_match(data, start)
    at_least(data, start + length + _PACKET_IN_PAD)
    known = member(PacketInReason, reason, ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE)
    return PacketIn(buffer_id, total_len, known, table_id, cookie, match, data[start + length + _PACKET_IN_PAD :], xid=xid)


def encode_packet_in(message: PacketIn) -> bytes:
    total_len = min(message.total_len, 0xFFFF)
    head = _PACKET_IN.pack(message.buffer_id, total_len, message.reason, message.table_id, message.cookie)
    head += encode_match(message.match) + bytes(_PACKET_IN_PAD)
    return head + message.data[: MAX_MESSAGE_BYTES - HEADER_BYTES - len(head)]


def decode_packet_out(data: bytes, xid: int) -> PacketOut:
    start = HEADER_BYTES + _PACKET_OUT.size
    at_least(data, start)
    buffer_id, in_port, length = _PACKET_OUT.unpack_from(data, HEADER_BYTES)
    if length % 8 or start + length > len(data):
        raise bad_length(f"actions of {length} bytes in a packet-out of {len(data)}")
    return PacketOut(buffer_id, in_port, decode_actions(data, start, start + length), data[start + length :], xid=xid)


def encode_packet_out(message: PacketOut) -> bytes:
    actions = encode_actions(message.actions)
    return _PACKET_OUT.pack(message.buffer_id, message.in_port, len(actions)) + actions + message.data


CODECS = (
    Codec(MessageType.PACKET_IN, PacketIn, decode_packet_in, encode_packet_in),
    Codec(MessageType.PACKET_OUT, PacketOut, decode_packet_out, encode_packet_out),
)
