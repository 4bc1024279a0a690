"""Handshake, switch configuration and barrier (specification 1.3.5, sections 7.3.1, 7.3.2 and 7.3.8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from appliance.openflow.message import Message


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
class FeaturesRequest(Message):
    pass


@dataclass(frozen=True, slots=True)
class FeaturesReply(Message):
    datapath_id: int
    n_buffers: int = 0
    n_tables: int = 0
    auxiliary_id: int = 0
    capabilities: int = 0


@dataclass(frozen=True, slots=True)
class GetConfigRequest(Message):
    pass


@dataclass(frozen=True, slots=True)
class GetConfigReply(Message):
    flags: FragmentHandling
    miss_send_len: int


@dataclass(frozen=True, slots=True)
class SetConfig(Message):
    flags: FragmentHandling
    miss_send_len: int


@dataclass(frozen=True, slots=True)
class BarrierRequest(Message):
    pass


@dataclass(frozen=True, slots=True)
class BarrierReply(Message):
    pass
