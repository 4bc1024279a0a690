"""A fast path in memory, for tests of what stands above one: no kernel, no root.

It keeps the protocol of ``driver.Datapath`` to the letter, with the reference parser and executor of ``packet``; it punts what
``compile`` has no ops for. A test puts frames in by ``inject`` and reads what came out in ``sent``. Invariant: every injected frame
is counted once, as forwarded, dropped or punted.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from appliance.datapath.compile import compile_actions
from appliance.datapath.driver import DatapathError, DatapathPort, TierCounters
from appliance.datapath.layout import MegaflowFlag
from appliance.model.actions import Meter
from appliance.model.fields import BY_NAME, IN_PORT, KEY_BYTES, PLUGIN_BITS
from appliance.model.megaflow import (
    IN_BURSTS,
    NO_MEGAFLOW,
    Again,
    Burst,
    CallPlugin,
    Controller,
    DatapathAction,
    DropReason,
    Failover,
    Flood,
    Forward,
    Megaflow,
    MegaflowStatistics,
    MeterConfig,
    MeterCounters,
    Select,
    Upcall,
    UpcallReason,
    Way,
    is_again,
)
from appliance.model.plugin import NO_PLUGINS, Plugins
from appliance.model.ports import Hook
from appliance.model.tunnel import NO_TUNNEL, Tunnel, tunnel_of
from appliance.packet.execute import INVALID_TTL, execute
from appliance.packet.meter import METER_PASSES, TokenMeter
from appliance.packet.parse import ETHERNET_BYTES, parse

_TCP_FLAGS = BY_NAME["tcp_flags"]


@dataclass(slots=True)
class _Installed:
    megaflow: Megaflow
    statistics: MegaflowStatistics
    ways: list[tuple[int, int]]
    flags: MegaflowFlag
    caught_up: bool = False
    waiting: int = 0
    """CATCHING_UP packets that are not served yet."""


@dataclass(frozen=True, slots=True)
class _Packet:
    """``octets`` is its length as it came in, ``came`` the tunnel; ``sent`` is how many copies have left."""

    in_port: int
    key: int
    frame: bytes
    octets: int
    came: Tunnel
    sent: int = 0

    def upcall(self, reason: UpcallReason, megaflow_id: int) -> Upcall:
        upcall = Upcall(self.in_port, reason, megaflow_id, self.key, self.frame)
        again = IN_PORT.get(self.key) != self.in_port
        return upcall._replace(octets=self.octets, came=self.came._replace(id=0)) if again else upcall


class FakeDatapath:
    """``capacity`` is the number of megaflows there is room for; ``now`` gives ``last_used``."""

    def __init__(self, now: Callable[[], float], capacity: int = 1 << 16, plugins: Plugins = NO_PLUGINS) -> None:
        self.plugins = plugins
        self.sent: list[tuple[int, bytes]] = []
        """(port, frame) of everything that left, by whichever tier."""
        self.tunnels: list[tuple[int, Tunnel]] = []
        """The tunnels by which what left by tunnel ports did."""
        self.ports: dict[int, DatapathPort] = {}
        self.left: set[int] = set()
        """Interfaces with a program of an agent that died."""
        self.taken_off: dict[int, frozenset[Hook]] = {}
        """By port number: the hooks from which somebody else took our program."""
        self.refusal = ""
        """Why none can be put back, in words; empty if they can."""
        self.closed = False
        self._now = now
        self._capacity = capacity
        self._installed: dict[int, _Installed] = {}
        self._meters: dict[int, TokenMeter] = {}
        self._upcalls: deque[Upcall] = deque()
        self._counters: dict[int, TierCounters] = {}
        self._drops: Counter[DropReason] = Counter()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._close_event = weakref.finalize(self, os.close, self._event)

    # ── for tests ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def inject(self, in_port: int, frame: bytes, tunnel: Tunnel = NO_TUNNEL) -> None:
        """A frame comes in on a port; on a tunnel port, by ``tunnel``."""
        port = self.ports.get(in_port)
        if port is None:
            self._drops[DropReason.NOT_A_PORT] += 1
            return
        if Hook.TC in self.taken_off.get(in_port, ()):
            return  # it goes where it went before there was a switch
        self._count(in_port, rx_packets=1, rx_bytes=len(frame))
        if not port.receive:
            self._drop(in_port, DropReason.NO_RECV)
            return
        if len(frame) < ETHERNET_BYTES:
            self._drop(in_port, DropReason.RUNT)
            return
        key = PLUGIN_BITS.put(parse(frame, in_port, *tunnel).key, self.plugins.bits(frame, in_port))
        self._look_up(_Packet(in_port, key, frame, len(frame), tunnel))

    @property
    def megaflows(self) -> list[Megaflow]:
        return [entry.megaflow for entry in self._installed.values()]

    # ── driver.Datapath ────────────────────────────────────────────────────────────────────────────────────────────────
    def left_behind(self, ifindex: int) -> bool:
        return ifindex in self.left

    def attach(self, port: DatapathPort, *, wait: bool = False) -> bool:
        if port.number in self.ports:
            raise DatapathError(f"port {port.number} is attached already")
        self.ports[port.number] = port
        self._counters[port.number] = TierCounters()
        return True

    def take_over(self, number: int) -> None:
        """Nobody was here before."""

    def update(self, port: DatapathPort) -> None:
        if port.number not in self.ports:
            raise DatapathError(f"port {port.number} is not attached")
        self.ports[port.number] = port

    def detach(self, number: int) -> None:
        self.ports.pop(number, None)
        self.taken_off.pop(number, None)
        self._counters.pop(number, None)

    def missing(self, number: int) -> frozenset[Hook]:
        return self.taken_off.get(number, frozenset())

    def put_back(self, number: int) -> None:
        if self.refusal:
            raise DatapathError(self.refusal)
        self.taken_off.pop(number, None)

    def install(self, megaflow: Megaflow) -> bool:
        if len(self._installed) >= self._capacity:
            return False
        last = megaflow.actions[-1] if megaflow.actions else None
        ways = [(0, 0)] * (len(last.ways) if isinstance(last, Select | Failover) else 0)
        meters = {meter_id: at for at, meter_id in enumerate(self._meters)}
        flags = compile_actions(megaflow.actions, meters, parsed_again=is_again(IN_PORT.get(megaflow.key))).flags
        dropped = ((0, 0),) * sum(isinstance(action, Meter | CallPlugin) for action in megaflow.actions)
        statistics = MegaflowStatistics(0, 0, 0.0, ways=tuple(ways), dropped=dropped)
        self._installed[megaflow.id] = _Installed(megaflow, statistics, ways, flags)
        return True

    def remove(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        return {number: entry.statistics for number in megaflow_ids if (entry := self._installed.pop(number, None)) is not None}

    def set_meter(self, meter: MeterConfig) -> None:
        known = self._meters.get(meter.meter_id)
        if known is None:
            self._meters[meter.meter_id] = TokenMeter(meter)
        else:
            known.configure(meter)

    def remove_meter(self, meter_id: int) -> None:
        if any(meter_id in _meters(entry.megaflow.actions) for entry in self._installed.values()):
            raise DatapathError(f"a megaflow uses meter {meter_id}")
        self._meters.pop(meter_id, None)

    def meter(self, meter_id: int, packets: int, octets: int) -> int:
        meter = self._meters.get(meter_id)
        return METER_PASSES if meter is None else meter.run(packets, octets, self._now())

    def meter_counters(self, meter_ids: Iterable[int]) -> dict[int, MeterCounters]:
        return {number: self._meters[number].counters for number in meter_ids if number in self._meters}

    def arrange(self) -> None:
        pass

    def statistics(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        return {number: self._installed[number].statistics for number in megaflow_ids if number in self._installed}

    def upcalls(self, limit: int) -> Sequence[Upcall | Burst]:
        taken = [self._upcalls.popleft() for _ in range(min(limit, len(self._upcalls)))]
        if taken and not self._upcalls:
            os.eventfd_read(self._event)
        return [_burst(alike) for alike in _bursts(taken)]

    def dealt_with(self) -> None:
        """Here all packets of a megaflow wait for each other."""

    def served(self, megaflow_id: int) -> None:
        if (entry := self._installed.get(megaflow_id)) is not None:
            entry.waiting -= 1

    def caught_up(self, megaflow_ids: Iterable[int]) -> None:
        for number in megaflow_ids:
            if (entry := self._installed.get(number)) is not None:
                entry.caught_up = True

    def send(self, port: int, frame: bytes, gso_size: int = 0, queue_id: int | None = None, tunnel: Tunnel = NO_TUNNEL) -> bool:
        return port in self.ports and self._put_out(port, frame, tunnel)

    def port_counters(self) -> Mapping[int, TierCounters]:
        return dict(self._counters)

    def drops(self) -> Mapping[DropReason, int]:
        return dict(self._drops)

    def fileno(self) -> int:
        return self._event

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.ports.clear()
            self._close_event()

    # ── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _look_up(self, packet: _Packet) -> None:
        entry = next((item for item in self._installed.values() if packet.key & item.megaflow.mask == item.megaflow.key), None)
        if entry is None:
            self._punt(packet.upcall(UpcallReason.MISS, NO_MEGAFLOW))
        elif not entry.caught_up or entry.waiting:
            entry.waiting += 1
            self._punt(packet.upcall(UpcallReason.CATCHING_UP, entry.megaflow.id))
        else:
            self._forward(packet, entry)

    def _forward(self, packet: _Packet, entry: _Installed) -> None:
        in_port, key, frame = packet.in_port, packet.key, packet.frame
        actions = entry.megaflow.actions
        stops: list[int] = []
        if entry.flags & MegaflowFlag.PUNT:
            metered = _meters(actions) if entry.flags & MegaflowFlag.METERED else []
            leading: list[DatapathAction] = [Meter(number) for number in metered]
            passed = execute(frame, [*leading, Forward(0)], in_port, meter=self._run_meter, dropped=stops.append)
            if passed:
                self._punt(replace(packet, frame=passed[0].frame).upcall(UpcallReason.ACTION, entry.megaflow.id))
            else:
                self._count_megaflow(entry, packet)
                self._count_dropped(entry, stops[0], packet)
                self._drop(in_port, DropReason.METER)
            return
        # Whether it is punted is seen before anything is done, the meters' work included.
        dry = execute(frame, actions, in_port)
        if any(emission.action is INVALID_TTL for emission in dry):
            self._punt(packet.upcall(UpcallReason.TTL, entry.megaflow.id))
            return
        self._count_megaflow(entry, packet)

        def chosen(action: Select | Failover, way: Way) -> None:
            place = action.ways.index(way)
            packets, octets = entry.ways[place]
            entry.ways[place] = packets + 1, octets + packet.octets
            entry.statistics = entry.statistics._replace(ways=tuple(entry.ways))

        emissions = execute(
            frame,
            actions,
            in_port,
            meter=self._run_meter,
            port_is_live=self._is_live,
            chosen=chosen,
            plugin=self.plugins.run,
            dropped=stops.append,
            tunnel=tunnel_of(key),
        )
        for stop in stops:
            self._count_dropped(entry, stop, packet)
        copies = [(port, emission) for emission in emissions for port in self._outputs(emission.action, in_port)]
        sent = packet.sent
        for emission in emissions:
            if isinstance(emission.action, Controller):
                copied = parse(emission.frame, in_port, *emission.tunnel).key
                self._queue(
                    Upcall(in_port, UpcallReason.COPY, entry.megaflow.id, copied, emission.frame, controller=emission.action)
                )
                sent += 1
        for port, copy in copies:
            if self._put_out(port, copy.frame, copy.tunnel.set_since(packet.came)):
                sent += 1
                self._count(port, tx_packets=1, tx_bytes=len(copy.frame))
        last = emissions[-1] if emissions else None
        if last is not None and isinstance(last.action, Again):
            again = PLUGIN_BITS.put(parse(last.frame, last.action.place, *last.tunnel).key, PLUGIN_BITS.get(key))
            self._look_up(replace(packet, key=again, frame=last.frame, sent=sent))
        elif sent:
            self._count(in_port, forwarded_tc=1)
        elif stops:
            stopping = [action for action in actions if isinstance(action, Meter | CallPlugin)][stops[0]]
            self._drop(in_port, DropReason.METER if isinstance(stopping, Meter) else DropReason.PLUGIN)
        elif dry and not emissions:
            self._drop(in_port, DropReason.NO_LIVE_BUCKET)
        elif copies:
            self._drop(in_port, DropReason.NO_TUNNEL_DESTINATION)
        else:
            self._drop(in_port, DropReason.OUTPUT_DOWN if emissions else DropReason.NO_ACTION)

    def _count_megaflow(self, entry: _Installed, packet: _Packet) -> None:
        before = entry.statistics
        flags = before.tcp_flags | _TCP_FLAGS.get(packet.key)
        entry.statistics = before._replace(
            packets=before.packets + 1, bytes=before.bytes + packet.octets, last_used=self._now(), tcp_flags=flags
        )

    def _run_meter(self, meter_id: int, octets: int) -> int:
        return self.meter(meter_id, 1, octets)

    def _count_dropped(self, entry: _Installed, stop: int, packet: _Packet) -> None:
        dropped = list(entry.statistics.dropped)
        dropped[stop] = dropped[stop][0] + 1, dropped[stop][1] + packet.octets
        entry.statistics = entry.statistics._replace(dropped=tuple(dropped))

    def _is_live(self, number: int) -> bool:
        return number in self.ports and self.ports[number].live

    def _outputs(self, action: Forward | Flood | Controller | Again, in_port: int) -> list[int]:
        match action:
            case Forward(port=number):
                return [number] if number in self.ports and self.ports[number].forward else []
            case Flood():
                return [number for number, port in self.ports.items() if number != in_port and port.forward]
            case Controller() | Again():
                return []

    def _put_out(self, number: int, frame: bytes, tunnel: Tunnel) -> bool:
        port = self.ports[number]
        if port.tunnel is not None:
            left_by = port.tunnel.sends(tunnel)
            if left_by is None:
                return False
            self.tunnels.append((number, left_by))
        self.sent.append((number, frame))
        return True

    def _punt(self, upcall: Upcall) -> None:
        self._count(upcall.in_port, punted=1)
        self._queue(upcall)

    def _queue(self, upcall: Upcall) -> None:
        if not self._upcalls:
            os.eventfd_write(self._event, 1)
        self._upcalls.append(upcall)

    def _drop(self, in_port: int, reason: DropReason) -> None:
        self._drops[reason] += 1
        self._count(in_port, dropped=1)

    def _count(self, port: int, **more: int) -> None:
        before = self._counters[port]
        self._counters[port] = replace(before, **{name: getattr(before, name) + amount for name, amount in more.items()})


def _bursts(upcalls: Iterable[Upcall]) -> Iterable[list[Upcall]]:
    """Those of a port that follow each other and are alike."""
    bursts: list[list[Upcall]] = []
    last: dict[int, tuple[object, list[Upcall]]] = {}
    """By port."""
    for upcall in upcalls:
        alike: object = upcall.reason, upcall.megaflow_id, tunnel_of(upcall.key), upcall.controller
        if upcall.reason not in IN_BURSTS or upcall.gso_size or upcall.octets:
            alike = None
        before, burst = last.get(upcall.in_port, (None, []))
        if alike is None or alike != before:
            burst = []
            bursts.append(burst)
            last[upcall.in_port] = alike, burst
        burst.append(upcall)
    return bursts


def _burst(upcalls: list[Upcall]) -> Upcall | Burst:
    if len(upcalls) == 1:
        return upcalls[0]
    keys = [upcall.key.to_bytes(KEY_BYTES, "big") for upcall in upcalls]
    return Burst(upcalls[0], keys, [upcall.frame for upcall in upcalls])


def _meters(actions: Iterable[DatapathAction]) -> list[int]:
    """Those that stand before everything else."""
    return [action.meter_id for action in takewhile(lambda action: isinstance(action, Meter), actions) if isinstance(action, Meter)]
