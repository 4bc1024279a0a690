"""MAC learning and the plain learning switch: what OFPP_NORMAL does, and a switch without its controller (fail-standalone).

Invariant: looking up changes nothing. What changes an address's port returns the change, which says what megaflows it affects.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model.fields import ETH_DST, ETH_SRC, IN_PORT, VLAN_PRESENT, VLAN_VID
from appliance.model.megaflow import DatapathAction, Flood, Forward
from appliance.model.ports import is_port_number
from appliance.pipeline.translation import Translation

AGEING_TIME = 300.0
"""Seconds (IEEE 802.1Q, 8.8.3: the recommended default)."""
MAX_ADDRESSES = 8192

_MULTICAST = 1 << 40
_LINK_LOCAL = 0x0180C2000000
_LINK_LOCAL_MASK = 0xFFFFFFFFFFF0
_CONSULTED = IN_PORT.mask | ETH_SRC.mask | ETH_DST.mask | VLAN_VID.mask


@dataclass(frozen=True, slots=True)
class MacChange:
    """An address is at ``port`` now and was at ``old_port`` (None: unknown). ``vlan`` is a VLAN id, 0 for untagged."""

    vlan: int
    mac: int
    port: int | None
    old_port: int | None

    def affects(self, normal_key: int) -> bool:
        """Whether a megaflow with this key among its ``Translation.normal_keys`` may have to be translated again.

        It does when it sends to the address; and when it comes from there, because only its packets coming up would show that
        the address has moved back.
        """
        return _vlan(normal_key) == self.vlan and self.mac in (ETH_DST.get(normal_key), ETH_SRC.get(normal_key))


@dataclass(slots=True)
class _Address:
    port: int
    seen: float


class MacTable:
    """Which port each address is at, by VLAN. Bounded: the address that was not seen for longest makes room.

    An address that made room is not reported: megaflows that send to it are still right, until it is learned again.
    """

    def __init__(self, ageing_time: float = AGEING_TIME, max_addresses: int = MAX_ADDRESSES) -> None:
        self.ageing_time = ageing_time
        self.max_addresses = max_addresses
        self._addresses: dict[tuple[int, int], _Address] = {}
        """The one seen last is last."""

    def __len__(self) -> int:
        return len(self._addresses)

    def look_up(self, vlan: int, mac: int, now: float) -> int | None:
        """The port of an address that was seen within the ageing time."""
        address = self._addresses.get((vlan, mac))
        return None if address is None or now >= address.seen + self.ageing_time else address.port

    def learn(self, key: int, now: float) -> MacChange | None:
        """The sender of a packet with this flow key is at its ``in_port``. Returns what changed; None if that was known.

        Nothing is learned from a multicast sender, or from a packet that came from no port (a packet-out's).
        """
        mac, port, vlan = ETH_SRC.get(key), IN_PORT.get(key), _vlan(key)
        if mac & _MULTICAST or not is_port_number(port):
            return None
        old = self._addresses.pop((vlan, mac), None)
        self._addresses[vlan, mac] = _Address(port, now)
        if len(self._addresses) > self.max_addresses:
            del self._addresses[next(iter(self._addresses))]
        if old is not None and old.port == port and now < old.seen + self.ageing_time:
            return None
        return MacChange(vlan, mac, port, None if old is None else old.port)

    def refresh(self, key: int, last_used: float) -> None:
        """The fast path dealt with packets of a megaflow that this key stands for, the last of them at ``last_used``."""
        where = _vlan(key), ETH_SRC.get(key)
        address = self._addresses.get(where)
        if address is not None and address.port == IN_PORT.get(key) and last_used > address.seen:
            del self._addresses[where]
            address.seen = last_used
            self._addresses[where] = address

    def expire(self, now: float) -> list[MacChange]:
        """Forget addresses that were not seen for the ageing time. Refresh from the fast path's statistics first."""
        gone = [(where, address) for where, address in self._addresses.items() if now >= address.seen + self.ageing_time]
        for where, _ in gone:
            del self._addresses[where]
        return [MacChange(vlan, mac, None, address.port) for (vlan, mac), address in gone]

    def forget_port(self, port: int) -> list[MacChange]:
        """Forget all addresses at a port that went down or away."""
        gone = [where for where, address in self._addresses.items() if address.port == port]
        for where in gone:
            del self._addresses[where]
        return [MacChange(vlan, mac, None, port) for vlan, mac in gone]


def normal(key: int, mac_table: MacTable, now: float) -> Translation:
    """What a learning switch does with a packet: to the port of the address, or everywhere if that is unknown or a group.

    Learn from the packet by ``mac_table.learn(key, now)`` for each key in ``Translation.normal_keys``; here nothing is changed.
    Frames to the link-local group addresses 01-80-c2-00-00-0X are not forwarded (IEEE 802.1Q, 8.6.3).
    """
    dst = ETH_DST.get(key)
    port = None if dst & _MULTICAST else mac_table.look_up(_vlan(key), dst, now)
    actions: tuple[DatapathAction, ...] = ()
    if port is None:
        if dst & _LINK_LOCAL_MASK != _LINK_LOCAL:
            actions = (Flood(),)
    elif port != IN_PORT.get(key):
        actions = (Forward(port),)
    return Translation(key, _CONSULTED, actions, normal_keys=(key,))


def _vlan(key: int) -> int:
    vid = VLAN_VID.get(key)
    return vid & ~VLAN_PRESENT if vid & VLAN_PRESENT else 0
