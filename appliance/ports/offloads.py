"""Frames as XDP needs them: whole, with their tags in them and their checksums finished.

A driver or a local stack leaves checksums, segmentation and tags to be done later, and says so beside the frame, in the skb; XDP
sees the frame alone. So before a port's XDP program may send frames on, these offloads are turned off where the frames come from:
on the interface itself, or, for a veth, on its other end, which may be in another namespace. Where that cannot be done, XDP passes
all on to TC.

Invariant: what was turned off here, or by an agent that died, and nothing else, is turned on again by ``restore``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ethtool import ethtoolbitset, ethtoolheader

from appliance.ports.interface import Interface
from appliance.ports.namespaces import Place, inside, other_end_of

_FEATURES_GET, _FEATURES_SET = 11, 12
_VLAN = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")
_MERGING = ("rx-gro", "rx-gro-hw", "rx-gro-list", "rx-lro")


@dataclass(frozen=True, slots=True)
class Finished:
    """Whether the interface's frames come finished, and why, in words."""

    yes: bool
    reason: str


class Offloads:
    """What has been turned off for the sake of ports, by their interface's index."""

    def __init__(self) -> None:
        self._off: dict[int, list[tuple[Place, tuple[str, ...]]]] = {}
        self._adopted: dict[int, list[tuple[Place, Callable[[str], bool]]]] = {}
        """What an agent that died has turned off: which of the offloads, as far as they turn out to be off."""

    def finish(self, interface: Interface, *, generic: bool) -> Finished:
        """Have the interface's frames come to XDP finished. ``generic``: the program runs behind the driver, on skbs."""
        own = Place(None, interface.ifindex)
        kind = interface.kind
        if kind == "tun":
            return _tap(interface.ifindex)
        if kind not in ("", "veth"):
            return Finished(False, f"what comes from a {kind} may be unfinished")
        needed = [] if kind == "veth" and not generic else [(own, _own(generic))]
        whose = "its"
        if kind == "veth":
            peer = other_end_of(interface.ifindex)
            if peer is None:
                return Finished(False, "its other end, which leaves checksums and tags to it, is in a namespace out of reach")
            needed.append((peer, _sending))
            whose = "its other end's"
        off = self._off.setdefault(interface.ifindex, [])
        for place, which in needed:
            try:
                off.append((place, inside(place.namespace, lambda at=place, which=which: _turn_off(at.ifindex, which))))  # type: ignore[misc]
                active: set[str] = inside(place.namespace, lambda at=place: _active(at.ifindex))  # type: ignore[misc]
                left = sorted(name for name in active if which(name))
            except (NetlinkError, OSError) as error:
                return Finished(False, f"{whose} offloads cannot be turned off: {error}")
            if left:
                return Finished(False, f"{', '.join(left)} cannot be turned off")
        return Finished(True, f"{whose} offloads are off, so that frames come finished")

    def adopt(self, interface: Interface, *, generic: bool) -> None:
        """An agent that died has had the interface at XDP: what is off, and on by default, it has turned off (as ``finish`` does).

        Not the merging of received frames, which is off by default on some interfaces.
        """
        kind = interface.kind
        adopted = self._adopted.setdefault(interface.ifindex, [])
        if kind == "" or (kind == "veth" and generic):
            adopted.append((Place(None, interface.ifindex), _own(False)))
        peer = other_end_of(interface.ifindex) if kind == "veth" else None
        if peer is not None:
            adopted.append((peer, _sending))

    def restore(self, ifindex: int) -> None:
        """Turn on again what is off for this interface's sake; where that is gone, there is nothing to do.

        XDP must have been taken off it: a veth cannot segment while there is a program at its other end.
        """
        for place, names in reversed(self._off.pop(ifindex, [])):
            with suppress(NetlinkError, OSError):
                inside(place.namespace, lambda at=place, names=names: _set(at.ifindex, names, on=True))  # type: ignore[misc]
        for place, which in self._adopted.pop(ifindex, []):
            with suppress(NetlinkError, OSError):
                inside(place.namespace, lambda at=place, which=which: _turn_on(at.ifindex, which))  # type: ignore[misc]

    def restore_all(self) -> None:
        """The same for all interfaces."""
        for ifindex in self._off.keys() | self._adopted.keys():
            self.restore(ifindex)


def _own(generic: bool) -> Callable[[str], bool]:
    names = frozenset(_VLAN + _MERGING if generic else _VLAN)
    return lambda name: name in names


def _sending(name: str) -> bool:
    """What a sender leaves to the interface."""
    return name.startswith(("tx-checksum-", "tx-vlan-", "tx-gso-list")) or (
        name.startswith("tx-") and name.endswith("-segmentation")
    )


def _tap(ifindex: int) -> Finished:
    with IPRoute() as ip:
        message = ip.link("get", index=ifindex)[0]
    data = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    if data is not None and not data.get_attr("IFLA_TUN_VNET_HDR"):
        return Finished(True, "without virtio headers its frames come finished")
    return Finished(False, "its frames may come with virtio headers, unfinished")


# ── ethtool's features ─────────────────────────────────────────────────────────────────────────────────────────────────
class _Features(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    prefix = "ETHTOOL_A_FEATURES_"
    nla_map = (
        (1, "ETHTOOL_A_FEATURES_HEADER", "ethtoolheader"),
        (2, "ETHTOOL_A_FEATURES_HW", "ethtoolbitset"),
        (3, "ETHTOOL_A_FEATURES_WANTED", "ethtoolbitset"),
        (4, "ETHTOOL_A_FEATURES_ACTIVE", "ethtoolbitset"),
        (5, "ETHTOOL_A_FEATURES_NOCHANGE", "ethtoolbitset"),
    )
    ethtoolheader = ethtoolheader
    ethtoolbitset = ethtoolbitset


def _ask(command: int, ifindex: int, attributes: Iterable[Any] = ()) -> list[Any]:
    request = _Features()
    request["cmd"], request["version"] = command, 1
    header = ("ETHTOOL_A_FEATURES_HEADER", {"attrs": [("ETHTOOL_A_HEADER_DEV_INDEX", ifindex)]})
    request["attrs"] = [header, *attributes]
    with GenericNetlinkSocket() as ethtool:
        ethtool.bind("ethtool", _Features)
        flags = NLM_F_REQUEST | (NLM_F_ACK if command == _FEATURES_SET else 0)
        return list(ethtool.nlm_request(request, msg_type=ethtool.prid, msg_flags=flags))


def _active(ifindex: int) -> set[str]:
    return {name for name, _ in _bits(_ask(_FEATURES_GET, ifindex)[0], "ETHTOOL_A_FEATURES_ACTIVE")}


def _turn_on(ifindex: int, which: Callable[[str], bool]) -> None:
    """Those of them that are off and could be on."""
    features = _ask(_FEATURES_GET, ifindex)[0]
    able = {name for name, is_set in _bits(features, "ETHTOOL_A_FEATURES_HW") if is_set}
    active = {name for name, _ in _bits(features, "ETHTOOL_A_FEATURES_ACTIVE")}
    if names := sorted(filter(which, able - active)):
        _set(ifindex, names, on=True)


def _bits(features: Any, of: str) -> list[tuple[str, bool]]:
    """Name and value of each. Where all that are listed are set, no value is told."""
    bits = features.get_nested(of, "ETHTOOL_A_BITSET_BITS")
    listed = [bit for _, bit, *_ in bits["attrs"]] if bits else []
    return [(bit.get_attr("ETHTOOL_A_BITSET_BIT_NAME"), bool(bit.get_attr("ETHTOOL_A_BITSET_BIT_VALUE"))) for bit in listed]


def _set(ifindex: int, names: Iterable[str], *, on: bool) -> None:
    value = [("ETHTOOL_A_BITSET_BIT_VALUE", True)] if on else []
    bits = [("ETHTOOL_A_BITSET_BITS_BIT", {"attrs": [("ETHTOOL_A_BITSET_BIT_NAME", name), *value]}) for name in names]
    _ask(_FEATURES_SET, ifindex, [("ETHTOOL_A_FEATURES_WANTED", {"attrs": [("ETHTOOL_A_BITSET_BITS", {"attrs": bits})]})])


def _turn_off(ifindex: int, which: Callable[[str], bool]) -> tuple[str, ...]:
    """Those of them that were on."""
    names = tuple(sorted(filter(which, _active(ifindex))))
    if names:
        _set(ifindex, names, on=False)
    return names
