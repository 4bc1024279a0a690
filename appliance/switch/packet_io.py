"""Packets on the slow path: those that the fast path sent up, and those that a controller sends out.

A batch of upcalls is worked off in order. What one translation says holds for every later packet of the batch that it covers, so a
burst of a new flow is translated once. All frames of a batch stand before the megaflows that it makes, so that the fast path cannot
let a later packet of a flow overtake them.

Invariant: each packet is counted once, here, by the entries that it met here.
"""

from __future__ import annotations

from appliance.model.actions import OFP_NO_BUFFER
from appliance.model.fields import IN_PORT, LAYERS, Layer
from appliance.model.megaflow import NO_MEGAFLOW, Controller, Flood, Forward, Upcall, UpcallReason
from appliance.model.ports import PortNo
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError
from appliance.openflow.messages import PacketOut
from appliance.packet import checksum
from appliance.packet.execute import Emission, execute
from appliance.packet.parse import ETHERNET_BYTES, parse
from appliance.pipeline import xlate
from appliance.pipeline.translation import Translation
from appliance.switch.controllers import Controllers
from appliance.switch.effects import Effect, SendFrame, Served
from appliance.switch.fast_path import FastPath
from appliance.switch.ports import Ports
from appliance.switch.validate import check_packet_out

_CHECKSUMMED = int(Layer.TCP | Layer.UDP | Layer.SCTP)
_REST = Forward(0)
"""Stands behind the actions of a translation that goes on later: its emission is the frame to go on with."""


class _Packet:
    """One packet on the slow path. ``frame`` is as it came in, ``key`` its flow key; ``gso_size`` as in Upcall."""

    __slots__ = ("frame", "gso_size", "in_port", "key", "partial")

    def __init__(self, frame: bytes, key: int, gso_size: int = 0, *, finish: bool = False) -> None:
        """``finish``: a partial checksum of a local stack is to be finished, unless the frame is still to be cut into segments."""
        self.in_port = IN_PORT.get(key)
        self.key = key
        self.gso_size = gso_size
        self.partial = False
        if finish and LAYERS.get(key) & _CHECKSUMMED:
            if gso_size:
                self.partial = checksum.is_partial(frame, parse(frame, self.in_port))
            else:
                frame = checksum.complete(frame, parse(frame, self.in_port))
        self.frame = frame


class PacketIo:
    """The slow path of one switch."""

    def __init__(self, fast_path: FastPath, ports: Ports, controllers: Controllers) -> None:
        self.upcalls_by_reason = dict.fromkeys(UpcallReason, 0)
        self._fast_path = fast_path
        self._ports = ports
        self._controllers = controllers

    # ── from the fast path ─────────────────────────────────────────────────────────────────────────────────────────────
    def upcalls(self, upcalls: tuple[Upcall, ...], now: float) -> list[Effect]:
        """Work off a batch."""
        fast_path = self._fast_path
        effects: list[Effect] = []
        made: dict[int, dict[int, Translation]] = {}
        """Translations of this batch by mask and masked key."""
        for upcall in upcalls:
            self.upcalls_by_reason[upcall.reason] += 1
            live = fast_path.megaflows.get(upcall.megaflow_id) if upcall.megaflow_id != NO_MEGAFLOW else None
            translation = _find(made, upcall.key) if live is None else live.translation
            if translation is None:
                translation = fast_path.translate(upcall.key, now)
            learned, consequences = fast_path.learn(translation, now)
            effects += consequences
            lasting = translation
            if learned:
                # It may be about this very packet's megaflow.
                made.clear()
                live, lasting = None, fast_path.translate(upcall.key, now)
            if live is None:
                live, consequences = fast_path.want(lasting, now)
                effects += consequences
            if live is not None:
                live.punted += 1
                live.last_punted = now
                made.setdefault(lasting.mask, {})[lasting.key & lasting.mask] = lasting
            self._run(translation, _Packet(upcall.frame, upcall.key, upcall.gso_size, finish=True), now, effects)
            if upcall.reason is UpcallReason.CATCHING_UP:
                effects.append(Served(upcall.megaflow_id))
        return effects + fast_path.install()

    # ── from a controller ──────────────────────────────────────────────────────────────────────────────────────────────
    def packet_out(self, message: PacketOut, now: float) -> list[Effect]:
        """OFPT_PACKET_OUT (section 7.3.7). Raises ProtocolError, having sent nothing."""
        if message.buffer_id != OFP_NO_BUFFER:
            raise _bad_request(BadRequest.BUFFER_UNKNOWN, f"no packet is kept: buffer {message.buffer_id:#x}")
        if message.in_port != PortNo.CONTROLLER and message.in_port not in self._ports:
            raise _bad_request(BadRequest.BAD_PORT, f"there is no port {message.in_port:#x}")
        if len(message.data) < ETHERNET_BYTES:
            raise _bad_request(BadRequest.BAD_PACKET, f"a packet of {len(message.data)} bytes")
        key = parse(message.data, message.in_port).key
        check_packet_out(message.actions, key)
        fast_path = self._fast_path
        translation = xlate.translate_actions(fast_path.pipeline, key, message.actions, fast_path.normal(now))
        effects: list[Effect] = []
        packet = _Packet(message.data, key)
        for part in (translation, *translation.also):
            effects += fast_path.learn(part, now)[1]
            self._run(part, packet, now, effects)
        return effects

    # ── both ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _run(self, translation: Translation, packet: _Packet, now: float, effects: list[Effect]) -> None:
        """Do what a translation says with one packet, and count it."""
        fast_path = self._fast_path
        frame = packet.frame
        while True:
            fast_path.pipeline.count(translation.lookups, 1, len(packet.frame), now)
            again = translation.again
            if again is None:
                for emission in execute(frame, translation.actions, packet.in_port, packet.partial):
                    self._leave(emission, packet, effects)
                return
            emissions = execute(frame, (*translation.actions, _REST), packet.in_port, packet.partial)
            rest = emissions.pop()
            for emission in emissions:
                self._leave(emission, packet, effects)
            if rest.action is not _REST:
                # Its TTL was used up: it goes no further.
                self._leave(rest, packet, effects)
                return
            frame = rest.frame
            translation = fast_path.resume(again, parse(frame, packet.in_port).key, now)
            effects += fast_path.learn(translation, now)[1]

    def _leave(self, emission: Emission, packet: _Packet, effects: list[Effect]) -> None:
        """The frame of one emission, to where it goes."""
        match emission.action:
            case Forward(port=port):
                if self._ports.forwards(port):
                    effects.append(SendFrame(port, emission.frame, packet.gso_size))
            case Flood():
                effects += [SendFrame(port, emission.frame, packet.gso_size) for port in self._ports.flood(packet.in_port)]
            case Controller():
                if self._ports.sends_packet_in(packet.in_port):
                    frame = emission.frame
                    if packet.partial:
                        frame = checksum.complete(frame, parse(frame, packet.in_port))
                    effects += self._controllers.packet_in(emission.action, frame, packet.key)


def _find(made: dict[int, dict[int, Translation]], key: int) -> Translation | None:
    for mask, translations in made.items():
        translation = translations.get(key & mask)
        if translation is not None:
            return translation
    return None


def _bad_request(code: BadRequest, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_REQUEST, code, reason)
