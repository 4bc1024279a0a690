"""Packet-in: packets a second that reach a controller by an output to it, and how many get lost.

Once with at most WINDOW packets on their way, so that none need be lost; and once sent as fast as one process can, which is more
than a switch can take.

Invariant: packets are counted where the controller reads them from its connection.
"""

from __future__ import annotations

import time
from collections.abc import Generator

import frames
from kernel import BenchError, Kernel
from results import Aim, Row, in_turn
from rig import OURS, OVS, Rig, rigs, turns

GROUP = "packet-in"
WINDOW = 64
STALL_SECONDS = 0.5
"""What has not come by then since something last came is lost."""


class PacketIn:
    def __init__(self, programs: Kernel, *, packets: int, flood: int, rounds: int) -> None:
        """``packets`` with a window, ``flood`` as fast as can be."""
        self._programs = programs
        self._packets = packets
        self._flood = flood
        self._rounds = rounds
        self._lost: dict[str, int] = {}

    def rows(self) -> Generator[Row, None, None]:
        with rigs(self._programs, ["xdp_sink"]) as (contenders, missing):
            for rig in contenders.values():
                rig.switch.add_flows(["in_port=1,actions=controller:65535"])
            for key, text, packets, window, aim in (
                ("window", f"{WINDOW} on their way", self._packets, WINDOW, Aim(">=", 1)),
                ("flood", "flooded", self._flood, self._flood, None),
            ):
                self._lost = dict.fromkeys(contenders, 0)
                samples = in_turn(
                    turns(list(contenders), lambda name: self._rate(contenders[name], packets, window)),  # noqa: B023
                    self._rounds,
                )
                sent = packets * self._rounds
                notes = [f"{name} lost {lost / sent:.1%} of {sent:,}" for name, lost in self._lost.items()]
                note = "; ".join([*([missing] if missing else []), *notes])
                name = f"{OURS}, packet-ins, {text}"
                yield Row(f"packet_in.{key}", GROUP, name, "1/s", samples[OURS], OVS, samples.get(OVS, []), aim, note)

    def _rate(self, rig: Rig, packets: int, window: int) -> float:
        """A second, over those that came."""
        frame = frames.frame(0)
        with rig.controller() as controller:
            sent = lost = 0
            start = progress = last = time.perf_counter()
            while controller.packet_ins + lost < packets:
                before = controller.packet_ins
                while sent < packets and sent - before - lost < window:
                    rig.wire.send(frame)
                    sent += 1
                    if sent % WINDOW == 0:
                        controller.poll()
                controller.poll()
                now = time.perf_counter()
                if controller.packet_ins != before:
                    progress = last = now
                elif now - progress > STALL_SECONDS:
                    lost, progress = sent - controller.packet_ins, now
            if controller.packet_ins > sent:
                raise BenchError(f"{rig.name}: {controller.packet_ins:,} packet-ins for {sent:,} packets")
            self._lost[rig.name] += packets - controller.packet_ins
            return controller.packet_ins / max(last - start, 1e-9)
