"""Meters: MeterMod and the multipart bodies (specification 1.3.5, sections 7.3.4.4, 7.3.5.12 to 7.3.5.14)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

from appliance.openflow.constants import HEADER_BYTES, MAX_MESSAGE_BYTES, OFPM_ALL, MessageType, MultipartType
from appliance.openflow.errors import ErrorType, MeterModFailed, ProtocolError
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import BodyCodec, Codec, at_least, bad_length, empty_body, exactly, member

MAX_METER_MOD_BYTES = MAX_MESSAGE_BYTES - 40
"""A meter's statistics and configuration take up to 40 bytes more than the meter-mod that made it, and must fit in one message."""

_MOD = Struct("!HHI")
_BAND = Struct("!HHII")
_BAND_REST = Struct("!I")
_BAND_BYTES = 16
_REQUEST = Struct("!I4x")
_STATS = Struct("!IH6xIQQII")
_BAND_STATS = Struct("!QQ")
_CONFIG = Struct("!HHI")
_FEATURES = Struct("!IIIBB2x")


class MeterModCommand(IntEnum):
    """OFPMC_*."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


class MeterFlags(IntFlag):
    """OFPMF_*."""

    NONE = 0
    KBPS = 1 << 0
    PKTPS = 1 << 1
    BURST = 1 << 2
    STATS = 1 << 3


class MeterBandType(IntEnum):
    """OFPMBT_*."""

    DROP = 1
    DSCP_REMARK = 2
    EXPERIMENTER = 0xFFFF


@dataclass(frozen=True, slots=True)
class MeterBandDrop:
    """``rate`` in kb/s or packets/s by the meter's flags, ``burst_size`` in kb or packets."""

    rate: int
    burst_size: int = 0


@dataclass(frozen=True, slots=True)
class MeterBandDscpRemark:
    rate: int
    burst_size: int = 0
    prec_level: int = 0


@dataclass(frozen=True, slots=True)
class MeterBandExperimenter:
    rate: int
    burst_size: int
    experimenter: int
    data: bytes = b""


MeterBand = MeterBandDrop | MeterBandDscpRemark | MeterBandExperimenter


@dataclass(frozen=True, slots=True)
class MeterMod(MessageBase):
    command: MeterModCommand
    flags: MeterFlags
    meter_id: int
    bands: tuple[MeterBand, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterStatsRequest:
    meter_id: int = OFPM_ALL


@dataclass(frozen=True, slots=True)
class MeterBandStats:
    packet_band_count: int
    byte_band_count: int


@dataclass(frozen=True, slots=True)
class MeterStats:
    meter_id: int
    flow_count: int
    packet_in_count: int
    byte_in_count: int
    duration_sec: int
    duration_nsec: int
    band_stats: tuple[MeterBandStats, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterStatsReply:
    entries: tuple[MeterStats, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterConfigRequest:
    meter_id: int = OFPM_ALL


@dataclass(frozen=True, slots=True)
class MeterConfig:
    flags: MeterFlags
    meter_id: int
    bands: tuple[MeterBand, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterConfigReply:
    entries: tuple[MeterConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class MeterFeatures:
    """``band_types`` is a bitmap of 1 << MeterBandType; ``capabilities`` are MeterFlags."""

    max_meter: int = 0
    band_types: int = 0
    capabilities: MeterFlags = MeterFlags.NONE
    max_bands: int = 0
    max_color: int = 0


# ── bands ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _meter_error(code: MeterModFailed, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.METER_MOD_FAILED, code, reason)


_FLAG_BITS = int(MeterFlags.KBPS | MeterFlags.PKTPS | MeterFlags.BURST | MeterFlags.STATS)


def _flags(bits: int) -> MeterFlags:
    if bits & ~_FLAG_BITS:
        raise _meter_error(MeterModFailed.BAD_FLAGS, f"flags {bits:#x}")
    return MeterFlags(bits)


def _bands(data: bytes, position: int, end: int) -> Iterator[MeterBand]:
    while position < end:
        if position + _BAND_BYTES > end:
            raise bad_length("the list ends inside a meter band")
        kind, length, rate, burst_size = _BAND.unpack_from(data, position)
        if length < _BAND_BYTES or length % 8 or position + length > end:
            raise bad_length(f"meter band of {length} bytes")
        rest = position + _BAND.size
        if kind == MeterBandType.EXPERIMENTER:
            (experimenter,) = _BAND_REST.unpack_from(data, rest)
            yield MeterBandExperimenter(rate, burst_size, experimenter, data[rest + _BAND_REST.size : position + length])
        elif kind not in (MeterBandType.DROP, MeterBandType.DSCP_REMARK):
            raise _meter_error(MeterModFailed.BAD_BAND, f"meter band type {kind}")
        elif length != _BAND_BYTES:
            raise bad_length(f"meter band of {length} bytes")
        elif kind == MeterBandType.DROP:
            yield MeterBandDrop(rate, burst_size)
        else:
            yield MeterBandDscpRemark(rate, burst_size, data[rest])
        position += length


def _encode_band(band: MeterBand) -> bytes:
    match band:
        case MeterBandDrop(rate, burst_size):
            return _BAND.pack(MeterBandType.DROP, _BAND_BYTES, rate, burst_size) + bytes(4)
        case MeterBandDscpRemark(rate, burst_size, prec_level):
            return _BAND.pack(MeterBandType.DSCP_REMARK, _BAND_BYTES, rate, burst_size) + bytes((prec_level, 0, 0, 0))
        case MeterBandExperimenter(rate, burst_size, experimenter, data):
            length = _BAND_BYTES + len(data)
            return _BAND.pack(MeterBandType.EXPERIMENTER, length, rate, burst_size) + _BAND_REST.pack(experimenter) + data


def _encode_bands(bands: Iterable[MeterBand]) -> bytes:
    return b"".join([_encode_band(band) for band in bands])


# ── MeterMod ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def decode_meter_mod(data: bytes, xid: int) -> MeterMod:
    start = HEADER_BYTES + _MOD.size
    at_least(data, start)
    command, flags, meter_id = _MOD.unpack_from(data, HEADER_BYTES)
    known = member(MeterModCommand, command, ErrorType.METER_MOD_FAILED, MeterModFailed.BAD_COMMAND)
    if len(data) > MAX_METER_MOD_BYTES:
        raise _meter_error(MeterModFailed.OUT_OF_BANDS, f"a meter-mod of {len(data)} bytes")
    return MeterMod(known, _flags(flags), meter_id, tuple(_bands(data, start, len(data))), xid=xid)


def encode_meter_mod(message: MeterMod) -> bytes:
    return _MOD.pack(message.command, message.flags, message.meter_id) + _encode_bands(message.bands)


# ── bodies of multipart messages ───────────────────────────────────────────────────────────────────────────────────────
def _decode_request(data: bytes) -> int:
    exactly(data, _REQUEST.size)
    return int(_REQUEST.unpack(data)[0])


def encode_request(body: MeterStatsRequest | MeterConfigRequest) -> list[bytes]:
    return [_REQUEST.pack(body.meter_id)]


def _stats(data: bytes) -> Iterator[MeterStats]:
    position = 0
    while position < len(data):
        start = position + _STATS.size
        at_least(data, start)
        meter_id, length, flow_count, packets, octets, sec, nsec = _STATS.unpack_from(data, position)
        position += length
        if start > position or position > len(data) or (length - _STATS.size) % _BAND_STATS.size:
            raise bad_length(f"meter statistics of {length} bytes")
        bands = tuple(MeterBandStats(*row) for row in _BAND_STATS.iter_unpack(data[start:position]))
        yield MeterStats(meter_id, flow_count, packets, octets, sec, nsec, bands)


def _encode_stats(entry: MeterStats) -> bytes:
    head = _STATS.pack(
        entry.meter_id,
        _STATS.size + _BAND_STATS.size * len(entry.band_stats),
        entry.flow_count,
        entry.packet_in_count,
        entry.byte_in_count,
        entry.duration_sec,
        entry.duration_nsec,
    )
    return head + b"".join([_BAND_STATS.pack(band.packet_band_count, band.byte_band_count) for band in entry.band_stats])


def _configs(data: bytes) -> Iterator[MeterConfig]:
    position = 0
    while position < len(data):
        start = position + _CONFIG.size
        at_least(data, start)
        length, flags, meter_id = _CONFIG.unpack_from(data, position)
        position += length
        if start > position or position > len(data):
            raise bad_length(f"meter configuration of {length} bytes")
        yield MeterConfig(_flags(flags), meter_id, tuple(_bands(data, start, position)))


def _encode_config(entry: MeterConfig) -> bytes:
    bands = _encode_bands(entry.bands)
    return _CONFIG.pack(_CONFIG.size + len(bands), entry.flags, entry.meter_id) + bands


def decode_meter_features(data: bytes) -> MeterFeatures:
    exactly(data, _FEATURES.size)
    max_meter, band_types, capabilities, max_bands, max_color = _FEATURES.unpack(data)
    return MeterFeatures(max_meter, band_types, MeterFlags(capabilities), max_bands, max_color)


def encode_meter_features(body: MeterFeatures) -> list[bytes]:
    return [_FEATURES.pack(body.max_meter, body.band_types, body.capabilities, body.max_bands, body.max_color)]


CODECS = (Codec(MessageType.METER_MOD, MeterMod, decode_meter_mod, encode_meter_mod),)
REQUESTS = (
    BodyCodec(MultipartType.METER, MeterStatsRequest, lambda data: MeterStatsRequest(_decode_request(data)), encode_request),
    BodyCodec(
        MultipartType.METER_CONFIG, MeterConfigRequest, lambda data: MeterConfigRequest(_decode_request(data)), encode_request
    ),
    empty_body(MultipartType.METER_FEATURES, MeterFeaturesRequest),
)
REPLIES = (
    BodyCodec(
        MultipartType.METER,
        MeterStatsReply,
        lambda data: MeterStatsReply(tuple(_stats(data))),
        lambda body: [_encode_stats(entry) for entry in body.entries],
    ),
    BodyCodec(
        MultipartType.METER_CONFIG,
        MeterConfigReply,
        lambda data: MeterConfigReply(tuple(_configs(data))),
        lambda body: [_encode_config(entry) for entry in body.entries],
    ),
    BodyCodec(MultipartType.METER_FEATURES, MeterFeatures, decode_meter_features, encode_meter_features),
)
