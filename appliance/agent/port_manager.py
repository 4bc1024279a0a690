"""The configured ports, and OFPP_LOCAL: which interface each is just now, whether the fast path has it, and what it has counted.

Invariant: a port is in the fast path exactly while the switch has been told of it (PortAdded, not yet PortRemoved).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from appliance.agent import render
from appliance.agent.big_tcp import BigTcpPorts
from appliance.agent.hooks import Hooks
from appliance.agent.links import Links, Placement
from appliance.agent.queues import port_speed, rates
from appliance.agent.tunnel_devices import TunnelDevices, tunnel_of
from appliance.config import BigTcpChoice, PortSpec
from appliance.datapath.driver import Datapath, DatapathError, DatapathPort, TierCounters
from appliance.model.ports import LOCAL_PORT, Hook, Port, PortCounters, PortState
from appliance.model.queues import QueueCounters
from appliance.ports import Interface, LinkChange, LocalSpec, OutputMethod, PortError, since
from appliance.switch.events import Event, PortAdded, PortChanged, PortRemoved

LOG = logging.getLogger("ofswitch.ports")

DEFAULT_MTU = 1500
"""Of OFPP_LOCAL, where no other port says."""


@dataclass(slots=True)
class AttachedPort:
    """A port that works."""

    spec: PortSpec
    interface: Interface
    port: DatapathPort
    reason: str
    """Why it has this hook."""
    baseline: PortCounters
    """The kernel's counters when it was added."""
    made_promiscuous: bool
    """By us, or by an agent that died."""
    output_reason: str = ""
    """Why frames go straight to the interface's other end, or not; empty where there is nothing to choose."""
    sent_packets: int = 0
    """By the slow path."""
    sent_bytes: int = 0


def title(spec: PortSpec) -> str:
    """The port in messages: ``port 1 (eth1)``, ``port LOCAL (edge-sw)``."""
    return f"port {render.port(spec.number)} ({spec.interface})"


def _claim(ifindex: int) -> str:
    """What a port's interface is called in claims."""
    return f"interface/{ifindex}"


class PortManager:
    """``step`` steps one event of the switch, with all that follows from it. ``switch`` is its name. ``local`` None: there is no
    OFPP_LOCAL.
    """

    def __init__(
        self,
        specs: Sequence[PortSpec],
        links: Links,
        datapath: Datapath,
        step: Callable[[Event], None],
        switch: str,
        local: LocalSpec | None = None,
        big_tcp: BigTcpChoice = "auto",
    ) -> None:
        self.specs = tuple(specs)
        self._by_name = {spec.interface: spec for spec in specs if spec.tunnel is None}
        self._tunnels = TunnelDevices(links, switch)
        self._switch = switch
        self._named = False
        """Whether the name is ours, and with it LOCAL's interfaces and the tunnel devices."""
        self._links = links
        self._datapath = datapath
        self._step = step
        self._attached: dict[int, AttachedPort] = {}
        self._patient = False
        self.waiting: set[int] = set()
        """Ports on which an earlier agent's programs still forward: see ``take_over``."""
        self._local = local
        self.big_tcp = BigTcpPorts(links, big_tcp)
        self.hooks = Hooks(datapath)

    def __iter__(self) -> Iterator[AttachedPort]:
        return iter(self._attached.values())

    def get(self, number: int) -> AttachedPort | None:
        return self._attached.get(number)

    # ── coming and going ───────────────────────────────────────────────────────────────────────────────────────────────
    def attach_all(self, *, patient: bool = False) -> list[str]:
        """Attach every configured port whose interface is there; returns what the kernel refused, in words.

        With ``patient``, programs of an agent that died go on, where there are some, until ``take_over``.
        """
        self._patient = patient
        try:
            self._links.claim(f"name/{self._switch}")
        except PortError as error:
            return [f"the name {self._switch}: {error}"]
        self._named = True
        refused, devices = self._make_tunnel_devices()
        names = {interface.name: interface for interface in self._links.known.values()}
        for spec in self.specs:
            interface = names.get(spec.interface) if spec.tunnel is None else devices.get(spec.number)
            if interface is None and spec.tunnel is not None:
                continue  # refused
            if interface is None:
                LOG.warning("%s: there is no such interface now; it is taken when it appears", title(spec))
                continue
            try:
                self._attach(spec, interface)
            except (DatapathError, PortError) as error:
                refused.append(f"{title(spec)}: {error}")
        self.big_tcp.settle()
        return refused

    def attach_local(self) -> None:
        """Make OFPP_LOCAL's interface and attach it, after the others: it takes the smallest of their MTUs. Raises PortError or
        DatapathError.
        """
        if self._local is None:
            return
        mtu = min((attached.interface.mtu for attached in self if attached.spec.tunnel is None), default=DEFAULT_MTU)
        end = self._links.make_local(self._local, mtu)
        spec = PortSpec(interface=end.name).model_copy(update={"number": LOCAL_PORT})
        self._attach(spec, end)
        self.big_tcp.settle()
        self.specs = (*self.specs, spec)

    def _make_tunnel_devices(self) -> tuple[list[str], dict[int, Interface]]:
        """What the kernel refused, in words, and the others by the number of their port."""
        refused, devices = [], {}
        try:
            self._tunnels.remove_others(self.specs)
        except PortError as error:
            refused.append(str(error))
        for spec in self.specs:
            if spec.tunnel is not None:
                try:
                    devices[spec.number] = self._tunnels.make(spec)
                except PortError as error:
                    refused.append(f"{title(spec)}: {error}")
        if devices:
            self._links.changes()  # how they came to be as they are
        return refused, devices

    def changed(self, change: LinkChange) -> None:
        """Something happened to an interface. ``put_back`` is to follow."""
        # A tunnel device has several ports.
        there = [item for item in self._attached.values() if item.port.ifindex == change.ifindex]
        if not change.filters:
            self._changed(change, there)
            self.big_tcp.settle()
        for attached in there:
            number = attached.spec.number
            # Until then, the programs there are an earlier agent's.
            if self._attached.get(number) is attached and number not in self.waiting:
                self.hooks.heard(number, title(attached.spec))

    def put_back(self, now: float) -> None:
        """Programs of ours that somebody else has taken off. Wanted after changes, and about once a second."""
        for number in self.hooks.put_back(now):
            if attached := self._attached.get(number):
                self._step(PortChanged(self._describe(attached.spec, attached.interface)))

    def _changed(self, change: LinkChange, there: Sequence[AttachedPort]) -> None:
        after = change.after
        there_still = False
        for attached in there:
            if after is None or after.name != attached.port.interface:
                self._detach(attached, "its interface is gone" if after is None else f"its interface is called {after.name} now")
            else:
                self._update(attached, after)
                there_still = True
        for spec in [attached.spec for attached in there if attached.spec.tunnel is not None]:
            if spec.number not in self._attached:
                self._attach_later(spec)
        if after is None or there_still:
            return
        if self._local is not None and after.name == self._local.host and (local := self._attached.get(LOCAL_PORT)):
            self._step(PortChanged(self._describe(local.spec, local.interface)))
            return
        named = self._by_name.get(after.name)
        if named is not None and named.number not in self._attached:
            self._attach_later(named, after)

    def _attach_later(self, spec: PortSpec, interface: Interface | None = None) -> None:
        """Without an interface a tunnel's is made again."""
        try:
            self._attach(spec, interface or self._tunnels.make(spec))
        except (DatapathError, PortError) as error:
            LOG.error("%s: cannot be added: %s", title(spec), error)

    def restore(self) -> None:
        """Leave the interfaces as they were found. The fast path is taken off them by ``Datapath.close``, and what was turned off
        for its sake is turned on again by ``Links.close``."""
        self.big_tcp.close()
        for attached in self._attached.values():
            self._restore(attached)
        self._attached.clear()
        self.waiting.clear()
        if not self._named:
            return
        if self._local is not None:
            self._links.remove_local(self._local)
        try:
            self._tunnels.remove_others(())
        except PortError as error:
            LOG.warning("a tunnel device stays: %s", error)

    def _attach(self, spec: PortSpec, interface: Interface) -> None:
        claim = _claim(interface.ifindex)
        if spec.tunnel is None:
            self._links.claim(claim)
        try:
            left_behind = self._datapath.left_behind(interface.ifindex)
            placement, port, waits = self._meet(spec, interface, left_behind)
        except (DatapathError, PortError):
            self._links.release(claim)
            raise
        try:
            self._links.set_queues(interface.ifindex, rates(spec), port_speed(self._links, interface) if spec.queues else 0)
            output = self._output(spec, interface)
            port = replace(port, xdp_transmit=self._links.xdp_transmit(interface), other_end=output.other_end)
            if port.xdp_transmit or port.other_end:
                self._datapath.update(port)
            made_promiscuous = spec.tunnel is None and (self._links.set_promiscuous(interface.ifindex, True) or left_behind)
        except (DatapathError, PortError):
            self._datapath.detach(spec.number)
            self._links.release(claim)
            raise
        baseline = self._links.counters([interface.ifindex]).get(interface.ifindex, PortCounters())
        self._attached[spec.number] = AttachedPort(
            spec, interface, port, placement.reason, baseline, made_promiscuous, output.reason
        )
        if waits:
            self.waiting.add(spec.number)
        LOG.info(
            "%s: added, link %s; hook %s: %s",
            title(spec),
            "up" if interface.up else "down",
            placement.hook.value,
            placement.reason,
        )
        self._note_big_tcp(self._attached[spec.number])
        self._step(PortAdded(self._describe(spec, interface), placement.hook))

    def _describe(self, spec: PortSpec, interface: Interface) -> Port:
        """The port as OpenFlow shows it; OFPP_LOCAL by the end that is the host's. A link by which nothing can come in is down."""
        tunnel = spec.tunnel is not None
        port = self._tunnels.describe(spec, interface) if tunnel else self._links.describe(interface, spec.number)
        if self.hooks.dead(spec.number):
            port = replace(port, state=PortState.LINK_DOWN)
        if spec.number != LOCAL_PORT or self._local is None:
            return port
        host = self._local.host
        mac = next((known.mac for known in self._links.known.values() if known.name == host), self._local.mac)
        return replace(port, name=host, hw_addr=mac)

    def take_over(self) -> None:
        """Put our programs in the place of those of an agent that died."""
        self._patient = False
        waiting, self.waiting = self.waiting, set()
        for number in sorted(waiting):
            try:
                self._datapath.take_over(number)
            except DatapathError as error:
                self._detach(self._attached[number], str(error))

    def _meet(self, spec: PortSpec, interface: Interface, left_behind: bool) -> tuple[Placement, DatapathPort, bool]:
        """Put the fast path on the interface; where it may choose its hook, TC does if XDP is refused. Raises DatapathError.

        The last of what is returned: whether an earlier agent's program goes on there.
        """
        placement, finished = self._place(spec, interface, left_behind)
        port = DatapathPort(
            spec.number,
            interface.name,
            interface.ifindex,
            placement.hook,
            forward=interface.up,
            live=interface.up,
            tunnel=tunnel_of(spec),
            generic=placement.generic,
            finished=finished,
            mtu=interface.mtu,
        )
        try:
            at_work = self._datapath.attach(port, wait=self._patient)
        except DatapathError as error:
            if spec.hook != "auto" or placement.hook is not Hook.XDP:
                raise
            LOG.warning("%s: XDP is refused, so TC it is: %s", title(spec), error)
            self._links.restore_offloads(interface.ifindex)
            placement = Placement(Hook.TC, f"XDP was refused: {error}")
            port = replace(port, hook=Hook.TC)
            at_work = self._datapath.attach(port, wait=self._patient)
        return placement, port, not at_work

    def _place(self, spec: PortSpec, interface: Interface, left_behind: bool) -> tuple[Placement, bool]:
        """Where, and whether frames come finished there. Where it may choose, the port does not take a hook that only passes on."""
        placement = self._links.place(interface, spec.hook) if spec.tunnel is None else self._tunnels.placement(spec)
        if placement.hook is Hook.TC:
            return placement, True
        if left_behind:
            self._links.adopt_offloads(interface, generic=placement.generic)
        finished = self._links.finish_frames(interface, generic=placement.generic)
        if finished.yes:
            return replace(placement, reason=f"{placement.reason}; {finished.reason}"), True
        self._links.restore_offloads(interface.ifindex)
        if spec.hook == "auto":
            return Placement(Hook.TC, f"{placement.reason}, but {finished.reason}"), True
        LOG.warning("%s: XDP passes all packets on to TC: %s", title(spec), finished.reason)
        return replace(placement, reason=f"{placement.reason}, but it passes all on to TC: {finished.reason}"), False

    def _output(self, spec: PortSpec, interface: Interface) -> OutputMethod:
        if not spec.direct_to_peer:
            return OutputMethod(b"", "as configured")
        return self._links.choose_output(interface)

    def _note_big_tcp(self, attached: AttachedPort) -> None:
        hindrance = "" if attached.port.hook is Hook.TC else "XDP takes no frames that are still to be cut"
        self.big_tcp.changed(attached.spec.number, title(attached.spec), attached.interface, hindrance)

    def _detach(self, attached: AttachedPort, why: str) -> None:
        number = attached.spec.number
        LOG.warning("%s: removed: %s", title(attached.spec), why)
        del self._attached[number]
        self.waiting.discard(number)
        self.big_tcp.gone(number)
        self.hooks.gone(number)
        self._restore(attached)
        try:
            self._datapath.detach(number)
        except DatapathError as error:
            LOG.error("%s: %s", title(attached.spec), error)
        self._links.restore_offloads(attached.port.ifindex)
        self._links.release(_claim(attached.port.ifindex))
        self._step(PortRemoved(number))

    def _restore(self, attached: AttachedPort) -> None:
        ifindex = attached.port.ifindex
        if attached.made_promiscuous:
            try:
                self._links.set_promiscuous(ifindex, False)
            except PortError as error:
                LOG.warning("%s: stays promiscuous: %s", title(attached.spec), error)
        if attached.spec.queues:
            try:
                self._links.set_queues(ifindex, (), 0)
            except PortError as error:
                LOG.warning("%s: keeps its queues: %s", title(attached.spec), error)

    def _update(self, attached: AttachedPort, interface: Interface) -> None:
        if interface.up != attached.interface.up:
            LOG.info("%s: link %s", title(attached.spec), "up" if interface.up else "down")
        attached.interface = interface
        if not interface.up:
            # Before anything that takes time: FAST FAILOVER buckets are to leave the port now.
            attached.port = replace(attached.port, forward=False, live=False)
            self._datapath.update(attached.port)
        output = self._output(attached.spec, interface)
        attached.output_reason = output.reason
        now = replace(
            attached.port, xdp_transmit=self._links.xdp_transmit(interface), mtu=interface.mtu, other_end=output.other_end
        )
        if now != attached.port:
            attached.port = now
            self._datapath.update(now)
        self._note_big_tcp(attached)
        self._step(PortChanged(self._describe(attached.spec, interface)))

    # ── what the switch wants ──────────────────────────────────────────────────────────────────────────────────────────
    def set_flags(self, number: int, forward: bool, receive: bool, live: bool) -> None:
        """What may leave by the port and come in by it. A port that is gone is passed over. Raises DatapathError."""
        attached = self._attached.get(number)
        if attached is not None:
            attached.port = replace(attached.port, forward=forward, receive=receive, live=live)
            self._datapath.update(attached.port)

    def advertise(self, number: int, features: int) -> None:
        """The link's features (OFPPF_*). A port that is gone is passed over; what the driver does not do is in the log."""
        attached = self._attached.get(number)
        if attached is None:
            return
        try:
            self._links.advertise(attached.interface, features)
        except PortError as error:
            LOG.warning("%s: %s", title(attached.spec), error)

    def sent(self, number: int, octets: int) -> None:
        """The slow path has put a frame out."""
        attached = self._attached.get(number)
        if attached is not None:
            attached.sent_packets += 1
            attached.sent_bytes += octets

    def queue_counters(self) -> Mapping[tuple[int, int], QueueCounters]:
        """By port number and queue id."""
        return {
            (number, queue_id): counters
            for number, attached in self._attached.items()
            if attached.spec.queues
            for queue_id, counters in self._links.queue_counters(
                attached.port.ifindex, [queue.id for queue in attached.spec.queues]
            ).items()
        }

    def counters(self) -> Mapping[int, PortCounters]:
        """OpenFlow's counters by port number: packets and bytes as the switch saw and sent them, the rest as the kernel did."""
        kernel = self._links.counters([attached.port.ifindex for attached in self._attached.values()])
        tiers = self._datapath.port_counters()
        result = {}
        for number, attached in self._attached.items():
            ours = tiers.get(number, TierCounters())
            # A tunnel device counts for all its ports.
            device = None if attached.spec.tunnel is not None else kernel.get(attached.port.ifindex)
            counted = PortCounters() if device is None else since(device, attached.baseline)
            result[number] = replace(
                counted,
                rx_packets=ours.rx_packets,
                rx_bytes=ours.rx_bytes,
                tx_packets=ours.tx_packets + attached.sent_packets,
                tx_bytes=ours.tx_bytes + attached.sent_bytes,
            )
        return result
