"""Tunnels: what is known of the one that a packet came by or is to leave by, and how a port is one end of some.

A packet's tunnel fields (``tunnel_id``, ``tun_src``, ``tun_dst``) are in its flow key and in no frame. They are set when the packet
comes in by a tunnel port, to 0 otherwise, and set-field changes them; a tunnel port reads them as the packet leaves, as far as
its own options do not say what to do.
"""

from __future__ import annotations

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


NO_TUNNEL = Tunnel()


def tunnel_of(key: int) -> Tunnel:
    """The tunnel fields of a flow key."""
    return Tunnel(TUNNEL_ID.get(key), TUN_SRC.get(key), TUN_DST.get(key))
