"""The Python mirror of ``bpf_prog/abi.h``: structures, limits and op codes that cross between the agent and eBPF.

``abi.h`` is canonical. ``tests/unit/test_abi.py`` compiles it and compares every size, offset and number with what stands here.
"""

from __future__ import annotations

import ctypes
import struct
from enum import IntEnum, IntFlag

from appliance.model.megaflow import MAX_BANDS, MAX_WAYS
from appliance.model.plugin import MAX_PLUGINS
from appliance.model.ports import LOCAL_PORT, MAX_PORT_NUMBER

KEY_WORDS = 16
LOCAL_PLACE = MAX_PORT_NUMBER + 1
PORT_PLACES = MAX_PORT_NUMBER + 2
MAX_FLOOD_PORTS = 256
MAX_SUBTABLES = 128
MAX_OPS = 32
EDIT_OPS = 27
RUN_OPS = 8
BUCKET_WAYS = 8
CACHE_WAYS = 2
NO_SUBTABLE = 0xFFFFFFFF
NO_OTHER_END = -1
COMMON_WORDS = 6
"""Of the flow key's: see ``words``."""
MAX_CHOICES = 4096
MAX_METERS = 1024
CRC_SHIFTS = 16
UPCALL_UNIT = 2048
MAX_WAITING = 256
LINES = 4096
NO_SLOT = 0xFFFFFFFF
MAX_TAGS_OF_COPY = 8


def port_place(number: int) -> int:
    """Where the fast path's arrays have a port: at its number, but for OFPP_LOCAL. Flow keys hold numbers, all else places."""
    return LOCAL_PLACE if number == LOCAL_PORT else number


def number_at(place: int) -> int:
    """The number of the port at a place."""
    return LOCAL_PORT if place == LOCAL_PLACE else place


def port_ingress(number: int, flags: int) -> bytes:
    """struct ingress of the interface of a port."""
    return struct.pack("=HH", port_place(number), flags) + number.to_bytes(4, "big")


def tunnel_ingress(ways: int) -> bytes:
    """struct ingress of a tunnel device."""
    return struct.pack("=HH4x", ways, PortFlag.TUNNEL)


def common_words(raw: bytes) -> bytes:
    """The first half of ``words``."""
    return raw[24:56] + raw[72:80] + raw[88:96]


def words(raw: bytes) -> tuple[bytes, bytes]:
    """The common words of a flow key, or a mask, and the others, as slots and subtables have them (``bpf_prog/lookup.h``)."""
    return common_words(raw), raw[:24] + raw[56:72] + raw[80:88] + raw[96:]


class OpCode(IntEnum):
    """enum op_code: the steps of a megaflow's actions."""

    END = 0
    FORWARD = 1
    OUTPUT = 2
    FLOOD = 3
    PUSH_TAG = 4
    POP_TAG = 5
    SET_VLAN = 6
    SET_ETH_DST = 7
    SET_ETH_SRC = 8
    SET_ETH_TYPE = 9
    SET_IPV4_SRC = 10
    SET_IPV4_DST = 11
    SET_IPV6_SRC = 12
    SET_IPV6_DST = 13
    SET_IPV6_FLABEL = 14
    SET_IP_TOS = 15
    SET_IP_TTL = 16
    DEC_TTL = 17
    SET_IP_PROTO = 18
    SET_L4_SRC = 19
    SET_L4_DST = 20
    SET_ICMP_TYPE = 21
    SET_ICMP_CODE = 22
    SET_ARP_OP = 23
    SET_ARP_SPA = 24
    SET_ARP_TPA = 25
    SET_ARP_SHA = 26
    SET_ARP_THA = 27
    SET_ND_TARGET = 28
    SET_ND_SLL = 29
    SET_ND_TLL = 30
    CHECKSUMS = 31
    OPERAND_0 = 32
    OPERAND_1 = 33
    METER = 34
    CHOOSE = 35
    SET_QUEUE = 36
    CONTROLLER = 37
    PLUGIN = 46
    SET_TUNNEL_ID = 40
    SET_TUN_SRC = 41
    SET_TUN_DST = 42
    PUSH_MPLS = 48
    POP_MPLS = 49
    SET_MPLS = 50
    DEC_MPLS_TTL = 51
    COPY_TTL_OUT = 52
    COPY_TTL_IN = 53
    SAVE = 54
    RESTORE = 55
    NEXT = 56
    AGAIN = 57


class MegaflowFlag(IntFlag):
    PUNT = 1 << 0
    XDP = 1 << 1
    GATED = 1 << 2
    POPS = 1 << 3
    METERED = 1 << 4
    WIDE = 1 << 5
    DIRECT = 1 << 6
    EDITS = 1 << 7
    RETAGS = 1 << 8
    PUSHES_MPLS = 1 << 9


class PortFlag(IntFlag):
    FORWARD = 1 << 0
    RECEIVE = 1 << 1
    XDP_TRANSMIT = 1 << 2
    LIVE = 1 << 3
    TUNNEL = 1 << 4
    UNFINISHED = 1 << 5
    IN_PIECES = 1 << 6


class TunnelFlag(IntFlag):
    LOCAL = 1 << 0
    REMOTE = 1 << 1
    KEY = 1 << 2
    IPV6 = 1 << 3


class SendFlag(IntFlag):
    IPV6 = 1 << 0
    WITHOUT_CHECKSUM = 1 << 1
    WHOLE = 1 << 2
    WITHOUT_KEY = 1 << 4


class ProgramIndex(IntEnum):
    """enum program: programs that others end with."""

    EXECUTE = 0
    FLOOD = 1
    METER = 2
    HANDLE = 3
    LOOK_UP = 4
    DROP = 5
    EDIT = 6
    TUNNEL = 7
    COPY = 8
    AGAIN = 9


class PluginKind(IntEnum):
    """enum plugin_kind: what a plug-in's program is for."""

    ACTION = 0
    MATCH = 1
    ACTION_APART = 2
    MATCH_APART = 3


def plugin_program(kind: PluginKind, plugin_id: int) -> int:
    """PLUGIN_PROGRAM: the index in ``tc_programs``."""
    return len(ProgramIndex) + kind * MAX_PLUGINS + plugin_id


class ChoiceKind(IntEnum):
    SELECT = 0
    FAILOVER = 1


class Retag(IntEnum):
    """enum retag."""

    PUSH = 1
    POP = 2


class Op(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("arg8", ctypes.c_uint8), ("arg16", ctypes.c_uint16), ("arg32", ctypes.c_uint32))


class Megaflow(ctypes.Structure):
    _fields_ = (
        ("subtable", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("xdp_port", ctypes.c_uint32),
        ("ttl_needed", ctypes.c_uint16),
        ("growth", ctypes.c_uint16),
        ("common", ctypes.c_uint64 * COMMON_WORDS),
    )


class MegaflowBody(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint64),
        ("served", ctypes.c_uint32),
        ("ticket", ctypes.c_uint32),
        ("others", ctypes.c_uint64 * (KEY_WORDS - COMMON_WORDS)),
        ("ops", Op * MAX_OPS),
        ("pad", ctypes.c_uint64 * 4),
    )


class Edit(ctypes.Structure):
    """In the place of a slot's ops from EDIT_OPS on."""

    _fields_ = (
        ("retag", ctypes.c_uint16),
        ("tpid", ctypes.c_uint16),
        ("tci", ctypes.c_uint16),
        ("pad", ctypes.c_uint16),
        ("keep", ctypes.c_uint64 * 4),
        ("set", ctypes.c_uint64 * 4),
    )


class MegaflowStats(ctypes.Structure):
    _fields_ = (
        ("packets", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("last_used", ctypes.c_uint64),
        ("tcp_flags", ctypes.c_uint64),
    )


class Subtable(ctypes.Structure):
    _fields_ = (
        ("common", ctypes.c_uint64 * COMMON_WORDS),
        ("pad", ctypes.c_uint64 * 2),
        ("others", ctypes.c_uint64 * (KEY_WORDS - COMMON_WORDS)),
        ("pad_behind", ctypes.c_uint64 * 6),
    )


class SubtableOrder(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint8 * MAX_SUBTABLES),)


class Bucket(ctypes.Structure):
    _fields_ = (("way", ctypes.c_uint64 * BUCKET_WAYS),)


class CacheSet(ctypes.Structure):
    _fields_ = (("way", ctypes.c_uint64 * CACHE_WAYS),)


class Repeated(ctypes.Structure):
    _fields_ = (
        ("word_3", ctypes.c_uint64),
        ("bytes_0", ctypes.c_uint64),
        ("bytes_8", ctypes.c_uint64),
        ("bytes_16", ctypes.c_uint64),
        ("bytes_26", ctypes.c_uint64),
        ("bytes_30", ctypes.c_uint64),
        ("bytes_40", ctypes.c_uint64),
        ("mask_40", ctypes.c_uint64),
        ("word_5", ctypes.c_uint64),
        ("word_6", ctypes.c_uint64),
        ("word_11", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("hint", ctypes.c_uint32),
        ("pad", ctypes.c_uint64 * 4),
    )


class Way(ctypes.Structure):
    _fields_ = (("value", ctypes.c_uint32), ("slot", ctypes.c_uint32))


class Choice(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_uint32), ("ways", ctypes.c_uint32), ("way", Way * MAX_WAYS))


class Band(ctypes.Structure):
    _fields_ = (
        ("cost", ctypes.c_uint64),
        ("burst", ctypes.c_uint64),
        ("full_at", ctypes.c_uint64),
        ("packets", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("remark", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class Meter(ctypes.Structure):
    _fields_ = (
        ("packets", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("in_packets", ctypes.c_uint32),
        ("bands", ctypes.c_uint32),
        ("band", Band * MAX_BANDS),
    )


class Metered(ctypes.Structure):
    _fields_ = (
        ("meter", ctypes.c_uint32),
        ("packets", ctypes.c_uint32),
        ("bytes", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class Port(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("ifindex", "flags", "longest", "pad")),
        ("other_end", ctypes.c_uint64),
        ("pad2", ctypes.c_uint64),
    )


class Ingress(ctypes.Structure):
    _fields_ = (("place", ctypes.c_uint16), ("flags", ctypes.c_uint16), ("in_port", ctypes.c_uint32))


_ADDRESS = ctypes.c_uint32 * 4


class Tunnel(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("remote", _ADDRESS),
        ("local", _ADDRESS),
        ("id", ctypes.c_uint32),
        ("remote_open", ctypes.c_uint32),
        ("local_open", ctypes.c_uint32),
        ("id_open", ctypes.c_uint32),
        ("tos", ctypes.c_uint8),
        ("tos_open", ctypes.c_uint8),
        ("ttl", ctypes.c_uint8),
        ("ttl_open", ctypes.c_uint8),
        ("pad", ctypes.c_uint32),
    )


class TunnelEnd(ctypes.Structure):
    _fields_ = (
        ("remote", _ADDRESS),
        ("local", _ADDRESS),
        ("id", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("fixed", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class Injection(ctypes.Structure):
    _fields_ = (
        ("tunnel_id", ctypes.c_uint64),
        ("tun_src", ctypes.c_uint32),
        ("tun_dst", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("number", ctypes.c_uint32),
        ("tos", ctypes.c_uint32),
        ("ttl", ctypes.c_uint32),
    )


class PortCounters(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("rx_bytes", "tx_packets", "tx_bytes", "forwarded_xdp", "forwarded_tc", "dropped", "punted", "lost")
    )


class Settings(ctypes.Structure):
    _fields_ = (("subtables", ctypes.c_uint32), ("flood_ports", ctypes.c_uint32))


class UpcallShare(ctypes.Structure):
    _fields_ = (("taken", ctypes.c_uint32), ("served", ctypes.c_uint32))


class Line(ctypes.Structure):
    _fields_ = (("taken", ctypes.c_uint32), ("served", ctypes.c_uint32))


class Upcall(ctypes.Structure):
    _fields_ = (
        ("key", ctypes.c_uint8 * (KEY_WORDS * 8)),
        ("megaflow", ctypes.c_uint64),
        ("in_port", ctypes.c_uint32),
        ("reason", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("gso_size", ctypes.c_uint32),
        ("vlan_present", ctypes.c_uint16),
        ("vlan_tpid", ctypes.c_uint16),
        ("vlan_tci", ctypes.c_uint16),
        ("line", ctypes.c_uint16),
        ("cookie", ctypes.c_uint64),
        ("table", ctypes.c_uint16),
        ("packet_in_reason", ctypes.c_uint16),
        ("bytes", ctypes.c_uint32),
    )
