"""Packets on the slow path: those that the fast path sent up, and those that a controller sends out.

A batch of upcalls is worked off in order. What one translation says holds for every later packet of the batch that it covers, so a
burst of a new flow is translated once. All frames of a batch leave before the megaflows are made that it wants: so they leave soon,
and the fast path cannot let a later packet of a flow overtake them. A packet that comes up alone, as the first of a new flow does
where few are new, and only has to be put out on ports, is sent before anything else is done (``short_way``).

Invariant: each packet is counted once, here, by the entries that it met here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from appliance.model.actions import OFP_NO_BUFFER, Meter, SetField, SetQueue
from appliance.model.fields import IN_PORT, LAYERS, PLUGIN_BITS, TUNNEL_ID, Layer
from appliance.model.megaflow import (
    NO_MEGAFLOW,
    Burst,
    Controller,
    DatapathAction,
    DecTtl,
    Flood,
    Forward,
    PacketInReason,
    PopTag,
    PushTag,
    Upcall,
    UpcallReason,
)
from appliance.model.plugin import Plugins
from appliance.model.ports import PortNo
from appliance.model.tunnel import NO_TUNNEL, Tunnel, tunnel_of
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError
from appliance.openflow.messages import PacketOut
from appliance.packet import checksum, mpls
from appliance.packet.execute import Emission, execute
from appliance.packet.meter import MeterPackets
from appliance.packet.parse import ETHERNET_BYTES, parse
from appliance.packet.segment import segment
from appliance.pipeline import group_table, xlate
from appliance.pipeline.action_list import leading_meters, may_run_out
from appliance.pipeline.first_part import is_first_part
from appliance.pipeline.plain_path import Begun
from appliance.pipeline.translation import Translation
from appliance.switch.controllers import Controllers
from appliance.switch.effects import Effect, SendFrame, Served, TellWhenSent
from appliance.switch.events import PassedOn, Upcalls
from appliance.switch.fast_path import FastPath
from appliance.switch.packet_buffers import BufferedPacket, PacketBuffers
from appliance.switch.ports import Ports
from appliance.switch.validate import Validator

_TUNNEL_ID_BITS = TUNNEL_ID.mask
_CHECKSUMMED = int(Layer.TCP | Layer.UDP | Layer.SCTP | Layer.MPLS) << LAYERS.shift
"""Bits of the flow key of packets that may have a partial checksum; what MPLS carries is not in the key."""
_LABELLED = int(Layer.MPLS) << LAYERS.shift
_TCP_HEADERS_BYTES = 54
"""Of Ethernet, IPv4 and TCP without options."""
_NO_PORT = frozenset({PortNo.CONTROLLER, PortNo.ANY})
"""Where a packet-out may come from besides the ports. OFPP_ANY is not in the specification, but in Ryu's apps and Open vSwitch."""
_REST = Forward(0)
"""Stands behind the actions of a translation that goes on later: its emission is the frame to go on with."""

_new = tuple.__new__
_PORTS = frozenset({Forward, Flood})
_ANYWHERE = frozenset({Forward, Flood, Controller})
_CUT_AFTER = (Forward, Flood, SetField, PushTag, PopTag, DecTtl, SetQueue, Meter)
"""Actions after which a segmentation-offload frame still is one."""


class _Packet:
    """One packet on the slow path. ``frame`` is as it came in, ``key`` its flow key; ``gso_size`` as in Upcall."""

    __slots__ = ("came", "frame", "gso_size", "in_port", "key", "octets", "partial", "tunnel")

    def __init__(
        self, frame: bytes, key: int, gso_size: int = 0, *, finish: bool = False, octets: int = 0, came: Tunnel | None = None
    ) -> None:
        """``octets`` are to be counted, if it was of another length than ``frame`` when it came in; ``came`` is the tunnel that it
        came by, if not the one in its key. ``finish``: a partial checksum of a local stack is to be finished, unless the frame is
        still to be cut into segments.
        """
        self.in_port = IN_PORT.get(key)
        self.key = key
        self.tunnel = tunnel_of(key)
        self.came = self.tunnel if came is None else came
        self.gso_size = gso_size
        self.partial = False
        if finish and key & _CHECKSUMMED:
            if gso_size:
                self.partial = checksum.is_partial(frame, parse(frame, self.in_port))
            elif checksum.may_be_partial(frame):
                frame = mpls.finished(frame, parse(frame, self.in_port))
        self.frame = frame
        self.octets = octets or len(frame)

    @property
    def segments(self) -> int:
        """The packets that it will be on the wire."""
        return max(1, -(-(len(self.frame) - _TCP_HEADERS_BYTES) // self.gso_size)) if self.gso_size else 1


class PacketIo:
    """The slow path of one switch. ``meter`` and ``plugins`` are the fast path's."""

    def __init__(
        self,
        fast_path: FastPath,
        ports: Ports,
        controllers: Controllers,
        validator: Validator,
        meter: MeterPackets,
        plugins: Plugins,
    ) -> None:
        self._counts = [0] * len(UpcallReason)
        """Upcalls by reason."""
        self._fast_path = fast_path
        self._ports = ports
        self._controllers = controllers
        self._validator = validator
        self._meter = meter
        self._plugins = plugins

    def upcalls_by_reason(self) -> dict[UpcallReason, int]:
        """How many there were."""
        return dict(zip(UpcallReason, self._counts, strict=True))

    # ── from the fast path ─────────────────────────────────────────────────────────────────────────────────────────────
    def short_way(self, upcall: Upcall) -> PassedOn | Upcalls:
        """See ``Switch.short_way``. With ``passed_on`` it comes to what ``upcalls`` does with this packet."""
        _, reason, _, key, frame, gso_size, _, octets, _ = upcall
        if reason or gso_size or octets or key & _TUNNEL_ID_BITS:
            return Upcalls((upcall,))
        begun = self._fast_path.plain_path(key)
        if type(begun) is Translation:
            ports = self._ports_of(begun, key, frame)
            if ports:
                return _new(PassedOn, (upcall, begun, ports))
        return Upcalls((upcall,), begun)

    def _ports_of(self, translation: Translation, key: int, frame: bytes) -> tuple[int, ...]:
        """Where a miss that is no segmentation-offload frame is put out as it is, by a plain translation; none if something else is
        to be done, or nothing."""
        forwarding = self._ports.forwarding
        ports: tuple[int, ...] = ()
        for action in translation.actions:
            if type(action) is not Forward:
                return ()
            port = action.port
            if port in forwarding:
                ports += (port,)
        return () if key & _CHECKSUMMED and checksum.may_be_partial(frame) else ports

    def passed_on(self, event: PassedOn, now: float) -> list[Effect]:
        """What is left to do when it has been sent."""
        upcall, translation, _ = event
        self._counts[upcall.reason] += 1
        self._fast_path.asked.append((translation, upcall.key, len(upcall.frame)))
        return self._fast_path.install(now)

    def upcalls(self, upcalls: tuple[Upcall | Burst, ...], now: float, given: Translation | Begun | None = None) -> list[Effect]:
        """Work off a batch. ``given`` is what ``plain_path`` has said of the only one, which is not to be put out as it is."""
        fast_path = self._fast_path
        effects: list[Effect] = []
        made: dict[int, dict[int, Translation]] = {}
        """Translations of this batch by mask and masked key."""
        several = len(upcalls) > 1
        each = self._each(upcalls, now, effects) if Burst in map(type, upcalls) else cast(tuple[Upcall, ...], upcalls)
        counts, asked = self._counts, fast_path.asked
        last_mask = -1
        of_last_mask: dict[int, Translation] = {}
        for upcall in each:
            _, reason, _, key, frame, gso_size, controller, octets, _ = upcall
            counts[reason] += 1
            begun = given
            if not (begun or reason or gso_size or octets or key & _TUNNEL_ID_BITS or (made and _find(made, key))):
                # As most are: what follows comes to the same.
                begun = fast_path.plain_path(key)
                if type(begun) is Translation and (ports := self._ports_of(begun, key, frame)):
                    for port in ports:
                        effects.append(_new(SendFrame, (port, frame, 0, None, NO_TUNNEL)))
                    asked.append((begun, key, len(frame)))
                    if several:
                        mask = begun.mask
                        if mask != last_mask:
                            last_mask, of_last_mask = mask, made.setdefault(mask, {})
                        of_last_mask[key & mask] = begun
                    continue
            if controller is not None:
                self._copied(upcall, controller, now, effects)
                continue
            live = fast_path.megaflows.get(upcall.megaflow_id) if upcall.megaflow_id != NO_MEGAFLOW else None
            # A first part says what becomes of the packet when it has been looked up again, but that can be known now.
            if live is None or is_first_part(live.translation):
                translation = _find(made, upcall.key) if made else None
            else:
                translation = live.translation
            if translation is None:
                translation = fast_path.translate(key, now, begun=begun)
            own = translation
            unchanged = _only_outputs(translation, _PORTS if upcall.gso_size else _ANYWHERE)
            if not unchanged and may_run_out(translation.actions, upcall.key):
                own = fast_path.translate(upcall.key, now, one_packet=True)
            lasting = translation
            if own.normal_keys:
                learned, consequences = fast_path.learn(own, now)
                effects += consequences
                if learned:
                    # It may be about this very packet's megaflow.
                    made.clear()
                    last_mask = -1
                    live, lasting = None, fast_path.translate(upcall.key, now)
            cut = upcall.gso_size and (upcall.key & _LABELLED or not _leaves_segmentation(own))
            plain = unchanged and not cut and not upcall.octets
            count = True
            if live is not None:
                fast_path.megaflows.punted(live, now)
            elif fast_path.want(lasting, upcall.key, octets := len(upcall.frame) if plain and lasting is own else 0):
                count = not octets
                if several:
                    made.setdefault(lasting.mask, {})[lasting.key & lasting.mask] = lasting
            if plain:
                self._pass_on(own, upcall, now, effects, count=count)
                if upcall.reason is UpcallReason.CATCHING_UP:
                    effects.append(Served(upcall.megaflow_id))
                continue
            metered = upcall.reason is UpcallReason.ACTION
            key, came = upcall.key, None
            if upcall.octets:
                key, came = IN_PORT.put(key, upcall.in_port), upcall.came
            if cut:
                for frame in segment(upcall.frame, upcall.gso_size):
                    self._run(own, _Packet(frame, key, came=came), now, effects, metered=metered)
            else:
                packet = _Packet(upcall.frame, key, upcall.gso_size, finish=True, octets=upcall.octets, came=came)
                self._run(own, packet, now, effects, metered=metered)
            if upcall.reason is UpcallReason.CATCHING_UP:
                effects.append(Served(upcall.megaflow_id))
        if fast_path.is_wanted:
            effects.append(TellWhenSent())
        return effects

    def _each(self, upcalls: tuple[Upcall | Burst, ...], now: float, effects: list[Effect]) -> Iterator[Upcall]:
        """Those that must be looked at one by one; the bursts that need not be are worked off in between, where they stand."""
        for upcall in upcalls:
            if isinstance(upcall, Upcall):
                yield upcall
            elif not self._show(upcall, now, effects):
                yield from upcall.one_by_one()

    def _show(self, burst: Burst, now: float, effects: list[Effect]) -> bool:
        """Work off a burst of packets that go to the controllers alone, as they are. False, with nothing done, if it is none."""
        first, frames = burst.first, burst.frames
        if self._controllers.is_spread:
            return False
        action = first.controller
        if action is None:
            live = self._fast_path.megaflows.get(first.megaflow_id)
            if live is None:
                return False
            translation = live.translation
            action = _shown_by(translation)
            if action is None:
                return False
            self._fast_path.megaflows.punted(live, now, len(frames))
            octets = sum(map(len, frames))
            self._fast_path.pipeline.count(translation.lookups, len(frames), octets, now)
            group_table.count(translation.hits, len(frames), octets)
        self._counts[first.reason] += len(frames)
        in_port = first.in_port
        if self._shows(action, in_port):
            frames = [mpls.finished(each, parse(each, in_port)) if checksum.may_be_partial(each) else each for each in frames]
            effects += self._controllers.packet_ins(action, frames, in_port, tunnel_of(first.key), now)
        return True

    def _copied(self, upcall: Upcall, action: Controller, now: float, effects: list[Effect]) -> None:
        """A copy for the controllers: nobody counts it."""
        tunnel = tunnel_of(upcall.key)
        for frame in segment(upcall.frame, upcall.gso_size) if upcall.gso_size else (upcall.frame,):
            packet = _Packet(frame, parse(frame, upcall.in_port, *tunnel).key, finish=not upcall.gso_size)
            self._leave(Emission(action, packet.frame, None, tunnel), packet, now, effects)

    # ── from a controller ──────────────────────────────────────────────────────────────────────────────────────────────
    def packet_out(self, buffers: PacketBuffers, message: PacketOut, now: float) -> list[Effect]:
        """OFPT_PACKET_OUT (section 7.3.7). Raises ProtocolError, having sent nothing."""
        frame, gso_size, tunnel = message.data, 0, NO_TUNNEL
        buffered = message.buffer_id != OFP_NO_BUFFER
        if buffered:
            frame, _, gso_size, tunnel = buffers.find(message.buffer_id)
        if message.in_port not in _NO_PORT and message.in_port not in self._ports:
            raise _bad_request(BadRequest.BAD_PORT, f"there is no port {message.in_port:#x}")
        if len(frame) < ETHERNET_BYTES:
            raise _bad_request(BadRequest.BAD_PACKET, f"a packet of {len(frame)} bytes")
        key = self._key(frame, message.in_port, tunnel)
        self._validator.check_packet_out(message.actions, key)
        if buffered:
            buffers.release(message.buffer_id)
        fast_path = self._fast_path
        translation = xlate.translate_actions(
            fast_path.pipeline, key, message.actions, fast_path.normal(now), fast_path.port_is_live
        )
        effects: list[Effect] = []
        packet = _Packet(frame, key, gso_size, finish=buffered)
        for part in (translation, *translation.also):
            effects += fast_path.learn(part, now)[1]
            self._run(part, packet, now, effects)
        return effects

    def submit(self, packet: BufferedPacket, now: float) -> list[Effect]:
        """A packet that a controller was shown goes through the tables after all, as if it came in now."""
        fast_path = self._fast_path
        key = self._key(packet.frame, packet.in_port, packet.tunnel)
        translation = fast_path.translate(key, now, one_packet=True)
        effects = fast_path.learn(translation, now)[1]
        self._run(translation, _Packet(packet.frame, key, packet.gso_size, finish=True), now, effects)
        return effects

    def _key(self, frame: bytes, in_port: int, tunnel: Tunnel) -> int:
        """Of a packet that does not come from the fast path."""
        return PLUGIN_BITS.put(parse(frame, in_port, *tunnel).key, self._plugins.bits(frame, in_port))

    def _pass_on(self, translation: Translation, upcall: Upcall, now: float, effects: list[Effect], *, count: bool) -> None:
        """What ``_run`` does, for a translation that only outputs the packet as it is: most do, and nothing is copied then."""
        frame, gso_size = upcall.frame, upcall.gso_size
        if count:
            octets = len(frame)
            self._fast_path.pipeline.count(translation.lookups, 1, octets, now)
            if translation.hits:
                group_table.count(translation.hits, 1, octets)
        if not gso_size and translation.actions and upcall.key & _CHECKSUMMED and checksum.may_be_partial(frame):
            frame = mpls.finished(frame, parse(frame, upcall.in_port))
        tunnel = Tunnel(TUNNEL_ID.get(upcall.key)) if upcall.key & _TUNNEL_ID_BITS else NO_TUNNEL
        for action in translation.actions:
            if isinstance(action, Forward):
                if self._ports.forwards(action.port):
                    effects.append(SendFrame(action.port, frame, gso_size, None, tunnel))
            elif isinstance(action, Flood):
                effects += [SendFrame(port, frame, gso_size, None, tunnel) for port in self._ports.flood(upcall.in_port)]
            elif isinstance(action, Controller) and self._shows(action, upcall.in_port):
                kept = BufferedPacket(frame, upcall.in_port, 0, tunnel_of(upcall.key))
                effects += self._controllers.packet_in(action, frame, upcall.key, kept, now)

    # ── both ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _run(self, translation: Translation, packet: _Packet, now: float, effects: list[Effect], *, metered: bool = False) -> None:
        """Do what a translation says with one packet, and count it. ``metered``: the fast path has run the meters at its start."""
        self._go_on(translation, packet, packet.frame, packet.tunnel, now, effects, metered)

    def _go_on(
        self,
        translation: Translation,
        packet: _Packet,
        frame: bytes,
        tunnel: Tunnel,
        now: float,
        effects: list[Effect],
        metered: bool = False,
    ) -> None:
        """``frame`` and ``tunnel`` are the packet, or a copy of it, as it is now."""
        fast_path = self._fast_path
        octets = packet.octets
        while True:
            stops: list[int] = []
            emissions = self._execute(translation, packet, frame, tunnel, stops.append, metered=metered)
            met = translation.met_at(stops[0] if stops else None)
            fast_path.pipeline.count(translation.lookups[: met.lookups], 1, octets, now)
            group_table.count(translation.hits[: met.hits], 1, octets)
            # Where a meter or a plug-in dropped it, or its TTL was used up, it goes no further.
            rest = emissions.pop() if emissions and emissions[-1].action is _REST else None
            for emission in emissions:
                self._leave(emission, packet, now, effects)
            if rest is None:
                return
            frame, tunnel = rest.frame, rest.tunnel
            key = parse(frame, packet.in_port, *tunnel).key
            for fork in translation.forks:
                copied = fast_path.resume(fork, key, now)
                effects += fast_path.learn(copied, now)[1]
                self._go_on(copied, packet, frame, tunnel, now, effects)
            if translation.again is None:
                return
            translation = fast_path.resume(translation.again, key, now)
            effects += fast_path.learn(translation, now)[1]
            metered = False

    def _execute(
        self,
        translation: Translation,
        packet: _Packet,
        frame: bytes,
        tunnel: Tunnel,
        dropped: Callable[[int], None],
        *,
        metered: bool,
    ) -> list[Emission]:
        """With ``_REST`` at the end if the packet goes on behind the translation."""
        goes_on = translation.again is not None or translation.forks
        return execute(
            frame,
            (*translation.actions, _REST) if goes_on else translation.actions,
            packet.in_port,
            packet.partial,
            metered=metered,
            meter=lambda meter_id, octets: self._meter(meter_id, packet.segments, octets),
            plugin=self._plugins.run,
            dropped=dropped,
            port_is_live=self._ports.live,
            chosen=lambda action, way: group_table.count(
                translation.way_hits.get((action.group_id, way.bucket), ()), 1, packet.octets
            ),
            tunnel=tunnel,
        )

    def _leave(self, emission: Emission, packet: _Packet, now: float, effects: list[Effect]) -> None:
        """The frame of one emission, to where it goes."""
        match emission.action:
            case Forward(port=port):
                if self._ports.forwards(port):
                    tunnel = emission.tunnel.set_since(packet.came)
                    effects.append(SendFrame(port, emission.frame, packet.gso_size, emission.queue_id, tunnel))
            case Flood():
                tunnel = emission.tunnel.set_since(packet.came)
                effects += [
                    SendFrame(port, emission.frame, packet.gso_size, emission.queue_id, tunnel)
                    for port in self._ports.flood(packet.in_port)
                ]
            case Controller() as action:
                if self._shows(action, packet.in_port):
                    frame = emission.frame
                    kept = BufferedPacket(frame, packet.in_port, packet.gso_size, emission.tunnel)
                    if packet.partial:
                        frame = checksum.complete(frame, parse(frame, packet.in_port))
                    effects += self._controllers.packet_in(action, frame, packet.key, kept, now)

    def _shows(self, action: Controller, in_port: int) -> bool:
        """Whether the controllers are to see a packet from this port."""
        return action.reason is not PacketInReason.NO_MATCH or self._ports.sends_packet_in(in_port)


def _only_outputs(translation: Translation, to: frozenset[type[DatapathAction]]) -> bool:
    """Whether the packet leaves as it came, by nothing but these actions, and goes no further."""
    for action in translation.actions:
        if type(action) not in to:
            return False
    return translation.again is None and not translation.forks


def _shown_by(translation: Translation) -> Controller | None:
    """The action if there is but one, to the controllers, behind the meters that the fast path runs; and nothing else happens."""
    action = translation.actions[-1] if translation.actions else None
    if not isinstance(action, Controller) or leading_meters(translation.actions) != len(translation.actions) - 1:
        return None
    return action if translation.again is None and not translation.forks and not translation.normal_keys else None


def _leaves_segmentation(translation: Translation) -> bool:
    """Whether the kernel can still cut a segmentation-offload frame after these actions: IP stays where it looks for it.

    It does not look behind MPLS.
    """
    goes_on = translation.again is not None or translation.forks
    return not goes_on and all(isinstance(action, _CUT_AFTER) for action in translation.actions)


def _find(made: dict[int, dict[int, Translation]], key: int) -> Translation | None:
    for mask, translations in made.items():
        translation = translations.get(key & mask)
        if translation is not None:
            return translation
    return None


def _bad_request(code: BadRequest, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_REQUEST, code, reason)
