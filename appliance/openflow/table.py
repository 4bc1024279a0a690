"""Tables: TableMod and table statistics (specification 1.3.5, sections 7.3.3 and 7.3.5.4)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from appliance.openflow.constants import HEADER_BYTES, MessageType, MultipartType
from appliance.openflow.errors import ErrorType, ProtocolError, TableModFailed
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import BodyCodec, Codec, bad_length, empty_body, exactly

OFPTC_DEPRECATED_MASK = 3

_MOD = Struct("!B3xI")
_STATS = Struct("!B3xIQQ")


@dataclass(frozen=True, slots=True)
class TableMod(MessageBase):
    """``config`` has no meaning left in OpenFlow 1.3: OFPTC_DEPRECATED_MASK."""

    table_id: int
    config: int = 0


@dataclass(frozen=True, slots=True)
class TableStatsRequest:
    pass


@dataclass(frozen=True, slots=True)
class TableStats:
    table_id: int
    active_count: int
    lookup_count: int
    matched_count: int


@dataclass(frozen=True, slots=True)
class TableStatsReply:
    entries: tuple[TableStats, ...] = ()


def decode_table_mod(data: bytes, xid: int) -> TableMod:
    exactly(data, HEADER_BYTES + _MOD.size)
    table_id, config = _MOD.unpack_from(data, HEADER_BYTES)
    if config & ~OFPTC_DEPRECATED_MASK:
        raise ProtocolError(ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_CONFIG, f"config {config:#x}")
    return TableMod(table_id, config, xid=xid)


def encode_table_mod(message: TableMod) -> bytes:
    return _MOD.pack(message.table_id, message.config)


def decode_table_stats(data: bytes) -> TableStatsReply:
    if len(data) % _STATS.size:
        raise bad_length(f"table statistics of {len(data)} bytes")
    return TableStatsReply(tuple(TableStats(*row) for row in _STATS.iter_unpack(data)))


def encode_table_stats(body: TableStatsReply) -> list[bytes]:
    return [_STATS.pack(entry.table_id, entry.active_count, entry.lookup_count, entry.matched_count) for entry in body.entries]


CODECS = (Codec(MessageType.TABLE_MOD, TableMod, decode_table_mod, encode_table_mod),)
REQUESTS = (empty_body(MultipartType.TABLE, TableStatsRequest),)
REPLIES = (BodyCodec(MultipartType.TABLE, TableStatsReply, decode_table_stats, encode_table_stats),)
