"""Queues: configuration and statistics (specification 1.3.5, sections 7.3.6 and 7.3.5.8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from appliance.model.ports import PortNo
from appliance.openflow.constants import HEADER_BYTES, OFPQ_ALL, MessageType, MultipartType
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import TYPE_LENGTH, BodyCodec, Codec, at_least, bad_length, exactly

_CONFIG = Struct("!I4x")
_QUEUE = Struct("!IIH6x")
_PROPERTY_BYTES = 16
_RATE = Struct("!HH4xH6x")
_EXPERIMENTER = Struct("!HH4xI4x")
_STATS_REQUEST = Struct("!II")
_STATS = Struct("!IIQQQII")


class QueuePropertyType(IntEnum):
    """OFPQT_*."""

    MIN_RATE = 1
    MAX_RATE = 2
    EXPERIMENTER = 0xFFFF


@dataclass(frozen=True, slots=True)
class QueueMinRate:
    """``rate`` in tenths of a per cent; more than 1,000 is "not configured"."""

    rate: int


@dataclass(frozen=True, slots=True)
class QueueMaxRate:
    rate: int


@dataclass(frozen=True, slots=True)
class QueueExperimenter:
    experimenter: int
    data: bytes = b""


QueueProperty = QueueMinRate | QueueMaxRate | QueueExperimenter


@dataclass(frozen=True, slots=True)
class PacketQueue:
    queue_id: int
    port: int
    properties: tuple[QueueProperty, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueGetConfigRequest(MessageBase):
    port: int = PortNo.ANY


@dataclass(frozen=True, slots=True)
class QueueGetConfigReply(MessageBase):
    port: int = PortNo.ANY
    queues: tuple[PacketQueue, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueStatsRequest:
    port_no: int = PortNo.ANY
    queue_id: int = OFPQ_ALL


@dataclass(frozen=True, slots=True)
class QueueStats:
    port_no: int
    queue_id: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    duration_sec: int
    duration_nsec: int


@dataclass(frozen=True, slots=True)
class QueueStatsReply:
    entries: tuple[QueueStats, ...] = ()


# ── queues and their properties ────────────────────────────────────────────────────────────────────────────────────────
def _properties(data: bytes, position: int, end: int) -> Iterator[QueueProperty]:
    while position < end:
        at_least(data[:end], position + _PROPERTY_BYTES)
        kind, length = TYPE_LENGTH.unpack_from(data, position)
        if length < _PROPERTY_BYTES or position + length > end:
            raise bad_length(f"queue property of {length} bytes")
        if kind == QueuePropertyType.EXPERIMENTER:
            (_, _, experimenter) = _EXPERIMENTER.unpack_from(data, position)
            yield QueueExperimenter(experimenter, data[position + _EXPERIMENTER.size : position + length])
        elif kind not in (QueuePropertyType.MIN_RATE, QueuePropertyType.MAX_RATE):
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE, f"queue property type {kind}")
        elif length != _PROPERTY_BYTES:
            raise bad_length(f"queue property of {length} bytes")
        else:
            (_, _, rate) = _RATE.unpack_from(data, position)
            yield QueueMinRate(rate) if kind == QueuePropertyType.MIN_RATE else QueueMaxRate(rate)
        position += length


def _encode_property(item: QueueProperty) -> bytes:
    match item:
        case QueueMinRate(rate):
            return _RATE.pack(QueuePropertyType.MIN_RATE, _PROPERTY_BYTES, rate)
        case QueueMaxRate(rate):
            return _RATE.pack(QueuePropertyType.MAX_RATE, _PROPERTY_BYTES, rate)
        case QueueExperimenter(experimenter, data):
            return _EXPERIMENTER.pack(QueuePropertyType.EXPERIMENTER, _EXPERIMENTER.size + len(data), experimenter) + data


def _queues(data: bytes, position: int) -> Iterator[PacketQueue]:
    while position < len(data):
        start = position + _QUEUE.size
        at_least(data, start)
        queue_id, port, length = _QUEUE.unpack_from(data, position)
        position += length
        if start > position or position > len(data):
            raise bad_length(f"queue of {length} bytes")
        yield PacketQueue(queue_id, port, tuple(_properties(data, start, position)))


def _encode_queue(queue: PacketQueue) -> bytes:
    properties = b"".join([_encode_property(item) for item in queue.properties])
    return _QUEUE.pack(queue.queue_id, queue.port, _QUEUE.size + len(properties)) + properties


# ── messages ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def decode_queue_get_config_request(data: bytes, xid: int) -> QueueGetConfigRequest:
    exactly(data, HEADER_BYTES + _CONFIG.size)
    return QueueGetConfigRequest(*_CONFIG.unpack_from(data, HEADER_BYTES), xid=xid)


def encode_queue_get_config_request(message: QueueGetConfigRequest) -> bytes:
    return _CONFIG.pack(message.port)


def decode_queue_get_config_reply(data: bytes, xid: int) -> QueueGetConfigReply:
    start = HEADER_BYTES + _CONFIG.size
    at_least(data, start)
    (port,) = _CONFIG.unpack_from(data, HEADER_BYTES)
    return QueueGetConfigReply(port, tuple(_queues(data, start)), xid=xid)


def encode_queue_get_config_reply(message: QueueGetConfigReply) -> bytes:
    return _CONFIG.pack(message.port) + b"".join([_encode_queue(queue) for queue in message.queues])


# ── bodies of multipart messages ───────────────────────────────────────────────────────────────────────────────────────
def decode_queue_stats_request(data: bytes) -> QueueStatsRequest:
    exactly(data, _STATS_REQUEST.size)
    return QueueStatsRequest(*_STATS_REQUEST.unpack(data))


def encode_queue_stats_request(body: QueueStatsRequest) -> list[bytes]:
    return [_STATS_REQUEST.pack(body.port_no, body.queue_id)]


def decode_queue_stats(data: bytes) -> QueueStatsReply:
    if len(data) % _STATS.size:
        raise bad_length(f"queue statistics of {len(data)} bytes")
    return QueueStatsReply(tuple(QueueStats(*row) for row in _STATS.iter_unpack(data)))


def _encode_stats(entry: QueueStats) -> bytes:
    return _STATS.pack(
        entry.port_no,
        entry.queue_id,
        entry.tx_bytes,
        entry.tx_packets,
        entry.tx_errors,
        entry.duration_sec,
        entry.duration_nsec,
    )


def encode_queue_stats(body: QueueStatsReply) -> list[bytes]:
    return [_encode_stats(entry) for entry in body.entries]


CODECS = (
    Codec(
        MessageType.QUEUE_GET_CONFIG_REQUEST,
        QueueGetConfigRequest,
        decode_queue_get_config_request,
        encode_queue_get_config_request,
    ),
    Codec(MessageType.QUEUE_GET_CONFIG_REPLY, QueueGetConfigReply, decode_queue_get_config_reply, encode_queue_get_config_reply),
)
REQUESTS = (BodyCodec(MultipartType.QUEUE, QueueStatsRequest, decode_queue_stats_request, encode_queue_stats_request),)
REPLIES = (BodyCodec(MultipartType.QUEUE, QueueStatsReply, decode_queue_stats, encode_queue_stats),)
