"""The switch's ports as OpenFlow sees them: description, configuration, counters; and what may go out of and come in by each.

Invariant: ``config`` is changed by OFPT_PORT_MOD alone; everything else about a port comes from the shell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from appliance.model.ports import Port, PortConfig, PortCounters, PortNo, PortState
from appliance.openflow.errors import BadRequest, ErrorType, PortModFailed, ProtocolError
from appliance.openflow.messages import PortMod, PortStats, PortStatus
from appliance.openflow.port import PortReason
from appliance.switch.duration import duration
from appliance.switch.effects import UpdatePort

CONFIGURABLE = PortConfig.PORT_DOWN | PortConfig.NO_RECV | PortConfig.NO_FWD | PortConfig.NO_PACKET_IN


def _with_liveness(port: Port) -> Port:
    """A port that is configured down is not live, whatever its link says (section 6.5)."""
    return port if port.up else replace(port, state=port.state & ~PortState.LIVE)


class SwitchPort:
    """One port. ``added_at`` is in seconds of the shell's clock."""

    __slots__ = ("added_at", "counters", "port", "reported")

    def __init__(self, port: Port, now: float) -> None:
        self.reported = port
        """As the shell described it last."""
        self.port = _with_liveness(port)
        self.added_at = now
        self.counters = PortCounters()

    @property
    def forwards(self) -> bool:
        return self.port.up and not self.port.config & PortConfig.NO_FWD

    @property
    def receives(self) -> bool:
        """A link that is down lets nothing in by itself; a frame that still came is welcome."""
        return not self.port.config & (PortConfig.PORT_DOWN | PortConfig.NO_RECV)

    def update(self) -> UpdatePort:
        return UpdatePort(self.port.number, self.forwards, self.receives, self.port.up)


class Ports:
    """All ports by number."""

    def __init__(self) -> None:
        self._ports: dict[int, SwitchPort] = {}
        # Asked for every packet, and operations on IntFlag are slow: worked out when a port changes.
        self.forwarding: dict[int, None] = {}
        """Where a frame may go out now."""
        self._live: frozenset[int] = frozenset()
        self._silent: frozenset[int] = frozenset()

    def __contains__(self, number: int) -> bool:
        return number in self._ports

    def __iter__(self) -> Iterator[SwitchPort]:
        return (port for _, port in sorted(self._ports.items()))

    def get(self, number: int) -> SwitchPort | None:
        return self._ports.get(number)

    # ── changes ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def add(self, port: Port, now: float) -> PortStatus | None:
        """A port that is there already counts as changed. Returns what to tell the controllers, if anything changed."""
        if port.number in self._ports:
            return self.change(port)
        added = self._ports[port.number] = SwitchPort(port, now)
        self._changed()
        return PortStatus(PortReason.ADD, added.port)

    def change(self, port: Port) -> PortStatus | None:
        """None if nothing that OpenFlow shows has changed, or if there is no such port."""
        known = self._ports.get(port.number)
        if known is None:
            return None
        known.reported = port
        return self._set(known, replace(port, config=known.port.config))

    def remove(self, number: int) -> PortStatus | None:
        known = self._ports.pop(number, None)
        if known is None:
            return None
        self._changed()
        return PortStatus(PortReason.DELETE, known.port)

    def configure(self, mod: PortMod) -> PortStatus | None:
        """OFPT_PORT_MOD. Raises ProtocolError, having changed nothing."""
        known = self._ports.get(mod.port_no)
        if known is None:
            raise ProtocolError(ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_PORT, f"there is no port {mod.port_no:#x}")
        port = known.port
        if mod.hw_addr != port.hw_addr:
            raise ProtocolError(
                ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_HW_ADDR, f"port {port.number} has the address {port.hw_addr.hex(':')}"
            )
        if int(mod.mask) & ~int(CONFIGURABLE):
            raise ProtocolError(ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_CONFIG, f"configuration bits {int(mod.mask):#x}")
        if mod.advertise & ~port.supported:
            raise ProtocolError(
                ErrorType.PORT_MOD_FAILED,
                PortModFailed.BAD_ADVERTISE,
                f"features {mod.advertise:#x}, supported {port.supported:#x}",
            )
        return self._set(known, replace(known.reported, config=(port.config & ~mod.mask) | (mod.config & mod.mask)))

    def _set(self, known: SwitchPort, port: Port) -> PortStatus | None:
        port = _with_liveness(port)
        if port == known.port:
            return None
        known.port = port
        self._changed()
        return PortStatus(PortReason.MODIFY, port)

    def _changed(self) -> None:
        self.forwarding = {port.port.number: None for port in self if port.forwards}
        self._live = frozenset(port.port.number for port in self if port.port.up)
        self._silent = frozenset(port.port.number for port in self if port.port.config & PortConfig.NO_PACKET_IN)

    # ── packets ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def forwards(self, number: int) -> bool:
        """Whether a frame may go out there now."""
        return number in self.forwarding

    def live(self, number: int) -> bool:
        """Whether a bucket that watches this port is live (section 6.5)."""
        return number in self._live

    def flood(self, in_port: int) -> list[int]:
        """Ports that OFPP_FLOOD and OFPP_ALL stand for."""
        return [number for number in self.forwarding if number != in_port]

    def sends_packet_in(self, number: int) -> bool:
        """Whether the controllers want to see packets from there that miss in a table (OFPPC_NO_PACKET_IN, section 7.2.1)."""
        return number not in self._silent

    # ── counters ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def count(self, counters: Mapping[int, PortCounters]) -> None:
        """Numbers that are no ports are passed over."""
        for number, read in counters.items():
            port = self._ports.get(number)
            if port is not None:
                port.counters = read

    def statistics(self, number: int, now: float) -> tuple[PortStats, ...]:
        """Of one port, or of all for OFPP_ANY. Raises ProtocolError if there is no such port."""
        if number == PortNo.ANY:
            ports = list(self)
        else:
            self.check(number)
            ports = [self._ports[number]]
        return tuple(PortStats(port.port.number, port.counters, *duration(port.added_at, now)) for port in ports)

    def check(self, number: int) -> None:
        """Raises BAD_REQUEST/BAD_PORT unless there is such a port."""
        if number not in self._ports:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BAD_PORT, f"there is no port {number:#x}")
