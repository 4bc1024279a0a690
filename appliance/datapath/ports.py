"""Ports in the fast path: by which program their packets are taken, what is known of each, and how frames of the slow path leave.

Invariant: an interface has our program only while one of our ports is on it, and what that port is has been written before.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import sys
from collections.abc import Mapping

from appliance.datapath import netlink
from appliance.datapath.driver import ONE_PIECE_MTU, DatapathError, DatapathPort, TierCounters
from appliance.datapath.keeper import Keeper
from appliance.datapath.layout import (
    MAX_FLOOD_PORTS,
    NO_OTHER_END,
    PORT_PLACES,
    Port,
    PortCounters,
    PortFlag,
    Settings,
    port_ingress,
    port_place,
    tunnel_ingress,
)
from appliance.datapath.loader import Programs, Sizes
from appliance.datapath.programs import describe
from appliance.datapath.transmit import Transmitter
from appliance.datapath.tunnels import Tunnels
from appliance.model.ports import Hook

_BESIDES_MTU = 18
"""Bytes of a frame that the kernel allows for besides: Ethernet's header and one tag."""
_REDIRECT_TABLES = ("xdp_ports", "generic_ports")
_KEPT = ("tc_programs", "xdp_programs", "generic_programs")
_PORT = struct.Struct("=III4x8s8x")
_NO_OTHER_END = NO_OTHER_END.to_bytes(8, sys.byteorder, signed=True)
_COUNTERS_BYTES = ctypes.sizeof(PortCounters)
_COUNTERS = struct.Struct("=8Q")
_SETTING = int(Settings.flood_ports.offset) // 4


class Ports:
    """By number."""

    def __init__(self, programs: Programs, sizes: Sizes) -> None:
        self._programs = programs
        self._sizes = sizes
        self._ports: dict[int, DatapathPort] = {}
        self._counters = programs.shared_memory("port_counters", PORT_PLACES * sizes.cpus * _COUNTERS_BYTES)
        self._settings = memoryview(programs.shared_memory("settings", ctypes.sizeof(Settings))).cast("I")
        self._keeper = Keeper(programs.map_fd(array) for array in _KEPT)
        self._attached: dict[int, bool] = {}
        """Indices of the interfaces that have our program, and whether we made their clsact qdisc."""
        self._waiting: set[int] = set()
        """Numbers of ports where an earlier agent's programs go on."""
        self.tunnels = Tunnels(programs, programs.shared_memory("injection", Tunnels.MEMORY_BYTES))
        self._transmitter = Transmitter(self.tunnels)
        self.send = self._transmitter.send
        """See ``driver.Datapath``."""

    # ── that come and go ───────────────────────────────────────────────────────────────────────────────────────────────
    def left_behind(self, ifindex: int) -> bool:
        """See ``driver.Datapath``."""
        return ifindex not in self._attached and netlink.is_ours(ifindex)

    def attach(self, port: DatapathPort, *, wait: bool) -> bool:
        """See ``driver.Datapath``."""
        if not self._ports.get(port.number):
            for at in self._counters_at(port.number):
                self._counters[at : at + _COUNTERS_BYTES] = bytes(_COUNTERS_BYTES)
        try:
            self._transmitter.open(port.number, port.ifindex, self.tunnels.mark if port.tunnel else 0)
            if port.tunnel is not None:
                self.tunnels.add(port)
            else:
                for table in _REDIRECT_TABLES:
                    self._programs.update(table, port_place(port.number), _word(port.ifindex))
            self.update(port)
            # Ours may be there for another port of the same tunnel device.
            if wait and port.ifindex not in self._attached and netlink.is_ours(port.ifindex):
                self._waiting.add(port.number)
            else:
                self._hook(port)
            if port.tunnel is not None:
                netlink.attach_tc(port.ifindex, self._programs.inject_fd, egress=True)
        except Exception:
            self._ports[port.number] = port  # however far it came, all of it is undone
            self.detach(port.number)
            raise
        return port.number not in self._waiting

    def take_over(self, number: int) -> None:
        """See ``driver.Datapath``."""
        if number in self._waiting:
            self._waiting.discard(number)
            self._hook(self._ports[number])

    def detach(self, number: int) -> None:
        """See ``driver.Datapath``."""
        with contextlib.suppress(DatapathError):  # the earlier agent's programs and keeper go as ours do
            self.take_over(number)
        port = self._ports.pop(number, None)
        if port is None:
            return
        self._programs.update("ports", port_place(number), bytes(ctypes.sizeof(Port)))
        self._write_flood_list()
        self.tunnels.remove(number)
        self._write_ingress(port, gone=True)
        for table in _REDIRECT_TABLES:
            self._programs.delete(table, port_place(number))
        self._transmitter.close(number)
        if any(other.ifindex == port.ifindex for other in self._ports.values()):
            return  # other ports of a tunnel device
        if port.hook is Hook.XDP:
            netlink.detach_xdp(port.ifindex)
        netlink.detach_tc(port.ifindex)
        self._attached.pop(port.ifindex, None)
        self._keeper.keep(self._attached, freed=(port.ifindex,))

    def close(self) -> None:
        """Detach all."""
        for number in list(self._ports):
            self.detach(number)
        self._keeper.close()
        self._transmitter.close_all()

    def _hook(self, port: DatapathPort) -> None:
        xdp_program = 0
        if port.hook is Hook.XDP:
            xdp_program = self._attach_xdp(port)
        else:
            netlink.detach_xdp(port.ifindex)  # an earlier agent's
        self._attached[port.ifindex] = netlink.attach_tc(port.ifindex, self._programs.tc_fd, xdp_program)
        self._keeper.keep(self._attached)

    def _attach_xdp(self, port: DatapathPort) -> int:
        mode = netlink.XdpMode.GENERIC if port.generic else netlink.XdpMode.NATIVE
        return netlink.attach_xdp(port.ifindex, self._xdp_fd(port), mode)

    def _xdp_fd(self, port: DatapathPort) -> int:
        return self._programs.generic_xdp_fd if port.generic else self._programs.xdp_fd

    # ── that others take our programs off ──────────────────────────────────────────────────────────────────────────────
    def missing(self, number: int) -> frozenset[Hook]:
        """See ``driver.Datapath``."""
        port = self._ports[number]
        there = netlink.attached(port.ifindex, egress=port.tunnel is not None) if port.ifindex in self._attached else None
        if there is None:
            return frozenset()
        xdp_program, at_tc = there
        at_xdp = port.hook is not Hook.XDP or xdp_program == describe(self._xdp_fd(port)).id
        return frozenset(hook for hook, is_there in ((Hook.XDP, at_xdp), (Hook.TC, at_tc)) if not is_there)

    def put_back(self, number: int) -> None:
        """See ``driver.Datapath``."""
        port, missing = self._ports[number], self.missing(number)
        if not missing:
            return
        xdp_program = 0
        try:
            if Hook.XDP in missing:
                xdp_program = self._attach_xdp(port)
            elif port.hook is Hook.XDP:
                xdp_program = describe(self._xdp_fd(port)).id
        finally:
            made = netlink.attach_tc(port.ifindex, self._programs.tc_fd, xdp_program, made_clsact=self._attached[port.ifindex])
            self._attached[port.ifindex] = made
            if port.tunnel is not None:
                netlink.attach_tc(port.ifindex, self._programs.inject_fd, egress=True)

    # ── what eBPF knows of them ────────────────────────────────────────────────────────────────────────────────────────
    def update(self, port: DatapathPort) -> None:
        """See ``driver.Datapath``."""
        self._ports[port.number] = port
        straight = port.other_end.ljust(8, b"\0") if port.other_end else _NO_OTHER_END
        record = _PORT.pack(port.ifindex, _flags(port), port.mtu + _BESIDES_MTU, straight)
        self._programs.update("ports", port_place(port.number), record)
        self._write_ingress(port)
        self._write_flood_list()

    def _write_ingress(self, port: DatapathPort, *, gone: bool = False) -> None:
        """What packets that come in on the port's interface are taken for."""
        ways = 0 if port.tunnel is None else self.tunnels.ways(port.ifindex)
        table = "small_ifindex" if port.ifindex < self._sizes.small_ifindex else "large_ifindex"
        if ways:
            self._programs.update(table, port.ifindex, tunnel_ingress(ways))
        elif not gone:
            self._programs.update(table, port.ifindex, port_ingress(port.number, _flags(port)))
        elif table == "small_ifindex":
            self._programs.update(table, port.ifindex, bytes(8))
        else:
            self._programs.delete(table, port.ifindex)

    def _write_flood_list(self) -> None:
        ports = sorted(number for number, port in self._ports.items() if port.forward)[:MAX_FLOOD_PORTS]
        for place, number in enumerate(ports):
            self._programs.update("flood_list", place, _word(port_place(number)))
        self._settings[_SETTING] = len(ports)

    # ── what it counts ────────────────────────────────────────────────────────────────────────────
    def counters(self) -> Mapping[int, TierCounters]:
        """By port number."""
        return {number: self._counted(number) for number in self._ports}

    def _counted(self, number: int) -> TierCounters:
        totals = [0] * 8
        for at in self._counters_at(number):
            for place, count in enumerate(_COUNTERS.unpack_from(self._counters, at)):
                totals[place] += count
        rx_bytes, tx_packets, tx_bytes, *rest = totals
        return TierCounters(sum(rest[:-1]), rx_bytes, tx_packets, tx_bytes, *rest)

    def _counters_at(self, number: int) -> list[int]:
        """Where they are, on each CPU."""
        return [(port_place(number) + cpu * PORT_PLACES) * _COUNTERS_BYTES for cpu in range(self._sizes.cpus)]


def _flags(port: DatapathPort) -> PortFlag:
    flags = PortFlag(0)
    for flag, on in (
        (PortFlag.FORWARD, port.forward),
        (PortFlag.RECEIVE, port.receive),
        (PortFlag.XDP_TRANSMIT, port.xdp_transmit),
        (PortFlag.LIVE, port.live),
        (PortFlag.TUNNEL, port.tunnel is not None),
        (PortFlag.UNFINISHED, not port.finished),
        (PortFlag.IN_PIECES, port.mtu > ONE_PIECE_MTU),
    ):
        if on:
            flags |= flag
    return flags


def _word(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)
