"""Handshake, switch configuration and barrier (specification 1.3.5, sections 7.3.1, 7.3.2 and 7.3.8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

from appliance.openflow.constants import HEADER_BYTES, MessageType
from appliance.openflow.errors import ErrorType, SwitchConfigFailed
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import Codec, empty_message, exactly, member

_FEATURES = Struct("!QIBB2xI4x")
_CONFIG = Struct("!HH")


class Capabilities(IntFlag):
    """OFPC_*: what FeaturesReply promises."""

    FLOW_STATS = 1 << 0
    TABLE_STATS = 1 << 1
    PORT_STATS = 1 << 2
    GROUP_STATS = 1 << 3
    IP_REASM = 1 << 5
    QUEUE_STATS = 1 << 6
    PORT_BLOCKED = 1 << 8


class FragmentHandling(IntEnum):
    """OFPC_FRAG_*: the flags of the switch configuration."""

    NORMAL = 0
    DROP = 1
    REASM = 2


@dataclass(frozen=True, slots=True)
class FeaturesRequest(MessageBase):
    pass


@dataclass(frozen=True, slots=True)
class FeaturesReply(MessageBase):
    datapath_id: int
    n_buffers: int = 0
    n_tables: int = 0
    auxiliary_id: int = 0
    capabilities: int = 0


@dataclass(frozen=True, slots=True)
class GetConfigRequest(MessageBase):
    pass


@dataclass(frozen=True, slots=True)
class GetConfigReply(MessageBase):
    flags: FragmentHandling
    miss_send_len: int


@dataclass(frozen=True, slots=True)
class SetConfig(MessageBase):
    flags: FragmentHandling
    miss_send_len: int


@dataclass(frozen=True, slots=True)
class BarrierRequest(MessageBase):
    pass


@dataclass(frozen=True, slots=True)
class BarrierReply(MessageBase):
    pass


def decode_features_reply(data: bytes, xid: int) -> FeaturesReply:
    exactly(data, HEADER_BYTES + _FEATURES.size)
    return FeaturesReply(*_FEATURES.unpack_from(data, HEADER_BYTES), xid=xid)


def encode_features_reply(message: FeaturesReply) -> bytes:
    return _FEATURES.pack(message.datapath_id, message.n_buffers, message.n_tables, message.auxiliary_id, message.capabilities)


def _decode_config(data: bytes) -> tuple[FragmentHandling, int]:
    exactly(data, HEADER_BYTES + _CONFIG.size)
    flags, miss_send_len = _CONFIG.unpack_from(data, HEADER_BYTES)
    return member(FragmentHandling, flags, ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_FLAGS), miss_send_len


def encode_config(message: GetConfigReply | SetConfig) -> bytes:
    return _CONFIG.pack(message.flags, message.miss_send_len)


CODECS = (
    empty_message(MessageType.FEATURES_REQUEST, FeaturesRequest),
    Codec(MessageType.FEATURES_REPLY, FeaturesReply, decode_features_reply, encode_features_reply),
    empty_message(MessageType.GET_CONFIG_REQUEST, GetConfigRequest),
    Codec(
        MessageType.GET_CONFIG_REPLY,
        GetConfigReply,
        lambda data, xid: GetConfigReply(*_decode_config(data), xid=xid),
        encode_config,
    ),
    Codec(MessageType.SET_CONFIG, SetConfig, lambda data, xid: SetConfig(*_decode_config(data), xid=xid), encode_config),
    empty_message(MessageType.BARRIER_REQUEST, BarrierRequest),
    empty_message(MessageType.BARRIER_REPLY, BarrierReply),
)
