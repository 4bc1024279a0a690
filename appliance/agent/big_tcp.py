"""BIG TCP on all ports, or on none: a frame that comes in on one may leave by any.

Invariant: the ports' interfaces have the larger size exactly while every port takes such frames whole, as far as is known of each
since it changed last; a switch that is not to have them takes back what an earlier run left.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.agent.links import Links
from appliance.config import BigTcpChoice
from appliance.ports import BIG_BYTES, End, Interface, PortError

LOG = logging.getLogger("ofswitch.ports")


@dataclass(slots=True)
class _Port:
    title: str
    interface: Interface
    own_hindrance: str
    """For what the switch knows of it, whatever its interface is."""
    hindrance: str = ""
    asked: bool = False
    """Since it changed."""
    ends: Sequence[End] = ()
    enlarged: bool | None = None
    """None: not known yet, as an earlier run may have left it so."""
    lacks: str = ""
    """What an enlarged one has not."""


class BigTcpPorts:
    """``choice`` is the configuration's."""

    def __init__(self, links: Links, choice: BigTcpChoice) -> None:
        self._links = links
        self._choice = choice
        self._ports: dict[int, _Port] = {}

    def changed(self, number: int, title: str, interface: Interface, hindrance: str) -> None:
        """A port came, or something happened to it or beside it. ``hindrance``: why it can take no such frames, as far as that is
        known without its interface; empty if that is not so.
        """
        known = self._ports.get(number)
        now = self._ports[number] = _Port(title, interface, hindrance)
        if known is not None:
            now.hindrance = known.hindrance
            # What it lacks, it may have by now; and where its other end has gone there is all to do.
            if known.interface.other_end == interface.other_end and not known.lacks:
                now.enlarged = known.enlarged

    def gone(self, number: int) -> None:
        """Its interface is as it was found."""
        port = self._ports.pop(number, None)
        if port is not None and port.enlarged is not False:
            self._restore(port)

    def settle(self) -> None:
        """After all that has changed: larger frames for all ports, or for none."""
        if self._choice == "off":
            wanted = False
        else:
            self._ask()
            wanted = bool(self._ports) and not any(port.hindrance for port in self._ports.values())
        for port in self._ports.values() if wanted else ():
            try:
                if not port.enlarged:
                    self._enlarge(port)
            except PortError as error:
                port.hindrance, port.enlarged = str(error), None
                wanted = False
                LOG.warning("no BIG TCP: %s: %s", port.title, error)
                break
        for port in () if wanted else self._ports.values():
            if port.enlarged is not False:
                self._restore(port)

    def close(self) -> None:
        for number in list(self._ports):
            self.gone(number)

    def state(self, number: int) -> tuple[bool, str]:
        """Whether a port has the larger frames, and why, in words."""
        port = self._ports.get(number)
        if port is None:
            return False, ""
        if self._choice == "off":
            return False, "as configured"
        if port.enlarged:
            return True, port.lacks or f"frames of up to {BIG_BYTES:,} bytes, as every port takes them whole"
        if port.hindrance:
            return False, port.hindrance
        other = next((item for item in self._ports.values() if item.hindrance), None)
        return False, "" if other is None else f"{other.title}: {other.hindrance}"

    def _ask(self) -> None:
        """Ports that changed, and those that were a hindrance: it may lie beside them."""
        asked = [port for port in self._ports.values() if port.hindrance or not port.asked]
        for port in asked:
            port.ends = self._links.ends(port.interface)
        ours = {end for port in self._ports.values() for end in port.ends}
        for port in asked:
            before, port.asked = port.hindrance, True
            port.hindrance = port.own_hindrance or self._links.big_tcp_hindrance(port.interface, ours)
            if port.hindrance and port.hindrance != before:
                LOG.info("no BIG TCP: %s: %s", port.title, port.hindrance)

    def _enlarge(self, port: _Port) -> None:
        """Raises PortError."""
        port.lacks = self._links.enlarge_frames(port.interface)
        port.enlarged = True

    def _restore(self, port: _Port) -> None:
        port.enlarged = False
        try:
            self._links.restore_frames(port.interface)
        except PortError as error:
            LOG.warning("%s: keeps its larger frames: %s", port.title, error)
