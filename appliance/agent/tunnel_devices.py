"""The kernel's devices below the configured tunnel ports: one for all ports of a kind and UDP port.

Invariant: while the agent runs there are those that its ports need, and of those that it or an earlier run of the switch made no
others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from appliance.agent.links import Links, Placement
from appliance.config import PortSpec
from appliance.model.ports import Hook, Port
from appliance.model.tunnel import TunnelPort
from appliance.ports import Interface, TunnelDevice


def tunnel_of(spec: PortSpec) -> TunnelPort | None:
    """None for a port that is no tunnel's."""
    return None if spec.type == "system" or spec.tunnel is None else spec.tunnel.port(spec.type)


class TunnelDevices:
    """Of the switch called ``owner``."""

    def __init__(self, links: Links, owner: str) -> None:
        self._links = links
        self._owner = owner

    def device(self, spec: PortSpec) -> TunnelDevice:
        if spec.type == "system" or spec.tunnel is None:
            raise ValueError(f"{spec.interface} is no tunnel port")
        return TunnelDevice(spec.type, spec.tunnel.udp_port(spec.type), self._owner)

    def make(self, spec: PortSpec) -> Interface:
        """The port's device, which is made if it is not there. Raises PortError."""
        return self._links.make_tunnel_device(self.device(spec))

    def remove_others(self, specs: Iterable[PortSpec]) -> None:
        """Those that no port needs (any more). Raises PortError."""
        self._links.remove_tunnel_devices(self._owner, {self.device(spec).name for spec in specs if spec.type != "system"})

    def placement(self, spec: PortSpec) -> Placement:
        return Placement(Hook.TC, f"the kernel's {spec.type} {_where(spec)}, behind {self.device(spec).name}")

    def describe(self, spec: PortSpec, interface: Interface) -> Port:
        """The port has a name and a MAC address of its own, always the same; all else it has from the device."""
        mac = bytearray(hashlib.sha256(f"{self._owner}/{spec.interface}".encode()).digest()[:6])
        mac[0] = mac[0] & 0xFC | 0x02  # locally administered, of one station
        return replace(self._links.describe(interface, spec.number), name=spec.interface, hw_addr=bytes(mac))


def _where(spec: PortSpec) -> str:
    """The tunnels that are the port's, in words."""
    port = tunnel_of(spec)
    if port is None:
        raise ValueError(f"{spec.interface} is no tunnel port")
    remote = "to where flow entries say" if port.remote is None else f"to {port.remote}"
    key = "any key" if port.key is None else "no key" if port.keyless else f"key {port.key}"
    return f"{remote}, {key}"
