"""Messages that either side may send (specification 1.3.5, section 7.5), and Error (section 7.4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from appliance.openflow.constants import HEADER_BYTES, OFP_VERSION, MessageType
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import TYPE_LENGTH, Codec, at_least, pad

OFPHET_VERSIONBITMAP = 1
MAX_VERSION = 0xFF

_TWO_WORDS = Struct("!II")


@dataclass(frozen=True, slots=True)
class Hello(MessageBase):
    """``versions`` are those of the version bitmap, ascending; empty where the peer sent none. ``version`` is the header's."""

    versions: tuple[int, ...] = ()
    version: int = OFP_VERSION


@dataclass(frozen=True, slots=True)
class Error(MessageBase):
    """``type`` and ``code`` as in ``errors``; ``data`` starts the failed request (64 bytes or more); for HELLO_FAILED it is text.

    For type EXPERIMENTER, ``code`` is exp_type and ``data`` starts with the experimenter's id.
    """

    type: int
    code: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoRequest(MessageBase):
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoReply(MessageBase):
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Experimenter(MessageBase):
    experimenter: int
    exp_type: int
    data: bytes = b""


def _bitmap_versions(bitmap: bytes) -> Iterator[int]:
    """The versions in a bitmap of 32-bit words, the first of which is for versions 0 to 31."""
    for word in range(0, min(len(bitmap), (MAX_VERSION + 1) // 8) - 3, 4):
        bits = int.from_bytes(bitmap[word : word + 4], "big")
        yield from (word * 8 + bit for bit in range(32) if bits >> bit & 1)


def decode_hello(data: bytes, xid: int) -> Hello:
    """A Hello of any version. Elements that are unknown or ill-formed are passed over (section 7.5.1): it is never refused here."""
    position = HEADER_BYTES
    while position + TYPE_LENGTH.size <= len(data):
        kind, length = TYPE_LENGTH.unpack_from(data, position)
        if length < TYPE_LENGTH.size or position + length > len(data):
            break
        if kind == OFPHET_VERSIONBITMAP:
            return Hello(tuple(_bitmap_versions(data[position + TYPE_LENGTH.size : position + length])), data[0], xid=xid)
        position += length + pad(length)
    return Hello((), data[0], xid=xid)


def encode_hello(message: Hello) -> bytes:
    """Without an element where there are no versions to name."""
    if not message.versions:
        return b""
    words = [0] * (max(message.versions) // 32 + 1)
    for version in message.versions:
        words[version // 32] |= 1 << version % 32
    length = TYPE_LENGTH.size + 4 * len(words)
    bitmap = b"".join([word.to_bytes(4, "big") for word in words])
    return TYPE_LENGTH.pack(OFPHET_VERSIONBITMAP, length) + bitmap + bytes(pad(length))


def decode_error(data: bytes, xid: int) -> Error:
    at_least(data, HEADER_BYTES + TYPE_LENGTH.size)
    kind, code = TYPE_LENGTH.unpack_from(data, HEADER_BYTES)
    return Error(kind, code, data[HEADER_BYTES + TYPE_LENGTH.size :], xid=xid)


def encode_error(message: Error) -> bytes:
    return TYPE_LENGTH.pack(message.type, message.code) + message.data


def decode_experimenter(data: bytes, xid: int) -> Experimenter:
    at_least(data, HEADER_BYTES + _TWO_WORDS.size)
    experimenter, exp_type = _TWO_WORDS.unpack_from(data, HEADER_BYTES)
    return Experimenter(experimenter, exp_type, data[HEADER_BYTES + _TWO_WORDS.size :], xid=xid)


def encode_experimenter(message: Experimenter) -> bytes:
    return _TWO_WORDS.pack(message.experimenter, message.exp_type) + message.data


CODECS = (
    Codec(MessageType.HELLO, Hello, decode_hello, encode_hello),
    Codec(MessageType.ERROR, Error, decode_error, encode_error),
    Codec(
        MessageType.ECHO_REQUEST,
        EchoRequest,
        lambda data, xid: EchoRequest(data[HEADER_BYTES:], xid=xid),
        lambda message: message.data,
    ),
    Codec(
        MessageType.ECHO_REPLY, EchoReply, lambda data, xid: EchoReply(data[HEADER_BYTES:], xid=xid), lambda message: message.data
    ),
    Codec(MessageType.EXPERIMENTER, Experimenter, decode_experimenter, encode_experimenter),
)
