"""A shell for tests: does what the switch wants done, on the in-memory fast path, and feeds back what it asks for.

``from switch_shell import Shell`` (tests/conftest.py puts tests/ on the path). Invariant: effects are done in their order, and
answers are stepped before anything else, as ``switch.events`` and ``switch.effects`` say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from appliance.datapath.driver import DatapathPort
from appliance.datapath.fake import FakeDatapath
from appliance.model.megaflow import MegaflowStatistics, Upcall
from appliance.model.plugin import NO_PLUGINS, Plugins
from appliance.model.ports import Hook, Port, PortCounters
from appliance.model.queues import QueueCounters
from appliance.model.tunnel import NO_TUNNEL, Tunnel, TunnelPort
from appliance.openflow.codec import decode, encode
from appliance.openflow.constants import OFP_VERSION
from appliance.openflow.messages import Desc, Error, Message
from appliance.openflow.packet_ins import encode_packet_ins
from appliance.switch.effects import (
    Effect,
    InstallMegaflow,
    ReadStatistics,
    RemoveMegaflows,
    RemoveMeter,
    SendFrame,
    SendMessage,
    SendPacketIns,
    Served,
    SetMeter,
    TellWhenSent,
    UpdatePort,
)
from appliance.switch.events import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    FinalStatistics,
    FramesSent,
    InstallRefused,
    MessageReceived,
    MeterCountersRead,
    Need,
    PassedOn,
    PortAdded,
    PortCountersRead,
    QueueCountersRead,
    SpareTime,
    StatisticsRead,
    Sweep,
    SweepEnded,
    Tick,
    Upcalls,
)
from appliance.switch.switch import Switch

T = TypeVar("T", bound=Message)
DESCRIPTION = Desc("mfr", "hw", "sw", "serial", "dp")


def mac(number: int) -> bytes:
    return (0x020000000000 | number).to_bytes(6, "big")


def port(number: int) -> Port:
    return Port(number, f"p{number}", mac(0xFF00 | number))


class Shell:
    """One switch with ports 1 to ``ports`` and one controller, number 1 (unless ``connected`` is False)."""

    def __init__(
        self,
        ports: int = 3,
        *,
        connected: bool = True,
        capacity: int = 1 << 16,
        plugins: Plugins = NO_PLUGINS,
        tunnels: Mapping[int, TunnelPort] = MappingProxyType({}),
        **switch: object,
    ) -> None:
        self.now = 1000.0
        self.datapath = FakeDatapath(lambda: self.now, capacity, plugins)
        self.switch = Switch(0x1234, DESCRIPTION, self.datapath.meter, plugins=plugins, **switch)  # type: ignore[arg-type]
        self.messages: list[tuple[int, Message]] = []
        self.effects: list[Effect] = []
        """All that the switch ever wanted done, in order."""
        self.port_counters: dict[int, PortCounters] = {}
        self.queue_counters: dict[tuple[int, int], QueueCounters] = {}
        for number in range(1, ports + 1):
            self.datapath.attach(DatapathPort(number, f"p{number}", number, Hook.TC, tunnel=tunnels.get(number)))
            self.step(PortAdded(port(number)))
        if connected:
            self.open(1)

    # ── the shell's work ───────────────────────────────────────────────────────────────────────────────────────────────
    def step(self, event: Event) -> list[Effect]:
        """One event with all that follows from it. Returns the event's own effects."""
        need = self.switch.needs(event, self.now)
        if need & Need.MEGAFLOW_STATISTICS:
            self._step(StatisticsRead(self._statistics(self.switch.counting_for(event, self.now))))
        if need & Need.PORT_COUNTERS:
            self._step(PortCountersRead(self.port_counters))
        if need & Need.METER_COUNTERS:
            self._step(MeterCountersRead(self.datapath.meter_counters(self.switch.meter_ids)))
        if need & Need.QUEUE_COUNTERS:
            self._step(QueueCountersRead(self.queue_counters))
        effects = self._step(event)
        if isinstance(event, Tick):
            self.sweep()
        return effects

    def sweep(self, seconds: float = 0.0) -> None:
        """Go round all live megaflows, in two parts."""
        ids = self.switch.megaflow_ids
        for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
            self._step(Sweep(self._statistics(part)))
        self._step(SweepEnded(seconds))

    def _step(self, event: Event) -> list[Effect]:
        effects = self.switch.step(event, self.now)
        self.effects += effects
        answers: deque[Event] = deque()
        for effect in effects:
            answers.extend(self._do(effect))
        while answers:
            self._step(answers.popleft())
        return effects

    def _statistics(self, ids: tuple[int, ...]) -> dict[int, MegaflowStatistics]:
        return self.datapath.statistics(ids)

    def _do(self, effect: Effect) -> list[Event]:
        match effect:
            case SendMessage(connection, message):
                encode(message)
                self.messages.append((connection, message))
            case SendPacketIns(connection, packet_ins):
                encoded = encode_packet_ins(packet_ins)
                while encoded:
                    length = int.from_bytes(encoded[2:4], "big")
                    self.messages.append((connection, decode(encoded[:length])))
                    encoded = encoded[length:]
            case InstallMegaflow(megaflow):
                if not self.datapath.install(megaflow):
                    return [InstallRefused(megaflow.id)]
            case TellWhenSent():
                return [FramesSent()]
            case RemoveMegaflows(ids):
                return [FinalStatistics(self.datapath.remove(ids))]
            case ReadStatistics(ids):
                return [StatisticsRead(self._statistics(ids))]
            case Served(megaflow_id):
                self.datapath.served(megaflow_id)
            case SendFrame(number, frame, gso_size, queue_id, tunnel):
                self.datapath.send(number, frame, gso_size, queue_id, tunnel)
            case SetMeter(meter):
                self.datapath.set_meter(meter)
            case RemoveMeter(meter_id):
                self.datapath.remove_meter(meter_id)
            case UpdatePort(number, forward, receive, live):
                known = self.datapath.ports.get(number)
                if known is not None:
                    self.datapath.update(replace(known, forward=forward, receive=receive, live=live))
        return []

    def pump(self) -> None:
        """Work off all upcalls."""
        while upcalls := self.datapath.upcalls(64):
            alone = upcalls[0] if len(upcalls) == 1 else None
            if isinstance(alone, Upcall):
                self.work_off(alone)
            else:
                self.step(Upcalls(tuple(upcalls)))
            self.datapath.dealt_with()
        while self.switch.looks_ahead:
            self.step(SpareTime())
        self.datapath.caught_up(self.switch.megaflow_ids)

    def work_off(self, upcall: Upcall) -> Event:
        """One that came up alone. Returns what was stepped for it."""
        event = self.switch.short_way(upcall)
        if isinstance(event, PassedOn):
            for number in event.ports:
                self.datapath.send(number, upcall.frame)
        self.step(event)
        return event

    # ── what tests do ──────────────────────────────────────────────────────────────────────────────────────────────────
    def open(self, connection: int) -> None:
        self.step(ConnectionOpened(connection, OFP_VERSION))

    def open_auxiliary(self, connection: int, auxiliary_id: int, main: int = 1) -> None:
        self.step(ConnectionOpened(connection, OFP_VERSION, auxiliary_id, main))

    def close(self, connection: int) -> None:
        self.step(ConnectionClosed(connection))

    def receive(self, message: Message, connection: int = 1) -> list[Message]:
        """A controller sends a message. Returns what it is told in consequence."""
        before = len(self.messages)
        self.step(MessageReceived(connection, message, encode(message)))
        return [sent for to, sent in self.messages[before:] if to == connection]

    def ask(self, message: Message, kind: type[T], connection: int = 1) -> T:
        """The one answer to a request."""
        (answer,) = self.receive(message, connection)
        assert isinstance(answer, kind), answer
        assert answer.xid == message.xid
        return answer

    def refused(self, message: Message) -> tuple[int, int]:
        """Type and code of the error that answers a message. Nothing else may have come of it."""
        before = len(self.effects)
        error = self.ask(message, Error)
        assert len(self.effects) == before + 1
        return error.type, error.code

    def told(self, kind: type[T], connection: int = 1) -> list[T]:
        """All messages of one kind that a controller was ever sent."""
        return [message for to, message in self.messages if to == connection and isinstance(message, kind)]

    def inject(self, in_port: int, frame: bytes, tunnel: Tunnel = NO_TUNNEL) -> list[tuple[int, bytes]]:
        """A frame comes in; all upcalls are worked off. Returns what left."""
        before = len(self.datapath.sent)
        self.datapath.inject(in_port, frame, tunnel)
        self.pump()
        return self.datapath.sent[before:]
