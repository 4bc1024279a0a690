"""Ports: PortStatus, PortMod, and the multipart bodies that describe and count (specification 1.3.5, 7.3.4, 7.3.5, 7.4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from appliance.model.ports import Port, PortConfig, PortCounters, PortNo
from appliance.openflow.message import Message


class PortReason(IntEnum):
    """OFPPR_*: what changed."""

    ADD = 0
    DELETE = 1
    MODIFY = 2


@dataclass(frozen=True, slots=True)
class PortStatus(Message):
    reason: PortReason
    port: Port


@dataclass(frozen=True, slots=True)
class PortMod(Message):
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
