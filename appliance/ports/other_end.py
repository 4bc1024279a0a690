"""The other end of a veth in another network namespace: whether frames may go straight there (``bpf_redirect_peer``), past the
queue between the two ends, which is a third of what forwarding between containers costs.

Invariant: only frames that would arrive the same way by the queue go past it. The kernel takes one that goes past it for a frame to
the machine behind the other end, so its destination must be that end's address; and neither a qdisc here nor an XDP program there
sees it, so there must be none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.ports.interface import GONE, MAC_BYTES, Interface, from_message

_NO_QDISC = ("", "noqueue")


@dataclass(frozen=True, slots=True)
class OutputMethod:
    """``other_end``: the MAC address of the frames that go straight to a veth's other end; empty: none do. ``reason`` is in words,
    and empty where there is nothing to choose."""

    other_end: bytes
    reason: str


def choose_output(interface: Interface) -> OutputMethod:
    """For the interface as it is now. Ask again when ``LinkWatcher`` says that something changed."""
    if interface.kind != "veth":
        return OutputMethod(b"", "")
    with IPRoute() as ip:
        try:
            here = ip.link("get", index=interface.ifindex)[0]
            there = _other_end(ip, from_message(here))
        except NetlinkError as error:
            if error.code in GONE:
                return OutputMethod(b"", "it is gone")
            return OutputMethod(b"", f"its other end cannot be asked for: {os.strerror(error.code)}")
    if there is None:
        return OutputMethod(b"", "its other end is in this namespace")
    if (qdisc := here.get_attr("IFLA_QDISC") or "") not in _NO_QDISC:
        return OutputMethod(b"", f"its qdisc {qdisc} is to see what leaves")
    if there.get_nested("IFLA_XDP", "IFLA_XDP_ATTACHED"):
        return OutputMethod(b"", "the XDP program at its other end is to see what arrives")
    mac = from_message(there).mac
    if mac == bytes(MAC_BYTES):
        return OutputMethod(b"", "its other end has no address")
    return OutputMethod(mac, "its other end is in another namespace")


def _other_end(ip: Any, interface: Interface) -> Any:
    """What the kernel tells of it; None if it is in our namespace. Raises NetlinkError."""
    if interface.other_end is None:
        return None
    namespace, ifindex = interface.other_end
    return ip.link("get", index=ifindex, IFLA_IF_NETNSID=namespace)[0]
