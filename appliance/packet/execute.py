"""Execution of datapath actions: one frame in, the frames that leave, in order. The reference for every tier.

Invariant: an emission's frame is the packet as it was at that moment; what comes after does not change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.model.actions import (
    OFPCML_NO_BUFFER,
    CopyTtlIn,
    CopyTtlOut,
    DecMplsTtl,
    PopMpls,
    PopPbb,
    PushMpls,
    PushPbb,
    SetField,
)
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PacketInReason, PopTag, PushTag
from appliance.packet.rewrite import Rewriter

INVALID_TTL = Controller(PacketInReason.INVALID_TTL, table_id=0xFF, cookie=0xFFFFFFFFFFFFFFFF, max_len=OFPCML_NO_BUFFER)
"""What becomes of a packet whose TTL DecTtl or DecMplsTtl finds used up (0 or 1). No flow entry sent it up: its table and cookie
are all ones."""


@dataclass(frozen=True, slots=True)
class Emission:
    """The packet leaves by ``action``; who carries that out knows the ports. ``frame`` has its tags in it."""

    action: Forward | Flood | Controller
    frame: bytes


def execute(frame: bytes, actions: Sequence[DatapathAction], in_port: int, partial_checksum: bool = False) -> list[Emission]:
    """What ``actions`` make of ``frame``; empty if the packet is dropped. What each action does is in ``packet.rewrite``.

    The execution ends early at a DecTtl or DecMplsTtl that finds the TTL used up, with INVALID_TTL as the last emission.
    ``partial_checksum`` says that TCP or UDP holds only the pseudo-header's sum (``checksum.is_partial``); it then does so in every
    emission too. Tags from metadata must be in the frame. Raises ValueError for a SetField that no flow entry can have.
    """
    packet = Rewriter(frame, in_port, partial_checksum=partial_checksum)
    emissions: list[Emission] = []
    for action in actions:
        match action:
            case Forward() | Flood() | Controller():
                emissions.append(Emission(action, packet.frame))
            case SetField(field=field, value=value):
                packet.set_field(field, value)
            case PushTag(tpid=tpid, tci=tci):
                packet.push_tag(tpid, tci)
            case PopTag():
                packet.pop_tag()
            case PushMpls(ethertype=ethertype):
                packet.push_mpls(ethertype)
            case PopMpls(ethertype=ethertype):
                packet.pop_mpls(ethertype)
            case PushPbb(ethertype=ethertype):
                packet.push_pbb(ethertype)
            case PopPbb():
                packet.pop_pbb()
            case CopyTtlOut():
                packet.copy_ttl_out()
            case CopyTtlIn():
                packet.copy_ttl_in()
            case DecTtl() | DecMplsTtl():
                if not (packet.dec_ttl() if isinstance(action, DecTtl) else packet.dec_mpls_ttl()):
                    emissions.append(Emission(INVALID_TTL, packet.frame))
                    break
    return emissions
