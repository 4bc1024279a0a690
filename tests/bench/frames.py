"""The flows that programs.c makes: their frames, tuples and flow keys.

Invariant: flow n here is flow n there.
"""

from __future__ import annotations

import struct

from appliance.model.fields import BY_NAME, KEY_MASK
from appliance.packet.parse import parse

FIRST_ADDRESS = 0x0A000000
FIRST_PORT = 1024
PORT_MASK = 0x7FFF
DESTINATION = 0x0A800001
DESTINATION_PORT = 4791
NEW_ADDRESS = 0xC6336401
NEW_PORT = 40000
NEW_VID = 100
NEW_MAC = 0x020000000099
UDP = 17

FIVE_TUPLE = ("in_port", "eth_type", "ip_proto", "ipv4_src", "ipv4_dst", "udp_src", "udp_dst", "ip_frag")
"""The fields in the mask of a megaflow that a rule for a 5-tuple makes."""

OTHER_FIELDS = ("eth_src", "eth_dst", "vlan_tci", "ip_dscp", "ip_ttl", "ip_ecn")
"""The masks of many: the 5-tuple, and each subset of these."""


def source_address(flow: int) -> int:
    return FIRST_ADDRESS + flow


def source_port(flow: int) -> int:
    return FIRST_PORT + (flow & PORT_MASK)


DESTINATION_MAC = "02:00:00:00:00:02"


def frame(flow: int, destination_port: int = DESTINATION_PORT) -> bytes:
    """64 bytes of Ethernet, IPv4 and UDP."""
    ethernet = bytes.fromhex(DESTINATION_MAC.replace(":", "") + "0200000000010800")
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 50, 0, 0, 64, UDP, 0x3412, source_address(flow), DESTINATION)
    udp = struct.pack(">HHHH", source_port(flow), destination_port, 30, 0x7856)
    return ethernet + ip + udp + bytes(22)


def tuple_key(flow: int) -> bytes:
    """struct tuple of programs.c."""
    head = struct.pack(">IIHHB", source_address(flow), DESTINATION, source_port(flow), DESTINATION_PORT, UDP)
    return head.ljust(16, b"\0")


def mask(number: int) -> int:
    """The mask of a 5-tuple rule; ``number`` says, bit by bit, which of OTHER_FIELDS are in it too."""
    names = [*FIVE_TUPLE, *(name for bit, name in enumerate(OTHER_FIELDS) if number >> bit & 1)]
    result = 0
    for name in names:
        result |= BY_NAME[name].mask
    return result & KEY_MASK


def flow_key(flow: int, in_port: int) -> int:
    return parse(frame(flow), in_port).key
