"""What the codecs of all families share: tables' rows, length checks, fixed-size texts.

Invariant: a decoder reads nothing outside the bytes that it was given; whatever they are, it ends with a value or a ProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple, TypeVar

from appliance.openflow.constants import HEADER_BYTES, MessageType, MultipartType
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError
from appliance.openflow.message import Message, MessageBase

TYPE_LENGTH = Struct("!HH")
"""How actions, instructions, bands, properties and more begin."""


class Codec(NamedTuple):
    """How one type of message is read and written.

    ``decode(data, xid)`` gets the whole message, whose header has been checked; ``encode(message)`` gives what follows the header,
    which is nothing if the message ``is_bare``.
    """

    kind: MessageType
    message: type[Message]
    decode: Callable[[bytes, int], Message]
    encode: Callable[[Any], bytes]
    is_bare: bool = False


class BodyCodec(NamedTuple):
    """How the body of one type of multipart request or reply is read and written.

    ``encode`` gives pieces that must each stay in one message; ``decode`` gets all of them, joined.
    """

    kind: MultipartType
    body: type[object]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], Iterable[bytes]]


def bad_length(reason: str) -> ProtocolError:
    """BAD_REQUEST/BAD_LEN, to be raised."""
    return ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_LEN, reason)


def exactly(data: bytes, size: int) -> None:
    """Raise BAD_LEN unless ``data`` is of this size."""
    if len(data) != size:
        raise bad_length(f"{len(data)} bytes where {size} belong")


def at_least(data: bytes, size: int) -> None:
    """Raise BAD_LEN if ``data`` is shorter than this."""
    if len(data) < size:
        raise bad_length(f"{len(data)} bytes where at least {size} belong")


def empty_message(kind: MessageType, message: type[MessageBase]) -> Codec:
    """The codec of a message that is a bare header."""

    def decode(data: bytes, xid: int) -> Message:
        if len(data) != HEADER_BYTES:
            raise bad_length(f"{len(data)} bytes where a header belongs")
        return message(xid=xid)

    return Codec(kind, message, decode, lambda _: b"", is_bare=True)


def empty_body(kind: MultipartType, body: type[object]) -> BodyCodec:
    """The codec of a multipart body without bytes."""

    def decode(data: bytes) -> object:
        exactly(data, 0)
        return body()

    return BodyCodec(kind, body, decode, lambda _: [])


E_ = TypeVar("E_", bound=IntEnum)


def member(enum: type[E_], value: int, type_: ErrorType, code: int) -> E_:
    """The enumeration's member of that number; the error of ``type_`` and ``code`` if it has none."""
    try:
        return enum(value)
    except ValueError:
        raise ProtocolError(type_, code, f"{value} is no {enum.__name__}") from None


def pad(length: int) -> int:
    """Bytes that bring a length to a multiple of 8."""
    return -length % 8


def encode_text(text: str, size: int) -> bytes:
    """UTF-8 in ``size`` bytes, the last of which is NUL; a longer text is cut between characters."""
    raw = text.encode("utf-8", "replace")[: size - 1]
    return raw.decode("utf-8", "ignore").encode().ljust(size, b"\0")


def decode_text(raw: bytes) -> str:
    """The text before the first NUL; bytes that are not UTF-8 become U+FFFD."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
