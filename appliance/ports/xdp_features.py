"""What a driver can do at XDP, in its own words: the kernel's ``netdev`` generic netlink family (Linux 6.3 and later).

Invariant: ``None`` means that nobody can say, and is not the same as "nothing". Source: linux/netdev.h.
"""

from __future__ import annotations

from enum import IntFlag

from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

_NETDEV_CMD_DEV_GET = 1
_VERSION = 1


class XdpFeature(IntFlag):
    """NETDEV_XDP_ACT_*."""

    NONE = 0
    BASIC = 1 << 0
    """Runs native programs: aborted, drop, pass, tx."""
    REDIRECT = 1 << 1
    NDO_XMIT = 1 << 2
    """Sends out frames that were redirected to it."""
    XSK_ZEROCOPY = 1 << 3
    HW_OFFLOAD = 1 << 4
    RX_SG = 1 << 5
    NDO_XMIT_SG = 1 << 6


class _Device(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    prefix = "NETDEV_A_DEV_"
    nla_map = (
        (1, "NETDEV_A_DEV_IFINDEX", "uint32"),
        (2, "NETDEV_A_DEV_PAD", "none"),
        (3, "NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def xdp_features(ifindex: int) -> XdpFeature | None:
    """None if the kernel is older than the question, or the interface is gone.

    Some drivers gain NDO_XMIT only while a program is attached, and a veth has it only while its peer uses NAPI.
    """
    with GenericNetlinkSocket() as socket:
        try:
            # An old kernel without the family is no error, which pyroute2 would otherwise log.
            socket.asyncore.module_err_level = "debug"
            socket.bind("netdev", _Device)
            request = _Device()
            request["cmd"], request["version"] = _NETDEV_CMD_DEV_GET, _VERSION
            request["attrs"] = [("NETDEV_A_DEV_IFINDEX", ifindex)]
            answers = list(socket.nlm_request(request, msg_type=socket.prid, msg_flags=NLM_F_REQUEST))
        except NetlinkError:
            return None
    features = answers[0].get_attr("NETDEV_A_DEV_XDP_FEATURES") if answers else None
    return None if features is None else XdpFeature(features & sum(XdpFeature))
