"""Which bucket of a SELECT group a packet takes: the reference for ``select_hash`` in ``bpf_prog/select.h``.

The hash covers what tells flows apart: MAC addresses, IP or ARP addresses, and the ports of TCP, UDP and SCTP. Invariant: packets
of one flow always take the same bucket, in every tier.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from appliance.model.fields import BY_NAME, KEY_BYTES, LAYERS, Layer
from appliance.model.megaflow import Way

_WORDS = struct.Struct("=16Q")
_64_BITS = (1 << 64) - 1
_PORTS_LAYERS = int(Layer.TCP | Layer.UDP | Layer.SCTP)

_ADDRESSES = BY_NAME["eth_dst"].mask | BY_NAME["eth_src"].mask | BY_NAME["ipv6_src"].mask | BY_NAME["ipv6_dst"].mask
_PORTS = BY_NAME["tcp_src"].mask | BY_NAME["tcp_dst"].mask
SELECT_BITS = _ADDRESSES | _PORTS
"""The bits of the flow key that the hash may depend on."""

# Odd, and with no pattern: the first 64 binary places of the square roots of 2, 3, 5 …, made odd.
CONSTANTS = (
    0x6A09E667F3BCC909,
    0xBB67AE8584CAA73B,
    0x3C6EF372FE94F82B,
    0xA54FF53A5F1D36F1,
    0x510E527FADE682D1,
    0x9B05688C2B3E6C1F,
    0x1F83D9ABFB41BD6B,
    0xCBBB9D5DC1059ED9,
)
_USED_WORDS = (4, 5, 6, 7, 8, 9, 10, 11)
_FINAL = 0x5BE0CD19137E2179


def select_hash(key: int) -> int:
    """32 bits from a flow key."""
    words = _WORDS.unpack((key & (SELECT_BITS if LAYERS.get(key) & _PORTS_LAYERS else _ADDRESSES)).to_bytes(KEY_BYTES, "big"))
    total: int = sum((words[n] ^ words[n] >> 32) * constant for n, constant in zip(_USED_WORDS, CONSTANTS, strict=True)) & _64_BITS
    return ((total ^ total >> 32) * _FINAL & _64_BITS) >> 32


def thresholds(ways: Sequence[Way]) -> list[int]:
    """For each way, the first 32-bit hash that it does not take: shares in proportion to the weights, the last one's up to 2^32."""
    total = sum(way.weight for way in ways)
    result, before = [], 0
    for way in ways:
        before += way.weight
        result.append((before << 32) // total)
    return result


def select_way(key: int, ways: Sequence[Way]) -> Way | None:
    """The way for a packet; None if there is none."""
    value = select_hash(key)
    return next((way for way, limit in zip(ways, thresholds(ways), strict=True) if value < limit), None) if ways else None
