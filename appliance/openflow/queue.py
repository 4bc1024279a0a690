"""Queues: configuration and statistics (specification 1.3.5, sections 7.3.6 and 7.3.5.8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPQ_ALL
from appliance.openflow.message import Message


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
class QueueGetConfigRequest(Message):
    port: int = PortNo.ANY


@dataclass(frozen=True, slots=True)
class QueueGetConfigReply(Message):
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
