"""Rewrites of common packets, all at once: struct edit, for what ``bpf_prog/edit.h`` does in the place of ops.

Invariant: for packets of TCP or UDP in plain IPv4, with at most one tag, which is in metadata, an edit does what the actions do
that it stands for, if the megaflow ``suits``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.datapath.layout import MegaflowFlag, Retag
from appliance.model.actions import SetField
from appliance.model.fields import IP_PROTO, IP_PROTO_TCP, IP_PROTO_UDP, KEY_BYTES, KEY_MASK, LAYERS, VLAN_PRESENT, Layer
from appliance.model.megaflow import DatapathAction, DecTtl, PopTag, PushTag

_WORDS: Final = (4, 5, 6, 9)
_EDIT: Final = struct.Struct("=HHHH" + "8s" * 2 * len(_WORDS))
_PROTOCOLS: Final = {
    **dict.fromkeys(("eth_dst", "eth_src", "ip_dscp", "ip_ecn", "ip_ttl", "ipv4_src", "ipv4_dst"), None),
    **dict.fromkeys(("tcp_src", "tcp_dst"), (IP_PROTO_TCP, Layer.TCP)),
    **dict.fromkeys(("udp_src", "udp_dst"), (IP_PROTO_UDP, Layer.UDP)),
}
"""By field that an edit may set: what the packet must have, beside IPv4."""
_VID: Final = VLAN_PRESENT - 1
_PCP_SHIFT: Final = 13
_PCP: Final = 7 << _PCP_SHIFT


@dataclass(frozen=True, slots=True)
class Edit:
    """``raw`` is struct edit, ``flags`` are those of a megaflow with it."""

    raw: bytes
    flags: int
    known: tuple[tuple[int, int], ...]
    """Masks and values of the flow key: to know one of them is to know that the headers are there."""

    def suits(self, key: int, mask: int) -> bool:
        """Whether all packets of a megaflow, of those that edits are for, have the headers that are written to."""
        return not self.known or any(mask & bits == bits and key & bits == value for bits, value in self.known)


def edit(actions: Sequence[DatapathAction]) -> Edit | None:
    """What comes before the one output; None if it is nothing, or more than an edit does."""
    keep, value = KEY_MASK, 0
    protocols: set[tuple[int, Layer]] = set()
    flags = MegaflowFlag(0)
    retag, tpid, tci = 0, 0, 0
    for action in actions:
        match action:
            case SetField(field=field) if field.name in _PROTOCOLS:
                flags |= MegaflowFlag.EDITS
                keep &= ~field.mask
                value = field.put(value, action.value)
                protocol = _PROTOCOLS[field.name]
                if protocol is not None:
                    protocols.add(protocol)
            case DecTtl():
                flags |= MegaflowFlag.EDITS
            case PushTag() if not retag:
                retag, tpid, tci = Retag.PUSH, action.tpid, action.tci
            case PopTag() if not retag:
                retag = Retag.POP
            case SetField(field=field) if field.name == "vlan_vid" and retag == Retag.PUSH:
                tci = tci & ~_VID | action.value & _VID
            case SetField(field=field) if field.name == "vlan_pcp" and retag == Retag.PUSH:
                tci = tci & ~_PCP | action.value << _PCP_SHIFT
            case _:
                return None
    if retag:
        flags |= MegaflowFlag.RETAGS
    if not flags or len(protocols) > 1:
        return None
    words = [number.to_bytes(KEY_BYTES, "big")[8 * word : 8 * word + 8] for number in (keep, value) for word in _WORDS]
    known = [pair for number, layer in protocols for pair in ((_layer_bits(layer),) * 2, (IP_PROTO.mask, number << IP_PROTO.shift))]
    return Edit(_EDIT.pack(retag, tpid, tci, 0, *words), int(flags), tuple(known))


def _layer_bits(layer: Layer) -> int:
    return int(layer) << LAYERS.shift
