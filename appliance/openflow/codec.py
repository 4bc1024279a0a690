"""One whole OpenFlow 1.3 message from bytes and back (specification 1.3.5, section 7.1).

Invariant: any bytes at all give a message or a ProtocolError with the type and code that the specification has for them, and never
another exception. What ``encode`` cannot encode is our own fault: a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from struct import Struct, error
from typing import Any

from appliance.openflow import flow, group, handshake, meter, packet, port, queue, role, symmetric, table
from appliance.openflow.constants import HEADER_BYTES, MAX_MESSAGE_BYTES, OFP_VERSION, MessageType
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError
from appliance.openflow.message import Message
from appliance.openflow.multipart import (
    MultipartReply,
    MultipartRequest,
    decode_multipart_reply,
    decode_multipart_request,
    encode_multipart,
)
from appliance.openflow.symmetric import Hello
from appliance.openflow.wire import Codec, bad_length

HEADER = Struct("!BBHI")
"""version, type, length of the whole message, xid"""

_CODECS: tuple[Codec, ...] = tuple(
    chain.from_iterable(module.CODECS for module in (symmetric, handshake, packet, flow, port, group, meter, table, queue, role))
)
DECODERS: dict[int, Callable[[bytes, int], Message]] = {
    **{row.kind: row.decode for row in _CODECS},
    MessageType.MULTIPART_REQUEST: decode_multipart_request,
    MessageType.MULTIPART_REPLY: decode_multipart_reply,
}
"""By type: of (the whole message, xid), where version and length are right."""
_ENCODERS: dict[type[Message], tuple[MessageType, Callable[[Any], bytes]]] = {
    row.message: (row.kind, row.encode) for row in _CODECS
}

_BARE = {row.message: HEADER.pack(OFP_VERSION, row.kind, HEADER_BYTES, 0)[:-4] for row in _CODECS if row.is_bare}
"""Headers, but for the xid, of messages that have nothing else."""
_IN_PARTS = (MultipartRequest, MultipartReply)

ANY_VERSION = frozenset({MessageType.HELLO, MessageType.ERROR})
"""Messages that are the same in all versions, and come before one is agreed on."""


def decode(data: bytes) -> Message:
    """The message in ``data``, which is one whole message, header included.

    Raises ProtocolError, with ``data`` in it, if the peer got something wrong.
    """
    if len(data) < HEADER_BYTES:
        fault = bad_length("no room for a header")
        fault.data = data
        raise fault
    version, kind, length, xid = HEADER.unpack_from(data)
    try:
        if version != OFP_VERSION and kind not in ANY_VERSION:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_VERSION, f"version {version:#04x}")
        if length != len(data):
            raise bad_length(f"a message of {len(data)} bytes says {length}")
        decoder = DECODERS.get(kind)
        if decoder is None:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE, f"message type {kind}")
        return decoder(data, xid)
    except ProtocolError as fault:
        fault.data = data
        raise


def _frame(version: int, kind: MessageType, body: bytes, xid: int) -> bytes:
    length = HEADER_BYTES + len(body)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"{kind.name} of {length} bytes")
    return HEADER.pack(version, kind, length, xid) + body


def encode(message: Message) -> bytes:
    """The message's bytes; those of several messages, one behind the other, if a multipart body needs them.

    Raises ValueError for a value that is too wide, a field that OpenFlow 1.3 does not have, or a message that gets too long.
    """
    bare = _BARE.get(type(message))
    try:
        if bare is not None:
            return bare + message.xid.to_bytes(4, "big")
        if isinstance(message, _IN_PARTS):
            return b"".join(encode_in_parts(message))
        kind, encoder = _ENCODERS[type(message)]
        version = message.version if isinstance(message, Hello) else OFP_VERSION
        return _frame(version, kind, encoder(message), message.xid)
    except (error, OverflowError, KeyError) as fault:
        raise _unencodable(message, fault) from fault


def encode_in_parts(message: MultipartRequest | MultipartReply) -> Iterator[bytes]:
    """The same, one message at a time, each made when it is asked for."""
    reply = isinstance(message, MultipartReply)
    kind = MessageType.MULTIPART_REPLY if reply else MessageType.MULTIPART_REQUEST
    try:
        for body in encode_multipart(message):
            yield _frame(OFP_VERSION, kind, body, message.xid)
    except (error, OverflowError, KeyError) as fault:
        raise _unencodable(message, fault) from fault


def _unencodable(message: Message, fault: Exception) -> ValueError:
    return ValueError(f"{type(message).__name__} cannot be encoded: {fault}")
