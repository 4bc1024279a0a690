"""OFPP_LOCAL's interface: a veth pair between this machine's own network stack and the switch.

One end has the name that users give addresses to and reach the machine by, as Open vSwitch's internal port has; the other end is
where the fast path meets its frames. A veth, because hooks, GSO frames and the slow path work on it as on every other port, and
because the pair outlives the agent, so that packets go on.

Invariant: only a pair that this switch made, now or before it crashed, is taken over or removed. The switch's end says whose it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.ports.interface import GONE, Interface, PortError, find, from_message

MAX_INTERFACE_NAME = 15
_SUFFIX = "-sw"
_IPV6 = "/proc/net/if_inet6"
"""Not there where the kernel does without."""
_NO_ADDRESSES = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]]}
"""IN6_ADDR_GEN_MODE_NONE: without an address the switch's end says nothing of its own."""


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """What the port is to be: the ``host`` end's name, and its MAC address unless it is there already; ``switch`` is the owner."""

    host: str
    mac: bytes
    switch: str

    @property
    def end(self) -> str:
        """The name of the switch's end."""
        return self.host[: MAX_INTERFACE_NAME - len(_SUFFIX)] + _SUFFIX

    @property
    def owner(self) -> str:
        """What stands at the switch's end, for ``ip link`` to show."""
        return f"ofswitch {self.switch}: the switch's end of {self.host}, OFPP_LOCAL"


def make_local(spec: LocalSpec, mtu: int) -> Interface:
    """Make the pair, or take over what an earlier run of this switch left; the switch's end, which is up. The host's end is left
    down for whoever gives it an address, as Open vSwitch leaves it. ``mtu`` is in bytes. Raises PortError.
    """
    known = find(spec.end)
    if known is not None and _owner(known.ifindex) == spec.owner:
        return known
    for name in (spec.host, spec.end):
        if find(name) is not None:
            raise PortError(f"there is an interface {name} already, which is not this switch's")
    with IPRoute(ext_ack=True) as ip:
        index = None
        try:
            peer = {"ifname": spec.end, "mtu": mtu}
            ip.link("add", ifname=spec.host, kind="veth", address=spec.mac.hex(":"), mtu=mtu, peer=peer)
            index = ip.link_lookup(ifname=spec.end)[0]
            ip.link("set", index=index, ifalias=spec.owner, **({"IFLA_AF_SPEC": _NO_ADDRESSES} if os.path.exists(_IPV6) else {}))
            ip.link("set", index=index, state="up")
            return from_message(ip.link("get", index=index)[0])
        except NetlinkError as error:
            if index is not None:
                ip.link("del", index=index)
            raise PortError(f"cannot make the interface {spec.host}: {os.strerror(error.code)}") from error


def remove_local(spec: LocalSpec) -> None:
    """Both ends, wherever the host's has been moved to. Nothing of ours there: nothing to do. Raises PortError."""
    known = find(spec.end)
    if known is None or _owner(known.ifindex) != spec.owner:
        return
    with IPRoute() as ip:
        try:
            ip.link("del", index=known.ifindex)
        except NetlinkError as error:
            if error.code not in GONE:
                raise PortError(f"cannot remove the interface {spec.host}: {os.strerror(error.code)}") from error


def _owner(ifindex: int) -> str:
    with IPRoute() as ip:
        try:
            return str(ip.link("get", index=ifindex)[0].get_attr("IFLA_IFALIAS") or "")
        except NetlinkError:
            return ""
