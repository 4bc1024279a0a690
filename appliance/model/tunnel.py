"""Tunnels: what is known of the one that a packet came by or is to leave by, and how a port is one end of some.

A packet's tunnel fields (``tunnel_id``, ``tun_src``, ``tun_dst``) are in its flow key and in no frame. They are set when the packet
comes in by a tunnel port, to 0 otherwise, and set-field changes them; a tunnel port reads them as the packet leaves, as far as
its own options do not say what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from appliance.model.fields import TUN_DST, TUN_SRC, TUNNEL_ID

TUNNEL_FIELDS = frozenset({TUNNEL_ID.name, TUN_SRC.name, TUN_DST.name})


class Tunnel(NamedTuple):
    """The tunnel fields of one packet: ``id`` is the VNI or GRE key; addresses are IPv4, as integers, 0 for none (or IPv6)."""

    id: int = 0
    src: int = 0
    dst: int = 0

    def put(self, name: str, value: int) -> Tunnel:
        """With one of TUNNEL_FIELDS changed."""
        if name == TUNNEL_ID.name:
            return self._replace(id=value)
        return self._replace(src=value) if name == TUN_SRC.name else self._replace(dst=value)

    def set_since(self, came: Tunnel) -> Tunnel:
        """Without the addresses of the tunnel that the packet came by, which would lead back to where we are: only what an action
        sets says where it goes. (The id does: it stays that of the tunnel that it came by.)
        """
        return Tunnel(self.id, self.src if self.src != came.src else 0, self.dst if self.dst != came.dst else 0)


NO_TUNNEL = Tunnel()

DEFAULT_TTL = 64


@dataclass(frozen=True, slots=True)
class TunnelPort:
    """One port's end of tunnels. What is None is left open: the fields of each packet that leaves say it, and packets that come
    in may have any.
    """

    remote: IPv4Address | IPv6Address | None = None
    local: IPv4Address | IPv6Address | None = None
    key: int | None = None
    """VNI or GRE key."""
    keyless: bool = False
    """GRE without a key (which counts as key 0)."""
    checksum: bool = False
    """Of the outer UDP or GRE header."""
    dont_fragment: bool = True
    tos: int | None = 0
    """The outer header's DSCP and ECN; None: the DSCP of the packet."""
    ttl: int | None = DEFAULT_TTL
    """None: that of the packet."""

    @property
    def ipv6(self) -> bool:
        """Whether it has addresses, and they are IPv6."""
        return (self.remote or self.local or IPv4Address(0)).version == 6

    def takes(self, came: Tunnel) -> bool:
        """Whether packets that came by this tunnel may be the port's (of IPv6 the addresses are not known)."""
        return (
            self.remote in (None, IPv4Address(came.src))
            and self.local in (None, IPv4Address(came.dst))
            and self.key in (None, came.id)
        )

    @property
    def precision(self) -> tuple[bool, bool, bool]:
        """Of several ports of a device that take a packet, the one where this is greatest gets it: what Open vSwitch does, too."""
        return (self.key is not None, self.remote is not None, self.local is not None)

    def sends(self, leaving: Tunnel) -> Tunnel | None:
        """The tunnel by which a packet with these fields goes, None for nowhere. An address of 0 is one that no action set."""
        dst = leaving.dst if self.remote is None else int(self.remote)
        src = leaving.src if self.local is None else int(self.local)
        return Tunnel(leaving.id if self.key is None else self.key, src, dst) if dst else None


def tunnel_of(key: int) -> Tunnel:
    """The tunnel fields of a flow key."""
    return Tunnel(TUNNEL_ID.get(key), TUN_SRC.get(key), TUN_DST.get(key))
