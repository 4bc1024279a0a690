"""MultipartRequest and MultipartReply, whose bodies the other modules define, and Desc (specification 1.3.5, section 7.3.5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

from appliance.openflow import flow_statistics, group, meter, port, queue, table, table_features
from appliance.openflow.constants import HEADER_BYTES, MAX_MESSAGE_BYTES, MORE, MultipartType
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError
from appliance.openflow.flow_statistics import AggregateStats, AggregateStatsRequest, FlowStatsReply, FlowStatsRequest
from appliance.openflow.group import (
    GroupDescReply,
    GroupDescRequest,
    GroupFeatures,
    GroupFeaturesRequest,
    GroupStatsReply,
    GroupStatsRequest,
)
from appliance.openflow.message import MessageBase
from appliance.openflow.meter import (
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeatures,
    MeterFeaturesRequest,
    MeterStatsReply,
    MeterStatsRequest,
)
from appliance.openflow.port import PortDescReply, PortDescRequest, PortStatsReply, PortStatsRequest
from appliance.openflow.queue import QueueStatsReply, QueueStatsRequest
from appliance.openflow.table import TableStatsReply, TableStatsRequest
from appliance.openflow.table_features import TableFeaturesReply, TableFeaturesRequest
from appliance.openflow.wire import BodyCodec, at_least, decode_text, empty_body, encode_text, exactly

DESC_STR_LEN = 256
SERIAL_NUM_LEN = 32
MULTIPART_BYTES = 16
"""What comes before the body: the header, type and flags."""

_HEAD = Struct("!HH4x")
_DESC = Struct(f"!{DESC_STR_LEN}s{DESC_STR_LEN}s{DESC_STR_LEN}s{SERIAL_NUM_LEN}s{DESC_STR_LEN}s")
_EXPERIMENTER = Struct("!II")


@dataclass(frozen=True, slots=True)
class DescRequest:
    pass


@dataclass(frozen=True, slots=True)
class Desc:
    """Texts of at most 255 bytes in UTF-8 (``serial_num``: 31); longer ones are cut."""

    mfr_desc: str = ""
    hw_desc: str = ""
    sw_desc: str = ""
    serial_num: str = ""
    dp_desc: str = ""


@dataclass(frozen=True, slots=True)
class ExperimenterMultipart:
    """The body of an experimenter's multipart request or reply."""

    experimenter: int
    exp_type: int
    data: bytes = b""


MultipartRequestBody = (
    DescRequest
    | FlowStatsRequest
    | AggregateStatsRequest
    | TableStatsRequest
    | PortStatsRequest
    | QueueStatsRequest
    | GroupStatsRequest
    | GroupDescRequest
    | GroupFeaturesRequest
    | MeterStatsRequest
    | MeterConfigRequest
    | MeterFeaturesRequest
    | TableFeaturesRequest
    | PortDescRequest
    | ExperimenterMultipart
)
MultipartReplyBody = (
    Desc
    | FlowStatsReply
    | AggregateStats
    | TableStatsReply
    | PortStatsReply
    | QueueStatsReply
    | GroupStatsReply
    | GroupDescReply
    | GroupFeatures
    | MeterStatsReply
    | MeterConfigReply
    | MeterFeatures
    | TableFeaturesReply
    | PortDescReply
    | ExperimenterMultipart
)


@dataclass(frozen=True, slots=True)
class MultipartRequest(MessageBase):
    """``flags`` has constants.MORE where another part follows; ``Connection`` joins parts, so that its messages never have it."""

    body: MultipartRequestBody
    flags: int = 0


@dataclass(frozen=True, slots=True)
class MultipartReply(MessageBase):
    """As MultipartRequest."""

    body: MultipartReplyBody
    flags: int = 0


# ── the bodies that no other module has ────────────────────────────────────────────────────────────────────────────────
def decode_desc(data: bytes) -> Desc:
    exactly(data, _DESC.size)
    return Desc(*map(decode_text, _DESC.unpack(data)))


def encode_desc(body: Desc) -> list[bytes]:
    return [
        _DESC.pack(
            encode_text(body.mfr_desc, DESC_STR_LEN),
            encode_text(body.hw_desc, DESC_STR_LEN),
            encode_text(body.sw_desc, DESC_STR_LEN),
            encode_text(body.serial_num, SERIAL_NUM_LEN),
            encode_text(body.dp_desc, DESC_STR_LEN),
        )
    ]


def decode_experimenter(data: bytes) -> ExperimenterMultipart:
    at_least(data, _EXPERIMENTER.size)
    experimenter, exp_type = _EXPERIMENTER.unpack_from(data)
    return ExperimenterMultipart(experimenter, exp_type, data[_EXPERIMENTER.size :])


def encode_experimenter(body: ExperimenterMultipart) -> list[bytes]:
    return [_EXPERIMENTER.pack(body.experimenter, body.exp_type) + body.data]


_EXPERIMENTER_BODY = BodyCodec(MultipartType.EXPERIMENTER, ExperimenterMultipart, decode_experimenter, encode_experimenter)

_REQUESTS: tuple[BodyCodec, ...] = (
    empty_body(MultipartType.DESC, DescRequest),
    *flow_statistics.REQUESTS,
    *table.REQUESTS,
    *port.REQUESTS,
    *queue.REQUESTS,
    *group.REQUESTS,
    *meter.REQUESTS,
    *table_features.REQUESTS,
    _EXPERIMENTER_BODY,
)
_REPLIES: tuple[BodyCodec, ...] = (
    BodyCodec(MultipartType.DESC, Desc, decode_desc, encode_desc),
    *flow_statistics.REPLIES,
    *table.REPLIES,
    *port.REPLIES,
    *queue.REPLIES,
    *group.REPLIES,
    *meter.REPLIES,
    *table_features.REPLIES,
    _EXPERIMENTER_BODY,
)
_REQUEST_BY_TYPE: dict[int, BodyCodec] = {row.kind: row for row in _REQUESTS}
_REPLY_BY_TYPE: dict[int, BodyCodec] = {row.kind: row for row in _REPLIES}
_REQUEST_BY_CLASS = {row.body: row for row in _REQUESTS}
_REPLY_BY_CLASS = {row.body: row for row in _REPLIES}


# ── the messages ───────────────────────────────────────────────────────────────────────────────────────────────────────
def multipart_head(data: bytes) -> tuple[int, int]:
    """(type, flags) of a whole multipart message."""
    at_least(data, MULTIPART_BYTES)
    kind, flags = _HEAD.unpack_from(data, HEADER_BYTES)
    return kind, flags


def decode_request_body(kind: int, body: bytes) -> MultipartRequestBody:
    """The body of a request, all its parts joined. BAD_MULTIPART for a type that OpenFlow 1.3 does not have."""
    row = _REQUEST_BY_TYPE.get(kind)
    if row is None:
        raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_MULTIPART, f"multipart type {kind}")
    decoded: MultipartRequestBody = row.decode(body)
    return decoded


def decode_multipart_request(data: bytes, xid: int) -> MultipartRequest:
    kind, flags = multipart_head(data)
    return MultipartRequest(decode_request_body(kind, data[MULTIPART_BYTES:]), flags, xid=xid)


def decode_multipart_reply(data: bytes, xid: int) -> MultipartReply:
    kind, flags = multipart_head(data)
    row = _REPLY_BY_TYPE.get(kind)
    if row is None:
        raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_MULTIPART, f"multipart type {kind}")
    return MultipartReply(row.decode(data[MULTIPART_BYTES:]), flags, xid=xid)


def _messages(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Bodies made of whole pieces, each as long as a message can hold; at least one, maybe empty."""
    body: list[bytes] = []
    size = MULTIPART_BYTES
    for piece in pieces:
        if size + len(piece) > MAX_MESSAGE_BYTES and body:
            yield b"".join(body)
            body, size = [], MULTIPART_BYTES
        body.append(piece)
        size += len(piece)
    yield b"".join(body)


def encode_multipart(message: MultipartRequest | MultipartReply) -> Iterator[bytes]:
    """What follows the header in each message that the request or reply takes; all but the last have the flag MORE.

    Each is made when it is asked for, one ahead.
    """
    rows = _REQUEST_BY_CLASS if isinstance(message, MultipartRequest) else _REPLY_BY_CLASS
    row = rows[type(message.body)]
    bodies = _messages(row.encode(message.body))
    body = next(bodies)
    for following in bodies:
        yield _HEAD.pack(row.kind, message.flags | MORE) + body
        body = following
    yield _HEAD.pack(row.kind, message.flags) + body
