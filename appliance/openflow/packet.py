"""PacketIn and PacketOut (specification 1.3.5, sections 7.4.1 and 7.3.7)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model.actions import OFP_NO_BUFFER, Action
from appliance.model.match import Match
from appliance.model.megaflow import PacketInReason
from appliance.model.ports import PortNo
from appliance.openflow.message import Message


@dataclass(frozen=True, slots=True)
class PacketIn(Message):
    """``total_len`` is the frame's whole length, of which ``data`` may be only the start."""

    buffer_id: int
    total_len: int
    reason: PacketInReason
    table_id: int
    cookie: int
    match: Match
    data: bytes


@dataclass(frozen=True, slots=True)
class PacketOut(Message):
    buffer_id: int = OFP_NO_BUFFER
    in_port: int = PortNo.CONTROLLER
    actions: tuple[Action, ...] = ()
    data: bytes = b""
