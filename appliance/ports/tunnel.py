"""Tunnel devices: one for each kind of tunnel and UDP port, in collect-metadata mode, shared by all tunnel ports that need it.

Metadata says of each packet where it came from and where it is to go, so a device has no remote and no key of its own. It outlives
the agent, as the fast path does: packets go on, and a new agent of the same switch takes the device over.

Invariant: only a device that this switch made, now or before it crashed, is taken over or removed. The device says whose it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.ports.interface import GONE, Interface, PortError, from_message

TunnelKind = Literal["vxlan", "geneve", "gre"]

DEVICE_MTU = 65000
"""As Open vSwitch's: what fits in the underlay is for the underlay to say, packet by packet."""
_IPV6 = Path("/proc/net/if_inet6")
"""Not there where the kernel does without."""
_NO_ADDRESSES = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]]}
"""IN6_ADDR_GEN_MODE_NONE: without an address the device says nothing of its own."""
_OWNER = "ofswitch {}: tunnels"


@dataclass(frozen=True, slots=True)
class TunnelDevice:
    """``udp_port`` is 0 for GRE; ``switch`` is the owner."""

    kind: TunnelKind
    udp_port: int
    switch: str

    @property
    def name(self) -> str:
        return f"{self.kind}_of_{self.udp_port}" if self.udp_port else f"{self.kind}_of"

    @property
    def _link(self) -> dict[str, Any]:
        match self.kind:
            case "vxlan":
                return {
                    "kind": "vxlan",
                    "vxlan_collect_metadata": 1,
                    "vxlan_learning": 0,
                    "vxlan_port": self.udp_port,
                    "vxlan_udp_zero_csum6_rx": 1,
                }
            case "geneve":
                return {
                    "kind": "geneve",
                    "geneve_collect_metadata": True,
                    "geneve_port": self.udp_port,
                    "geneve_udp_zero_csum6_rx": 1,
                }
            case "gre":
                return {"kind": "gretap", "gre_collect_metadata": True}


def make_tunnel_device(device: TunnelDevice) -> Interface:
    """Make it, or take over what an earlier run of this switch left; it is up. Raises PortError."""
    with IPRoute(ext_ack=True) as ip:
        known = _find(ip, device.name)
        if known is not None:
            if _owner(known) != _OWNER.format(device.switch):
                raise PortError(f"there is an interface {device.name} already, which is not this switch's")
            ip.link("set", index=known["index"], state="up")
            return from_message(known)
        try:
            ip.link("add", ifname=device.name, mtu=DEVICE_MTU, **device._link)
        except NetlinkError as error:
            raise PortError(_refusal(device, error)) from error
        try:
            index = ip.link_lookup(ifname=device.name)[0]
            alias = _OWNER.format(device.switch)
            ip.link("set", index=index, ifalias=alias, **({"IFLA_AF_SPEC": _NO_ADDRESSES} if _IPV6.exists() else {}))
            ip.link("set", index=index, state="up")
            return from_message(ip.link("get", index=index)[0])
        except NetlinkError as error:
            _remove(ip, device.name)
            raise PortError(_refusal(device, error)) from error


def remove_tunnel_devices(switch: str, keep: Collection[str] = ()) -> list[str]:
    """All of this switch's but those named in ``keep``; the names of those that are gone now. Raises PortError."""
    with IPRoute() as ip:
        names = [str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links() if _owner(link) == _OWNER.format(switch)]
        gone = [name for name in names if name not in keep]
        for name in gone:
            try:
                _remove(ip, name)
            except NetlinkError as error:
                raise PortError(f"cannot remove the interface {name}: {os.strerror(error.code)}") from error
        return gone


def _find(ip: Any, name: str) -> Any:
    try:
        return ip.link("get", ifname=name)[0]
    except NetlinkError:
        return None


def _owner(link: Any) -> str:
    return str(link.get_attr("IFLA_IFALIAS") or "")


def _remove(ip: Any, name: str) -> None:
    link = _find(ip, name)
    if link is None:
        return
    try:
        ip.link("del", index=link["index"])
    except NetlinkError as error:
        if error.code not in GONE:
            raise


def _refusal(device: TunnelDevice, error: NetlinkError) -> str:
    what = f"{device.kind} on UDP port {device.udp_port}" if device.udp_port else device.kind
    if error.code == errno.EOPNOTSUPP:
        return f"this kernel has no {device.kind} devices (module {'ip_gre' if device.kind == 'gre' else device.kind})"
    if error.code in (errno.EEXIST, errno.EADDRINUSE):
        advice = "; choose another dst_port" if device.udp_port else ""
        return f"{what} is taken in this network namespace by another device or program{advice}"
    return f"cannot make a device for {what}: {os.strerror(error.code)}"
