"""Linux interfaces, through rtnetlink.

Invariant: an interface that is not there, or goes while it is asked for, is ``None`` or passed over, never an exception; only a
change that the kernel refuses raises.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

IFF_UP = 1 << 0
IFF_LOOPBACK = 1 << 3
IFF_PROMISC = 1 << 8
IFF_LOWER_UP = 1 << 16
MAC_BYTES = 6

GONE = (errno.ENODEV, errno.ENXIO)


class PortError(Exception):
    """The kernel refused a change to an interface; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface at one moment.

    ``kind`` is the kernel's word for a virtual interface (veth, tun, bridge, vlan, …), empty for one with hardware below it, and
    ``loopback`` for that. ``mac`` is 6 bytes, all zero where the interface has none. ``mtu`` is in bytes.
    """

    name: str
    ifindex: int
    mac: bytes
    kind: str
    mtu: int
    admin_up: bool
    carrier: bool
    promiscuous: bool
    other_end: tuple[int, int] | None = None
    """Of a veth whose other end is in another namespace: that one's number in ours, and the index of the interface there."""
    xdp_program: int = 0
    """The id of the program at XDP, whoever's; 0 for none."""

    @property
    def up(self) -> bool:
        """Frames can go in and out."""
        return self.admin_up and self.carrier


def from_message(message: Any) -> Interface:
    """What an RTM_NEWLINK (or RTM_DELLINK) message tells."""
    flags = message["flags"]
    address = message.get_attr("IFLA_ADDRESS") or ""
    mac = bytes.fromhex(address.replace(":", ""))
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    other, namespace = message.get_attr("IFLA_LINK"), message.get_attr("IFLA_LINK_NETNSID")
    return Interface(
        name=message.get_attr("IFLA_IFNAME") or "",
        ifindex=message["index"],
        mac=mac if len(mac) == MAC_BYTES else bytes(MAC_BYTES),
        kind="loopback" if flags & IFF_LOOPBACK else kind,
        mtu=message.get_attr("IFLA_MTU") or 0,
        admin_up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_LOWER_UP),
        promiscuous=bool(flags & IFF_PROMISC),
        other_end=(namespace, other) if kind == "veth" and other and namespace is not None else None,
        xdp_program=message.get_nested("IFLA_XDP", "IFLA_XDP_PROG_ID") or 0,
    )


def interfaces() -> list[Interface]:
    """All of this namespace, in the order of their indexes."""
    with IPRoute() as ip:
        return sorted((from_message(message) for message in ip.get_links()), key=lambda interface: interface.ifindex)


def interface_names() -> list[str]:
    return [interface.name for interface in interfaces()]


def find(name_or_index: str | int) -> Interface | None:
    """One interface by name or index; None if there is none."""
    wanted = {"index": name_or_index} if isinstance(name_or_index, int) else {"ifname": name_or_index}
    with IPRoute() as ip:
        try:
            return from_message(ip.link("get", **wanted)[0])
        except NetlinkError:
            return None


def _change(ifindex: int, flag: int, on: bool, what: str) -> bool:
    """Set or clear a flag; False if it was so already, or the interface is gone."""
    with IPRoute(ext_ack=True) as ip:
        try:
            before = bool(ip.link("get", index=ifindex)[0]["flags"] & flag)
            if before == on:
                return False
            ip.link("set", index=ifindex, flags=flag if on else 0, change=flag)
            return True
        except NetlinkError as error:
            if error.code in GONE:
                return False
            raise PortError(f"interface {ifindex}: cannot {what}: {os.strerror(error.code)}") from error


def set_promiscuous(ifindex: int, on: bool) -> bool:
    """Take frames for any MAC address, or only for the interface's own. True if that was a change (which ``on=False`` undoes).

    A flag of the interface, not of a socket: it outlives the agent, as the fast path does. Raises PortError.
    """
    return _change(ifindex, IFF_PROMISC, on, "change promiscuous mode")


def set_up(ifindex: int, up: bool) -> bool:
    """Administrative state; True if that was a change. Raises PortError."""
    return _change(ifindex, IFF_UP, up, "take it up" if up else "take it down")
