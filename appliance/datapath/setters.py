"""The ops that set a field, and what must be known of it: one line for each field that a flow entry may set.

Invariant: the bytes of an op are those of ``struct op`` (``bpf_prog/abi.h``); bytes of the packet stand in it as they do there.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.datapath.layout import OpCode
from appliance.model.fields import VLAN_PRESENT, Layer

_NATIVE: Final = sys.byteorder


class UnsupportedError(Exception):
    """The fast path has no op for this; the text says for what."""


def make_op(code: OpCode, arg8: int = 0, arg16: int = 0, arg32: int = 0) -> bytes:
    return struct.pack("=BBHI", code, arg8, arg16, arg32)


def wire_op(code: OpCode, arg16: bytes = b"\0\0", arg32: bytes = b"\0\0\0\0") -> bytes:
    """An op whose arguments are bytes of the packet."""
    return bytes((code, 0)) + arg16 + arg32


def _mac(code: OpCode) -> Callable[[int], list[bytes]]:
    return lambda value: [bytes((code, 0)) + value.to_bytes(6, "big")]


def _half(code: OpCode) -> Callable[[int], list[bytes]]:
    return lambda value: [wire_op(code, arg16=value.to_bytes(2, "big"))]


def _word(code: OpCode) -> Callable[[int], list[bytes]]:
    return lambda value: [wire_op(code, arg32=value.to_bytes(4, "big"))]


def _address16(code: OpCode) -> Callable[[int], list[bytes]]:
    def ops(value: int) -> list[bytes]:
        raw = value.to_bytes(16, "big")
        return [bytes((OpCode.OPERAND_0, 0)) + raw[:6], bytes((OpCode.OPERAND_1, 0)) + raw[6:12], wire_op(code, arg32=raw[12:])]

    return ops


def _mpls(bits: int, shift: int) -> Callable[[int], list[bytes]]:
    return lambda value: [make_op(OpCode.SET_MPLS, arg8=shift, arg16=bits, arg32=value << shift)]


def _port(code: OpCode, layer: Layer) -> Callable[[int], list[bytes]]:
    return lambda value: [bytes((code, 0)) + value.to_bytes(2, "big") + int(layer).to_bytes(4, _NATIVE)]


def _byte(code: OpCode, layer: Layer = Layer.NONE) -> Callable[[int], list[bytes]]:
    return lambda value: [make_op(code, arg8=value, arg32=int(layer))]


def _tos(mask: int, shift: int) -> Callable[[int], list[bytes]]:
    return lambda value: [make_op(OpCode.SET_IP_TOS, arg8=mask, arg16=value << shift)]


def _vlan(mask: int, shift: int) -> Callable[[int], list[bytes]]:
    return lambda value: [make_op(OpCode.SET_VLAN, arg16=mask, arg32=(value << shift) & mask)]


def _tunnel_id(value: int) -> list[bytes]:
    """No tunnel has an id of more than 32 bits; the op has room for 48."""
    if value >> 48:
        raise UnsupportedError("a tunnel_id of more than 48 bits")
    return [bytes((OpCode.SET_TUNNEL_ID, 0)) + value.to_bytes(6, "big")]


@dataclass(frozen=True, slots=True)
class _Setter:
    ops: Callable[[int], list[bytes]]
    checksum: bool = False
    """Whether a checksum in the packet covers the field."""
    layered: bool = True
    """Whether the field is behind the Ethernet header, in one that a new ethertype or protocol would turn into another."""


SETTERS: Final[dict[str, _Setter]] = {
    "eth_dst": _Setter(_mac(OpCode.SET_ETH_DST), layered=False),
    "eth_src": _Setter(_mac(OpCode.SET_ETH_SRC), layered=False),
    "eth_type": _Setter(_half(OpCode.SET_ETH_TYPE), layered=False),
    "vlan_vid": _Setter(_vlan(VLAN_PRESENT - 1, 0), layered=False),
    "vlan_pcp": _Setter(_vlan(0xE000, 13), layered=False),
    "mpls_label": _Setter(_mpls(20, 12)),
    "mpls_tc": _Setter(_mpls(3, 9)),
    "mpls_bos": _Setter(_mpls(1, 8)),
    "mpls_ttl": _Setter(_mpls(8, 0)),
    "ip_dscp": _Setter(_tos(0xFC, 2), checksum=True),
    "ip_ecn": _Setter(_tos(0x03, 0), checksum=True),
    "ip_proto": _Setter(_byte(OpCode.SET_IP_PROTO), checksum=True),
    "ip_ttl": _Setter(_byte(OpCode.SET_IP_TTL), checksum=True),
    "ipv4_src": _Setter(_word(OpCode.SET_IPV4_SRC), checksum=True),
    "ipv4_dst": _Setter(_word(OpCode.SET_IPV4_DST), checksum=True),
    "ipv6_src": _Setter(_address16(OpCode.SET_IPV6_SRC), checksum=True),
    "ipv6_dst": _Setter(_address16(OpCode.SET_IPV6_DST), checksum=True),
    "ipv6_flabel": _Setter(_word(OpCode.SET_IPV6_FLABEL)),
    "tcp_src": _Setter(_port(OpCode.SET_L4_SRC, Layer.TCP), checksum=True),
    "tcp_dst": _Setter(_port(OpCode.SET_L4_DST, Layer.TCP), checksum=True),
    "udp_src": _Setter(_port(OpCode.SET_L4_SRC, Layer.UDP), checksum=True),
    "udp_dst": _Setter(_port(OpCode.SET_L4_DST, Layer.UDP), checksum=True),
    "sctp_src": _Setter(_port(OpCode.SET_L4_SRC, Layer.SCTP), checksum=True),
    "sctp_dst": _Setter(_port(OpCode.SET_L4_DST, Layer.SCTP), checksum=True),
    "icmpv4_type": _Setter(_byte(OpCode.SET_ICMP_TYPE, Layer.IPV4), checksum=True),
    "icmpv4_code": _Setter(_byte(OpCode.SET_ICMP_CODE, Layer.IPV4), checksum=True),
    "icmpv6_type": _Setter(_byte(OpCode.SET_ICMP_TYPE, Layer.IPV6), checksum=True),
    "icmpv6_code": _Setter(_byte(OpCode.SET_ICMP_CODE, Layer.IPV6), checksum=True),
    "arp_op": _Setter(_half(OpCode.SET_ARP_OP)),
    "arp_spa": _Setter(_word(OpCode.SET_ARP_SPA)),
    "arp_tpa": _Setter(_word(OpCode.SET_ARP_TPA)),
    "arp_sha": _Setter(_mac(OpCode.SET_ARP_SHA)),
    "arp_tha": _Setter(_mac(OpCode.SET_ARP_THA)),
    "ipv6_nd_target": _Setter(_address16(OpCode.SET_ND_TARGET), checksum=True),
    "ipv6_nd_sll": _Setter(_mac(OpCode.SET_ND_SLL), checksum=True),
    "ipv6_nd_tll": _Setter(_mac(OpCode.SET_ND_TLL), checksum=True),
    "tunnel_id": _Setter(_tunnel_id, layered=False),
    "tun_src": _Setter(_word(OpCode.SET_TUN_SRC), layered=False),
    "tun_dst": _Setter(_word(OpCode.SET_TUN_DST), layered=False),
}
