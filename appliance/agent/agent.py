"""The agent of one switch: it waits for what happens, steps the switch, and does what the switch wants done.

Each source of events has a greenlet: the ring buffer, the clock, every controller, the control socket, netlink. Invariant: between
the step of an event and the last of its effects no greenlet waits, so that events are stepped one by one, in order; and no event,
whatever is wrong with it, ends the loop.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from appliance.agent import views
from appliance.agent.connections import Connections
from appliance.agent.control import CommandError, ControlServer
from appliance.agent.green import Greenlet, Readable, Signal, sleep, spawn, wait_readable
from appliance.agent.identity import derived_datapath_id, description, local_spec, version
from appliance.agent.integrated import ADDRESS, IntegratedController
from appliance.agent.links import Links
from appliance.agent.outgoing import Backoff
from appliance.agent.port_manager import PortManager
from appliance.agent.queues import configured_queues
from appliance.agent.snoop import Snoop, snoop_path
from appliance.agent.tls import Certificates
from appliance.config import Config
from appliance.datapath.driver import Datapath, DatapathError
from appliance.model.megaflow import Burst, Upcall
from appliance.openflow.constants import OFP_VERSION
from appliance.openflow.messages import BarrierRequest, FlowMod, Message
from appliance.ports import PortError
from appliance.switch import effects, events
from appliance.switch.switch import Switch

LOG = logging.getLogger("ofswitch.agent")

UPCALL_BATCH = 128
"""Upcalls stepped together; a batch takes some ten milliseconds at worst, in which nothing else happens."""
TICK_SECONDS = 1.0
SWEEP_SECONDS = 1.0
"""From the end of one sweep through all megaflows to the beginning of the next."""
SWEPT_AT_ONCE = 512
"""Megaflows looked at together: a millisecond or two, in which nothing else happens."""
LISTED_AT_ONCE = 256
DEFAULT_LIMIT = 1000
SETTLED_SECONDS = 1.0
TAKE_OVER_SECONDS = 10.0
"""After an agent that died, its programs go on until the tables say something: a barrier with entries in them, or no flow-mod for
SETTLED_SECONDS. At the latest after TAKE_OVER_SECONDS."""
_NOTHING = events.Need.NOTHING
INTEGRATED_BACKOFF = {"first": 0.1, "longest": 1.0}


class AgentError(Exception):
    """The agent cannot start; the text says why, one line for each reason."""


class Agent:
    """``datapath`` and ``links`` are the agent's from now on: ``run`` closes them. Raises TlsError."""

    def __init__(self, config: Config, datapath: Datapath, links: Links) -> None:
        self.config = config
        self.switch = Switch(
            config.datapath_id or derived_datapath_id(config, links),
            description(config),
            datapath.meter,
            fail_mode=config.fail_mode,
            controllers_expected=bool(config.controllers or config.listen or config.uses_integrated_controller),
            max_megaflows=config.max_megaflows,
            queues=configured_queues(config, links),
            plugins=datapath.plugins,
        )
        self.faults = 0
        """Events and effects that failed by a fault of the switch itself; each is in the log."""
        self.integrated = IntegratedController(config.integrated_apps) if config.integrated_apps else None
        self.certificates = Certificates(config.tls) if config.tls is not None else None
        self.connections = Connections(_SwitchSide(self), frozenset({OFP_VERSION}), self.certificates)
        local = local_spec(config, self.switch.datapath_id)
        self.ports = PortManager(config.ports, links, datapath, self.step, config.name, local, config.big_tcp)
        self._datapath = datapath
        self._links = links
        self._started_at = time.monotonic()
        self._catching_up: list[int] = []
        """Megaflows installed since the ring buffer was last read empty."""
        self._greenlets: list[Greenlet] = []
        self._control: ControlServer | None = None
        self._snoop: Snoop | None = None
        self._tables_changed_at = 0.0
        """When the last flow-mod came, while there is somebody to take over from."""
        self._stop = Signal()
        self._closed = False

    # ── life ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Start, serve until ``stop``, and clean up. ``ready`` is called once packets are forwarded. Raises AgentError."""
        try:
            self.start()
            if ready is not None:
                ready()
            self._stop.wait()
        finally:
            self.close()

    def stop(self) -> None:
        """Let ``run`` return soon."""
        self._stop.set()

    def start(self) -> None:
        """Raises AgentError or UnixSocketError; ``close`` must follow also then."""
        self._control = ControlServer(self.config.control_socket, self._commands())
        self._snoop = Snoop(snoop_path(self.config.control_socket), self.connections.show_messages)
        try:
            for address in self.config.listen:
                self.connections.listen(address)
        except OSError as error:
            raise AgentError(error.strerror) from error
        refused = self.ports.attach_all(patient=self._will_be_told())
        if refused:
            raise AgentError("\n".join(refused))
        self._attach_local()
        for work in (self._read_upcalls, self._tick, self._sweep, self._watch_links):
            self._greenlets.append(spawn(work))
        for controller in self.config.controllers:
            self.connections.connect_to(controller)
        if self.ports.waiting:
            LOG.info("the programs of an agent that died go on until a controller has filled the tables")
            self._greenlets.append(spawn(self._take_over_in_time))
        if self.integrated is not None:
            self.integrated.start()
            self.connections.connect(ADDRESS, self.integrated.listening_port, "integrated", Backoff(**INTEGRATED_BACKOFF))
        self._control.start()
        self._snoop.start()
        LOG.info(
            "switch %s, datapath id %016x: started, %d ports", self.config.name, self.switch.datapath_id, len(self.switch.ports)
        )

    def _attach_local(self) -> None:
        """Where nobody asked for it, the switch does without."""
        try:
            self.ports.attach_local()
        except (DatapathError, PortError) as error:
            if self.config.local is not None:
                raise AgentError(f"port LOCAL: {error}") from error
            LOG.warning("there is no port LOCAL: %s", error)

    def close(self) -> None:
        """Undo ``start``, as far as it came. The interfaces are left as they were found."""
        if self._closed:
            return
        self._closed = True
        for undo in (
            self._close_sockets,
            lambda: self.connections.stop("the switch stops"),
            self._stop_integrated,
            self._kill_greenlets,
            self.ports.restore,
            self._datapath.close,
            self._links.close,
        ):
            try:
                undo()
            except Exception:
                self._fault("while stopping")
        LOG.info("switch %s: stopped", self.config.name)

    def take_over(self) -> None:
        """From now on packets are dealt with by these tables, not by those of an agent that died."""
        if self.ports.waiting:
            self.ports.take_over()
            LOG.info("took over from an agent that died; %d flow entries", self.switch.flow_count)

    def _hear_of_tables(self, message: Message, now: float) -> None:
        """A controller's message, before it is stepped, while an agent that died is still to be taken over from."""
        if isinstance(message, FlowMod):
            self._tables_changed_at = now
        elif isinstance(message, BarrierRequest) and self.switch.flow_count:
            self.take_over()

    def _will_be_told(self) -> bool:
        """Whether somebody is to fill the tables."""
        config = self.config
        return config.fail_mode == "secure" or bool(config.controllers) or config.uses_integrated_controller

    def _take_over_in_time(self) -> None:
        latest = time.monotonic() + TAKE_OVER_SECONDS
        while self.ports.waiting:
            sleep(SETTLED_SECONDS / 10)
            now = time.monotonic()
            settled = self.switch.flow_count and now >= self._tables_changed_at + SETTLED_SECONDS
            if settled or now >= latest:
                self.take_over()

    def _close_sockets(self) -> None:
        for server in (self._control, self._snoop):
            if server is not None:
                server.close()

    def _stop_integrated(self) -> None:
        if self.integrated is not None:
            self.integrated.stop()

    def _kill_greenlets(self) -> None:
        for greenlet in self._greenlets:
            greenlet.kill()

    # ── events and effects ─────────────────────────────────────────────────────────────────────────────────────────────
    def step(self, event: events.Event) -> None:
        """Step one event, with what the switch must know before it, and do all that follows from it."""
        now = time.monotonic()
        try:
            if self.ports.waiting and isinstance(event, events.MessageReceived):
                self._hear_of_tables(event.message, now)
            need = self.switch.needs(event, now)
            if need is not _NOTHING:
                self._read(need, event, now)
                now = time.monotonic()
            wanted = self.switch.step(event, now)
            if wanted:
                self._do(wanted, now)
        except Exception:
            self._fault(type(event).__name__)

    def _read(self, need: events.Need, event: events.Event, now: float) -> None:
        if need & events.Need.MEGAFLOW_STATISTICS:
            self._read_statistics(self.switch.counting_for(event, now))
        if need & events.Need.PORT_COUNTERS:
            self._step(events.PortCountersRead(self.ports.counters()), now)
        if need & events.Need.METER_COUNTERS:
            self._step(events.MeterCountersRead(self._datapath.meter_counters(self.switch.meter_ids)), now)
        if need & events.Need.QUEUE_COUNTERS:
            self._step(events.QueueCountersRead(self.ports.queue_counters()), now)

    def _read_statistics(self, megaflow_ids: Sequence[int]) -> None:
        """Other greenlets go on while there are many: they may step events meanwhile."""
        for start in range(0, len(megaflow_ids), SWEPT_AT_ONCE):
            if start:
                sleep(0)
            part = megaflow_ids[start : start + SWEPT_AT_ONCE]
            self._step(events.StatisticsRead(self._datapath.statistics(part)), time.monotonic())

    def _step(self, event: events.Event, now: float) -> None:
        """The same for one that needs nothing."""
        self._do(self.switch.step(event, now), now)

    def _do(self, wanted: Iterable[effects.Effect], now: float) -> None:
        """What a step wanted done, and then what the switch wants when it is told what came of it."""
        answers: deque[events.Event] | None = None
        while True:
            for effect in wanted:
                if type(effect) is effects.SendFrame:
                    self._send(effect)
                    continue
                answer = self._perform(effect)
                if answer is not None:
                    answers = answers or deque()
                    answers.append(answer)
            if not answers:
                return
            wanted = self.switch.step(answers.popleft(), now)

    def _perform(self, effect: effects.Effect) -> events.Event | None:
        """Do one effect; returns what the switch has to be told of it. One that fails is in the log, and the next is done."""
        try:
            if isinstance(effect, effects.InstallMegaflow):
                if not self._datapath.install(effect.megaflow):
                    return events.InstallRefused(effect.megaflow.id)
                self._catching_up.append(effect.megaflow.id)
                return None
            if isinstance(effect, effects.SendMessage):
                self.connections.send(effect.connection, effect.message)
                return None
            match effect:
                case effects.SendPacketIns(connection=connection, packet_ins=packet_ins):
                    self.connections.send_packet_ins(connection, packet_ins)
                case effects.TellWhenSent():
                    return events.FramesSent()
                case effects.RemoveMegaflows(megaflow_ids=ids):
                    return events.FinalStatistics(self._datapath.remove(ids))
                case effects.ReadStatistics(megaflow_ids=ids):
                    return events.StatisticsRead(self._datapath.statistics(ids))
                case effects.Served(megaflow_id=megaflow_id):
                    self._datapath.served(megaflow_id)
                case effects.UpdatePort(number=number, forward=forward, receive=receive, live=live):
                    self.ports.set_flags(number, forward, receive, live)
                case effects.Advertise(number=number, features=features):
                    self.ports.advertise(number, features)
                case effects.SetMeter(meter=meter):
                    self._datapath.set_meter(meter)
                case effects.RemoveMeter(meter_id=meter_id):
                    self._datapath.remove_meter(meter_id)
        except Exception:
            self._fault(type(effect).__name__)
            if isinstance(effect, effects.InstallMegaflow):
                return events.InstallRefused(effect.megaflow.id)
        return None

    def _send(self, effect: effects.SendFrame) -> None:
        port, frame, gso_size, queue_id, tunnel = effect
        try:
            if self._datapath.send(port, frame, gso_size, queue_id, tunnel):
                self.ports.sent(port, len(frame))
        except Exception:
            self._fault("SendFrame")

    def _fault(self, what: str) -> None:
        """Called where an exception is being handled that must not end the agent."""
        self.faults += 1
        LOG.exception("%s failed, by a fault of the switch; it goes on", what)

    # ── greenlets ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _read_upcalls(self) -> None:
        with closing(Readable(self._datapath.fileno(), self._read_first_upcalls)) as readable:
            handled = 0
            while True:
                if not (self._catching_up or self.switch.looks_ahead):
                    readable.wait()
                    handled = 0
                elif handled >= UPCALL_BATCH:
                    sleep(0)
                    handled = 0
                try:
                    handled += self._read_some_upcalls()
                except DatapathError:
                    self._fault("reading upcalls")
                    sleep(TICK_SECONDS)
                if self.switch.looks_ahead:
                    self.step(events.SpareTime())
                    sleep(0)
                    handled = 0

    def _read_first_upcalls(self) -> bool:
        """Those that wake the thread, before the greenlet is switched to; whether that has more to do."""
        try:
            upcalls = self._datapath.upcalls(UPCALL_BATCH)
            alone = upcalls[0] if len(upcalls) == 1 else None
            if isinstance(alone, Upcall):
                event = self.switch.short_way(alone)
                if isinstance(event, events.PassedOn):
                    self._pass_on(event)
                    self._read_some_upcalls()
                else:
                    self._deal_with(event)
            elif upcalls:
                self._deal_with(events.Upcalls(tuple(upcalls)))
        except Exception:
            self._fault("reading upcalls")
            return True
        return bool(self._catching_up) or self.switch.looks_ahead

    def _read_some_upcalls(self) -> int:
        """How many there were."""
        installed = tuple(self._catching_up) if self._catching_up else ()
        upcalls = self._datapath.upcalls(UPCALL_BATCH)
        if upcalls:
            self._deal_with(events.Upcalls(tuple(upcalls)))
        packets = sum([len(upcall.frames) if isinstance(upcall, Burst) else 1 for upcall in upcalls])
        if packets < UPCALL_BATCH and installed:
            # The ring buffer was empty: every packet that came before these were installed has been sent on.
            self._datapath.caught_up(installed)
            del self._catching_up[: len(installed)]
        return packets

    def _pass_on(self, event: events.PassedOn) -> None:
        """Its packet leaves before anything else is done."""
        frame = event.upcall.frame
        try:
            for port in event.ports:
                if self._datapath.send(port, frame):
                    self.ports.sent(port, len(frame))
            self._step(event, time.monotonic())
        except Exception:
            self._fault("PassedOn")
        self._datapath.dealt_with()

    def _deal_with(self, event: events.Upcalls) -> None:
        self.connections.gather()
        try:
            self._step(event, time.monotonic())  # which needs nothing to be read before
        except Exception:
            self._fault("Upcalls")
        self._datapath.dealt_with()
        self.connections.write_gathered()

    def _tick(self) -> None:
        while True:
            sleep(TICK_SECONDS)
            self.step(events.Tick())
            self._put_back()
            try:
                self.connections.tick(time.monotonic())
            except Exception:
                self._fault("a connection's tick")

    def _sweep(self) -> None:
        while True:
            sleep(SWEEP_SECONDS)
            seconds = 0.0
            megaflow_ids = self.switch.megaflow_ids
            for start in range(0, len(megaflow_ids), SWEPT_AT_ONCE):
                begun = time.thread_time()
                self.step(events.Sweep(self._datapath.statistics(megaflow_ids[start : start + SWEPT_AT_ONCE])))
                seconds += time.thread_time() - begun
                sleep(0)
            self.step(events.SweepEnded(seconds))
            try:
                self._datapath.arrange()
            except DatapathError:
                self._fault("arranging the fast path")

    def _watch_links(self) -> None:
        while True:
            wait_readable(self._links.fileno())
            try:
                changes = self._links.changes()
            except Exception:
                self._fault("asking for the interfaces' changes")
                sleep(TICK_SECONDS)
                continue
            for change in changes:
                try:
                    self.ports.changed(change)
                except Exception:
                    self._fault("a change of an interface")
            self._put_back()

    def _put_back(self) -> None:
        try:
            self.ports.put_back(time.monotonic())
        except Exception:
            self._fault("putting programs back")

    # ── the control socket's commands (their schema is in ``control``) ─────────────────────────────────────────────────
    def _commands(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        return {
            "show": lambda _: self._show(),
            "tiers": lambda _: views.tiers(self._datapath.port_counters().values()),
            "flows": self._flows,
            "megaflows": self._megaflows,
            "ports": lambda _: list(views.ports(self.ports, self.switch, self._datapath)),
            "plugins": lambda _: list(views.plugins(self._datapath)),
            "stop": lambda _: self.stop(),
        }

    def _show(self) -> dict[str, Any]:
        integrated = self.integrated
        return {
            "name": self.config.name,
            "fail_mode": self.config.fail_mode,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._started_at,
            "versions": views.versions(version()),
            "controllers": self.connections.describe(),
            "listening": self.connections.listening,
            "integrated_controller": integrated.describe() if integrated is not None else None,
            "dropped_packet_ins": self.connections.dropped_packet_ins,
            "faults": self.faults,
            **views.switch(self.switch, self._datapath),
        }

    def _flows(self, request: Mapping[str, Any]) -> dict[str, Any]:
        table = _number(request, "table", None)
        self._refresh_statistics()
        tables = [item for item in self.switch.tables if table is None or item.table_id == table]
        total = sum(len(item) for item in tables)
        return {"total": total, "flows": _listed(views.flows(tables, time.monotonic()), request)}

    def _megaflows(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._refresh_statistics()
        live = self.switch.megaflows
        return {"total": len(live), "megaflows": _listed(views.megaflows(live, self.ports, time.monotonic()), request)}

    def _refresh_statistics(self) -> None:
        self._read_statistics(self.switch.megaflow_ids)


class _SwitchSide:
    """What connections tell the agent, as events of the switch."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.message: Callable[[events.MessageReceived], None] = agent.step

    def opened(self, connection: int, version: int, auxiliary_id: int, main: int | None) -> None:
        self._agent.step(events.ConnectionOpened(connection, version, auxiliary_id, main))

    def closed(self, connection: int) -> None:
        self._agent.step(events.ConnectionClosed(connection))

    def paused(self) -> None:
        if self._agent.switch.is_behind:
            self._agent.step(events.Quiet())


def _number(request: Mapping[str, Any], name: str, default: int | None) -> int | None:
    value = request.get(name, default)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise CommandError(f"{name} must be a whole number, not {value!r}")
    return value


def _listed(items: Iterable[Any], request: Mapping[str, Any]) -> list[Any]:
    """The first ``limit`` of them; other greenlets go on while a long list is made."""
    limit = _number(request, "limit", DEFAULT_LIMIT)

    def some() -> Iterator[Any]:
        for place, item in enumerate(items):
            if limit is not None and place >= limit:
                return
            if place % LISTED_AT_ONCE == LISTED_AT_ONCE - 1:
                sleep(0)
            yield item

    return list(some())
