"""Rewrites of common packets, all at once: struct edit, for what ``bpf_prog/edit.h`` does in the place of ops.

Invariant: for packets of TCP or UDP in plain IPv4, an edit does what the actions do that it stands for, if the megaflow ``suits``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.model.fields import IP_PROTO, IP_PROTO_TCP, IP_PROTO_UDP, KEY_BYTES, KEY_MASK, LAYERS, Field, Layer

_WORDS: Final = (4, 5, 6, 9)
_BYTES: Final = struct.Struct("8s" * 2 * len(_WORDS))
_PROTOCOLS: Final = {
    **dict.fromkeys(("eth_dst", "eth_src", "ip_dscp", "ip_ecn", "ip_ttl", "ipv4_src", "ipv4_dst"), None),
    **dict.fromkeys(("tcp_src", "tcp_dst"), (IP_PROTO_TCP, Layer.TCP)),
    **dict.fromkeys(("udp_src", "udp_dst"), (IP_PROTO_UDP, Layer.UDP)),
}
"""By field that an edit may set: what the packet must have, beside IPv4."""


@dataclass(frozen=True, slots=True)
class Edit:
    """``raw`` is struct edit. ``known`` are bits of the flow key; to know those of one entry to be set is to know the protocol."""

    raw: bytes
    known: tuple[tuple[int, int], ...]
    """Mask and value."""

    def suits(self, key: int, mask: int) -> bool:
        """Whether all packets of a megaflow, of those that edits are for, have the headers that are written to."""
        return not self.known or any(mask & bits == bits and key & bits == value for bits, value in self.known)


def is_editable(field: Field) -> bool:
    return field.name in _PROTOCOLS


def edit(fields: Iterable[tuple[Field, int]]) -> Edit | None:
    """Of fields, all editable, that are set one after the other; None if no packet has all of them."""
    keep, value = KEY_MASK, 0
    protocols: set[tuple[int, Layer]] = set()
    for field, new in fields:
        keep &= ~field.mask
        value = field.put(value, new)
        protocol = _PROTOCOLS[field.name]
        if protocol is not None:
            protocols.add(protocol)
    if len(protocols) > 1:
        return None
    raw = [number.to_bytes(KEY_BYTES, "big")[8 * word : 8 * word + 8] for number in (keep, value) for word in _WORDS]
    known = [pair for number, layer in protocols for pair in ((_layer_bits(layer),) * 2, (IP_PROTO.mask, number << IP_PROTO.shift))]
    return Edit(_BYTES.pack(*raw), tuple(known))


def _layer_bits(layer: Layer) -> int:
    return int(layer) << LAYERS.shift
