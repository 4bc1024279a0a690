"""Controller roles and asynchronous configuration (specification 1.3.5, sections 7.3.9 and 7.3.10)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from appliance.openflow.message import Message


class Role(IntEnum):
    """OFPCR_ROLE_*."""

    NOCHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


@dataclass(frozen=True, slots=True)
class RoleRequest(Message):
    role: Role
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class RoleReply(Message):
    role: Role
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class GetAsyncRequest(Message):
    pass


@dataclass(frozen=True, slots=True)
class GetAsyncReply(Message):
    """Each mask is a pair of bitmaps of 1 << reason: for the roles master or equal, and for slave."""

    packet_in_mask: tuple[int, int] = (0, 0)
    port_status_mask: tuple[int, int] = (0, 0)
    flow_removed_mask: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class SetAsync(Message):
    """As GetAsyncReply."""

    packet_in_mask: tuple[int, int] = (0, 0)
    port_status_mask: tuple[int, int] = (0, 0)
    flow_removed_mask: tuple[int, int] = (0, 0)
