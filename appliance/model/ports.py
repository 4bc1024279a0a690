"""Ports: the reserved numbers, and what the switch knows of a port (specification 1.3.5, sections 4.5 and 7.2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import Final

MAX_PORT_NUMBER = 4095
"""Ports of the switch are numbered 1 to this (and LOCAL is one more): the fast path's port table is an array."""


class PortNo(IntEnum):
    """OFPP_*: reserved port numbers."""

    MAX = 0xFFFFFF00
    IN_PORT = 0xFFFFFFF8
    TABLE = 0xFFFFFFF9
    NORMAL = 0xFFFFFFFA
    FLOOD = 0xFFFFFFFB
    ALL = 0xFFFFFFFC
    CONTROLLER = 0xFFFFFFFD
    LOCAL = 0xFFFFFFFE
    ANY = 0xFFFFFFFF


LOCAL_PORT: Final = 0xFFFFFFFE
"""``PortNo.LOCAL`` as a plain number."""


def is_port_number(number: int) -> bool:
    """Whether a port of the switch can have this number: 1 to MAX_PORT_NUMBER, or that of OFPP_LOCAL."""
    return 0 < number <= MAX_PORT_NUMBER or number == LOCAL_PORT


class PortConfig(IntFlag):
    """OFPPC_*."""

    NONE = 0
    PORT_DOWN = 1 << 0
    NO_RECV = 1 << 2
    NO_FWD = 1 << 5
    NO_PACKET_IN = 1 << 6


class PortState(IntFlag):
    """OFPPS_*."""

    NONE = 0
    LINK_DOWN = 1 << 0
    BLOCKED = 1 << 1
    LIVE = 1 << 2


class Hook(str, Enum):
    """Where the fast path meets a port's packets. ``XDP`` has TC behind it for what XDP cannot do."""

    XDP = "xdp"
    TC = "tc"


@dataclass(frozen=True, slots=True)
class Port:
    """A port as OpenFlow describes it (struct ofp_port). Speeds are in kb/s, features are OFPPF_* bits."""

    number: int
    name: str
    hw_addr: bytes
    config: PortConfig = PortConfig.NONE
    state: PortState = PortState.NONE
    curr: int = 0
    advertised: int = 0
    supported: int = 0
    peer: int = 0
    curr_speed: int = 0
    max_speed: int = 0

    @property
    def up(self) -> bool:
        return not (self.state & PortState.LINK_DOWN or self.config & PortConfig.PORT_DOWN)


UNKNOWN_COUNT = 0xFFFFFFFFFFFFFFFF
"""A 64-bit counter that is not kept reads all ones (specification 1.3.5, section 5.8)."""


@dataclass(frozen=True, slots=True)
class PortCounters:
    """OFPMP_PORT_STATS counters of one port since it was added; all ones for one that is not kept."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_frame_err: int = UNKNOWN_COUNT
    rx_over_err: int = UNKNOWN_COUNT
    rx_crc_err: int = UNKNOWN_COUNT
    collisions: int = 0
