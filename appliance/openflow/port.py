"""Ports: PortStatus, PortMod, and the multipart bodies that describe and count (specification 1.3.5, 7.3.4, 7.3.5, 7.4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from appliance.model.ports import Port, PortConfig, PortCounters, PortNo, PortState
from appliance.openflow.constants import HEADER_BYTES, MessageType, MultipartType
from appliance.openflow.errors import BadRequest, ErrorType, PortModFailed, ProtocolError
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import BodyCodec, Codec, bad_length, decode_text, empty_body, encode_text, exactly, member

OFP_MAX_PORT_NAME_LEN = 16
PORT_CONFIG_BITS = int(PortConfig.PORT_DOWN | PortConfig.NO_RECV | PortConfig.NO_FWD | PortConfig.NO_PACKET_IN)
PORT_FEATURE_BITS = 0xFFFF
"""OFPPF_*: 16 features."""

_PORT = Struct("!I4x6s2x16sIIIIIIII")
_STATUS = Struct("!B7x")
_MOD = Struct("!I4x6s2xIII4x")
_STATS_REQUEST = Struct("!I4x")
_STATS = Struct("!I4x12QII")


class PortReason(IntEnum):
    """OFPPR_*: what changed."""

    ADD = 0
    DELETE = 1
    MODIFY = 2


@dataclass(frozen=True, slots=True)
class PortStatus(MessageBase):
    reason: PortReason
    port: Port


@dataclass(frozen=True, slots=True)
class PortMod(MessageBase):
    """``mask`` says which bits of ``config`` to change; ``advertise`` 0 changes nothing."""

    port_no: int
    hw_addr: bytes
    config: PortConfig = PortConfig.NONE
    mask: PortConfig = PortConfig.NONE
    advertise: int = 0


@dataclass(frozen=True, slots=True)
class PortStatsRequest:
    port_no: int = PortNo.ANY


@dataclass(frozen=True, slots=True)
class PortStats:
    port_no: int
    counters: PortCounters
    duration_sec: int
    duration_nsec: int


@dataclass(frozen=True, slots=True)
class PortStatsReply:
    entries: tuple[PortStats, ...] = ()


@dataclass(frozen=True, slots=True)
class PortDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class PortDescReply:
    ports: tuple[Port, ...] = ()


# ── struct ofp_port ────────────────────────────────────────────────────────────────────────────────────────────────────
def decode_port(data: bytes, position: int) -> Port:
    """The caller has made sure that its 64 bytes are there."""
    number, hw_addr, name, config, state, *rest = _PORT.unpack_from(data, position)
    return Port(number, decode_text(name), hw_addr, PortConfig(config), PortState(state), *rest)


def encode_port(port: Port) -> bytes:
    """A name longer than 15 bytes is cut."""
    return _PORT.pack(
        port.number,
        port.hw_addr,
        encode_text(port.name, OFP_MAX_PORT_NAME_LEN),
        port.config,
        port.state,
        port.curr,
        port.advertised,
        port.supported,
        port.peer,
        port.curr_speed,
        port.max_speed,
    )


# ── messages ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def decode_port_status(data: bytes, xid: int) -> PortStatus:
    exactly(data, HEADER_BYTES + _STATUS.size + _PORT.size)
    reason = member(PortReason, data[HEADER_BYTES], ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE)
    return PortStatus(reason, decode_port(data, HEADER_BYTES + _STATUS.size), xid=xid)


def encode_port_status(message: PortStatus) -> bytes:
    return _STATUS.pack(message.reason) + encode_port(message.port)


def decode_port_mod(data: bytes, xid: int) -> PortMod:
    exactly(data, HEADER_BYTES + _MOD.size)
    port_no, hw_addr, config, mask, advertise = _MOD.unpack_from(data, HEADER_BYTES)
    if (config | mask) & ~PORT_CONFIG_BITS:
        raise ProtocolError(ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_CONFIG, f"config {config:#x}, mask {mask:#x}")
    if advertise & ~PORT_FEATURE_BITS:
        raise ProtocolError(ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_ADVERTISE, f"features {advertise:#x}")
    return PortMod(port_no, hw_addr, PortConfig(config), PortConfig(mask), advertise, xid=xid)


def encode_port_mod(message: PortMod) -> bytes:
    return _MOD.pack(message.port_no, message.hw_addr, message.config, message.mask, message.advertise)


# ── bodies of multipart messages ───────────────────────────────────────────────────────────────────────────────────────
def decode_port_stats_request(data: bytes) -> PortStatsRequest:
    exactly(data, _STATS_REQUEST.size)
    return PortStatsRequest(*_STATS_REQUEST.unpack(data))


def encode_port_stats_request(body: PortStatsRequest) -> list[bytes]:
    return [_STATS_REQUEST.pack(body.port_no)]


def decode_port_stats(data: bytes) -> PortStatsReply:
    if len(data) % _STATS.size:
        raise bad_length(f"port statistics of {len(data)} bytes")
    return PortStatsReply(tuple(PortStats(row[0], PortCounters(*row[1:13]), row[13], row[14]) for row in _STATS.iter_unpack(data)))


def _encode_stats(entry: PortStats) -> bytes:
    counters = entry.counters
    return _STATS.pack(
        entry.port_no,
        counters.rx_packets,
        counters.tx_packets,
        counters.rx_bytes,
        counters.tx_bytes,
        counters.rx_dropped,
        counters.tx_dropped,
        counters.rx_errors,
        counters.tx_errors,
        counters.rx_frame_err,
        counters.rx_over_err,
        counters.rx_crc_err,
        counters.collisions,
        entry.duration_sec,
        entry.duration_nsec,
    )


def encode_port_stats(body: PortStatsReply) -> list[bytes]:
    return [_encode_stats(entry) for entry in body.entries]


def decode_port_desc(data: bytes) -> PortDescReply:
    if len(data) % _PORT.size:
        raise bad_length(f"port descriptions of {len(data)} bytes")
    return PortDescReply(tuple(decode_port(data, position) for position in range(0, len(data), _PORT.size)))


def encode_port_desc(body: PortDescReply) -> list[bytes]:
    return [encode_port(port) for port in body.ports]


CODECS = (
    Codec(MessageType.PORT_STATUS, PortStatus, decode_port_status, encode_port_status),
    Codec(MessageType.PORT_MOD, PortMod, decode_port_mod, encode_port_mod),
)
REQUESTS = (
    BodyCodec(MultipartType.PORT_STATS, PortStatsRequest, decode_port_stats_request, encode_port_stats_request),
    empty_body(MultipartType.PORT_DESC, PortDescRequest),
)
REPLIES = (
    BodyCodec(MultipartType.PORT_STATS, PortStatsReply, decode_port_stats, encode_port_stats),
    BodyCodec(MultipartType.PORT_DESC, PortDescReply, decode_port_desc, encode_port_desc),
)
