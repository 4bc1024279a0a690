"""One OpenFlow connection: framing, version negotiation, echoes and errors, without a socket or a clock.

Theory of operation. The shell owns the socket and the clock. What it reads it gives to ``receive_data``, which returns events; what
``data_to_send`` returns it writes; and it calls ``tick`` when ``timer`` says so. Both sides open with a Hello. The state is one of

    HELLO    our Hello is queued, the peer's has not come
    OPEN     a version is agreed on: messages pass
    CLOSED   nothing passes any more; the shell writes what is still queued (often an Error that says why) and closes the socket

and ``TRANSITIONS`` is the whole of how it moves; a pair that is not in it cannot happen. In OPEN, a message that breaks the
protocol gets its OFPT_ERROR and the connection goes on; it closes only where nobody can say any more where the next message
starts, where the peer is silent, or where it takes nothing off us. EchoRequests are answered, EchoReplies taken and the parts of a
multipart request joined here: the switch above sees whole requests only.

Invariant: the bytes may come in any pieces, the events are the same; and no peer can make a connection hold more than MAX_* bytes.
Source: specification 1.3.5, sections 6.3 and 7.1 to 7.5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from appliance.openflow.codec import DECODERS, HEADER, decode, encode, encode_in_parts
from appliance.openflow.constants import HEADER_BYTES, MORE, OFP_VERSION, MessageType
from appliance.openflow.errors import BadRequest, ErrorType, HelloFailed, ProtocolError, error_name
from appliance.openflow.flow_statistics import FlowStatsReply
from appliance.openflow.message import Message
from appliance.openflow.multipart import MULTIPART_BYTES, MultipartReply, MultipartRequest, decode_request_body, multipart_head
from appliance.openflow.packet_ins import PacketIns, encode_packet_ins
from appliance.openflow.symmetric import EchoReply, EchoRequest, Error, Hello

ERROR_DATA_BYTES = 64
"""So much of a message goes into the Error about it (section 7.4.4: at least 64 bytes)."""

_new = tuple.__new__
_ECHO_REPLY = int(MessageType.ECHO_REPLY)
_MULTIPART_REQUEST = int(MessageType.MULTIPART_REQUEST)
_WHOLE = {kind: decoder for kind, decoder in DECODERS.items() if kind != _MULTIPART_REQUEST}
"""Of messages that do not come in parts."""
MAX_TEXT_BYTES = 200
"""Of the text in the peer's Error, for a reason to close."""
MAX_MULTIPART_BYTES = 1 << 20
"""Of the parts of unfinished multipart requests."""
MAX_MULTIPART_REQUESTS = 16
"""Unfinished at once."""
MAX_QUEUED_BYTES = 64 << 20
"""A peer that lets more than this pile up does not read: nothing more is queued, and the connection closes."""
UNMADE_BYTES = 1 << 20
"""What an answer counts as queued that is made while it is sent."""


# ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Negotiated:
    """The Hellos agree on this version; messages may be sent."""

    version: int


class MessageReceived(NamedTuple):
    """``connection`` is the ``number`` of the connection by which the message came.

    ``raw`` is what an Error about the message quotes; for a multipart request in parts, the last part.
    """

    connection: int
    message: Message
    raw: bytes


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The connection is over, for this reason in words. It is the last event."""

    reason: str


Event = Negotiated | MessageReceived | ConnectionClosed


# ── states ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
class State(Enum):
    HELLO = auto()
    OPEN = auto()
    CLOSED = auto()


_HELLO, _OPEN, _CLOSED = State
"""Members of an enumeration are slow to look up in it."""


class Cause(Enum):
    """What moves a connection from state to state."""

    AGREED = auto()
    """The peer's Hello has a version in common with ours."""
    DISAGREED = auto()
    """It has none, or something else came first."""
    REFUSED = auto()
    """The peer sent an Error instead of a Hello, or about ours."""
    FRAMING_LOST = auto()
    """A header has a length that cannot be: nobody knows where the next message starts."""
    SILENT = auto()
    """The peer sent nothing, not even the answer to an echo."""
    CONGESTED = auto()
    """The peer takes nothing off us, or starts too much at once."""


TRANSITIONS: dict[tuple[State, Cause], State] = {
    (State.HELLO, Cause.AGREED): State.OPEN,
    (State.HELLO, Cause.DISAGREED): State.CLOSED,
    (State.HELLO, Cause.REFUSED): State.CLOSED,
    (State.HELLO, Cause.FRAMING_LOST): State.CLOSED,
    (State.HELLO, Cause.SILENT): State.CLOSED,
    (State.OPEN, Cause.FRAMING_LOST): State.CLOSED,
    (State.OPEN, Cause.SILENT): State.CLOSED,
    (State.OPEN, Cause.CONGESTED): State.CLOSED,
}


def negotiate(ours: frozenset[int], hello: Hello) -> int | None:
    """The version to speak, None if there is none (section 6.3.1).

    The highest in both bitmaps; if the peer sent no bitmap, the lower of the two highest versions, provided that we speak it.
    """
    if hello.versions:
        return max(ours & set(hello.versions), default=None)
    version = min(max(ours), hello.version)
    return version if version in ours else None


class Connection:
    """``versions`` are wire versions (4 is OpenFlow 1.3, the only one that the codec speaks). ``number`` is the shell's own for it.

    ``probe_interval`` is in seconds: a peer silent for so long gets an EchoRequest, and is given up after as long again. 0 asks
    nobody. The clock, in seconds, starts with the first ``receive_data`` or ``tick``, and ``now`` must never go back.
    """

    def __init__(
        self, versions: frozenset[int] = frozenset({OFP_VERSION}), *, number: int = 0, probe_interval: float = 5.0
    ) -> None:
        if not versions or versions - {OFP_VERSION}:
            raise ValueError(f"versions {sorted(versions)}: the codec speaks {OFP_VERSION} only")
        self.versions = versions
        self.number = number
        self.probe_interval = probe_interval
        self.snoop: Callable[[bytes], object] | None = None
        """Shown every whole message after the Hellos, whichever way it goes."""
        self.state = _HELLO
        self._received = b""
        """The beginning of a message whose end has not come."""
        self._queue: deque[bytes | Iterator[bytes]] = deque()
        """Messages, and answers that are made part by part."""
        self.queued_bytes = 0
        """What ``data_to_send`` has to return: a shell that takes it only as fast as the peer reads can see it pile up."""
        self._multiparts = _Multiparts()
        self._last_heard: float | None = None
        self._probed: float | None = None
        self._next_xid = 1
        self._queue_message(Hello(tuple(sorted(versions)), max(versions), xid=self._xid()))

    # ── what the shell calls ───────────────────────────────────────────────────────────────────────────────────────────
    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Bytes from the peer, in any pieces. A closed connection takes none."""
        if self.state is _CLOSED:
            return []
        if self._last_heard is None:
            self._last_heard = now
        events = self._events(self._received + data)
        if data and self.state is _OPEN:
            self._last_heard = now
            self._probed = None
        return events

    def send(self, message: Message) -> None:
        """Queue a message. Nothing is sent on a closed connection, whose peer is gone, or a congested one, which ``tick`` closes.

        Raises RuntimeError before a version is agreed on, ValueError for a message that cannot be encoded.
        """
        if self.state is _OPEN:
            if self.queued_bytes <= MAX_QUEUED_BYTES:
                self._queue_message(message)
        elif self.state is _HELLO:
            raise RuntimeError(f"{type(message).__name__} before a version is agreed on")

    def send_packet_ins(self, packet_ins: PacketIns) -> None:
        """The same for many packet-ins."""
        if self.state is _HELLO:
            raise RuntimeError("packet-ins before a version is agreed on")
        if self.state is _OPEN and not self._congested:
            self._queue_bytes(encode_packet_ins(packet_ins))

    def data_to_send(self) -> bytes:
        """What is queued; from now on it is the shell's. A long answer comes part by part: nothing is left when nothing comes."""
        queue = self._queue
        if not queue:
            return b""
        whole: list[bytes] = []
        while queue:
            first = queue[0]
            if isinstance(first, bytes):
                whole.append(first)
                queue.popleft()
            elif whole:
                break
            elif part := next(first, b""):
                if self.snoop is not None:
                    self.snoop(part)
                return part
            else:
                queue.popleft()
                self.queued_bytes -= UNMADE_BYTES
        data = b"".join(whole)
        self.queued_bytes -= len(data)
        return data

    def tick(self, now: float) -> list[Event]:
        """Time has passed: probe a silent peer, or give it up; give up one that does not read."""
        if self.state is _CLOSED:
            return []
        if self._congested:
            return [self._close_congested()]
        if self._last_heard is None:
            self._last_heard = now
        due = self.timer()
        if due is None or now < due:
            return []
        if self.state is _HELLO:
            return [self._close(Cause.SILENT, f"no Hello in {2 * self.probe_interval:g} s")]
        if self._probed is None:
            self._probed = now
            self._queue_message(EchoRequest(xid=self._xid()))
            return []
        return [self._close(Cause.SILENT, f"no answer to an echo request in {self.probe_interval:g} s")]

    def timer(self) -> float | None:
        """When ``tick`` has something to do next; None for never."""
        if self.state is _CLOSED or self._last_heard is None:
            return None
        if self._congested:
            return self._last_heard
        if not self.probe_interval:
            return None
        if self.state is _HELLO:
            return self._last_heard + 2 * self.probe_interval
        return (self._last_heard if self._probed is None else self._probed) + self.probe_interval

    @property
    def _congested(self) -> bool:
        return self.queued_bytes > MAX_QUEUED_BYTES

    # ── bytes to messages ──────────────────────────────────────────────────────────────────────────────────────────────
    def _events(self, received: bytes) -> list[Event]:
        """Of all whole messages; what is left is kept."""
        events: list[Event] = []
        position, end = 0, len(received)
        while end - position >= HEADER_BYTES and self.state is not _CLOSED:
            version, kind, length, xid = HEADER.unpack_from(received, position)
            if length < HEADER_BYTES:
                fault = ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_LEN, f"a header that says {length} bytes")
                self._queue_error(fault, xid, received[position:])
                events.append(self._close(Cause.FRAMING_LOST, fault.reason))
            elif self.state is _HELLO and kind not in (MessageType.HELLO, MessageType.ERROR):
                # Judged by its header alone: what comes from a peer of another protocol may have any length in it.
                events.append(self._disagree(xid, f"Hello comes first, not message type {kind}"))
            elif end - position >= length:
                raw = received[position : position + length]
                position += length
                event = self._on_hello(raw) if self.state is _HELLO else self._on_message(raw, version, kind, xid)
                if event is not None:
                    events.append(event)
            else:
                break
        self._received = b"" if self.state is _CLOSED else received[position:]
        return events

    def _on_hello(self, raw: bytes) -> Event | None:
        try:
            message = decode(raw)
        except ProtocolError as fault:
            return self._close(Cause.REFUSED, f"the peer sent an Error that cannot be read: {fault.reason}")
        match message:
            case Error(type=kind, code=code, data=data):
                text = _printable(data) if kind == ErrorType.HELLO_FAILED else ""
                return self._close(Cause.REFUSED, f"the peer refused: {error_name(kind, code)} {text}".rstrip())
            case Hello(versions=versions, version=highest, xid=xid):
                version = negotiate(self.versions, message)
                if version is None:
                    ours, theirs = _version_names(sorted(self.versions)), _version_names(versions or (highest,))
                    return self._disagree(xid, f"{ours} is spoken here, {theirs} was offered")
                self._move(Cause.AGREED)
                return Negotiated(version)
        return None

    def _on_message(self, raw: bytes, version: int, kind: int, xid: int) -> Event | None:
        if self.snoop is not None:
            self.snoop(raw)
        if self.queued_bytes > MAX_QUEUED_BYTES:
            return self._close_congested()
        try:
            decoder = _WHOLE.get(kind)
            if decoder is not None and version == OFP_VERSION:
                message: Message | None = decoder(raw, xid)
            else:
                message = self._multiparts.join(raw) if kind == _MULTIPART_REQUEST else decode(raw)
        except MultipartOverrunError as excess:
            self._queue_error(excess, xid, raw)
            return self._close(Cause.CONGESTED, excess.reason)
        except ProtocolError as fault:
            self._queue_error(fault, xid, raw)
            return None
        if kind > _ECHO_REPLY:
            return None if message is None else _new(MessageReceived, (self.number, message, raw))
        match message:
            case EchoRequest(data=data):
                self._queue_message(EchoReply(data, xid=xid))
            case Error():
                return MessageReceived(self.number, message, raw)
        return None

    # ── messages of our own ────────────────────────────────────────────────────────────────────────────────────────────
    def _xid(self) -> int:
        xid = self._next_xid
        self._next_xid = xid % 0xFFFFFFFF + 1
        return xid

    def _queue_message(self, message: Message) -> None:
        if isinstance(message, MultipartReply) and isinstance(message.body, FlowStatsReply) and message.body.is_long:
            self._queue.append(encode_in_parts(message))
            self.queued_bytes += UNMADE_BYTES
            return
        self._queue_bytes(encode(message))

    def _queue_bytes(self, data: bytes) -> None:
        """Of whole messages."""
        if self.snoop is not None:
            self.snoop(data)
        self._queue.append(data)
        self.queued_bytes += len(data)

    def _queue_error(self, fault: ProtocolError, xid: int, raw: bytes) -> None:
        self._queue_message(Error(fault.type, fault.code, raw[:ERROR_DATA_BYTES], xid=xid))

    def _disagree(self, xid: int, reason: str) -> ConnectionClosed:
        self._queue_message(Error(ErrorType.HELLO_FAILED, HelloFailed.INCOMPATIBLE, reason.encode("ascii", "replace"), xid=xid))
        return self._close(Cause.DISAGREED, reason)

    def _move(self, cause: Cause) -> None:
        self.state = TRANSITIONS[self.state, cause]

    def _close_congested(self) -> ConnectionClosed:
        waiting = self.queued_bytes
        self._queue.clear()  # the peer would not read these either
        self.queued_bytes = 0
        return self._close(Cause.CONGESTED, f"{waiting} bytes wait for a peer that does not read")

    def _close(self, cause: Cause, reason: str) -> ConnectionClosed:
        self._move(cause)
        self._multiparts = _Multiparts()
        return ConnectionClosed(reason)


def _version_names(versions: Iterable[int]) -> str:
    return "OpenFlow " + ", ".join(f"1.{version - 1}" if 1 <= version <= 6 else f"{version:#04x}" for version in versions)


def _printable(text: bytes) -> str:
    """The start of a peer's text, fit for a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT_BYTES].decode("ascii", "replace"))


class MultipartOverrunError(ProtocolError):
    """The peer has begun more multipart requests than are kept track of: later parts could not be told from new requests."""


class _Multiparts:
    """Parts of multipart requests that are not complete, by xid; None for one that was refused and whose other parts still come."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[int, bytearray] | None] = {}

    def join(self, raw: bytes) -> Message | None:
        """The request that this part completes (or is); None if more are to come. Raises ProtocolError once for a bad one."""
        if raw[0] != OFP_VERSION:
            return decode(raw)
        kind, flags = multipart_head(raw)
        xid = int.from_bytes(raw[4:8], "big")
        if not flags & MORE and xid not in self._parts:
            return decode(raw)
        if xid not in self._parts and len(self._parts) >= MAX_MULTIPART_REQUESTS:
            raise MultipartOverrunError(
                ErrorType.BAD_REQUEST, BadRequest.MULTIPART_BUFFER_OVERFLOW, "too many multipart requests at once"
            )
        entry = self._parts.pop(xid, (kind, bytearray()))
        if flags & MORE:
            self._parts[xid] = None
        if entry is None:
            return None
        first_kind, body = entry
        if kind != first_kind:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_MULTIPART, f"a part of type {kind} after {first_kind}")
        held = sum(len(other[1]) for other in self._parts.values() if other is not None)
        if held + len(body) + len(raw) - MULTIPART_BYTES > MAX_MULTIPART_BYTES:
            raise ProtocolError(
                ErrorType.BAD_REQUEST, BadRequest.MULTIPART_BUFFER_OVERFLOW, "the parts of multipart requests are too long"
            )
        body += raw[MULTIPART_BYTES:]
        if flags & MORE:
            self._parts[xid] = (kind, body)
            return None
        return MultipartRequest(decode_request_body(kind, bytes(body)), xid=xid)
