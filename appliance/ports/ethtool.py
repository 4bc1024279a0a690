"""Driver and link speed of an interface, as OpenFlow describes them (struct ofp_port, specification 1.3.5, section 7.2.1).

Invariant: what a driver does not say is empty or 0, never guessed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ethtool import NlEthtool, ethtoolbitset, ethtoolheader

from appliance.ports.interface import PortError

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 3
_DRVINFO_BYTES = 196
_DRIVER = slice(4, 36)
_IFREQ_BYTES = 40

_UNKNOWN_SPEED = (0, 0xFFFF, 0xFFFFFFFF)
_HALF_DUPLEX = 0
_LINKMODES_SET = 5
_SET_BIT = ("ETHTOOL_A_BITSET_BIT_VALUE", True)


class PortFeature(IntFlag):
    """OFPPF_*."""

    NONE = 0
    MB10_HD = 1 << 0
    MB10_FD = 1 << 1
    MB100_HD = 1 << 2
    MB100_FD = 1 << 3
    GB1_HD = 1 << 4
    GB1_FD = 1 << 5
    GB10_FD = 1 << 6
    GB40_FD = 1 << 7
    GB100_FD = 1 << 8
    TB1_FD = 1 << 9
    OTHER = 1 << 10
    COPPER = 1 << 11
    FIBER = 1 << 12
    AUTONEG = 1 << 13
    PAUSE = 1 << 14
    PAUSE_ASYM = 1 << 15


_BY_SPEED = {
    # megabits per second: (half duplex, full duplex)
    10: (PortFeature.MB10_HD, PortFeature.MB10_FD),
    100: (PortFeature.MB100_HD, PortFeature.MB100_FD),
    1_000: (PortFeature.GB1_HD, PortFeature.GB1_FD),
    10_000: (PortFeature.OTHER, PortFeature.GB10_FD),
    40_000: (PortFeature.OTHER, PortFeature.GB40_FD),
    100_000: (PortFeature.OTHER, PortFeature.GB100_FD),
    1_000_000: (PortFeature.OTHER, PortFeature.TB1_FD),
}
_BY_NAME = {
    "TP": PortFeature.COPPER,
    "FIBRE": PortFeature.FIBER,
    "Autoneg": PortFeature.AUTONEG,
    "Pause": PortFeature.PAUSE,
    "Asym_Pause": PortFeature.PAUSE_ASYM,
}


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """Speeds in kb/s; ``max_kbps`` is the fastest supported mode, or the current speed where no modes are told."""

    curr: PortFeature = PortFeature.NONE
    advertised: PortFeature = PortFeature.NONE
    supported: PortFeature = PortFeature.NONE
    peer: PortFeature = PortFeature.NONE
    curr_kbps: int = 0
    max_kbps: int = 0


def driver(name: str) -> str:
    """The driver's name (``virtio_net``, ``ixgbe``, ``veth``, …); empty if the interface is gone or has none."""
    answer = ctypes.create_string_buffer(struct.pack("=I", _ETHTOOL_GDRVINFO), _DRVINFO_BYTES)
    request = struct.pack("@16sP", name.encode(), ctypes.addressof(answer)).ljust(_IFREQ_BYTES, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError:
            return ""
    return answer.raw[_DRIVER].split(b"\0", 1)[0].decode("ascii", "replace")


def _speed_and_duplex(mode: str) -> tuple[int, bool] | None:
    """Of a link mode's name, such as ``10000baseT/Full``: megabits per second, and whether full duplex."""
    digits, base, rest = mode.partition("base")
    if not base or not digits.isdigit():
        return None
    return int(digits), not rest.endswith("/Half")


def features(modes: Iterable[str]) -> PortFeature:
    """OFPPF_* of the names that ethtool gives to link modes, port kinds and pause."""
    found = PortFeature.NONE
    for mode in modes:
        speed = _speed_and_duplex(mode)
        if speed is None:
            found |= _BY_NAME.get(mode, PortFeature.NONE)
        else:
            found |= _BY_SPEED.get(speed[0], (PortFeature.OTHER,) * 2)[speed[1]]
    return found


def _bitset(message: Any, attribute: str) -> tuple[list[str], list[str]]:
    """Of an ethtool bitset: the names in its mask, and those of them that are set."""
    bits = message.get_nested(attribute, "ETHTOOL_A_BITSET_BITS")
    listed = [bit for _, bit, *_ in bits["attrs"]] if bits else []
    names = [bit.get_attr("ETHTOOL_A_BITSET_BIT_NAME") for bit in listed]
    chosen = [bit.get_attr("ETHTOOL_A_BITSET_BIT_NAME") for bit in listed if bit.get_attr("ETHTOOL_A_BITSET_BIT_VALUE")]
    return names, chosen


class _LinkModes(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    prefix = "ETHTOOL_A_LINKMODES_"
    nla_map = (
        (1, "ETHTOOL_A_LINKMODES_HEADER", "ethtoolheader"),
        (2, "ETHTOOL_A_LINKMODES_AUTONEG", "uint8"),
        (3, "ETHTOOL_A_LINKMODES_OURS", "ethtoolbitset"),
    )
    ethtoolheader = ethtoolheader
    ethtoolbitset = ethtoolbitset


def advertise(name: str, wanted: PortFeature) -> None:
    """Let the link advertise those of its supported modes that OFPPF_* names. Raises PortError."""
    try:
        with NlEthtool() as ethtool:
            supported, _ = _bitset(ethtool.get_linkmode(name)[0], "ETHTOOL_A_LINKMODES_OURS")
        set_link_modes(name, {mode: bool(features([mode]) & wanted) for mode in supported}, bool(wanted & PortFeature.AUTONEG))
    except NetlinkError as error:
        raise PortError(f"cannot advertise other features: {os.strerror(error.code)}") from error


def set_link_modes(name: str, modes: Mapping[str, bool], autonegotiate: bool) -> None:
    """Of the named modes, which to advertise; the others stay. Raises NetlinkError."""
    bits = [
        ("ETHTOOL_A_BITSET_BITS_BIT", {"attrs": [("ETHTOOL_A_BITSET_BIT_NAME", mode), *([_SET_BIT] if on else [])]})
        for mode, on in modes.items()
    ]
    request = _LinkModes()
    request["cmd"], request["version"] = _LINKMODES_SET, 1
    request["attrs"] = [
        ("ETHTOOL_A_LINKMODES_HEADER", {"attrs": [("ETHTOOL_A_HEADER_DEV_NAME", name)]}),
        ("ETHTOOL_A_LINKMODES_AUTONEG", int(autonegotiate)),
        ("ETHTOOL_A_LINKMODES_OURS", {"attrs": [("ETHTOOL_A_BITSET_BITS", {"attrs": bits})]}),
    ]
    with GenericNetlinkSocket() as ethtool:
        ethtool.bind("ethtool", _LinkModes)
        ethtool.nlm_request(request, msg_type=ethtool.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)


def link_speed(name: str) -> LinkSpeed:
    """All 0 where the driver does not say, or the interface is gone."""
    try:
        with NlEthtool() as ethtool:
            (message,) = ethtool.get_linkmode(name)
    except NetlinkError:
        return LinkSpeed()
    supported, advertised = _bitset(message, "ETHTOOL_A_LINKMODES_OURS")
    peer, _ = _bitset(message, "ETHTOOL_A_LINKMODES_PEER")
    megabits = message.get_attr("ETHTOOL_A_LINKMODES_SPEED") or 0
    if megabits in _UNKNOWN_SPEED:
        megabits = 0
    full_duplex = message.get_attr("ETHTOOL_A_LINKMODES_DUPLEX") != _HALF_DUPLEX
    curr = _BY_SPEED.get(megabits, (PortFeature.OTHER,) * 2)[full_duplex] if megabits else PortFeature.NONE
    if message.get_attr("ETHTOOL_A_LINKMODES_AUTONEG"):
        curr |= PortFeature.AUTONEG
    curr |= features(supported) & (PortFeature.COPPER | PortFeature.FIBER)
    fastest = max((speed[0] for mode in supported if (speed := _speed_and_duplex(mode)) is not None), default=megabits)
    return LinkSpeed(curr, features(advertised), features(supported), features(peer), megabits * 1000, fastest * 1000)
