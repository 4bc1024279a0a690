"""One OpenFlow 1.3 switch: events in, effects out. Each event goes to the part of the switch that it concerns, and the fast path is
kept in line with the outcome.

Flow-mods that come one behind another change the tables at once; the megaflows that they make wrong are looked for when something
else comes (a barrier, a packet, a tick, ``Quiet``), so that a thousand flow-mods cost one search and not a thousand. While there
are few megaflows, the search follows each flow-mod.

A flow-removed message tells how many packets the entry had, all of them: it waits until the megaflows that counted for the entry
have handed in their last statistics.

Invariant: a peer can make ``step`` answer with an error, but not raise; and after a barrier's reply no packet is dealt with by
what the tables said before it.
Source: OpenFlow Switch Specification 1.3.5, sections 6 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.config.model import FailMode
from appliance.model.megaflow import UpcallReason
from appliance.model.plugin import NO_PLUGINS, Plugins
from appliance.model.ports import Hook, Port
from appliance.model.queues import Queue
from appliance.openflow.messages import (
    AggregateStatsRequest,
    Desc,
    FlowMod,
    FlowModCommand,
    FlowModFlags,
    FlowStatsRequest,
    GroupStatsRequest,
    Message,
    MeterMod,
    MeterModCommand,
    MeterStatsRequest,
    MultipartRequest,
    MultipartRequestBody,
    PortStatsRequest,
    QueueStatsRequest,
    TableStatsRequest,
)
from appliance.packet.meter import MeterPackets
from appliance.pipeline.flow_table import FlowTable, Pipeline
from appliance.switch.controllers import Controller, Controllers
from appliance.switch.effects import Effect, SendMessage
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
    PortChanged,
    PortCountersRead,
    PortRemoved,
    QueueCountersRead,
    Quiet,
    SpareTime,
    StatisticsRead,
    Sweep,
    SweepEnded,
    Tick,
    Upcalls,
)
from appliance.switch.fast_path import FastPath
from appliance.switch.flow_mods import FlowMods
from appliance.switch.group_mods import GroupMods
from appliance.switch.megaflows import MAX_MEGAFLOWS, LiveMegaflow, Megaflows
from appliance.switch.meter_mods import MeterMods
from appliance.switch.multipart import Multipart
from appliance.switch.packet_io import PacketIo
from appliance.switch.port_changes import PortChanges
from appliance.switch.ports import Ports
from appliance.switch.queues import Queues
from appliance.switch.requests import Requests
from appliance.switch.tables import Tables
from appliance.switch.validate import Validator

_FEW_MEGAFLOWS = 1024
"""Up to so many, every flow-mod is brought into the fast path by itself."""
_ANSWERS = frozenset(
    {FramesSent, StatisticsRead, FinalStatistics, PortCountersRead, MeterCountersRead, QueueCountersRead, InstallRefused}
)
_MAY_NEED = frozenset({MeterMod, MultipartRequest})
_NOTHING = Need.NOTHING
_MODIFYING = (FlowModCommand.MODIFY, FlowModCommand.MODIFY_STRICT)


class Switch:
    """See the module. ``now`` is in seconds of a clock that never goes back.

    While no controller is connected, ``fail_mode`` "secure" leaves the flow tables in force; "standalone" makes the switch learn
    addresses and forward by itself. Without ``controllers_expected`` whoever connects is a visitor, and a standalone switch goes
    on by itself.

    ``meter`` and ``plugins`` are the fast path's, and all that a step asks of it: which packets of a batch exceed a band depends
    on those that the fast path handles at the same time, and a plug-in is a program of its own.
    """

    def __init__(
        self,
        datapath_id: int,
        description: Desc,
        meter: MeterPackets,
        fail_mode: FailMode = "secure",
        controllers_expected: bool = True,
        max_megaflows: int = MAX_MEGAFLOWS,
        queues: Mapping[int, tuple[Queue, ...]] | None = None,
        plugins: Plugins = NO_PLUGINS,
    ) -> None:
        self.datapath_id = datapath_id
        self.description = description
        self._falls_back = fail_mode == "standalone"
        self._controllers_expected = controllers_expected
        self._pipeline = Pipeline(plugins.loaded)
        self._megaflows = Megaflows(max_megaflows)
        self._ports = Ports()
        self._fast_path = FastPath(self._pipeline, self._megaflows, self._ports.live, standalone=self._falls_back)
        self._controllers = Controllers()
        self._queues = Queues(queues or {}, self._ports)
        self._may_have_asked = False
        """Whether the last step, or the one that it answered, may wait for (more) answers."""
        tables = Tables()
        validator = Validator(self._pipeline.groups, self._pipeline.meters, self._queues.ids, plugins.loaded)
        self._flow_mods = FlowMods(self._pipeline, self._megaflows, tables, validator)
        self._meter_mods = MeterMods(self._pipeline, self._megaflows, self._flow_mods)
        self._group_mods = GroupMods(self._pipeline, self._megaflows, validator, self._flow_mods)
        self._packets = PacketIo(self._fast_path, self._ports, self._controllers, validator, meter, plugins)
        self.short_way = self._packets.short_way
        """What to step for a packet that came up alone, with no other event in between. ``PassedOn``: once it has been put out on
        the ports, as it is. Nothing has changed so far: who waits for a flow's first packet gets it before that.
        """
        self._port_changes = PortChanges(self._ports, self._fast_path, self._controllers)
        self._requests = Requests(
            datapath_id,
            controllers=self._controllers,
            tables=tables,
            flow_mods=self._flow_mods,
            groups=self._group_mods,
            meters=self._meter_mods,
            packets=self._packets,
            ports=self._ports,
            port_changes=self._port_changes,
            queues=self._queues,
            fast_path=self._fast_path,
            multipart=Multipart(
                description,
                self._pipeline,
                tables=tables,
                ports=self._ports,
                queues=self._queues,
                groups=self._group_mods,
                meters=self._meter_mods,
            ),
        )

    # ── views ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def standalone(self) -> bool:
        """Whether the switch learns and forwards by itself now."""
        return self._fast_path.standalone

    @property
    def ports(self) -> tuple[Port, ...]:
        return tuple(port.port for port in self._ports)

    @property
    def controllers(self) -> tuple[Controller, ...]:
        return tuple(self._controllers)

    @property
    def tables(self) -> tuple[FlowTable, ...]:
        """Those that have been used; the others are empty and have counted nothing. Not to be changed."""
        return tuple(self._pipeline)

    @property
    def flow_count(self) -> int:
        """Flow entries of all tables."""
        return sum(len(table) for table in self.tables)

    @property
    def megaflows(self) -> tuple[LiveMegaflow, ...]:
        """Not to be changed."""
        return tuple(self._megaflows)

    @property
    def megaflow_ids(self) -> tuple[int, ...]:
        return self._megaflows.ids()

    @property
    def megaflow_limit(self) -> int:
        """How many there may be now (``ageing``)."""
        return self._megaflows.limit.now

    @property
    def mask_count(self) -> int:
        """Different masks of the live megaflows (``masks``)."""
        return len(self._megaflows.masks)

    @property
    def meter_ids(self) -> tuple[int, ...]:
        return self._meter_mods.ids

    @property
    def upcalls(self) -> Mapping[UpcallReason, int]:
        """Packets that came up, by reason."""
        return self._packets.upcalls_by_reason()

    @property
    def is_behind(self) -> bool:
        """Whether flow-mods have not been brought into the fast path yet: ``Quiet`` would do it."""
        return self._megaflows.stale

    @property
    def looks_ahead(self) -> bool:
        """Whether there are megaflows to be made before their packets come: ``SpareTime`` would do it, some at a time."""
        return self._fast_path.looks_ahead

    @property
    def prefetched(self) -> int:
        """How many have been made so."""
        return self._fast_path.prefetched

    # ── stepping ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def needs(self, event: Event, now: float) -> Need:
        """What to read and step before ``step(event, now)``."""
        if isinstance(event, MessageReceived):
            message = event.message
            if isinstance(message, FlowMod):  # as most are
                resets = message.command in _MODIFYING and message.flags & FlowModFlags.RESET_COUNTS
                return self._needs_statistics() if resets else _NOTHING
            return self._needs_for_message(message) if type(message) in _MAY_NEED else _NOTHING
        if isinstance(event, Tick) and self._flow_mods.may_expire(now):
            return self._needs_statistics()
        return _NOTHING

    def counting_for(self, event: Event, now: float) -> tuple[int, ...]:
        """The megaflows whose statistics ``event`` needs (``Need.MEGAFLOW_STATISTICS``)."""
        if isinstance(event, Tick):
            return self._megaflows.counting_for(self._flow_mods.may_expire(now))
        return self._megaflows.ids()

    def _needs_for_message(self, message: Message) -> Need:
        match message:
            case MeterMod(command=MeterModCommand.MODIFY):
                return Need.METER_COUNTERS
            case MultipartRequest(body=body):
                return self._needs_for(body)
            case _:
                return Need.NOTHING

    def _needs_for(self, request: MultipartRequestBody) -> Need:
        match request:
            case FlowStatsRequest() | AggregateStatsRequest() | TableStatsRequest() | GroupStatsRequest():
                return self._needs_statistics()
            case PortStatsRequest():
                return Need.PORT_COUNTERS
            case MeterStatsRequest():
                return Need.METER_COUNTERS
            case QueueStatsRequest():
                return Need.QUEUE_COUNTERS
            case _:
                return Need.NOTHING

    def _needs_statistics(self) -> Need:
        return Need.MEGAFLOW_STATISTICS if len(self._megaflows) else Need.NOTHING

    def step(self, event: Event, now: float) -> list[Effect]:
        """One event. What it does to the switch is done when this returns; what it does to the world is in the effects."""
        megaflows = self._megaflows
        waits = isinstance(event, MessageReceived) and isinstance(event.message, FlowMod)
        effects: list[Effect] = []
        revalidated = False
        if type(event) not in _ANSWERS:
            if self._may_have_asked:
                megaflows.conclude()
                self._fast_path.conclude(now)
            if megaflows.stale and not waits:
                effects += self._fast_path.revalidate(now)
                revalidated = True
        self._may_have_asked = True  # also if anything goes wrong
        if isinstance(event, MessageReceived):
            effects += self._requests.handle(event.connection, event.message, event.raw, now)
        else:
            effects += self._dispatch(event, now)
        if megaflows.stale and (not waits or len(megaflows) <= _FEW_MEGAFLOWS):
            effects += self._fast_path.revalidate(now)
            revalidated = True
        if self._flow_mods.removed:
            for removed in self._flow_mods.flow_removed():
                effects += self._controllers.flow_removed(removed)
        if isinstance(event, MessageReceived) and not revalidated and (not effects or _is_reply(effects)):
            self._may_have_asked = False
        return effects

    def _dispatch(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Upcalls(upcalls, begun):
                return self._packets.upcalls(upcalls, now, begun)
            case PassedOn():
                return self._packets.passed_on(event, now)
            case FramesSent():
                return self._fast_path.install(now)
            case StatisticsRead(megaflows):
                self._fast_path.count(megaflows)
            case Sweep(megaflows):
                return self._fast_path.sweep(megaflows, now)
            case SweepEnded(seconds):
                return self._fast_path.swept(seconds, now)
            case FinalStatistics(megaflows):
                self._fast_path.count_final(megaflows)
            case PortCountersRead(counters):
                self._ports.count(counters)
            case MeterCountersRead(meters):
                self._meter_mods.count(meters)
            case QueueCountersRead(queues):
                self._queues.count(queues)
            case InstallRefused(megaflow_id):
                return self._fast_path.refused(megaflow_id, now)
            case Tick():
                return self._tick(now)
            case PortAdded(port, hook):
                self._fast_path.meets_at_xdp(port.number, hook is Hook.XDP)
                return self._port_changes.announce(self._ports.add(port, now), now)
            case PortChanged(port):
                return self._port_changes.announce(self._ports.change(port), now)
            case PortRemoved(number):
                return self._port_changes.announce(self._ports.remove(number), now)
            case ConnectionOpened(connection, version, auxiliary_id, main):
                if main is None:
                    self._controllers.open(connection, version)
                else:
                    self._controllers.open_auxiliary(connection, auxiliary_id, main)
                return self._choose_mode()
            case ConnectionClosed(connection):
                self._controllers.close(connection)
                return self._choose_mode()
            case SpareTime():
                return self._fast_path.prefetch(now)
            case Quiet():
                pass
        return []

    def _tick(self, now: float) -> list[Effect]:
        self._flow_mods.expire(now)
        return self._fast_path.revalidate(now)

    def _choose_mode(self) -> list[Effect]:
        """Whether the tables or the switch itself decide, after a controller has come or gone (section 6.3.2)."""
        led = self._controllers_expected and len(self._controllers) > 0
        standalone = self._falls_back and not led
        if standalone == self._fast_path.standalone:
            return []
        self._fast_path.standalone = standalone
        return self._fast_path.remove_all()


def _is_reply(effects: list[Effect]) -> bool:
    """Whether they are one message to a controller, and nothing else."""
    return len(effects) == 1 and isinstance(effects[0], SendMessage)
