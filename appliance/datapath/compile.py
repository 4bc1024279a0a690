"""Datapath actions → the ops that eBPF executes. What eBPF cannot do is marked as punted: slower, never wrong.

Invariant: the ops do what ``packet.execute`` does with the same actions, for every packet, or the megaflow is punted.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.datapath.layout import MAX_OPS, MegaflowFlag, OpCode
from appliance.model.actions import SetField
from appliance.model.fields import VLAN_PRESENT, Layer
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PopTag, PushTag

_NATIVE: Final = sys.byteorder


@dataclass(frozen=True, slots=True)
class Compiled:
    """What goes in a slot of the megaflow table (struct megaflow): ``ops`` is at most MAX_OPS of 8 bytes, ended by OP_END."""

    ops: bytes
    flags: MegaflowFlag
    xdp_port: int = 0
    ttl_needed: int = 0


PUNTED: Final = Compiled(b"", MegaflowFlag.PUNT)


class _UnsupportedError(Exception):
    """The fast path has no op for this."""


def _op(code: OpCode, arg8: int = 0, arg16: int = 0, arg32: int = 0) -> bytes:
    return struct.pack("=BBHI", code, arg8, arg16, arg32)


def _wire(code: OpCode, arg16: bytes = b"\0\0", arg32: bytes = b"\0\0\0\0") -> bytes:
    """An op whose arguments are bytes of the packet."""
    return bytes((code, 0)) + arg16 + arg32


def _mac(code: OpCode) -> Callable[[int], list[bytes]]:
    return lambda value: [bytes((code, 0)) + value.to_bytes(6, "big")]


def _half(code: OpCode) -> Callable[[int], list[bytes]]:
    return lambda value: [_wire(code, arg16=value.to_bytes(2, "big"))]


def _word(code: OpCode) -> Callable[[int], list[bytes]]:
    return lambda value: [_wire(code, arg32=value.to_bytes(4, "big"))]


def _address16(code: OpCode) -> Callable[[int], list[bytes]]:
    def ops(value: int) -> list[bytes]:
        raw = value.to_bytes(16, "big")
        return [bytes((OpCode.OPERAND_0, 0)) + raw[:6], bytes((OpCode.OPERAND_1, 0)) + raw[6:12], _wire(code, arg32=raw[12:])]

    return ops


def _port(code: OpCode, layer: Layer) -> Callable[[int], list[bytes]]:
    return lambda value: [bytes((code, 0)) + value.to_bytes(2, "big") + int(layer).to_bytes(4, _NATIVE)]


def _byte(code: OpCode, layer: Layer = Layer.NONE) -> Callable[[int], list[bytes]]:
    return lambda value: [_op(code, arg8=value, arg32=int(layer))]


def _tos(mask: int, shift: int) -> Callable[[int], list[bytes]]:
    return lambda value: [_op(OpCode.SET_IP_TOS, arg8=mask, arg16=value << shift)]


def _vlan(mask: int, shift: int) -> Callable[[int], list[bytes]]:
    return lambda value: [_op(OpCode.SET_VLAN, arg16=mask, arg32=(value << shift) & mask)]


@dataclass(frozen=True, slots=True)
class _Setter:
    ops: Callable[[int], list[bytes]]
    checksum: bool = False
    """Whether a checksum in the packet covers the field."""
    layered: bool = True
    """Whether the field is behind the Ethernet header, in one that a new ethertype or protocol would turn into another."""


_SETTERS: Final[dict[str, _Setter]] = {
    "eth_dst": _Setter(_mac(OpCode.SET_ETH_DST), layered=False),
    "eth_src": _Setter(_mac(OpCode.SET_ETH_SRC), layered=False),
    "eth_type": _Setter(_half(OpCode.SET_ETH_TYPE), layered=False),
    "vlan_vid": _Setter(_vlan(VLAN_PRESENT - 1, 0), layered=False),
    "vlan_pcp": _Setter(_vlan(0xE000, 13), layered=False),
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
}

_RETYPES: Final = {"eth_type", "ip_proto"}
"""After these, other headers are in the packet than the key says: eBPF does not parse it again."""

_RETYPES_ICMP: Final = {"icmpv6_type", "icmpv6_code"}
"""After these, a neighbour discovery message may be another one, or one no more."""

_ND_FIELDS: Final = {"ipv6_nd_target", "ipv6_nd_sll", "ipv6_nd_tll"}


def compile_actions(actions: Sequence[DatapathAction]) -> Compiled:
    """The ops for a megaflow's actions; ``PUNTED`` if the fast path cannot do them."""
    try:
        return _compile(actions)
    except _UnsupportedError:
        return PUNTED


def _compile(actions: Sequence[DatapathAction]) -> Compiled:
    ops: list[bytes] = []
    outputs = [action for action in actions if isinstance(action, Forward | Flood)]
    last_output = max((n for n, action in enumerate(actions) if isinstance(action, Forward | Flood)), default=-1)
    stale = retyped = retyped_icmp = ttl_set = False
    ttl_needed = 0
    # What comes after the last output changes nothing that anybody sees; but a DecTtl may still fail.
    for n, action in enumerate(actions):
        sets_ttl = isinstance(action, SetField) and action.field.name == "ip_ttl"
        if n > last_output and not sets_ttl and not isinstance(action, DecTtl | Controller):
            continue
        if stale and isinstance(action, Forward | Flood):
            ops.append(_op(OpCode.CHECKSUMS))
            stale = False
        match action:
            case Forward(port=port):
                ops.append(_op(OpCode.FORWARD if n == len(actions) - 1 else OpCode.OUTPUT, arg32=port))
            case Flood():
                if n != len(actions) - 1:
                    raise _UnsupportedError
                ops.append(_op(OpCode.FLOOD))
            case PushTag(tpid=tpid, tci=tci):
                if retyped:
                    raise _UnsupportedError
                ops.append(_op(OpCode.PUSH_TAG, arg16=tpid, arg32=tci))
            case PopTag():
                if retyped:
                    raise _UnsupportedError
                ops.append(_op(OpCode.POP_TAG))
            case DecTtl():
                if retyped or ttl_set:
                    raise _UnsupportedError
                ops.append(_op(OpCode.DEC_TTL))
                ttl_needed += 1
                stale = True
            case SetField(field=field, value=value):
                setter = _SETTERS.get(field.name)
                if setter is None or (retyped and (setter.layered or field.name in _RETYPES)):
                    raise _UnsupportedError
                if retyped_icmp and field.name in _ND_FIELDS | _RETYPES_ICMP:
                    raise _UnsupportedError
                ops.extend(setter.ops(value))
                stale |= setter.checksum
                retyped |= field.name in _RETYPES
                retyped_icmp |= field.name in _RETYPES_ICMP
                ttl_set |= sets_ttl
            case _:
                raise _UnsupportedError
    if len(ops) >= MAX_OPS:
        raise _UnsupportedError
    ops.append(_op(OpCode.END))
    to_one_port = not outputs or (len(outputs) == 1 and isinstance(actions[-1], Forward))
    xdp_port = outputs[0].port if outputs and isinstance(outputs[0], Forward) else 0
    flags = MegaflowFlag.XDP if to_one_port else MegaflowFlag(0)
    if any(isinstance(action, PopTag) for action in actions):
        flags |= MegaflowFlag.POPS
    return Compiled(b"".join(ops), flags, xdp_port if to_one_port else 0, ttl_needed)
